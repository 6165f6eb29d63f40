//! The configuration is replaced under load: nothing is lost, nothing is closed that the change does not name, and one
//! that is wrong changes nothing.

use std::sync::Arc;

use outrigger_tests::h2client::H2;
use outrigger_tests::load::{Load, OnClose};
use outrigger_tests::proxy::with_admin;
use outrigger_tests::wire::get;
use outrigger_tests::{Client, Dir, Echo, Origin, Proxy, until, within};
use rustix::process::Signal;

use crate::{web, web_with};

const REFUSED: &str = "outrigger_config_reloads_total{result=\"failed\"}";

#[tokio::test]
async fn a_file_that_is_rewritten_is_found() {
    let (a, b) = (Origin::ok("a").await, Origin::ok("b").await);
    let proxy = Proxy::start(&web([a.address()])).await;
    assert_eq!(proxy.get("web", "/").await.text(), "a");
    proxy.rewrite(&web([b.address()]));
    until("the new origin answers", async || (proxy.get("web", "/").await.text() == "b").then_some(())).await;
    assert_eq!(proxy.version().await, 2);
}

#[tokio::test]
async fn sighup_reads_the_file_again() {
    let (a, b) = (Origin::ok("a").await, Origin::ok("b").await);
    let proxy = Proxy::start(&web([a.address()])).await;
    proxy.reload(&web([b.address()])).await;
    assert_eq!(proxy.get("web", "/").await.text(), "b");
    // Without a change it is read again, and nothing comes of it.
    proxy.signal(Signal::HUP);
    until("it is read again", async || (proxy.version().await == 3).then_some(())).await;
    assert_eq!(proxy.get("web", "/").await.text(), "b");
}

/// Kubernetes mounts a ConfigMap as `file -> ..data/file`, `..data -> ..2026_01_01`, and swaps `..data`.
#[tokio::test]
async fn a_swapped_symlink_is_found() {
    let (a, b) = (Origin::ok("a").await, Origin::ok("b").await);
    let dir = Arc::new(Dir::new());
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, dir.file(name)).unwrap();
    for (version, origin) in [("..v1", &a), ("..v2", &b)] {
        std::fs::create_dir(dir.file(version)).unwrap();
        dir.write(&format!("{version}/mesh.yaml"), &with_admin(&web([origin.address()])));
    }
    link("..v1", "..data");
    link("..data/mesh.yaml", "mesh.yaml");
    let proxy = Proxy::spawn(dir.clone(), &dir.file("mesh.yaml"), &[]);
    proxy.wait_log(" listening listener=web").await;
    assert_eq!(proxy.get("web", "/").await.text(), "a");
    link("..v2", "..data_tmp");
    std::fs::rename(dir.file("..data_tmp"), dir.file("..data")).unwrap();
    std::fs::remove_dir_all(dir.file("..v1")).unwrap();
    until("the new origin answers", async || (proxy.get("web", "/").await.text() == "b").then_some(())).await;
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_says_why() {
    let origin = Origin::ok("a").await;
    let good = web([origin.address()]);
    let proxy = Proxy::start(&good).await;
    let mut client = proxy.client("web").await;
    assert_eq!(client.get("/").await.status, 200);
    let rows = [
        ("unknown key", good.replace("routes:", "ruotes:"), "did you mean"),
        ("no YAML", "listeners: [".to_owned(), "outrigger.yaml:"),
        ("unknown cluster", good.replace("to: app", "to: apq"), "app"),
        ("a bind that is taken", good.replace("127.0.0.1:0", origin.address()), "cannot listen"),
        (
            "a missing certificate",
            good.replace("    routes:", "    tls: { certificate: no.crt, private_key: no.key }\n    routes:"),
            "no.crt",
        ),
        (
            "missing keys of tokens",
            good.replace("    routes:", "    jwt: [{ issuer: i, audiences: a, jwks: no.json }]\n    routes:"),
            "no.json",
        ),
        (
            "missing roots for keys of tokens",
            good.replace(
                "    routes:",
                "    jwt: [{ issuer: i, audiences: a, jwks: \"https://127.0.0.1:1/\", jwks_trust: no.crt }]\n    routes:",
            ),
            "jwks_trust",
        ),
    ];
    for (n, (name, bad, said)) in rows.iter().enumerate() {
        proxy.rewrite(bad);
        proxy.signal(Signal::HUP);
        proxy.wait_metric(REFUSED, |refused| refused > n as f64).await;
        let config = proxy.ask_json("/config").await;
        let refused = config["refused"].as_str().unwrap_or_default().to_owned();
        assert!(refused.contains(said), "{name}: {refused:?}");
        assert_eq!(config["version"], 1, "{name}");
        assert_eq!(proxy.metric("outrigger_config_last_reload_successful").await, 0.0, "{name}");
        proxy.wait_log(said).await;
        assert_eq!(client.get("/").await.status, 200, "{name}");
        assert_eq!(proxy.ask("/ready").await.status, 200, "{name}");
    }
    proxy.rewrite("");
    std::fs::remove_file(proxy.dir().file("outrigger.yaml")).unwrap();
    proxy.signal(Signal::HUP);
    proxy.wait_metric(REFUSED, |refused| refused > rows.len() as f64).await;
    assert_eq!(client.get("/").await.status, 200, "a missing file is not an empty one");
    proxy.reload(&good).await;
    let config = proxy.ask_json("/config").await;
    assert!(config["refused"].is_null(), "{config}");
    assert_eq!(proxy.metric("outrigger_config_last_reload_successful").await, 1.0);
    assert_eq!(origin.opened(), 1);
}

