//! Balancers: all endpoints get their share, and one that is dead gets nobody's patience.

use std::sync::atomic::Ordering::SeqCst;

use outrigger_tests::{Client, Echo, Nobody, Origin, Proxy, until};

use crate::outlier::Patient;
use crate::web_with;

const ALL: [&str; 4] = ["peak-ewma", "least-request", "round-robin", "random"];

/// Requests that each of these endpoints gets, of 300 from a few clients at once.
async fn spread(balance: &str, weights: [u32; 3]) -> Vec<usize> {
    let mut origins = Vec::new();
    for name in ["a", "b", "c"] {
        origins.push(Echo::start(name).await);
    }
    let endpoints: Vec<_> = origins
        .iter()
        .zip(weights)
        .map(|(o, w)| format!("{{ address: {}, weight: {w} }}", o.address()))
        .collect();
    let config = web_with("", &format!("balance: {balance}"), ["X"]).replace("\"X\"", &endpoints.join(", "));
    let proxy = Proxy::start(&config).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let web = proxy.address("web");
        clients.spawn(async move {
            let mut client = Client::connect(web).await;
            for _ in 0..50 {
                assert_eq!(client.get("/").await.status, 200);
            }
        });
    }
    clients.join_all().await;
    origins.iter().map(Echo::requests).collect()
}

#[tokio::test]
async fn everyone_gets_a_share() {
    for balance in ALL {
        let counts = spread(balance, [1, 1, 1]).await;
        assert_eq!(counts.iter().sum::<usize>(), 300, "{balance}: {counts:?}");
        // How even it is depends on how fast each was: nobody is left out, though.
        let least = if balance == "peak-ewma" { 1 } else { 50 };
        assert!(counts.iter().all(|count| *count >= least), "{balance}: {counts:?}");
    }
}

#[tokio::test]
async fn weights_count() {
    assert_eq!(spread("round-robin", [1, 2, 3]).await, [50, 100, 150]);
    let random = spread("random", [1, 1, 8]).await;
    assert!(random[2] > 180 && random[0] > 5 && random[1] > 5, "{random:?}");
}

/// An endpoint that refuses connections costs no request: nothing has been sent, and another one is tried.
#[tokio::test]
async fn a_dead_endpoint_costs_no_request() {
    for balance in ALL {
        let alive = Origin::ok("alive").await;
        let dead = Nobody::new();
        let config = web_with("", &format!("balance: {balance}"), [alive.address(), dead.address()]);
        let proxy = Proxy::start(&format!("workers: 1\n{config}")).await;
        let mut client = proxy.client("web").await;
        for _ in 0..50 {
            assert_eq!(client.get("/").await.status, 200, "{balance}");
            client.send(outrigger_tests::wire::post("/", "a body")).await;
            assert_eq!(client.reply().await.status, 200, "{balance}");
        }
        if balance == "peak-ewma" {
            let refused = proxy
                .metric(
                    "outrigger_upstream_connect_failures_total{cluster=\"app\",reason=\"connect_refused\"}",
                )
                .await;
            assert!(refused < 20.0, "{refused} of 100 requests asked the dead one first");
        }
    }
}

/// An endpoint that accepts and then fails is avoided once it has.
#[tokio::test]
async fn a_failing_endpoint_is_avoided_after_it_has_failed() {
    for balance in ["peak-ewma", "least-request"] {
        let alive = Origin::ok("alive").await;
        let failing = Origin::start(async |mut conn| {
            conn.request().await;
        })
        .await;
        let config = web_with("", &format!("balance: {balance}"), [alive.address(), failing.address()]);
        let proxy = Proxy::start(&format!("workers: 1\n{config}")).await;
        let mut client = proxy.client("web").await;
        let mut failures = 0;
        for _ in 0..100 {
            let reply = client.get("/").await;
            assert!(matches!(reply.status, 200 | 502), "{balance}: {}", reply.head);
            failures += usize::from(reply.status != 200);
        }
        assert!(failures <= 5, "{balance}: {failures} of 100 failed though one endpoint is well");
    }
}

