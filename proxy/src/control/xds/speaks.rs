//! One of the two ways in which a control plane is spoken with, without its stream.
//! <https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol>

use outrigger_proto::error::ConfigError;
use outrigger_proto::model::Name;
use outrigger_proto::xds::discovery::{Any, Node, Status};
use outrigger_proto::xds::{self, Kind, Refused, Resource};
use prost::Message;
use zeroize::Zeroize;

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
    fn begin(&mut self, node: &Node, state: &State) -> Vec<Self::Request>;

    /// Takes an answer; what is to be said to it and asked because of it, and what of it is refused.
    fn take(&mut self, state: &mut State, response: Self::Response) -> (Vec<Self::Request>, Vec<Refused>);
}

/// Of which kinds is asked at the beginning of a stream; of those that are asked for by name, where there `are` names.
pub(super) fn first(are: impl Fn(Kind) -> bool) -> Vec<Kind> {
    let named = [Kind::Secret, Kind::Endpoints, Kind::Routes].into_iter().filter(|kind| are(*kind));
    [Kind::Cluster, Kind::Listener].into_iter().chain(named).collect()
}

/// What a resource means, if it can be used: the last good one stays where it cannot. The bytes of a secret are wiped.
pub(super) fn read(kind: Kind, mut any: Any) -> Result<(Name, Resource), Refused> {
    let read = xds::read(kind, &any).and_then(|(name, resource)| {
        let Resource::Secret(secret) = &resource else { return Ok((name, resource)) };
        match secrets::check(&name, secret) {
            Ok(()) => Ok((name, resource)),
            Err((field, problem)) => {
                let path = format!("{kind}[{name}].{field}");
                let errors = vec![ConfigError { place: None, path, problem, hint: None }];
                Err(Refused { name: Some(name), errors })
            }
        }
    });
    if kind == Kind::Secret {
        any.value.zeroize();
    }
    read
}

/// What a control plane is told of what is refused.
pub(super) fn why(refused: &[Refused]) -> Option<Status> {
    if refused.is_empty() {
        return None;
    }
    let mut message = refused.iter().map(Refused::to_string).collect::<Vec<_>>().join("\n");
    if message.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        message += "\n...";
    }
    Some(Status { code: REFUSED, message })
}
