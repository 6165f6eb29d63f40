//! The schema is held against the decoders, and against documents.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::files::FULL;
use super::read;
use super::resilience::RESILIENCE;
use crate::model::random;
use crate::yaml::cursor::asked;
use crate::yaml::scalar::{Core, boolean, core};
use crate::yaml::tree::{self, Node, View};
use crate::yaml::{print, schema};

/// A document in which every kind of mapping occurs.
const EVERYTHING: &str = "
shutdown: {}
access_log: {}
overload: {}
node: { id: a, locality: {}, metadata: { a: [1, { b: c }] } }
xds: { server: 'https://a:1' }
privileges: {}
identity: { files: { certificate: a, private_key: b, trust: { t: c } } }
listeners:
  a:
    bind: 127.0.0.1:0
    tls: { certificates: [{ certificate: a, private_key: b }], client: required, client_trust: c, revocation: { crls: [d] } }
    limits: {}
    routes:
      - match: { path: { exact: /a }, headers: { x: { present: true } } }
        to: { c: { request_headers: {} } }
        rewrite: { regex: { pattern: a, with: b } }
        retry: { backoff: {} }
        hedge: { after: p95 }
        mirror: { to: c }
        fallback: { stale: { for: 1s }, respond: {} }
        rate_limit: { rate: 1/s, per: { header: x } }
        global_rate_limit: { cluster: c, domain: d, descriptors: [[{ key: a, value: b, unless: { query: { a: b } } }, { key: a, value: b, when: { headers: { a: b } } }, { header: a, as: b, optional: true }, { query: a }, source_cluster]] }
        concurrency: { max: 1, adaptive: {} }
        priority: high
        hash: [{ header: x, terminal: true }, { cookie: { name: a, ttl: 1s, path: /a } }, source]
        fault: { delay: { fixed: 1s }, abort: { grpc: 14 }, when: { header: x } }
      - redirect: { to: /b }
      - respond: {}
  b: { bind: 127.0.0.1:0, tcp: { to: c } }
clusters:
  c:
    endpoints: [{ address: 127.0.0.1:1 }]
    protocol: http2
    tls: { sans: [a] }
    balance: { maglev: { hash: [{ cookie: { name: a } }] } }
    retry_budget: {}
    circuit_breaker: { high: {} }
    outlier_detection: {}
    health_check: { tcp: {} }
";

/// What cannot stand beside that.
const INSTEAD: &str = "
identity: { csr: { server: 'https://a:1' } }
listeners:
  a: { bind: 127.0.0.1:0, original_destination: redirect, mtls: permissive, tcp: { to: c } }
  c: { bind: 127.0.0.1:0, jwt: [{ issuer: a, jwks: 'https://a/b', jwks_trust: c, audiences: d }], global_rate_limit: { cluster: c, domain: d }, external_authorization: { grpc: c, body: { max: 1B } }, authorization: [{ audit: {} }, { allow: { paths: [/a, { exact: /b }], headers: { x: y }, ports: [1], claims: { a: b } } }], routes: [{ respond: {}, global_rate_limit: { descriptors: [[source]] }, external_authorization: { context: {} } }] }
  b: { bind: 127.0.0.1:0, tls: { certificate: a, private_key: b }, tcp: { to: c } }
  d: { bind: 127.0.0.1:0, chains: [{ when: { port: 1, destination: ::1, sni: [a.b, '*.b'], transport: tls, alpn: h2, direct_source: ::1, origin: local, source: 10.0.0.0/8, source_port: [1, 2] }, jwt: [{ issuer: a, jwks: { inline: '{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}]}' }, audiences: c }], mtls: strict, global_rate_limit: { cluster: c, domain: d }, external_authorization: { grpc: c }, authorization: [{ allow: {} }], limits: {}, trusted_proxies: [], merge_slashes: true, routes: t }, { tls: { certificate: a, private_key: b }, tcp: { to: c } }], rest: { tcp: { to: c } } }
route_tables: { t: [{ respond: {} }] }
clusters: { c: { endpoints: [127.0.0.1:1], protocol: http2, mtls: { peers: ['spiffe://t/*'] } }, d: { dns: { host: 'a:1', use: first } }, e: { original_destination: { header: x-a, port: 1, cleanup: 1s, max_endpoints: 2 } } }
";

#[test]
fn the_keys_are_those_that_the_decoders_ask_for() {
    asked::take();
    read(EVERYTHING).unwrap();
    read(INSTEAD).unwrap();
    let asked: BTreeSet<_> =
        asked::take().into_iter().map(|(k, key)| (k.to_owned(), key.to_owned())).collect();
    let mut described = BTreeSet::new();
    for (kind, definition) in schema()["$defs"].as_object().unwrap() {
        for key in definition["properties"].as_object().into_iter().flat_map(Map::keys) {
            described.insert((kind.clone(), key.clone()));
        }
    }
    assert_eq!(asked, described);
}

#[test]
fn every_reference_leads_somewhere_and_every_definition_is_used() {
    let schema = schema();
    let text = schema.to_string();
    let definitions = schema["$defs"].as_object().unwrap();
    for name in definitions.keys() {
        assert!(text.contains(&format!("\"#/$defs/{name}\"")), "{name} is not used");
    }
    for part in text.split("\"#/$defs/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(definitions.contains_key(name), "{name} is not defined");
    }
}

#[track_caller]
fn check(text: &str, fits: bool) {
    let schema = schema();
    let (tree, errors) = tree::read(text);
    assert_eq!(errors, []);
    let value = json(tree.root().unwrap());
    assert_eq!(valid(&schema, &schema, &value), fits, "{text}");
}

