//! Several chains of one listener, and which connections each of them takes.
//!
//! What is compared, and in which order, is as with Envoy: of all chains those are left that name the connection's
//! destination port, or, where none does, those that name none; of these, those that name the narrowest network of its
//! destination; and so on, in the order of the fields of [`ChainMatch`]. There is no way back: a chain that was left out by
//! one of them takes nothing, even where all others are left out by a later one.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU16;

use ipnet::IpNet;

use super::{DownstreamTls, FilterChain, HostPattern, Mutual};

/// What happens to the connections of a listener. There is at least one chain, and no connection that two would take.
#[derive(Clone, Debug, PartialEq)]
pub struct Chains {
    /// Never one alone that takes everything: that is `rest`.
    some: Vec<(ChainMatch, FilterChain)>,
    rest: Option<Box<FilterChain>>,
}

/// Which connections a chain takes: those of which all of it holds. Where nothing is said, all do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChainMatch {
    /// The port that it came to.
    pub port: Option<NonZeroU16>,
    /// The address that it came to is in one of them; the narrowest counts.
    pub destinations: BTreeSet<IpNet>,
    /// The host that TLS names (SNI) is one of them; the narrowest counts.
    pub hosts: BTreeSet<HostPattern>,
    /// Whether it begins with TLS.
    pub transport: Option<Transport>,
    /// TLS offers one of them (ALPN); what the client names first counts.
    pub protocols: BTreeSet<Box<str>>,
    /// The address at its other end is in one of them; the narrowest counts. It is the one that it comes from, as nobody in
    /// between is believed about that when a chain is chosen.
    pub direct_sources: BTreeSet<IpNet>,
    /// Where it comes from.
    pub origin: Option<Origin>,
    /// The address that it comes from is in one of them; the narrowest counts.
    pub sources: BTreeSet<IpNet>,
    /// The port that it comes from is one of them.
    pub source_ports: BTreeSet<NonZeroU16>,
}

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// The ClientHello of TLS.
    Tls,
    /// Anything else.
    Clear,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// This machine: 127.0.0.1, ::1, a unix socket, or the address that it came to.
    Local,
    /// Another.
    External,
}

impl ChainMatch {
    /// Whether it takes every connection.
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it asks for what only the first bytes tell.
    pub fn looks_into_tls(&self) -> bool {
        let Self {
            port: _,
            destinations: _,
            hosts,
            transport,
            protocols,
            direct_sources: _,
            origin: _,
            sources: _,
            source_ports: _,
        } = self;
        !hosts.is_empty() || transport.is_some() || !protocols.is_empty()
    }

    /// Whether there is a connection that fits both equally well.
    fn is_like(&self, other: &Self) -> bool {
        fn meet<T: Ord>(one: &BTreeSet<T>, other: &BTreeSet<T>) -> bool {
            one.is_empty() && other.is_empty() || !one.is_disjoint(other)
        }
        let Self {
            port,
            destinations,
            hosts,
            transport,
            protocols,
            direct_sources,
            origin,
            sources,
            source_ports,
        } = self;
        (port, transport, origin) == (&other.port, &other.transport, &other.origin)
            && meet(destinations, &other.destinations)
            && meet(hosts, &other.hosts)
            && meet(protocols, &other.protocols)
            && meet(direct_sources, &other.direct_sources)
            && meet(sources, &other.sources)
            && meet(source_ports, &other.source_ports)
    }
}

/// Why chains cannot stand together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainsError {
    /// There are none.
    None,
    /// There are connections that both of these would take.
    Alike(usize, usize),
    /// This one, beside others, goes without TLS as well as with it.
    Permissive(usize),
}

impl fmt::Display for ChainsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("there is no chain: nothing could be done with a connection"),
            Self::Alike(one, other) => {
                write!(f, "there are connections that the chains {one} and {other} fit equally well")
            }
            Self::Permissive(place) => {
                write!(f, "beside others, a chain with TLS and in the clear ({place}) is to be two chains")
            }
        }
    }
}

impl std::error::Error for ChainsError {}

impl From<FilterChain> for Chains {
    fn from(only: FilterChain) -> Self {
        Self { some: Vec::new(), rest: Some(only.into()) }
    }
}

impl Chains {
    /// Chains for some connections, and one for the rest, without which they are closed.
    ///
    /// # Errors
    /// Why they cannot stand together.
    pub fn new(
        mut some: Vec<(ChainMatch, FilterChain)>,
        rest: Option<FilterChain>,
    ) -> Result<Self, ChainsError> {
        if some.is_empty() && rest.is_none() {
            return Err(ChainsError::None);
        }
        for (place, (one, _)) in some.iter().enumerate() {
            let mut before = some[..place].iter();
            if let Some(other) = before.position(|(other, _)| one.is_like(other)) {
                return Err(ChainsError::Alike(other, place));
            }
        }
        if rest.is_none() && some.len() == 1 && some[0].0.is_any() {
            return Ok(Self { rest: some.pop().map(|(_, only)| only.into()), some });
        }
        let made = Self { some, rest: rest.map(Box::new) };
        let is_permissive =
            |chain: &FilterChain| chain.tls == Some(DownstreamTls::Mutual(Mutual::Permissive));
        let permissive = made.each().position(is_permissive).filter(|_| made.only().is_none());
        match permissive {
            Some(place) => Err(ChainsError::Permissive(place)),
            None => Ok(made),
        }
    }

    /// The one that takes every connection, if it is alone.
    pub fn only(&self) -> Option<&FilterChain> {
        self.rest.as_deref().filter(|_| self.some.is_empty())
    }

    /// Those for some connections, in written order.
    pub fn some(&self) -> &[(ChainMatch, FilterChain)] {
        &self.some
    }

    /// The one for the rest.
    pub fn rest(&self) -> Option<&FilterChain> {
        self.rest.as_deref()
    }

    /// All of them, that for the rest last.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&ChainMatch>, &FilterChain)> {
        let some = self.some.iter().map(|(matches, chain)| (Some(matches), chain));
        some.chain(self.rest.as_deref().map(|rest| (None, rest)))
    }

    /// The same, each with the place that it has below its listener: none where it is alone.
    pub fn places(&self) -> impl Iterator<Item = (String, Option<&ChainMatch>, &FilterChain)> {
        let alone = self.only().is_some();
        self.iter().enumerate().map(move |(place, (matches, chain))| {
            let place = match matches {
                Some(_) => format!(".chains[{place}]"),
                None if alone => String::new(),
                None => ".rest".to_owned(),
            };
            (place, matches, chain)
        })
    }

    /// All of them, what they are told apart by left out.
    pub fn each(&self) -> impl Iterator<Item = &FilterChain> {
        self.iter().map(|(_, chain)| chain)
    }

    /// The same, to be changed.
    pub fn each_mut(&mut self) -> impl Iterator<Item = &mut FilterChain> {
        self.some.iter_mut().map(|(_, chain)| chain).chain(self.rest.as_deref_mut())
    }
}
