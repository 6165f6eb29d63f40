//! Whom a certificate is signed for, by what is shown: without a connection, as what connections show is all there is to it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use outrigger_proto::model::{Authority as Settings, Verifier};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use tonic::Code;

use super::*;
use crate::plane::Keys;
use crate::store::file::File;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Gone when it is dropped.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name =
            format!("outrigger-attest-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.0.join(name), text).unwrap();
        self.0.join(name)
    }

    /// A control plane with an authority, and with what is kept here.
    fn open(&self, attest: Attest) -> Attestors {
        let trust_domain = TrustDomain::new("mesh.test").unwrap();
        let settings = Settings { trust_domain, root: None, lifetime: DAY, attest: attest.clone() };
        let store = Arc::new(File::open(&self.0.join("store.redb")).unwrap());
        let authority = Authority::open(&settings, &self.0).unwrap();
        Attestors::open(
            Plane::open(store, Keys { authority: Some(authority), ..Keys::default() }, None).unwrap(),
            &attest,
        )
        .unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn csr() -> Vec<u8> {
    let request = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap());
    request.unwrap().der().to_vec()
}

type Chain = Vec<CertificateDer<'static>>;

/// What comes of it when this is shown: a chain, or why there is none.
fn ask_with(
    attestors: &Attestors,
    csr: Vec<u8>,
    token: Option<&str>,
    chain: &Chain,
) -> Result<Chain, (Code, String)> {
    let mut request = Request::new(SignRequest { csr, lifetime_seconds: 0 });
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let peer = Peer { address: "192.0.2.7:4711".into(), chain: chain.clone().into() };
    match attestors.answer(peer, request) {
        Ok(answer) => Ok(answer.chain.into_iter().map(Into::into).collect()),
        Err(status) => Err((status.code(), status.message().to_owned())),
    }
}

fn ask(attestors: &Attestors, token: Option<&str>, chain: &Chain) -> Result<Chain, (Code, String)> {
    ask_with(attestors, csr(), token, chain)
}

#[track_caller]
fn refused(asked: Result<Chain, (Code, String)>, code: Code, expected: &str) {
    let (found, why) = asked.unwrap_err();
    assert!(why.contains(expected) && found == code, "{found:?}: {why}");
}

fn name(chain: &Chain) -> String {
    let leaf = webpki::EndEntityCert::try_from(&chain[0]).unwrap();
    leaf.valid_uri_names().collect::<Vec<_>>().join(" ")
}

/// Its id, and itself.
fn join(attestors: &Attestors, path: &str, once: bool) -> (String, String) {
    let id = SpiffeId::new(&format!("spiffe://mesh.test/{path}")).unwrap();
    create(&attestors.plane, (&id, "admin".to_owned()), DAY, once).unwrap()
}

fn nothing() -> Chain {
    Chain::new()
}

#[tokio::test]
async fn a_token_leads_to_a_certificate_and_that_to_the_next() {
    let dir = Dir::new();
    let attestors = dir.open(Attest::default());
    refused(ask(&attestors, None, &nothing()), Code::Unauthenticated, "a join token is needed");
    let (id, token) = join(&attestors, "a", false);
    let (_, other) = join(&attestors, "b", false);
    let first = ask(&attestors, Some(&token), &nothing()).unwrap();
    let second = ask(&attestors, None, &first).unwrap();
    let third = ask(&attestors, None, &second).unwrap();
    let of_other = ask(&attestors, Some(&other), &nothing()).unwrap();
    assert_eq!([name(&first), name(&third)], ["spiffe://mesh.test/a"; 2]);
    assert_eq!(name(&of_other), "spiffe://mesh.test/b");
    let entry = |id: &str| {
        let (hash, join) = attestors.plane.store().find_join(id).unwrap().unwrap();
        describe(&hash, join)
    };
    assert!(entry(&id).lives_until.is_some() && entry(&id).revoked.is_none());
    // Taken back: neither it, nor what goes back to it, leads any further; others do.
    assert!(take_back(&attestors.plane, &id, "admin".to_owned()).unwrap());
    assert!(entry(&id).revoked.is_some());
    refused(ask(&attestors, Some(&token), &nothing()), Code::Unauthenticated, "was taken back");
    for chain in [&first, &third] {
        refused(ask(&attestors, None, chain), Code::Unauthenticated, "was taken back");
        assert!(attestors.who(&Peer { address: "".into(), chain: chain.clone().into() }).is_err());
    }
    ask(&attestors, None, &of_other).unwrap();
    assert!(attestors.who(&Peer { address: "".into(), chain: of_other.clone().into() }).is_ok());
    // Who is refused by the one may be let in by the other.
    assert_eq!(name(&ask(&attestors, Some(&other), &first).unwrap()), "spiffe://mesh.test/b");
    // There is nothing more to be taken back, and half a name is none.
    for id in [&*id, "", &id[..8], "ffffffffffffffff"] {
        assert!(!take_back(&attestors.plane, id, "admin".to_owned()).unwrap(), "{id}");
    }
    // All of that is known after a restart.
    attestors.plane.close().await;
    drop(attestors);
    let attestors = dir.open(Attest::default());
    refused(ask(&attestors, None, &third), Code::Unauthenticated, "was taken back");
    ask(&attestors, None, &of_other).unwrap();
}