#[tokio::test]
async fn a_cluster_without_endpoints_says_so() {
    let proxy = Proxy::start(&web_with("", "", Vec::<String>::new())).await;
    let reply = proxy.get("web", "/").await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (503, Some("upstream_no_endpoint")));
}

#[tokio::test]
async fn a_slow_endpoint_gets_less() {
    let fast = Origin::ok("fast").await;
    let slow = Origin::start(async |mut conn| {
        while conn.request().await.is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            conn.send(outrigger_tests::origin::ok("slow")).await;
        }
    })
    .await;
    let proxy =
        Proxy::start(&format!("workers: 1\n{}", web_with("", "", [fast.address(), slow.address()]))).await;
    let mut client = proxy.client("web").await;
    for _ in 0..100 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert!(slow.count() < 25, "{} of 100 went to the slow one", slow.count());
}

/// Which of the origins each of these requests came to.
async fn homes(proxy: &Proxy, requests: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut client = proxy.client("web").await;
    let mut homes = Vec::new();
    for request in requests {
        client.send(request).await;
        homes.push(client.reply().await.text());
    }
    homes
}

async fn named() -> Vec<Origin> {
    let mut origins = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        origins.push(Origin::ok(name).await);
    }
    origins
}

fn addresses(origins: &[Origin]) -> Vec<&str> {
    origins.iter().map(Origin::address).collect()
}

fn users(n: usize) -> impl Iterator<Item = String> {
    (0..n).map(|user| format!("GET / HTTP/1.1\r\nHost: app\r\nx-user: {user}\r\n\r\n"))
}

#[tokio::test]
async fn a_user_stays_at_one_endpoint_on_every_worker_and_when_others_leave() {
    for kind in ["maglev", "ring-hash"] {
        let origins = named().await;
        let balance = format!("balance: {{ {kind}: {{ hash: [{{ header: x-user }}] }} }}");
        let config = |origins: &[Origin]| web_with("", &balance, addresses(origins));
        let proxy = Proxy::start(&config(&origins)).await;
        let first = homes(&proxy, users(200)).await;
        // Other connections, other workers.
        assert_eq!(homes(&proxy, users(200)).await, first, "{kind}");
        assert_eq!(homes(&proxy, users(200)).await, first, "{kind}");
        let mut distinct = first.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 5, "{kind}: everyone has users");
        proxy.reload(&config(&origins[..4])).await;
        let after = homes(&proxy, users(200)).await;
        let moved =
            first.iter().zip(&after).filter(|(before, after)| before != after && *before != "e").count();
        assert!(moved <= 10, "{kind}: {moved} of 200 moved though their endpoint stayed");
        assert!(!after.contains(&"e".to_owned()));
    }
}

#[tokio::test]
async fn a_route_says_what_is_hashed_where_its_cluster_does_not() {
    let origins = named().await;
    let served =
        addresses(&origins).iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", ");
    let config = |own: &str| {
        format!(
            "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n      \
             - to: app\n        hash: [{{ header: x-user, terminal: true }}, {{ query: q }}, {{ cookie: {{ name: home, ttl: 1h, path: /a }} }}]\n\
             clusters:\n  app:\n    balance: {own}\n    endpoints: [{served}]\n"
        )
    };
    let proxy = Proxy::start(&config("maglev")).await;
    let asked =
        |user: usize, more: usize| format!("GET /?q={more} HTTP/1.1\r\nHost: app\r\nx-user: {user}\r\n\r\n");
    let homes_of = async |user: usize| homes(&proxy, (0..20).map(|more| asked(user, more))).await;
    let distinct = |mut homes: Vec<String>| {
        homes.sort();
        homes.dedup();
        homes.len()
    };
    // Behind what is terminal and there nothing counts.
    for user in 0..5 {
        assert_eq!(distinct(homes_of(user).await), 1);
    }
    assert!(distinct(homes(&proxy, users(50)).await) > 1);
    let by_query = |more: usize| format!("GET /?q={more} HTTP/1.1\r\nHost: app\r\nCookie: home=1\r\n\r\n");
    let first = homes(&proxy, (0..50).map(by_query)).await;
    assert_eq!(homes(&proxy, (0..50).map(by_query)).await, first);
    assert!(distinct(first) > 1);
    let reply = proxy.client("web").await.get("/").await;
    let cookie = reply.field("set-cookie").expect("a cookie").to_owned();
    assert!(cookie.contains("; Path=/a; Max-Age=3600; HttpOnly"), "{cookie}");
    // What the cluster says of itself counts before that.
    proxy.reload(&config("{ ring-hash: { hash: [{ query: q }] } }")).await;
    let same = (0..20).map(|user| asked(user, 7));
    assert_eq!(distinct(homes(&proxy, same).await), 1);
}

