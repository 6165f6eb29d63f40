//! Every judgement is asked for three ways: the bytes whole, one by one, and cut once at every place.
//! A refused row is written in two parts, and the violation must be seen at the first byte of the second.

mod differential;
pub(crate) mod generated;
mod requests;

use super::{Guard, Phase, Refusal, ResponseTo, Violation};
use Phase::{BetweenMessages, Body, Tunnel};

/// What a guard made of a stream, and where in the stream.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    refused: Option<(Violation, usize)>,
    messages: u64,
    phase: Phase,
}

fn feed_in<'a>(mut guard: Guard, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut before = 0;
    let mut refused = None;
    for piece in pieces {
        if let Err(Refusal { violation, at }) = guard.feed(piece) {
            assert!(at < piece.len(), "{violation:?} seen at {at}, outside of what was fed");
            assert_eq!(guard.feed(b"x"), Err(Refusal { violation, at: 0 }), "a guard stays failed");
            refused = Some((violation, before + at));
            break;
        }
        before += piece.len();
    }
    Outcome { refused, messages: guard.messages(), phase: guard.phase() }
}

#[track_caller]
fn judge(guard: fn() -> Guard, bytes: &[u8]) -> Outcome {
    let whole = feed_in(guard(), [bytes]);
    assert_eq!(feed_in(guard(), bytes.chunks(1)), whole, "one by one: {}", bytes.escape_ascii());
    for cut in 1..bytes.len().min(400) {
        let (left, right) = bytes.split_at(cut);
        assert_eq!(feed_in(guard(), [left, right]), whole, "cut at {cut}: {}", bytes.escape_ascii());
    }
    whole
}

#[track_caller]
fn accepts(guard: fn() -> Guard, bytes: &[u8], messages: u64, phase: Phase) {
    let want = Outcome { refused: None, messages, phase };
    assert_eq!(judge(guard, bytes), want, "{}", bytes.escape_ascii());
}

#[track_caller]
fn refuses(guard: fn() -> Guard, sound: &[u8], doubtful: &[u8], violation: Violation) {
    let bytes = [sound, doubtful].concat();
    let outcome = judge(guard, &bytes);
    assert_eq!(outcome.refused, Some((violation, sound.len())), "{}", bytes.escape_ascii());
}

fn expecting(request: ResponseTo) -> Guard {
    let mut guard = Guard::responses();
    guard.expect_response_to(request);
    guard
}

fn answer() -> Guard {
    expecting(ResponseTo::Other)
}

fn head_answer() -> Guard {
    expecting(ResponseTo::Head)
}

fn connect_answer() -> Guard {
    expecting(ResponseTo::from(&http::Method::CONNECT))
}

const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn sound_chunks() {
    let longest = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(255));
    let most = format!("1;{}\r\nx\r\n", "e".repeat(255)).repeat(64) + "0\r\n\r\n";
    for (body, messages, phase) in [
        ("5\r\nhello\r\n0\r\n\r\n", 1, BetweenMessages),
        ("a\r\n0123456789\r\nA\r\n0\r\n\r\n\r\n\r\n\0\r\n0\r\n\r\n", 1, BetweenMessages),
        ("0000000000000005\r\nhello\r\n000\r\n\r\n", 1, BetweenMessages),
        ("7fffffffffffffff\r\nhello", 1, Body),
        ("5;\r\nhello\r\n0;a=b;c=\"d \\\" \u{e9}\"\t \r\n\r\n", 1, BetweenMessages),
        ("0\r\nX-Sum: 1\r\nHostess:\r\n\r\n", 1, BetweenMessages),
        ("0\r\nX-Sum: 1\r\n", 1, Body),
        ("0\r\n\r", 1, Body),
        ("0\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n", 2, BetweenMessages),
        ("0\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n", 1, Phase::Head),
        (&longest, 1, BetweenMessages),
        (&most, 1, BetweenMessages),
    ] {
        accepts(Guard::requests, (CHUNKED.to_owned() + body).as_bytes(), messages, phase);
    }
}

