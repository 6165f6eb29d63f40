//! Connections of ours to endpoints that were named, by both ends.
//!
//! A firewall that redirects what the proxy sends, too, brings them back: they were going to an endpoint, are sent there again,
//! and come back again, until nothing is left. Nothing else tells them from others.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the module. Shared by all workers; the lock is held for a look.
#[derive(Debug, Default)]
pub struct Dialled(Mutex<HashSet<Ends>>);

/// Ours, and the other.
type Ends = (SocketAddr, SocketAddr);

impl Dialled {
    /// Whether a connection from there, that was going there, is one of them.
    pub fn has(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.all().contains(&(one_form(from), one_form(to)))
    }

    /// One more of them, for as long as it is open.
    pub(super) fn add(self: &Arc<Self>, from: SocketAddr, to: SocketAddr) -> Ours {
        let ends = (one_form(from), one_form(to));
        self.all().insert(ends);
        Ours { among: self.clone(), ends }
    }

    fn all(&self) -> MutexGuard<'_, HashSet<Ends>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Labels and scopes are not the same at both ends.
fn one_form(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A connection of ours.
#[derive(Debug)]
pub(super) struct Ours {
    among: Arc<Dialled>,
    ends: Ends,
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.among.all().remove(&self.ends);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_known_from_its_other_end() {
        let dialled = Arc::new(Dialled::default());
        let at = |address: &str| address.parse().unwrap();
        let four = dialled.add(at("192.0.2.1:1"), at("192.0.2.2:80"));
        // From one port to two places.
        let more = dialled.add(at("192.0.2.1:1"), at("192.0.2.3:80"));
        let six = dialled.add(at("[fe80::1%1]:2"), at("[fe80::2%1]:80"));
        let seen = || {
            [
                ("[::ffff:192.0.2.1]:1", "192.0.2.2:80"),
                ("192.0.2.1:1", "192.0.2.3:80"),
                ("192.0.2.1:1", "192.0.2.4:80"),
                ("[fe80::1%2]:2", "[fe80::2]:80"),
            ]
            .map(|(from, to)| dialled.has(at(from), at(to)))
        };
        assert_eq!(seen(), [true, true, false, true]);
        drop(four);
        assert_eq!(seen(), [false, true, false, true]);
        drop((more, six));
        assert_eq!(seen(), [false; 4]);
    }
}
