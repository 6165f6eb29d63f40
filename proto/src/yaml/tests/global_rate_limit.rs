//! What a global rate limit means, how it is printed, and what is said of it and its service together.

use std::num::NonZeroU32;
use std::time::Duration;

use http::HeaderName;

use super::read;
use crate::model::*;
use crate::yaml::print;

/// A document of routes with this limit each, the clusters `app` and `rls`, and a protocol for the latter.
fn document(protocol: &str, routes: &str) -> String {
    format!(
        "listeners: {{ web: {{ bind: 127.0.0.1:1, routes: [\n{routes}\n] }} }}\nclusters: {{ app: {{ dns: \"app:1\" }}, \
         rls: {{ dns: \"rls:1\"{protocol} }} }}\n"
    )
}

const HTTP2: &str = ", protocol: http2";

#[track_caller]
fn limit(route: &str) -> GlobalRateLimit {
    let parsed = read(&document(HTTP2, route)).unwrap();
    assert_eq!(parsed.warnings.iter().filter(|warning| !warning.path.starts_with("clusters")).count(), 0);
    *parsed.config.mesh.route_tables["web"].routes[0].global_rate_limit.clone().unwrap()
}

#[test]
fn in_full_and_with_defaults() {
    let key = DescriptorEntry::Header {
        name: HeaderName::from_static("x-api-key"),
        key: "x-api-key".into(),
        absent: Absent::Descriptor,
    };
    let fixed = DescriptorEntry::Fixed { key: "path".into(), value: "cart".into(), only: None };
    let service = RateLimitService {
        cluster: Name::new("rls").unwrap(),
        domain: "shop".into(),
        timeout: Duration::from_millis(20),
        on_failure: OnFailure::Deny,
        cache: 0,
    };
    let full = GlobalRateLimit {
        service: Some(service.clone()),
        descriptors: vec![vec![key, fixed], vec![DescriptorEntry::Source]],
        hits: NonZeroU32::new(3).unwrap(),
    };
    let said = "cluster: rls, domain: shop, descriptors: [[{ header: X-Api-Key }, { key: path, value: cart }], [source]]";
    let rest = "timeout: 20ms, on_failure: deny, hits: 3, cache: 0";
    assert_eq!(limit(&format!("{{ to: app, global_rate_limit: {{ {said}, {rest} }} }}")), full);
    let service = RateLimitService {
        timeout: Duration::from_millis(50),
        on_failure: OnFailure::Allow,
        cache: 1_000,
        ..service
    };
    let default = GlobalRateLimit { service: Some(service), hits: NonZeroU32::MIN, ..full };
    // Any route may ask.
    assert_eq!(limit(&format!("{{ respond: {{}}, global_rate_limit: {{ {said} }} }}")), default);
}

const PRINTED: &str = "
        global_rate_limit:
          cluster: rls
          domain: shop
          timeout: 50ms
          on_failure: allow
          cache: 1000
          descriptors: [[source, { header: x-a }], [{ key: path, value: \"a b\" }]]
          hits: 1
";

#[test]
fn the_full_form_writes_what_was_left_out() {
    let descriptors = "[[source, { header: x-a }], [{ key: path, value: a b }]]";
    let said = format!("cluster: rls, domain: shop, descriptors: {descriptors}");
    let parsed = read(&document(HTTP2, &format!("{{ to: app, global_rate_limit: {{ {said} }} }}"))).unwrap();
    let printed = print(&parsed.config);
    assert!(printed.contains(PRINTED), "{printed}");
}

#[test]
fn the_service_is_a_cluster_that_is_led_to_and_speaks_http2() {
    let route = "{ to: app, global_rate_limit: { cluster: rls, domain: d, descriptors: [[source]] } }";
    assert_eq!(read(&document(HTTP2, route)).unwrap().warnings, []);
    for protocol in ["", ", protocol: http1"] {
        let errors = read(&document(protocol, route)).unwrap_err().to_string();
        let said = "the cluster `rls` is not asked in HTTP/2; gRPC needs it: write `protocol: http2` in that cluster";
        let place = "test.yaml:2:42: listeners.web.routes[0].global_rate_limit.cluster";
        assert_eq!(errors.trim_end(), format!("{place}: {said}"));
    }
}

#[test]
fn a_timeout_that_has_no_effect_is_warned_of() {
    let warnings = |timeouts: (&str, &str)| {
        let limit = format!("{{ cluster: rls, domain: d, descriptors: [[source]]{} }}", timeouts.1);
        let route = format!("{{ to: app, timeout: {}, global_rate_limit: {limit} }}", timeouts.0);
        read(&document(HTTP2, &route)).unwrap().warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let said = "the route's `timeout` ends a request before this has an effect; write a time below `timeout`";
    let place = "listeners.web.routes[0].global_rate_limit";
    assert_eq!(warnings(("50ms", "")), [format!("2:27: {place}: {said}")]);
    assert_eq!(warnings(("1s", ", timeout: 1s")), [format!("2:96: {place}.timeout: {said}")]);
    assert!(warnings(("1s", "")).is_empty());
}
