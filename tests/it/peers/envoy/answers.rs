//! What the origin answers when it is not the usual thing, to clients of either version.

use super::cases::{Case, Sent, TRAILERS, raw};

/// The name, the method, the answer. It closes after one that says `Connection: close`.
type Row = (&'static str, &'static str, &'static str);

const ANSWERS: &[Row] = &[
    ("HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nETag: \"x\"\r\n\r\n"),
    ("HEAD, chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("204", "GET", "HTTP/1.1 204 No Content\r\nX-Back: yes\r\n\r\n"),
    ("204 with a length", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
    ("304", "GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"),
    ("304 with a length", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"x\"\r\n\r\n"),
    ("redirect", "GET", "HTTP/1.1 302 Found\r\nLocation: /b c?x#y\r\nContent-Length: 0\r\n\r\n"),
    ("no reason", "GET", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"),
    ("unknown status", "GET", "HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nok"),
    ("500", "GET", "HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\noh"),
    ("chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("trailers", "GET", TRAILERS),
    ("until close", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end"),
    ("cut short", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nab"),
    ("HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"),
    ("cookies", "GET", "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n"),
    (
        "hop by hop",
        "GET",
        "HTTP/1.1 200 OK\r\nConnection: X-Back\r\nX-Back: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "upgrade is offered",
        "GET",
        "HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
    ),
    ("100 first", "GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    (
        "103 first",
        "GET",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ),
    (
        "101 without being asked",
        "GET",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: close, upgrade\r\nUpgrade: x\r\n\r\n",
    ),
    (
        "both framings",
        "GET",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "two lengths",
        "GET",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    ),
    ("not HTTP", "GET", "hello\r\n\r\nConnection: close"),
    ("none", "GET", "Connection: close"),
    ("folded", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nX-Back: 1\r\n 2\r\nContent-Length: 0\r\n\r\n"),
];

/// Each to HTTP/1.1 and to HTTP/2.
pub(super) fn answers() -> Vec<Case> {
    let http1 = |&(name, method, reply): &Row| {
        let start = if method == "HEAD" { "HEAD /a HTTP/1.1" } else { "GET /a HTTP/1.1" };
        let sent = Sent::Raw { start, fields: "Host: test", body: "" };
        Case { name: format!("answer: {name}"), sent, reply }
    };
    let http2 = |&(name, method, reply): &Row| {
        let sent = Sent::H2 { method, uri: "http://test/a", fields: &[], body: "", trailers: &[] };
        Case { name: format!("answer to h2: {name}"), sent, reply }
    };
    let mut all: Vec<Case> = ANSWERS.iter().map(http1).chain(ANSWERS.iter().map(http2)).collect();
    let wants = "Host: test\r\nConnection: TE\r\nTE: trailers";
    all.push(Case {
        reply: TRAILERS,
        ..raw("answer: trailers that are wanted", "GET /a HTTP/1.1", wants, "")
    });
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let old = raw("answer: to HTTP/1.0, chunked", "GET /a HTTP/1.0", "Host: test", "");
    all.push(Case { reply: chunked, ..old });
    all
}
