//! What resumes sessions of both sides, bound to whom is believed: a resumed handshake checks no certificate, so a change
//! of roots or revocation lists, or of our own certificate, makes worthless what was handed out before.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use rustls::server::ProducesTickets;
use rustls::ticketer::TicketRotator;

use super::Identity;
use super::verify::GRACE;

/// How long a key for tickets is used to make them; it is good for as long again to read them.
const ROTATION: Duration = Duration::from_secs(GRACE.as_secs() / 2);

/// Sessions with this many servers are kept.
const SERVERS: usize = 1024;

/// Tickets for clients.
pub struct Tickets {
    identity: Arc<Identity>,
    /// Those of a version of what is believed. None before the first handshake: their key takes random numbers, which the library
    /// is some 40 ms about to begin with, and most processes start without a word of TLS.
    current: ArcSwapOption<(u64, Option<TicketRotator>)>,
}

impl Tickets {
    /// Tickets that this identity's trust is behind.
    pub fn new(identity: Arc<Identity>) -> Self {
        Self { identity, current: ArcSwapOption::empty() }
    }

    fn with<T>(&self, read: impl FnOnce(&TicketRotator) -> Option<T>) -> Option<T> {
        let version = self.identity.trust_version();
        if let Some(current) = &*self.current.load()
            && current.0 == version
        {
            return current.1.as_ref().and_then(read);
        }
        // Whoever comes second throws its own away: a ticket more or less.
        let new = Arc::new((version, rotator()));
        self.current.store(Some(new.clone()));
        new.1.as_ref().and_then(read)
    }
}

fn rotator() -> Option<TicketRotator> {
    let seconds = u32::try_from(ROTATION.as_secs()).expect("minutes");
    TicketRotator::new(seconds, || match rustls::crypto::aws_lc_rs::Ticketer::new() {
        Ok(ticketer) => Ok(Box::new(Boxed(ticketer))),
        Err(_) => Err(rustls::crypto::GetRandomFailed),
    })
    .ok()
}

#[derive(Debug)]
struct Boxed(Arc<dyn ProducesTickets>);

impl ProducesTickets for Boxed {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(cipher)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(ROTATION.as_secs()).expect("minutes")
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.with(|tickets| tickets.encrypt(plain))
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.with(|tickets| tickets.decrypt(cipher))
    }
}

/// Sessions with servers.
pub struct Sessions {
    identity: Arc<Identity>,
    /// Those of a version of our own material: what was begun as somebody else is not resumed.
    current: ArcSwap<(u64, ClientSessionMemoryCache)>,
}

impl Sessions {
    /// Sessions that this identity has begun.
    pub fn new(identity: Arc<Identity>) -> Self {
        let current = ArcSwap::from_pointee((identity.version(), ClientSessionMemoryCache::new(SERVERS)));
        Self { identity, current }
    }

    fn current(&self) -> Arc<(u64, ClientSessionMemoryCache)> {
        let version = self.identity.version();
        let current = self.current.load_full();
        if current.0 == version {
            return current;
        }
        let new = Arc::new((version, ClientSessionMemoryCache::new(SERVERS)));
        self.current.store(new.clone());
        new
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.current().1.set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.current().1.kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.current().1.set_tls12_session(server_name, value);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.current().1.tls12_session(server_name)
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.current().1.remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.current().1.insert_tls13_ticket(server_name, value);
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.current().1.take_tls13_ticket(server_name)
    }
}
