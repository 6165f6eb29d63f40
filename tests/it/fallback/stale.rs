//! Answers kept for bad times: which are, for whom, and for how long.

use std::sync::{Arc, Mutex};

use outrigger_tests::h2client::H2;
use outrigger_tests::wire::{Reply, post};
use outrigger_tests::{Echo, Origin, Proxy, until};

use super::BAD;
use crate::web_routed;

/// An origin that answers what it was last told to: nothing at all to `SILENT`, and with the end of the connection
/// behind what ends in `CUT`.
struct Moody {
    origin: Origin,
    answer: Arc<Mutex<String>>,
}

const SILENT: &str = "silent";
const CUT: &str = "<cut>";

impl Moody {
    async fn start() -> Self {
        let answer = Arc::new(Mutex::new(BAD.to_owned()));
        let told = answer.clone();
        let origin = Origin::start(move |mut conn| {
            let told = told.clone();
            async move {
                while conn.request().await.is_some() {
                    let answer = told.lock().unwrap().clone();
                    match (answer.strip_suffix(CUT), answer == SILENT) {
                        (_, true) => drop(conn.rest().await),
                        (Some(answer), _) => return conn.send(answer).await,
                        (None, false) => conn.send(&answer).await,
                    }
                }
            }
        })
        .await;
        Self { origin, answer }
    }

    fn says(&self, answer: &str) {
        answer.clone_into(&mut self.answer.lock().unwrap());
    }
}

