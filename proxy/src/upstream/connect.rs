//! A fresh connection to an endpoint, TLS included, within the cluster's `connect_timeout`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::{At, Endpoint, Open, Proven};
use super::error::UpstreamError;
use super::pool::PoolKey;
use super::tls::{ClientTls, Speak, TlsFailure};
use crate::gate::Permit;
use crate::io::activity::{Activity, Ticks};
use crate::io::socket::Socket;
use crate::io::stream::{Stream, Transport};
use crate::observe::ClusterStats;

/// How to dial.
#[derive(Debug)]
pub struct Dial<'a> {
    /// What lets the cluster have one connection more.
    pub permit: Permit,
    /// Whose requests it is for.
    pub pool: PoolKey,
    /// TLS around it, and what is spoken inside.
    pub tls: Option<(&'a ClientTls, Speak)>,
    /// Until the connection stands.
    pub timeout: Duration,
    /// The worker's coarse clock, for the connection's notes.
    pub ticks: Ticks,
}

/// Connects to an endpoint.
///
/// # Errors
/// [`UpstreamError::ConnectRefused`], [`ConnectTimeout`](UpstreamError::ConnectTimeout),
/// [`ConnectFailed`](UpstreamError::ConnectFailed), [`NoSecret`](UpstreamError::NoSecret), [`Tls`](UpstreamError::Tls)
/// or [`TlsHandshake`](UpstreamError::TlsHandshake).
pub async fn dial(
    endpoint: &Arc<Endpoint>,
    stats: &Arc<ClusterStats>,
    dial: Dial<'_>,
) -> Result<(Stream, Open), UpstreamError> {
    let Dial { permit, pool, tls, timeout, ticks } = dial;
    let connecting = connect(endpoint, tls);
    let (transport, proven) = match tokio::time::timeout(timeout, connecting).await {
        Ok(connected) => connected?,
        Err(_) => return Err(UpstreamError::ConnectTimeout),
    };
    Ok((Stream::new(transport, Activity::new(ticks)), endpoint.opened(stats, (permit, pool), proven)))
}

async fn connect(
    endpoint: &Endpoint,
    tls: Option<(&ClientTls, Speak)>,
) -> Result<(Transport, Option<Proven>), UpstreamError> {
    if tls.is_some_and(|(tls, _)| !tls.is_ready()) {
        return Err(UpstreamError::NoSecret);
    }
    // One place for all of it: it may move meanwhile.
    let at = endpoint.at().clone();
    let At { address, label } = &*at;
    let socket = Socket::connect(address).await.map_err(|error| {
        tracing::debug!(endpoint = %label, %error, "cannot connect");
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => UpstreamError::ConnectRefused,
            io::ErrorKind::TimedOut => UpstreamError::ConnectTimeout,
            _ => UpstreamError::ConnectFailed,
        }
    })?;
    let Some((tls, speak)) = tls else { return Ok((Transport::Plain(socket), None)) };
    match tls.connect(socket, address, speak).await {
        Ok((stream, proven)) => Ok((Transport::Tls(Box::new(stream.into())), proven)),
        Err(failure) => {
            tracing::debug!(endpoint = %label, %failure, "no TLS");
            Err(match failure {
                TlsFailure::Peer(error) => UpstreamError::Tls(error),
                TlsFailure::NoSecret => UpstreamError::NoSecret,
                TlsFailure::Handshake(_) | TlsFailure::NotHttp2 => UpstreamError::TlsHandshake,
            })
        }
    }
}
