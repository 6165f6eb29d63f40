//! HTTP/1.1 on both sides (RFC 9112): what a client and an origin may count on.

use outrigger_tests::origin::ok;
use outrigger_tests::wire::{get, post};
use outrigger_tests::{Client, Echo, Origin, Proxy, Reply, Report, within};

use crate::web;

async fn with_origin(reply: &str) -> (Origin, Proxy) {
    let origin = Origin::answering(reply).await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    (origin, proxy)
}

async fn with_echo() -> (Echo, Proxy) {
    let echo = Echo::start("e").await;
    let proxy = Proxy::start(&web([echo.address()])).await;
    (echo, proxy)
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let (origin, proxy) = with_origin(&ok("hello")).await;
    let mut client = proxy.client("web").await;
    for _ in 0..20 {
        let reply = client.get("/").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
        assert!(!reply.closes());
    }
    assert_eq!((origin.count(), origin.opened()), (20, 1));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (_echo, proxy) = with_echo().await;
    let mut client = proxy.client("web").await;
    let requests: String = (0..10)
        .map(|i| if i % 3 == 0 { post(&format!("/{i}"), "body") } else { get(&format!("/{i}")) })
        .collect();
    client.send(requests).await;
    for i in 0..10 {
        let report = Report::parse(&client.reply().await.body);
        assert_eq!(report.path, format!("/{i}"));
        assert_eq!(report.length, if i % 3 == 0 { 4 } else { 0 });
    }
}

/// Whoever ends its side is taken to be gone from its last request, and not from those before it.
#[tokio::test]
async fn pipelined_requests_before_the_last_are_answered_to_a_client_that_has_ended_its_side() {
    let (_echo, proxy) = with_echo().await;
    let mut client = proxy.client("web").await;
    client.send([get("/0"), get("/1"), get("/2")].concat()).await;
    client.finish().await;
    for i in 0..2 {
        assert_eq!(Report::parse(&client.reply().await.body).path, format!("/{i}"));
    }
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_whole() {
    let (_echo, proxy) = with_echo().await;
    let mut client = proxy.client("web").await;
    for byte in post("/slow?x=1", "some body").bytes() {
        client.send([byte]).await;
        tokio::task::yield_now().await;
    }
    let report = Report::parse(&client.reply().await.body);
    assert_eq!((report.path.as_str(), report.length), ("/slow?x=1", 9));
}

#[tokio::test]
async fn chunked_requests_reach_the_origin_whole_with_their_trailers() {
    let (_echo, proxy) = with_echo().await;
    let mut client = proxy.client("web").await;
    client
        .send(
            "POST /up HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-Other\r\n\r\n\
             3;ext=1\r\nabc\r\n5\r\ndefgh\r\n0\r\nX-Sum: 8\r\nX-Other: y\r\n\r\n",
        )
        .await;
    let report = Report::parse(&client.reply().await.body);
    assert_eq!(report.length, 8);
    assert_eq!(report.field("transfer-encoding"), Some("chunked"));
    assert_eq!(report.field("content-length"), None);
    let trailers: Vec<_> =
        report.trailers.iter().map(|(n, v)| (n.to_ascii_lowercase(), v.as_str())).collect();
    assert_eq!(trailers, [("x-sum".to_owned(), "8"), ("x-other".to_owned(), "y")]);
    // The connection is in step: the next request is understood.
    assert_eq!(client.get("/next").await.status, 200);
}

#[tokio::test]
async fn chunked_responses_reach_the_client_whole_with_their_trailers() {
    let (_origin, proxy) = with_origin(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n4\r\nabcd\r\n2;x=y\r\nef\r\n0\r\nX-Sum: 6\r\n\r\n",
    )
    .await;
    let mut client = proxy.client("web").await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\nTE: trailers\r\nConnection: TE\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!(reply.text(), "abcdef");
    assert_eq!(reply.field("transfer-encoding"), Some("chunked"));
    assert_eq!(reply.trailers.len(), 1, "{:?}", reply.trailers);
    assert_eq!(reply.trailers[0].1, "6");
    assert_eq!(client.get("/").await.text(), "abcdef");
}

#[tokio::test]
async fn a_client_that_did_not_ask_for_trailers_gets_a_well_framed_body() {
    let (_origin, proxy) = with_origin(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\nX-Sum: 4\r\n\r\n",
    )
    .await;
    let mut client = proxy.client("web").await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.text(), "abcd");
    }
}

#[tokio::test]
async fn a_response_that_ends_with_its_connection_is_passed_on_whole() {
    let origin = Origin::start(async |mut conn| {
        conn.request().await;
        conn.send("HTTP/1.0 200 OK\r\nX-Old: 1\r\n\r\nuntil the end").await;
    })
    .await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    for _ in 0..3 {
        let reply = client.get("/").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "until the end"));
        assert!(!reply.closes(), "the client's connection is another's business");
    }
}

