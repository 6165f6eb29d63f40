//! State of the world: each answer names all that was asked for.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_proto::model::Name;
use outrigger_proto::xds::discovery::{DiscoveryRequest, DiscoveryResponse, Node, STREAM, Status};
use outrigger_proto::xds::{Kind, Refused};

use super::speaks::{Speaks, first, read, why};
use super::state::State;

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
    /// Of the last answer on this stream.
    nonce: String,
    /// Which; all, of clusters and listeners.
    names: BTreeSet<Name>,
}

impl Speaks for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    const PATH: &'static str = STREAM;

    fn begin(&mut self, node: &Node, _: &State) -> Vec<DiscoveryRequest> {
        self.asked.values_mut().for_each(|asked| asked.nonce.clear());
        let kinds = first(|kind| self.asked.get(&kind).is_some_and(|asked| !asked.names.is_empty()));
        let mut requests: Vec<_> = kinds.into_iter().map(|kind| self.request(kind, None)).collect();
        // Once a stream.
        if let Some(request) = requests.first_mut() {
            request.node = Some(node.clone());
        }
        requests
    }

    fn take(
        &mut self,
        state: &mut State,
        response: DiscoveryResponse,
    ) -> (Vec<DiscoveryRequest>, Vec<Refused>) {
        let DiscoveryResponse { version_info, resources, type_url, nonce } = response;
        // Nobody has asked for another.
        let Some(kind) = Kind::of_url(&type_url) else { return (Vec::new(), Vec::new()) };
        state.note_answer(kind);
        let mut good = BTreeMap::new();
        let mut refused = Vec::new();
        for resource in resources {
            match read(kind, resource) {
                Ok((name, resource)) => drop(good.insert(name, resource)),
                Err(bad) => refused.push(bad),
            }
        }
        // Of these an answer names all there are: what it does not name is gone.
        if matches!(kind, Kind::Cluster | Kind::Listener) {
            let kept: BTreeSet<_> = refused.iter().filter_map(|bad| bad.name.as_ref()).collect();
            state.keep(kind, |name| kept.contains(name) || good.contains_key(name));
        }
        good.into_iter().for_each(|(name, resource)| state.put(name, resource));
        let asked = self.asked.entry(kind).or_default();
        asked.nonce = nonce;
        if refused.is_empty() {
            asked.version = version_info;
        }
        let mut requests = vec![self.request(kind, why(&refused))];
        requests.extend(self.subscribe(state));
        (requests, refused)
    }
}

impl Sotw {
    /// Asks for what clusters and listeners refer to by now, and forgets what they do no longer.
    fn subscribe(&mut self, state: &mut State) -> Vec<DiscoveryRequest> {
        let mut requests = Vec::new();
        for (kind, names) in state.wanted() {
            state.keep(kind, |name| names.contains(name));
            let asked = self.asked.entry(kind).or_default();
            if asked.names != names {
                asked.names = names;
                requests.push(self.request(kind, None));
            }
        }
        requests
    }

    fn request(&mut self, kind: Kind, error_detail: Option<Status>) -> DiscoveryRequest {
        let Asked { version, nonce, names } = self.asked.entry(kind).or_default();
        DiscoveryRequest {
            version_info: version.clone(),
            node: None,
            resource_names: names.iter().map(Name::to_string).collect(),
            type_url: kind.url(),
            response_nonce: nonce.clone(),
            error_detail,
        }
    }
}

#[cfg(test)]
#[path = "sotw_tests.rs"]
mod tests;
