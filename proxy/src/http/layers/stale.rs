//! Keeps good answers on their way to the client, and finds them again when their cluster fails. The answer is passed
//! on as it comes: it is copied beside that, and given up where it grows too long or breaks off.
//!
//! Beside what [`rules`] allow, these are kept: whole answers of status 200 to a GET without a body, that have no
//! trailers and whose end is told by their framing. One that ends with its connection may have been cut by the very
//! failure that it would be kept for (RFC 9112 section 8). Nor are answers kept that are somebody's fallback
//! themselves. A 304 with the tag of what is kept makes that as good as new. A URL is forgotten when a method that is
//! not safe succeeds on this route (RFC 9111 section 4.4), and when it is said to be gone.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};

use super::fallback::MARK;
use crate::body::{Body, BodyError};
use crate::http::call::Ledger;
use crate::http::headers;
use crate::http::peek::is_grpc;
use crate::policy::stale::rules::{self, Terms};
use crate::policy::stale::{Answer, Room, Stale};

/// What answers are found by: the host, as the client wrote it but for letter case, and the canonical target. The
/// host ends where the path begins. `None` for a request without a host.
pub fn key(request: &Request<Body>) -> Option<Rc<[u8]>> {
    let mut key = headers::host(request)?.to_ascii_lowercase().into_bytes();
    key.extend_from_slice(request.uri().path_and_query()?.as_str().as_bytes());
    Some(key.into())
}

/// A request on a route that keeps answers.
pub(super) struct Asked {
    kept: Arc<Stale>,
    key: Rc<[u8]>,
    fields: HeaderMap,
    may: May,
    ledger: Rc<Ledger>,
}

/// What may become of the answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    /// It is kept, or one that was is served in its place.
    Keep,
    /// One that was kept is served in its place.
    Serve,
    /// It makes those that are kept untrue.
    Forget,
}

impl Asked {
    /// `None` where answers have nothing to do with it. Boxed: few have, and all would carry it.
    pub(super) fn of(request: &Request<Body>, ledger: &Rc<Ledger>) -> Option<Box<Self>> {
        let kept = ledger.limits()?.stale.as_ref()?;
        let may = match *request.method() {
            // Of a body it is not known what it means.
            Method::GET if !request.body().is_end_stream() || ledger.is_grpc() => return None,
            Method::GET if rules::may_keep(request.headers()) => May::Keep,
            Method::GET => May::Serve,
            ref method if method.is_safe() => return None,
            _ => May::Forget,
        };
        let key = ledger.asked()?;
        let mut fields = if may == May::Forget { HeaderMap::new() } else { request.headers().clone() };
        if ledger.is_known() {
            // It is no stranger's, whatever is left of what it said.
            fields.entry(header::PROXY_AUTHORIZATION).or_insert(HeaderValue::from_static(""));
        }
        Some(Box::new(Self { kept: Arc::clone(kept), key, fields, may, ledger: Rc::clone(ledger) }))
    }

