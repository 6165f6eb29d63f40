//! What a service that is asked whether requests are let in means, and how it is printed.

use std::time::Duration;

use http::HeaderName;

use super::read;
use crate::model::*;
use crate::yaml::print;

#[track_caller]
fn asked(said: &str) -> ExternalAuthorization {
    let text = format!(
        "listeners: {{ web: {{ bind: 127.0.0.1:1, external_authorization: {{ {said} }}, routes: [] }} }}\n\
         clusters: {{ authz: {{ dns: \"authz:1\", protocol: http2 }} }}\n"
    );
    let mesh = read(&text).unwrap().config.mesh;
    let Filter::Http(http) = mesh.listeners["web"].chains.only().unwrap().filter.clone() else {
        panic!("HTTP")
    };
    *http.external_authorization.unwrap()
}

#[test]
fn in_full_and_with_defaults() {
    let names = |names: &[&'static str]| names.iter().map(|name| HeaderName::from_static(name)).collect();
    let default = ExternalAuthorization {
        cluster: Name::new("authz").unwrap(),
        protocol: CheckProtocol::Grpc { context: [].into() },
        show_headers: None,
        set_headers: [].into(),
        body: None,
        timeout: Duration::from_millis(200),
        // Nobody comes in because a service is down.
        on_failure: OnFailure::Deny,
    };
    assert_eq!(asked("grpc: authz"), default);
    let rest = "show_headers: [Cookie], set_headers: [x-user], body: { max: 8KiB, partial: true }, timeout: 1s, on_failure: allow";
    let full = ExternalAuthorization {
        show_headers: Some(names(&["cookie"])),
        set_headers: names(&["x-user"]),
        body: Some(CheckBody { max: 8192.try_into().unwrap(), partial: true }),
        timeout: Duration::from_secs(1),
        on_failure: OnFailure::Allow,
        ..default
    };
    let context = CheckProtocol::Grpc { context: [("a".into(), "1".into())].into() };
    let said = format!("grpc: authz, context: {{ a: \"1\" }}, {rest}");
    assert_eq!(asked(&said), ExternalAuthorization { protocol: context, ..full.clone() });
    for (written, path_prefix) in [("/check", "/check"), ("/check/", "/check"), ("/", "")] {
        let said = format!("http: authz, path_prefix: {written}, response_headers: [set-cookie], {rest}");
        let protocol =
            CheckProtocol::Http { path_prefix: path_prefix.into(), response_headers: names(&["set-cookie"]) };
        assert_eq!(asked(&said), ExternalAuthorization { protocol, ..full.clone() });
    }
}

const PRINTED: &str = "
    external_authorization:
      grpc: authz
      # show_headers: (default: all)
      set_headers: []
      # body: (default: not shown)
      timeout: 200ms
      on_failure: deny
";

#[test]
fn the_full_form_writes_what_was_left_out() {
    let text = "listeners: { web: { bind: 127.0.0.1:1, external_authorization: { grpc: authz }, routes: [] } }\n\
                clusters: { authz: { dns: \"authz:1\", protocol: http2 } }\n";
    let parsed = read(text).unwrap();
    // That a listener asks it is use enough for a cluster.
    assert_eq!(parsed.warnings, []);
    let printed = print(&parsed.config);
    assert!(printed.contains(PRINTED), "{printed}");
}

#[test]
fn a_service_of_grpc_speaks_http2() {
    for protocol in ["auto", "http1"] {
        let text = format!(
            "listeners: {{ web: {{ bind: 127.0.0.1:1, external_authorization: {{ grpc: authz }}, routes: [] }} }}\n\
             clusters: {{ authz: {{ dns: \"authz:1\", protocol: {protocol} }} }}\n"
        );
        let errors = read(&text).unwrap_err().to_string();
        let said = "the cluster `authz` is not asked in HTTP/2; gRPC needs it: write `protocol: http2` in that cluster";
        let place = "test.yaml:1:72: listeners.web.external_authorization.grpc";
        assert_eq!(errors.trim_end(), format!("{place}: {said}"));
        assert!(read(&text.replace("grpc:", "http:")).is_ok());
    }
}
