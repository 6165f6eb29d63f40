//! End to end: the real binary, over real sockets. One binary of tests, so that it links once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access_log;
mod admin;
mod authorization;
mod balance;
mod breaker;
mod chains;
mod cli;
mod concurrency;
mod control;
mod external_authorization;
mod fallback;
mod fault;
mod framing;
mod global_rate_limit;
mod grpc_service;
mod headers;
mod health;
mod hedge;
mod http1;
mod http2;
mod identity;
mod jwt;
mod lifecycle;
mod limits;
mod metrics;
mod mirror;
mod original;
mod outlier;
mod overload;
mod paths;
mod peers;
mod pool;
mod privileges;
mod rate_limit;
mod reload;
mod retry;
mod routing;
mod shadow;
mod tcp;
mod upgrade;

use std::fmt::Display;

/// A configuration of one HTTP listener `web`, that sends everything to the cluster `app` of these endpoints.
fn web<A: Display>(endpoints: impl IntoIterator<Item = A>) -> String {
    web_with("", "", endpoints)
}

/// The same, with further keys of the listener and of the cluster, as `key: value` in one line each.
fn web_with<A: Display>(listener: &str, cluster: &str, endpoints: impl IntoIterator<Item = A>) -> String {
    web_routed("", listener, cluster, endpoints)
}

/// The same, with further keys of the route as well.
fn web_routed<A: Display>(
    route: &str,
    listener: &str,
    cluster: &str,
    endpoints: impl IntoIterator<Item = A>,
) -> String {
    let endpoints: Vec<String> = endpoints.into_iter().map(|endpoint| format!("\"{endpoint}\"")).collect();
    let indent = |text: &str| text.lines().map(|line| format!("\n    {line}")).collect::<String>();
    let deeper = |text: &str| text.lines().map(|line| format!("\n        {line}")).collect::<String>();
    format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0{}\n    routes:\n      - to: app{}\nclusters:\n  app:\n    endpoints: [{}]{}\n",
        indent(listener),
        deeper(route),
        endpoints.join(", "),
        indent(cluster),
    )
}

/// A listener `web` with a route for one path and one for the rest, before a cluster `app` of one endpoint; each with
/// further keys, behind a comma.
fn web_two_routes((path, first): (&str, &str), rest: &str, (endpoint, cluster): (&str, &str)) -> String {
    format!(
        "listeners:
  web:
    bind: 127.0.0.1:0
    routes:
      - {{ match: {{ path: {{ exact: {path} }} }}, to: app{first} }}
      - {{ to: app{rest} }}
clusters:
  app: {{ endpoints: [\"{endpoint}\"]{cluster} }}
"
    )
}
