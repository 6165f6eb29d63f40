//! Global rate limits: what the service is asked, what comes of what it says, and of its silence.

mod service;

use outrigger_tests::h2client::{H2, get};
use outrigger_tests::{Echo, Proxy, Reply, until};

use self::service::{Question, ok, over_limit, to_request, to_response};
use crate::grpc_service::{Say, Service};
use crate::web_routed;

const SILENT: &str = "timeout: 10s";

fn result(result: &str) -> String {
    format!("outrigger_downstream_rate_limit_service_total{{listener=\"web\",result=\"{result}\"}}")
}

/// A listener `web` whose one route asks a service at this address, with these further keys of the limit.
fn asking(echo: &Echo, service: impl std::fmt::Display, limit: &str) -> String {
    let descriptors = "descriptors: [[{ header: x-api-key }]]";
    let descriptors = if limit.contains("descriptors") { "" } else { descriptors };
    let keys =
        [limit, descriptors].into_iter().filter(|keys| !keys.is_empty()).collect::<Vec<_>>().join(", ");
    let route = format!("global_rate_limit: {{ cluster: rls, domain: shop, {keys} }}");
    let service = format!("  rls: {{ endpoints: [\"{service}\"], protocol: http2 }}\n");
    web_routed(&route, "", "", [echo.address()]) + &service
}

async fn start(service: &Service, limit: &str) -> (Echo, Proxy) {
    let echo = Echo::start("e").await;
    let proxy = Proxy::start(&asking(&echo, service.address, limit)).await;
    (echo, proxy)
}

/// One GET with these fields.
async fn ask(proxy: &Proxy, fields: &str) -> Reply {
    let mut client = proxy.client("web").await;
    client.send(format!("GET /cart HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\n")).await;
    client.reply().await
}

#[tokio::test]
async fn over_limit_is_429_with_what_the_service_adds() {
    let said = [over_limit(60), to_response("x-ratelimit-limit", "5"), to_request("x-never", "1")].concat();
    let service = Service::saying(Say::Message(said)).await;
    let (echo, proxy) = start(&service, SILENT).await;
    let reply = ask(&proxy, "x-api-key: k").await;
    assert_eq!(reply.status, 429, "{}", reply.head);
    assert_eq!(reply.field("x-outrigger-reason"), Some("rate_limited_globally"));
    assert_eq!((reply.field("x-ratelimit-limit"), reply.field("x-never")), (Some("5"), None));
    assert_eq!(reply.text(), "outrigger: this route takes no more for now (global_rate_limit)\n");
    assert_eq!(echo.requests(), 0);
    for series in [
        &result("over_limit"),
        "outrigger_downstream_limits_total{listener=\"web\",limit=\"global_rate_limit\"}",
        "outrigger_downstream_errors_total{listener=\"web\",reason=\"rate_limited_globally\"}",
        "outrigger_upstream_requests_total{cluster=\"rls\",code=\"2xx\"}",
    ] {
        proxy.wait_metric(series, |n| n == 1.0).await;
    }
}

