//! Envoy's configuration, of which the experiments differ in routes and clusters only.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::error::{Doing, Result};
use crate::tools::Tools;

/// A cluster of these ports; `more` is further lines of it, each indented by four.
pub(crate) fn cluster(name: &str, ports: &[u16], more: &str) -> String {
    let endpoint = |port: &u16| {
        format!(
            "{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}"
        )
    };
    let endpoints: Vec<String> = ports.iter().map(endpoint).collect();
    format!(
        "  - name: {name}\n    type: STATIC\n{more}    load_assignment:\n      cluster_name: {name}\n      \
         endpoints: [{{ lb_endpoints: [{}] }}]\n",
        endpoints.join(", ")
    )
}

/// All of it, with these routes and clusters.
pub(crate) fn text(listen: u16, routes: &str, clusters: &str) -> String {
    format!(
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
    )
}

/// Envoy with this configuration, which is kept in the folder.
pub(crate) fn command(text: &str, folder: &Path, tools: &Tools) -> Result<Command> {
    let file = folder.join("envoy.yaml");
    fs::write(&file, text).doing(file.display())?;
    let mut command = Command::new(tools.envoy.as_ref().map_err(Clone::clone)?);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"]).arg(file);
    Ok(command)
}