/// The promise in numbers: 100 changes under full load.
#[tokio::test]
async fn a_hundred_reloads_under_load_lose_nothing_and_close_nothing() {
    let (stays, comes_and_goes) = (Echo::start("stays").await, Echo::start("other").await);
    let config = |n: usize| {
        let mut text =
            web_with(&format!("limits: {{ body: {}MiB }}", n + 1), "balance: round-robin", [stays.address()]);
        text = text.replace("      - to: app\n", &format!(
            "      - match: {{ path: {{ prefix: /unused-{n} }} }}\n        respond: {{ status: 404 }}\n      - to: app\n        timeout: {}s\n",
            n % 7 + 10,
        ));
        if n % 2 == 1 {
            text.push_str(&format!("  other:\n    endpoints: [\"{}\"]\n", comes_and_goes.address()));
            text = text.replace(
                "      - to: app\n",
                "      - match: { path: { prefix: /other } }\n        to: other\n      - to: app\n",
            );
        }
        text
    };
    let proxy = Proxy::start(&config(0)).await;
    let clients = 8;
    let load = Load::start(proxy.address("web"), "/", clients, OnClose::Reconnect);
    load.more(200).await;
    let opened = stays.opened();
    for n in 1..=100 {
        proxy.reload(&config(n)).await;
        load.more(5).await;
    }
    let (closed, reopened) = (stays.closed(), stays.opened());
    let outcome = load.stop().await;
    assert_eq!(outcome.failures, Vec::<String>::new());
    assert_eq!(outcome.closes, 0, "no client was sent away");
    assert_eq!(closed, 0, "no connection to the origin was closed");
    assert!(reopened <= opened.max(clients), "{opened} connections became {reopened}");
    // The watch may find a file that SIGHUP has just had read.
    assert!(proxy.version().await >= 101);
}

#[tokio::test]
async fn an_endpoint_that_is_removed_is_drained() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let old = Origin::start(move |mut conn| {
        let mut gate = gate.clone();
        async move {
            while let Some(request) = conn.request().await {
                if request.target() == "/slow" {
                    let _ = gate.wait_for(|go| *go).await;
                }
                conn.send(outrigger_tests::origin::ok("old")).await;
            }
        }
    })
    .await;
    let new = Origin::ok("new").await;
    let proxy = Proxy::start(&format!("workers: 1\n{}", web([old.address()]))).await;
    let mut slow = proxy.client("web").await;
    slow.send(get("/slow")).await;
    old.wait_requests(1).await;
    let mut idle = proxy.client("web").await;
    assert_eq!(idle.get("/").await.text(), "old");
    proxy.reload(&format!("workers: 1\n{}", web([new.address()]))).await;
    assert_eq!(idle.get("/").await.text(), "new", "the client's connection stays");
    // What is idle is closed, what is in flight is finished first.
    old.wait_closed(1).await;
    assert_eq!(old.opened(), 2);
    go.send(true).unwrap();
    assert_eq!(slow.reply().await.text(), "old");
    old.wait_closed(2).await;
    assert_eq!(slow.get("/").await.text(), "new");
}

