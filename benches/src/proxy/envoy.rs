//! Envoy's configuration: a static bootstrap (v3).

use std::fmt::Write;
use std::process::Command;

use super::{Back, Front, SPIFFE_ID, Setup};
use crate::error::Result;
use crate::tools::Tools;

/// What starts it.
pub(crate) fn command(setup: &Setup<'_>, tools: &Tools) -> Result<Command> {
    let file = setup.write("envoy.yaml", &config(setup))?;
    let mut command = Command::new(tools.envoy.as_ref().map_err(Clone::clone)?);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"]).arg(file);
    Ok(command)
}

fn config(setup: &Setup<'_>) -> String {
    let Setup { shape, dir: _, listen, admin: _, backend, tls: _ } = setup;
    let filter = match shape.front {
        Front::Tcp => TCP_PROXY.to_owned(),
        Front::Http1 | Front::Http2 | Front::Tls | Front::Mtls => connection_manager(setup),
    };
    let mut text = format!(
        "static_resources:
  listeners:
  - name: bench
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {listen} }} }}
    tcp_backlog_size: 4096
    filter_chains:
    - filters:
{filter}{}  clusters:
",
        transport_socket(setup)
    );
    let protocol = match shape.back {
        Back::Http1 | Back::Tcp => String::new(),
        Back::Http2 => HTTP2_UPSTREAM.to_owned(),
        Back::Mtls => {
            let context = mutual(setup, "http/1.1").replace("            ", "          ");
            format!(
                "    transport_socket:\n      name: envoy.transport_sockets.tls\n      typed_config:\n        \
                \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n        \
                common_tls_context:\n{context}"
            )
        }
    };
    for (cluster, _) in shape.routes.each() {
        write!(
            text,
            "  - name: {cluster}
    type: STATIC
    connect_timeout: 2s
    circuit_breakers: {{ thresholds: [{{ max_connections: 100000, max_pending_requests: 100000, max_requests: 100000 }}] }}
    load_assignment:
      cluster_name: {cluster}
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {backend} }} }} }} }}] }}]
{protocol}"
        )
        .expect("a String takes all");
    }
    text
}

fn connection_manager(setup: &Setup<'_>) -> String {
    let mut routes = String::new();
    for (cluster, prefix) in setup.shape.routes.each() {
        // No limit on the whole request: the others have none.
        writeln!(
            routes,
            "              - {{ match: {{ prefix: \"{prefix}\" }}, route: {{ cluster: {cluster}, timeout: 0s }} }}"
        )
        .expect("a String takes all");
    }
    // What the others do not do is turned off: request ids, and headers of its own.
    format!(
        "      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          codec_type: AUTO
          use_remote_address: true
          generate_request_id: false
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              suppress_envoy_headers: true
          route_config:
            virtual_hosts:
            - name: bench
              domains: [\"*\"]
              routes:
{routes}"
    )
}

fn transport_socket(setup: &Setup<'_>) -> String {
    if setup.shape.front == Front::Mtls {
        return format!(
            "      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
{}",
            mutual(setup, "http/1.1")
        );
    }
    if setup.shape.front != Front::Tls {
        return String::new();
    }
    format!(
        "      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_params: {{ tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3, ecdh_curves: [X25519] }}
            tls_certificates: [{{ certificate_chain: {{ filename: {} }}, private_key: {{ filename: {} }} }}]
",
        setup.tls.certificate.display(),
        setup.tls.key.display()
    )
}

/// What both ends of mutual TLS show and check.
fn mutual(setup: &Setup<'_>, alpn: &str) -> String {
    let [certificate, key, _] = setup.tls.mesh.each_ref().map(|file| file.display());
    let root = setup.tls.mesh_root.display();
    format!(
        "            alpn_protocols: [{alpn}]
            tls_params: {{ tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3, ecdh_curves: [X25519] }}
            tls_certificates: [{{ certificate_chain: {{ filename: {certificate} }}, private_key: {{ filename: {key} }} }}]
            validation_context: {{ trusted_ca: {{ filename: {root} }}, match_typed_subject_alt_names: [{{ san_type: URI, matcher: {{ exact: \"{SPIFFE_ID}\" }} }}] }}
"
    )
}

const TCP_PROXY: &str = "      - name: envoy.filters.network.tcp_proxy
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: bench
          cluster: backend
";

const HTTP2_UPSTREAM: &str = "    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }
";
