//! Towards upstreams: responses that are read, requests that are sent.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use http_body::Frame;
use hyper_util::rt::TokioIo;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};

use super::super::head::read_trailers;
use super::super::*;
use super::clients::served;
use super::{Frames, MOST, collect, run};
use crate::body::Body;
use crate::io::framing::Violation;
use crate::io::framing::tests::generated::{damage, damaged, pieces, response};
use crate::io::spelling::Speller;

/// A response as a client has it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Message {
    status: StatusCode,
    fields: HeaderMap,
    pub(crate) body: Vec<u8>,
    trailers: HeaderMap,
}

/// What came of a response: the message, if its head was whole; whether it came to its end.
fn read<'a>(method: &Method, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(Message, bool), Refused> {
    let mut reader = Reader::responses(MOST);
    reader.expect(method);
    let mut message = Message::default();
    let (mut has_head, mut is_whole) = (false, false);
    for piece in pieces {
        reader.put(BytesMut::from(piece));
        while !has_head {
            let Some(head) = reader.next_head()? else { break };
            let status = status(&head).unwrap();
            has_head = !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS;
            if has_head {
                let head = read_response(&head).map_err(|_| Refused::HeadTooLarge)?;
                message.status = head.response.status();
                message.fields = head.response.headers().clone();
            }
        }
        while has_head && !is_whole {
            match reader.cut()? {
                Cut::Nothing => break,
                Cut::Data(data) => message.body.extend_from_slice(&data),
                Cut::End => is_whole = true,
                Cut::Trailers(trailers) => (message.trailers, is_whole) = (trailers, true),
            }
        }
    }
    is_whole |= reader.is_until_close();
    Ok((message, is_whole))
}

/// What hyper's client makes of a response to a GET.
pub(crate) async fn fetched(bytes: &[u8]) -> Option<Message> {
    let (client, mut server) = duplex(1 << 20);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await.unwrap();
    let request = Request::builder().uri("/").header("host", "a").body(Body::empty()).unwrap();
    let script = async {
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(server.read_u8().await.unwrap());
        }
        server.write_all(bytes).await.unwrap();
        server.shutdown().await.unwrap();
    };
    let asking = async {
        let (head, body) = sender.send_request(request).await.ok()?.into_parts();
        let (body, trailers) = collect(body).await.ok()?;
        Some(Message { status: head.status, fields: head.headers, body, trailers })
    };
    let (fetched, (), _ended) = tokio::join!(asking, script, connection);
    fetched
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_read_is_what_hyper_reads(
        message in response(),
        damages in vec(damage(), 0..3),
        sizes in vec(1..60_usize, 1..8),
    ) {
        let bytes = damaged(message.bytes, &damages);
        let whole = read(&Method::GET, [&bytes[..]]);
        prop_assert_eq!(&read(&Method::GET, bytes.chunks(1)).is_ok(), &whole.is_ok());
        match whole {
            Ok((message, is_whole)) => {
                let in_pieces = read(&Method::GET, pieces(&bytes, &sizes));
                prop_assert_eq!(in_pieces.as_ref(), Ok(&(read(&Method::GET, bytes.chunks(1)).unwrap())));
                prop_assert_eq!(in_pieces.as_ref().map(|(message, _)| message), Ok(&message));
                // hyper waits for whoever takes a tunnel over.
                let is_tunnel = message.status == StatusCode::SWITCHING_PROTOCOLS;
                if let Some(fetched) = (!is_tunnel).then(|| run(fetched(&bytes))).flatten() {
                    prop_assert!(is_whole);
                    prop_assert_eq!(message, fetched);
                }
            }
            Err(_) => prop_assert!(!damages.is_empty()),
        }
    }
}

#[track_caller]
fn reads(method: Method, bytes: &str) -> Message {
    let (message, is_whole) = read(&method, [bytes.as_bytes()]).unwrap();
    assert!(is_whole, "{bytes:?}");
    message
}

