//! The listeners that are on trial, in the form in which they would decide: rules, indexed routes, chains.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use outrigger_proto::error::ConfigError;
use outrigger_proto::model::{ChainMatch, Filter, FilterChain, JwtIssuer, Listener, Name, RouteTable, Split};

use super::fates::asks_of;
use crate::facts::Arrival;
use crate::policy::authz::Rules;
use crate::routing::{ChainIndex, RouteIndex};

/// What is on trial.
#[derive(Debug)]
pub struct Trial {
    /// No two have the same.
    pub number: u64,
    /// By name.
    listeners: Box<[Beside]>,
}

/// A listener as it would be.
#[derive(Debug)]
pub struct Beside {
    name: Name,
    chains: Box<[Chain]>,
    /// The places of those that are for some connections.
    some: HashMap<ChainMatch, usize>,
    /// That of the one for the rest.
    rest: Option<usize>,
    index: ChainIndex,
    looks_at_protocols: bool,
}

/// A chain of a listener as it would be.
#[derive(Debug)]
pub struct Chain {
    /// Who may do what.
    pub rules: Option<Rules>,
    /// What is done with its connections.
    pub(super) way: Way,
}

/// What is done with connections.
#[derive(Debug)]
pub(super) enum Way {
    /// They are read.
    Http(Http),
    /// They are passed on.
    Bytes(Split),
}

/// How requests are routed.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) routes: Arc<(Arc<RouteTable>, RouteIndex)>,
    pub(super) issuers: Box<[JwtIssuer]>,
    pub(super) asks: Option<Name>,
}

/// Which chain of the trial takes a connection that one in force has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// This one.
    Chain(usize),
    /// None.
    Nowhere,
    /// It would take what nobody has read.
    Unknown,
}

/// What is known of a connection.
#[derive(Debug)]
pub struct Beginning<'a> {
    /// Where it comes from and to, and what is known of its TLS.
    pub arrival: Arrival,
    /// Whether that is all there is, but for the protocols that TLS offers.
    pub is_read: bool,
    /// Which chain in force took it.
    pub taken_by: Option<&'a ChainMatch>,
}

impl Trial {
    /// Of these listeners.
    ///
    /// # Errors
    /// The route tables that are missing.
    pub fn new<'m>(
        number: u64,
        listeners: impl IntoIterator<Item = (&'m Name, &'m Listener)>,
        tables: &BTreeMap<Name, Arc<RouteTable>>,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut indexed = BTreeMap::new();
        let (mut made, mut errors) = (Vec::new(), Vec::new());
        for (name, listener) in listeners {
            let mut chains = Vec::new();
            for (place, matches, chain) in listener.chains.places() {
                match Chain::new(chain, |table| {
                    let index = |table: &Arc<RouteTable>| Arc::new((table.clone(), RouteIndex::new(table)));
                    let known = indexed.entry(table.clone());
                    known.or_insert_with(|| tables.get(table).map(index)).clone()
                }) {
                    Ok(chain) => chains.push((matches, chain)),
                    Err(table) => errors.push(ConfigError {
                        place: None,
                        path: format!("listeners.{name}{place}"),
                        problem: format!("the route table `{table}` is not there"),
                        hint: None,
                    }),
                }
            }
            made.push(Beside::new(name.clone(), chains));
        }
        made.sort_by(|one, other| one.name.cmp(&other.name));
        if errors.is_empty() { Ok(Self { number, listeners: made.into() }) } else { Err(errors) }
    }

    /// The place of the listener of this name.
    pub fn place(&self, name: &Name) -> Option<usize> {
        self.listeners.binary_search_by(|beside| beside.name.cmp(name)).ok()
    }

    /// The listener at a place.
    pub fn at(&self, place: usize) -> &Beside {
        &self.listeners[place]
    }

    /// The names of all, by place.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.listeners.iter().map(|beside| &beside.name)
    }
}

impl Beside {
    fn new(name: Name, chains: Vec<(Option<&ChainMatch>, Chain)>) -> Self {
        let some = || chains.iter().filter_map(|(matches, _)| *matches);
        let places = chains.iter().enumerate();
        let places = places.filter_map(|(place, (matches, _))| Some(((*matches)?.clone(), place)));
        Self {
            name,
            index: ChainIndex::new(some()),
            looks_at_protocols: some().any(|matches| !matches.protocols.is_empty()),
            some: places.collect(),
            rest: chains.iter().position(|(matches, _)| matches.is_none()),
            chains: chains.into_iter().map(|(_, chain)| chain).collect(),
        }
    }

    /// A chain.
    pub fn chain(&self, place: usize) -> &Chain {
        &self.chains[place]
    }

    fn like(&self, matches: Option<&ChainMatch>) -> Option<usize> {
        matches.map_or(self.rest, |matches| self.some.get(matches).copied())
    }

    /// Whether its connections are told apart as by all these chains.
    pub fn is_told_apart_as<'m>(&self, in_force: impl IntoIterator<Item = Option<&'m ChainMatch>>) -> bool {
        let mut shared = 0;
        let is_shared = |matches| {
            shared += 1;
            self.like(matches).is_some()
        };
        in_force.into_iter().all(is_shared) && shared == self.chains.len()
    }

    /// Which chain takes a connection, told from what those in force have had to know of it; whether that is all there is to
    /// know, `as_in_force` says.
    pub fn find(&self, beginning: &Beginning<'_>, as_in_force: bool) -> Placed {
        let Beginning { arrival, is_read, taken_by } = beginning;
        if as_in_force && let Some(place) = self.like(*taken_by) {
            return Placed::Chain(place);
        }
        let looks = self.index.looks_into_tls();
        if looks && (!is_read || (self.looks_at_protocols && arrival.hello.is_some())) {
            return Placed::Unknown;
        }
        self.index.find(arrival).or(self.rest).map_or(Placed::Nowhere, Placed::Chain)
    }
}

impl Chain {
    fn new(
        chain: &FilterChain,
        table: impl FnOnce(&Name) -> Option<Arc<(Arc<RouteTable>, RouteIndex)>>,
    ) -> Result<Self, Name> {
        let FilterChain { tls: _, authorization, limits: _, filter } = chain;
        let way = match filter {
            Filter::Http(http) => Way::Http(Http {
                routes: table(&http.routes).ok_or_else(|| http.routes.clone())?,
                issuers: http.jwt.clone(),
                asks: asks_of(http).cloned(),
            }),
            Filter::Tcp(tcp) => Way::Bytes(tcp.to.clone()),
        };
        Ok(Self { rules: authorization.as_ref().map(Rules::new), way })
    }
}
