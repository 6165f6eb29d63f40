//! What is to be on trial, as it was said: listeners, and the route tables that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use outrigger_proto::error::ConfigError;
use outrigger_proto::model::{Listener, Mesh, Name, RouteTable};
use outrigger_proto::xds::shadow::Shadow;
use outrigger_proto::xds::{Kind, Resource, read};

use crate::shadow::Trial;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    listeners: BTreeMap<Name, Listener>,
    /// Those that the trial decides by: kept once, however many routes there are.
    tables: BTreeMap<Name, Arc<RouteTable>>,
}

/// What a file says itself beside a control plane; it has the last word on its names.
#[derive(Debug, Default)]
pub(super) struct Own {
    pub(super) listeners: BTreeSet<Name>,
    pub(super) tables: BTreeMap<Name, Arc<RouteTable>>,
}

impl Own {
    pub(super) fn of(mesh: &Mesh) -> Self {
        Self { listeners: mesh.listeners.keys().cloned().collect(), tables: tables(mesh) }
    }
}

fn tables(mesh: &Mesh) -> BTreeMap<Name, Arc<RouteTable>> {
    mesh.route_tables.iter().map(|(name, table)| (name.clone(), Arc::new(table.clone()))).collect()
}

impl Said {
    /// What a file says.
    pub fn by_file(mesh: &Mesh) -> Self {
        Self { listeners: mesh.listeners.clone(), tables: tables(mesh) }
    }

    /// What a control plane says, read as strictly as what is to come into force.
    ///
    /// # Errors
    /// All that would be refused, one line for each.
    pub(super) fn by_control_plane(shadow: &Shadow) -> Result<Self, Vec<String>> {
        let Shadow { revision: _, listeners, routes, interval: _ } = shadow;
        let (mut said, mut refused) = (Self::default(), Vec::new());
        let all = listeners.iter().map(|any| (Kind::Listener, any));
        for (kind, any) in all.chain(routes.iter().map(|any| (Kind::Routes, any))) {
            let is_new = match read(kind, any) {
                Ok((name, resource)) => said.put(&name, resource).then_some(()).ok_or(name),
                Err(errors) => {
                    refused.extend(errors.errors.iter().map(ToString::to_string));
                    continue;
                }
            };
            if let Err(name) = is_new {
                refused.push(format!("{kind}[{name}]: it is there twice"));
            }
        }
        if refused.is_empty() { Ok(said) } else { Err(refused) }
    }

    /// Whether it was not there before.
    fn put(&mut self, name: &Name, resource: Resource) -> bool {
        match resource {
            Resource::Listener(listener) => {
                let stated = listener.stated(name).map(|(name, table)| (name, Arc::new(table.clone())));
                self.tables.extend(stated);
                self.listeners.insert(name.clone(), listener.listener).is_none()
            }
            Resource::Routes(table) => self.tables.insert(name.clone(), table.into()).is_none(),
            Resource::Cluster(_) | Resource::Secret(_) | Resource::Endpoints(_) | Resource::Host(_) => {
                unreachable!("read as a listener, or as routes")
            }
        }
    }

    /// As it would be beside what a file says itself.
    pub(super) fn trial(&self, number: u64, own: Option<&Own>) -> Result<Trial, Vec<ConfigError>> {
        let Some(Own { listeners, tables }) = own else {
            return Trial::new(number, &self.listeners, &self.tables);
        };
        let mut all = self.tables.clone();
        all.extend(tables.iter().map(|(name, table)| (name.clone(), table.clone())));
        Trial::new(number, self.listeners.iter().filter(|(name, _)| !listeners.contains(*name)), &all)
    }
}
