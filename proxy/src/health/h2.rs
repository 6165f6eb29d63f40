//! An HTTP check over HTTP/2, with prior knowledge: one stream on a connection of its own (RFC 9113).

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, response};

use super::probe::{MAX_BODY, MAX_HEAD, get, status};
use crate::io::stream::Transport;
use crate::upstream::health::Outcome;

/// What came, of the body no more than [`MAX_BODY`] and the frame that went beyond.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: response::Parts,
    pub(super) body: Bytes,
    pub(super) trailers: Option<HeaderMap>,
}

/// Asks for a path; the status decides, of an answer that came whole.
pub(super) async fn ask(transport: Transport, host: &str, path: &str) -> Outcome {
    let request = get(format!("http://{host}{path}"));
    let request = match request.and_then(|request| request.body(()).map_err(|_| Outcome::NotAsked)) {
        Ok(request) => request,
        Err(outcome) => return outcome,
    };
    match converse(transport, request, Bytes::new()).await {
        Ok(answer) => status(answer.head.status),
        Err(outcome) => outcome,
    }
}

/// Sends a request with this body and collects its answer.
pub(super) async fn converse(
    transport: Transport,
    request: Request<()>,
    body: Bytes,
) -> Result<Answer, Outcome> {
    let (requests, connection) = h2::client::Builder::new()
        .enable_push(false)
        .max_header_list_size(MAX_HEAD)
        .handshake::<_, Bytes>(transport)
        .await
        .map_err(|error| failed(&error))?;
    let mut connection = pin!(connection);
    let mut exchange = pin!(exchange(requests, request, body));
    let answer = tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // What came before the end is still there to be read.
        _ = &mut connection => return exchange.await.map_err(|error| failed(&error)),
    };
    // Nobody has a request any more: the connection takes its leave (GOAWAY), as far as that goes without waiting.
    let _ = poll_fn(|cx| Poll::Ready(connection.as_mut().poll(cx))).await;
    answer.map_err(|error| failed(&error))
}

async fn exchange(
    requests: h2::client::SendRequest<Bytes>,
    request: Request<()>,
    body: Bytes,
) -> Result<Answer, h2::Error> {
    let ends = body.is_empty();
    let (response, mut stream) = requests.ready().await?.send_request(request, ends)?;
    if !ends {
        stream.send_data(body, true)?;
    }
    let (head, mut coming) = response.await?.into_parts();
    let mut body = BytesMut::new();
    while let Some(data) = coming.data().await {
        let data = data?;
        coming.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
        if body.len() > MAX_BODY {
            return Ok(Answer { head, body: body.freeze(), trailers: None });
        }
    }
    let trailers = coming.trailers().await?;
    Ok(Answer { head, body: body.freeze(), trailers })
}

fn failed(error: &h2::Error) -> Outcome {
    // What the peer ends, in whatever way, it ends; what we end was no HTTP/2.
    if error.is_library() { Outcome::Protocol } else { Outcome::Closed }
}
