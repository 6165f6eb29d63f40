//! Endpoints that are named by who comes: by where a connection was going before the kernel redirected it, or by a request.
//!
//! They are made when they are first named and forgotten when they are no longer used, and are endpoints as any other while
//! they are known. What is named by a stranger is bounded, and never leads back to the process itself.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{AcqRel, Relaxed, Release},
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderMap;
use outrigger_proto::model::{self, Address, Original, Source};

use super::balance::{EndpointSet, Settings};
use super::cluster::{Cluster, guard};
use super::endpoint::Endpoint;
use super::error::UpstreamError;
use super::known::KnownEndpoints;
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
    /// Where the process answers its operator.
    pub(super) admin: ArcSwapOption<Address>,
}

impl Default for Common {
    fn default() -> Self {
        let admin = ArcSwapOption::empty();
        Self { next_endpoint: AtomicU64::new(1), own: Own::default(), admin }
    }
}

impl Common {
    /// What tells an endpoint from all others.
    pub(super) fn next_endpoint(&self) -> u64 {
        self.next_endpoint.fetch_add(1, Relaxed)
    }

    /// Whether a connection to this address would come to the admin interface. Where the system cannot say, it would.
    pub(super) fn leads_to_admin(&self, address: &Address) -> bool {
        match (self.admin.load().as_deref(), address) {
            (Some(Address::Ip(admin)), Address::Ip(address)) => {
                comes_back(&[*admin], canonical(*address), is_local).unwrap_or(true)
            }
            (Some(Address::Unix(admin)), Address::Unix(path)) => admin == path,
            (Some(_) | None, _) => false,
        }
    }
}

/// The endpoints of a cluster that were named.
#[derive(Debug, Default)]
pub(super) struct Originals {
    known: KnownEndpoints,
    /// The same, for those who look at all of them.
    set: ArcSwap<EndpointSet>,
    /// The set is behind.
    is_behind: AtomicBool,
    /// Held while the set is made, and nothing else is taken meanwhile.
    making: Mutex<()>,
    /// They are known from one request to the next; changes with the cluster's lock held.
    are_kept: AtomicBool,
    /// They are what the cluster's endpoints are.
    are_in_force: AtomicBool,
    /// It has been said that somebody came whom the kernel had not redirected, or was to be sent back.
    warned: AtomicBool,
}

impl Originals {
    /// All of them. Made when somebody looks, as it costs by how many there are, and whoever names one more has no use for it.
    pub(super) fn set(&self) -> arc_swap::Guard<Arc<EndpointSet>> {
        if self.is_behind.load(Relaxed) {
            let _making = guard(&self.making);
            // First: whoever comes later makes it be behind once more.
            if self.is_behind.swap(false, AcqRel) {
                let endpoints = self.known.all().iter().map(|known| known.endpoint.clone()).collect();
                // There is nothing to choose, and so nothing that says how.
                self.set.store(Arc::new(EndpointSet::new(endpoints, Settings::default())));
            }
        }
        self.set.load()
    }

    /// Whether requests name endpoints under the configuration in force.
    pub(super) fn are_in_force(&self) -> bool {
        self.are_in_force.load(Relaxed)
    }

    /// A configuration is about to come into force; with the cluster's lock held.
    pub(super) fn configure(&self, config: &model::Cluster) {
        // Where names end, they go on until it is in force.
        if is_original(config) {
            self.are_kept.store(true, Relaxed);
        }
    }

    /// These are known no longer; with the cluster's lock held.
    fn forget(&self, gone: &[SocketAddr]) {
        if !gone.is_empty() {
            self.known.forget(gone);
            self.is_behind.store(true, Release);
        }
    }

    /// None of them is known any longer; with the cluster's lock held.
    fn end(&self) {
        self.are_kept.store(false, Relaxed);
        self.are_in_force.store(false, Relaxed);
        self.forget(&self.known.all().iter().map(|known| known.address).collect::<Vec<_>>());
        // Or it would keep them.
        drop(self.set());
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
        match self.originals.known.get(&address) {
            Some(endpoint) => Ok(endpoint),
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
        let _config = guard(&self.config);
        let own_now = self.common.own.all();
        if !Arc::ptr_eq(&own, &own_now) {
            refuse_own(&own_now)?;
        }
        let originals = &self.originals;
        if let Some(endpoint) = originals.known.get(&address) {
            return Ok(endpoint);
        }
        let endpoint = || {
            let endpoint = Arc::new(Endpoint::new(self.common.next_endpoint(), Address::Ip(address), 1));
            endpoint.set_since(now);
            endpoint
        };
        if !originals.are_kept.load(Relaxed) {
            let endpoint = endpoint();
            endpoint.retire();
            return Ok(endpoint);
        }
        let most = original.max_endpoints;
        if originals.known.len() >= usize::try_from(most.get()).unwrap_or(usize::MAX) {
            return Err(UpstreamError::TooManyEndpoints(most));
        }
        let endpoint = endpoint();
        originals.known.add(address, endpoint.clone(), now);
        originals.is_behind.store(true, Release);
        Ok(endpoint)
    }

    /// Forgets endpoints that were named and are no longer used, or have become addresses of ours. Whether there were any.
    pub(super) fn forget_unused(&self, now: Duration) -> bool {
        let config = guard(&self.config).clone();
        let Some(Source::Original(original)) = config.as_deref().map(|config| &config.source) else {
            return false;
        };
        let known = self.originals.known.all();
        // Each is looked at, or those behind the first one would look unused for longer than they are.
        let unused = known.iter().filter(|known| known.is_unused(now, original.cleanup));
        let gone: Vec<SocketAddr> = unused.map(|known| known.address).collect();
        self.forget(&gone);
        !gone.is_empty()
    }

    /// Forgets endpoints at which the process listens from now on.
    pub(super) fn forget_own(&self) {
        // Who is about to make one, and knew of fewer addresses, has made it once the lock is free.
        drop(guard(&self.config));
        let known = self.originals.known.all();
        let own = self.common.own.all();
        // The system is asked, and nobody waits for a lock meanwhile. Where it cannot say, whoever goes there next asks again.
        let is_own = |address: SocketAddr| comes_back(&own, address, is_local).unwrap_or(true);
        let own: Vec<SocketAddr> =
            known.iter().map(|known| known.address).filter(|address| is_own(*address)).collect();
        self.forget(&own);
    }

    fn forget(&self, gone: &[SocketAddr]) {
        let _config = guard(&self.config);
        self.originals.forget(gone);
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

#[cfg(test)]
#[path = "original_tests.rs"]
mod tests;
