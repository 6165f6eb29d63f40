//! An agent of few words on the other end of a pipe. One that says who we are is in `tests/it`.

use bytes::Bytes;
use rcgen::{CertificateParams, KeyPair};
use tokio::task::LocalSet;

use super::super::pipe;
use super::*;

fn taker() -> Taker {
    Taker { identity: Default::default(), stats: Default::default() }
}

/// Why it ended, how long that took, and what was refused meanwhile.
async fn listened(answer: pipe::Answer) -> (ApiError, Duration, u64) {
    let (taker, begun) = (taker(), Instant::now());
    let listening = async { listen(pipe::channel(|end| pipe::answer(end, answer)).await, &taker).await };
    let ended = LocalSet::new().run_until(listening).await;
    (ended, begun.elapsed(), taker.stats.identity_failures.get())
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_says_nothing_is_given_up() {
    for answer in [None, Some((vec![], None)), Some((vec![Bytes::from_static(&[0, 0])], None))] {
        let (ended, took, _) = listened(answer).await;
        assert!(matches!(ended, ApiError::Silent), "{ended:?}");
        assert!(took >= PATIENCE && took <= PATIENCE * 2, "{took:?}");
    }
}

/// What ends the stream, with this code.
#[track_caller]
fn check((ended, took, _): (ApiError, Duration, u64), expected: Code) {
    let ApiError::Refused(status) = ended else { panic!("{ended:?}") };
    assert_eq!((status.code(), took), (expected, Duration::ZERO), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn what_ends_a_stream() {
    check(listened(Some((vec![], Some(7)))).await, Code::PermissionDenied);
    // It says that it will be huge; that is enough. What is as large as may be is waited for.
    check(listened(Some((vec![pipe::head(LARGEST + 1).to_vec().into()], None))).await, Code::OutOfRange);
    let (ended, _, _) = listened(Some((vec![pipe::head(LARGEST).to_vec().into()], None))).await;
    assert!(matches!(ended, ApiError::Silent), "{ended:?}");
    check(listened(Some((vec![pipe::frame(&[0xff; 9])], None))).await, Code::Internal);
    // What can be read and is of no use ends nothing, and counts.
    let nobody = vec![pipe::frame(&[]); 3];
    let (ended, _, refused) = listened(Some((nobody, Some(0)))).await;
    assert!(matches!(ended, ApiError::Ended), "{ended:?}");
    assert_eq!(refused, 3);
}

fn certificate() -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    CertificateParams::default().self_signed(&key).unwrap().der().to_vec()
}

/// A response that can be read, after this was done to it.
fn response(change: impl FnOnce(&mut SvidResponse, &mut Svid)) -> Result<Offer, ApiError> {
    let mut svid = Svid {
        spiffe_id: "spiffe://a.test/app".to_owned(),
        x509_svid: [certificate(), certificate()].concat(),
        x509_svid_key: vec![1, 2, 3],
        bundle: certificate(),
    };
    let federated_bundles = [("spiffe://b.test".to_owned(), [certificate(), certificate()].concat())].into();
    let mut response = SvidResponse { svids: vec![], crl: vec![vec![4]], federated_bundles };
    change(&mut response, &mut svid);
    response.svids.insert(0, svid);
    offer(response)
}

#[test]
fn a_response_is_taken_apart() {
    let offer = response(|response, _| {
        let mut other = Svid::default();
        other.spiffe_id.push_str("spiffe://c.test/other");
        // Of several identities the first is the default.
        response.svids.push(other);
    })
    .unwrap();
    let Offer { chain, key, bundles, crls, is_fresh: _ } = &offer;
    assert_eq!((chain.len(), key.secret_der(), crls.len()), (2, &[1, 2, 3][..], 1));
    let bundles: Vec<_> = bundles.iter().map(|(domain, roots)| (domain.to_string(), roots.len())).collect();
    assert_eq!(bundles, [("a.test".to_owned(), 1), ("b.test".to_owned(), 2)]);
}

/// What cannot be read, or has to be there and is not.
#[track_caller]
fn malformed(expected: &str, change: impl FnOnce(&mut SvidResponse, &mut Svid)) {
    let error = response(change).unwrap_err();
    assert!(matches!(error, ApiError::Malformed(field) if field == expected), "{expected}: {error:?}");
}

#[test]
fn what_must_be_there_is_asked_for() {
    malformed("spiffe_id", |_, svid| svid.spiffe_id.clear());
    malformed("x509_svid", |_, svid| svid.x509_svid.clear());
    malformed("x509_svid", |_, svid| svid.x509_svid.truncate(100));
    malformed("bundle", |_, svid| svid.bundle.clear());
    malformed("bundle", |_, svid| svid.bundle.push(0x30));
    malformed("federated_bundles", |response, _| {
        response.federated_bundles.insert("b.test".to_owned(), vec![0x30]);
    });
    malformed("federated_bundles", |response, _| {
        response.federated_bundles.insert("B.TEST".to_owned(), certificate());
    });
    // One that was taken back takes nothing else with it.
    let offer = response(|response, _| {
        response.federated_bundles.insert("spiffe://b.test".to_owned(), vec![]);
    });
    assert_eq!(offer.unwrap().bundles.len(), 1);
}

#[test]
fn keys_are_not_shown() {
    let mut svid = Svid::default();
    svid.x509_svid_key = vec![213, 217];
    let response = SvidResponse { svids: vec![svid], ..SvidResponse::default() };
    assert!(!format!("{response:?}").contains("213"));
    let offer = self::response(|_, svid| svid.x509_svid_key = vec![213, 217]).unwrap();
    let (shown, key) = (format!("{offer:?}"), format!("{:?}", offer.key));
    assert!(!shown.contains("key") && !key.contains("213") && !key.contains("d5d9"), "{shown} {key}");
}

/// An agent that hangs up after each answer is asked ever more seldom; one that stayed is asked again at once.
#[test]
fn an_agent_that_hangs_up_is_not_asked_in_a_loop() {
    let mut backoff = Backoff::new(WAITS);
    let waits: Vec<_> = [0, 0, 0, 2, 0]
        .map(|seconds| {
            after(&mut backoff, Duration::from_secs(seconds));
            backoff.next(u64::MAX).as_millis()
        })
        .into();
    assert_eq!(waits, [100, 200, 400, 100, 200]);
}
