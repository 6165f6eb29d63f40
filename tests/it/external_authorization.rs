//! External authorization: what a service is asked, by gRPC and by HTTP, what comes of what it says, and of its silence.

use outrigger_tests::h2client::{H2, get};
use outrigger_tests::origin::ok;
use outrigger_tests::{Echo, Origin, Proxy, Reply, Report, until};

use crate::grpc_service::{Asked, Say, Service, nested, parts, text};
use crate::web_routed;

fn result(result: &str) -> String {
    format!("outrigger_downstream_external_authorization_total{{listener=\"web\",result=\"{result}\"}}")
}

/// A listener `web` that asks a service at this address, by these keys.
fn asking(echo: &Echo, service: impl std::fmt::Display, keys: &str) -> String {
    before(&echo.address().to_string(), service, keys)
}

/// The same before this upstream.
fn before(upstream: &str, service: impl std::fmt::Display, keys: &str) -> String {
    let protocol = if keys.starts_with("grpc") { "http2" } else { "auto" };
    let listener = format!("external_authorization: {{ {keys} }}");
    let service = format!("  authz: {{ endpoints: [\"{service}\"], protocol: {protocol} }}\n");
    web_routed("", &listener, "protocol: http1", [upstream]) + &service
}

async fn start(service: &Service, keys: &str) -> (Echo, Proxy) {
    let echo = Echo::start("e").await;
    let proxy =
        Proxy::start(&asking(&echo, service.address, &format!("grpc: authz, timeout: 10s{keys}"))).await;
    (echo, proxy)
}

/// One request with these fields.
async fn ask(proxy: &Proxy, head: &str, fields: &str, body: &str) -> Reply {
    let mut client = proxy.client("web").await;
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    client.send(format!("{head} HTTP/1.1\r\nHost: test\r\n{length}{fields}\r\n{body}")).await;
    client.reply().await
}

/// `HeaderValueOption`, with `append` where that is said.
fn option(name: &str, value: &str, append: Option<bool>) -> Vec<u8> {
    let field = nested(1, &[nested(1, name.as_bytes()), nested(2, value.as_bytes())].concat());
    let append = match append {
        Some(true) => nested(2, &[0x08, 1]),
        Some(false) => nested(2, &[]),
        None => Vec::new(),
    };
    [field, append].concat()
}

fn allowed(ok: &[Vec<u8>]) -> Say {
    Say::Message([nested(1, &[]), nested(3, &ok.concat())].concat())
}

/// PERMISSION_DENIED, with this status and more of the answer.
fn denied(status: u16, more: &[Vec<u8>]) -> Say {
    let low = u8::try_from(status & 0x7f).unwrap() | 0x80;
    let status = nested(1, &[0x08, low, u8::try_from(status >> 7).unwrap()]);
    Say::Message([nested(1, &[0x08, 7]), nested(2, &[status, more.concat()].concat())].concat())
}

/// The content of the first field of this number, level by level.
fn at(message: &[u8], path: &[u64]) -> Option<Vec<u8>> {
    path.iter().try_fold(message.to_vec(), |message, tag| {
        let mut found = parts(&message).filter(|(number, _, _)| number == tag);
        found.next().map(|(_, content, _)| content.to_vec())
    })
}

/// The texts of a map at this place.
fn map(message: &[u8], path: &[u64]) -> Vec<(String, String)> {
    let Some((last, above)) = path.split_last() else { return Vec::new() };
    let above = at(message, above).unwrap_or_default();
    let entries = parts(&above).filter(|(number, _, _)| number == last);
    let text_at = |entry: &[u8], tag| text(&at(entry, &[tag]).unwrap_or_default());
    entries.map(|(_, entry, _)| (text_at(entry, 1), text_at(entry, 2))).collect()
}

const HTTP: &[u64] = &[1, 4, 2];

/// A text of the question's HTTP request.
fn said(asked: &Asked, tag: u64) -> String {
    text(&at(&asked.message, &[HTTP, &[tag]].concat()).unwrap_or_default())
}

fn fields(asked: &Asked) -> Vec<(String, String)> {
    map(&asked.message, &[HTTP, &[3]].concat())
}