#[tokio::test]
async fn head_has_a_length_and_no_body() {
    let (origin, proxy) = with_origin("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-A: b\r\n\r\n").await;
    let mut client = proxy.client("web").await;
    for _ in 0..3 {
        client.send("HEAD /file HTTP/1.1\r\nHost: test\r\n\r\n").await;
        let reply = client.reply_to("HEAD").await;
        assert_eq!((reply.status, reply.field("content-length")), (200, Some("1234")));
    }
    assert_eq!(origin.opened(), 1);
    assert_eq!(origin.last().message.start, "HEAD /file HTTP/1.1");
}

#[tokio::test]
async fn answers_without_a_body_keep_the_connection_in_step() {
    for reply in [
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\nETag: \"x\"\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        let (origin, proxy) = with_origin(reply).await;
        let mut client = proxy.client("web").await;
        for _ in 0..3 {
            let answer = client.get("/").await;
            assert!(reply.contains(&answer.status.to_string()) && answer.body.is_empty(), "{answer:?}");
        }
        assert_eq!(origin.opened(), 1, "{reply:?}");
    }
}

#[tokio::test]
async fn header_case_and_order_are_kept() {
    let (origin, proxy) =
        with_origin("HTTP/1.1 200 OK\r\nX-ReSp: 1\r\nETag: \"q\"\r\nContent-LENGTH: 2\r\n\r\nok").await;
    let mut client = proxy.client("web").await;
    client.send("GET / HTTP/1.1\r\nHoSt: test\r\nX-CaSe: One\r\nUSER-agent: me\r\nx-case: two\r\n\r\n").await;
    let reply = client.reply().await;
    for line in ["X-ReSp: 1\r\n", "ETag: \"q\"\r\n", "Content-LENGTH: 2\r\n"] {
        assert!(reply.head.contains(line), "{line:?} in {:?}", reply.head);
    }
    let head = origin.last().message.head;
    for line in ["HoSt: test\r\n", "X-CaSe: One\r\n", "USER-agent: me\r\n", "x-case: two\r\n"] {
        assert!(head.contains(line), "{line:?} in {head:?}");
    }
    assert!(head.find("X-CaSe: One") < head.find("x-case: two"), "{head:?}");
}

#[tokio::test]
async fn header_case_is_that_of_each_head_however_many_come_at_once() {
    let (origin, proxy) = with_origin("HTTP/1.1 200 OK\r\nX-ReSp: 1\r\ncontent-length: 2\r\n\r\nok").await;
    let mut client = proxy.client("web").await;
    let heads = ["host: test\r\n", "HoSt: test\r\nX-a: 1\r\n", "HOST: test\r\nx-A: 2\r\n"];
    let all: String = heads.iter().map(|head| format!("GET / HTTP/1.1\r\n{head}\r\n")).collect();
    // The last head comes in two parts, the second of them when the others are answered.
    let (now, then) = all.split_at(all.len() - 8);
    client.send(now).await;
    for number in 0..heads.len() {
        if number + 1 == heads.len() {
            client.send(then).await;
        }
        let reply = client.reply().await;
        assert!(reply.head.contains("\r\nX-ReSp: 1\r\ncontent-length: 2\r\n"), "{:?}", reply.head);
        let head = origin.last().message.head;
        assert!(heads[number].lines().all(|line| head.contains(&format!("\r\n{line}\r\n"))), "{head:?}");
    }
}

#[tokio::test]
async fn header_values_pass_byte_for_byte() {
    let (origin, proxy) = with_origin(&ok("")).await;
    let mut client = proxy.client("web").await;
    client
        .send(b"GET /?q=%zz&a=%2F..//b HTTP/1.1\r\nHost: test\r\nX-Bytes: \xe4\xf6 \t x\r\nX-Empty:\r\n\r\n")
        .await;
    assert_eq!(client.reply().await.status, 200);
    let seen = origin.last();
    assert_eq!(seen.target(), "/?q=%zz&a=%2F..//b");
    assert_eq!(seen.field("x-empty"), Some(""));
    assert!(seen.field("x-bytes").unwrap().ends_with(" \t x"));
}

#[tokio::test]
async fn an_http_1_0_client_gets_an_answer_and_the_end() {
    let (_origin, proxy) =
        with_origin("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n").await;
    let mut client = proxy.client("web").await;
    client.send("GET / HTTP/1.0\r\nHost: test\r\n\r\n").await;
    let text = String::from_utf8(client.rest().await).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 ") && !head.to_ascii_lowercase().contains("chunked"), "{head}");
    assert_eq!(body, "abcd");
}