#[tokio::test]
async fn a_cookie_is_made_where_there_is_none_and_leads_back() {
    let origins = named().await;
    let balance = "balance: { maglev: { hash: [{ cookie: { name: home, ttl: 1h } }] } }";
    let proxy = Proxy::start(&web_with("", balance, addresses(&origins))).await;
    for _ in 0..10 {
        let mut client = proxy.client("web").await;
        let reply = client.get("/").await;
        let cookie = reply.field("set-cookie").expect("a cookie").to_owned();
        assert!(cookie.contains("; Path=/; Max-Age=3600; HttpOnly"), "{cookie}");
        let pair = cookie.split(';').next().unwrap();
        let again = format!("GET / HTTP/1.1\r\nHost: app\r\nCookie: other=1; {pair}\r\n\r\n");
        for _ in 0..3 {
            client.send(again.clone()).await;
            let back = client.reply().await;
            assert_eq!((back.text(), back.field("set-cookie")), (reply.text(), None));
        }
    }
}

#[tokio::test]
async fn the_next_priority_takes_what_the_first_cannot() {
    let (first, spare) =
        (Origin::answering("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n").await, Origin::ok("spare").await);
    let endpoints = format!(
        "{{ address: {}, zone: a }}, {{ address: {}, zone: b, priority: 1 }}",
        first.address(),
        spare.address()
    );
    let rules = "outlier_detection: { consecutive_5xx: 3, interval: 500ms, max_ejected: 50% }";
    let config = web_with("", rules, ["X"]).replace("\"X\"", &endpoints);
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.client("web").await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.status, 500, "all goes to the first while it is there");
    }
    for _ in 0..20 {
        assert_eq!(client.get("/").await.text(), "spare");
    }
    let cluster = proxy.ask_json("/clusters").await["clusters"][0].clone();
    assert_eq!((&cluster["levels"][0]["available"], &cluster["levels"][1]["load"]), (&0.into(), &1.0.into()));
    assert_eq!(
        (&cluster["endpoints"][1]["zone"], &cluster["endpoints"][1]["priority"]),
        (&"b".into(), &1.into())
    );
}

#[tokio::test]
async fn in_panic_everybody_is_used_and_it_is_counted() {
    for (threshold, expected) in [("0%", "upstream_no_endpoint"), ("60%", "")] {
        let bad = "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n";
        let (one, two) = (Origin::answering(bad).await, Origin::answering(bad).await);
        let cluster = format!(
            "panic_threshold: {threshold}\noutlier_detection: {{ consecutive_5xx: 1, max_ejected: 100%, interval: 1h }}"
        );
        let proxy = Proxy::start(&web_with("", &cluster, [one.address(), two.address()])).await;
        let mut client = proxy.client("web").await;
        for _ in 0..10 {
            client.get("/").await;
        }
        let reply = client.get("/").await;
        assert_eq!(reply.field("x-outrigger-reason").unwrap_or_default(), expected);
        let panics = proxy.metric("outrigger_upstream_panics_total{cluster=\"app\"}").await;
        assert_eq!(panics > 0.0, expected.is_empty());
    }
}