#[test]
fn doubtful_chunks() {
    use Violation as V;
    let long = format!("1;{}", "e".repeat(255));
    let most = format!("1;{}\r\nx\r\n", "e".repeat(255)).repeat(64) + "1";
    for (sound, doubtful, violation) in [
        ("", "\r\n", V::ChunkSize),
        ("", "\n", V::BareLf),
        ("", ";a\r\n", V::ChunkSize),
        ("", "+5\r\nhello\r\n", V::ChunkSize),
        ("", "-5\r\nhello\r\n", V::ChunkSize),
        ("", " 5\r\nhello\r\n", V::ChunkSize),
        ("0", "x5\r\nhello\r\n", V::ChunkSize),
        ("5", " \r\nhello\r\n", V::ChunkSize),
        ("5", "\t;a\r\nhello\r\n", V::ChunkSize),
        ("5", ",a\r\nhello\r\n", V::ChunkSize),
        ("5", "\0\r\nhello\r\n", V::ChunkSize),
        ("5", "\u{ff15}\r\n", V::ChunkSize),
        ("5", "\nhello\r\n", V::BareLf),
        ("5\r", "hello\r\n", V::BareCr),
        ("5;a\r", "\r\nhello\r\n", V::BareCr),
        ("5;a", "\nhello\r\n", V::ChunkExtension),
        ("5;a", "\0\r\nhello\r\n", V::ChunkExtension),
        ("5;", "\x7f\r\nhello\r\n", V::ChunkExtension),
        (&long, "e\r\nx\r\n", V::ChunkExtensionsTooLong),
        (&most, ";\r\nx\r\n", V::ChunkExtensionsTooLong),
        ("0000000000000000", "5\r\nhello\r\n", V::ChunkSizeOverflow),
        ("800000000000000", "0\r\n", V::ChunkSizeOverflow),
        ("fffffffffffffff", "f\r\n", V::ChunkSizeOverflow),
        ("1000000000000000", "5\r\n", V::ChunkSizeOverflow),
        ("5\r\nhello", "!\r\n0\r\n\r\n", V::ChunkEnd),
        ("5\r\nhello", "\n0\r\n\r\n", V::ChunkEnd),
        ("5\r\nhello\r", "0\r\n\r\n", V::ChunkEnd),
        ("5\r\nhello", "0\r\n\r\n", V::ChunkEnd),
        ("0\r\nContent-Length", ": 5\r\n\r\n", V::TrailerField),
        ("0\r\nX: y\r\ntransfer-encoding", ": chunked\r\n\r\n", V::TrailerField),
        ("0\r\nHost", ": b\r\n\r\n", V::TrailerField),
        ("0\r\n", " X: y\r\n\r\n", V::ObsFold),
        ("0\r\nX", " : y\r\n\r\n", V::SpaceInFieldName),
        ("0\r\nX: y", "\n\r\n", V::BareLf),
        ("0\r\n", "\n", V::BareLf),
        ("0\r\nX: y", "\0\r\n\r\n", V::Control),
        ("0\r\nGET", " / HTTP/1.1\r\n\r\n", V::SpaceInFieldName),
        ("0\r\n\r", "0\r\n\r\n", V::BareCr),
        ("0\r\n\r\n0", "\r\n\r\n", V::Method),
    ] {
        refuses(Guard::requests, (CHUNKED.to_owned() + sound).as_bytes(), doubtful.as_bytes(), violation);
    }
}