    /// The cluster has answered: the answer, which is kept once it is whole.
    pub(super) fn answered(self: Box<Self>, response: Response<Body>) -> Response<Body> {
        let status = response.status();
        let untrue = match self.may {
            May::Forget => status.is_success() || status.is_redirection(),
            May::Keep | May::Serve => matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE),
        };
        if untrue {
            self.kept.forget(&self.key);
        }
        if self.may == May::Keep && status == StatusCode::NOT_MODIFIED && !self.is_pressed() {
            self.kept.renew(&self.key, &self.fields, response.headers(), self.now());
        }
        if self.is_pressed() {
            // Nothing new is kept, so that nothing else would make room.
            self.kept.expire(self.now());
        }
        match self.terms(&response) {
            Some(terms) => self.keep(terms, response),
            None => response,
        }
    }

    /// Another cluster has answered in place of the one whose answers are kept.
    pub(super) fn answered_elsewhere(&self, status: StatusCode) {
        if self.may == May::Forget && (status.is_success() || status.is_redirection()) {
            self.kept.forget(&self.key);
        }
    }

    /// The cluster has failed: what it answered before, if that is kept.
    pub(super) fn before(&self) -> Option<Response<Body>> {
        if self.may == May::Forget {
            return None;
        }
        let now = self.now();
        let answer = self.kept.find(&self.key, &self.fields, now)?;
        let mut response = Response::new(Body::full(answer.body()));
        *response.headers_mut() = answer.head(now);
        Some(response)
    }

    /// On which terms an answer is kept, as far as its head says.
    fn terms(&self, response: &Response<Body>) -> Option<Terms> {
        let head = response.headers();
        let kept = self.may == May::Keep
            && response.status() == StatusCode::OK
            && response.body().size_hint().lower() <= self.kept.max_body()
            && !self.ledger.is_unframed()
            && !self.is_pressed()
            && !head.contains_key(MARK)
            && !is_grpc(head);
        if kept { Terms::of(&self.fields, head) } else { None }
    }

    fn keep(self: Box<Self>, terms: Terms, response: Response<Body>) -> Response<Body> {
        let length = response.body().size_hint().exact();
        let Some(room) = self.kept.room(length.unwrap_or(self.kept.max_body())) else { return response };
        let received = self.now();
        let (head, body) = response.into_parts();
        let fields = head.headers.clone();
        let draft = Draft { fields, bytes: Vec::new(), length, received, terms, asked: self, _room: room };
        if body.is_end_stream() {
            draft.keep();
            return Response::from_parts(head, body);
        }
        Response::from_parts(head, Body::source(Box::pin(Keeping { body, draft: Some(Box::new(draft)) })))
    }

    fn is_pressed(&self) -> bool {
        self.ledger.conn().worker().shared().pressure.is_pressed()
    }

    fn now(&self) -> Duration {
        self.ledger.conn().worker().shared().epoch.elapsed()
    }
}

/// What has been read of an answer that is to be kept.
struct Draft {
    fields: HeaderMap,
    // Copied at once: the pieces of a body stand in buffers that are larger and wanted again.
    bytes: Vec<u8>,
    /// How long it is, where that is known.
    length: Option<u64>,
    received: Duration,
    terms: Terms,
    asked: Box<Asked>,
    _room: Room,
}

impl Draft {
    /// Whether it is as long as its head has said.
    fn is_full(&self) -> bool {
        self.length == Some(self.bytes.len() as u64)
    }

    /// All has been read: unless it is shorter than its head has said, it is kept.
    fn keep(self) {
        let whole = self.length.is_none() || self.is_full();
        let Self { fields, bytes, length: _, received, terms, asked, _room } = self;
        if whole && !asked.is_pressed() {
            asked.kept.put(&asked.key, terms, Answer::new(&fields, bytes, received), asked.now());
        }
    }
}

/// An answer's body that is copied as it passes.
struct Keeping {
    body: Body,
    /// `None` once it is kept, or given up.
    draft: Option<Box<Draft>>,
}

impl Keeping {
    fn take(&mut self, data: &Bytes) {
        let Some(draft) = &mut self.draft else { return };
        let length = draft.bytes.len() + data.len();
        if length as u64 > draft.asked.kept.max_body() {
            self.draft = None;
            return;
        }
        if draft.bytes.is_empty() {
            let whole = draft.length.and_then(|whole| usize::try_from(whole).ok()).unwrap_or(0);
            draft.bytes.reserve_exact(whole.max(data.len()));
        }
        draft.bytes.extend_from_slice(data);
    }

    /// All has been read.
    fn end(&mut self) {
        if let Some(draft) = self.draft.take() {
            draft.keep();
        }
    }
}

impl http_body::Body for Keeping {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(piece)) => match piece.data_ref() {
                Some(data) => {
                    self.take(data);
                    if self.body.is_end_stream() {
                        self.end();
                    }
                }
                // Trailers.
                None => self.draft = None,
            },
            Some(Err(_)) => self.draft = None,
            None => self.end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Keeping {
    /// Whoever reads up to a length need not ask for the end as well.
    fn drop(&mut self) {
        if self.draft.as_ref().is_some_and(|draft| draft.is_full()) {
            self.end();
        }
    }
}