#[tokio::test]
async fn an_http_1_0_client_may_keep_its_connection() {
    let (_origin, proxy) = with_origin(&ok("hi")).await;
    let mut client = proxy.client("web").await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\n\r\n").await;
        assert_eq!(client.reply().await.text(), "hi");
    }
}

#[tokio::test]
async fn connection_close_of_the_client_ends_its_connection_alone() {
    let (origin, proxy) = with_origin(&ok("bye")).await;
    for _ in 0..3 {
        let mut client = proxy.client("web").await;
        client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await;
        let reply = client.reply().await;
        assert!(reply.closes());
        assert_eq!(client.rest().await, b"");
        assert_eq!(origin.last().field("connection"), None);
    }
    // Two workers, and each has its own pool.
    assert!(origin.opened() <= 2, "{}", origin.opened());
}

#[tokio::test]
async fn connection_close_of_the_origin_ends_its_connection_alone() {
    let origin = Origin::start(async |mut conn| {
        conn.request().await;
        conn.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
    })
    .await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    for _ in 0..5 {
        let reply = client.get("/").await;
        assert_eq!(reply.text(), "ok");
        assert!(!reply.closes());
    }
    assert_eq!(origin.opened(), 5);
}

#[tokio::test]
async fn expect_continue_asks_the_origin() {
    let origin = Origin::start(async |mut conn| {
        conn.head().await;
        conn.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        let body = conn.exactly(4).await.unwrap();
        conn.send(ok(&String::from_utf8(body).unwrap())).await;
    })
    .await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    client.send("PUT / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 100);
    client.send("body").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "body"));
    assert_eq!(origin.last().field("expect"), Some("100-continue"));
}

#[tokio::test]
async fn an_origin_that_refuses_an_expectation_is_sent_no_body() {
    let origin = Origin::start(async |mut conn| {
        conn.head().await;
        conn.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno").await;
        let rest = conn.rest().await;
        assert!(rest.is_empty(), "the body was sent: {rest:?}");
    })
    .await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    client.send("PUT / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (417, "no"), "no 100 may come before");
    // What follows cannot be told from a body: the connection ends, on both sides.
    origin.wait_closed(1).await;
}

#[tokio::test]
async fn a_client_need_not_wait_for_the_continue() {
    let (_echo, proxy) = with_echo().await;
    let mut client = proxy.client("web").await;
    client
        .send("PUT / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody")
        .await;
    let mut reply = client.reply().await;
    if reply.status == 100 {
        reply = client.reply().await;
    }
    assert_eq!(Report::parse(&reply.body).length, 4);
}

const LARGE: usize = 8 << 20;

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 31 % 251) as u8).collect()
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    let (_echo, proxy) = with_echo().await;
    let mut client = proxy.client("web").await;
    let body = pattern(LARGE);
    for _ in 0..2 {
        client
            .send(format!("POST / HTTP/1.1\r\nHost: t\r\nX-Want: echo\r\nContent-Length: {LARGE}\r\n\r\n"))
            .await;
        client.send(&body).await;
        let reply = client.reply().await;
        assert_eq!(reply.field("content-length"), Some(LARGE.to_string().as_str()));
        assert!(reply.body == body, "the body came back changed");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_origin_back() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    const PIECE: usize = 64 << 10;
    const PIECES: usize = 1600;
    let sent = Arc::new(AtomicUsize::new(0));
    let counting = sent.clone();
    let origin = Origin::start(move |mut conn| {
        let sent = counting.clone();
        async move {
            conn.request().await;
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PIECE * PIECES)).await;
            for _ in 0..PIECES {
                conn.send(vec![b'x'; PIECE]).await;
                sent.fetch_add(1, SeqCst);
            }
        }
    })
    .await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    client.send(get("/")).await;
    // What the kernel's and our buffers hold, and then no more: the figure stands still.
    let mut last = (usize::MAX, 0);
    let held = outrigger_tests::until("the origin is held back", async || {
        let now = sent.load(SeqCst);
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        (now > 0 && last.1 > 60).then_some(now)
    })
    .await;
    assert!(held < PIECES / 2, "{held} of {PIECES} pieces were taken for a client that reads nothing");
    assert_eq!(client.reply().await.body.len(), PIECE * PIECES);
}

