//! A connection for a request that finds none: leave to open one, in line where the cluster has all that it may have, and one
//! of HTTP/2 for all who wait for it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use outrigger_proto::model::Source;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::breaker::Limit;
use super::cluster::ClusterView;
use super::connect::{Dial, dial};
use super::endpoint::Endpoint;
use super::error::UpstreamError;
use super::h1;
use super::h2;
use super::pool::{PoolKey, Pools};
use super::send::{Upstream, overflowed};
use super::tls::Speak;
use super::trip::Going;
use crate::gate::{Call, Entry, Permit, Waiting};
use crate::io::stream::Stream;

impl Upstream {
    /// A new connection; `None` when one that is there has become free instead.
    pub(super) async fn open_h1(
        &self,
        to: &ClusterView,
        endpoint: &Arc<Endpoint>,
        going: &Going<'_>,
    ) -> Result<Option<Box<h1::Conn>>, UpstreamError> {
        let Some(permit) = self.admit(to, endpoint, going).await? else { return Ok(None) };
        let (stream, open) = self.dial(to, endpoint, (going, permit, Speak::Http1)).await?;
        Ok(Some(h1::Conn::new(stream, open, to.config.idle_timeout)))
    }

    /// An HTTP/2 connection with room, opened by this request or by one that came before it.
    pub(super) async fn open_h2(
        &self,
        to: &ClusterView,
        endpoint: &Arc<Endpoint>,
        going: &Going<'_>,
    ) -> Result<Rc<h2::Conn>, UpstreamError> {
        let pool = going.pool(to, endpoint);
        loop {
            let dialing = self.dialing.borrow().get(&pool).cloned();
            let settling = self.pools.settling_h2(pool);
            if let Some(dialing) = dialing {
                going.depends_on_endpoint();
                dialing.done.notified().await;
                if let Some(error) = dialing.error.get() {
                    return Err(error);
                }
            } else if let Some(settling) = settling {
                going.depends_on_endpoint();
                settling.settled().await;
            } else if let Some(permit) = self.admit(to, endpoint, going).await? {
                // Whoever opens a connection uses it, even if it turns out to have no room for others.
                return self.dial_h2(to, endpoint, (going, permit)).await;
            }
            if let Some(conn) = self.pools.find_h2(pool) {
                return Ok(conn);
            }
        }
    }

    /// Opens an HTTP/2 connection for all who wait for one.
    async fn dial_h2(
        &self,
        to: &ClusterView,
        endpoint: &Arc<Endpoint>,
        (going, permit): (&Going<'_>, Permit),
    ) -> Result<Rc<h2::Conn>, UpstreamError> {
        let dialing = Rc::new(Dialing::default());
        let pool = going.pool(to, endpoint);
        self.dialing.borrow_mut().insert(pool, dialing.clone());
        let turn = Turn { upstream: self, pool, dialing };
        let result = async {
            let (stream, open) = self.dial(to, endpoint, (going, permit, Speak::Http2)).await?;
            h2::Conn::new(stream, open, (self.worker, to.config.idle_timeout)).await
        };
        match result.await {
            Ok(conn) => {
                self.pools.put_h2(conn.clone());
                Ok(conn)
            }
            Err(error) => {
                turn.dialing.error.set(Some(error));
                Err(error)
            }
        }
    }

    /// Leave to open one more connection of the cluster; `None` when one that is there has become free instead. Where
    /// the cluster has all that it may have, idle ones of other workers are asked for, and then it is waited.
    pub(super) async fn admit(
        &self,
        to: &ClusterView,
        endpoint: &Endpoint,
        going: &Going<'_>,
    ) -> Result<Option<Permit>, UpstreamError> {
        let (breaker, limits) = to.breaker(going.trip.priority());
        let gate = breaker.connections();
        if let Some(permit) = gate.try_enter() {
            return Ok(Some(permit));
        }
        let pending = breaker.count(Limit::Pending, limits);
        let _pending = pending.map_err(|overflow| overflowed(to, overflow))?;
        let pool = going.pool(to, endpoint);
        let mut waits = match gate.enter(pool.tag(self.worker), u32::MAX) {
            Entry::In(permit) => return Ok(Some(permit)),
            Entry::Line(waiting) => Waits { waiting, pools: &self.pools, pool, has_come: false },
            Entry::Full => return Err(overflowed(to, breaker.full())),
        };
        self.pools.reclaim();
        self.reclaim.ask();
        let called = tokio::time::timeout(to.config.connect_timeout, &mut waits.waiting).await;
        going.waited();
        match called {
            Ok(Call::In(permit)) => Ok(Some(permit)),
            Ok(Call::Look) => {
                waits.has_come = true;
                Ok(None)
            }
            Err(_) => {
                let full = breaker.full();
                to.live.stats().overflow(full.key());
                Err(UpstreamError::NoConnectionFree(full))
            }
        }
    }

    /// Connects to an endpoint, with leave to.
    pub(super) async fn dial(
        &self,
        to: &ClusterView,
        endpoint: &Arc<Endpoint>,
        (going, permit, speak): (&Going<'_>, Permit, Speak),
    ) -> Result<(Stream, super::Open), UpstreamError> {
        if to.live.is_kept_from(&endpoint.at().address) {
            return Err(UpstreamError::OwnAddress);
        }
        going.depends_on_endpoint();
        let trip = going.trip;
        let start = Instant::now();
        let pool = going.pool(to, endpoint);
        let tls = to.tls.as_deref().map(|tls| (tls, speak));
        let timeout = to.config.connect_timeout;
        // Others lead where nobody is redirected from.
        let dialled = matches!(to.config.source, Source::Original(_)).then_some(&self.dialled);
        let how = Dial { permit, pool, tls, timeout, dialled, ticks: self.ticks.clone() };
        let stats = to.live.stats();
        let result = dial(endpoint, stats, how).await;
        trip.connect.set(Some(start.elapsed()));
        if let Some(reason) = result.as_ref().err().and_then(|error| error.connect_failure()) {
            stats.connect_failure(reason);
        }
        result
    }
}

/// Somebody in the line for a connection. While a connection is put aside for whoever was called, it is not let go of: so that
/// they have come, or given up, is said however this ends.
struct Waits<'a> {
    waiting: Waiting,
    pools: &'a Pools,
    pool: PoolKey,
    has_come: bool,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if !self.waiting.is_to_look() {
            return;
        }
        self.pools.answer_call(self.pool);
        if !self.has_come {
            // Others may wait for what it leaves.
            self.pools.reclaim();
        }
    }
}

/// A connection being opened, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct Dialing {
    done: Notify,
    error: Cell<Option<UpstreamError>>,
}

/// Whoever opens a connection for others; when it is cancelled, they are told to open their own.
struct Turn<'a> {
    upstream: &'a Upstream,
    pool: PoolKey,
    dialing: Rc<Dialing>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.upstream.dialing.borrow_mut().remove(&self.pool);
        self.dialing.done.notify_waiters();
    }
}
