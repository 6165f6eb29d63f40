//! State of the world: each answer names all that was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use outrigger_proto::error::ConfigError;
use outrigger_proto::model::Name;
use outrigger_proto::xds::discovery::{
    Any, DiscoveryRequest, DiscoveryResponse, Node, Resource, STREAM, Status,
};
use outrigger_proto::xds::{self, Accepted, Kind, Refused};
use prost::Message;
use tokio::time::Instant;

use super::delta;
use super::said::Said;
use super::speaks::{self, Speaks, changes, in_order, ttl, why, wipe};
use super::state::State;

/// How the type of a resource that is wrapped ends.
const WRAPPED: &str = "/envoy.service.discovery.v3.Resource";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sotw {
    asked: BTreeMap<Kind, Asked>,
}

/// What was asked of one kind.
#[derive(Debug, Default)]
struct Asked {
    /// The version in force.
    version: String,
    /// The one before it.
    before: String,
    /// Of the last answer on this stream.
    nonce: String,
}

impl Speaks for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    const PATH: &'static str = STREAM;

    fn begin(&mut self, node: &Node, state: &mut State) -> Vec<DiscoveryRequest> {
        self.asked.values_mut().for_each(|asked| asked.nonce.clear());
        let kinds = in_order(state);
        let mut is_asked = |kind: &Kind| !state.ask_anew(*kind).is_empty() || state.asks_for_all(*kind);
        let kinds: Vec<_> = kinds.into_iter().filter(&mut is_asked).collect();
        let mut requests: Vec<_> = kinds.into_iter().map(|kind| self.request(state, kind, None)).collect();
        // Once a stream.
        if let Some(request) = requests.first_mut() {
            request.node = Some(node.clone());
        }
        requests
    }

    fn kind(request: &DiscoveryRequest) -> Option<Kind> {
        Kind::of_url(&request.type_url)
    }

    fn take(
        &mut self,
        state: &mut State,
        response: DiscoveryResponse,
        now: Instant,
    ) -> (Vec<DiscoveryRequest>, Vec<Refused>) {
        let DiscoveryResponse { version_info, resources, type_url, nonce } = response;
        // Nobody has asked for another.
        let Some(kind) = Kind::of_url(&type_url) else { return (Vec::new(), Vec::new()) };
        state.note_answer(kind);
        let (mut good, mut alive, mut refused) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for any in resources {
            match read(kind, any, state.sockets()) {
                Ok(Heard::Meant(
                    Accepted { name, resource: xds::Resource::Routes(table), ignored: _ },
                    _,
                )) if table.on_demand => {
                    refused.push(on_demand(name));
                }
                Ok(Heard::Meant(accepted, resource)) => {
                    good.insert(accepted.name.clone(), (accepted, resource));
                }
                Ok(Heard::Alive(name, resource)) => drop(alive.insert(name, resource)),
                Err(bad) => refused.push(bad),
            }
        }
        // Of these an answer names all there are: what it does not name is gone. One that says only what lives on does not.
        if state.asks_for_all(kind) && (alive.is_empty() || !good.is_empty() || !refused.is_empty()) {
            let kept: BTreeSet<_> = refused.iter().filter_map(|bad| bad.name.as_ref()).collect();
            state.keep(kind, |name| {
                kept.contains(name) || good.contains_key(name) || alive.contains_key(name)
            });
        }
        for (name, (accepted, mut resource)) in good {
            // The version is that of them all.
            state.accept(accepted, Said { version: "", ..Said::of(&resource) });
            state.live(kind, &name, ttl(&resource), now);
            resource.resource.iter_mut().for_each(|any| wipe(kind, any));
        }
        for (name, resource) in alive {
            state.live(kind, &name, ttl(&resource), now);
        }
        let asked = self.asked.entry(kind).or_default();
        asked.nonce = nonce;
        asked.before.clone_from(&asked.version);
        if refused.is_empty() {
            asked.version = version_info;
        }
        let mut requests = vec![self.request(state, kind, why(&refused))];
        requests.extend(self.subscribe(state));
        (requests, refused)
    }

    fn refuse(&mut self, answer: &mut DiscoveryRequest, refused: &[Refused]) {
        answer.error_detail = why(refused);
        if let Some(asked) = Self::kind(answer).and_then(|kind| self.asked.get_mut(&kind)) {
            asked.version.clone_from(&asked.before);
            answer.version_info.clone_from(&asked.before);
        }
    }

    fn subscribe(&mut self, state: &mut State) -> Vec<DiscoveryRequest> {
        let changed = changes(state);
        changed.into_keys().map(|kind| self.request(state, kind, None)).collect()
    }
}

impl Sotw {
    fn request(&mut self, state: &State, kind: Kind, error_detail: Option<Status>) -> DiscoveryRequest {
        let Asked { version, before: _, nonce } = self.asked.entry(kind).or_default();
        DiscoveryRequest {
            version_info: version.clone(),
            node: None,
            resource_names: state.names(kind),
            type_url: kind.url(),
            response_nonce: nonce.clone(),
            error_detail,
        }
    }
}

/// A table whose hosts could never be asked for.
fn on_demand(table: Name) -> Refused {
    let path = format!("{}[{table}].vhds", Kind::Routes);
    let problem =
        "hosts on demand are told incrementally alone, and this server says all there is".to_owned();
    Refused { name: Some(table), errors: vec![ConfigError { place: None, path, problem, hint: None }] }
}

/// What is said of a resource.
enum Heard {
    /// It is this.
    Meant(Accepted, Resource),
    /// It lives on.
    Alive(Name, Resource),
}

/// A resource, which may be wrapped to give it a time to live; wrapped alone it says only that it lives on. What is refused
/// is wiped where it is a secret, as what is not will be once it is read.
fn read(kind: Kind, mut any: Any, sockets: &[PathBuf]) -> Result<Heard, Refused> {
    let refused = |problem: String| {
        let path = kind.to_string();
        Refused { name: None, errors: vec![ConfigError { place: None, path, problem, hint: None }] }
    };
    if !any.type_url.ends_with(WRAPPED) {
        return match speaks::read(kind, &any, sockets) {
            Ok(accepted) => {
                Ok(Heard::Meant(accepted, Resource { resource: Some(any), ..Resource::default() }))
            }
            Err(bad) => {
                wipe(kind, &mut any);
                Err(bad)
            }
        };
    }
    let resource = Resource::decode(any.value.as_slice());
    wipe(kind, &mut any);
    let mut resource = resource.map_err(|error| refused(error.to_string()))?;
    match delta::meant(kind, &resource, sockets) {
        Some(Ok(accepted)) => Ok(Heard::Meant(accepted, resource)),
        Some(Err(bad)) => {
            resource.resource.iter_mut().for_each(|any| wipe(kind, any));
            Err(bad)
        }
        None => {
            let name =
                Name::new(&resource.name).ok_or_else(|| refused("what lives on has no name".to_owned()))?;
            Ok(Heard::Alive(name, resource))
        }
    }
}

#[cfg(test)]
#[path = "sotw_tests.rs"]
mod tests;
