//! A signing service that hangs, says too much or no, on the other end of a pipe. One that signs is in `tests/it`.

use bytes::Bytes;
use prost::Message as _;
use tokio::io::DuplexStream;
use tokio::task::LocalSet;

use super::super::pipe;
use super::*;

/// What comes of one exchange, and how long it took.
async fn exchanged<F: Future + 'static>(
    server: impl FnOnce(DuplexStream) -> F,
) -> (Result<SignResponse, CsrError>, Duration) {
    let begun = Instant::now();
    let request = Request::new(SignRequest { csr: vec![1], lifetime_seconds: 60 });
    let connecting = async { Ok(pipe::channel(server).await) };
    let result = LocalSet::new().run_until(exchange(connecting, request)).await;
    (result, begun.elapsed())
}

/// The same, where this is answered.
async fn answered(bytes: Vec<Bytes>, status: Option<u16>) -> (Result<SignResponse, CsrError>, Duration) {
    exchanged(|end| pipe::answer(end, Some((bytes, status)))).await
}

fn code(result: Result<SignResponse, CsrError>) -> Option<Code> {
    match result {
        Err(CsrError::Refused(status)) => Some(status.code()),
        Err(_) | Ok(_) => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_is_given_up() {
    #[track_caller]
    fn check((result, took): (Result<SignResponse, CsrError>, Duration)) {
        assert!(matches!(result, Err(CsrError::Silent)), "{result:?}");
        assert!(took >= PATIENCE && took < PATIENCE * 2, "{took:?}");
    }
    // It does not even greet; it takes the request; it begins to answer, then to send a message.
    check(exchanged(|end| async move { (end, std::future::pending::<()>().await) }).await);
    check(exchanged(|end| pipe::answer(end, None)).await);
    check(answered(vec![], None).await);
    check(answered(vec![Bytes::from_static(&[0, 0])], None).await);
}

#[tokio::test(start_paused = true)]
async fn answers_are_bounded_and_read() {
    let response = SignResponse { chain: vec![vec![7]], ..SignResponse::default() };
    let (result, _) = answered(vec![pipe::frame(&response.encode_to_vec())], Some(0)).await;
    assert_eq!(result.unwrap(), response);
    // One that says that it will be huge is not waited for.
    let (result, took) = answered(vec![pipe::head(LARGEST + 1).to_vec().into()], None).await;
    assert_eq!((code(result), took), (Some(Code::OutOfRange), Duration::ZERO));
    let (result, _) = answered(vec![pipe::frame(&[0xff; 9])], Some(0)).await;
    assert_eq!(code(result), Some(Code::Internal));
    let (result, _) = answered(vec![], Some(7)).await;
    assert_eq!(code(result), Some(Code::PermissionDenied));
    let (result, _) = exchanged(|end| async { drop(end) }).await;
    assert!(result.is_err());
}

#[test]
fn names_of_trust_domains_are_checked() {
    let key = KeyPair::generate().unwrap();
    let named = |name: &str| SignResponse {
        bundles: [(name.to_owned(), outrigger_proto::identity::Bundle::default())].into(),
        ..SignResponse::default()
    };
    assert!(offer(named("a.test"), &key).is_ok());
    for name in ["", "A.test", "spiffe://a.test", "a/b"] {
        assert!(matches!(offer(named(name), &key), Err(CsrError::TrustDomain(_))), "{name}");
    }
}

#[tokio::test]
async fn a_file_without_a_token_is_not_sent() {
    let path = std::env::temp_dir().join(format!("outrigger-token-{}", std::process::id()));
    let token = Some(path.clone());
    let config = Csr { server: "http://127.0.0.1:1".into(), trust: None, token, lifetime: Csr::LIFETIME };
    let nobody = Arc::new(Identity::default());
    assert!(matches!(ask(&config, &nobody).await, Err(CsrError::Token(_))));
    for text in ["", " \n", "a\nb"] {
        std::fs::write(&path, text).unwrap();
        assert!(matches!(ask(&config, &nobody).await, Err(CsrError::NoToken)), "{text:?}");
    }
    std::fs::remove_file(&path).unwrap();
}
