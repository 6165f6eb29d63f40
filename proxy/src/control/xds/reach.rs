//! What of this machine a control plane may name. Whoever can write to it must not thereby reach what only this machine can:
//! a container engine listens on a unix socket, and asks nobody who they are.

use std::path::{Component, Path, PathBuf};

use outrigger_proto::error::ConfigError;
use outrigger_proto::model::{Address, Assignment, Name};
use outrigger_proto::xds::{EndpointSource, Kind, Refused, Resource};

/// What is wrong with what a resource names, if anything is: a unix socket that stands below none of these directories.
pub(super) fn check(
    kind: Kind,
    name: &Name,
    resource: &Resource,
    sockets: &[PathBuf],
) -> Result<(), Box<Refused>> {
    let of = |assignment: &Assignment| {
        assignment.endpoints.iter().find_map(|endpoint| beyond(&endpoint.address, sockets).cloned())
    };
    let beyond = match resource {
        Resource::Listener(listener) => beyond(&listener.listener.bind, sockets).cloned(),
        Resource::Endpoints(assignment) => of(assignment),
        Resource::Cluster(cluster) => match &cluster.endpoints {
            EndpointSource::Stated(assignment) => of(assignment),
            EndpointSource::Eds(_) | EndpointSource::Dns | EndpointSource::Original => None,
        },
        Resource::Secret(_) | Resource::Routes(_) | Resource::Host(_) => None,
    };
    let Some(path) = beyond else { return Ok(()) };
    let error = ConfigError {
        place: None,
        path: format!("{kind}[{name}]"),
        problem: format!("a control plane may not name the unix socket `{}` here", path.display()),
        hint: Some(
            "write a directory above it in the proxy's file, as `xds: { sockets: [DIRECTORY] }`".to_owned(),
        ),
    };
    Err(Box::new(Refused { name: Some(name.clone()), errors: vec![error] }))
}

fn beyond<'a>(address: &'a Address, sockets: &[PathBuf]) -> Option<&'a PathBuf> {
    match address {
        Address::Ip(_) => None,
        Address::Unix(path) => (!sockets.iter().any(|directory| is_below(path, directory))).then_some(path),
    }
}

/// By the words alone, and so not through `..`.
fn is_below(path: &Path, directory: &Path) -> bool {
    path.starts_with(directory) && !path.components().any(|component| component == Component::ParentDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_reached_below_a_directory_that_is_named_and_nowhere_else() {
        let rows = [
            ("/run/app/a.sock", true),
            ("/run/app/deeper/a.sock", true),
            ("/run/application", false),
            ("/run/docker.sock", false),
            ("/run/app/../docker.sock", false),
            ("/run/app/deeper/../a.sock", false),
        ];
        for (path, expected) in rows {
            let address = Address::Unix(path.into());
            assert_eq!(beyond(&address, &["/run/app".into()]).is_none(), expected, "{path}");
            assert!(beyond(&address, &[]).is_some());
        }
        assert!(beyond(&Address::Ip("127.0.0.1:1".parse().unwrap()), &[]).is_none());
    }
}
