use std::num::NonZeroU32;

use bytes::Bytes;
use http::{Request, Response};
use outrigger_proto::model::{HealthCheck, Name};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::observe::Registry;
use crate::upstream::Clusters;

const LONG: Duration = Duration::from_secs(10);

fn job(address: Address, probe: Probe, protocol: Protocol) -> Job {
    let cluster = Clusters::new(Registry::default(), tokio::time::Instant::now())
        .get_or_make(&Name::new("app").expect("a name"));
    let check = HealthCheck { timeout: LONG, ..HealthCheck::new(probe) };
    let endpoint = Arc::new(Endpoint::new(1, address, NonZeroU32::MIN.get()));
    Job { endpoint, plan: Arc::new(Plan { cluster, check, protocol, tls: None }) }
}

/// A server that takes one connection, reads a head, writes these bytes and closes; where it is, and what it read.
async fn server(answer: &'static [u8]) -> (Address, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Ip(listener.local_addr().unwrap());
    let (said, seen) = unbounded_channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        said.send(String::from_utf8(head).unwrap()).unwrap();
        // The client may have enough before it has all.
        let _ = stream.write_all(answer).await;
    });
    (address, seen)
}

async fn check_h1(answer: &'static [u8], expected: Outcome) {
    let (address, _seen) = server(answer).await;
    let job = job(address, Probe::Http("/healthz".into()), Protocol::Auto);
    assert_eq!(probe(job).await, expected, "{}", String::from_utf8_lossy(&answer[..answer.len().min(60)]));
}

