//! The one body type of requests and responses, wherever they come from and go to.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};

/// Why a body broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The client went away, or broke the protocol, while its request was read.
    Client,
    /// The upstream went away, or broke the protocol, while its response was read.
    Upstream,
    /// The request grew past this limit, in bytes.
    TooLarge(u64),
    /// The route's timeout ran out.
    Timeout,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("the client ended its request early"),
            Self::Upstream => f.write_str("the upstream ended its response early"),
            Self::TooLarge(limit) => {
                write!(f, "the request's body is larger than limits.body, {limit} bytes")
            }
            Self::Timeout => f.write_str("the route's timeout ran out"),
        }
    }
}

impl std::error::Error for BodyError {}

/// Which of the two bodies of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The request's.
    Request,
    /// The response's.
    Response,
}

/// What the bodies of an exchange pass through: counts, limits, and what must happen when one ends.
pub trait Meter {
    /// Before a frame is asked for that may have to be waited for; an error ends the body.
    ///
    /// # Errors
    /// What ends it.
    fn poll_open(&self, side: Side, cx: &mut Context<'_>) -> Result<(), BodyError>;

    /// A frame's bytes went through; an error takes the frame's place.
    ///
    /// # Errors
    /// What ends the body.
    fn passed(&self, side: Side, bytes: usize) -> Result<(), BodyError>;

    /// The body came to its end, in good order or not. Not called when it is dropped before.
    fn ended(&self, side: Side, result: Result<(), BodyError>);
}

/// A body whose bytes come from somewhere else.
pub type Source = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError>>>;

/// A request's or response's body.
pub struct Body {
    kind: Kind,
    meter: Option<(Rc<dyn Meter>, Side)>,
}

enum Kind {
    Empty,
    Full(Bytes),
    /// A request, or a response of an upstream.
    Source(Source),
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self { kind: Kind::Empty, meter: None }
    }

    /// A body that is here.
    pub fn full(bytes: Bytes) -> Self {
        Self { kind: if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) }, meter: None }
    }

    /// A body whose bytes come from somewhere else.
    pub fn source(source: Source) -> Self {
        Self { kind: Kind::Source(source), meter: None }
    }

    /// The same body, through a meter.
    pub fn metered(mut self, meter: Rc<dyn Meter>, side: Side) -> Self {
        debug_assert!(self.meter.is_none(), "one meter a body");
        if self.kind.is_end_stream() {
            meter.ended(side, Ok(()));
        } else {
            self.meter = Some((meter, side));
        }
        self
    }

    fn poll_kind(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Source(source) => source.as_mut().poll_frame(cx),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        // What is at hand is neither late nor waited for.
        if let Some((meter, side)) = &this.meter
            && matches!(this.kind, Kind::Source(_))
            && let Err(error) = meter.poll_open(*side, cx)
        {
            meter.ended(*side, Err(error));
            *this = Self::empty();
            return Poll::Ready(Some(Err(error)));
        }
        let mut item = ready!(this.poll_kind(cx));
        let Some((meter, side)) = &this.meter else { return Poll::Ready(item) };
        if let Some(Ok(frame)) = &item
            && let Err(error) = meter.passed(*side, frame.data_ref().map_or(0, Bytes::len))
        {
            item = Some(Err(error));
        }
        let end = match &item {
            None => Some(Ok(())),
            Some(Err(error)) => Some(Err(*error)),
            Some(Ok(frame)) => (frame.is_trailers() || this.kind.is_end_stream()).then_some(Ok(())),
        };
        if let Some(result) = end {
            meter.ended(*side, result);
            *this = Self::empty();
        }
        Poll::Ready(item)
    }

    fn is_end_stream(&self) -> bool {
        self.kind.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Source(source) => source.size_hint(),
        }
    }
}

impl Kind {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Source(source) => source.is_end_stream(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Empty => "empty",
            Kind::Full(_) => "full",
            Kind::Source(_) => "source",
        };
        f.debug_tuple("Body").field(&kind).finish()
    }
}

/// A piece of a body as whoever keeps it for long should: small ones stand in blocks with much else, which they would hold on to.
pub fn kept(bytes: &Bytes) -> Bytes {
    const SMALL: usize = 4096;
    if bytes.len() < SMALL { Bytes::copy_from_slice(bytes) } else { bytes.clone() }
}

/// The same request, without its body.
pub fn bodiless(request: &Request<Body>) -> Box<Request<Body>> {
    let mut copy = Box::new(Request::new(Body::empty()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}

/// A short answer of our own.
pub fn text(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    *response.body_mut() = Body::full(body);
    response
}