/// `200` with these fields and this body.
fn good(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A request with these fields, on a connection of its own.
async fn ask(proxy: &Proxy, method: &str, path: &str, fields: &str) -> Reply {
    let mut client = proxy.client("web").await;
    let host = if fields.contains("Host:") { "" } else { "Host: test\r\n" };
    client.send(format!("{method} {path} HTTP/1.1\r\n{host}{fields}\r\n")).await;
    client.reply_to(method).await
}

async fn start(route: &str, origin: &Moody) -> Proxy {
    Proxy::start(&web_routed(route, "", "", [origin.origin.address()])).await
}

#[track_caller]
fn is_stale(reply: &Reply, body: &str) {
    assert_eq!((reply.status, reply.text().as_str()), (200, body));
    assert_eq!(reply.field("x-outrigger-fallback"), Some("stale"));
    assert!(reply.field("age").is_some_and(|age| age.parse::<u64>().is_ok()), "{reply:?}");
}

#[tokio::test]
async fn what_was_answered_before_is_served_however_the_cluster_fails() {
    for failure in [BAD, CUT, SILENT, "refused"] {
        let origin = Moody::start().await;
        let config = web_routed("timeout: 300ms\nfallback: { stale: 1m }", "", "", [origin.origin.address()]);
        let proxy = Proxy::start(&format!("access_log: {{ format: json, to: stdout }}\n{config}")).await;
        let date = "Mon, 01 Jan 2024 00:00:00 GMT";
        origin.says(&good(&format!("Date: {date}\r\nAge: 100\r\nX-Many: 1\r\nX-Many: 2\r\n"), "well"));
        let reply = proxy.get("web", "/a?b").await;
        assert_eq!((reply.field("x-outrigger-fallback"), reply.field("age")), (None, Some("100")));
        assert!(proxy.metric("outrigger_stale_bytes").await > 0.0);
        origin.says(failure);
        let origin = (failure != "refused").then_some(origin);
        let reply = proxy.get("web", "/a?b").await;
        is_stale(&reply, "well");
        assert_eq!((reply.field("date"), reply.field("content-length")), (Some(date), Some("4")));
        assert_eq!(reply.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-many")).count(), 2);
        assert!(reply.field("age").unwrap().parse::<u64>().unwrap() >= 100);
        // HTTP/2 names the same host in another place.
        let reply = H2::connect(proxy.address("web")).await.get("/a?b").await;
        assert_eq!((reply.status, reply.body.as_slice()), (200, &b"well"[..]));
        assert_eq!(reply.field("x-outrigger-fallback"), Some("stale"));
        let series = "outrigger_downstream_fallbacks_total{listener=\"web\",kind=\"stale\"}";
        proxy.wait_metric(series, |n| n == 2.0).await;
        proxy.wait_metric("outrigger_upstream_requests_active{cluster=\"app\"}", |n| n == 0.0).await;
        until("the line is written", async || {
            proxy.stdout().contains("\"fallback\":\"stale\"").then_some(())
        })
        .await;
        drop(origin);
    }
}

#[tokio::test]
async fn answers_over_http2_are_kept_too() {
    let echo = Echo::start("e").await;
    let route = "fallback: { stale: 1m }";
    let proxy = Proxy::start(&web_routed(route, "", "protocol: http2", [echo.address()])).await;
    for (path, want, kept) in [("/a", "size=20000", true), ("/b", "size=0", true), ("/c", "trailers", false)]
    {
        let well = ask(&proxy, "GET", path, &format!("X-Want: {want}\r\n")).await;
        assert_eq!(well.status, 200);
        let reply = ask(&proxy, "GET", path, "X-Want: status=503\r\n").await;
        assert_eq!(reply.status, if kept { 200 } else { 503 }, "{path}");
        if kept {
            is_stale(&reply, &well.text());
        }
    }
}

#[tokio::test]
async fn an_answer_gets_too_old() {
    let origin = Moody::start().await;
    let proxy = start("fallback: { stale: 300ms }", &origin).await;
    origin.says(&good("", "well"));
    assert_eq!(proxy.get("web", "/").await.status, 200);
    origin.says(BAD);
    until("it is too old", async || (proxy.get("web", "/").await.status == 500).then_some(())).await;
    assert_eq!(proxy.metric("outrigger_stale_bytes").await, 0.0);
}

#[tokio::test]
async fn a_304_is_passed_on_and_renews_what_is_kept() {
    let origin = Moody::start().await;
    let proxy = start("fallback: { stale: 1m }", &origin).await;
    let old = "ETag: \"1\"\r\nAge: 40\r\n";
    origin.says(&good(old, "well"));
    assert_eq!(proxy.get("web", "/").await.status, 200);
    origin.says("HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nAge: 0\r\n\r\n");
    assert_eq!(ask(&proxy, "GET", "/", "If-None-Match: \"1\"\r\n").await.status, 304);
    origin.says(BAD);
    let reply = proxy.get("web", "/").await;
    is_stale(&reply, "well");
    assert!(reply.field("age").unwrap().parse::<u64>().unwrap() < 40, "{reply:?}");
}

#[tokio::test]
async fn the_last_good_answer_counts() {
    let origin = Moody::start().await;
    let proxy = start("fallback: { stale: 1m }", &origin).await;
    for body in ["first", "second, longer", ""] {
        origin.says(&good("", body));
        assert_eq!(proxy.get("web", "/").await.text(), body);
        origin.says(BAD);
        is_stale(&proxy.get("web", "/").await, body);
    }
}

#[tokio::test]
async fn what_is_not_for_everybody_or_not_whole_is_not_kept() {
    let origin = Moody::start().await;
    let proxy = start("fallback: { stale: { for: 1m, max_body: 8 } }", &origin).await;
    let known = "Authorization: x\r\n";
    let chunked = |fields: &str, rest: &str| {
        format!("HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n4\r\nwell\r\n{rest}")
    };
    let rows = [
        ("", good("", "well"), true),
        ("", chunked("", "4\r\nwell\r\n0\r\n\r\n"), true),
        (known, good("Cache-Control: max-age=5, PUBLIC\r\n", "well"), true),
        (known, good("", "well"), false),
        ("Cookie: a=b\r\n", good("", "well"), false),
        ("Range: bytes=0-\r\n", good("", "well"), false),
        ("Cache-Control: no-store\r\n", good("", "well"), false),
        ("Content-Length: 1\r\n\r\nx", good("", "well"), false),
        ("", good("Cache-Control: private\r\n", "well"), false),
        ("", good("Cache-Control: max-age=1\r\nCache-Control: S-MAXAGE=60\r\n", "well"), false),
        ("", good("Set-Cookie: a=b\r\n", "well"), false),
        ("", good("Vary: *\r\n", "well"), false),
        ("", good("X-Outrigger-Fallback: response\r\n", "well"), false),
        ("", good("", "longer than"), false),
        ("", chunked("", "5\r\nwell.\r\n0\r\n\r\n"), false),
        ("", chunked("Trailer: x\r\n", "0\r\nx: 1\r\n\r\n"), false),
        ("", format!("HTTP/1.1 200 OK\r\n\r\nwell{CUT}"), false),
        ("", "HTTP/1.1 203 Other\r\nContent-Length: 4\r\n\r\nwell".to_owned(), false),
    ];
    for (number, (fields, answer, kept)) in rows.iter().enumerate() {
        let path = format!("/{number}");
        origin.says(answer);
        assert!(ask(&proxy, "GET", &path, fields).await.text().starts_with("well") || number == 13);
        origin.says(BAD);
        let stranger = proxy.get("web", &path).await;
        assert_eq!(stranger.status == 200, *kept, "{fields:?} {answer:?} {stranger:?}");
        let public = answer.contains("PUBLIC");
        assert_eq!(ask(&proxy, "GET", &path, known).await.status == 200, public, "{fields:?} {answer:?}");
    }
}

#[tokio::test]
async fn an_answer_that_broke_off_is_not_kept() {
    let origin = Moody::start().await;
    let proxy = start("fallback: { stale: 1m }", &origin).await;
    for cut in ["Content-Length: 9\r\n\r\nwell", "Transfer-Encoding: chunked\r\n\r\n4\r\nwell\r\n"]
        .map(str::to_owned)
    {
        origin.says(&format!("HTTP/1.1 200 OK\r\n{cut}{CUT}"));
        let mut client = proxy.client("web").await;
        assert!(client.try_get("/").await.is_none());
        origin.says(BAD);
        assert_eq!(proxy.get("web", "/").await.status, 500);
    }
}

#[tokio::test]
async fn only_the_same_get_is_served() {
    let origin = Moody::start().await;
    let proxy = start("fallback: { stale: 1m }", &origin).await;
    origin.says(&good("", "well"));
    for path in ["/a", "/a?x=1", "/%7Euser/../b"] {
        assert_eq!(ask(&proxy, "GET", path, "Host: One.test\r\n").await.status, 200);
    }
    origin.says(BAD);
    for (method, path, host, status) in [
        ("GET", "/a", "one.TEST", 200),
        ("GET", "/b", "one.test", 200),
        ("GET", "/a?x=1", "one.test", 200),
        ("GET", "/a?x=2", "one.test", 500),
        ("GET", "/a?x=1&", "one.test", 500),
        ("GET", "/A", "one.test", 500),
        ("GET", "/a", "two.test", 500),
        ("GET", "/a", "one.test:81", 500),
        ("HEAD", "/a", "one.test", 500),
        ("OPTIONS", "/a", "one.test", 500),
        ("POST", "/a", "one.test", 500),
    ] {
        let reply = ask(&proxy, method, path, &format!("Host: {host}\r\n")).await;
        assert_eq!(reply.status, status, "{method} {host} {path}");
    }
}

#[tokio::test]
async fn rewritten_requests_are_told_apart_by_what_was_asked() {
    let origin = Moody::start().await;
    let proxy = start("rewrite: { path: /same }\nfallback: { stale: 1m }", &origin).await;
    origin.says(&good("", "well"));
    assert_eq!(proxy.get("web", "/a").await.status, 200);
    assert_eq!(origin.origin.last().target(), "/same");
    origin.says(BAD);
    is_stale(&proxy.get("web", "/a").await, "well");
    assert_eq!(proxy.get("web", "/b").await.status, 500);
}

#[tokio::test]
async fn vary_tells_requests_apart() {
    let origin = Moody::start().await;
    let proxy = start("fallback: { stale: 1m }", &origin).await;
    for lang in ["de", "fr"] {
        origin.says(&good("Vary: Accept-Encoding, accept-language\r\n", lang));
        assert_eq!(ask(&proxy, "GET", "/", &format!("Accept-Language: {lang}\r\n")).await.text(), lang);
    }
    origin.says(BAD);
    for lang in ["fr", "de"] {
        is_stale(&ask(&proxy, "GET", "/", &format!("Accept-Language: {lang}\r\n")).await, lang);
    }
    for other in ["Accept-Language: it\r\n", "Accept-Language: de\r\nAccept-Encoding: gzip\r\n", ""] {
        assert_eq!(ask(&proxy, "GET", "/", other).await.status, 500, "{other:?}");
    }
}

#[tokio::test]
async fn what_was_changed_or_is_gone_is_forgotten() {
    let origin = Moody::start().await;
    let proxy = start("fallback: { stale: 1m }", &origin).await;
    let gone = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let refused = "HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n";
    for (method, answer, status) in [
        ("POST", BAD, 200),
        ("POST", refused, 200),
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n", 200),
        ("POST", &good("", ""), 500),
        ("DELETE", "HTTP/1.1 204 No Content\r\n\r\n", 500),
        ("GET", refused, 200),
        ("GET", gone, 500),
    ] {
        origin.says(&good("", "well"));
        assert_eq!(proxy.get("web", "/").await.status, 200);
        origin.says(answer);
        let request = if method == "POST" {
            post("/", "x")
        } else {
            format!("{method} / HTTP/1.1\r\nHost: test\r\n\r\n")
        };
        let mut client = proxy.client("web").await;
        client.send(request).await;
        client.reply_to(method).await;
        origin.says(BAD);
        assert_eq!(proxy.get("web", "/").await.status, status, "{method} {answer}");
    }
}

#[tokio::test]
async fn where_nothing_is_kept_the_other_fallback_answers() {
    let (origin, spare) = (Moody::start().await, Origin::ok("spare").await);
    for (other, body, kind) in
        [("respond: { body: sorry }", "sorry", "response"), ("to: spare", "spare", "cluster")]
    {
        let route = format!("fallback: {{ stale: 1m, {other} }}");
        let config = web_routed(&route, "", "", [origin.origin.address()]);
        let proxy =
            Proxy::start(&format!("{config}  spare: {{ endpoints: [\"{}\"] }}\n", spare.address())).await;
        for _ in 0..2 {
            let reply = proxy.get("web", "/").await;
            assert_eq!((reply.text().as_str(), reply.field("x-outrigger-fallback")), (body, Some(kind)));
        }
        origin.says(&good("", "well"));
        assert_eq!(proxy.get("web", "/").await.text(), "well");
        origin.says(BAD);
        is_stale(&proxy.get("web", "/").await, "well");
        assert_eq!(proxy.get("web", "/other").await.text(), body);
    }
}

#[tokio::test]
async fn a_reload_keeps_what_it_does_not_touch() {
    let origin = Moody::start().await;
    let config = |route: &str| web_routed(route, "", "", [origin.origin.address()]);
    let proxy = Proxy::start(&config("fallback: { stale: 1m }")).await;
    origin.says(&good("", "well"));
    assert_eq!(proxy.get("web", "/").await.status, 200);
    origin.says(BAD);
    proxy.reload(&config("timeout: 5s\nfallback: { stale: 1m }")).await;
    is_stale(&proxy.get("web", "/").await, "well");
    proxy.reload(&config("fallback: { stale: 2m }")).await;
    // A worker lets go of what was in force before with its next request.
    until("the answers of the route before are gone", async || {
        assert_eq!(proxy.get("web", "/").await.status, 500);
        (proxy.metric("outrigger_stale_bytes").await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nothing_more_is_kept_under_pressure() {
    let origin = Moody::start().await;
    let config = web_routed("fallback: { stale: 1m }", "", "", [origin.origin.address()]);
    let proxy = Proxy::start(&format!("overload: {{ connections: 20 }}\n{config}")).await;
    origin.says(&good("", "well"));
    assert_eq!(proxy.get("web", "/before").await.status, 200);
    let mut crowd = Vec::new();
    for _ in 0..18 {
        crowd.push(proxy.client("web").await);
    }
    proxy.wait_metric("outrigger_overload_level", |level| level == 1.0).await;
    assert_eq!(crowd[0].get("/since").await.status, 200);
    origin.says(BAD);
    assert_eq!(crowd[1].get("/since").await.status, 500);
    is_stale(&crowd[2].get("/before").await, "well");
}
