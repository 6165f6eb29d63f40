//! State of the world: each answer names all that was asked for.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_proto::xds::discovery::{DiscoveryRequest, DiscoveryResponse, Node, STREAM, Status};
use outrigger_proto::xds::{Kind, Refused};

use super::referred::Change;
use super::said::Said;
use super::speaks::{NAMED, Speaks, WHOLE, read, why, wipe};
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
}

impl Speaks for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    const PATH: &'static str = STREAM;

    fn begin(&mut self, node: &Node, state: &mut State) -> Vec<DiscoveryRequest> {
        self.asked.values_mut().for_each(|asked| asked.nonce.clear());
        let named = NAMED.into_iter().filter(|kind| !state.ask_anew(*kind).is_empty());
        let kinds: Vec<_> = WHOLE.into_iter().chain(named).collect();
        let mut requests: Vec<_> = kinds.into_iter().map(|kind| self.request(state, kind, None)).collect();
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
        let DiscoveryResponse { version_info, mut resources, type_url, nonce } = response;
        // Nobody has asked for another.
        let Some(kind) = Kind::of_url(&type_url) else { return (Vec::new(), Vec::new()) };
        state.note_answer(kind);
        let mut good = BTreeMap::new();
        let mut refused = Vec::new();
        for resource in &resources {
            match read(kind, resource) {
                Ok((name, means)) => drop(good.insert(name, (means, resource))),
                Err(bad) => refused.push(bad),
            }
        }
        // Of these an answer names all there are: what it does not name is gone.
        if WHOLE.contains(&kind) {
            let kept: BTreeSet<_> = refused.iter().filter_map(|bad| bad.name.as_ref()).collect();
            state.keep(kind, |name| kept.contains(name) || good.contains_key(name));
        }
        for (name, (means, any)) in good {
            // The version is that of them all.
            state.put(name, means, Said { version: "", value: &any.value });
        }
        resources.iter_mut().for_each(|any| wipe(kind, any));
        let asked = self.asked.entry(kind).or_default();
        asked.nonce = nonce;
        if refused.is_empty() {
            asked.version = version_info;
        }
        let mut requests = vec![self.request(state, kind, why(&refused))];
        requests.extend(self.subscribe(state));
        (requests, refused)
    }
}

impl Sotw {
    /// Asks for what clusters and listeners refer to by now, and for what they do no longer, no longer.
    fn subscribe(&mut self, state: &mut State) -> Vec<DiscoveryRequest> {
        let mut requests = Vec::new();
        for kind in NAMED {
            if state.change(kind) != Change::default() {
                requests.push(self.request(state, kind, None));
            }
        }
        requests
    }

    fn request(&mut self, state: &State, kind: Kind, error_detail: Option<Status>) -> DiscoveryRequest {
        let Asked { version, nonce } = self.asked.entry(kind).or_default();
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

#[cfg(test)]
#[path = "sotw_tests.rs"]
mod tests;
