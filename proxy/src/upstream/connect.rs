//! A fresh connection to an endpoint, TLS included, within the cluster's `connect_timeout`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::model::Address;

use super::dialled::{Dialled, Ours};
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
    /// Where it is to be known as one of ours, if it could be redirected to us.
    pub dialled: Option<&'a Arc<Dialled>>,
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
    let Dial { permit, pool, tls, timeout, dialled, ticks } = dial;
    let connecting = connect(endpoint, tls, dialled);
    let (transport, proven, ours) = match tokio::time::timeout(timeout, connecting).await {
        Ok(connected) => connected?,
        Err(_) => return Err(UpstreamError::ConnectTimeout),
    };
    let open = endpoint.opened(stats, (permit, pool), proven).known_as(ours);
    Ok((Stream::new(transport, Activity::new(ticks)), open))
}

async fn connect(
    endpoint: &Endpoint,
    tls: Option<(&ClientTls, Speak)>,
    dialled: Option<&Arc<Dialled>>,
) -> Result<(Transport, Option<Proven>, Option<Ours>), UpstreamError> {
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
    // Before anything is sent on it.
    let ours = match (dialled, socket.local(), address) {
        (Some(dialled), Some(local), Address::Ip(to)) => Some(dialled.add(local, *to)),
        (_, _, Address::Ip(_) | Address::Unix(_)) => None,
    };
    let Some((tls, speak)) = tls else { return Ok((Transport::Plain(socket), None, ours)) };
    match tls.connect(socket, address, speak).await {
        Ok((stream, proven)) => Ok((Transport::Tls(Box::new(stream.into())), proven, ours)),
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
