//! Generated streams: pipelines that are sound by construction, and what becomes of them when damaged.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::string::string_regex;

use super::{Guard, Outcome, Phase, ResponseTo, feed_in};

/// A message and what a reader must find in it.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    pub(crate) body: usize,
}

fn text(pattern: &str) -> impl Strategy<Value = String> + use<> {
    string_regex(pattern).unwrap()
}

/// Field lines that do not frame, some of them nearly.
fn fields() -> impl Strategy<Value = String> {
    let near =
        select(&["Hosts: b", "Content-Lengths: 5", "Content-Type: a/b", "TE: trailers", "Cookie:"][..]);
    let any = text("X-[a-z0-9]{1,8}:[ \\t]?[ -~]{0,40}");
    vec(prop_oneof![near.prop_map(str::to_owned), any], 0..4)
        .prop_map(|lines| lines.into_iter().map(|line| line + "\r\n").collect())
}

/// Framing fields and the bytes that follow the head, with the length of the content.
fn body() -> impl Strategy<Value = (String, Vec<u8>, usize)> {
    let chunk = (vec(any::<u8>(), 1..40), text("(;[ -~]{0,12})?"), 0..3_usize, any::<bool>());
    let chunked =
        (vec(chunk, 0..4), text("(X-[a-z]{1,5}: [a-z]{0,5}\r\n){0,2}")).prop_map(|(chunks, trailers)| {
            let mut bytes = Vec::new();
            let mut length = 0;
            for (data, extension, zeros, upper) in chunks {
                let size = if upper { format!("{:X}", data.len()) } else { format!("{:x}", data.len()) };
                bytes.extend_from_slice(format!("{}{size}{extension}\r\n", "0".repeat(zeros)).as_bytes());
                bytes.extend_from_slice(&data);
                bytes.extend_from_slice(b"\r\n");
                length += data.len();
            }
            bytes.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
            ("Transfer-Encoding: chunked\r\n".to_owned(), bytes, length)
        });
    let sized = vec(any::<u8>(), 0..60)
        .prop_map(|bytes| (format!("Content-Length: {}\r\n", bytes.len()), bytes.clone(), bytes.len()));
    prop_oneof![chunked, sized]
}

fn request() -> impl Strategy<Value = Message> {
    let method = select(&["GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECTX", "M-SEARCH"][..]);
    let target = text("/[a-z0-9/?&=%.-]{0,30}");
    let framing = prop_oneof![body(), Just((String::new(), Vec::new(), 0))];
    (any::<bool>(), method, target, fields(), framing, any::<bool>()).prop_map(
        |(empty_line, method, target, fields, (framing, bytes, body), framing_first)| {
            let empty_line = if empty_line { "\r\n" } else { "" };
            let (before, after) = if framing_first { (framing, fields) } else { (fields, framing) };
            let head = format!("{empty_line}{method} {target} HTTP/1.1\r\n{before}Host: a.b\r\n{after}\r\n");
            Message { bytes: [head.into_bytes(), bytes].concat(), body }
        },
    )
}

/// Requests that follow each other on one connection.
pub(crate) fn requests() -> impl Strategy<Value = Vec<Message>> {
    vec(request(), 1..5)
}

