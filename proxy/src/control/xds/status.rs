//! What there is and what became of it, as it is told to whoever asks (CSDS).

use std::collections::BTreeMap;

use outrigger_proto::model::{Assignment, Name, RouteTable};
use outrigger_proto::xds::status::{ClientResourceStatus, GenericXdsConfig, UpdateFailureState};
use outrigger_proto::xds::{Kind, Resource, write};

use super::super::referred::Answer;
use super::State;

impl State {
    /// All resources, and what became of each; with what they say, but for secrets, where that is wanted.
    pub(in super::super) fn status(&self, contents: bool) -> Vec<GenericXdsConfig> {
        let mut all = Vec::new();
        for kind in Kind::ALL {
            let there = self.versions(kind);
            let refused =
                self.failures.keys().filter(|(of, _)| *of == kind).map(|(_, name)| name.to_string());
            let missing =
                self.names(kind).into_iter().chain(refused).filter(|name| !there.contains_key(name));
            let missing: BTreeMap<_, _> = missing.map(|name| (name, None)).collect();
            let there = there.into_iter().map(|(name, version)| (name, Some(version)));
            for (name, version) in there.chain(missing) {
                all.extend(Name::new(&name).map(|name| self.status_of(kind, &name, (version, contents))));
            }
        }
        all
    }

    fn status_of(
        &self,
        kind: Kind,
        name: &Name,
        (version, contents): (Option<String>, bool),
    ) -> GenericXdsConfig {
        let why = self.failures.get(&(kind, name.clone()));
        let status = match (&version, why) {
            (_, Some(_)) => ClientResourceStatus::Nacked,
            (Some(_), None) => ClientResourceStatus::Acked,
            (None, None) if self.is_awaited(kind, name) => ClientResourceStatus::Requested,
            (None, None) => ClientResourceStatus::DoesNotExist,
        };
        let says = || write(name, &self.resource(kind, name)?).ok();
        GenericXdsConfig {
            type_url: kind.url(),
            name: name.to_string(),
            xds_config: (contents && version.is_some()).then(says).flatten(),
            version_info: version.unwrap_or_default(),
            client_status: status.into(),
            error_state: why.map(|why| UpdateFailureState { details: why.clone() }),
        }
    }

    /// Whether it was asked for by name, and nothing was said of it yet.
    fn is_awaited(&self, kind: Kind, name: &Name) -> bool {
        match kind {
            Kind::Cluster => self.led.awaited().contains(name),
            Kind::Secret => self.secrets.awaited().contains(name),
            Kind::Endpoints => self.sets.awaited().contains(name),
            Kind::Listener => false,
            Kind::Routes => self.tables.awaited().contains(name),
            Kind::Host => matches!(self.hosts.answer(name), Answer::Awaited),
        }
    }

    /// As it is in force; secrets are nobody's to see.
    fn resource(&self, kind: Kind, name: &Name) -> Option<Resource> {
        Some(match kind {
            Kind::Cluster => Resource::Cluster(Box::new(self.clusters.get(name)?.held.means.clone())),
            Kind::Secret => return None,
            Kind::Endpoints => Resource::Endpoints(Assignment::clone(self.sets.answer(name).means()?)),
            Kind::Listener => Resource::Listener(Box::new(self.listeners.get(name)?.means.clone())),
            Kind::Routes => Resource::Routes(self.tables.answer(name).means()?.clone()),
            Kind::Host => Resource::Host(RouteTable::clone(self.hosts.answer(name).means()?)),
        })
    }
}