#[tokio::test]
async fn an_origin_that_does_not_read_holds_the_client_back() {
    const LENGTH: usize = 100 << 20;
    let (go, gate) = tokio::sync::watch::channel(false);
    let origin = Origin::start(move |mut conn| {
        let mut gate = gate.clone();
        async move {
            conn.head().await;
            let _ = gate.wait_for(|go| *go).await;
            let mut rest = LENGTH;
            while let Some(some) = conn.some().await {
                rest -= some.len();
                if rest == 0 {
                    conn.send(ok("thanks")).await;
                }
            }
        }
    })
    .await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    client.send(format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    let (mut stream, _) = client.into_parts();
    let piece = vec![b'x'; 64 << 10];
    let mut left = LENGTH;
    // A socket that takes nothing for half a second is full, and so is everything behind it.
    while let Ok(n) = tokio::time::timeout(
        std::time::Duration::from_millis(500),
        tokio::io::AsyncWriteExt::write(&mut stream, &piece[..piece.len().min(left)]),
    )
    .await
    {
        left -= n.unwrap();
        assert!(left > LENGTH / 2, "half of the body was taken for an origin that reads nothing");
    }
    go.send(true).unwrap();
    while left > 0 {
        let n =
            within("sending", tokio::io::AsyncWriteExt::write(&mut stream, &piece[..piece.len().min(left)]))
                .await;
        left -= n.unwrap();
    }
    assert_eq!(Client::over(stream).reply().await.text(), "thanks");
}

#[tokio::test]
async fn a_response_streams_as_it_comes() {
    let (go, gate) = tokio::sync::watch::channel(0);
    let origin = Origin::start(move |mut conn| {
        let mut gate = gate.clone();
        async move {
            conn.request().await;
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            for step in 1..=3 {
                let _ = gate.wait_for(|go| *go >= step).await;
                conn.send("5\r\nevent\r\n").await;
            }
            conn.send("0\r\n\r\n").await;
        }
    })
    .await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    client.send(get("/")).await;
    let (stream, held) = client.into_parts();
    let mut wire = outrigger_tests::wire::Wire { io: stream, held };
    within("the head, before any body", wire.head()).await.unwrap();
    for step in 1..=3 {
        go.send(step).unwrap();
        let chunk = within("the event", wire.exactly(10)).await.unwrap();
        assert_eq!(chunk, b"5\r\nevent\r\n");
    }
    assert_eq!(within("the end", wire.exactly(5)).await.unwrap(), b"0\r\n\r\n");
}

/// By a reset, or by ending its side: the two cannot be told apart in time, and work for nobody is the greater harm.
#[tokio::test]
async fn a_client_that_goes_away_takes_its_request_with_it() {
    for reset in [true, false] {
        let origin = Origin::start(async |mut conn| {
            conn.head().await;
            conn.rest().await;
        })
        .await;
        let proxy = Proxy::start(&web([origin.address()])).await;
        let mut client = proxy.client("web").await;
        client.send(get("/never")).await;
        origin.wait_requests(1).await;
        let (stream, _) = client.into_parts();
        if reset {
            stream.set_zero_linger().unwrap();
        }
        drop(stream);
        origin.wait_closed(1).await;
    }
}

/// A route that answers by itself does not lose its place when a body comes with the request.
#[tokio::test]
async fn a_body_that_nobody_wants_does_not_bring_the_connection_out_of_step() {
    let config = "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n      - respond: { status: 200, body: mine }\n";
    let proxy = Proxy::start(config).await;
    let mut client = proxy.client("web").await;
    for n in 0..5 {
        // What looks like a request in there is none.
        let body = "GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n".repeat(1 + n * 10);
        client.send(post("/", &body)).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "mine"));
        if reply.closes() {
            assert_eq!(client.rest().await, b"");
            client = proxy.client("web").await;
        }
    }
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let origin = Origin::start(async |mut conn| {
        conn.head().await;
        conn.send("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno").await;
        conn.rest().await;
    })
    .await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\nonly the beginning").await;
    let Reply { status, body, .. } = client.reply().await;
    assert_eq!((status, body.as_slice()), (403, &b"no"[..]));
}

#[tokio::test]
async fn informational_answers_do_not_break_the_road() {
    let (_origin, proxy) = with_origin(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let mut client = proxy.client("web").await;
    for _ in 0..3 {
        let mut reply = client.get("/").await;
        while reply.status == 103 {
            reply = client.reply().await;
        }
        assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
    }
}

#[tokio::test]
async fn options_asterisk_and_absolute_targets_pass() {
    let (origin, proxy) = with_origin(&ok("")).await;
    let mut client = proxy.client("web").await;
    client.send("OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(origin.last().message.start, "OPTIONS * HTTP/1.1");
    // RFC 9112 section 3.2.2: the target's host counts, and the field is replaced by it.
    client.send("GET http://real.example/a?b HTTP/1.1\r\nHost: other.example\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    let seen = origin.last();
    assert_eq!(seen.target(), "/a?b");
    assert_eq!(seen.values("host"), ["real.example"]);
}
