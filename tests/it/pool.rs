//! Connections to endpoints: reused, and found dead before a client's request pays for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use outrigger_tests::origin::ok;
use outrigger_tests::wire::post;
use outrigger_tests::{Client, Origin, Proxy, until, within};

use crate::{web, web_with};

/// An origin closes each connection after its first answer, without a word.
#[tokio::test]
async fn connections_closed_while_idle_cost_no_request() {
    let origin = Origin::start(async |mut conn| {
        if conn.request().await.is_some() {
            conn.send(ok("once")).await;
        }
    })
    .await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    for n in 0..200 {
        let reply = client.get("/").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "once"), "request {n}");
    }
}

/// The same, and closed at the very moment the next request arrives: the request has been sent, and is sent again.
#[tokio::test]
async fn connections_closed_as_they_are_used_cost_no_get() {
    let origin = Origin::start(async |mut conn| {
        if conn.request().await.is_some() {
            conn.send(ok("once")).await;
        }
        // The second request is read, and the connection closed over it.
        conn.request().await;
    })
    .await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    for n in 0..200 {
        let reply = client.get("/").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "once"), "request {n}");
    }
    proxy.wait_metric("outrigger_upstream_replays_total{cluster=\"app\"}", |n| n > 100.0).await;
}

#[tokio::test]
async fn a_post_that_was_sent_is_never_sent_again() {
    let posts = Arc::new(AtomicUsize::new(0));
    let counting = posts.clone();
    let origin = Origin::start(move |mut conn| {
        let posts = counting.clone();
        async move {
            if conn.request().await.is_some() {
                conn.send(ok("once")).await;
            }
            if conn.request().await.is_some() {
                posts.fetch_add(1, SeqCst);
            }
        }
    })
    .await;
    let proxy = Proxy::start(&format!("workers: 1\n{}", web([origin.address()]))).await;
    let mut client = proxy.client("web").await;
    for n in 1..=20 {
        assert_eq!(client.get("/").await.status, 200);
        client.send(post("/order", "one only")).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.field("x-outrigger-reason")), (502, Some("upstream_closed")), "{n}");
        assert_eq!(posts.load(SeqCst), n, "each POST reached the origin once");
    }
}

/// A fresh connection that dies says something about the origin, and not about our pool: no second try.
#[tokio::test]
async fn a_get_on_a_fresh_connection_is_not_sent_again() {
    let origin = Origin::start(async |mut conn| {
        conn.request().await;
    })
    .await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let reply = proxy.get("web", "/").await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (502, Some("upstream_closed")));
    assert_eq!(origin.count(), 1);
}

/// Some servers say `408` before they close an idle connection: nobody has asked, nobody gets it.
#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_nobodys() {
    let (answered, gate) = tokio::sync::watch::channel(0);
    let origin = Origin::start(move |mut conn| {
        let mut gate = gate.clone();
        async move {
            if conn.request().await.is_some() {
                conn.send(ok("asked")).await;
                let _ = gate.wait_for(|answered| *answered > conn.number).await;
                conn.send("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                    .await;
            }
        }
    })
    .await;
    let proxy = Proxy::start(&web([origin.address()])).await;
    let mut client = proxy.client("web").await;
    for n in 0..50 {
        let reply = client.get("/").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "asked"), "request {n}");
        answered.send(n + 1).unwrap();
        // The 408 arrives while the connection is idle.
        origin.wait_closed(n + 1).await;
    }
}

#[tokio::test]
async fn connections_are_opened_as_many_as_are_needed() {
    let (go, gate) = tokio::sync::watch::channel(0);
    let origin = Origin::start(move |mut conn| {
        let mut gate = gate.clone();
        async move {
            let mut round = 1;
            while conn.request().await.is_some() {
                let _ = gate.wait_for(|go| *go >= round).await;
                conn.send(ok("x")).await;
                round = 2;
            }
        }
    })
    .await;
    let proxy = Proxy::start(&format!("workers: 1\n{}", web([origin.address()]))).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(proxy.client("web").await);
    }
    for round in 1..=2 {
        for client in &mut clients {
            client.send(outrigger_tests::wire::get("/")).await;
        }
        origin.wait_requests(round * 10).await;
        go.send(round).unwrap();
        for client in &mut clients {
            assert_eq!(client.reply().await.status, 200);
        }
    }
    assert_eq!((origin.opened(), origin.closed()), (10, 0));
    let clusters = proxy.ask_json("/clusters").await;
    assert_eq!(clusters["clusters"][0]["endpoints"][0]["connections"], 10, "{clusters}");
    proxy.wait_metric("outrigger_upstream_connections{cluster=\"app\"}", |n| n == 10.0).await;
    proxy.wait_metric("outrigger_upstream_connections_idle{cluster=\"app\"}", |n| n == 10.0).await;
}

/// An origin that speaks HTTP/2 and goes away politely loses no request.
#[tokio::test]
async fn http2_connections_that_end_are_replaced() {
    let first = outrigger_tests::Echo::start("first").await;
    let address = first.address();
    let proxy = Proxy::start(&web_with("", "protocol: http2", [address])).await;
    let mut client = proxy.client("web").await;
    assert_eq!(client.get("/").await.status, 200);
    drop(first);
    until("its port is free", async || Client::try_connect(address).await.is_none().then_some(())).await;
    let reply = client.get("/").await;
    assert!(matches!(reply.status, 502 | 503), "{}", reply.head);
    let origin = within("the port", restart(address)).await;
    until("the new one answers", async || (client.get("/").await.status == 200).then_some(())).await;
    drop(origin);
}

async fn restart(address: std::net::SocketAddr) -> tokio::task::JoinHandle<()> {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let listener = socket.listen(16).unwrap();
    tokio::spawn(async move {
        let mut serving = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            serving.spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let _ = respond.send_response(http::Response::new(()), true);
                }
            });
        }
    })
}