#[tokio::test]
async fn what_is_good_for_one_certificate_is_good_for_one() {
    let dir = Dir::new();
    let attestors = dir.open(Attest::default());
    let (_, token) = join(&attestors, "a", true);
    // What is no request does not use it up.
    let broken = ask_with(&attestors, vec![1, 2], Some(&token), &nothing());
    assert_eq!(broken.unwrap_err().0, Code::InvalidArgument);
    let first = ask(&attestors, Some(&token), &nothing()).unwrap();
    refused(ask(&attestors, Some(&token), &nothing()), Code::Unauthenticated, "good for one certificate");
    let second = ask(&attestors, Some(&token), &first).unwrap();
    ask(&attestors, None, &second).unwrap();
}

/// However many show it at once.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_show_it_at_once_one_is_signed_for() {
    let dir = Dir::new();
    let attestors = Arc::new(dir.open(Attest::default()));
    let (_, token) = join(&attestors, "a", true);
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let (attestors, token) = (attestors.clone(), token.clone());
            std::thread::spawn(move || ask(&attestors, Some(&token), &nothing()).is_ok())
        })
        .collect();
    assert_eq!(asking.into_iter().filter_map(|one| one.join().ok()).filter(|is| *is).count(), 1);
}

/// An authority of somebody else.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for these names, which lapses so many seconds from now.
fn signed(by: &CertifiedIssuer<'static, KeyPair>, names: &[&str], left: i64) -> Chain {
    let mut params = CertificateParams::default();
    let uri = |name: &&str| SanType::URI((*name).try_into().unwrap());
    params.subject_alt_names = names.iter().map(uri).collect();
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::seconds(7200);
    params.not_after = now + time::Duration::seconds(left);
    vec![params.signed_by(&KeyPair::generate().unwrap(), by).unwrap().der().clone()]
}

#[tokio::test]
async fn certificates_of_others_count_where_they_are_named() {
    let (dir, theirs, strangers) = (Dir::new(), authority(), authority());
    let file = dir.write("theirs.crt", &theirs.pem());
    let believing = || Attest { certificates: Some(file.clone()), verifier: None };
    let attestors = dir.open(believing());
    let web = ["spiffe://mesh.test/web"];
    let first = ask(&attestors, None, &signed(&theirs, &web, 60)).unwrap();
    assert_eq!(name(&first), web[0]);
    ask(&attestors, None, &first).unwrap();
    let table = [
        (signed(&strangers, &web, 60), Code::Unauthenticated, "is of nobody who is believed here"),
        (signed(&theirs, &web, -1), Code::Unauthenticated, "has lapsed"),
        (signed(&theirs, &[], 60), Code::Unauthenticated, "names no SPIFFE ID"),
        (signed(&theirs, &["https://mesh.test/web"], 60), Code::Unauthenticated, "names no SPIFFE ID"),
        (
            signed(&theirs, &["spiffe://mesh.test/a", "spiffe://mesh.test/b"], 60),
            Code::Unauthenticated,
            "several",
        ),
        (signed(&theirs, &["spiffe://mesh.test"], 60), Code::Unauthenticated, "of no workload"),
        (
            signed(&theirs, &["spiffe://other.test/web"], 60),
            Code::PermissionDenied,
            "not of the trust domain",
        ),
        (vec![theirs.der().clone()], Code::Unauthenticated, "names no SPIFFE ID"),
        (vec![vec![1, 2, 3].into()], Code::Unauthenticated, "is not good"),
    ];
    for (chain, code, expected) in table {
        refused(ask(&attestors, None, &chain), code, expected);
    }
    // As a node, one that is believed for its certificate alone is ours only with ours.
    let is_known = |attestors: &Attestors, chain: &Chain| {
        attestors.who(&Peer { address: "".into(), chain: chain.clone().into() }).is_ok()
    };
    assert!(is_known(&attestors, &first) && !is_known(&attestors, &nothing()));
    // A key is made for it, as long as it is good.
    let own = |left: i64| {
        let peer = Peer { address: "".into(), chain: signed(&theirs, &web, left).into() };
        attestors.own(&peer).map(drop).map_err(|status| status.code())
    };
    assert_eq!((own(60), own(-1)), (Ok(()), Err(Code::Unauthenticated)));
    // They are believed no more, and so is nothing that goes back to them.
    attestors.plane.close().await;
    drop(attestors);
    let attestors = dir.open(Attest::default());
    refused(ask(&attestors, None, &first), Code::Unauthenticated, "a root that is not believed any more");
    refused(
        ask(&attestors, None, &signed(&theirs, &web, 60)),
        Code::Unauthenticated,
        "is of nobody who is believed here",
    );
}