fn field(asked: &Asked, name: &str) -> Option<String> {
    fields(asked).into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

fn values<'r>(report: &'r Report, name: &str) -> Vec<&'r str> {
    let named = report.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.as_str()).collect()
}

#[tokio::test]
async fn who_is_denied_gets_the_services_answer() {
    let more = [
        nested(2, &option("www-authenticate", "Bearer realm=\"shop\"", None)),
        nested(2, &option("content-length", "1", None)),
        nested(3, b"who are you?"),
    ];
    let service = Service::saying(denied(401, &more)).await;
    let (echo, proxy) = start(&service, "").await;
    let reply = ask(&proxy, "GET /cart", "", "").await;
    assert_eq!((reply.status, reply.text().as_str()), (401, "who are you?"), "{}", reply.head);
    assert_eq!(reply.field("www-authenticate"), Some("Bearer realm=\"shop\""));
    assert_eq!(reply.field("x-outrigger-reason"), Some("external_authorization_denied"));
    assert_eq!(echo.requests(), 0);
    for series in [
        &result("denied"),
        "outrigger_downstream_errors_total{listener=\"web\",reason=\"external_authorization_denied\"}",
        "outrigger_upstream_requests_total{cluster=\"authz\",code=\"2xx\"}",
    ] {
        proxy.wait_metric(series, |n| n == 1.0).await;
    }
    // With nothing but a status that is not OK it is 403.
    let bare = Service::saying(Say::Message(nested(1, &[0x08, 16]))).await;
    let (echo, proxy) = start(&bare, "").await;
    let reply = ask(&proxy, "GET /cart", "", "").await;
    assert_eq!((reply.status, reply.text().as_str(), echo.requests()), (403, "", 0));
}

#[tokio::test]
async fn who_is_let_in_is_changed_as_the_service_says() {
    let service = Service::saying(allowed(&[
        nested(2, &option("x-user", "alice", None)),
        nested(2, &option("x-tag", "b", Some(true))),
        nested(2, &option("host", "elsewhere", None)),
        nested(2, &option("transfer-encoding", "chunked", None)),
        nested(5, b"authorization"),
        nested(5, b"host"),
        nested(6, &option("x-seen", "1", None)),
        nested(7, &[nested(1, b"tier"), nested(2, b"gold")].concat()),
        nested(8, b"token"),
    ]))
    .await;
    let (_echo, proxy) = start(&service, ", set_headers: [x-user]").await;
    let fields = "X-User: root\r\nx-tag: a\r\nauthorization: Bearer x\r\n";
    let reply = ask(&proxy, "GET /cart?token=1&%74oken=2&q=3", fields, "").await;
    assert_eq!((reply.status, reply.field("x-seen")), (200, Some("1")), "{}", reply.head);
    let report = Report::parse(&reply.body);
    assert_eq!(report.path, "/cart?q=3&tier=gold");
    assert_eq!((values(&report, "x-user"), values(&report, "x-tag")), (vec!["alice"], vec!["a", "b"]));
    assert_eq!(
        (values(&report, "authorization"), values(&report, "host")),
        (Vec::<&str>::new(), vec!["test"])
    );
    assert_eq!(values(&report, "transfer-encoding"), Vec::<&str>::new());
    // It was asked about what the client sent, but for what is not a client's to say.
    let asked = &service.asked()[0];
    assert_eq!(asked.target, "http://authz/envoy.service.auth.v3.Authorization/Check");
    assert_eq!(field(asked, "authorization").as_deref(), Some("Bearer x"));
    assert_eq!(field(asked, "x-user"), None);
    proxy.wait_metric(&result("ok"), |n| n == 1.0).await;
}

