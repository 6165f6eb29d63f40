//! Incremental: each answer names what has changed, resource by resource, each with a version of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use outrigger_proto::error::ConfigError;
use outrigger_proto::model::Name;
use outrigger_proto::xds::discovery::{
    DELTA_STREAM, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource, Status,
};
use outrigger_proto::xds::{self, Kind, Refused};

use super::speaks::{Speaks, first, read, why};
use super::state::State;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Delta {
    asked: BTreeMap<Kind, Asked>,
}

/// What was asked of one kind, and what there is of it.
#[derive(Debug, Default)]
struct Asked {
    /// Which; all, of clusters and listeners.
    names: BTreeSet<Name>,
    /// Of what is in force.
    versions: HashMap<Name, String>,
}

impl Speaks for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    const PATH: &'static str = DELTA_STREAM;

    fn begin(&mut self, node: &Node, state: &State) -> Vec<DeltaDiscoveryRequest> {
        for (kind, names) in state.wanted() {
            self.asked.entry(kind).or_default().names = names;
        }
        let kinds = first(|kind| self.asked.get(&kind).is_some_and(|asked| !asked.names.is_empty()));
        let request = |kind| {
            let Asked { names, versions } = self.asked.entry(kind).or_default();
            let versions = versions.iter().map(|(name, version)| (name.to_string(), version.clone()));
            DeltaDiscoveryRequest {
                resource_names_subscribe: names.iter().map(Name::to_string).collect(),
                initial_resource_versions: versions.collect(),
                ..of(kind)
            }
        };
        let mut requests: Vec<_> = kinds.into_iter().map(request).collect();
        // Once a stream.
        if let Some(request) = requests.first_mut() {
            request.node = Some(node.clone());
        }
        requests
    }

    fn take(
        &mut self,
        state: &mut State,
        response: DeltaDiscoveryResponse,
    ) -> (Vec<DeltaDiscoveryRequest>, Vec<Refused>) {
        // The version of it all is for people.
        let DeltaDiscoveryResponse { system_version_info: _, resources, type_url, removed_resources, nonce } =
            response;
        // Nobody has asked for another.
        let Some(kind) = Kind::of_url(&type_url) else { return (Vec::new(), Vec::new()) };
        state.note_answer(kind);
        let versions = &mut self.asked.entry(kind).or_default().versions;
        let mut refused = Vec::new();
        for resource in resources {
            let version = resource.version.clone();
            match meant(kind, resource) {
                // It lives on.
                None => {}
                Some(Ok((name, meant))) => {
                    versions.insert(name.clone(), version);
                    state.put(name, meant);
                }
                Some(Err(bad)) => refused.push(bad),
            }
        }
        let gone: BTreeSet<_> = removed_resources.iter().filter_map(|name| Name::new(name)).collect();
        versions.retain(|name, _| !gone.contains(name));
        state.keep(kind, |name| !gone.contains(name));
        let error_detail: Option<Status> = why(&refused);
        let mut requests = vec![DeltaDiscoveryRequest { response_nonce: nonce, error_detail, ..of(kind) }];
        requests.extend(self.subscribe(state));
        (requests, refused)
    }
}

impl Delta {
    /// Asks for what clusters and listeners refer to by now, and forgets what they do no longer.
    fn subscribe(&mut self, state: &mut State) -> Vec<DeltaDiscoveryRequest> {
        let mut requests = Vec::new();
        for (kind, names) in state.wanted() {
            let Asked { names: asked, versions } = self.asked.entry(kind).or_default();
            let texts = |names: Vec<&Name>| names.into_iter().map(Name::to_string).collect::<Vec<_>>();
            let subscribe = texts(names.difference(asked).collect());
            let unsubscribe = texts(asked.difference(&names).collect());
            state.keep(kind, |name| names.contains(name));
            versions.retain(|name, _| names.contains(name));
            *asked = names;
            if !subscribe.is_empty() || !unsubscribe.is_empty() {
                requests.push(DeltaDiscoveryRequest {
                    resource_names_subscribe: subscribe,
                    resource_names_unsubscribe: unsubscribe,
                    ..of(kind)
                });
            }
        }
        requests
    }
}

fn of(kind: Kind) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: kind.url(), ..DeltaDiscoveryRequest::default() }
}

/// What a resource means; `None` for one that says only that it lives on.
fn meant(kind: Kind, resource: Resource) -> Option<Result<(Name, xds::Resource), Refused>> {
    let read = read(kind, resource.resource?);
    let called = Name::new(&resource.name);
    Some(match read {
        Ok((name, _)) if Some(&name) != called.as_ref() => {
            let (path, problem) = (format!("{kind}[{name}]"), format!("it comes as `{}`", resource.name));
            Err(Refused {
                name: called,
                errors: vec![ConfigError { place: None, path, problem, hint: None }],
            })
        }
        read => read,
    })
}

#[cfg(test)]
#[path = "delta_tests.rs"]
mod tests;
