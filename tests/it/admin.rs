//! The interface for those who run it.

use std::sync::Arc;

use outrigger_tests::tls::write_certificate;
use outrigger_tests::{Client, Dir, Origin, Proxy, until};
use tokio::net::UnixStream;

use crate::{web, web_with};

#[tokio::test]
async fn every_page_is_there() {
    let origin = Origin::ok("x").await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    assert_eq!(proxy.get("web", "/").await.status, 200);
    let rows = [
        ("/", 200, "text/plain", "/metrics"),
        ("/ready", 200, "text/plain", "ready"),
        ("/live", 200, "text/plain", "live"),
        ("/metrics", 200, "text/plain", "outrigger_build_info"),
        ("/config", 200, "application/json", "\"version\""),
        ("/config?format=yaml", 200, "text/plain", "listeners:"),
        ("/clusters", 200, "application/json", "\"clusters\""),
        ("/nothing", 404, "text/plain", "not found"),
    ];
    for (path, status, kind, said) in rows {
        let reply = proxy.ask(path).await;
        assert_eq!(reply.status, status, "{path}");
        assert!(reply.field("content-type").unwrap().starts_with(kind), "{path}: {}", reply.head);
        assert!(reply.text().contains(said), "{path}: {}", reply.text());
    }
    let mut client = Client::connect(proxy.admin()).await;
    client.send("POST /config HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.field("allow")), (405, Some("GET, HEAD")));
    client.send("HEAD /ready HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert_eq!(client.reply_to("HEAD").await.status, 200);
}

#[tokio::test]
async fn the_configuration_in_force_is_shown_without_secrets() {
    let origin = Origin::ok("x").await;
    let dir = Arc::new(Dir::new());
    write_certificate(&dir, &["localhost"]);
    let text = web_with(
        "tls: { certificate: tls.crt, private_key: tls.key }",
        "balance: random",
        [origin.address()],
    );
    let proxy = Proxy::start_in(dir.clone(), &text).await;
    let config = proxy.ask_json("/config").await;
    assert_eq!(config["version"], 1);
    assert!(config["since"].as_u64().unwrap() > 1_600_000_000);
    assert!(config["source"].as_str().unwrap().ends_with("outrigger.yaml"));
    let yaml = proxy.ask("/config?format=yaml").await.text();
    assert!(yaml.contains("balance: random") && yaml.contains(origin.address()), "{yaml}");
    let key = std::fs::read_to_string(dir.file("tls.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    for page in ["/config", "/config?format=yaml", "/clusters", "/metrics"] {
        assert!(!proxy.ask(page).await.text().contains(secret), "{page} shows the private key");
    }
    assert!(!proxy.log().contains(secret));
    // What is shown can be run.
    let again = Proxy::spawn(dir.clone(), &dir.write("again.yaml", &yaml), &[]);
    again.wait_log("admin listening").await;
}

#[tokio::test]
async fn clusters_show_their_endpoints_and_load() {
    let (a, b) = (
        Origin::ok("a").await,
        Origin::start(async |mut conn| {
            conn.request().await;
        })
        .await,
    );
    let proxy = Proxy::start(&web_with("", "balance: round-robin", [a.address(), b.address()])).await;
    let mut client = proxy.client("web").await;
    for _ in 0..10 {
        client.get("/").await;
    }
    let clusters = proxy.ask_json("/clusters").await;
    let cluster = &clusters["clusters"][0];
    assert_eq!((cluster["name"].as_str(), cluster["balance"].as_str()), (Some("app"), Some("round-robin")));
    let endpoints = cluster["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 2);
    let (first, second) = (&endpoints[0], &endpoints[1]);
    assert_eq!(first["address"].as_str(), Some(a.address()));
    assert_eq!((first["requests"].as_u64(), first["failures"].as_u64()), (Some(5), Some(0)), "{clusters}");
    assert_eq!(second["failures"].as_u64(), Some(5), "{clusters}");
    assert_eq!(first["active"].as_u64(), Some(0), "{clusters}");
    assert!(first["latency_ms"].as_f64().unwrap() > 0.0, "{clusters}");
}

#[tokio::test]
async fn a_unix_socket_will_do() {
    let origin = Origin::ok("x").await;
    let dir = Arc::new(Dir::new());
    let path = dir.file("admin.sock");
    let config = format!("admin: \"unix:{}\"\n{}", path.display(), web([origin.address()]));
    let file = dir.write("outrigger.yaml", &config);
    let proxy = Proxy::spawn(dir.clone(), &file, &[]);
    proxy.wait_log(" listening listener=web").await;
    let mut client = Client::over(UnixStream::connect(&path).await.unwrap());
    assert_eq!(client.get("/ready").await.status, 200);
}

/// Two proxies on one machine: the second does without, and says so; but for an address that was asked for.
#[tokio::test]
async fn the_default_port_may_be_taken() {
    // Whoever has it, somebody has.
    let _mine = std::net::TcpListener::bind("127.0.0.1:15000");
    let origin = Origin::ok("x").await;
    let dir = Arc::new(Dir::new());
    let file = dir.write("outrigger.yaml", &web([origin.address()]));
    let proxy = Proxy::spawn(dir.clone(), &file, &[]);
    proxy.wait_log(" listening listener=web").await;
    assert!(proxy.log().contains("WARN") && proxy.log().contains("127.0.0.1:15000"), "{}", proxy.log());
    assert_eq!(proxy.get("web", "/").await.status, 200);
}

#[tokio::test]
async fn admin_answers_while_the_workers_are_busy() {
    let origin = Origin::ok("x").await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let load = outrigger_tests::load::Load::start(
        proxy.address("web"),
        "/",
        16,
        outrigger_tests::load::OnClose::Reconnect,
    );
    load.more(100).await;
    for _ in 0..20 {
        assert_eq!(proxy.ask("/metrics").await.status, 200);
    }
    let outcome = load.stop().await;
    assert_eq!(outcome.failures, Vec::<String>::new());
    until("nothing is in flight", async || {
        let clusters = proxy.ask_json("/clusters").await;
        (clusters["clusters"][0]["endpoints"][0]["active"] == 0).then_some(())
    })
    .await;
}