#[tokio::test]
async fn listeners_come_and_go() {
    let origin = Origin::ok("x").await;
    let one = web([origin.address()]);
    let two =
        one.replace("clusters:", "  second:\n    bind: 127.0.0.1:0\n    routes:\n      - to: app\nclusters:");
    let proxy = Proxy::start(&one).await;
    let first = proxy.address("web");
    let mut kept = proxy.client("web").await;
    assert_eq!(kept.get("/").await.status, 200);
    proxy.reload(&two).await;
    let second = proxy.address("second");
    let mut on_second = Client::connect(second).await;
    assert_eq!(on_second.get("/").await.text(), "x");
    let mut idle = Client::connect(second).await;
    assert_eq!(idle.get("/").await.text(), "x");
    let streams = H2::connect(second).await;
    assert_eq!(proxy.address("web"), first, "a listener that did not change was not opened again");
    proxy.reload(&one).await;
    until("nobody accepts there", async || Client::try_connect(second).await.is_none().then_some(())).await;
    assert_eq!(kept.get("/").await.status, 200);
    assert_eq!(proxy.address("web"), first);
    // Whoever is connected there is not cut off in the middle of a request, and is told that it is the last one.
    let last = on_second.get("/").await;
    assert!(last.status == 200 && last.closes(), "{last:?}");
    assert_eq!(idle.rest().await, b"");
    streams.ended().await.unwrap();
}

#[tokio::test]
async fn a_listener_that_is_renamed_keeps_its_socket() {
    let origin = Origin::ok("x").await;
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = probe.local_addr().unwrap().to_string();
    drop(probe);
    let config = web([origin.address()]).replace("127.0.0.1:0", &bind);
    let proxy = Proxy::start(&config).await;
    let load = Load::start(proxy.address("web"), "/", 2, OnClose::Reconnect);
    load.more(20).await;
    proxy.reload(&config.replace("  web:", "  front:")).await;
    load.more(20).await;
    let mut fresh = Client::connect(bind.parse().unwrap()).await;
    assert_eq!(fresh.get("/").await.status, 200);
    assert_eq!(load.stop().await.failures, Vec::<String>::new());
}

#[tokio::test]
async fn limits_and_timeouts_change_for_connections_that_are_open() {
    let echo = Echo::start("e").await;
    let proxy = Proxy::start(&web([echo.address()])).await;
    let mut client = proxy.client("web").await;
    let body = "x".repeat(2000);
    client.send(outrigger_tests::wire::post("/", &body)).await;
    assert_eq!(client.reply().await.status, 200);
    proxy.reload(&web_with("limits: { body: 1KiB }", "", [echo.address()])).await;
    client.send(outrigger_tests::wire::post("/", &body)).await;
    assert_eq!(client.reply().await.status, 413);
}

/// What lives long goes on under whatever comes: a stream of HTTP/2, a tunnel, a TCP connection.
#[tokio::test]
async fn long_connections_outlive_reloads() {
    let echo = Echo::start("e").await;
    let repeating = Origin::start(async |mut conn| {
        if conn.some().await.is_some_and(|first| first.starts_with(b"GET")) {
            conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").await;
        }
        while let Some(bytes) = conn.some().await {
            conn.send(bytes).await;
        }
    })
    .await;
    let config = |n: usize| {
        format!(
            "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n      - {{ match: {{ path: {{ prefix: /x{n} }} }}, respond: {{ status: 404 }} }}\n      - {{ match: {{ path: {{ prefix: /tunnel }} }}, to: raw }}\n      - {{ to: app }}\n  db:\n    bind: 127.0.0.1:0\n    tcp: {{ to: raw, idle_timeout: {}s }}\nclusters:\n  app: {{ endpoints: [\"{}\"] }}\n  raw: {{ endpoints: [\"{}\"] }}\n",
            n + 100,
            echo.address(),
            repeating.address()
        )
    };
    let proxy = Proxy::start(&config(0)).await;
    let h2 = H2::connect(proxy.address("web")).await;
    let streaming = http::Request::post("http://t/").header("x-want", "echo").body(()).unwrap();
    let (response, mut stream) = h2.open(streaming, false).await;
    let mut body = within("the head", response).await.unwrap().into_body();
    let mut tunnel = proxy.client("web").await;
    tunnel.send("GET /tunnel HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").await;
    assert_eq!(tunnel.reply().await.status, 101);
    let mut bytes = proxy.client("db").await;
    bytes.send("first").await;
    for n in 1..=20 {
        proxy.reload(&config(n)).await;
        outrigger_tests::echo::send_h2(&mut stream, "ping".into()).await.unwrap();
        let data = within("the stream's echo", body.data()).await.unwrap().unwrap();
        assert_eq!(&data[..], b"ping");
        for client in [&mut tunnel, &mut bytes] {
            client.send(format!("n{n:03}")).await;
            assert_eq!(client.exactly(4).await, format!("n{n:03}").as_bytes());
        }
    }
    assert_eq!((echo.closed(), repeating.closed()), (0, 0));
}