#[test]
fn bodies_end_where_heads_say() {
    let ok = "HTTP/1.1 200 OK\r\n";
    for (method, bytes, body) in [
        (Method::GET, format!("{ok}Content-Length: 3\r\n\r\nabcHTTP"), "abc"),
        (Method::HEAD, format!("{ok}Content-Length: 3\r\n\r\n"), ""),
        (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n".to_owned(), ""),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n".to_owned(), ""),
        (Method::GET, format!("{ok}\r\nall of it"), "all of it"),
        (
            Method::GET,
            format!("{ok}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x\r\nbc\r\n0\r\n\r\n"),
            "abc",
        ),
        (Method::GET, format!("HTTP/1.1 100 Continue\r\n\r\n{ok}Content-Length: 1\r\n\r\na"), "a"),
        (Method::POST, format!("HTTP/1.1 103 x\r\nLink: a\r\n\r\n{ok}Content-Length: 1\r\n\r\na"), "a"),
    ] {
        let message = reads(method, &bytes);
        assert_eq!(String::from_utf8(message.body).unwrap(), body, "{bytes:?}");
    }
}

#[test]
fn trailers_are_read() {
    let bytes =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nGrpc-Status:  0 \r\nX: \r\n\r\n";
    let trailers = reads(Method::GET, bytes).trailers;
    assert_eq!(trailers.get("grpc-status").unwrap(), "0");
    assert_eq!(trailers.get("x").unwrap(), "");
}

#[test]
fn what_is_too_large_is_refused() {
    let long = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(MOST));
    assert_eq!(read(&Method::GET, [long.as_bytes()]), Err(Refused::HeadTooLarge));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let trailers = format!("{chunked}0\r\na: {}", "b".repeat(MOST));
    let too_large = Err(Refused::Framing(Violation::Trailers));
    assert_eq!(read(&Method::GET, [trailers.as_bytes()]), too_large);
    let many = format!("{chunked}0\r\n{}\r\n", "a: b\r\n".repeat(101));
    assert_eq!(read(&Method::GET, [many.as_bytes()]), too_large);
    let many = |n| Bytes::from(format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(n)));
    assert_eq!(read_response(&many(101)).unwrap_err(), Malformed::TooManyFields);
    assert!(read_response(&many(100)).is_ok());
    let many = |n| Bytes::from(format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(n)));
    assert_eq!(read_request(&many(6), 5).unwrap_err(), Malformed::TooManyFields);
    assert!(read_request(&many(5), 5).is_ok());
    let long = |n| Bytes::from(format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(n)));
    assert_eq!(read_request(&long(65_534), 5).unwrap_err(), Malformed::TargetTooLong);
    assert!(read_request(&long(65_000), 5).is_ok());
}

#[track_caller]
fn head_of(bytes: &'static [u8]) -> ResponseHead {
    read_response(&Bytes::from_static(bytes)).unwrap()
}

#[test]
fn connections_persist_as_their_version_and_options_say() {
    for (head, persists) in [
        (&b"HTTP/1.1 200 OK\r\n\r\n"[..], true),
        (b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", false),
        (b"HTTP/1.0 200 OK\r\n\r\n", false),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n", true),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive, close\r\n\r\n", false),
    ] {
        assert_eq!(head_of(head).persists, persists, "{}", head.escape_ascii());
    }
}

#[test]
fn a_head_is_kept_as_it_is_written() {
    let head = head_of(b"HTTP/1.1 200 Fine\r\nX-Case:\t a b \r\ny: \xff\r\n\r\n");
    assert_eq!(head.response.extensions().get::<hyper::ext::ReasonPhrase>().unwrap().as_bytes(), b"Fine");
    assert_eq!(head.response.headers()["x-case"], "a b");
    assert_eq!(head.response.headers()["y"].as_bytes(), b"\xff");
    let mut speller = Speller::new(head.spelling.as_ref());
    assert_eq!((speller.spell("x-case"), speller.spell("y")), (&b"X-Case"[..], &b"y"[..]));
    assert!(head_of(b"HTTP/1.1 200 OK\r\na: b\r\n\r\n").spelling.is_none());
    assert!(head_of(b"HTTP/1.1 200 OK\r\n\r\n").response.extensions().is_empty());
    assert_eq!(head_of(b"HTTP/1.0 200 OK\r\n\r\n").response.version(), Version::HTTP_10);
}

