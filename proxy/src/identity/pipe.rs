//! For tests of sources: a gRPC server of few words on the other end of a pipe, so that its silence takes no time.

use std::io;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::task::spawn_local;
use tonic::transport::{Channel, Endpoint};

/// What is answered to a request: these bytes, then this status, if any.
pub(super) type Answer = Option<(Vec<Bytes>, Option<u16>)>;

/// A channel to this server. It can be had once: who connects again finds nobody.
pub(super) async fn channel<F: Future + 'static>(server: impl FnOnce(DuplexStream) -> F) -> Channel {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    spawn_local(server(theirs));
    let mut ours = Some(ours);
    let connector = tower::service_fn(move |_: http::Uri| {
        let end = ours.take().map(TokioIo::new).ok_or(io::ErrorKind::ConnectionRefused);
        async move { end.map_err(io::Error::from) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.expect("a pipe")
}

/// Answers every request so; with `None`, with nothing at all. Without a status an answer never ends.
pub(super) async fn answer(end: DuplexStream, answer: Answer) {
    let Ok(mut connection) = h2::server::handshake(end).await else { return };
    let mut held = Vec::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let body = answer.clone().map(|(messages, status)| {
            let head = http::Response::builder().header("content-type", "application/grpc");
            let mut body = respond.send_response(head.body(()).unwrap(), false).unwrap();
            for message in messages {
                body.send_data(message, false).unwrap();
            }
            if let Some(status) = status {
                let trailers = [("grpc-status".parse().unwrap(), status.into())];
                body.send_trailers(http::HeaderMap::from_iter(trailers)).unwrap();
            }
            body
        });
        // What is dropped is reset.
        held.push((request, respond, body));
    }
}

/// A message as it is sent.
pub(super) fn frame(message: &[u8]) -> Bytes {
    [&head(message.len()), message].concat().into()
}

/// What stands before a message of this length.
pub(super) fn head(length: usize) -> [u8; 5] {
    let [a, b, c, d] = u32::try_from(length).unwrap().to_be_bytes();
    [0, a, b, c, d]
}