#[tokio::test]
async fn what_only_the_service_says_no_client_says() {
    // Routes look at it, too: it is gone before they do, and where nobody is asked.
    let service = Service::saying(allowed(&[])).await;
    let echo = Echo::start("e").await;
    let config =
        asking(&echo, service.address, "grpc: authz, timeout: 10s, set_headers: [x-user, authorization]");
    let config = config.replace(
        "      - to: app\n",
        "      - { match: { headers: { x-user: root } }, respond: { status: 418 } }\n      \
         - { match: { path: /free }, to: app, external_authorization: none }\n      - to: app\n",
    );
    let proxy = Proxy::start(&config).await;
    for path in ["/free", "/cart"] {
        let reply = ask(
            &proxy,
            &format!("GET {path}"),
            "x-user: root\r\nx_user: root\r\nauthorization: Bearer x\r\n",
            "",
        )
        .await;
        assert_eq!(reply.status, 200);
        let report = Report::parse(&reply.body);
        for name in ["x-user", "x_user"] {
            assert_eq!(values(&report, name), Vec::<&str>::new(), "{path}");
        }
        // What proves who a client is, the service sees, and replaces or removes.
        let proof = if path == "/free" { vec!["Bearer x"] } else { vec![] };
        assert_eq!(values(&report, "authorization"), proof, "{path}");
    }
    let asked = service.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(field(&asked[0], "authorization").as_deref(), Some("Bearer x"));
}

#[tokio::test]
async fn the_question_is_what_the_upstream_gets() {
    let service = Service::saying(allowed(&[])).await;
    let echo = Echo::start("e").await;
    let keys = "grpc: authz, timeout: 10s, context: { a: \"1\", b: \"1\" }";
    let config = asking(&echo, service.address, keys)
        .replace("- to: app\n", "- { to: app, external_authorization: { context: { b: \"2\" } } }\n");
    let proxy = Proxy::start(&config).await;
    // One spelling, for whoever decides and whoever serves.
    let reply = ask(&proxy, "GET /a/./b//%63?q=%2F", "x-a: 1\r\nx-a: 2\r\ncookie: c=1\r\n", "").await;
    let report = Report::parse(&reply.body);
    let asked = &service.asked()[0];
    assert_eq!((said(asked, 2).as_str(), said(asked, 4)), ("GET", report.path));
    assert_eq!((said(asked, 4).as_str(), said(asked, 5).as_str()), ("/a/b/c?q=%2F", "test"));
    assert_eq!((said(asked, 6).as_str(), said(asked, 10).as_str()), ("http", "HTTP/1.1"));
    for (name, value) in [
        (":method", "GET"),
        (":path", "/a/b/c?q=%2F"),
        (":authority", "test"),
        (":scheme", "http"),
        ("x-a", "1,2"),
        ("cookie", "c=1"),
        ("x-forwarded-proto", "http"),
    ] {
        assert_eq!(field(asked, name).as_deref(), Some(value), "{name}");
    }
    let context = map(&asked.message, &[1, 10]);
    assert_eq!(context, [("a", "1"), ("b", "2")].map(|(name, value)| (name.to_owned(), value.to_owned())));
    let address = |end: u64| text(&at(&asked.message, &[1, end, 1, 1, 2]).unwrap());
    assert_eq!((address(1).as_str(), address(2).as_str()), ("127.0.0.1", "127.0.0.1"));
    let port = |end: u64| {
        let socket = at(&asked.message, &[1, end, 1, 1]).unwrap();
        parts(&socket).find(|(tag, _, _)| *tag == 3).unwrap().2
    };
    assert_eq!(port(2), u64::from(proxy.address("web").port()));
    // Two requests are told apart.
    ask(&proxy, "GET /", "", "").await;
    ask(&proxy, "GET /", "x-request-id: mine\r\n", "").await;
    let asked = service.asked();
    assert_ne!(said(&asked[0], 1), said(&asked[1], 1));
    assert_eq!(said(&asked[2], 1), "mine");
}

#[tokio::test]
async fn a_service_is_shown_what_is_named_and_no_more() {
    let service = Service::saying(allowed(&[])).await;
    let (_echo, proxy) = start(&service, ", show_headers: [x-a]").await;
    assert_eq!(ask(&proxy, "POST /", "x-a: 1\r\nauthorization: Bearer x\r\n", "body").await.status, 200);
    let asked = &service.asked()[0];
    let names: Vec<_> =
        fields(asked).into_iter().map(|(name, _)| name).filter(|name| !name.starts_with(':')).collect();
    assert_eq!(names, ["x-a"]);
    assert_eq!(said(asked, 11), "");
}