/// Takes so many bytes at a time, in turn, and none in between.
struct Slow {
    taken: Vec<u8>,
    sizes: Vec<usize>,
    turn: usize,
    flushed: usize,
}

impl AsyncWrite for Slow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.turn += 1;
        let size = self.sizes[self.turn % self.sizes.len()];
        if size == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let n = size.min(buf.len());
        self.taken.extend_from_slice(&buf[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.flushed = self.taken.len();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Sends a request over a connection that takes so many bytes at a time.
fn sent(mut request: Request<Body>, mut sizes: Vec<usize>) -> Result<Vec<u8>, Stopped> {
    sizes.push(100_000);
    let mut slow = Slow { taken: Vec::new(), sizes, turn: 0, flushed: 0 };
    let mut head = Vec::new();
    let framing = write_request(&mut head, &request, None);
    let mut out = Outgoing::new(head, framing);
    run(std::future::poll_fn(|cx| out.poll(cx, (&mut slow, request.body_mut()))))?;
    assert!(out.is_done() && slow.flushed == slow.taken.len());
    Ok(slow.taken)
}

fn request(frames: Vec<Frame<Bytes>>, sized: bool) -> Request<Body> {
    let body = Body::source(Box::pin(Frames { frames, waits: false, sized }));
    Request::post("/a?b").header("host", "test").header("x-a", "1").header("x-a", "2").body(body).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_sent_is_what_hyper_serves(
        lengths in vec(prop_oneof![0..50_usize, 900..1200_usize, 3000..9000_usize], 0..8),
        sizes in vec(prop_oneof![Just(0_usize), 1..50_usize, 500..5000_usize], 0..6),
        sized in any::<bool>(),
        has_trailers in any::<bool>(),
    ) {
        let data: Vec<Bytes> =
            lengths.iter().enumerate().map(|(i, length)| Bytes::from(vec![i as u8; *length])).collect();
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-t"), HeaderValue::from_static("1"))]);
        let mut frames: Vec<_> = data.iter().cloned().map(Frame::data).collect();
        if has_trailers {
            frames.push(Frame::trailers(trailers.clone()));
        }
        let bytes = sent(request(frames, sized), sizes).unwrap();
        let seen = run(served(&bytes)).pop().unwrap();
        prop_assert_eq!(seen.body, data.concat());
        prop_assert_eq!(seen.target, "/a?b");
        prop_assert_eq!(seen.fields.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        // What is told by its length has no place for trailers.
        prop_assert_eq!(seen.trailers, if has_trailers && !sized { trailers } else { HeaderMap::new() });
    }
}

#[test]
fn a_body_that_is_not_as_long_as_said_is_not_ended() {
    let short = || vec![Frame::data(Bytes::from_static(b"abc"))];
    for said in ["4", "2"] {
        let mut request = request(short(), false);
        request.headers_mut().insert("content-length", HeaderValue::from_static(said));
        assert_eq!(sent(request, vec![]), Err(Stopped::Body), "{said}");
    }
    assert!(sent(request(short(), true), vec![]).unwrap().ends_with(b"content-length: 3\r\n\r\nabc"));
}

#[test]
fn trailers_that_frame_or_route_are_left_out() {
    let names = ["host", "content-length", "transfer-encoding", "connection", "x-t"];
    let trailers = names.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1")));
    let bytes = sent(request(vec![Frame::trailers(HeaderMap::from_iter(trailers))], false), vec![]).unwrap();
    assert!(bytes.ends_with(b"\r\n\r\n0\r\nx-t: 1\r\n\r\n"), "{}", bytes.escape_ascii());
}

#[test]
fn heads_are_written_for_any_target_and_body() {
    let (bodiless, full) = (Body::empty, || Body::full(Bytes::from_static(b"ab")));
    for (method, uri, body, head, framing) in [
        ("GET", "/", bodiless(), "GET / HTTP/1.1\r\nh: v\r\n\r\n", Framing::Length(0)),
        ("POST", "/a/b?c", bodiless(), "POST /a/b?c HTTP/1.1\r\nh: v\r\n\r\n", Framing::Length(0)),
        ("OPTIONS", "*", bodiless(), "OPTIONS * HTTP/1.1\r\nh: v\r\n\r\n", Framing::Length(0)),
        ("CONNECT", "a:1", bodiless(), "CONNECT a:1 HTTP/1.1\r\nh: v\r\n\r\n", Framing::Length(0)),
        ("GET", "http://a/b", bodiless(), "GET http://a/b HTTP/1.1\r\nh: v\r\n\r\n", Framing::Length(0)),
        ("PUT", "/", full(), "PUT / HTTP/1.1\r\nh: v\r\ncontent-length: 2\r\n\r\n", Framing::Length(2)),
    ] {
        let request = Request::builder().method(method).uri(uri).header("h", "v").body(body).unwrap();
        let mut out = Vec::new();
        assert_eq!(write_request(&mut out, &request, None), framing);
        assert_eq!(String::from_utf8(out).unwrap(), head);
    }
    let request = Request::get("/").header("x-case", "x-case: a").body(Body::empty()).unwrap();
    let mut out = Vec::new();
    let spelling = head_of(b"HTTP/1.1 200 OK\r\nX-Case: a\r\n\r\n").spelling;
    write_request(&mut out, &request, spelling.as_ref());
    assert_eq!(out, b"GET / HTTP/1.1\r\nX-Case: x-case: a\r\n\r\n");
}

/// Takes a head, and then fails.
struct Broken(bool);

impl AsyncWrite for Broken {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let first = !std::mem::replace(&mut self.0, true);
        Poll::Ready(if first { Ok(buf.len()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn what_a_broken_connection_did_not_take_goes_to_nobody_else() {
    let space = Space::default();
    let mut request = request(vec![Frame::data(Bytes::from_static(b"secret"))], false);
    let mut head = space.take_write();
    let framing = write_request(&mut head, &request, None);
    let mut out = Outgoing::new(head, framing);
    let mut broken = Broken(false);
    let sent = run(std::future::poll_fn(|cx| out.poll(cx, (&mut broken, request.body_mut()))));
    assert_eq!(sent, Err(Stopped::Connection));
    assert!(out.is_done() && out.has_begun());
    space.put_write(out.take_space().unwrap());
    assert!(space.take_write().is_empty());
}

#[test]
fn a_length_is_written_once_and_only_where_it_is_one() {
    for (said, written) in [(&["5", "5"][..], "content-length: 5"), (&["x"], "transfer-encoding: chunked")] {
        let mut request = request(Vec::new(), false);
        request.headers_mut().clear();
        for value in said {
            request.headers_mut().append("content-length", HeaderValue::from_static(value));
        }
        let mut head = Vec::new();
        write_request(&mut head, &request, None);
        assert_eq!(String::from_utf8(head).unwrap(), format!("POST /a?b HTTP/1.1\r\n{written}\r\n\r\n"));
    }
}

#[test]
fn nothing_is_sent_of_a_request_that_waits_for_nobody() {
    let mut request = Request::get("/").body(Body::empty()).unwrap();
    let mut out = Outgoing::new(b"GET / HTTP/1.1\r\n\r\n".to_vec(), Framing::Length(0));
    let mut full = Slow { taken: Vec::new(), sizes: vec![0], turn: 0, flushed: 0 };
    let mut context = Context::from_waker(Waker::noop());
    assert!(out.poll(&mut context, (&mut full, request.body_mut())).is_pending());
    assert!(!out.has_begun() && !out.is_done());
}

#[test]
fn in_a_tunnel_no_head_comes() {
    let mut reader = Reader::responses(MOST);
    reader.expect(&Method::GET);
    reader.put(BytesMut::from("HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"));
    assert!(reader.next_head().unwrap().is_some());
    assert_eq!(reader.next_head(), Ok(None));
}

#[test]
fn trailers_are_none_where_there_are_none() {
    assert_eq!(read_trailers(&Bytes::from_static(b"\r\n")), Ok(HeaderMap::new()));
}
