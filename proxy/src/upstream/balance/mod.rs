//! Which endpoint takes a request. Pure: the set, the time and random numbers in, an endpoint out.
//!
//! A set is made anew whenever endpoints, weights or settings change, and shared by all workers: past its making there
//! are relaxed atomics alone, no lock, and a pick allocates nothing. Two things are kept apart:
//! - *Whether an endpoint may take a request* is asked of the endpoint itself, for each that is drawn, and is exact.
//! - *How the levels share the requests* rests on counts that [`EndpointSet::refresh`] takes now and then. It is a
//!   hint: when a level turns out to have nobody, the others are asked.
//!
//! Endpoints of one level share its load by weight, wherever they stand. Where zones are weighed (`zone_weights`), the
//! level's load is first divided among them, and each is drawn from by itself; where keys are hashed, the weights of
//! their endpoints are multiplied instead.

mod draw;
mod failover;
mod group;
mod hash;
mod maglev;
mod ring;
mod set;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod weights;
mod zone;

pub use self::hash::{cookie_value, hash_of};
pub use self::set::{EndpointSet, LevelHealth, PickFacts, Settings, ZoneHealth};
pub use self::zone::ZoneWeights;
