//! Which chain of a listener takes a connection, by what is known of it when it begins.
//!
//! A step for each thing that is compared, in the order that [`ChainMatch`] has them in: what is looked for are the values
//! of the connection, the narrowest first, among those that chains name which are left. What has been found is not left
//! again, as with Envoy.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use ipnet::IpNet;
use outrigger_proto::model::{ChainMatch, HostPattern, Origin, Transport};

use crate::facts::Arrival;

/// Chains by one of the things that they are told apart by.
#[derive(Debug)]
struct Step<K, N> {
    some: HashMap<K, N>,
    /// Those that say nothing of it.
    any: Option<Box<N>>,
}

impl<K, N> Default for Step<K, N> {
    fn default() -> Self {
        Self { some: HashMap::new(), any: None }
    }
}

impl<K: Eq + Hash, N: Default> Step<K, N> {
    /// The way to a chain which names these.
    fn lead(&mut self, keys: impl IntoIterator<Item = K>, mut on: impl FnMut(&mut N)) {
        let mut keys = keys.into_iter().peekable();
        if keys.peek().is_none() {
            return on(self.any.get_or_insert_default());
        }
        keys.for_each(|key| on(self.some.entry(key).or_default()));
    }

    /// The way of a connection of which all of these hold, the narrowest first.
    fn find<'q, Q>(&self, keys: impl IntoIterator<Item = &'q Q>) -> Option<&N>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized + 'q,
    {
        let found =
            if self.some.is_empty() { None } else { keys.into_iter().find_map(|key| self.some.get(key)) };
        found.or(self.any.as_deref())
    }
}

impl<N: Default> Step<IpNet, N> {
    fn find_network(&self, of: Option<IpAddr>) -> Option<&N> {
        let of = of.filter(|_| !self.some.is_empty());
        let mut networks = of.into_iter().flat_map(|of| {
            let most = match of {
                IpAddr::V4(_) => 32,
                IpAddr::V6(_) => 128_u8,
            };
            (0..=most).rev().filter_map(move |length| Some(IpNet::new(of, length).ok()?.trunc()))
        });
        networks.find_map(|network| self.some.get(&network)).or(self.any.as_deref())
    }
}

type SourcePorts = Step<u16, Option<usize>>;
type Sources = Step<IpNet, SourcePorts>;
type Origins = Step<Origin, Sources>;
type DirectSources = Step<IpNet, Origins>;
type Protocols = Step<Box<[u8]>, DirectSources>;
type Transports = Step<Transport, Protocols>;
type Hosts = Step<Box<str>, Transports>;
type Destinations = Step<IpNet, Hosts>;
type Ports = Step<u16, Destinations>;

/// See the module.
#[derive(Debug, Default)]
pub struct ChainIndex {
    first: Ports,
    looks_into_tls: bool,
}

impl ChainIndex {
    /// Of these chains, no two of which take the same connection.
    pub fn new<'m>(all: impl IntoIterator<Item = &'m ChainMatch>) -> Self {
        let mut index = Self::default();
        for (place, matches) in all.into_iter().enumerate() {
            index.looks_into_tls |= matches.looks_into_tls();
            index.add(matches, place);
        }
        index
    }

    fn add(&mut self, matches: &ChainMatch, place: usize) {
        let ChainMatch {
            port,
            destinations,
            hosts,
            transport,
            protocols,
            direct_sources,
            origin,
            sources,
            source_ports,
        } = matches;
        let networks = |all: &BTreeSet<IpNet>| all.iter().map(IpNet::trunc).collect::<Vec<_>>();
        let [destinations, direct, sources] = [destinations, direct_sources, sources].map(networks);
        // As they are looked for: what begins with a dot is all below it.
        let host = |host: &HostPattern| match host {
            HostPattern::Exact(name) | HostPattern::Suffix(name) => name.clone(),
        };
        let ends = |step: &mut Origins| {
            step.lead(*origin, |step| {
                step.lead(sources.iter().copied(), |step| {
                    step.lead(source_ports.iter().copied().map(u16::from), |found| *found = Some(place));
                });
            });
        };
        self.first.lead(port.map(u16::from), |step| {
            step.lead(destinations.iter().copied(), |step| {
                step.lead(hosts.iter().map(host), |step| {
                    step.lead(*transport, |step| {
                        step.lead(protocols.iter().map(|name| name.as_bytes().into()), |step| {
                            step.lead(direct.iter().copied(), ends);
                        });
                    });
                });
            });
        });
    }

    /// Whether what a connection begins with is looked for.
    pub fn looks_into_tls(&self) -> bool {
        self.looks_into_tls
    }

    /// The place of the chain that takes a connection.
    pub fn find(&self, arrival: &Arrival) -> Option<usize> {
        let Arrival { to, from, hello } = arrival;
        let host = hello.as_ref().and_then(|hello| hello.host.as_deref());
        let protocols = hello.iter().flat_map(|hello| &hello.protocols).map(|protocol| &**protocol);
        let step = self.first.find(to.map(|to| to.port()).as_ref())?;
        let step = step.find_network(arrival.destination())?;
        let step = step.find(host.into_iter().flat_map(names))?;
        let step = step.find([&arrival.transport()])?;
        let step = step.find(protocols)?;
        let step = step.find_network(arrival.source())?;
        let step = step.find([&arrival.origin()])?;
        let step = step.find_network(arrival.source())?;
        *step.find(from.map(|from| from.port()).as_ref())?
    }
}

/// The host, and then what it is below: `a.b.c`, `.b.c`, `.c`.
fn names(host: &str) -> impl Iterator<Item = &str> {
    let below =
        host.char_indices().filter(|(place, c)| *c == '.' && *place > 0).map(|(place, _)| &host[place..]);
    std::iter::once(host).chain(below)
}

#[cfg(test)]
#[path = "chains_tests.rs"]
mod tests;