#[test]
fn sound_responses() {
    type Case<'a> = (fn() -> Guard, &'a [u8], u64, Phase);
    let cases: [Case<'_>; 24] = [
        (answer, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 1, BetweenMessages),
        (answer, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh", 1, Body),
        (answer, b"HTTP/1.1 200 OK\r\nHost: a\r\nHost", 0, Phase::Head),
        (answer, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 1, BetweenMessages),
        (answer, b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", 1, BetweenMessages),
        (answer, b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 1, BetweenMessages),
        (answer, b"HTTP/1.0 999 \t\xff !\r\n\r\nanything\r\n\r\n\x00", 1, Body),
        (answer, b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 1, Body),
        (
            answer,
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            1,
            BetweenMessages,
        ),
        (answer, b"HTTP/1.1 204 No Content\r\n\r\n", 1, BetweenMessages),
        (answer, b"HTTP/1.1 204 No Content\r\nContent-Length: 00\r\n\r\n", 1, BetweenMessages),
        (answer, b"HTTP/1.1 205 Reset\r\nContent-Length: 1\r\n\r\n", 1, Body),
        (answer, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 1, BetweenMessages),
        (answer, b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 1, BetweenMessages),
        (answer, b"HTTP/1.1 100 Continue\r\n\r\n", 1, BetweenMessages),
        (answer, b"HTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 2, BetweenMessages),
        (answer, b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n\x00anything", 1, Tunnel),
        (head_answer, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 1, BetweenMessages),
        (head_answer, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 1, BetweenMessages),
        (head_answer, b"HTTP/1.1 102 Wait\r\n\r\nHTTP/1.1 500 Oh\r\n\r\n", 2, BetweenMessages),
        (connect_answer, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\x16\x03", 1, Tunnel),
        (connect_answer, b"HTTP/1.0 299 OK\r\n\r\n", 1, Tunnel),
        (connect_answer, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n\n", 2, Tunnel),
        (connect_answer, b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", 1, BetweenMessages),
    ];
    for (guard, bytes, messages, phase) in cases {
        accepts(guard, bytes, messages, phase);
    }
}

#[test]
fn doubtful_responses() {
    use Violation as V;
    type Case<'a> = (fn() -> Guard, &'a [u8], &'a [u8], Violation);
    let cases: [Case<'_>; 28] = [
        (Guard::responses, b"", b"HTTP/1.1 200 OK\r\n\r\n", V::Unsolicited),
        (Guard::responses, b"", b"\r\n", V::Unsolicited),
        (answer, b"HTTP/1.1 204 No Content\r\n\r\n", b"H", V::Unsolicited),
        (answer, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1\r\n\r\n", b"x", V::Unsolicited),
        (answer, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"\r\n", V::Unsolicited),
        (head_answer, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"hi", V::Unsolicited),
        (answer, b"", b"\r\nHTTP/1.1 200 OK\r\n\r\n", V::Version),
        (answer, b"", b"<html>", V::Version),
        (answer, b"HTTP/", b"2 200\r\n\r\n", V::Version),
        (answer, b"HTTP/1.1", b"\t200 OK\r\n\r\n", V::StatusCode),
        (answer, b"HTTP/1.1 ", b" 200 OK\r\n\r\n", V::StatusCode),
        (answer, b"HTTP/1.1 ", b"099 OK\r\n\r\n", V::StatusCode),
        (answer, b"HTTP/1.1 20", b" OK\r\n\r\n", V::StatusCode),
        (answer, b"HTTP/1.1 200", b"0 OK\r\n\r\n", V::StatusCode),
        (answer, b"HTTP/1.1 200 O", b"\x00K\r\n\r\n", V::Control),
        (answer, b"HTTP/1.1 200 OK", b"\n\r\n", V::BareLf),
        (answer, b"HTTP/1.1 200", b"\n\r\n", V::BareLf),
        (answer, b"HTTP/1.1 200 OK\r", b"X: y\r\n\r\n", V::BareCr),
        (answer, b"HTTP/1.1 200 OK\r\nX: y\r\n", b" z\r\n\r\n", V::ObsFold),
        (answer, b"HTTP/1.0 200 OK\r\nTransfer-Encoding", b": chunked\r\n\r\n", V::TransferEncodingInHttp10),
        (answer, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: ", b"gzip\r\n\r\n", V::TransferEncoding),
        (
            head_answer,
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length",
            b": 2\r\n",
            V::ContentLengthRepeated,
        ),
        (answer, b"HTTP/1.1 204 No\r\nTransfer-Encoding", b": chunked\r\n\r\n", V::FramingForbidden),
        (answer, b"HTTP/1.1 204 No\r\nContent-Length: 1", b"\r\n\r\n", V::FramingForbidden),
        (answer, b"HTTP/1.1 100 Go\r\nContent-Length", b": 0\r\n\r\n", V::FramingForbidden),
        (answer, b"HTTP/1.1 101 Up\r\nTransfer-Encoding", b": chunked\r\n\r\n", V::FramingForbidden),
        (answer, b"HTTP/1.1 100 Go\r\n\r\n", b"\r\n", V::Version),
        (connect_answer, b"HTTP/1.1 204 No\r\n\r", b"\n", V::ConnectFraming),
    ];
    for (guard, sound, doubtful, violation) in cases {
        refuses(guard, sound, doubtful, violation);
    }
}

#[test]
fn responses_belong_to_requests_in_their_order() {
    fn pipelined() -> Guard {
        let mut guard = Guard::responses();
        guard.expect_response_to(ResponseTo::Head);
        guard.expect_response_to(ResponseTo::Other);
        guard.expect_response_to(ResponseTo::Connect);
        guard
    }
    let sized = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
    accepts(pipelined, &[&sized[..], sized, b"hi", sized, b"\0"].concat(), 3, Tunnel);
}

#[test]
fn as_many_responses_as_fit_are_told_apart() {
    let mut guard = Guard::responses();
    for _ in 0..3 {
        for _ in 0..32 {
            guard.expect_response_to(ResponseTo::Other);
        }
        for _ in 0..32 {
            assert_eq!(guard.feed(b"HTTP/1.1 204 No Content\r\n\r\n"), Ok(()));
        }
    }
    for _ in 0..33 {
        guard.expect_response_to(ResponseTo::Head);
    }
    assert_eq!(guard.feed(b"H"), Err(Refusal { violation: Violation::TooManyExpected, at: 0 }));
}

#[test]
fn words_are_fit_for_labels() {
    let refusal = Refusal { violation: Violation::BothFramings, at: 7 };
    assert_eq!(refusal.violation.code(), "both_framings");
    assert_eq!(refusal.to_string(), "both Content-Length and Transfer-Encoding (at byte 7 of this read)");
}

#[test]
fn a_guard_is_small() {
    assert!(size_of::<Guard>() <= 56, "{}", size_of::<Guard>());
}
