//! HAProxy's configuration (configuration manual, 2.6), as it comes and tuned.
//!
//! It is measured twice because three of its settings decide whole cases. The bars were set against HAProxy as
//! it comes, so that is what they are judged by; yet one who measures proxies would tune it, and a comparison
//! with the defaults alone would flatter ours.

use std::fmt::Write;
use std::process::Command;

use super::{Back, CONNECTIONS, Front, Routes, Setup};
use crate::error::Result;
use crate::tools::Tools;

/// Which of the two is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tuning {
    /// Its defaults: `http-reuse safe`, no splicing, pipes of the kernel's size.
    AsItComes,
    /// What an expert may add.
    Expert,
}

/// What starts it.
pub(crate) fn command(setup: &Setup<'_>, tools: &Tools, tuning: Tuning) -> Result<Command> {
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
    let file = setup.write("haproxy.cfg", &config(setup, tuning))?;
    let mut command = Command::new(tools.haproxy.as_ref().map_err(Clone::clone)?);
    command.arg("-db").arg("-f").arg(file);
    Ok(command)
}

fn config(setup: &Setup<'_>, tuning: Tuning) -> String {
    let Setup { shape, dir, listen, admin: _, backend, tls } = setup;
    let bind = match shape.front {
        Front::Http1 | Front::Tcp => String::new(),
        Front::Http2 => "proto h2".to_owned(),
        Front::Tls => format!("ssl crt {} alpn h2,http/1.1", tls.both.display()),
        Front::Mtls => {
            let (own, root) = (tls.mesh[2].display(), tls.mesh_root.display());
            format!("ssl crt {own} ca-file {root} verify required alpn http/1.1")
        }
    };
    let frontend = match (shape.front, shape.routes) {
        (Front::Tcp, _) => "  default_backend backend\n".to_owned(),
        (_, Routes::Catchall) => {
            format!("{}  default_backend backend\n", forwarded(shape.front))
        }
        (_, Routes::Prefixes(_)) => format!(
            "{}  use_backend %[path,map_beg({})]\n",
            forwarded(shape.front),
            dir.join("routes.map").display()
        ),
    };
    let (mode, tuned, server) = match shape.back {
        Back::Http1 => (HTTP, HTTP_TUNED, String::new()),
        Back::Http2 => (HTTP, HTTP_TUNED, " proto h2".to_owned()),
        Back::Mtls => {
            let (own, root) = (tls.mesh[2].display(), tls.mesh_root.display());
            let checked =
                format!(" ssl crt {own} ca-file {root} verify required verifyhost localhost alpn http/1.1");
            (HTTP, HTTP_TUNED, checked)
        }
        Back::Tcp => (TCP, TCP_TUNED, String::new()),
    };
    let (pipes, tuned) = match tuning {
        Tuning::AsItComes => ("", ""),
        Tuning::Expert => (PIPES, tuned),
    };
    let mut text = format!(
        "global
  nbthread 1
{pipes}  maxconn {CONNECTIONS}
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-bind-curves X25519
defaults
{mode}{tuned}  timeout connect 2s
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

const HTTP: &str = "  mode http
  option http-keep-alive
  option forwardfor
  timeout http-keep-alive 60s
";

const TCP: &str = "  mode tcp\n";

/// `always`: a new client, too, is served over a warm upstream connection, as the other proxies do; `safe` opens
/// one for the first request of each client.
/// Splicing is asked for in so many words: `splice-auto` hardly ever begins it.
const HTTP_TUNED: &str = "  http-reuse always\n  option splice-response\n";

const TCP_TUNED: &str = "  option splice-request\n  option splice-response\n";

const PIPES: &str = "  tune.pipesize 1048576\n";

fn forwarded(front: Front) -> &'static str {
    match front {
        Front::Tls | Front::Mtls => "  http-request set-header X-Forwarded-Proto https\n",
        Front::Http1 | Front::Http2 | Front::Tcp => "  http-request set-header X-Forwarded-Proto http\n",
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::proxy::{Shape, TlsFiles};

    #[track_caller]
    fn check(front: Front, back: Back, tuned: &[&str]) {
        let file = PathBuf::new;
        let mesh = [file(), file(), file()];
        let tls = TlsFiles { certificate: file(), key: file(), both: file(), mesh, mesh_root: file() };
        let shape = Shape { front, back, routes: Routes::Catchall };
        let setup = Setup { shape, dir: PathBuf::new(), listen: 1, admin: 2, backend: 3, tls: &tls };
        let (plain, expert) = (config(&setup, Tuning::AsItComes), config(&setup, Tuning::Expert));
        let added: Vec<&str> = expert.lines().filter(|line| !plain.contains(*line)).map(str::trim).collect();
        assert_eq!(added, tuned);
        assert!(plain.lines().all(|line| expert.contains(line)), "{plain}");
    }

    #[test]
    fn only_the_tuning_differs() {
        let http = ["tune.pipesize 1048576", "http-reuse always", "option splice-response"];
        check(Front::Http1, Back::Http1, &http);
        check(Front::Http2, Back::Http2, &http);
        check(
            Front::Tcp,
            Back::Tcp,
            &["tune.pipesize 1048576", "option splice-request", "option splice-response"],
        );
    }
}
