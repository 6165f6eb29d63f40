//! Towards clients: requests that are read, answers that are written.

use std::cell::RefCell;
use std::convert::Infallible;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncWriteExt, duplex};

use super::super::*;
use super::{Frames, MOST, collect, run};
use crate::body::Body;
use crate::io::framing::Violation;
use crate::io::framing::tests::generated::{damage, damaged, joined, pieces, requests};

/// A request as a server has it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Came {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) fields: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) trailers: HeaderMap,
}

impl Came {
    fn of<B>(head: &Request<B>) -> Self {
        let (method, fields) = (head.method().clone(), head.headers().clone());
        Self { method, target: head.uri().to_string(), fields, ..Self::default() }
    }
}

/// The requests that came.
fn came<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Came>, Refused> {
    let mut reader = Reader::requests(MOST);
    let mut all: Vec<Came> = Vec::new();
    let mut in_body = false;
    for piece in pieces {
        reader.put(BytesMut::from(piece));
        loop {
            if !in_body {
                let Some(head) = reader.next_head()? else { break };
                let head = read_request(&head, 100).map_err(|_| Refused::HeadTooLarge)?;
                all.push(Came::of(&head.request));
            }
            in_body = true;
            let last = all.last_mut().unwrap();
            match reader.cut()? {
                Cut::Nothing => break,
                Cut::Data(data) => last.body.extend_from_slice(&data),
                Cut::End => in_body = false,
                Cut::Trailers(trailers) => (last.trailers, in_body) = (trailers, false),
            }
        }
    }
    Ok(all)
}

