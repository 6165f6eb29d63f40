//! Endpoints that are named by who comes: by where a connection was going before the kernel redirected it, or by a request.
//!
//! They are made when they are first named and forgotten when they are no longer used, and are endpoints as any other while
//! they are known. What is named by a stranger is bounded, and never leads back to the process itself.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;
use outrigger_proto::model::{self, Address, Original, Source};

use super::balance::{EndpointSet, Settings};
use super::cluster::{Cluster, guard};
use super::endpoint::Endpoint;
use super::error::UpstreamError;
use crate::io::socket::is_local;

/// The endpoint that is meant: what the header names, where there is to be one and it is there, and else where the connection
/// was going.
///
/// # Errors
/// [`UpstreamError::NoOriginalDestination`] where nothing names one, or [`UpstreamError::BadOriginalDestination`].
pub(super) fn named(
    original: &Original,
    headers: Option<&HeaderMap>,
    redirected: Option<SocketAddr>,
) -> Result<SocketAddr, UpstreamError> {
    let Original { header, port, cleanup: _, max_endpoints: _ } = original;
    let values = header.as_ref().zip(headers).map(|(header, headers)| headers.get_all(header));
    let mut values = values.into_iter().flatten();
    let mut address = match (values.next(), values.next()) {
        (None, _) => redirected.ok_or(UpstreamError::NoOriginalDestination)?,
        (Some(value), None) => parsed(value.as_bytes()).ok_or(UpstreamError::BadOriginalDestination)?,
        // It is not for us to say which of them is meant.
        (Some(_), Some(_)) => return Err(UpstreamError::BadOriginalDestination),
    };
    if let Some(port) = port {
        address.set_port(port.get());
    }
    Ok(canonical(address))
}

/// `ip:port` or `[v6]:port` of one machine, and nothing around it.
fn parsed(text: &[u8]) -> Option<SocketAddr> {
    let address: SocketAddr = std::str::from_utf8(text).ok()?.parse().ok()?;
    let ip = address.ip().to_canonical();
    let is_one = match ip {
        IpAddr::V4(ip) => !ip.is_broadcast(),
        // Which network is meant by the number of one is ours alone to know.
        IpAddr::V6(_) => !text.contains(&b'%'),
    };
    // To nowhere is, to the kernel, to this machine.
    let reachable = is_one && address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast();
    reachable.then_some(address)
}

/// One form for both families: what is the same place is the same endpoint.
fn canonical(address: SocketAddr) -> SocketAddr {
    match (address, address.ip().to_canonical()) {
        // The label of a flow is no part of where it goes.
        (SocketAddr::V6(address), IpAddr::V6(ip)) => {
            SocketAddr::V6(SocketAddrV6::new(ip, address.port(), 0, address.scope_id()))
        }
        (_, ip) => SocketAddr::new(ip, address.port()),
    }
}

/// Where the process itself listens: who is sent there comes back, again and again.
#[derive(Debug, Default)]
pub(super) struct Own(ArcSwap<Vec<SocketAddr>>);

impl Own {
    /// It listens there, and nowhere else. Whether that is news.
    pub(super) fn set(&self, mut all: Vec<SocketAddr>) -> bool {
        all.sort_unstable();
        all.dedup();
        let is_new = **self.0.load() != all;
        if is_new {
            self.0.store(Arc::new(all));
        }
        is_new
    }

    /// Where it listens now.
    fn all(&self) -> Arc<Vec<SocketAddr>> {
        self.0.load_full()
    }
}

/// Whether a connection to this address would come to the process, which listens there.
fn comes_back(
    own: &[SocketAddr],
    address: SocketAddr,
    is_local: impl Fn(SocketAddr) -> io::Result<bool>,
) -> io::Result<bool> {
    let mut is_perhaps = false;
    for own in own.iter().filter(|own| own.port() == address.port()) {
        let ip = own.ip().to_canonical();
        if ip == address.ip() {
            return Ok(true);
        }
        is_perhaps |= ip.is_unspecified() && (own.is_ipv6() || address.is_ipv4());
    }
    Ok(is_perhaps && is_local(address)?)
}

/// What the clusters of a process have in common.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) next_endpoint: AtomicU64,
    pub(super) own: Own,
}

impl Default for Common {
    fn default() -> Self {
        Self { next_endpoint: AtomicU64::new(1), own: Own::default() }
    }
}

impl Common {
    /// What tells an endpoint from all others.
    pub(super) fn next_endpoint(&self) -> u64 {
        self.next_endpoint.fetch_add(1, Relaxed)
    }
}