#[tokio::test]
async fn a_body_is_shown_and_still_sent() {
    let service = Service::saying(allowed(&[])).await;
    let origin = Origin::ok("done").await;
    let proxy = Proxy::start(&before(
        origin.address(),
        service.address,
        "grpc: authz, timeout: 10s, body: { max: 8B }",
    ))
    .await;
    let reply = ask(&proxy, "POST /", "", "12345678").await;
    assert_eq!(reply.status, 200);
    let sent = origin.last();
    assert_eq!((&sent.message.body[..], sent.values("content-length")), (&b"12345678"[..], vec!["8"]));
    // It was the service's business, and not the upstream's.
    assert_eq!(sent.field("x-envoy-auth-partial-body"), None);
    // In pieces, with no length.
    let mut client = proxy.client("web").await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    client.send("3\r\n\u{0}de\r\n0\r\n\r\n").await;
    assert_eq!((client.reply().await.status, &origin.last().message.body[..]), (200, &b"abc\0de"[..]));
    let asked = service.asked();
    assert_eq!((said(&asked[0], 11).as_str(), said(&asked[1], 11).as_str()), ("12345678", "abc\0de"));
    assert_eq!(field(&asked[0], "x-envoy-auth-partial-body").as_deref(), Some("false"));
    let reply = ask(&proxy, "POST /", "", "123456789").await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (413, Some("external_authorization_body")));
    assert!(reply.text().contains("8 bytes"), "{}", reply.text());
    assert_eq!((origin.count(), service.asked().len()), (2, 2));
}