/// The same by hyper's server, which refuses some, and ends where a request says that it is the last.
pub(super) async fn served(bytes: &[u8]) -> Vec<Came> {
    let (mut client, server) = duplex(1 << 20);
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    let all = RefCell::new(Vec::new());
    let service = service_fn(async |request: Request<hyper::body::Incoming>| {
        let head = Came::of(&request);
        if let Ok((body, trailers)) = collect(request.into_body()).await {
            all.borrow_mut().push(Came { body, trailers, ..head });
        }
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    let _ended = http.half_close(true).serve_connection(TokioIo::new(server), service).await;
    all.into_inner()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_comes_is_what_comes_to_hyper(
        messages in requests(),
        damages in vec(damage(), 0..3),
        sizes in vec(1..60_usize, 1..8),
    ) {
        let bytes = damaged(joined(&messages), &damages);
        let whole = came([&bytes[..]]);
        let one_by_one = came(bytes.chunks(1));
        prop_assert_eq!(one_by_one.is_ok(), whole.is_ok());
        prop_assert_eq!(came(pieces(&bytes, &sizes)).is_ok(), whole.is_ok());
        if let (Ok(whole), Ok(one_by_one)) = (whole, one_by_one) {
            prop_assert_eq!(&whole, &one_by_one);
            // Its last body may not have ended.
            let hyper = run(served(&bytes));
            prop_assert!(whole.starts_with(&hyper), "{hyper:?}\nbeyond\n{whole:?}");
            if damages.is_empty() {
                prop_assert_eq!(whole.len(), messages.len());
            }
        }
    }
}

#[test]
fn what_a_request_says_of_its_answer_is_read() {
    let asked = |head: &'static str| {
        let RequestHead { asked, expects, .. } =
            read_request(&Bytes::from_static(head.as_bytes()), 9).unwrap();
        (asked, expects)
    };
    let usual = USUAL;
    for (head, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", (usual, false)),
        ("\r\nHEAD / HTTP/1.1\r\n\r\n", (Asked { head: true, ..usual }, false)),
        ("CONNECT a:1 HTTP/1.1\r\n\r\n", (Asked { connect: true, ..usual }, false)),
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", (Asked { persists: false, ..usual }, false)),
        ("GET / HTTP/1.0\r\n\r\n", (Asked { is_1_0: true, persists: false, ..usual }, false)),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", (Asked { is_1_0: true, ..usual }, false)),
        ("GET / HTTP/1.1\r\nTE: gzip, trailers\r\n\r\n", (Asked { trailers: true, ..usual }, false)),
        ("PUT / HTTP/1.1\r\nExpect: 100-Continue\r\n\r\n", (usual, true)),
        (
            "PUT / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n",
            (Asked { is_1_0: true, persists: false, ..usual }, false),
        ),
    ] {
        assert_eq!(asked(head), expected, "{head:?}");
    }
    let head = Bytes::from_static(b"GET http://[ HTTP/1.1\r\n\r\n");
    assert_eq!(read_request(&head, 9).unwrap_err(), Malformed::Line);
}

const USUAL: Asked = Asked { head: false, connect: false, is_1_0: false, persists: true, trailers: false };

fn full() -> Body {
    Body::full(Bytes::from_static(b"ab"))
}

fn streamed() -> Body {
    Body::source(Box::pin(Frames { frames: Vec::new(), waits: false, sized: false }))
}

/// The head that is written of an answer with this field, a line at a time, and what comes of it.
#[track_caller]
fn answers(
    asked: Asked,
    (status, field, body): (u16, &str, Body),
    (lines, framing, persists): (&str, Framing, bool),
) {
    let mut response = Response::builder().status(status);
    if let Some((name, value)) = field.split_once(": ") {
        response = response.header(name, value);
    }
    let mut out = Vec::new();
    let got =
        write_response(&mut out, &response.body(body).unwrap(), asked, (None, b"D", |_: &mut Vec<u8>| {}));
    assert_eq!(String::from_utf8(out).unwrap(), format!("{}\r\n\r\n", lines.replace('|', "\r\n")));
    assert_eq!(got, (framing, persists));
}

#[test]
fn bodies_of_answers_are_framed_as_they_are_known() {
    let (none, two, nine) = (Framing::Length(0), Framing::Length(2), Framing::Length(9));
    let chunked = Framing::Chunked { trailers: false };
    let ok = "HTTP/1.1 200 OK";
    let rows = [
        (200, "", full(), format!("{ok}|content-length: 2|date: D"), two),
        (200, "date: x", full(), format!("{ok}|date: x|content-length: 2"), two),
        (200, "", streamed(), format!("{ok}|transfer-encoding: chunked|date: D"), chunked),
        (200, "", Body::empty(), format!("{ok}|content-length: 0|date: D"), none),
        // Whoever takes it sees that it is cut short.
        (200, "content-length: 9", full(), format!("{ok}|content-length: 9|date: D"), nine),
        (204, "", Body::empty(), "HTTP/1.1 204 No Content|date: D".to_owned(), none),
    ];
    for (status, field, body, lines, framing) in rows {
        answers(USUAL, (status, field, body), (&lines, framing, true));
    }
    let answer = (304, "content-length: 9", Body::empty());
    answers(USUAL, answer, ("HTTP/1.1 304 Not Modified|content-length: 9|date: D", none, true));
    let head = Asked { head: true, ..USUAL };
    let answer = (200, "content-length: 9", Body::empty());
    answers(head, answer, ("HTTP/1.1 200 OK|content-length: 9|date: D", none, true));
    let tunnel = Asked { connect: true, ..USUAL };
    answers(tunnel, (200, "", Body::empty()), ("HTTP/1.1 200 OK|date: D", none, false));
    answers(tunnel, (200, "content-length: 9", full()), ("HTTP/1.1 200 OK|date: D", none, false));
    let switch = "HTTP/1.1 101 Switching Protocols|connection: upgrade";
    answers(USUAL, (101, "connection: upgrade", Body::empty()), (switch, none, true));
    let trailers = Asked { trailers: true, ..USUAL };
    let lines = format!("{ok}|transfer-encoding: chunked|date: D");
    answers(trailers, (200, "", streamed()), (&lines, Framing::Chunked { trailers: true }, true));
}

#[test]
fn answers_say_whether_the_connection_persists() {
    let two = Framing::Length(2);
    let last = Asked { persists: false, ..USUAL };
    let said = "HTTP/1.1 200 OK|connection: close|content-length: 2|date: D";
    answers(USUAL, (200, "connection: close", full()), (said, two, false));
    let added = "HTTP/1.1 200 OK|content-length: 2|connection: close|date: D";
    answers(last, (200, "", full()), (added, two, false));
    let old = Asked { is_1_0: true, ..USUAL };
    let kept = "HTTP/1.0 200 OK|content-length: 2|connection: keep-alive|date: D";
    answers(old, (200, "", full()), (kept, two, true));
    let until_close = ("HTTP/1.0 200 OK|connection: close|date: D", Framing::UntilClose, false);
    answers(old, (200, "", streamed()), until_close);
    answers(Asked { persists: false, ..old }, (200, "", streamed()), until_close);
}

#[test]
fn once_refused_all_is() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut reader = Reader::requests(MOST);
    reader.put(BytesMut::from(&*format!("{head}0\r\n{}\r\n", "a: b\r\n".repeat(101))));
    assert!(reader.next_head().unwrap().is_some());
    let refused = Err(Refused::Framing(Violation::Trailers));
    assert_eq!((reader.cut(), reader.cut()), (refused.clone(), refused));
    let mut reader = Reader::requests(MOST);
    reader.put(BytesMut::from(&*format!("GET /{}", "a".repeat(MOST))));
    assert_eq!(reader.next_head(), Err(Refused::HeadTooLarge));
    assert_eq!(reader.next_head(), Err(Refused::HeadTooLarge));
}

#[test]
fn an_empty_line_is_of_no_message() {
    let mut reader = Reader::requests(MOST);
    reader.put(BytesMut::from("\r\n"));
    assert_eq!(reader.next_head(), Ok(None));
    assert_eq!(reader.into_rest(), "");
}