/// The endpoints of a cluster that were named.
#[derive(Debug, Default)]
pub(super) struct Originals {
    by_address: ArcSwap<HashMap<SocketAddr, Arc<Known>>>,
    /// The same, for those who look at all of them.
    set: ArcSwap<EndpointSet>,
    /// They are known from one request to the next; changes with the cluster's lock held.
    are_kept: AtomicBool,
    /// They are what the cluster's endpoints are.
    are_in_force: AtomicBool,
    /// It has been said that somebody came whom the kernel had not redirected, or was to be sent back.
    warned: AtomicBool,
}

/// An endpoint, and when it was last seen in use.
#[derive(Debug)]
struct Known {
    endpoint: Arc<Endpoint>,
    /// Requests that it had had when it was last looked.
    requests: AtomicU64,
    /// In nanoseconds.
    used: AtomicU64,
}

impl Known {
    /// Whether nothing was sent there for so long.
    fn is_unused(&self, now: Duration, cleanup: Duration) -> bool {
        let requests = self.endpoint.requests();
        if self.requests.swap(requests, Relaxed) != requests || self.endpoint.active() > 0 {
            self.used.store(now.as_nanos() as u64, Relaxed);
        }
        now.saturating_sub(Duration::from_nanos(self.used.load(Relaxed))) >= cleanup
    }
}

impl Originals {
    /// All of them.
    pub(super) fn set(&self) -> arc_swap::Guard<Arc<EndpointSet>> {
        self.set.load()
    }

    /// Whether requests name endpoints under the configuration in force.
    pub(super) fn are_in_force(&self) -> bool {
        self.are_in_force.load(Relaxed)
    }

    /// A configuration is about to come into force; with the lock held under which sets are made.
    pub(super) fn configure(&self, config: &model::Cluster, is_set_changed: bool) {
        // Where names end, they go on until it is in force.
        if is_original(config) {
            self.are_kept.store(true, Relaxed);
        }
        if is_set_changed && !self.by_address.load().is_empty() {
            self.make_set(config.into());
        }
    }

    fn make_set(&self, settings: Settings<'_>) {
        let known = self.by_address.load();
        let mut endpoints: Vec<_> = known.values().map(|known| known.endpoint.clone()).collect();
        endpoints.sort_unstable_by_key(|endpoint| endpoint.id());
        self.set.store(Arc::new(EndpointSet::new(endpoints, settings)));
    }

    /// None of them is known any longer.
    fn end(&self) {
        self.are_kept.store(false, Relaxed);
        self.are_in_force.store(false, Relaxed);
        for known in self.by_address.swap(Arc::default()).values() {
            known.endpoint.retire();
        }
        self.set.store(Arc::default());
    }
}

impl Cluster {
    /// The endpoint at this address, made now if there is none. Whoever was led here under a configuration that is no longer
    /// in force gets one that lasts as long as its request.
    ///
    /// # Errors
    /// [`UpstreamError::OwnAddress`], or [`UpstreamError::TooManyEndpoints`]; [`UpstreamError::ConnectFailed`] where the system
    /// has no descriptor left to say whether the address is its own, and so none for a connection.
    pub(super) fn endpoint_at(
        &self,
        original: &Original,
        address: SocketAddr,
        now: Duration,
    ) -> Result<Arc<Endpoint>, UpstreamError> {
        match self.originals.by_address.load().get(&address) {
            Some(known) => Ok(known.endpoint.clone()),
            None => self.make_endpoint(original, address, now),
        }
    }

    #[cold]
    fn make_endpoint(
        &self,
        original: &Original,
        address: SocketAddr,
        now: Duration,
    ) -> Result<Arc<Endpoint>, UpstreamError> {
        let refuse_own = |own: &[SocketAddr]| match comes_back(own, address, is_local) {
            Ok(false) => Ok(()),
            Ok(true) => Err(UpstreamError::OwnAddress),
            Err(_) => Err(UpstreamError::ConnectFailed),
        };
        // Without the lock, as the system may be asked.
        let own = self.common.own.all();
        refuse_own(&own)?;
        let config = guard(&self.config);
        let own_now = self.common.own.all();
        if !Arc::ptr_eq(&own, &own_now) {
            refuse_own(&own_now)?;
        }
        let known = self.originals.by_address.load_full();
        if let Some(known) = known.get(&address) {
            return Ok(known.endpoint.clone());
        }
        let endpoint = || {
            let endpoint = Arc::new(Endpoint::new(self.common.next_endpoint(), Address::Ip(address), 1));
            endpoint.set_since(now);
            endpoint
        };
        if !self.originals.are_kept.load(Relaxed) {
            let endpoint = endpoint();
            endpoint.retire();
            return Ok(endpoint);
        }
        let most = original.max_endpoints;
        if known.len() >= usize::try_from(most.get()).unwrap_or(usize::MAX) {
            return Err(UpstreamError::TooManyEndpoints(most));
        }
        let endpoint = endpoint();
        let used = (now.as_nanos() as u64).into();
        let new = Known { endpoint: endpoint.clone(), requests: 0.into(), used };
        let mut all = HashMap::clone(&known);
        all.insert(address, Arc::new(new));
        self.originals.by_address.store(Arc::new(all));
        self.originals.make_set(settings_of(config.as_ref()));
        Ok(endpoint)
    }