#[test]
fn documents_fit_the_schema() {
    check(FULL, true);
    check(RESILIENCE, true);
    check(EVERYTHING, true);
    check(INSTEAD, true);
    check("listeners: {}\nworkers: ${N:-2}\n", true);
    check("clusters: {}\n", false);
    check("listeners: {}\nworkers: 0\n", false);
    check("listeners: {}\nworker: 1\n", false);
    check("listeners: { a: { bind: 127.0.0.1:1 } }\n", false);
    check("listeners: { a: { bind: 127.0.0.1:1, routes: [{ to: a, respond: {} }] } }\n", false);
    check("listeners: {}\nshutdown: { deadline: 5 }\n", false);
    let cluster = |inside: &str| format!("listeners: {{}}\nclusters: {{ a: {{ dns: 'a:1', {inside} }} }}\n");
    check(&cluster("panic_threshold: 0.5%, outlier_detection: { latency_factor: 2.5 }"), true);
    check(&cluster("panic_threshold: 50, health_check: { http: /x }, balance: random"), true);
    check(&cluster("panic_threshold: 101"), false);
    let fallback = |inside: &str| {
        format!(
            "listeners: {{ a: {{ bind: 127.0.0.1:1, routes: [{{ to: a, fallback: {{ {inside} }} }}] }} }}\n"
        )
    };
    for fits in ["stale: 1m", "stale: { for: 1m, memory: 1MiB }, to: b", "to: b", "stale: 1m, respond: {}"] {
        check(&fallback(fits), true);
    }
    for unfit in ["", "to: b, respond: {}", "stale: 1m, to: b, respond: {}", "stale: { memory: 1MiB }"] {
        check(&fallback(unfit), false);
    }
    check(&cluster("subsets: { v1: { version: v1 } }, subset_fallback: any"), true);
    check(&cluster("subsets: { v1: {} }"), false);
    check(&cluster("subset_fallback: all"), false);
    check(&cluster("zone_weights: { a: 0, b: 80 }"), true);
    check(&cluster("zone_weights: { a: -1 }"), false);
    check(&cluster("health_check: {}"), false);
    check(&cluster("balance: maglev"), true);
    check(&cluster("balance: { maglev: {} }"), false);
    check(&cluster("balance: { maglev: { hash: [] } }"), false);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_fits_the_schema(config in random::config()) {
        check(&print(&config), true);
    }
}

fn json(node: Node<'_>) -> Value {
    match node.view() {
        View::List => node.items().map(json).collect(),
        View::Map => Value::Object(node.entries().map(|e| (e.key.to_owned(), json(e.value))).collect()),
        View::Quoted(text) => text.into(),
        View::Broken => Value::Null,
        View::Plain(text) => match core(text) {
            Core::Null => Value::Null,
            Core::Bool => boolean(text).unwrap().into(),
            Core::Int | Core::Float => text.parse::<serde_json::Number>().unwrap().into(),
            Core::Str => text.into(),
        },
    }
}

/// As much of JSON Schema as ours uses; an unknown keyword fails the test.
fn valid(root: &Value, schema: &Value, value: &Value) -> bool {
    schema.as_object().unwrap().iter().all(|(keyword, rule)| {
        let list = || rule.as_array().unwrap();
        let length = || rule.as_u64().and_then(|n| usize::try_from(n).ok()).unwrap();
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" => true,
            "$ref" => valid(root, root.pointer(&rule.as_str().unwrap()[1..]).unwrap(), value),
            "type" => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_u64(),
                "number" => value.is_number(),
                "boolean" => value.is_boolean(),
                other => panic!("{other}"),
            },
            "enum" => list().contains(value),
            "const" => rule == value,
            "anyOf" => list().iter().any(|schema| valid(root, schema, value)),
            "not" => !valid(root, rule, value),
            "oneOf" => list().iter().filter(|schema| valid(root, schema, value)).count() == 1,
            "minimum" => value.as_f64().is_none_or(|n| n >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|n| n <= rule.as_f64().unwrap()),
            "minItems" => value.as_array().is_none_or(|items| items.len() >= length()),
            "minProperties" => value.as_object().is_none_or(|object| object.len() >= length()),
            "maxProperties" => value.as_object().is_none_or(|object| object.len() <= length()),
            "minLength" => value.as_str().is_none_or(|text| text.chars().count() >= length()),
            "maxLength" => value.as_str().is_none_or(|text| text.chars().count() <= length()),
            "pattern" => value
                .as_str()
                .is_none_or(|text| regex::Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)),
            "items" => value.as_array().is_none_or(|items| items.iter().all(|item| valid(root, rule, item))),
            "required" => value
                .as_object()
                .is_none_or(|o| list().iter().all(|key| o.contains_key(key.as_str().unwrap()))),
            "properties" => value.as_object().is_none_or(|object| {
                object
                    .iter()
                    .all(|(key, value)| rule.get(key).is_none_or(|schema| valid(root, schema, value)))
            }),
            "additionalProperties" => value.as_object().is_none_or(|object| {
                let known =
                    |key: &String| schema.get("properties").is_some_and(|known| known.get(key).is_some());
                let mut others = object.iter().filter(|(key, _)| !known(key));
                match rule {
                    Value::Bool(allowed) => *allowed || others.next().is_none(),
                    _ => others.all(|(_, value)| valid(root, rule, value)),
                }
            }),
            other => panic!("{other}"),
        }
    })
}