/// A body is one whatever is asked for beside it, and what is said of it is not the client's to say.
#[tokio::test]
async fn a_body_is_looked_at_whatever_the_request_asks_for() {
    let service = Service::saying(allowed(&[])).await;
    let origin = Origin::ok("done").await;
    let keys = "grpc: authz, timeout: 10s, body: { max: 8B }";
    let proxy = Proxy::start(&before(origin.address(), service.address, keys)).await;
    let upgrade = "Connection: upgrade\r\nUpgrade: x\r\nx-envoy-auth-partial-body: true\r\n";
    assert_eq!(ask(&proxy, "POST /", upgrade, "123456789").await.status, 413);
    assert_eq!((origin.count(), service.asked().len()), (0, 0));
    assert_eq!(ask(&proxy, "POST /", upgrade, "12345678").await.status, 200);
    assert_eq!(said(&service.asked()[0], 11), "12345678");
    assert_eq!(field(&service.asked()[0], "x-envoy-auth-partial-body").as_deref(), Some("false"));
    // Byte by byte, and with an expectation: it comes to the same.
    let mut client = proxy.client("web").await;
    client
        .send("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(client.exactly(25).await, b"HTTP/1.1 100 Continue\r\n\r\n");
    for byte in "abc".chars() {
        client.send(format!("1\r\n{byte}\r\n")).await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!((origin.last().message.body, origin.last().field("expect")), (b"abc".to_vec(), None));
}

/// What a service took away still says whose a request was.
#[tokio::test]
async fn an_answer_is_not_kept_for_others_than_whom_the_service_knew() {
    let service = Service::saying(allowed(&[nested(5, b"authorization")])).await;
    let origin = Origin::start(async |mut conn| {
        while let Some(request) = conn.request().await {
            let failing = request.field("x-fail").is_some();
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nalice";
            let failure = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
            conn.send(if failing { failure } else { answer }).await;
        }
    })
    .await;
    let config = before(origin.address(), service.address, "grpc: authz, timeout: 10s")
        .replace("- to: app\n", "- { to: app, fallback: { stale: { for: 1h } } }\n");
    let proxy = Proxy::start(&config).await;
    let alice = ask(&proxy, "GET /me", "authorization: Bearer alice\r\n", "").await;
    assert_eq!((alice.status, alice.text().as_str()), (200, "alice"));
    let bob = ask(&proxy, "GET /me", "authorization: Bearer bob\r\nx-fail: 1\r\n", "").await;
    assert_eq!((bob.status, bob.text().as_str()), (503, ""));
}

#[tokio::test]
async fn of_a_larger_body_the_beginning_is_shown() {
    let service = Service::saying(allowed(&[])).await;
    let origin = Origin::ok("done").await;
    let keys = "grpc: authz, timeout: 10s, body: { max: 4B, partial: true }";
    let proxy = Proxy::start(&before(origin.address(), service.address, keys)).await;
    let body = "x".repeat(100_000);
    assert_eq!(ask(&proxy, "POST /", "", &body).await.status, 200);
    assert_eq!(origin.last().message.body, body.as_bytes());
    let asked = service.asked();
    assert_eq!(said(asked.last().unwrap(), 11), "xxxx");
    assert_eq!(field(asked.last().unwrap(), "x-envoy-auth-partial-body").as_deref(), Some("true"));
    // By HTTP/2, with trailers.
    let client = H2::connect(proxy.address("web")).await;
    let trailers = http::HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
    let mut request = get("/");
    *request.method_mut() = http::Method::POST;
    request.headers_mut().insert("trailer", "x-sum".parse().unwrap());
    let reply = client.send(request, b"abc".to_vec(), Some(trailers)).await.unwrap();
    let sent = origin.last();
    assert_eq!((reply.status, &sent.message.body[..], sent.message.trailers.len()), (200, &b"abc"[..], 1));
    assert_eq!(said(service.asked().last().unwrap(), 11), "abc");
}

#[tokio::test]
async fn without_an_answer_nobody_is_let_in_unless_it_is_said() {
    let bad = nested(2, &option("x-user", "a\r\nb", None));
    let rows = [
        (Say::Nothing, "100ms"),
        (Say::Grpc(14), "10s"),
        (Say::Http(503), "10s"),
        // What is no message, and what cannot be carried out.
        (Say::Message(vec![0x0a]), "10s"),
        (allowed(&[bad]), "10s"),
        (denied(99, &[]), "10s"),
    ];
    for (say, timeout) in rows {
        let service = Service::saying(say.clone()).await;
        check_failure(&service.address.to_string(), timeout, &format!("{say:?}")).await;
        assert_eq!(service.asked().len(), 2, "{say:?}");
    }
    // Nobody listens there.
    check_failure("127.0.0.1:1", "10s", "dead").await;
}

async fn check_failure(service: &str, timeout: &str, what: &str) {
    let echo = Echo::start("e").await;
    let config = |more: &str| asking(&echo, service, &format!("grpc: authz, timeout: {timeout}{more}"));
    let proxy = Proxy::start(&config("")).await;
    let reply = ask(&proxy, "GET /", "", "").await;
    assert_eq!((reply.status, echo.requests()), (503, 0), "{what}");
    assert_eq!(reply.field("x-outrigger-reason"), Some("external_authorization_unavailable"), "{what}");
    proxy.reload(&config(", on_failure: allow, set_headers: [authorization, x-user]")).await;
    let reply = ask(&proxy, "GET /", "authorization: Bearer x\r\nx-user: root\r\n", "").await;
    assert_eq!((reply.status, echo.requests()), (200, 1), "{what}");
    // What is the service's to say, nobody has said.
    let report = Report::parse(&reply.body);
    assert_eq!((report.field("authorization"), report.field("x-user")), (None, None), "{what}");
    proxy.wait_metric(&result("error"), |n| n == 2.0).await;
}

#[tokio::test]
async fn a_grpc_caller_gets_a_grpc_status() {
    for (say, status, message) in [
        (denied(401, &[nested(3, "n\u{f6}".as_bytes())]), "16", "n%C3%B6"),
        (Say::Grpc(14), "14", "outrigger: it is not known whether this is allowed (external_authorization)"),
    ] {
        let service = Service::saying(say).await;
        let (_echo, proxy) = start(&service, "").await;
        let client = H2::connect(proxy.address("web")).await;
        let mut request = get("/a.B/C");
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let reply = client.send(request, Vec::new(), None).await.unwrap();
        assert_eq!((reply.status, reply.field("grpc-status")), (200, Some(status)));
        assert_eq!(reply.field("grpc-message"), Some(message));
    }
}

#[tokio::test]
async fn a_request_waits_no_longer_than_it_may_take() {
    let service = Service::saying(Say::Nothing).await;
    let echo = Echo::start("e").await;
    let keys = "grpc: authz, timeout: 10s, on_failure: allow, body: { max: 1KiB }";
    let config =
        asking(&echo, service.address, keys).replace("- to: app", "- to: app\n        timeout: 100ms");
    let proxy = Proxy::start(&config).await;
    let reply = ask(&proxy, "GET /", "", "").await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (504, Some("timeout")));
    // A body that does not come is part of it.
    let mut client = proxy.client("web").await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nab").await;
    assert_eq!(client.reply().await.status, 504);
    assert_eq!((echo.requests(), service.asked().len()), (0, 1));
}

#[tokio::test]
async fn the_clusters_circuit_breaker_holds_for_calls_too() {
    let service = Service::saying(Say::Nothing).await;
    let echo = Echo::start("e").await;
    let config = asking(&echo, service.address, "grpc: authz, timeout: 10s")
        .replace("protocol: http2", "protocol: http2, circuit_breaker: { max_requests: 1 }");
    let proxy = Proxy::start(&config).await;
    let mut first = proxy.client("web").await;
    first.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n".to_owned()).await;
    until("the first is asked about", async || (service.asked().len() == 1).then_some(())).await;
    let reply = ask(&proxy, "GET /", "", "").await;
    assert_eq!(reply.field("x-outrigger-reason"), Some("external_authorization_unavailable"));
    // Whoever leaves takes the call along.
    drop(first);
    proxy.wait_metric("outrigger_upstream_requests_active{cluster=\"authz\"}", |n| n == 0.0).await;
}

#[tokio::test]
async fn rules_and_tokens_come_first_and_limits_after() {
    let service = Service::saying(denied(401, &[])).await;
    let echo = Echo::start("e").await;
    let config = asking(&echo, service.address, "grpc: authz, timeout: 10s")
        .replace(
            "    bind: 127.0.0.1:0\n",
            "    bind: 127.0.0.1:0\n    authorization: [{ allow: { methods: [GET] } }]\n",
        )
        .replace("- to: app\n", "- { to: app, rate_limit: { rate: 1/h } }\n");
    let proxy = Proxy::start(&config).await;
    // Who may not is not asked about; and who is denied takes nothing of what others are limited by.
    assert_eq!(ask(&proxy, "PUT /", "", "").await.status, 403);
    for asked in 1..=3 {
        assert_eq!((ask(&proxy, "GET /", "", "").await.status, service.asked().len()), (401, asked));
    }
}

#[tokio::test]
async fn a_service_is_asked_by_http() {
    let echo = Echo::start("e").await;
    let authz = Origin::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-user: alice\r\nx-other: 1\r\nset-cookie: s=1\r\n\
         x-envoy-auth-headers-to-remove: x-secret\r\n\r\nok",
    )
    .await;
    let keys = "http: authz, path_prefix: /check, set_headers: [x-user], response_headers: [set-cookie], \
                timeout: 10s, body: { max: 1KiB }";
    let proxy = Proxy::start(&asking(&echo, authz.address(), keys)).await;
    let fields = "x-user: root\r\nx-secret: s\r\ncookie: c=1\r\nconnection: x-hop\r\nx-hop: 1\r\n";
    let reply = ask(&proxy, "POST /cart?q=1", fields, "body").await;
    assert_eq!((reply.status, reply.field("set-cookie")), (200, Some("s=1")), "{}", reply.head);
    let report = Report::parse(&reply.body);
    assert_eq!((report.path.as_str(), report.length), ("/cart?q=1", 4));
    assert_eq!((values(&report, "x-user"), values(&report, "cookie")), (vec!["alice"], vec!["c=1"]));
    assert_eq!((values(&report, "x-secret"), values(&report, "x-other")), (vec![], Vec::<&str>::new()));
    let asked = authz.last();
    assert_eq!(asked.message.start, "POST /check/cart?q=1 HTTP/1.1");
    for (name, value) in [
        ("host", "test"),
        ("content-length", "4"),
        ("cookie", "c=1"),
        ("x-forwarded-proto", "http"),
        ("x-envoy-auth-partial-body", "false"),
    ] {
        assert_eq!(asked.values(name), [value], "{name}");
    }
    for name in ["x-user", "x-hop"] {
        assert_eq!(asked.field(name), None, "{name}");
    }
    assert_eq!(asked.message.body, b"body");
    proxy.wait_metric(&result("ok"), |n| n == 1.0).await;
}