    /// Forgets endpoints that were named and are no longer used, or have become addresses of ours. Whether there were any.
    pub(super) fn forget_unused(&self, now: Duration) -> bool {
        let config = guard(&self.config);
        let Some(Source::Original(original)) = config.as_deref().map(|config| &config.source) else {
            return false;
        };
        let known = self.originals.by_address.load_full();
        // Each is looked at, or those behind the first one would look unused for longer than they are.
        let unused = known.iter().filter(|(_, known)| known.is_unused(now, original.cleanup));
        let gone: Vec<SocketAddr> = unused.map(|(address, _)| *address).collect();
        self.forget(config.as_ref(), &gone);
        !gone.is_empty()
    }

    /// Forgets endpoints at which the process listens from now on.
    pub(super) fn forget_own(&self) {
        // Who is about to make one, and knew of fewer addresses, has made it once the lock is free.
        drop(guard(&self.config));
        let known = self.originals.by_address.load_full();
        let own = self.common.own.all();
        // The system is asked, and nobody waits for a lock meanwhile. Where it cannot say, whoever goes there next asks again.
        let is_own = |address: SocketAddr| comes_back(&own, address, is_local).unwrap_or(true);
        let own: Vec<SocketAddr> = known.keys().copied().filter(|address| is_own(*address)).collect();
        self.forget(guard(&self.config).as_ref(), &own);
    }

    /// With the lock held under which sets are made.
    fn forget(&self, config: Option<&Arc<model::Cluster>>, gone: &[SocketAddr]) {
        if gone.is_empty() {
            return;
        }
        let mut all = HashMap::clone(&self.originals.by_address.load());
        for address in gone {
            if let Some(known) = all.remove(address) {
                known.endpoint.retire();
            }
        }
        self.originals.by_address.store(Arc::new(all));
        self.originals.make_set(settings_of(config));
    }

    /// See [`Clusters::settle`](super::Clusters::settle).
    pub(super) fn settle(&self) {
        let config = guard(&self.config);
        if !config.as_deref().is_some_and(is_original) {
            return self.originals.end();
        }
        self.originals.are_in_force.store(true, Relaxed);
        // A request that is yet to choose finds them: it lives under one configuration from its start to its end.
        self.endpoints.load().endpoints().iter().for_each(|endpoint| endpoint.retire());
    }

    /// The cluster is gone, and so is whoever was named.
    pub(super) fn end_names(&self) {
        let _config = guard(&self.config);
        self.originals.end();
    }

    /// A request was not sent, for this reason. Once it is said aloud: it is a rule of the firewall that is wrong, or
    /// somebody who tries.
    pub(super) fn note_unnamed(&self, error: UpstreamError, redirected: Option<SocketAddr>) {
        if let UpstreamError::TooManyEndpoints(_) = error {
            self.stats().overflow("max_endpoints");
        }
        let is_loop = matches!(error, UpstreamError::NoOriginalDestination | UpstreamError::OwnAddress);
        if is_loop && !self.originals.warned.swap(true, Relaxed) {
            let cluster = self.name();
            tracing::warn!(%cluster, ?redirected, "{error}; this is said once, and counted each time");
        }
    }
}

fn is_original(config: &model::Cluster) -> bool {
    match &config.source {
        Source::Original(_) => true,
        Source::Static | Source::Dns { .. } => false,
    }
}

fn settings_of(config: Option<&Arc<model::Cluster>>) -> Settings<'_> {
    config.map(|config| Settings::from(&**config)).unwrap_or_default()
}

#[cfg(test)]
#[path = "original_tests.rs"]
mod tests;