/// An HTTP service that answers so; its address, and what it is asked.
fn service(answers: Vec<String>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/attest", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = asked.clone();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = Vec::new();
            let mut buffer = [0; 4096];
            while !text.ends_with(b"}") {
                let read = stream.read(&mut buffer).unwrap_or(0);
                if read == 0 {
                    break;
                }
                text.extend_from_slice(&buffer[..read]);
            }
            seen.lock().unwrap().push(String::from_utf8(text).unwrap());
            if answer.is_empty() {
                // Until it is given up.
                let _ = stream.read(&mut buffer);
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (url, asked)
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// Nothing else is said of a node.
#[track_caller]
fn was_asked(request: &str) {
    let body: serde_json::Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    let expected = serde_json::json!({
        "token": "ticket 7", "peer": "192.0.2.7:4711", "trust_domain": "mesh.test", "spiffe_id": null,
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_verifier_says_who_that_is() {
    let table = [
        (http("200 OK", r#"{"spiffe_id":"spiffe://mesh.test/vm/7"}"#), Ok("spiffe://mesh.test/vm/7")),
        (
            http("200 OK", r#"{"refused":"not of ours"}"#),
            Err((Code::PermissionDenied, "has refused: not of ours")),
        ),
        (
            http("200 OK", r#"{"spiffe_id":"spiffe://mesh.test/a","refused":"no"}"#),
            Err((Code::PermissionDenied, "has refused: no")),
        ),
        (http("200 OK", "{}"), Err((Code::PermissionDenied, "has refused"))),
        (
            http("403 Forbidden", r#"{"refused":"not today"}"#),
            Err((Code::PermissionDenied, "has refused: not today")),
        ),
        (http("401 Unauthorized", "no"), Err((Code::PermissionDenied, "has refused"))),
        (
            http("200 OK", r#"{"spiffe_id":"spiffe://other.test/a"}"#),
            Err((Code::PermissionDenied, "is not of the trust domain")),
        ),
        // Nothing of this is a word.
        (http("200 OK", r#"{"spiffe_id":"root"}"#), Err((Code::Unavailable, "decides nothing"))),
        (http("200 OK", "yes"), Err((Code::Unavailable, "decides nothing"))),
        (http("503 Service Unavailable", ""), Err((Code::Unavailable, "decides nothing"))),
        (
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
                .to_owned(),
            Err((Code::Unavailable, "decides nothing")),
        ),
        (
            http("200 OK", &format!(r#"{{"spiffe_id":"{}"}}"#, "a".repeat(70_000))),
            Err((Code::Unavailable, "decides nothing")),
        ),
        (String::new(), Err((Code::Unavailable, "decides nothing"))),
    ];
    let (url, asked) = service(table.iter().map(|(answer, _)| answer.clone()).collect());
    let timeout = Duration::from_millis(500);
    let verifier = Verifier { url: url.into(), trust: None, timeout };
    let dir = Dir::new();
    let attestors = dir.open(Attest { certificates: None, verifier: Some(verifier) });
    let mut first = None;
    for (answer, expected) in table {
        let found = ask(&attestors, Some("ticket 7"), &nothing());
        match expected {
            Ok(id) => assert_eq!(name(first.insert(found.unwrap())), id),
            Err((code, why)) => {
                let (found, said) = found.unwrap_err();
                assert!(found == code && said.contains(why), "{found:?}: {said} after {answer}");
            }
        }
    }
    was_asked(&asked.lock().unwrap()[0]);
    // It is asked each time: its certificate alone leads no further. And what is ours is not shown to it.
    let first = first.unwrap();
    refused(ask(&attestors, None, &first), Code::Unauthenticated, "wants to see its token again");
    let made_up = ask(&attestors, Some("outrigger_made_up"), &nothing());
    refused(made_up, Code::Unauthenticated, "this join token is not known here");
    let peer = Peer { address: "".into(), chain: first.into() };
    assert!(attestors.who(&peer).is_ok() && attestors.own(&peer).is_err());
}

#[tokio::test]
async fn a_key_is_made_for_who_has_proven_who_it_is_and_for_nobody_else() {
    let dir = Dir::new();
    let attestors = dir.open(Attest::default());
    let (id, token) = join(&attestors, "envoy", false);
    let peer = |chain: &Chain| Peer { address: "".into(), chain: chain.clone().into() };
    assert!(!attestors.may_have_own(&peer(&nothing())) && attestors.own(&peer(&nothing())).is_err());
    let chain = ask(&attestors, Some(&token), &nothing()).unwrap();
    let (one, other) = (attestors.own(&peer(&chain)).unwrap(), attestors.own(&peer(&chain)).unwrap());
    assert_eq!(one.items.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["ROOTCA", "default"]);
    assert_eq!(one.items["ROOTCA"].version, other.items["ROOTCA"].version);
    assert_ne!(one.items["default"].any, other.items["default"].any);
    let share = one.renew_in.as_secs_f64() / DAY.as_secs_f64();
    assert!((0.44..0.56).contains(&share), "{share}");
    // Whoever logs one logs no key.
    let shown = format!("{one:?}");
    assert!(shown.len() < 400 && shown.contains("version"), "{shown}");
    assert!(take_back(&attestors.plane, &id, "admin".to_owned()).unwrap());
    assert!(attestors.own(&peer(&chain)).is_err());
}
