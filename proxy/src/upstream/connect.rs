//! A fresh connection to an endpoint, within the cluster's `connect_timeout`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::{Endpoint, Open};
use super::error::UpstreamError;
use super::pool::PoolKey;
use crate::gate::Permit;
use crate::io::activity::{Activity, Ticks};
use crate::io::socket::Socket;
use crate::io::stream::{Stream, Transport};
use crate::observe::ClusterStats;

/// How to dial.
#[derive(Debug)]
pub struct Dial {
    /// What lets the cluster have one connection more.
    pub permit: Permit,
    /// Whose requests it is for.
    pub pool: PoolKey,
    /// Until the connection stands.
    pub timeout: Duration,
    /// The worker's coarse clock, for the connection's notes.
    pub ticks: Ticks,
}

/// Connects to an endpoint.
///
/// # Errors
/// [`UpstreamError::ConnectRefused`], [`ConnectTimeout`](UpstreamError::ConnectTimeout) or
/// [`ConnectFailed`](UpstreamError::ConnectFailed).
pub async fn dial(
    endpoint: &Arc<Endpoint>,
    stats: &Arc<ClusterStats>,
    dial: Dial,
) -> Result<(Stream, Open), UpstreamError> {
    let socket = match tokio::time::timeout(dial.timeout, Socket::connect(endpoint.address())).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => {
            tracing::debug!(endpoint = endpoint.label(), %error, "cannot connect");
            return Err(match error.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => UpstreamError::ConnectRefused,
                io::ErrorKind::TimedOut => UpstreamError::ConnectTimeout,
                _ => UpstreamError::ConnectFailed,
            });
        }
        Err(_) => return Err(UpstreamError::ConnectTimeout),
    };
    Ok((
        Stream::new(Transport::Plain(socket), Activity::new(dial.ticks)),
        endpoint.opened(stats, (dial.permit, dial.pool)),
    ))
}