/// A response with a body, to anything but HEAD and CONNECT.
pub(crate) fn response() -> impl Strategy<Value = Message> {
    let interim =
        select(&["", "", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Hints\r\nLink: a\r\n\r\n"][..]);
    let status = select(&["200 OK", "404 Not Found", "500", "299 "][..]);
    (interim, status, fields(), body()).prop_map(|(interim, status, fields, (framing, bytes, body))| {
        let head = format!("{interim}HTTP/1.1 {status}\r\n{fields}{framing}\r\n");
        Message { bytes: [head.into_bytes(), bytes].concat(), body }
    })
}

/// One edit of a stream, with what attacks on framing are made of.
#[derive(Debug, Clone)]
pub(crate) enum Damage {
    Replace(Index, u8),
    Remove(Index),
    Double(Index),
    Insert(Index, &'static str),
    InsertLine(Index, &'static str),
}

pub(crate) fn damage() -> impl Strategy<Value = Damage> {
    let bytes = &b"\0\t\n\r ,:;+-0159aAfx\x7f\x80\xff"[..];
    let snippets =
        &["\r\n", "\n", "\r", " ", "\t", "\r\n\r\n", "0\r\n\r\n", ",", "chunked", "00000000000000000"][..];
    let lines = &[
        "Content-Length: 3\r\n",
        "Content-Length: 0\r\n",
        "Content-Length : 3\r\n",
        "Content-Length: 3, 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Host: z\r\n",
        " folded\r\n",
        "Connection: close\r\n",
        "\r\n",
        "GET /inner HTTP/1.1\r\nHost: i\r\n\r\n",
    ][..];
    prop_oneof![
        (any::<Index>(), select(bytes)).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        any::<Index>().prop_map(Damage::Remove),
        any::<Index>().prop_map(Damage::Double),
        (any::<Index>(), select(snippets)).prop_map(|(at, snippet)| Damage::Insert(at, snippet)),
        (any::<Index>(), select(lines)).prop_map(|(at, line)| Damage::InsertLine(at, line)),
    ]
}

pub(crate) fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        if bytes.is_empty() {
            break;
        }
        match damage {
            Damage::Replace(at, byte) => *at.get_mut(&mut bytes) = *byte,
            Damage::Remove(at) => {
                bytes.remove(at.index(bytes.len()));
            }
            Damage::Double(at) => {
                let at = at.index(bytes.len());
                bytes.insert(at, bytes[at]);
            }
            Damage::Insert(at, snippet) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, snippet.bytes());
            }
            Damage::InsertLine(at, line) => {
                let from = at.index(bytes.len());
                let at =
                    bytes[from..].iter().position(|&byte| byte == b'\n').map_or(from, |lf| from + lf + 1);
                bytes.splice(at..at, line.bytes());
            }
        }
    }
    bytes
}

pub(crate) fn joined(messages: &[Message]) -> Vec<u8> {
    messages.iter().flat_map(|message| message.bytes.iter().copied()).collect()
}

pub(crate) fn pieces<'a>(bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(size.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

proptest! {
    #[test]
    fn sound_pipelines_are_counted(messages in requests(), sizes in vec(1..60_usize, 1..8)) {
        let bytes = joined(&messages);
        let want = Outcome { refused: None, messages: messages.len() as u64, phase: Phase::BetweenMessages };
        prop_assert_eq!(&feed_in(Guard::requests(), [&bytes[..]]), &want);
        prop_assert_eq!(&feed_in(Guard::requests(), pieces(&bytes, &sizes)), &want);
    }

    #[test]
    fn sound_responses_end(message in response(), sizes in vec(1..60_usize, 1..8)) {
        let mut guard = Guard::responses();
        guard.expect_response_to(ResponseTo::Other);
        let outcome = feed_in(guard, pieces(&message.bytes, &sizes));
        prop_assert_eq!(outcome.refused, None);
        prop_assert_eq!(outcome.phase, Phase::BetweenMessages);
    }

    #[test]
    fn pieces_do_not_matter(
        messages in requests(),
        damages in vec(damage(), 0..4),
        sizes in vec(1..60_usize, 1..8),
    ) {
        let bytes = damaged(joined(&messages), &damages);
        let whole = feed_in(Guard::requests(), [&bytes[..]]);
        prop_assert_eq!(&feed_in(Guard::requests(), bytes.chunks(1)), &whole);
        prop_assert_eq!(&feed_in(Guard::requests(), pieces(&bytes, &sizes)), &whole);
    }

    #[test]
    fn noise_does_not_panic(bytes in vec(any::<u8>(), 0..200), head in any::<bool>()) {
        let whole = feed_in(Guard::requests(), [&bytes[..]]);
        prop_assert_eq!(&feed_in(Guard::requests(), bytes.chunks(1)), &whole);
        let mut guard = Guard::responses();
        guard.expect_response_to(if head { ResponseTo::Head } else { ResponseTo::Connect });
        feed_in(guard, [&bytes[..]]);
    }
}
