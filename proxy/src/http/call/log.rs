//! The line of the access log that a request leaves.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::{Method, Request, Uri, Version};

use super::{Ledger, count};
use crate::body::Body;
use crate::conn::Conn;
use crate::error::ProxyError;
use crate::observe::{Peer, Record};
use crate::policy::authz::Decision;

/// What only an access log wants to know.
#[derive(Debug)]
pub(super) struct Logged {
    at: SystemTime,
    method: Method,
    path: Box<[u8]>,
    query: Option<Box<[u8]>>,
    host: Box<[u8]>,
    user_agent: Box<[u8]>,
}

impl Logged {
    pub(super) fn new(request: &Request<Body>) -> Self {
        let header = |name| request.headers().get(name).map(|v| v.as_bytes().into()).unwrap_or_default();
        let authority = request.uri().authority().map(|a| a.as_str().as_bytes().into());
        Self {
            at: SystemTime::now(),
            method: request.method().clone(),
            path: path(request.uri()),
            query: query(request.uri()),
            host: authority.unwrap_or_else(|| header(http::header::HOST)),
            user_agent: header(http::header::USER_AGENT),
        }
    }

    /// It is known by another target.
    pub(super) fn set_target(&mut self, target: &Uri) {
        (self.path, self.query) = (path(target), query(target));
    }
}

/// Copied, as what was read stands in a block with much else, and a request can be under way for long.
fn path(target: &Uri) -> Box<[u8]> {
    target.path().as_bytes().into()
}

fn query(target: &Uri) -> Option<Box<[u8]>> {
    target.query().map(|query| query.as_bytes().into())
}

impl Ledger {
    pub(super) fn log(&self, took: Duration) {
        let Some(logged) = &self.logged else { return };
        let logged = logged.borrow();
        let answer = self.error.get().map(ProxyError::answer);
        let route = self.route.get().map(|position| format!("{}.routes[{position}]", self.view().place));
        let flag = match (answer, self.delayed.get()) {
            (None, false) => Cow::Borrowed("-"),
            (None, true) => Cow::Borrowed("DI"),
            (Some(answer), false) => Cow::Borrowed(answer.flag),
            (Some(answer), true) => Cow::Owned(["DI,", answer.flag].concat()),
        };
        let decision = self.decision.get();
        let rules = self.view().authorization.as_ref().filter(|_| decision != Decision::default());
        let authorization = rules.map(|rules| rules.tell(decision).to_string()).unwrap_or_default();
        let endpoint = self.trip.endpoint();
        let at = endpoint.as_ref().map(|endpoint| endpoint.at());
        let record = Record {
            start: logged.at,
            duration: took,
            protocol: if self.version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" },
            client: self.conn.peer().map_or(Peer::Unix, Peer::Ip),
            listener: self.view.name.as_str(),
            route: route.as_deref().unwrap_or_default(),
            method: logged.method.as_str(),
            host: &logged.host,
            path: &logged.path,
            query: logged.query.as_deref(),
            user_agent: &logged.user_agent,
            status: self.status.get(),
            flag: &flag,
            reason: answer.map_or("", |a| a.reason),
            bytes_received: self.received.get(),
            bytes_sent: self.sent.get(),
            cluster: if self.trip.attempts() > 0 { self.destination().1.live.name().as_str() } else { "" },
            endpoint: at.as_ref().map(|at| &at.address),
            attempts: self.trip.attempts(),
            identity: self.conn.identity(),
            authorization: &authorization,
            fallback: self.fallback.get(),
            connect: self.trip.connect(),
            first_byte: self.trip.first_byte(),
        };
        self.conn.worker().log(|logger| logger.log(&record));
    }

    /// Writes down a request that was refused before it was one: its head broke the protocol or a limit.
    pub fn refused(conn: &Conn, error: ProxyError) {
        let view = conn.view();
        let answer = error.answer();
        let stats = &view.state.stats;
        stats.request(answer.status.as_u16(), Duration::ZERO);
        count(stats, error);
        let record = Record {
            start: SystemTime::now(),
            duration: Duration::ZERO,
            protocol: "HTTP",
            client: conn.peer().map_or(Peer::Unix, Peer::Ip),
            listener: view.name.as_str(),
            route: "",
            method: "-",
            host: b"",
            path: b"",
            query: None,
            user_agent: b"",
            status: answer.status.as_u16(),
            flag: answer.flag,
            reason: answer.reason,
            bytes_received: 0,
            bytes_sent: 0,
            cluster: "",
            endpoint: None,
            attempts: 0,
            identity: conn.identity(),
            authorization: "",
            fallback: "",
            connect: None,
            first_byte: None,
        };
        conn.worker().log(|logger| logger.log(&record));
    }
}
