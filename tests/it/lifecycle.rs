//! Start, drain, end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use outrigger_tests::h2client::H2;
use outrigger_tests::load::{Load, OnClose};
use outrigger_tests::wait::PATIENCE;
use outrigger_tests::wire::get;
use outrigger_tests::{Client, Dir, Echo, Origin, Proxy, until};
use rustix::process::Signal;

use crate::web;

/// An origin that answers `/held` when it is told to, and everything else at once.
async fn holding() -> (Origin, tokio::sync::watch::Sender<bool>) {
    let (go, gate) = tokio::sync::watch::channel(false);
    let origin = Origin::start(move |mut conn| {
        let mut gate = gate.clone();
        async move {
            while let Some(request) = conn.request().await {
                if request.target() == "/held" {
                    let _ = gate.wait_for(|go| *go).await;
                }
                conn.send(outrigger_tests::origin::ok("done")).await;
            }
        }
    })
    .await;
    (origin, go)
}

fn with_shutdown(keys: &str, origin: &Origin) -> String {
    format!("shutdown: {{ {keys} }}\n{}", web([origin.address()]))
}

#[tokio::test]
async fn it_is_ready_when_it_says_so_and_live_all_along() {
    let (origin, _go) = holding().await;
    let proxy = Proxy::start(&with_shutdown("lame_duck: 10s, deadline: 20s", &origin)).await;
    assert_eq!((proxy.ask("/ready").await.status, proxy.ask("/live").await.status), (200, 200));
    assert_eq!(proxy.get("web", "/").await.status, 200);
    proxy.signal(Signal::TERM);
    until("it is no longer ready", async || (proxy.ask("/ready").await.status == 503).then_some(())).await;
    assert_eq!(proxy.ask("/live").await.status, 200, "to drain is not to be ill");
    assert_eq!(proxy.metric("outrigger_draining").await, 1.0);
    // For the lame-duck time whoever has not heard yet is still served, and told to go.
    let reply = proxy.get("web", "/").await;
    assert_eq!(reply.status, 200);
    assert!(reply.closes(), "{}", reply.head);
}

#[tokio::test]
async fn it_ends_at_once_when_nothing_is_open() {
    let (origin, _go) = holding().await;
    for signal in [Signal::TERM, Signal::INT] {
        let proxy = Proxy::start(&web([origin.address()])).await;
        assert_eq!(proxy.get("web", "/").await.status, 200);
        proxy.signal(signal);
        assert!(proxy.exit(Duration::from_secs(5)).await.success(), "{}", proxy.log());
    }
}

#[tokio::test]
async fn drain_under_load_loses_no_request() {
    let echo = Echo::start("e").await;
    let proxy = Proxy::start(&format!("shutdown: {{ lame_duck: 300ms }}\n{}", web([echo.address()]))).await;
    let load = Load::start(proxy.address("web"), "/", 16, OnClose::Leave);
    load.more(500).await;
    proxy.signal(Signal::TERM);
    let outcome = load.end().await;
    assert_eq!(outcome.failures, Vec::<String>::new());
    assert_eq!(outcome.closes, 16, "every client was told");
    assert!(proxy.exit(PATIENCE).await.success());
    assert_eq!(echo.resets(), 0);
}

#[tokio::test]
async fn clients_that_come_back_while_it_is_a_lame_duck_are_served() {
    let echo = Echo::start("e").await;
    let proxy = Proxy::start(&format!("shutdown: {{ lame_duck: 30s }}\n{}", web([echo.address()]))).await;
    let load = Load::start(proxy.address("web"), "/", 4, OnClose::Reconnect);
    load.more(50).await;
    proxy.signal(Signal::TERM);
    load.more(200).await;
    let outcome = load.stop().await;
    assert_eq!(outcome.failures, Vec::<String>::new());
    assert!(outcome.closes > 100);
}

