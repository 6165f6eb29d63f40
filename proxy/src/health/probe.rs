//! One check: connects, asks, and says what came of it, all within the check's `timeout`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, header};
use outrigger_proto::model::{Address, Probe, Protocol};
use rustix::io::Errno;
use tokio::time::Instant;

use super::watchlist::{Job, Plan};
use super::{grpc, h1, h2};
use crate::io::socket::Socket;
use crate::io::stream::Transport;
use crate::upstream::health::Outcome;
use crate::upstream::tls::Speak;
use crate::upstream::{At, Endpoint};

/// Who asks.
pub(super) const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("outrigger-health/", env!("CARGO_PKG_VERSION")));
/// Bytes of an answer's head; a larger one is refused.
pub(super) const MAX_HEAD: u32 = 64 * 1024;
/// Bytes of an answer's body that are waited for. It is read so that the server sees its answer taken; what is longer
/// is given up, and well.
pub(super) const MAX_BODY: usize = 64 * 1024;

/// A timeout that comes so much too late is our own: a large configuration that is read holds this thread up, and must
/// not take clusters out.
const LATE: Duration = Duration::from_millis(100);

/// Checks an endpoint.
pub(super) async fn probe(job: Job) -> Outcome {
    let Job { endpoint, plan } = job;
    let deadline = Instant::now() + plan.check.timeout;
    match tokio::time::timeout_at(deadline, ask(&endpoint, &plan)).await {
        Ok(outcome) => outcome,
        // The thread had other things to do, and the endpoint less time than it was promised.
        Err(_) if deadline.elapsed() > LATE => Outcome::NotAsked,
        Err(_) => Outcome::TimedOut,
    }
}

async fn ask(endpoint: &Arc<Endpoint>, plan: &Plan) -> Outcome {
    // One place for all of it: it may move meanwhile.
    let at = endpoint.at().clone();
    let socket = match Socket::connect(&at.address).await {
        Ok(socket) => socket,
        Err(error) => return unconnected(&error),
    };
    let transport = match secure(socket, &at, plan).await {
        Ok(transport) => transport,
        Err(outcome) => return outcome,
    };
    let host = host(&at);
    match (&plan.check.probe, plan.protocol) {
        (Probe::Tcp, _) => Outcome::Passed,
        (Probe::Http(path), Protocol::Auto | Protocol::Http1) => h1::ask(transport, host, path).await,
        (Probe::Http(path), Protocol::Http2) => h2::ask(transport, host, path).await,
        (Probe::Grpc(service), _) => grpc::ask(transport, host, service, plan.check.timeout).await,
    }
}

/// TLS as the cluster has it. An endpoint that is not who is meant is not well.
async fn secure(socket: Socket, at: &At, plan: &Plan) -> Result<Transport, Outcome> {
    let Some(tls) = &plan.tls else { return Ok(Transport::Plain(socket)) };
    let speak = match (&plan.check.probe, plan.protocol) {
        (Probe::Tcp, _) => Speak::Bytes,
        (Probe::Http(_), Protocol::Auto | Protocol::Http1) => Speak::Http1,
        (Probe::Http(_), Protocol::Http2) | (Probe::Grpc(_), _) => Speak::Http2,
    };
    match tls.connect(socket, &at.address, speak).await {
        Ok((stream, _)) => Ok(Transport::Tls(Box::new(stream.into()))),
        Err(failure) => {
            tracing::debug!(endpoint = %at.label, %failure, "no TLS for a health check");
            Err(Outcome::Tls)
        }
    }
}

/// What the endpoint is called in what it is asked. A unix socket has no name that a host could have.
fn host(at: &At) -> &str {
    match &at.address {
        Address::Ip(_) => &at.label,
        Address::Unix(_) => "localhost",
    }
}

fn unconnected(error: &io::Error) -> Outcome {
    /// What is exhausted here says nothing of there; to take it for a failure would turn one shortage into an outage.
    const OURS: [Errno; 5] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    if OURS.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) {
        return Outcome::NotAsked;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Outcome::Refused,
        io::ErrorKind::TimedOut => Outcome::TimedOut,
        _ => Outcome::Unreachable,
    }
}

/// `GET` this path. The path is one that can be asked for: `proto` has looked.
pub(super) fn get(uri: String) -> Result<http::request::Builder, Outcome> {
    let uri: http::Uri = uri.parse().map_err(|_| Outcome::NotAsked)?;
    Ok(http::Request::get(uri).header(header::USER_AGENT, USER_AGENT))
}

/// What an HTTP status says.
pub(super) fn status(status: http::StatusCode) -> Outcome {
    if status.is_success() { Outcome::Passed } else { Outcome::Status(status.as_u16()) }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
