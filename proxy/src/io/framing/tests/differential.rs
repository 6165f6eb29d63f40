//! The guard beside hyper, over the same damaged bytes: what the guard lets through, hyper must cut at the
//! same places or refuse.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Version, header};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::super::State;
use super::generated::{damage, damaged, joined, requests, response};
use super::{Guard, Phase, Refusal, ResponseTo};
use crate::h1::tests::{fetched, run};

/// What the guard saw: the length of each content that ended, and the first refusal.
#[derive(Debug)]
struct Walk {
    bodies: Vec<usize>,
    refusal: Option<Refusal>,
    phase: Phase,
}

fn walk(mut guard: Guard, bytes: &[u8]) -> Walk {
    let mut bodies = Vec::new();
    let mut body = 0;
    let mut refusal = None;
    for (at, byte) in bytes.chunks(1).enumerate() {
        body += usize::from(matches!(guard.state, State::Length | State::ChunkData | State::UntilClose));
        if let Err(Refusal { violation, at: _ }) = guard.feed(byte) {
            refusal = Some(Refusal { violation, at });
            break;
        }
        // An empty line leads back to `AfterEmptyLine`, so `Start` is the end of a message.
        if guard.state == State::Start && guard.expected.front().is_none() {
            bodies.push(std::mem::take(&mut body));
        }
    }
    if guard.state == State::UntilClose && refusal.is_none() {
        bodies.push(body);
    }
    Walk { bodies, refusal, phase: guard.phase() }
}

/// No content.
struct Empty;

impl http_body::Body for Empty {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

async fn length_of(body: Incoming) -> hyper::Result<usize> {
    let mut body = pin!(body);
    let mut length = 0;
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        length += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(length)
}

/// What hyper's server made of a stream.
#[derive(Debug, Default)]
struct Served {
    bodies: Vec<usize>,
    /// The last request asked for the connection to end.
    closes: bool,
    /// It answered a request with 4xx by itself.
    refused: bool,
}

fn closes<B>(request: &Request<B>) -> bool {
    let close =
        |value: &header::HeaderValue| value.as_bytes().to_ascii_lowercase().windows(5).any(|w| w == b"close");
    request.version() == Version::HTTP_10 || request.headers().get_all(header::CONNECTION).iter().any(close)
}

async fn serve(bytes: &[u8]) -> Served {
    let (mut client, server) = duplex(1 << 20);
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    let seen = RefCell::new(Served::default());
    let service = service_fn(async |request: Request<Incoming>| {
        // Nor does HTTP go on behind a CONNECT, which damage can make of another method.
        let closes = closes(&request) || *request.method() == http::Method::CONNECT;
        if let Ok(length) = length_of(request.into_body()).await {
            let mut seen = seen.borrow_mut();
            seen.bodies.push(length);
            seen.closes = closes;
        }
        Ok::<_, Infallible>(Response::new(Empty))
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    // Errors are part of what is tested; the answers say enough.
    let _ended = http.half_close(true).serve_connection(TokioIo::new(server), service).await;
    let mut answers = Vec::new();
    client.read_to_end(&mut answers).await.unwrap();
    let mut served = seen.into_inner();
    served.refused = answers.windows(10).any(|window| window == b"HTTP/1.1 4");
    served
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn hyper_serves_what_was_let_through(messages in requests(), damages in vec(damage(), 0..3)) {
        let bytes = damaged(joined(&messages), &damages);
        let walk = walk(Guard::requests(), &bytes);
        if walk.refusal.is_none() {
            let served = run(serve(&bytes));
            let same = served.bodies == walk.bodies;
            let ended = walk.bodies.starts_with(&served.bodies) && (served.refused || served.closes);
            prop_assert!(same || ended, "{:?}, but {:?}", served, walk);
        }
    }

    #[test]
    fn hyper_fetches_what_was_let_through(message in response(), damages in vec(damage(), 0..3)) {
        let bytes = damaged(message.bytes, &damages);
        let mut guard = Guard::responses();
        guard.expect_response_to(ResponseTo::Other);
        let walk = walk(guard, &bytes);
        if walk.refusal.is_none() && walk.phase != Phase::Tunnel {
            let fetched = run(fetched(&bytes)).map(|message| message.body.len());
            prop_assert!(fetched.is_none() || walk.bodies == fetched.as_slice(), "{:?}, but {:?}", fetched, walk);
            if damages.is_empty() {
                prop_assert_eq!(fetched, Some(message.body));
            }
        }
    }

    #[test]
    fn hyper_serves_all_that_is_sound(messages in requests()) {
        let want: Vec<_> = messages.iter().map(|message| message.body).collect();
        let bytes = joined(&messages);
        prop_assert_eq!(&walk(Guard::requests(), &bytes).bodies, &want);
        prop_assert_eq!(&run(serve(&bytes)).bodies, &want);
    }
}