#[tokio::test]
async fn what_is_in_flight_is_finished() {
    let (origin, go) = holding().await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let web = proxy.address("web");
    let mut client = proxy.client("web").await;
    client.send(get("/held")).await;
    origin.wait_requests(1).await;
    proxy.signal(Signal::TERM);
    until("it accepts no more", async || Client::try_connect(web).await.is_none().then_some(())).await;
    assert!(proxy.exited().is_none());
    go.send(true).unwrap();
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "done"));
    assert!(reply.closes(), "{}", reply.head);
    assert!(proxy.exit(PATIENCE).await.success());
}

#[tokio::test]
async fn an_idle_connection_gets_one_last_answer_or_the_end() {
    let (origin, _go) = holding().await;
    let proxy = Proxy::start(&with_shutdown("lame_duck: 30s", &origin)).await;
    let mut idle = proxy.client("web").await;
    assert!(!idle.get("/").await.closes());
    proxy.signal(Signal::TERM);
    until("it drains", async || (proxy.ask("/ready").await.status == 503).then_some(())).await;
    let reply = idle.get("/").await;
    assert_eq!(reply.status, 200);
    assert!(reply.closes(), "{}", reply.head);
    assert_eq!(idle.rest().await, b"");
}

#[tokio::test]
async fn connections_that_stay_idle_do_not_hold_the_exit_up() {
    let (origin, _go) = holding().await;
    let proxy = Proxy::start(&with_shutdown("quiet: 200ms, deadline: 60s", &origin)).await;
    let mut idle = proxy.client("web").await;
    assert_eq!(idle.get("/").await.status, 200);
    let mut silent = proxy.client("web").await;
    proxy.signal(Signal::TERM);
    assert!(proxy.exit(Duration::from_secs(12)).await.success());
    assert_eq!(idle.rest().await, b"");
    assert_eq!(silent.rest().await, b"");
}

#[tokio::test]
async fn http2_is_told_by_goaway_and_finishes() {
    let (origin, go) = holding().await;
    let config =
        web([origin.address()]).replace("clusters:\n  app:", "clusters:\n  app:\n    protocol: http1");
    let proxy = Proxy::start(&config).await;
    let h2 = H2::connect(proxy.address("web")).await;
    assert_eq!(h2.get("/").await.status, 200);
    let (held, _stream) = h2.open(outrigger_tests::h2client::get("/held"), true).await;
    origin.wait_requests(2).await;
    proxy.signal(Signal::TERM);
    proxy.wait_log("draining").await;
    go.send(true).unwrap();
    let reply = outrigger_tests::within("the held answer", held).await.unwrap();
    assert_eq!(reply.status(), 200);
    drop(reply);
    h2.ended().await.unwrap();
    assert!(proxy.exit(PATIENCE).await.success());
}

/// GOAWAY in two steps: no stream that a client has opened is refused, whenever it opened it.
#[tokio::test]
async fn drain_under_load_over_http2_loses_no_stream() {
    let echo = Echo::start("e").await;
    let proxy = Proxy::start(&web([echo.address()])).await;
    let mut clients = tokio::task::JoinSet::new();
    let answers = Arc::new(AtomicUsize::new(0));
    for _ in 0..4 {
        let h2 = Arc::new(H2::connect(proxy.address("web")).await);
        for _ in 0..8 {
            let (h2, answers) = (h2.clone(), answers.clone());
            clients.spawn(async move {
                while let Ok((response, _)) = h2.try_open(outrigger_tests::h2client::get("/"), true).await {
                    let reply = async { outrigger_tests::h2client::collect(response.await?).await };
                    match outrigger_tests::within("an answer", reply).await {
                        Ok(reply) => assert_eq!(reply.status, 200),
                        Err(error) => return Some(error.to_string()),
                    }
                    answers.fetch_add(1, SeqCst);
                }
                None
            });
        }
    }
    until("the load makes progress", async || (answers.load(SeqCst) > 500).then_some(())).await;
    proxy.signal(Signal::TERM);
    let failures: Vec<String> =
        outrigger_tests::within("clients end", clients.join_all()).await.into_iter().flatten().collect();
    assert_eq!(failures, Vec::<String>::new());
    assert!(proxy.exit(PATIENCE).await.success());
}

