//! What can be read in two ways is refused, in both directions (RFC 9112 sections 2.2, 5, 6, 7 and 11.2): one row a
//! rule, each on a connection of its own, with a second request behind it that must never be seen.

use outrigger_tests::{Origin, Proxy};

use crate::web;

/// What a smuggler puts behind the ambiguous request.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n";

/// Requests that get `400` and the end of the connection.
const REFUSED: &[(&str, &str)] = &[
    (
        "both framings",
        "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "both framings, the other order",
        "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    ),
    ("two lengths", "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd"),
    ("a length twice", "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd"),
    ("a list of lengths", "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4, 4\r\n\r\nabcd"),
    ("a negative length", "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n"),
    ("a length with a sign", "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: +4\r\n\r\nabcd"),
    ("a length in hexadecimal", "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 0x4\r\n\r\nabcd"),
    ("an empty length", "POST / HTTP/1.1\r\nHost: t\r\nContent-Length:\r\n\r\n"),
    ("a length that overflows", "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 18446744073709551616\r\n\r\n"),
    ("a length with something behind", "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4 x\r\n\r\nabcd"),
    ("another coding", "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n"),
    (
        "another coding before",
        "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    ("chunked not last", "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    ("identity", "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: identity\r\n\r\n"),
    ("chunked twice", "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    (
        "chunked in two fields",
        "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("xchunked", "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("quoted chunked", "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    (
        "chunked with a control character",
        "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    ("an empty coding", "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n"),
    ("chunked over HTTP/1.0", "POST / HTTP/1.0\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a folded field", "GET / HTTP/1.1\r\nHost: t\r\nX-A: b\r\n c\r\n\r\n"),
    ("a folded coding", "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("a fold before the first field", "GET / HTTP/1.1\r\n X: y\r\nHost: t\r\n\r\n"),
    ("space before the colon", "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("space before the colon of a length", "POST / HTTP/1.1\r\nHost: t\r\nContent-Length : 4\r\n\r\nabcd"),
    ("tab before the colon", "GET / HTTP/1.1\r\nHost: t\r\nX-A\t: b\r\n\r\n"),
    ("a field without a colon", "GET / HTTP/1.1\r\nHost: t\r\nnothing\r\n\r\n"),
    ("a field without a name", "GET / HTTP/1.1\r\nHost: t\r\n: b\r\n\r\n"),
    ("a name that is no token", "GET / HTTP/1.1\r\nHost: t\r\nX(A): b\r\n\r\n"),
    ("a bare line feed in the head", "GET / HTTP/1.1\r\nHost: t\nX-A: b\r\n\r\n"),
    ("bare line feeds only", "GET / HTTP/1.1\nHost: t\n\n"),
    ("a head that ends with a bare line feed", "GET / HTTP/1.1\r\nHost: t\r\n\n"),
    ("a bare carriage return in a value", "GET / HTTP/1.1\r\nHost: t\r\nX-A: b\rContent-Length: 4\r\n\r\n"),
    ("NUL in a value", "GET / HTTP/1.1\r\nHost: t\r\nX-A: b\0c\r\n\r\n"),
    ("NUL in a name", "GET / HTTP/1.1\r\nHost: t\r\nX\0A: b\r\n\r\n"),
    ("NUL in the target", "GET /\0 HTTP/1.1\r\nHost: t\r\n\r\n"),
    ("a control character in a value", "GET / HTTP/1.1\r\nHost: t\r\nX-A: \x01\r\n\r\n"),
    ("DEL in a value", "GET / HTTP/1.1\r\nHost: t\r\nX-A: \x7f\r\n\r\n"),
    ("no host", "GET / HTTP/1.1\r\nX-A: b\r\n\r\n"),
    ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("a host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    ("two hosts beside an absolute target", "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("an empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    ("a host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ("a list of hosts", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    ("a host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    ("a host with userinfo", "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n"),
    ("two spaces after the method", "GET  / HTTP/1.1\r\nHost: t\r\n\r\n"),
    ("a space in the target", "GET /a b HTTP/1.1\r\nHost: t\r\n\r\n"),
    ("a tab in the first line", "GET\t/ HTTP/1.1\r\nHost: t\r\n\r\n"),
    ("a space behind the version", "GET / HTTP/1.1 \r\nHost: t\r\n\r\n"),
    ("a space before the method", " GET / HTTP/1.1\r\nHost: t\r\n\r\n"),
    ("no version", "GET /\r\nHost: t\r\n\r\n"),
    ("another version", "GET / HTTP/1.2\r\nHost: t\r\n\r\n"),
    ("a version of the future", "GET / HTTP/3.0\r\nHost: t\r\n\r\n"),
    ("a version in small letters", "GET / http/1.1\r\nHost: t\r\n\r\n"),
    ("a method that is no token", "GE(T / HTTP/1.1\r\nHost: t\r\n\r\n"),
    ("a fragment", "GET /#a HTTP/1.1\r\nHost: t\r\n\r\n"),
    ("a target without a slash", "GET abc HTTP/1.1\r\nHost: t\r\n\r\n"),
];

/// Requests whose head is fine and whose chunks are not: nothing behind them may be taken for a request.
const BAD_CHUNKS: &[(&str, &str)] = &[
    ("a size that is no number", "x\r\nabc\r\n0\r\n\r\n"),
    ("an empty size", "\r\nabc\r\n0\r\n\r\n"),
    ("a negative size", "-1\r\na\r\n0\r\n\r\n"),
    ("a size with 0x", "0x3\r\nabc\r\n0\r\n\r\n"),
    ("a size that overflows", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("a size with a space before", " 3\r\nabc\r\n0\r\n\r\n"),
    ("a size line that ends with a line feed", "3\nabc\r\n0\r\n\r\n"),
    ("data longer than said", "3\r\nabcd\r\n0\r\n\r\n"),
    ("data that ends with a line feed", "3\r\nabc\n0\r\n\r\n"),
    ("a carriage return in an extension", "3;a=\rb\r\nabc\r\n0\r\n\r\n"),
    ("a line feed in an extension", "3;a\nb\r\nabc\r\n0\r\n\r\n"),
    ("a trailer with a space before the colon", "0\r\nX : y\r\n\r\n"),
    ("a trailer that is folded", "0\r\nX: y\r\n z\r\n\r\n"),
    ("trailers that end with a line feed", "0\r\n\n"),
];

async fn start() -> (Origin, Proxy) {
    let origin = Origin::ok("reached").await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    (origin, proxy)
}

/// What came back, as far as it is not as it must be.
async fn refused(proxy: &Proxy, name: &str, request: &str) -> Option<String> {
    let mut client = proxy.client("web").await;
    client.send(request).await;
    client.send(SMUGGLED).await;
    client.finish().await;
    let all = String::from_utf8_lossy(&client.rest().await).into_owned();
    let answers = all.matches("HTTP/1.1 ").count();
    let good = all.starts_with("HTTP/1.1 400 ") && answers == 1;
    (!good).then(|| format!("{name}: {request:?}\n    got {all:?}"))
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_never_reach_the_origin() {
    let (origin, proxy) = start().await;
    let mut wrong = Vec::new();
    for (name, request) in REFUSED {
        let before = origin.count();
        wrong.extend(refused(&proxy, name, request).await);
        if origin.count() > before {
            wrong.push(format!("{name}: reached the origin: {:?}", origin.last().message.head));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), REFUSED.len(), wrong.join("\n"));
}

#[tokio::test]
async fn broken_chunks_end_the_connection_and_reach_nobody_whole() {
    let (origin, proxy) = start().await;
    let mut wrong = Vec::new();
    for (name, chunks) in BAD_CHUNKS {
        let request = format!("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        let mut client = proxy.client("web").await;
        client.send(&request).await;
        client.send(SMUGGLED).await;
        client.finish().await;
        let all = String::from_utf8_lossy(&client.rest().await).into_owned();
        if all.contains("reached")
            || all.matches("HTTP/1.1 ").count() > 1
            || !all.starts_with("HTTP/1.1 400 ")
        {
            wrong.push(format!("{name}: got {all:?}"));
        }
    }
    let seen: Vec<_> = origin.requests().iter().map(|r| r.message.start.clone()).collect();
    assert!(wrong.is_empty() && seen.is_empty(), "{}\nthe origin saw {seen:?}", wrong.join("\n"));
}

/// A trailer section is held to what a head is.
#[tokio::test]
async fn a_trailer_section_that_is_too_large_ends_the_connection() {
    let (origin, proxy) = start().await;
    for fields in ["a: b\r\n".repeat(101), format!("a: {}\r\n", "b".repeat(70 * 1024))] {
        let mut client = proxy.client("web").await;
        let head = "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{head}1\r\na\r\n0\r\n{fields}\r\n{SMUGGLED}")).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.field("x-outrigger-reason")), (400, Some("trailers")));
        assert_eq!(client.rest().await, b"");
    }
    assert_eq!(origin.count(), 0);
}

/// Whoever stands in front takes a success for a tunnel, and what follows for its client's bytes.
#[tokio::test]
async fn nothing_is_read_behind_a_connect_that_was_answered_without_a_tunnel() {
    let proxy = Proxy::start(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n      - respond: { status: 200, body: reached }\n",
    )
    .await;
    let mut client = proxy.client("web").await;
    client.send(format!("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n{SMUGGLED}")).await;
    let all = String::from_utf8_lossy(&client.rest().await).into_owned();
    assert!(all.starts_with("HTTP/1.1 200 OK\r\n") && all.ends_with("\r\n\r\n"), "{all:?}");
    assert!(!all.contains("content-length") && all.matches("HTTP/1.1").count() == 1, "{all:?}");
}

/// What looks odd and is allowed.
#[tokio::test]
async fn odd_requests_that_are_clear_pass() {
    let (origin, proxy) = start().await;
    let rows = [
        "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: CHUNKED\r\n\r\n03\r\nabc\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: t\r\nContent-Length:  4  \r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 004\r\n\r\nabcd",
        "GET / HTTP/1.1\r\nhost:t\r\nx-a:\t b \t\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi",
        "QUERY-X / HTTP/1.1\r\nHost: t\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: t\r\n\r\n",
    ];
    for request in rows {
        let mut client = proxy.client("web").await;
        client.send(request).await;
        assert_eq!(client.reply().await.text(), "reached", "{request:?}");
    }
    assert_eq!(origin.count(), rows.len());
}

/// Framing is written anew from what was understood.
#[tokio::test]
async fn framing_is_written_anew() {
    let (origin, proxy) = start().await;
    let mut client = proxy.client("web").await;
    client
        .send("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n")
        .await;
    assert_eq!(client.reply().await.status, 200);
    let seen = origin.last();
    assert_eq!(seen.values("transfer-encoding"), ["chunked"]);
    assert!(!String::from_utf8_lossy(&seen.message.raw).contains("a=b"), "{:?}", seen.message.raw);
}

/// Answers of an origin that become `502`.
const BAD_ANSWERS: &[(&str, &str)] = &[
    (
        "both framings",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    ),
    ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nevil!"),
    ("a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 4, 5\r\n\r\nevil!"),
    ("a bad length", "HTTP/1.1 200 OK\r\nContent-Length: four\r\n\r\nevil"),
    ("a length with a sign", "HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\nevil"),
    ("another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nevil"),
    ("chunked not last", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n4\r\nevil\r\n0\r\n\r\n"),
    ("a folded field", "HTTP/1.1 200 OK\r\nX-A: b\r\n evil\r\nContent-Length: 4\r\n\r\nevil"),
    ("space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 4\r\n\r\nevil"),
    ("a bare line feed", "HTTP/1.1 200 OK\nContent-Length: 4\n\nevil"),
    ("NUL in a value", "HTTP/1.1 200 OK\r\nX-A: \0\r\nContent-Length: 4\r\n\r\nevil"),
    ("a field without a colon", "HTTP/1.1 200 OK\r\nevil\r\nContent-Length: 4\r\n\r\nevil"),
    ("no status", "HTTP/1.1\r\nContent-Length: 4\r\n\r\nevil"),
    ("a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 4\r\n\r\nevil"),
    ("another protocol", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    ("nothing at all", ""),
    ("half a head", "HTTP/1.1 200 OK\r\nContent-Le"),
    (
        "101 that nobody asked for",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nevil",
    ),
];

#[tokio::test]
async fn ambiguous_answers_become_502() {
    let mut wrong = Vec::new();
    for (name, answer) in BAD_ANSWERS {
        let origin = Origin::start(move |mut conn| async move {
            conn.request().await;
            conn.send(answer).await;
        })
        .await;
        let proxy = Proxy::start(&web([origin.address()])).await;
        let mut client = proxy.client("web").await;
        client.send(outrigger_tests::wire::post("/", "not to be replayed")).await;
        let reply = client.reply().await;
        if reply.status != 502 || reply.text().contains("evil") {
            wrong.push(format!("{name}: {} {:?}", reply.head, reply.text()));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), BAD_ANSWERS.len(), wrong.join("\n"));
}

/// A body that breaks off cannot be answered otherwise any more: the client must see that it is not whole.
#[tokio::test]
async fn an_answer_that_breaks_off_is_seen_to_be_broken() {
    let rows = [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this!!\r\n0\r\n\r\n",
    ];
    for answer in rows {
        let origin = Origin::start(move |mut conn| async move {
            conn.request().await;
            conn.send(answer).await;
        })
        .await;
        let proxy = Proxy::start(&web([origin.address()])).await;
        let mut client = proxy.client("web").await;
        client.send(outrigger_tests::wire::get("/")).await;
        let whole = outrigger_tests::within("an end", client.try_reply_to("GET")).await;
        assert!(whole.is_none_or(|reply| reply.status == 502), "{answer:?}");
    }
}

/// What an origin sends after its answer must not become the answer to the next request.
#[tokio::test]
async fn bytes_behind_an_answer_are_never_anothers_answer() {
    let origin = Origin::start(async |mut conn| {
        while conn.request().await.is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").await;
        }
    })
    .await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    for _ in 0..10 {
        // An origin out of step may be refused altogether.
        let reply = client.get("/").await;
        assert!(reply.text() == "good" || reply.status == 502, "{reply:?}");
    }
}