/// Endpoints with their zones, as a list is written.
fn zoned<'a>(endpoints: impl IntoIterator<Item = (&'a Origin, &'a str)>) -> String {
    let endpoint =
        |(origin, zone): (&Origin, &str)| format!("{{ address: {}, zone: {zone} }}", origin.address());
    endpoints.into_iter().map(endpoint).collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn zones_have_their_share_whatever_their_number_of_endpoints() {
    for balance in ALL {
        let many = [Origin::ok("many").await, Origin::ok("many").await, Origin::ok("many").await];
        let one = Origin::ok("one").await;
        let endpoints = zoned(many.iter().map(|origin| (origin, "a")).chain([(&one, "b")]));
        let cluster = format!("balance: {balance}\nzone_weights: {{ a: 10, b: 90 }}");
        let proxy = Proxy::start(&web_with("", &cluster, ["X"]).replace("\"X\"", &endpoints)).await;
        let mut client = proxy.client("web").await;
        let mut to_one = 0;
        for _ in 0..500 {
            to_one += usize::from(client.get("/").await.text() == "one");
        }
        // Six standard deviations about 450.
        assert!((410..=490).contains(&to_one), "{balance}: {to_one}");
        let level = proxy.ask_json("/clusters").await["clusters"][0]["levels"][0].clone();
        let zone = &level["zones"][1];
        assert_eq!(
            (&zone["name"], &zone["weight"], &zone["available"]),
            (&"b".into(), &90.into(), &1.into())
        );
        assert!((zone["load"].as_f64().unwrap() - 0.9).abs() < 1e-6, "{level}");
    }
}

#[tokio::test]
async fn a_zone_that_fails_its_checks_leaves_all_to_the_other() {
    let bad = "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n";
    let (ill, well) =
        ([Origin::answering(bad).await, Origin::answering(bad).await], Origin::ok("well").await);
    let endpoints = zoned(ill.iter().map(|origin| (origin, "a")).chain([(&well, "b")]));
    let cluster =
        "zone_weights: { a: 90, b: 10 }\nhealth_check: { http: /, interval: 50ms, unhealthy_after: 1 }";
    let proxy = Proxy::start(&web_with("", cluster, ["X"]).replace("\"X\"", &endpoints)).await;
    let loads = async || {
        let level = proxy.ask_json("/clusters").await["clusters"][0]["levels"][0].clone();
        [0, 1].map(|zone| level["zones"][zone]["load"].as_f64().unwrap())
    };
    let patience = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while loads().await != [0.0, 1.0] {
        assert!(tokio::time::Instant::now() < patience, "{:?}", loads().await);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut client = proxy.client("web").await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.text(), "well");
    }
}

/// A proxy's configuration of a cluster with the subsets `v1` and `v2`, of these endpoints with their versions.
fn versioned<'a>(
    to: &str,
    cluster: &str,
    endpoints: impl IntoIterator<Item = (&'a Origin, &'a str)>,
) -> String {
    let endpoint = |(origin, version): (&Origin, &str)| {
        format!("{{ address: {}, labels: {{ version: {version} }} }}", origin.address())
    };
    let endpoints = endpoints.into_iter().map(endpoint).collect::<Vec<_>>().join(", ");
    let subsets = format!("subsets: {{ v1: {{ version: v1 }}, v2: {{ version: v2 }} }}\n{cluster}");
    web_with("", &subsets, ["X"]).replace("\"X\"", &endpoints).replace("to: app", &format!("to: {to}"))
}

#[tokio::test]
async fn a_split_over_subsets_of_one_cluster() {
    let (one, many) =
        (Origin::ok("v1").await, [Origin::ok("v2").await, Origin::ok("v2").await, Origin::ok("v2").await]);
    let endpoints = many.iter().map(|origin| (origin, "v2")).chain([(&one, "v1")]);
    let proxy = Proxy::start(&versioned("{ app/v1: 90, app/v2: 10 }", "", endpoints)).await;
    let mut client = proxy.client("web").await;
    let mut to_one = 0;
    for _ in 0..500 {
        to_one += usize::from(client.get("/").await.text() == "v1");
    }
    assert!((410..=490).contains(&to_one), "{to_one}");
    let cluster = proxy.ask_json("/clusters").await["clusters"][0].clone();
    let subset = &cluster["subsets"][1];
    assert_eq!((&subset["name"], &subset["labels"]["version"]), (&"v2".into(), &"v2".into()));
    assert_eq!((&subset["endpoints"], &subset["available"]), (&3.into(), &3.into()));
    assert_eq!(cluster["endpoints"][3]["labels"]["version"], "v1");
}

