//! An HTTP/1.1 connection to an endpoint, driven by the request that uses it.
//!
//! The connection belongs to the exchange: no task of its own that each request would wake, and be woken by. Space to read into and
//! to write from is the worker's: a connection that waits holds neither.

mod expected;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use tokio::task::coop;

pub use self::expected::Expected;
use super::endpoint::{Endpoint, Open};
use super::error::UpstreamError;
use super::pool::Pools;
use super::trip::Going;
use crate::body::{Body, BodyError};
use crate::h1::{
    Cut, Outgoing, Reader, Refused, ResponseHead, Space, Stopped, read_response, status, write_request,
};
use crate::io::activity::Activity;
use crate::io::stream::Stream;
use crate::observe::ClusterStats;

/// Head of a response, or trailer section, in bytes; a larger one is refused.
const MAX_HEAD: usize = 256 * 1024;

/// A connection, between requests or in one.
#[derive(Debug)]
pub struct Conn {
    stream: Stream,
    reader: Reader,
    /// The request in flight, until all of it was sent.
    sending: Option<Sending>,
    open: Open,
    idle_timeout: Duration,
    /// It can serve no request after this one, or none at all.
    over: bool,
}

/// The rest of a request whose response has begun.
#[derive(Debug)]
struct Sending {
    out: Outgoing,
    body: Body,
}

/// What a request came to.
#[derive(Debug)]
pub enum Answer {
    /// A response; its body brings the connection back to the pool.
    Response(Response<Body>),
    /// The upstream agreed to a tunnel.
    Tunnel(Response<Body>, Box<Tunnelled>),
}

/// The upstream's end of a tunnel.
#[derive(Debug)]
pub struct Tunnelled {
    /// The bytes.
    pub stream: Stream,
    /// What counts the connection. Behind it, or one more could be open than may be.
    pub open: Open,
}

/// A request that got no response.
#[derive(Debug)]
pub(super) struct Failure {
    /// Why.
    pub error: UpstreamError,
    /// Whether the request is as it was: nothing of its body was asked for, or it has none.
    pub is_whole: bool,
    /// Whether a byte of it was sent.
    pub sent: bool,
    /// Whether a byte of a response came.
    pub answered: bool,
}

impl Conn {
    /// Speaks HTTP/1.1 on a fresh connection.
    pub fn new(stream: Stream, open: Open, idle_timeout: Duration) -> Box<Self> {
        Box::new(Self {
            stream,
            reader: Reader::responses(MAX_HEAD),
            sending: None,
            open,
            idle_timeout,
            over: false,
        })
    }

    /// What counts it.
    pub fn open(&self) -> &Open {
        &self.open
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.open.endpoint()
    }

    /// The figures of its cluster.
    pub fn stats(&self) -> &ClusterStats {
        self.open.stats()
    }

    fn activity(&self) -> &Activity {
        self.stream.activity()
    }

    /// Whether it has carried nothing for longer than it may.
    pub fn is_stale(&self) -> bool {
        Duration::from_millis(self.activity().idle_ms()) >= self.idle_timeout
    }

    /// Whether a request can be sent, by what is known: whether the upstream has closed it since, an exchange finds
    /// out before it sends.
    pub fn is_ready(&self) -> bool {
        !self.over && self.sending.is_none() && self.reader.unread() == 0 && self.reader.is_whole()
    }