/// What is no request cannot be finished: it goes on as long as it may, and is then cut.
#[tokio::test]
async fn tunnels_and_tcp_last_until_the_deadline() {
    let repeating = Origin::start(async |mut conn| {
        while let Some(bytes) = conn.some().await {
            conn.send(bytes).await;
        }
    })
    .await;
    let config = format!(
        "shutdown: {{ deadline: 3s }}\nlisteners:\n  db:\n    bind: 127.0.0.1:0\n    tcp: {{ to: db }}\nclusters:\n  db: {{ endpoints: [{}] }}\n",
        repeating.address()
    );
    let proxy = Proxy::start(&config).await;
    let db = proxy.address("db");
    let mut client = proxy.client("db").await;
    client.send("before").await;
    assert_eq!(client.exactly(6).await, b"before");
    proxy.signal(Signal::TERM);
    until("it accepts no more", async || Client::try_connect(db).await.is_none().then_some(())).await;
    client.send("while").await;
    assert_eq!(client.exactly(5).await, b"while");
    proxy.exit(PATIENCE).await;
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let (origin, _go) = holding().await;
    let proxy = Proxy::start(&with_shutdown("deadline: 10m", &origin)).await;
    let mut client = proxy.client("web").await;
    client.send(get("/held")).await;
    origin.wait_requests(1).await;
    proxy.signal(Signal::TERM);
    proxy.wait_log("draining").await;
    assert!(proxy.exited().is_none());
    proxy.signal(Signal::TERM);
    proxy.exit(Duration::from_secs(5)).await;
    client.rest().await;
}

#[tokio::test]
async fn the_deadline_cuts() {
    let (origin, _go) = holding().await;
    let proxy = Proxy::start(&with_shutdown("deadline: 1s", &origin)).await;
    let mut client = proxy.client("web").await;
    client.send(get("/held")).await;
    origin.wait_requests(1).await;
    proxy.signal(Signal::TERM);
    proxy.exit(Duration::from_secs(8)).await;
    proxy.wait_log("deadline").await;
    client.rest().await;
}

#[tokio::test]
async fn egress_goes_on_while_ingress_is_closed() {
    let (origin, go) = holding().await;
    let config = web([origin.address()]).replace(
        "clusters:",
        "  out:\n    bind: 127.0.0.1:0\n    direction: outbound\n    routes:\n      - to: app\nclusters:",
    );
    let proxy = Proxy::start(&format!("shutdown: {{ quiet: 10s }}\n{config}")).await;
    let (ingress, egress) = (proxy.address("web"), proxy.address("out"));
    let mut held = proxy.client("web").await;
    held.send(get("/held")).await;
    origin.wait_requests(1).await;
    proxy.signal(Signal::TERM);
    until("ingress is closed", async || Client::try_connect(ingress).await.is_none().then_some(())).await;
    // The application still works off what came in, and calls others for it.
    let reply = Client::connect(egress).await.get("/").await;
    assert_eq!(reply.status, 200);
    go.send(true).unwrap();
    assert_eq!(held.reply().await.status, 200);
}

#[tokio::test]
async fn a_port_that_is_taken_and_a_bad_file_end_the_start() {
    let taken = Origin::ok("").await;
    let dir = Arc::new(Dir::new());
    let good = web(["127.0.0.1:1"]);
    let rows = [
        ("bind", good.replace("127.0.0.1:0", taken.address()), "cannot listen on"),
        ("admin", format!("admin: {}\n{good}", taken.address()), "admin"),
        ("mistake", good.replace("endpoints", "endpionts"), "did you mean `endpoints`"),
    ];
    for (name, config, said) in rows {
        let config = if name == "admin" { config } else { outrigger_tests::proxy::with_admin(&config) };
        let file = dir.write(&format!("{name}.yaml"), &config);
        let proxy = Proxy::spawn(dir.clone(), &file, &[]);
        let status = proxy.exit(PATIENCE).await;
        assert_eq!(status.code(), Some(1), "{name}");
        proxy.wait_log(said).await;
    }
}

#[tokio::test]
async fn it_starts_while_no_upstream_is_there() {
    let proxy = Proxy::start(&web(["127.0.0.1:1"])).await;
    let reply = proxy.get("web", "/").await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (503, Some("upstream_connect_refused")));
}
