//! Three proxies in a row: each serves a path of its own from the service beside it, and passes the rest on.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::error::{Doing, Result};
use crate::fleet::{self, envoy};
use crate::net;
use crate::process::Running;
use crate::proxy::Proxy;
use crate::tools::Tools;

/// The running proxies.
#[derive(Debug)]
pub(crate) struct Chain {
    entry: u16,
    _proxies: Vec<Running>,
}

/// One proxy's part.
struct Link {
    listen: u16,
    /// The path that it serves, and from which port.
    own: (&'static str, u16),
    /// Where the rest goes.
    next: Option<u16>,
}

impl Chain {
    /// Before these services, in this order.
    pub(crate) fn start(proxy: Proxy, services: [u16; 3], tools: &Tools, dir: &Path) -> Result<Self> {
        let mut proxies = Vec::new();
        let mut next = None;
        for (path, service) in ["/a", "/b", "/c"].into_iter().zip(services).rev() {
            let link = Link { listen: net::free_port()?, own: (path, service), next };
            let folder = dir.join(format!("cascade-{}-{}", proxy.name(), path.trim_start_matches('/')));
            fs::create_dir_all(&folder).doing(folder.display())?;
            let command = match proxy {
                Proxy::Envoy => configure_envoy(&link, &folder, tools)?,
                Proxy::Outrigger
                | Proxy::OutriggerGuarded
                | Proxy::Haproxy
                | Proxy::HaproxyTuned
                | Proxy::Nginx => configure_outrigger(&link, &folder, tools)?,
            };
            proxies.push(fleet::start(command, &folder, link.listen)?);
            next = Some(link.listen);
        }
        Ok(Self { entry: next.unwrap_or_default(), _proxies: proxies })
    }

    /// Where clients come in.
    pub(crate) fn entry(&self) -> u16 {
        self.entry
    }
}

fn configure_outrigger(link: &Link, folder: &Path, tools: &Tools) -> Result<Command> {
    let Link { listen, own: (path, service), next } = link;
    let mut text = format!(
        "admin: unix:{}/admin.sock\nlisteners:\n  in:\n    bind: 127.0.0.1:{listen}\n    routes:\n      \
         - {{ match: {{ path: {path} }}, to: own, timeout: 1s, retry: {{}} }}\n",
        folder.canonicalize().doing(folder.display())?.display()
    );
    if next.is_some() {
        text.push_str("      - { to: next, timeout: 1s, retry: {} }\n");
    }
    text.push_str(&format!("clusters:\n  own: {{ endpoints: [127.0.0.1:{service}] }}\n"));
    if let Some(next) = next {
        text.push_str(&format!("  next: {{ endpoints: [127.0.0.1:{next}] }}\n"));
    }
    fleet::outrigger(&text, folder, tools)
}

fn configure_envoy(link: &Link, folder: &Path, tools: &Tools) -> Result<Command> {
    let Link { listen, own: (path, service), next } = link;
    let route = |prefix: &str, cluster: &str| {
        format!(
            "              - {{ match: {{ prefix: \"{prefix}\" }}, route: {{ cluster: {cluster}, timeout: 1s, \
             retry_policy: {{ retry_on: \"5xx,reset,connect-failure\" }} }} }}\n"
        )
    };
    let (mut routes, mut clusters) = (route(path, "own"), envoy::cluster("own", &[*service], ""));
    if let Some(next) = next {
        routes.push_str(&route("/", "next"));
        clusters.push_str(&envoy::cluster("next", &[*next], ""));
    }
    envoy::command(&envoy::text(*listen, &routes, &clusters), folder, tools)
}