    /// Looks at what the socket says of a connection that waits: anything at all ends it.
    pub fn look(&mut self, space: &Space) {
        let mut context = Context::from_waker(Waker::noop());
        self.over |= self.poll_fill(&mut context, space).is_ready();
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, space: &Space) -> Poll<io::Result<bool>> {
        self.reader.poll_fill(cx, &mut self.stream, space)
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(super) async fn exchange(
        mut self: Box<Self>,
        pools: &Rc<Pools>,
        going: &Going<'_>,
    ) -> Result<Answer, Failure> {
        let space = pools.space();
        // Whether the upstream has closed it meanwhile, or said what nobody asked for. From here on its answer wakes us.
        let look = poll_fn(|cx| match self.poll_fill(cx, space) {
            // It was not looked at, as this task has had its turn.
            Poll::Pending if !coop::has_budget_remaining() => Poll::Pending,
            looked => Poll::Ready(looked),
        });
        if let Poll::Ready(read) = look.await {
            let error =
                if matches!(read, Ok(true)) { UpstreamError::Protocol } else { UpstreamError::Closed };
            return Err(Failure { error, is_whole: true, sent: false, answered: false });
        }
        let (mut out, mut body, expected) = self.begin(space, going);
        let is_bodiless = body.is_end_stream();
        let received = self.activity().received();
        let mut waits = true;
        let result = poll_fn(|cx| {
            self.poll_send(cx, &mut out, &mut body)?;
            if let Some(written) = out.take_space() {
                space.put_write(written);
            }
            // Nothing has come since it was looked at, or we would have been woken.
            if std::mem::take(&mut waits) && !self.over {
                return Poll::Pending;
            }
            self.poll_head(cx, space, expected.as_ref())
        });
        let ResponseHead { response, persists, spelling } = match result.await {
            Ok(read) => read,
            Err(error) => {
                let answered = self.activity().received() > received;
                return Err(Failure { error, is_whole: is_bodiless, sent: out.has_begun(), answered });
            }
        };
        going.trip.note_answer_spelling(spelling);
        self.over |= !persists;
        if !out.is_done() {
            self.sending = Some(Sending { out, body });
        }
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS && !asks_for_tunnel(&going.request()) {
            // A change of protocol that nobody asked for: what follows could be anything.
            let error = UpstreamError::Protocol;
            return Err(Failure { error, is_whole: false, sent: true, answered: true });
        }
        if tunnels(going.request().method(), status) {
            // Boxed, as it is rare: the future of every exchange has room for it.
            return Box::pin(self.tunnel(pools, response)).await;
        }
        Ok(self.answer(pools, response))
    }

    /// Writes down the head of a request, to be sent; its body, and who is to be told of a `100`.
    fn begin(&mut self, space: &Space, going: &Going<'_>) -> (Outgoing, Body, Option<Expected>) {
        let mut request = going.request();
        self.reader.expect(request.method());
        let mut head = space.take_write();
        let framing = write_request(&mut head, &request, going.trip.spelling().as_ref());
        let expected = request.extensions_mut().remove();
        (Outgoing::new(head, framing), std::mem::replace(request.body_mut(), Body::empty()), expected)
    }

    /// Sends what there is of a request. Where the connection takes no more, there may still be an answer.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Outgoing,
        body: &mut Body,
    ) -> Result<(), UpstreamError> {
        match out.poll(cx, (&mut self.stream, body)) {
            Poll::Ready(Err(Stopped::Body)) => return Err(UpstreamError::RequestBody),
            Poll::Ready(Err(Stopped::Connection)) => self.over = true,
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        Ok(())
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        space: &Space,
        expected: Option<&Expected>,
    ) -> Poll<Result<ResponseHead, UpstreamError>> {
        loop {
            match self.reader.next_head().map_err(|refused| self.refuse(refused))? {
                None => match ready!(self.poll_fill(cx, space)) {
                    Ok(true) => {}
                    Ok(false) | Err(_) => return Poll::Ready(Err(UpstreamError::Closed)),
                },
                Some(head) => match status(&head) {
                    Some(StatusCode::CONTINUE) => {
                        if let Some(expected) = expected {
                            expected.go_on();
                        }
                    }
                    Some(status) if is_interim(status) => {}
                    Some(_) | None => {
                        return Poll::Ready(read_response(&head).map_err(|_| UpstreamError::Protocol));
                    }
                },
            }
        }
    }

    fn refuse(&self, refused: Refused) -> UpstreamError {
        tracing::debug!(endpoint = %self.endpoint().at().label, %refused, "an answer is refused");
        UpstreamError::Protocol
    }

    fn answer(self: Box<Self>, pools: &Rc<Pools>, response: Response<()>) -> Answer {
        let is_sized = self.reader.is_whole() || self.reader.to_come().is_some();
        let mut body = Streaming { conn: Some(self), ahead: [None, None], is_sized, pools: pools.clone() };
        // Most responses came whole with their head: the connection is free again before the head is passed on.
        let body = match body.take_whole() {
            Some(bytes) => Body::full(bytes),
            None => Body::source(Box::pin(body)),
        };
        Answer::Response(response.map(|()| body))
    }

    async fn tunnel(mut self: Box<Self>, pools: &Pools, response: Response<()>) -> Result<Answer, Failure> {
        if let Some(Sending { mut out, mut body }) = self.sending.take() {
            let sent = poll_fn(|cx| out.poll(cx, (&mut self.stream, &mut body))).await;
            sent.map_err(|stopped| {
                let error = match stopped {
                    Stopped::Body => UpstreamError::RequestBody,
                    Stopped::Connection => UpstreamError::Closed,
                };
                Failure { error, is_whole: false, sent: true, answered: true }
            })?;
        }
        let Self { mut stream, mut open, reader, .. } = *self;
        stream.unread(reader.into_rest());
        pools.watch_over(&mut stream, &mut open);
        Ok(Answer::Tunnel(response.map(|()| Body::empty()), Box::new(Tunnelled { stream, open })))
    }
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

fn asks_for_tunnel(request: &Request<Body>) -> bool {
    request.method() == Method::CONNECT || request.headers().contains_key(header::UPGRADE)
}

fn tunnels(method: &Method, status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || (method == Method::CONNECT && status.is_success())
}

/// A response's body as it comes; owns the connection until it has come whole.
struct Streaming {
    conn: Option<Box<Conn>>,
    /// What was cut off before anybody asked for it.
    ahead: [Option<Result<Frame<Bytes>, BodyError>>; 2],
    /// Its length was known when it began. Where it was not, it is told no sooner than its end.
    is_sized: bool,
    pools: Rc<Pools>,
}

impl Streaming {
    /// All of the body, where it came with its head; else what of it is there waits.
    fn take_whole(&mut self) -> Option<Bytes> {
        for at in 0..self.ahead.len() {
            self.ahead[at] = match self.next_cut() {
                Ok(Cut::Nothing) => return None,
                Ok(Cut::End) if !self.is_sized => return None,
                Ok(Cut::End) => {
                    let first = self.ahead[0].take().and_then(Result::ok).map(Frame::into_data);
                    return Some(first.and_then(Result::ok).unwrap_or_default());
                }
                Ok(Cut::Data(data)) => Some(Ok(Frame::data(data))),
                Ok(Cut::Trailers(trailers)) => {
                    self.ahead[at] = Some(Ok(Frame::trailers(trailers)));
                    return None;
                }
                Err(error) => {
                    self.conn = None;
                    self.ahead[at] = Some(Err(error));
                    return None;
                }
            };
        }
        None
    }

    /// The next piece of what was read. With the last, the connection may serve the next request.
    fn next_cut(&mut self) -> Result<Cut, BodyError> {
        let Some(conn) = &mut self.conn else { return Ok(Cut::End) };
        let cut = conn.reader.cut().map_err(|refused| {
            conn.refuse(refused);
            BodyError::Upstream
        })?;
        if conn.reader.is_whole() {
            self.release();
        }
        Ok(cut)
    }

    fn release(&mut self) {
        if let Some(mut conn) = self.conn.take() {
            conn.reader.rest();
            self.pools.put_h1(conn);
        }
    }

    /// Reads on; `false` where the body ends with the connection.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, BodyError>> {
        let Some(conn) = &mut self.conn else { return Poll::Ready(Ok(false)) };
        if let Some(mut sending) = conn.sending.take() {
            let sent = conn.poll_send(cx, &mut sending.out, &mut sending.body);
            sent.map_err(|_| BodyError::Upstream)?;
            if !sending.out.is_done() && !conn.over {
                conn.sending = Some(sending);
            }
        }
        match ready!(conn.poll_fill(cx, self.pools.space())) {
            Ok(true) => Poll::Ready(Ok(true)),
            Ok(false) if conn.reader.is_until_close() => Poll::Ready(Ok(false)),
            Ok(false) | Err(_) => Poll::Ready(Err(BodyError::Upstream)),
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, BodyError>> {
        loop {
            match self.next_cut()? {
                Cut::Data(data) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                Cut::Trailers(trailers) => return Poll::Ready(Ok(Some(Frame::trailers(trailers)))),
                Cut::End => return Poll::Ready(Ok(None)),
                Cut::Nothing => {}
            }
            if !ready!(self.poll_more(cx))? {
                self.conn = None;
            }
        }
    }
}

impl http_body::Body for Streaming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(ahead) = this.ahead.iter_mut().find_map(Option::take) {
            return Poll::Ready(Some(ahead));
        }
        let next = ready!(this.poll_next(cx));
        if next.is_err() {
            this.conn = None;
        }
        Poll::Ready(next.transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.conn.is_none() && self.ahead.iter().all(Option::is_none)
    }

    fn size_hint(&self) -> SizeHint {
        let to_come = match &self.conn {
            _ if !self.is_sized => None,
            Some(conn) => conn.reader.to_come(),
            None => Some(0),
        };
        let ahead = self.ahead.iter().flatten().flatten().filter_map(Frame::data_ref);
        let ahead: usize = ahead.map(Bytes::len).sum();
        to_come.map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest + ahead as u64))
    }
}