/// Who is asked does nothing but answer: a connection that ends just as it is used again says nothing of it.
#[tokio::test]
async fn a_connection_that_was_dead_is_no_silence() {
    let echo = Echo::start("e").await;
    let authz = Origin::start(async |mut conn| {
        conn.request().await;
        conn.send(ok("")).await;
        conn.request().await;
    })
    .await;
    let keys = "http: authz, timeout: 10s, body: { max: 1KiB }";
    let proxy = Proxy::start(&asking(&echo, authz.address(), keys)).await;
    let mut client = proxy.client("web").await;
    for asked in 1..=3 {
        client.send(outrigger_tests::wire::post("/", "body")).await;
        assert_eq!(client.reply().await.status, 200, "{asked}");
    }
    proxy.wait_metric("outrigger_upstream_replays_total{cluster=\"authz\"}", |n| n == 2.0).await;
}

#[tokio::test]
async fn an_answer_by_http_that_is_not_200_is_the_clients() {
    let rows = [
        ("302 Found", "location: /login\r\nset-cookie: n=1\r\n", 302, "external_authorization_denied"),
        (
            "401 Unauthorized",
            "www-authenticate: Basic\r\nconnection: x-a\r\n",
            401,
            "external_authorization_denied",
        ),
        ("204 No Content", "", 204, "external_authorization_denied"),
        ("503 Service Unavailable", "retry-after: 9\r\n", 503, "external_authorization_unavailable"),
    ];
    for (start, fields, status, reason) in rows {
        let echo = Echo::start("e").await;
        let length = if status == 204 { "" } else { "Content-Length: 2\r\n" };
        let body = if status == 204 { "" } else { "no" };
        let authz = Origin::answering(&format!("HTTP/1.1 {start}\r\n{length}{fields}\r\n{body}")).await;
        let proxy = Proxy::start(&asking(&echo, authz.address(), "http: authz, timeout: 10s")).await;
        let reply = ask(&proxy, "GET /", "", "").await;
        assert_eq!((reply.status, reply.field("x-outrigger-reason")), (status, Some(reason)), "{start}");
        if reason.ends_with("denied") {
            assert_eq!(reply.text(), body);
            for line in fields.lines().filter(|line| !line.starts_with("connection")) {
                assert!(reply.head.contains(line), "{line}: {}", reply.head);
            }
        }
        assert_eq!((echo.requests(), authz.count()), (0, 1));
    }
}

