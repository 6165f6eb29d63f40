//! An HTTP/2 upstream that takes few streams at once, and says so after the first requests were sent: nghttpd, nginx
//! and Envoy do under load. What it refuses it has not processed (RFC 9113 section 8.7), so no caller may notice.

use bytes::Bytes;
use http::{Request, Response};
use outrigger_tests::h2client::{H2, collect};
use outrigger_tests::{Proxy, within};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;

use super::quiet;

/// Streams that the upstream takes on one connection.
const FEW: u32 = 4;
/// Requests at once, on one connection of the client.
const MANY: usize = 60;

async fn upstream(listener: TcpListener, told: Receiver<bool>) {
    let mut serving = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        serving.spawn(serve(stream, told.clone()));
    }
}

async fn serve(stream: TcpStream, mut told: Receiver<bool>) -> Option<()> {
    told.wait_for(|told| *told).await.ok()?;
    let mut connection =
        h2::server::Builder::new().max_concurrent_streams(FEW).handshake(stream).await.ok()?;
    let mut answering = JoinSet::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        answering.spawn(async move {
            let mut stream = respond.send_response(Response::new(()), false).ok()?;
            // Not at once, so that streams are open at the same time.
            tokio::task::yield_now().await;
            stream.send_data(Bytes::from(request.uri().path().to_owned()), true).ok()
        });
    }
    Some(())
}

#[tokio::test]
async fn what_is_refused_for_lack_of_room_is_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(&format!(
        "workers: 1\nlisteners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\n\
         clusters:\n  app: {{ endpoints: [{}], protocol: http2 }}\n",
        listener.local_addr().unwrap()
    ))
    .await;
    let (tell, told) = tokio::sync::watch::channel(false);
    let upstream = tokio::spawn(upstream(listener, told));
    let client = H2::connect(proxy.address("web")).await;
    let mut responses = Vec::new();
    for n in 0..MANY {
        let request = Request::get(format!("http://test/{n}")).body(()).unwrap();
        responses.push(client.open(request, true).await.0);
    }
    // Its settings leave when all requests are on their way to it.
    proxy.wait_metric("outrigger_upstream_requests_active{cluster=\"app\"}", |n| n == MANY as f64).await;
    tell.send(true).unwrap();
    let mut wrong = Vec::new();
    for (n, response) in responses.into_iter().enumerate() {
        let response = within("a response", response).await.unwrap();
        let reply = within("a body", collect(response)).await.unwrap();
        if (reply.status, reply.body.as_slice()) != (200, format!("/{n}").as_bytes()) {
            wrong.push(format!("{n}: {} {:?}", reply.status, reply.field("x-outrigger-reason")));
        }
    }
    assert!(wrong.is_empty(), "{} of {MANY}: {}", wrong.len(), wrong.join(", "));
    drop(client);
    quiet(&proxy).await;
    upstream.abort();
}