#[tokio::test]
async fn http1_statuses_decide_of_whole_answers() {
    check_h1(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Outcome::Passed).await;
    check_h1(b"HTTP/1.1 204 No Content\r\n\r\n", Outcome::Passed).await;
    check_h1(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", Outcome::Passed).await;
    check_h1(b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", Outcome::Status(302)).await;
    check_h1(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", Outcome::Status(500)).await;
    check_h1(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\ncut", Outcome::Closed).await;
    check_h1(b"HTTP/1.1 200 OK\r\ncontent-le", Outcome::Closed).await;
    check_h1(b"", Outcome::Closed).await;
    check_h1(b"SSH-2.0-OpenSSH_9.2\r\n", Outcome::Protocol).await;
}

#[tokio::test]
async fn a_long_body_is_given_up_and_well() {
    let long =
        [b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n".to_vec(), vec![b'x'; 4 * MAX_BODY]].concat();
    check_h1(long.leak(), Outcome::Passed).await;
}

#[tokio::test]
async fn a_huge_head_is_refused() {
    let huge = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; 2 * MAX_HEAD as usize]].concat();
    check_h1(huge.leak(), Outcome::Protocol).await;
}

#[tokio::test]
async fn a_request_says_who_asks_and_that_it_is_the_last() {
    let (address, mut seen) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let host = address.to_string();
    assert_eq!(
        probe(job(address, Probe::Http("/healthz?deep=1".into()), Protocol::Http1)).await,
        Outcome::Passed
    );
    let head = seen.recv().await.unwrap();
    let agent = format!("outrigger-health/{}", env!("CARGO_PKG_VERSION"));
    let expected = format!(
        "GET /healthz?deep=1 HTTP/1.1\r\nuser-agent: {agent}\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(head, expected);
}

#[tokio::test]
async fn nobody_there_is_refused_by_either_kind_of_address() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Ip(gone.local_addr().unwrap());
    drop(gone);
    for probed in [Probe::Tcp, Probe::Http("/".into()), Probe::Grpc("".into())] {
        assert_eq!(probe(job(address.clone(), probed, Protocol::Auto)).await, Outcome::Refused);
    }
    let nowhere = Address::Unix("/nonexistent/outrigger.sock".into());
    assert_eq!(probe(job(nowhere, Probe::Tcp, Protocol::Auto)).await, Outcome::Refused);
}

#[tokio::test]
async fn what_we_lack_ourselves_is_no_failure_of_theirs() {
    let rows = [
        (Errno::MFILE, Outcome::NotAsked),
        (Errno::ADDRNOTAVAIL, Outcome::NotAsked),
        (Errno::CONNREFUSED, Outcome::Refused),
        (Errno::HOSTUNREACH, Outcome::Unreachable),
        (Errno::TIMEDOUT, Outcome::TimedOut),
    ];
    for (errno, expected) in rows {
        assert_eq!(unconnected(&errno.into()), expected, "{errno}");
    }
}

#[tokio::test]
async fn a_connection_is_enough_for_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Ip(listener.local_addr().unwrap());
    assert_eq!(probe(job(address, Probe::Tcp, Protocol::Auto)).await, Outcome::Passed);
    let (mut stream, _) = listener.accept().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "nothing is sent");
}

#[tokio::test]
async fn silence_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Ip(listener.local_addr().unwrap());
    for (probed, protocol) in [
        (Probe::Http("/".into()), Protocol::Http1),
        (Probe::Http("/".into()), Protocol::Http2),
        (Probe::Grpc("".into()), Protocol::Auto),
    ] {
        let Job { endpoint, plan } = job(address.clone(), probed, protocol);
        let check = HealthCheck { timeout: Duration::from_millis(30), ..plan.check.clone() };
        let plan = Arc::new(Plan { check, ..(*plan).clone() });
        let job = Job { endpoint, plan };
        // On a busy machine the timer may come too late to mean anything.
        let outcome = loop {
            match probe(job.clone()).await {
                Outcome::NotAsked => {}
                outcome => break outcome,
            }
        };
        assert_eq!(outcome, Outcome::TimedOut, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_stall_of_ours_is_no_failure_of_theirs() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let Job { endpoint, plan } =
        job(Address::Ip(listener.local_addr().unwrap()), Probe::Http("/".into()), Protocol::Auto);
    let check = HealthCheck { timeout: Duration::from_millis(30), ..plan.check.clone() };
    let plan = Arc::new(Plan { check, ..(*plan).clone() });
    let stall = async { std::thread::sleep(3 * LATE) };
    let (outcome, ()) = tokio::join!(probe(Job { endpoint, plan }), stall);
    assert_eq!(outcome, Outcome::NotAsked);
}

/// An answer over HTTP/2: head, body, and trailers.
type Answering = (Response<()>, &'static [u8], Option<http::HeaderMap>);

/// An HTTP/2 server for one request, and then until the client's end; what it was asked.
async fn serve_h2<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    stream: S,
    (head, body, trailers): Answering,
    asked: UnboundedSender<(Request<()>, Bytes)>,
) -> Result<(), ::h2::Error> {
    let mut connection = ::h2::server::handshake(stream).await.unwrap();
    let (request, mut respond) = connection.accept().await.unwrap().unwrap();
    let answering = async move {
        let (request, mut coming) = request.into_parts();
        let mut message = Vec::new();
        while let Some(data) = coming.data().await {
            message.extend_from_slice(&data.unwrap());
        }
        asked.send((Request::from_parts(request, ()), message.into())).unwrap();
        let mut stream = respond.send_response(head, false).unwrap();
        stream.send_data(Bytes::from_static(body), trailers.is_none()).unwrap();
        if let Some(trailers) = trailers {
            stream.send_trailers(trailers).unwrap();
        }
    };
    let ((), end) = tokio::join!(answering, async { connection.accept().await.transpose() });
    end.map(|another| assert!(another.is_none()))
}

async fn check_h2(probed: Probe, answer: Answering) -> (Outcome, Request<()>, Bytes) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Ip(listener.local_addr().unwrap());
    let (asked, mut seen) = unbounded_channel();
    let server =
        tokio::spawn(async move { serve_h2(listener.accept().await.unwrap().0, answer, asked).await });
    let outcome = probe(job(address, probed, Protocol::Http2)).await;
    server.await.unwrap().expect("the client says GOAWAY before it goes");
    let (request, message) = seen.recv().await.unwrap();
    (outcome, request, message)
}

fn head(status: u16) -> Response<()> {
    Response::builder().status(status).body(()).unwrap()
}

fn trailer(status: &str) -> Option<http::HeaderMap> {
    let pair = (http::HeaderName::from_static("grpc-status"), status.parse().unwrap());
    Some([pair].into_iter().collect())
}

#[tokio::test]
async fn http2_is_asked_in_http2() {
    let (outcome, request, _) = check_h2(Probe::Http("/healthz".into()), (head(200), b"ok", None)).await;
    assert_eq!(outcome, Outcome::Passed);
    assert_eq!((request.method().as_str(), request.uri().path()), ("GET", "/healthz"));
    assert!(request.uri().authority().unwrap().as_str().starts_with("127.0.0.1:"));
    assert_eq!(request.headers()[header::USER_AGENT], USER_AGENT);
    let (outcome, ..) = check_h2(Probe::Http("/healthz".into()), (head(503), b"", None)).await;
    assert_eq!(outcome, Outcome::Status(503));
}

#[tokio::test]
async fn grpc_is_asked_for_the_service() {
    let (outcome, request, message) =
        check_h2(Probe::Grpc("shop".into()), (head(200), &[0, 0, 0, 0, 2, 8, 1], trailer("0"))).await;
    assert_eq!(outcome, Outcome::Passed);
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    assert_eq!(request.headers()["te"], "trailers");
    assert_eq!(request.headers()["grpc-timeout"], "10000000u");
    assert_eq!(message[..], *b"\0\0\0\0\x06\x0a\x04shop");
    let (outcome, ..) =
        check_h2(Probe::Grpc("".into()), (head(200), &[0, 0, 0, 0, 2, 8, 2], trailer("0"))).await;
    assert_eq!(outcome, Outcome::NotServing(2));
    let (outcome, ..) = check_h2(Probe::Grpc("".into()), (head(200), b"", trailer("12"))).await;
    assert_eq!(outcome, Outcome::Grpc(12));
}

#[tokio::test]
async fn a_server_of_http1_does_not_pass_as_http2() {
    let (address, _seen) = server(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
    let outcome = probe(job(address, Probe::Http("/".into()), Protocol::Http2)).await;
    assert_eq!(outcome, Outcome::Protocol);
}

#[tokio::test]
async fn a_unix_socket_is_asked_too() {
    let folder = std::env::temp_dir().join(format!("outrigger-health-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let answer = (head(200), &[0, 0, 0, 0, 2, 8, 1][..], trailer("0"));
    let (asked, mut seen) = unbounded_channel();
    let server =
        tokio::spawn(async move { serve_h2(listener.accept().await.unwrap().0, answer, asked).await });
    let outcome = probe(job(Address::Unix(path), Probe::Grpc("".into()), Protocol::Auto)).await;
    std::fs::remove_dir_all(&folder).unwrap();
    // How it ends is not looked at: what the server says last meets a socket that is closed.
    drop(server);
    assert_eq!(outcome, Outcome::Passed);
    assert_eq!(seen.recv().await.unwrap().0.uri().authority().unwrap(), "localhost");
}
