//! A copy of a share of a route's requests, sent to another cluster, whose answers nobody sees. The copy never holds up
//! the request: it takes what the request has read, and where it cannot follow it is given up.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::body::{Body, BodyError, bodiless, kept};
use crate::error::ProxyError;
use crate::http::call::{Call, Ledger, Wanted};
use crate::http::headers;
use crate::upstream::{Answer, ClusterView, Trip};

/// Says that a request is a copy, and that its answer is thrown away.
const MARK: HeaderName = HeaderName::from_static("x-outrigger-mirror");
/// Copies under way at once on one worker; what would be more is dropped.
const MOST: u32 = 256;
/// Bytes that a copy may be behind its request.
const BEHIND: usize = 256 * 1024;
/// A copy has this long, whatever its request has.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct MirrorLayer;

impl<S> Layer<S> for MirrorLayer {
    type Service = Mirror<S>;

    fn layer(&self, inner: S) -> Mirror<S> {
        Mirror { inner }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Mirror<S> {
    inner: S,
}

impl<S: Service<Call, Response = Response<Body>, Error = ProxyError>> Service<Call> for Mirror<S> {
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut call: Call) -> S::Future {
        let policy = call.ledger.forward().and_then(|to| to.mirror.as_deref());
        if let Some(policy) = policy
            && call.tunnel == Wanted::Nothing
            && policy.percent.takes(call.ledger.conn().worker().upstream().random())
        {
            mirror(&mut call);
        }
        self.inner.call(call)
    }
}

fn mirror(call: &mut Call) {
    let Some(cluster) = call.ledger.mirror().cloned() else { return };
    let worker = call.ledger.conn().worker().clone();
    if worker.shared().pressure.is_pressed() {
        worker.shared().stats.shed.mirrors.increment(1);
        return cluster.live.stats().mirrors_dropped.increment(1);
    }
    let Some(place) = worker.mirrors().enter(MOST) else {
        return cluster.live.stats().mirrors_dropped.increment(1);
    };
    let copy = copy(&mut call.request);
    let secure = call.ledger.conn().is_secure();
    let trip = call.ledger.conn().trip(Instant::now()).spelt(call.ledger.trip().spelling());
    tokio::task::spawn_local(async move {
        let sent =
            tokio::time::timeout(PATIENCE, send(&cluster, copy, worker.upstream(), (secure, trip))).await;
        if sent.is_err() {
            cluster.live.stats().mirrors_dropped.increment(1);
        }
        drop(place);
    });
}

async fn send(
    cluster: &ClusterView,
    mut request: Box<Request<Body>>,
    upstream: &crate::upstream::Upstream,
    (secure, trip): (bool, Trip),
) {
    if headers::shape(&mut request, &Wanted::Nothing, cluster.config.protocol, secure).is_err() {
        return;
    }
    cluster.live.stats().mirrors.increment(1);
    let Ok(sent) = upstream.send(cluster, request, &trip).await else { return };
    if let Answer::Response(response) = sent.answer {
        let mut body = response.into_body();
        while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
    }
}

/// The same request; of its body, what the request itself reads from now on.
fn copy(request: &mut Request<Body>) -> Box<Request<Body>> {
    let mut copy = bodiless(request);
    copy.headers_mut().remove(http::header::EXPECT);
    copy.headers_mut().insert(MARK, HeaderValue::from_static("1"));
    if !request.body().is_end_stream() {
        let pipe = Rc::new(RefCell::new(Pipe::default()));
        let size = request.body().size_hint();
        let body = std::mem::replace(request.body_mut(), Body::empty());
        *request.body_mut() = Body::source(Box::pin(Tee { body, pipe: pipe.clone() }));
        *copy.body_mut() = Body::source(Box::pin(Copied { pipe, size }));
    }
    copy
}

/// What the request has read and the copy has not.
#[derive(Default)]
struct Pipe {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    end: Option<End>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy)]
enum End {
    Whole,
    /// The request was given up, or went ahead too far.
    Broken,
}

impl Pipe {
    fn push(&mut self, bytes: &Bytes) {
        self.bytes += bytes.len();
        if self.bytes > BEHIND {
            self.pieces.clear();
            return self.end(End::Broken);
        }
        self.pieces.push_back(kept(bytes));
        self.wake();
    }

    fn end(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The request's body, as it was.
struct Tee {
    body: Body,
    pipe: Rc<RefCell<Pipe>>,
}

impl http_body::Body for Tee {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(frame) = &polled {
            let mut pipe = self.pipe.borrow_mut();
            match frame {
                Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|bytes| pipe.push(bytes)),
                Some(Err(_)) => pipe.end(End::Broken),
                None => pipe.end(End::Whole),
            }
            if self.body.is_end_stream() {
                pipe.end(End::Whole);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        self.pipe.borrow_mut().end(End::Broken);
    }
}

/// The copy's body.
struct Copied {
    pipe: Rc<RefCell<Pipe>>,
    /// Of the whole.
    size: SizeHint,
}

impl http_body::Body for Copied {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut pipe = self.pipe.borrow_mut();
        if let Some(bytes) = pipe.pieces.pop_front() {
            pipe.bytes -= bytes.len();
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match pipe.end {
            Some(End::Whole) => Poll::Ready(None),
            Some(End::Broken) => Poll::Ready(Some(Err(BodyError::Client))),
            None => {
                pipe.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}

impl Ledger {
    /// Who gets a copy of its route's requests.
    fn mirror(&self) -> Option<&std::sync::Arc<ClusterView>> {
        self.extras().and_then(|extras| extras.mirror.as_ref())
    }
}
