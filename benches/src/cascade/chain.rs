//! Three proxies in a row: each serves a path of its own from the service beside it, and passes the rest on.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::error::{Doing, Result};
use crate::net;
use crate::process::Running;
use crate::proxy::Proxy;
use crate::tools::Tools;

/// Longest time from start to ready.
const STARTING: Duration = Duration::from_secs(20);

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
                Proxy::Envoy => envoy(&link, &folder, tools)?,
                Proxy::Outrigger
                | Proxy::OutriggerGuarded
                | Proxy::Haproxy
                | Proxy::HaproxyTuned
                | Proxy::Nginx => outrigger(&link, &folder, tools)?,
            };
            let mut running = Running::start(command, &folder.join("log"))?;
            // Not more: the services are served by this very thread.
            running.until(STARTING, || net::connect(link.listen).is_ok())?;
            next = Some(link.listen);
            proxies.push(running);
        }
        Ok(Self { entry: next.unwrap_or_default(), _proxies: proxies })
    }

    /// Where clients come in.
    pub(crate) fn entry(&self) -> u16 {
        self.entry
    }
}

fn outrigger(link: &Link, folder: &Path, tools: &Tools) -> Result<Command> {
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
    let file = folder.join("outrigger.yaml");
    fs::write(&file, text).doing(file.display())?;
    let mut command = Command::new(tools.outrigger.as_ref().map_err(Clone::clone)?);
    command.arg("run").arg(file);
    Ok(command)
}

fn envoy(link: &Link, folder: &Path, tools: &Tools) -> Result<Command> {
    let Link { listen, own: (path, service), next } = link;
    let route = |prefix: &str, cluster: &str| {
        format!(
            "              - {{ match: {{ prefix: \"{prefix}\" }}, route: {{ cluster: {cluster}, timeout: 1s, \
             retry_policy: {{ retry_on: \"5xx,reset,connect-failure\" }} }} }}\n"
        )
    };
    let cluster = |name: &str, port: &u16| {
        format!(
            "  - name: {name}\n    type: STATIC\n    load_assignment:\n      cluster_name: {name}\n      \
             endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, \
             port_value: {port} }} }} }} }}] }}]\n"
        )
    };
    let (mut routes, mut clusters) = (route(path, "own"), cluster("own", service));
    if let Some(next) = next {
        routes.push_str(&route("/", "next"));
        clusters.push_str(&cluster("next", next));
    }
    let text = format!(
        "static_resources:
  listeners:
  - name: in
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {listen} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - name: in
              domains: [\"*\"]
              routes:
{routes}  clusters:
{clusters}"
    );
    let file = folder.join("envoy.yaml");
    fs::write(&file, text).doing(file.display())?;
    let mut command = Command::new(tools.envoy.as_ref().map_err(Clone::clone)?);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"]).arg(file);
    Ok(command)
}
