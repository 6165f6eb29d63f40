//! HAProxy's configuration (configuration manual, 2.6).

use std::fmt::Write;
use std::process::Command;

use super::{Back, CONNECTIONS, Front, Routes, Setup};
use crate::error::Result;
use crate::tools::Tools;

/// What starts it.
pub(crate) fn command(setup: &Setup<'_>, tools: &Tools) -> Result<Command> {
    if let Routes::Prefixes(_) = setup.shape.routes {
        // One lookup in a prefix tree, where a chain of `use_backend` would compare one by one.
        let lines: String = setup
            .shape
            .routes
            .each()
            .iter()
            .map(|(cluster, prefix)| format!("{prefix} {cluster}\n"))
            .collect();
        setup.write("routes.map", &lines)?;
    }
    let file = setup.write("haproxy.cfg", &config(setup))?;
    let mut command = Command::new(tools.haproxy.as_ref().map_err(Clone::clone)?);
    command.arg("-db").arg("-f").arg(file);
    Ok(command)
}

fn config(setup: &Setup<'_>) -> String {
    let Setup { shape, dir, listen, admin: _, backend, tls } = setup;
    let bind = match shape.front {
        Front::Http1 | Front::Tcp => String::new(),
        Front::Http2 => "proto h2".to_owned(),
        Front::Tls => format!("ssl crt {} alpn h2,http/1.1", tls.both.display()),
    };
    let frontend = match (shape.front, shape.routes) {
        (Front::Tcp, _) => "  default_backend backend\n".to_owned(),
        (_, Routes::Catchall) => format!("{}  default_backend backend\n", forwarded(shape.front)),
        (_, Routes::Prefixes(_)) => format!(
            "{}  use_backend %[path,map_beg({})]\n",
            forwarded(shape.front),
            dir.join("routes.map").display()
        ),
    };
    let (mode, server) = match shape.back {
        Back::Http1 => (HTTP, ""),
        Back::Http2 => (HTTP, " proto h2"),
        Back::Tcp => (TCP, ""),
    };
    let mut text = format!(
        "global
  nbthread 1
  tune.pipesize 1048576
  maxconn {CONNECTIONS}
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-bind-curves X25519
defaults
{mode}  timeout connect 2s
  timeout client 60s
  timeout server 60s
frontend bench
  bind 127.0.0.1:{listen} backlog 4096 {bind}
{frontend}"
    );
    for (cluster, _) in shape.routes.each() {
        write!(text, "backend {cluster}\n  server one 127.0.0.1:{backend}{server}\n")
            .expect("a String takes all");
    }
    text
}

/// `always`: a new client, too, is served over a warm upstream connection, as the other proxies do.
/// Splicing is asked for in so many words: `splice-auto` hardly ever begins it.
const HTTP: &str = "  mode http
  option splice-response
  option http-keep-alive
  option forwardfor
  http-reuse always
  timeout http-keep-alive 60s
";

const TCP: &str = "  mode tcp\n  option splice-request\n  option splice-response\n";

fn forwarded(front: Front) -> &'static str {
    match front {
        Front::Tls => "  http-request set-header X-Forwarded-Proto https\n",
        Front::Http1 | Front::Http2 | Front::Tcp => "  http-request set-header X-Forwarded-Proto http\n",
    }
}
