//! Balancers: all endpoints get their share, and one that is dead gets nobody's patience.

use outrigger_tests::{Client, Echo, Origin, Proxy};

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
        let least = if balance == "peak-ewma" { 10 } else { 50 };
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
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dead = gone.local_addr().unwrap().to_string();
        drop(gone);
        let config = web_with("", &format!("balance: {balance}"), [alive.address(), &dead]);
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
