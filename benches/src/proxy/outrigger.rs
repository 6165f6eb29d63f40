//! Outrigger's configuration: its defaults, and one worker.

use std::fmt::Write;
use std::process::Command;

use super::{Back, Front, Routes, SPIFFE_ID, Setup, TRUST_DOMAIN};
use crate::error::Result;
use crate::tools::Tools;

/// Which policies are configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policies {
    /// None but those that are always there.
    None,
    /// All of them.
    All,
}

/// Every policy of a route; with a load that is well, none of them has anything to do.
const ROUTE: &str = ", timeout: 30s, \
    retry: { attempts: 3, conditions: [5xx, reset, connect-failure], per_try_timeout: 10s }, \
    hedge: { after: 5s }, \
    concurrency: { max: 10000 }, \
    rate_limit: { rate: 10000000/s }, \
    fault: { abort: { status: 503 }, when: { header: x-chaos } }, \
    fallback: { respond: { status: 503 } }";

/// Every policy of a cluster.
const CLUSTER: &str = ", outlier_detection: { success_rate_deviations: 1.9, failure_percent: 50%, latency_factor: 5 }, \
    health_check: { http: / }, slow_start: 10s";

/// What starts it.
pub(crate) fn command(setup: &Setup<'_>, tools: &Tools, policies: Policies) -> Result<Command> {
    let file = setup.write("outrigger.yaml", &config(setup, policies))?;
    let mut command = Command::new(tools.outrigger.as_ref().map_err(Clone::clone)?);
    command.arg("run").arg(file);
    Ok(command)
}

fn config(setup: &Setup<'_>, policies: Policies) -> String {
    let (route, of_cluster) = match policies {
        Policies::None => ("", ""),
        Policies::All => (ROUTE, CLUSTER),
    };
    let Setup { shape, dir: _, listen, admin, backend, tls } = setup;
    let mut text = format!("workers: 1\nadmin: 127.0.0.1:{admin}\n");
    if shape.front == Front::Mtls || shape.back == Back::Mtls {
        let [certificate, key, _] = tls.mesh.each_ref().map(|file| file.display());
        let root = tls.mesh_root.display();
        text += &format!(
            "identity: {{ files: {{ certificate: {certificate}, private_key: {key}, trust: {{ {TRUST_DOMAIN}: {root} }} }} }}\n"
        );
    }
    text += &format!("listeners:\n  bench:\n    bind: 127.0.0.1:{listen}\n");
    let mut add = |line: std::fmt::Arguments<'_>| text.write_fmt(line).expect("a String takes all");
    if shape.front == Front::Tls {
        let (certificate, key) = (tls.certificate.display(), tls.key.display());
        add(format_args!("    tls: {{ certificate: {certificate}, private_key: {key} }}\n"));
    }
    if shape.front == Front::Mtls {
        add(format_args!("    mtls: strict\n"));
    }
    match (shape.front, shape.routes) {
        (Front::Tcp, _) => add(format_args!("    tcp: {{ to: backend }}\n")),
        (_, Routes::Catchall) => add(format_args!("    routes:\n      - {{ to: backend{route} }}\n")),
        (_, Routes::Prefixes(_)) => {
            add(format_args!("    routes:\n"));
            for (cluster, prefix) in shape.routes.each() {
                let prefix = prefix.trim_end_matches('/');
                add(format_args!("      - {{ match: {{ path: {{ prefix: {prefix} }} }}, to: {cluster} }}\n"));
            }
        }
    }
    let mutual = format!(", protocol: http1, mtls: {{ peers: [\"{SPIFFE_ID}\"] }}");
    let protocol = match shape.back {
        Back::Http1 => ", protocol: http1",
        Back::Mtls => &mutual,
        Back::Http2 => ", protocol: http2",
        Back::Tcp => "",
    };
    add(format_args!("clusters:\n"));
    for (cluster, _) in shape.routes.each() {
        add(format_args!("  {cluster}: {{ endpoints: [127.0.0.1:{backend}]{protocol}{of_cluster} }}\n"));
    }
    text
}