#[tokio::test]
async fn a_request_that_is_taken_carries_what_the_service_adds_and_so_does_its_answer() {
    let said = [
        ok(),
        to_request("x-tier", "gold"),
        to_request("x-api-key", "again"),
        to_request("host", "elsewhere"),
        to_request("transfer-encoding", "chunked"),
        to_response("x-ratelimit-remaining", "4"),
        to_response("content-length", "1"),
    ]
    .concat();
    let service = Service::saying(Say::Message(said)).await;
    let (_echo, proxy) = start(&service, SILENT).await;
    let reply = ask(&proxy, "x-api-key: k").await;
    assert_eq!((reply.status, reply.field("x-ratelimit-remaining")), (200, Some("4")));
    let report = outrigger_tests::Report::parse(&reply.body);
    let values = |name: &str| {
        let named = report.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(values("x-tier"), ["gold"]);
    assert_eq!(values("x-api-key"), ["k", "again"]);
    assert_eq!((values("host"), values("transfer-encoding")), (vec!["test"], vec![]));
    proxy.wait_metric(&result("ok"), |n| n == 1.0).await;
}

#[tokio::test]
async fn what_we_answer_ourselves_carries_it_too() {
    let service = Service::saying(Say::Message([ok(), to_response("x-left", "4")].concat())).await;
    let echo = Echo::start("e").await;
    let config = asking(&echo, service.address, SILENT);
    let proxy = Proxy::start(&config.replace(&echo.address().to_string(), "127.0.0.1:1")).await;
    let reply = ask(&proxy, "x-api-key: k").await;
    assert_eq!((reply.status, reply.field("x-left")), (503, Some("4")));
    proxy.reload(&config.replace("to: app", "respond: { status: 202 }")).await;
    let reply = ask(&proxy, "x-api-key: k").await;
    assert_eq!((reply.status, reply.field("x-left")), (202, Some("4")));
}

#[tokio::test]
async fn the_question_is_what_was_configured() {
    let service = Service::saying(Say::Message(ok())).await;
    let descriptors =
        "[[{ header: X-Api-Key }, { key: path, value: cart }], [source, { header: x-b }], [source]]";
    let (_echo, proxy) = start(&service, &format!("hits: 300, descriptors: {descriptors}")).await;
    assert_eq!(ask(&proxy, "x-b: 1\r\nx-b: 2\r\nX-API-KEY: k").await.status, 200);
    assert_eq!(ask(&proxy, "x-b: \r\nx-api-key: a\u{ff}b").await.status, 200);
    assert_eq!(ask(&proxy, "x-api-key:").await.status, 200);
    let asked = service.asked();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let client = || pair("remote_address", "127.0.0.1");
    let expected = [
        vec![pair("x-api-key", "k"), pair("path", "cart")],
        // The first of a field that is repeated.
        vec![client(), pair("x-b", "1")],
        vec![client()],
    ];
    let questions: Vec<_> = asked.iter().map(Question::of).collect();
    assert_eq!(questions[0].descriptors, expected);
    // A value that is empty is one; what is not there leaves its descriptor out.
    let fixed = pair("path", "cart");
    assert_eq!(
        questions[1].descriptors,
        [vec![pair("x-api-key", "aÿb"), fixed.clone()], vec![client(), pair("x-b", "")], vec![client()]]
    );
    assert_eq!(questions[2].descriptors, [vec![pair("x-api-key", ""), fixed], vec![client()]]);
    assert_eq!((questions[0].domain.as_str(), questions[0].hits), ("shop", 300));
    assert_eq!(asked[0].target, "http://rls/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit");
    let field = |name: &str| asked[0].fields[name].to_str().unwrap();
    let fields = ["content-type", "te", "grpc-timeout"].map(field);
    assert_eq!(fields, ["application/grpc", "trailers", "50000u"]);
    assert!(service.opened() <= 2, "a connection for each worker");
}

#[tokio::test]
async fn the_listeners_service_counts_for_routes_that_name_none() {
    let service = Service::saying(Say::Message(over_limit(60))).await;
    let echo = Echo::start("e").await;
    let (at, app) = (service.address, echo.address());
    let entries = "[{ header: x-api-key, as: user, optional: true }, { query: q, optional: true }, destination_cluster, \
                   { key: beta, value: \"1\", when: { headers: { x-beta: { present: true } } } }]";
    let config = format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    global_rate_limit: {{ cluster: rls, domain: shop, timeout: 10s, on_failure: deny }}\n    routes:\n      \
         - {{ match: {{ path: /free }}, to: app }}\n      - to: app\n        global_rate_limit: {{ descriptors: [{entries}, [{{ query: q }}], [source_cluster]] }}\n\
         clusters:\n  app: {{ endpoints: [\"{app}\"] }}\n  rls: {{ endpoints: [\"{at}\"], protocol: http2 }}\n"
    );
    let proxy = Proxy::start(&config).await;
    assert_eq!(proxy.get("web", "/free").await.status, 200);
    // As nothing it counts as is there.
    assert_eq!(proxy.get("web", "/").await.status, 200);
    let get = async |target: &str, fields: &str| {
        let mut client = proxy.client("web").await;
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n")).await;
        client.reply().await
    };
    let reply = get("/?q=a%20b", "x-beta: 1\r\n").await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (429, Some("rate_limited_globally")));
    assert_eq!(get("/", "x-beta: 1\r\nx-api-key: k\r\n").await.status, 429);
    // It is known to be refused.
    assert_eq!(get("/", "x-beta: 1\r\nx-api-key: k\r\n").await.status, 429);
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let asked: Vec<_> = service.asked().iter().map(Question::of).collect();
    let expected = [
        vec![
            vec![pair("q", "a b"), pair("destination_cluster", "app"), pair("beta", "1")],
            vec![pair("q", "a b")],
        ],
        vec![vec![pair("user", "k"), pair("destination_cluster", "app"), pair("beta", "1")]],
    ];
    assert_eq!(asked.iter().map(|question| question.descriptors.clone()).collect::<Vec<_>>(), expected);
    assert!(asked.iter().all(|question| question.domain == "shop"));
    proxy.wait_metric(&result("cached"), |n| n == 1.0).await;
    // Nobody is there to be asked: then the listener decides.
    proxy.reload(&config.replace(&at.to_string(), "127.0.0.1:1")).await;
    let reply = get("/?q=new", "").await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (503, Some("rate_limit_unavailable")));
}

#[tokio::test]
async fn whoever_counts_as_nothing_is_not_asked_about() {
    let service = Service::saying(Say::Message(over_limit(60))).await;
    let (_echo, proxy) = start(&service, SILENT).await;
    assert_eq!(ask(&proxy, "x-other: k").await.status, 200);
    assert_eq!(service.asked().len(), 0);
}

#[tokio::test]
async fn without_an_answer_the_route_decides() {
    let rows = [
        (Say::Nothing, "100ms"),
        (Say::Grpc(14), "10s"),
        (Say::Http(503), "10s"),
        // UNKNOWN, and what is no message.
        (Say::Message(Vec::new()), "10s"),
        (Say::Message(vec![0x0a]), "10s"),
    ];
    for (say, timeout) in rows {
        let service = Service::saying(say.clone()).await;
        check_failure(&service.address.to_string(), timeout, &format!("{say:?}")).await;
        assert_eq!(service.asked().len(), 2, "{say:?}");
    }
    // Nobody listens there.
    check_failure("127.0.0.1:1", "10s", "dead").await;
}

/// With a service that gives no answer, a request is taken or refused as the route says.
async fn check_failure(service: &str, timeout: &str, what: &str) {
    let echo = Echo::start("e").await;
    let limit = |on_failure: &str| asking(&echo, service, &format!("timeout: {timeout}{on_failure}"));
    let proxy = Proxy::start(&limit("")).await;
    let reply = ask(&proxy, "x-api-key: k").await;
    assert_eq!((reply.status, echo.requests()), (200, 1), "{what}");
    proxy.reload(&limit(", on_failure: deny")).await;
    let reply = ask(&proxy, "x-api-key: k").await;
    assert_eq!((reply.status, echo.requests()), (503, 1), "{what}");
    assert_eq!(reply.field("x-outrigger-reason"), Some("rate_limit_unavailable"), "{what}");
    proxy.wait_metric(&result("error"), |n| n == 2.0).await;
}

#[tokio::test]
async fn a_refusal_is_remembered_for_its_caller_and_not_for_long() {
    let service = Service::start(|asked| {
        Say::Message(if Question::of(asked).first() == "free" { ok() } else { over_limit(60) })
    })
    .await;
    let (echo, proxy) = start(&service, SILENT).await;
    let asked = |who: &str| service.asked().iter().filter(|asked| Question::of(asked).first() == who).count();
    let began = tokio::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(ask(&proxy, "x-api-key: a").await.status, 429);
    }
    let (calls, took) = (asked("a"), began.elapsed());
    // Once, and once more for each second that this machine has taken.
    assert!(calls >= 1 && calls as u64 <= 1 + took.as_secs(), "{calls} in {took:?}");
    assert_eq!(ask(&proxy, "x-api-key: b").await.status, 429);
    assert_eq!(asked("b"), 1, "another caller is asked about");
    for _ in 0..3 {
        assert_eq!(ask(&proxy, "x-api-key: free").await.status, 200);
    }
    assert_eq!((asked("free"), echo.requests()), (3, 3), "what was granted is asked each time");
    proxy.wait_metric(&result("cached"), |n| n >= 1.0).await;
    until("it is asked about again", async || {
        ask(&proxy, "x-api-key: a").await;
        (asked("a") > calls).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_a_cache_or_a_reset_every_request_is_asked_about() {
    let forever = Service::saying(Say::Message(vec![0x08, 2])).await;
    let (_echo, proxy) = start(&forever, SILENT).await;
    let resets = Service::saying(Say::Message(over_limit(60))).await;
    let (_other, uncached) = start(&resets, "cache: 0").await;
    for _ in 0..3 {
        assert_eq!(ask(&proxy, "x-api-key: a").await.status, 429);
        assert_eq!(ask(&uncached, "x-api-key: a").await.status, 429);
    }
    assert_eq!((forever.asked().len(), resets.asked().len()), (3, 3));
}

#[tokio::test]
async fn a_grpc_caller_gets_a_grpc_status() {
    for (say, on_failure, status) in
        [(Say::Message(over_limit(1)), "allow", "8"), (Say::Grpc(14), "deny", "14")]
    {
        let service = Service::saying(say).await;
        let (_echo, proxy) = start(&service, &format!("on_failure: {on_failure}")).await;
        let client = H2::connect(proxy.address("web")).await;
        let mut request = get("/a.B/C");
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        request.headers_mut().insert("x-api-key", "k".parse().unwrap());
        let reply = client.send(request, Vec::new(), None).await.unwrap();
        assert_eq!((reply.status, reply.field("grpc-status")), (200, Some(status)));
    }
}

#[tokio::test]
async fn a_request_waits_no_longer_than_it_may_take() {
    let service = Service::saying(Say::Nothing).await;
    let echo = Echo::start("e").await;
    let config =
        asking(&echo, service.address, SILENT).replace("- to: app", "- to: app\n        timeout: 100ms");
    let proxy = Proxy::start(&config).await;
    let reply = ask(&proxy, "x-api-key: k").await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (504, Some("timeout")));
    assert_eq!(echo.requests(), 0);
}

#[tokio::test]
async fn the_clusters_circuit_breaker_holds_for_calls_too() {
    let service = Service::saying(Say::Nothing).await;
    let echo = Echo::start("e").await;
    let config = asking(&echo, service.address, "timeout: 10s, on_failure: deny")
        .replace("protocol: http2", "protocol: http2, circuit_breaker: { max_requests: 1 }");
    let proxy = Proxy::start(&config).await;
    let mut first = proxy.client("web").await;
    first.send("GET / HTTP/1.1\r\nHost: test\r\nx-api-key: a\r\n\r\n".to_owned()).await;
    until("the first is asked about", async || (service.asked().len() == 1).then_some(())).await;
    let reply = ask(&proxy, "x-api-key: b").await;
    assert_eq!(reply.field("x-outrigger-reason"), Some("rate_limit_unavailable"));
    let overflows = "outrigger_upstream_overflows_total{cluster=\"rls\",limit=\"max_requests\"}";
    proxy.wait_metric(overflows, |n| n == 1.0).await;
    // Whoever leaves takes the call along.
    drop(first);
    proxy.wait_metric("outrigger_upstream_requests_active{cluster=\"rls\"}", |n| n == 0.0).await;
}

#[tokio::test]
async fn other_routes_ask_nobody() {
    let service = Service::saying(Say::Message(over_limit(60))).await;
    let echo = Echo::start("e").await;
    let config = asking(&echo, service.address, SILENT)
        .replace("      - to: app\n", "      - { match: { path: /free }, to: app }\n      - to: app\n");
    let proxy = Proxy::start(&config).await;
    assert_eq!(proxy.get("web", "/free").await.status, 200);
    assert_eq!(service.asked().len(), 0);
    assert_eq!(ask(&proxy, "x-api-key: k").await.status, 429);
}