#[tokio::test]
async fn a_service_may_be_asked_in_http2_by_head() {
    // The echo answers 200, and says what it was asked.
    let (echo, authz) = (Echo::start("e").await, Echo::start("authz").await);
    let config = asking(&echo, authz.address(), "http: authz, timeout: 10s")
        .replace("protocol: auto", "protocol: http2");
    let proxy = Proxy::start(&config).await;
    let client = H2::connect(proxy.address("web")).await;
    assert_eq!(client.get("/cart").await.status, 200);
    assert_eq!((echo.requests(), authz.requests()), (1, 1));
    // Nobody can be asked about CONNECT by HTTP, nor in HTTP/2 about a host that it has no form for: to be let in for that
    // would be a way around.
    proxy.reload(&config.replace("timeout: 10s", "timeout: 10s, on_failure: allow")).await;
    let mut other = proxy.client("web").await;
    other.send("GET / HTTP/1.1\r\nHost: a%41\r\n\r\n").await;
    assert_eq!(other.reply().await.field("x-outrigger-reason"), Some("external_authorization_unavailable"));
    let mut tunnel = proxy.client("web").await;
    tunnel.send("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").await;
    assert_eq!(tunnel.reply().await.field("x-outrigger-reason"), Some("external_authorization_unavailable"));
    assert_eq!((echo.requests(), authz.requests()), (1, 1));
}