#[tokio::test]
async fn a_retry_does_not_leave_the_subset() {
    let bad = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";
    let (ill, other) = ([Origin::answering(bad).await, Origin::answering(bad).await], Origin::ok("v1").await);
    let endpoints = ill.iter().map(|origin| (origin, "v2")).chain([(&other, "v1")]);
    let config = versioned("app/v2\n        retry: { attempts: 4, conditions: [5xx] }", "", endpoints);
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.client("web").await;
    for _ in 0..5 {
        assert_eq!(client.get("/").await.status, 503);
    }
    assert!(ill[0].count() + ill[1].count() > 5, "some were tried again");
    let nobody = Nobody::new();
    let config = config.replace(&ill[0].address().to_string(), nobody.address());
    proxy.reload(&config.replace(&ill[1].address().to_string(), "127.0.0.1:1")).await;
    for _ in 0..5 {
        assert_eq!(client.get("/").await.status, 503, "nor does one whose endpoint cannot be connected to");
    }
    assert_eq!(other.requests().len(), 0);
}

#[tokio::test]
async fn labels_that_change_move_traffic_and_close_no_connection() {
    let (a, b) = (Origin::ok("a").await, Origin::ok("b").await);
    let proxy = Proxy::start(&versioned("app/v2", "", [(&a, "v1"), (&b, "v2")])).await;
    let mut client = proxy.client("web").await;
    assert_eq!(client.get("/").await.text(), "b");
    proxy.reload(&versioned("app/v2", "", [(&a, "v2"), (&b, "v1")])).await;
    assert_eq!(client.get("/").await.text(), "a");
    proxy.reload(&versioned("app/v2", "", [(&a, "v1"), (&b, "v2")])).await;
    assert_eq!(client.get("/").await.text(), "b");
    assert_eq!(b.opened(), 1, "the one that was there is used again");
}

#[tokio::test]
async fn a_subset_without_endpoints_answers_503_or_any_does() {
    let origin = Origin::ok("any").await;
    let proxy = Proxy::start(&versioned("app/v2", "", [(&origin, "v1")])).await;
    let mut client = proxy.client("web").await;
    let reply = client.get("/").await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (503, Some("upstream_no_endpoint")));
    proxy.reload(&versioned("app/v2", "subset_fallback: any", [(&origin, "v1")])).await;
    assert_eq!(client.get("/").await.text(), "any");
}

/// Who was left out as the only one of its level, or of its zone, is asked again although the others suffice.
#[tokio::test]
async fn a_level_and_a_zone_that_were_left_out_come_back() {
    for (placed, more) in [("priority: 1", ""), ("zone: b", "zone_weights: { a: 80, b: 20 }\n")] {
        let first = Patient::start().await;
        first.ill.store(true, SeqCst);
        let spare = Origin::ok("spare").await;
        let endpoints = format!(
            "{{ address: {}, zone: a }}, {{ address: {}, {placed} }}",
            first.origin.address(),
            spare.address()
        );
        let endpoints = if more.is_empty() { endpoints.replace(", zone: a", "") } else { endpoints };
        let rules = "outlier_detection: { consecutive_5xx: 1, interval: 50ms, base_ejection: 100ms }";
        let proxy =
            Proxy::start(&web_with("", &format!("{more}{rules}"), ["X"]).replace("\"X\"", &endpoints)).await;
        let mut client = proxy.client("web").await;
        let ejections = "outrigger_upstream_ejections_total{cluster=\"app\",cause=\"consecutive_5xx\"}";
        until("the first is left out", async || {
            client.get("/").await;
            (proxy.metric(ejections).await > 0.0).then_some(())
        })
        .await;
        first.ill.store(false, SeqCst);
        until(&format!("{placed}: the first is asked again"), async || {
            (client.get("/").await.text() == "well").then_some(())
        })
        .await;
    }
}
