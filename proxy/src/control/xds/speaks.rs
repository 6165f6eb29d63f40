//! One of the two ways in which a control plane is spoken with, without its stream.
//! <https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol>

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use outrigger_proto::error::ConfigError;
use outrigger_proto::xds::discovery::{self, Any, Node, Status};
use outrigger_proto::xds::{self, Accepted, Kind, Refused, Resource};
use prost::Message;
use tokio::time::Instant;
use zeroize::Zeroize;

use super::reach;
use super::referred::Change;
use super::state::State;
use crate::identity::secrets;

/// INVALID_ARGUMENT.
const REFUSED: i32 = 3;
/// Bytes of what a control plane is told of what it has done wrong.
pub(super) const LONGEST: usize = 8 * 1024;

/// See the module. A resource that is refused holds back none of its neighbours; its last good version stays.
pub(super) trait Speaks {
    /// What we say.
    type Request: Message + Default + 'static;
    /// What it says.
    type Response: Message + Default + 'static;

    /// Where.
    const PATH: &'static str;

    /// What is asked at the beginning of a stream: with the versions that are in force, if there are any.
    fn begin(&mut self, node: &Node, state: &mut State) -> Vec<Self::Request>;

    /// What a request is about.
    fn kind(request: &Self::Request) -> Option<Kind>;

    /// Takes an answer; what is to be said to it, before what is asked because of it, and what of it is refused.
    fn take(
        &mut self,
        state: &mut State,
        response: Self::Response,
        now: Instant,
    ) -> (Vec<Self::Request>, Vec<Refused>);

    /// Makes of the answer to what was read a refusal: it could not come into force.
    fn refuse(&mut self, answer: &mut Self::Request, refused: &[Refused]);

    /// Asks for what clusters and listeners refer to by now, and for what they do no longer, no longer.
    fn subscribe(&mut self, state: &mut State) -> Vec<Self::Request>;
}

/// What refers to others comes before what is referred to.
pub(super) const REFERRING: [Kind; 6] =
    [Kind::Listener, Kind::Routes, Kind::Host, Kind::Cluster, Kind::Secret, Kind::Endpoints];

/// All kinds, first those of which all there are are asked for.
pub(super) fn in_order(state: &State) -> Vec<Kind> {
    let (whole, named): (Vec<_>, Vec<_>) = Kind::ALL.into_iter().partition(|kind| state.asks_for_all(*kind));
    [whole, named].concat()
}

/// What is to be asked for by name, from now on or no longer, of each kind of which anything is.
pub(super) fn changes(state: &mut State) -> BTreeMap<Kind, Change> {
    let named = REFERRING.into_iter().filter(|kind| !state.asks_for_all(*kind)).collect::<Vec<_>>();
    let changes = named.into_iter().map(|kind| (kind, state.change(kind)));
    changes.filter(|(_, change)| *change != Change::default()).collect()
}

/// What a resource means, if it can be used: the last good one stays where it cannot.
pub(super) fn read(kind: Kind, any: &Any, sockets: &[PathBuf]) -> Result<Accepted, Refused> {
    let accepted = xds::accept(kind, any)?;
    let Accepted { name, resource, ignored: _ } = &accepted;
    reach::check(kind, name, resource, sockets).map_err(|refused| *refused)?;
    let Resource::Secret(secret) = resource else { return Ok(accepted) };
    match secrets::check(name, secret) {
        Ok(()) => Ok(accepted),
        Err((field, problem)) => {
            let path = format!("{kind}[{name}].{field}");
            let errors = vec![ConfigError { place: None, path, problem, hint: None }];
            Err(Refused { name: Some(name.clone()), errors })
        }
    }
}

/// Wipes what has been read, where it was a secret.
pub(super) fn wipe(kind: Kind, any: &mut Any) {
    match kind {
        Kind::Secret => any.value.zeroize(),
        Kind::Cluster | Kind::Endpoints | Kind::Listener | Kind::Routes | Kind::Host => {}
    }
}

/// How long it lives unless it is said again. A time before now is over.
pub(super) fn ttl(resource: &discovery::Resource) -> Option<Duration> {
    resource.ttl.map(|ttl| ttl.try_into().unwrap_or_default())
}

/// What a control plane is told of what is refused.
pub(super) fn why(refused: &[Refused]) -> Option<Status> {
    if refused.is_empty() {
        return None;
    }
    let mut message = refused.iter().map(Refused::to_string).collect::<Vec<_>>().join("\n");
    if message.len() > LONGEST {
        message.truncate(message.floor_char_boundary(LONGEST));
        message += "\n...";
    }
    Some(Status { code: REFUSED, message })
}
