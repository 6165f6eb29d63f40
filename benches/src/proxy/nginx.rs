//! nginx's configuration, and the parts of it that the backend shares.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use super::{Back, CONNECTIONS, Front, Routes, Setup};
use crate::error::Result;
use crate::tools::Tools;

/// What starts it.
pub(crate) fn command(setup: &Setup<'_>, tools: &Tools) -> Result<Command> {
    let text = match setup.shape.front {
        Front::Tcp => {
            let module = tools.nginx_stream.as_ref().map_err(Clone::clone)?;
            let load = module.as_ref().map(|file| format!("load_module {};\n", file.display()));
            format!("{}{}", load.unwrap_or_default(), stream(setup))
        }
        Front::Http1 | Front::Http2 | Front::Tls | Front::Mtls => http(setup),
    };
    let file = setup.write("nginx.conf", &text)?;
    let mut command = Command::new(tools.nginx.as_ref().map_err(Clone::clone)?);
    command.arg("-p").arg(&setup.dir).arg("-c").arg(file);
    Ok(command)
}

/// One worker in the foreground, with its files in `dir`.
pub(crate) fn main_context(dir: &Path) -> String {
    // The worker of a master that is root would run as nobody, who may not read our files.
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    let dir = dir.display();
    format!(
        "{user}daemon off;
worker_processes 1;
pid {dir}/pid;
error_log stderr warn;
events {{ worker_connections {CONNECTIONS}; }}
"
    )
}

/// What every HTTP server here wants: long connections, no log, temporary files in `dir`.
pub(crate) fn http_settings(dir: &Path) -> String {
    let mut text = "access_log off;
  sendfile on;
  tcp_nopush on;
  tcp_nodelay on;
  keepalive_timeout 75s;
  keepalive_requests 1000000000;
"
    .to_owned();
    for module in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(text, "  {module}_temp_path {}/{module};", dir.display()).expect("a String takes all");
    }
    text
}

fn stream(setup: &Setup<'_>) -> String {
    let Setup { shape: _, dir, listen, admin: _, backend, tls: _ } = setup;
    format!(
        "{}stream {{
  server {{
    listen 127.0.0.1:{listen};
    proxy_pass 127.0.0.1:{backend};
    proxy_buffer_size 256k;
  }}
}}
",
        main_context(dir)
    )
}

/// What clients are listened to with, and what is shown to them.
fn front(setup: &Setup<'_>) -> (&'static str, String) {
    match setup.shape.front {
        Front::Http1 | Front::Tcp => ("", String::new()),
        Front::Http2 => (" http2", String::new()),
        Front::Tls => (
            " ssl http2",
            format!(
                "ssl_certificate {};\n    ssl_certificate_key {};\n    ssl_protocols TLSv1.3;\n    ssl_ecdh_curve X25519;",
                setup.tls.certificate.display(),
                setup.tls.key.display()
            ),
        ),
        Front::Mtls => (
            " ssl",
            format!(
                "ssl_certificate {};\n    ssl_certificate_key {};\n    ssl_protocols TLSv1.3;\n    ssl_ecdh_curve X25519;\n    \
                 ssl_client_certificate {};\n    ssl_verify_client on;",
                setup.tls.mesh[0].display(),
                setup.tls.mesh[1].display(),
                setup.tls.mesh_root.display()
            ),
        ),
    }
}

/// What the backend is spoken to with.
fn back(setup: &Setup<'_>) -> (&'static str, String) {
    match setup.shape.back {
        Back::Http1 | Back::Http2 | Back::Tcp => ("http", String::new()),
        Back::Mtls => (
            "https",
            format!(
                "proxy_ssl_certificate {};\n  proxy_ssl_certificate_key {};\n  proxy_ssl_protocols TLSv1.3;\n  \
                 proxy_ssl_trusted_certificate {};\n  proxy_ssl_verify on;\n  proxy_ssl_name localhost;",
                setup.tls.mesh[0].display(),
                setup.tls.mesh[1].display(),
                setup.tls.mesh_root.display()
            ),
        ),
    }
}

fn http(setup: &Setup<'_>) -> String {
    let Setup { shape, dir, listen, admin: _, backend, tls: _ } = setup;
    let (listen_as, certificate) = front(setup);
    let (scheme, checked) = back(setup);
    let mut upstreams = String::new();
    let mut locations = String::new();
    for (cluster, prefix) in shape.routes.each() {
        let keep = shape.routes.idle_upstream();
        writeln!(
            upstreams,
            "  upstream {cluster} {{ server 127.0.0.1:{backend}; keepalive {keep}; keepalive_requests 1000000000; }}"
        )
        .expect("a String takes all");
        writeln!(locations, "    location {prefix} {{ proxy_pass {scheme}://{cluster}; }}")
            .expect("a String takes all");
    }
    let hash = match shape.routes {
        Routes::Catchall => "",
        Routes::Prefixes(_) => "proxy_headers_hash_max_size 1024;",
    };
    let (main, settings) = (main_context(dir), http_settings(dir));
    format!(
        "{main}http {{
  {settings}  {hash}
  proxy_http_version 1.1;
  proxy_set_header Connection \"\";
  proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_buffer_size 16k;
  proxy_buffers 8 64k;
  proxy_busy_buffers_size 128k;
  proxy_max_temp_file_size 0;
  {checked}
{upstreams}  server {{
    listen 127.0.0.1:{listen}{listen_as} backlog=4096;
    {certificate}
{locations}  }}
}}
"
    )
}
