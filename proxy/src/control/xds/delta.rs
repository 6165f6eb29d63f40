//! Incremental: each answer names what has changed, resource by resource, each with a version of its own.

use std::path::PathBuf;

use outrigger_proto::error::ConfigError;
use outrigger_proto::model::Name;
use outrigger_proto::xds::discovery::{
    DELTA_STREAM, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource, Status,
};
use outrigger_proto::xds::{Accepted, Kind, Refused};

use tokio::time::Instant;

use super::referred::Change;
use super::said::Said;
use super::speaks::{Speaks, changes, in_order, read, ttl, why, wipe};
use super::state::State;

/// See the module. It knows nothing that the state does not.
#[derive(Debug, Default)]
pub(super) struct Delta;

impl Speaks for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    const PATH: &'static str = DELTA_STREAM;

    fn begin(&mut self, node: &Node, state: &mut State) -> Vec<DeltaDiscoveryRequest> {
        let mut requests = Vec::new();
        for kind in in_order(state) {
            let names = state.ask_anew(kind);
            if !state.asks_for_all(kind) && names.is_empty() {
                continue;
            }
            requests.push(DeltaDiscoveryRequest {
                resource_names_subscribe: names,
                initial_resource_versions: state.versions(kind),
                ..of(kind)
            });
        }
        // Once a stream.
        if let Some(request) = requests.first_mut() {
            request.node = Some(node.clone());
        }
        requests
    }

    fn kind(request: &DeltaDiscoveryRequest) -> Option<Kind> {
        Kind::of_url(&request.type_url)
    }

    fn take(
        &mut self,
        state: &mut State,
        response: DeltaDiscoveryResponse,
        now: Instant,
    ) -> (Vec<DeltaDiscoveryRequest>, Vec<Refused>) {
        // The version of it all is for people.
        let DeltaDiscoveryResponse { system_version_info: _, resources, type_url, removed_resources, nonce } =
            response;
        // Nobody has asked for another.
        let Some(kind) = Kind::of_url(&type_url) else { return (Vec::new(), Vec::new()) };
        state.note_answer(kind);
        let mut refused = Vec::new();
        for mut resource in resources {
            match meant(kind, &resource, state.sockets()) {
                // It lives on, or there is none.
                None => state.hear_of(kind, &resource, now),
                Some(Ok(accepted)) => {
                    let name = accepted.name.clone();
                    state.accept(accepted, Said::of(&resource));
                    state.live(kind, &name, ttl(&resource), now);
                }
                Some(Err(bad)) => refused.push(bad),
            }
            resource.resource.iter_mut().for_each(|any| wipe(kind, any));
        }
        for name in removed_resources.iter().filter_map(|name| Name::new(name)) {
            state.withdraw(kind, &name);
        }
        let error_detail: Option<Status> = why(&refused);
        let mut requests = vec![DeltaDiscoveryRequest { response_nonce: nonce, error_detail, ..of(kind) }];
        requests.extend(self.subscribe(state));
        (requests, refused)
    }

    fn refuse(&mut self, answer: &mut DeltaDiscoveryRequest, refused: &[Refused]) {
        answer.error_detail = why(refused);
    }

    fn subscribe(&mut self, state: &mut State) -> Vec<DeltaDiscoveryRequest> {
        let request = |(kind, Change { more, less })| DeltaDiscoveryRequest {
            resource_names_subscribe: more,
            resource_names_unsubscribe: less,
            ..of(kind)
        };
        changes(state).into_iter().map(request).collect()
    }
}

fn of(kind: Kind) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: kind.url(), ..DeltaDiscoveryRequest::default() }
}

/// What a resource means; `None` for one that says only that it lives on.
pub(super) fn meant(
    kind: Kind,
    resource: &Resource,
    sockets: &[PathBuf],
) -> Option<Result<Accepted, Refused>> {
    let read = read(kind, resource.resource.as_ref()?, sockets);
    let called = Name::new(&resource.name);
    Some(match read {
        // A host may be called otherwise: it is told by the name that it was asked for by.
        Ok(host) if kind == Kind::Host => called.map(|name| Accepted { name, ..host }).ok_or_else(|| {
            let (path, problem) = (kind.to_string(), format!("`{}` is no name", resource.name));
            Refused { name: None, errors: vec![ConfigError { place: None, path, problem, hint: None }] }
        }),
        Ok(Accepted { name, resource: _, ignored: _ }) if Some(&name) != called.as_ref() => {
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
