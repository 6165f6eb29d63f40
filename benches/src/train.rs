//! Traffic to learn from: `deploy/build` has the proxy run under it, so that the compiler knows which of its roads are taken.
//!
//! A mix as services have it, and on purpose none of the cases that are measured: heads as browsers and services write them,
//! bodies up and down, both versions of HTTP on both sides, TLS, bytes, and policies that have something to do.

mod clients;
mod origin;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use self::origin::Origin;
use crate::error::{Doing, Failure, Result};
use crate::load::handshakes::Handshakes;
use crate::net;
use crate::process::Running;
use crate::proxy::{SPIFFE_ID, TRUST_DOMAIN, TlsFiles};

/// Longest time from start to ready, and from the signal to the end: a profile is written then.
const PATIENCE: Duration = Duration::from_secs(20);
/// Requests of each client.
const REQUESTS: usize = 3000;
/// Connections of which each begins with a handshake, and how long they go on.
const HANDSHAKES: (usize, bool) = (2, false);
const SHAKING: Duration = Duration::from_secs(2);

/// The ports of the proxy, by what is spoken there.
struct Ports {
    clear: u16,
    tls: u16,
    /// For the proxy itself: mutual TLS.
    mesh: u16,
    tcp: u16,
    admin: u16,
}

/// Starts the proxy, sends it the traffic, and ends it in good order.
pub(crate) fn run(outrigger: &Path, dir: &Path) -> Result<()> {
    let folder = dir.join("train");
    fs::create_dir_all(&folder).doing(folder.display())?;
    let tls = TlsFiles::make(&folder)?;
    let handshakes = Handshakes::new(&tls.certificate)?;
    let origin = Origin::start()?;
    let free = net::free_port;
    let ports = Ports { clear: free()?, tls: free()?, mesh: free()?, tcp: free()?, admin: free()? };
    let file = folder.join("outrigger.yaml");
    fs::write(&file, config(&ports, origin.port(), &tls)).doing(file.display())?;
    let mut command = Command::new(outrigger);
    command.arg("run").arg(&file);
    let mut running = Running::start(command, &folder.join("log"))?;
    running.until(PATIENCE, || net::answers(ports.admin, "/ready") && net::answers(ports.clear, "/"))?;
    let sent = exercise(&ports, &handshakes);
    let sent = sent.map_err(|failure| running.explain(&failure))?;
    running.leave(PATIENCE)?;
    println!("{sent} requests");
    Ok(())
}

/// All clients at once; how many requests were answered as they should be.
fn exercise(ports: &Ports, handshakes: &Handshakes) -> Result<usize> {
    thread::scope(|scope| {
        let mut running = Vec::new();
        // Twice as many of those that are most common.
        for base in ["", "", "/limits", "/limits", "/mesh", "/http2"] {
            for offset in 0..3 {
                running.push(scope.spawn(move || clients::http1(net::connect(ports.clear)?, base, offset)));
            }
            running.push(scope.spawn(move || clients::http2(ports.clear, base)));
        }
        running.push(scope.spawn(|| clients::http1(net::connect(ports.tcp)?, "", 0)));
        running.push(scope.spawn(|| clients::http1(handshakes.connect(ports.tls)?, "", 0)));
        running.push(scope.spawn(|| {
            let load = handshakes.run(ports.tls, HANDSHAKES, SHAKING);
            load.errors.first().map_or(Ok(load.requests as usize), |error| Err(Failure::new(error)))
        }));
        let lost = || Err(Failure::new("a client ended"));
        running.into_iter().map(|client| client.join().unwrap_or_else(|_| lost())).sum()
    })
}

fn config(ports: &Ports, origin: u16, tls: &TlsFiles) -> String {
    let Ports { clear, tls: secure, mesh, tcp, admin } = ports;
    let [certificate, key, _] = tls.mesh.each_ref().map(|file| file.display());
    let (own_certificate, own_key, root) =
        (tls.certificate.display(), tls.key.display(), tls.mesh_root.display());
    format!(
        "workers: 1
admin: 127.0.0.1:{admin}
identity: {{ files: {{ certificate: {certificate}, private_key: {key}, trust: {{ {TRUST_DOMAIN}: {root} }} }} }}
listeners:
  clear:
    bind: 127.0.0.1:{clear}
    routes:
      - match: {{ path: {{ prefix: /limits }} }}
        to: limits
        timeout: 15s
        retry: {{ attempts: 2, conditions: [503, reset], backoff: {{ base: 1ms, max: 2ms }} }}
        concurrency: {{ max: 500, per: {{ header: x-tenant }} }}
        rate_limit: {{ rate: 1000000/s, per: {{ header: x-tenant }} }}
        fallback: {{ respond: {{ status: 200, body: later }} }}
      - {{ match: {{ path: {{ prefix: /mesh }} }}, to: mesh, timeout: 15s }}
      - {{ match: {{ path: {{ prefix: /http2 }} }}, to: http2 }}
      - match: {{ path: {{ prefix: / }} }}
        to: plain
        request_headers: {{ set: {{ x-from: edge }} }}
        response_headers: {{ remove: [x-powered-by] }}
  tls: {{ bind: 127.0.0.1:{secure}, tls: {{ certificate: {own_certificate}, private_key: {own_key} }}, routes: [{{ to: plain }}] }}
  mesh: {{ bind: 127.0.0.1:{mesh}, mtls: permissive, routes: [{{ to: plain }}] }}
  tcp: {{ bind: 127.0.0.1:{tcp}, tcp: {{ to: plain }} }}
clusters:
  plain: {{ endpoints: [127.0.0.1:{origin}], protocol: http1 }}
  limits: {{ endpoints: [127.0.0.1:{origin}], protocol: http1, outlier_detection: {{ consecutive_5xx: 1000 }} }}
  mesh: {{ endpoints: [127.0.0.1:{mesh}], protocol: http1, mtls: {{ peers: [\"{SPIFFE_ID}\"] }} }}
  http2: {{ endpoints: [127.0.0.1:{mesh}], protocol: http2 }}
"
    )
}
