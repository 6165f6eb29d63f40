//! An HTTP check over HTTP/1.1: one request on a connection of its own, which says so.

use std::future::poll_fn;
use std::pin::{Pin, pin};

use http::{HeaderValue, Request, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::probe::{MAX_BODY, MAX_HEAD, get, status};
use crate::io::stream::Transport;
use crate::upstream::health::Outcome;

/// Asks for a path; the status decides, of an answer that came whole.
pub(super) async fn ask(transport: Transport, host: &str, path: &str) -> Outcome {
    let request = get(path.to_owned()).and_then(|request| {
        let request = request.header(header::HOST, host).header(header::CONNECTION, CLOSE);
        request.body(String::new()).map_err(|_| Outcome::NotAsked)
    });
    let request = match request {
        Ok(request) => request,
        Err(outcome) => return outcome,
    };
    let handshake =
        http1::Builder::new().max_buf_size(MAX_HEAD as usize).handshake(TokioIo::new(transport)).await;
    let Ok((requests, connection)) = handshake else { return Outcome::Protocol };
    let mut connection = pin!(connection);
    let mut exchange = pin!(exchange(requests, request));
    tokio::select! {
        biased;
        outcome = &mut exchange => outcome,
        // What came before the end is still there to be read.
        _ = &mut connection => exchange.await,
    }
}

const CLOSE: HeaderValue = HeaderValue::from_static("close");

async fn exchange(mut requests: http1::SendRequest<String>, request: Request<String>) -> Outcome {
    match requests.send_request(request).await {
        Ok(response) => {
            let (head, body) = response.into_parts();
            match drain(body).await {
                Ok(()) => status(head.status),
                Err(error) => failed(&error),
            }
        }
        Err(error) => failed(&error),
    }
}

async fn drain(mut body: Incoming) -> Result<(), hyper::Error> {
    let mut left = MAX_BODY;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match left.checked_sub(frame?.data_ref().map_or(0, bytes::Bytes::len)) {
            Some(less) => left = less,
            None => break,
        }
    }
    Ok(())
}

fn failed(error: &hyper::Error) -> Outcome {
    if error.is_parse() { Outcome::Protocol } else { Outcome::Closed }
}
