//! The files that the contract names, and what they mean.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{read, read_at};
use crate::model::*;
use crate::yaml::print;

const QUICKSTART: &str = include_str!("quickstart.yaml");
pub(super) const FULL: &str = include_str!("full.yaml");

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn quickstart() {
    let parsed = read(QUICKSTART).unwrap();
    assert_eq!(parsed.warnings, []);
    let Config { mesh, endpoints } = parsed.config;
    assert_eq!(mesh.process, Process::default());
    let listener = &mesh.listeners["web"];
    assert_eq!(listener.bind.to_string(), "127.0.0.1:8080");
    assert_eq!(listener.chains.only().unwrap().limits, Limits::default());
    let Filter::Http(http) = &listener.chains.only().unwrap().filter else { panic!("{listener:?}") };
    assert_eq!(http.routes, name("web"));
    assert!(http.merge_slashes);
    let routes = &mesh.route_tables["web"].routes;
    assert_eq!(routes.len(), 1);
    assert_eq!(routes[0].matches, Match::default());
    assert_eq!(routes[0].action, Action::Forward(Forward::new(Split::one(name("app")))));
    assert_eq!(*mesh.clusters["app"], Cluster::new(Source::Static));
    let shown: Vec<_> =
        endpoints["app"].endpoints.iter().map(|e| (e.address.to_string(), e.weight.get())).collect();
    let expected = ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"].map(|a| (a.to_owned(), 1));
    assert_eq!(shown, expected);
}

#[test]
fn full_process_and_listeners() {
    let mesh = read_at(FULL, Path::new("/etc/outrigger")).unwrap().config.mesh;
    let process = mesh.process;
    assert_eq!(process.workers.unwrap().get(), 2);
    assert_eq!(
        (process.admin.address.to_string().as_str(), process.admin.written),
        ("127.0.0.1:15000", true)
    );
    assert_eq!(process.shutdown, Shutdown::default());
    assert_eq!(process.access_log, Some(AccessLog { format: LogFormat::Json, to: LogTarget::Stdout }));
    let public = mesh.listeners["public"].chains.only().unwrap();
    let Some(DownstreamTls::Own(tls)) = &public.tls else { panic!("TLS with a certificate") };
    let [Certificate::Files(tls)] = &*tls.certificates else { panic!("one certificate") };
    assert_eq!(tls.certificate, PathBuf::from("/etc/outrigger/tls.crt"));
    assert_eq!(tls.private_key, PathBuf::from("/etc/outrigger/tls.key"));
    assert_eq!(public.limits, Limits { body: std::num::NonZeroU64::new(100 << 20), ..Limits::default() });
    let hour = Duration::from_secs(3600);
    let tcp = TcpFilter { to: Split::one(name("postgres")), idle_timeout: hour };
    assert_eq!(mesh.listeners["database"].chains.only().unwrap().filter, Filter::Tcp(tcp));
}

#[test]
fn full_routes() {
    let mesh = read(FULL).unwrap().config.mesh;
    let routes = &mesh.route_tables["public"].routes;
    let cart = &routes[0];
    let hosts =
        [HostPattern::Exact("shop.example.com".into()), HostPattern::Suffix(".shop.example.com".into())];
    assert_eq!(cart.matches.hosts, hosts);
    assert_eq!(cart.matches.path, PathMatch::Prefix("/cart".into()));
    assert_eq!(cart.matches.methods, [http::Method::GET, http::Method::POST]);
    let Action::Forward(forward) = &cart.action else { panic!("{cart:?}") };
    assert_eq!(forward.timeout, Some(Duration::from_secs(2)));
    let items = &routes[1];
    let PathMatch::Regex(pattern) = &items.matches.path else { panic!("{items:?}") };
    assert_eq!(pattern.as_str(), "^/v[0-9]+/items$");
    assert_eq!(items.matches.headers[0].value, StringMatch::Exact("1".into()));
    assert_eq!(items.matches.query[0].value, StringMatch::Exact("true".into()));
    let Action::Forward(forward) = &items.action else { panic!("{items:?}") };
    let weights: Vec<_> =
        forward.to.targets.iter().map(|t| (t.to.cluster.as_str(), t.weight.get())).collect();
    assert_eq!(weights, [("items-v1", 90), ("items-v2", 10)]);
    assert_eq!(forward.rewrite.path, Some(PathRewrite::Whole("/items".into())));
    assert_eq!(forward.rewrite.host.as_ref().unwrap(), "items.internal");
    assert_eq!(items.request_headers.set[0].1, "edge");
    assert_eq!(items.request_headers.add[0].1, "outrigger");
    assert_eq!(items.request_headers.remove, ["x-secret"]);
    assert_eq!(items.response_headers.remove, [http::header::SERVER]);
    let Action::Redirect(redirect) = &routes[2].action else { panic!() };
    assert_eq!(
        (redirect.to.as_bytes(), redirect.status.as_u16()),
        (&b"https://shop.example.com/new"[..], 301)
    );
    assert_eq!(routes[3].matches.path, PathMatch::Prefix("/grpc.health.v1.Health".into()));
    let Action::Respond(respond) = &routes[4].action else { panic!() };
    assert_eq!((respond.status.as_u16(), &*respond.body), (404, "nothing here\n"));
}

#[test]
fn full_clusters() {
    let parsed = read(FULL).unwrap();
    let Config { mesh, endpoints } = parsed.config;
    let cart = &mesh.clusters["cart"];
    assert_eq!((&cart.balance, cart.connect_timeout), (&Balance::LeastRequest, Duration::from_secs(1)));
    assert_eq!(endpoints["cart"].endpoints[1].weight.get(), 2);
    assert_eq!(mesh.clusters["items-v2"].protocol, Protocol::Http1);
    assert_eq!(mesh.clusters["grpc-backend"].protocol, Protocol::Http2);
    let port = std::num::NonZeroU16::new(5432).unwrap();
    assert_eq!(
        mesh.clusters["postgres"].source,
        Source::Dns { host: "localhost".into(), port, uses: DnsUse::All }
    );
    assert!(!endpoints.contains_key("postgres"));
    assert_eq!(parsed.warnings, []);
}

#[test]
fn the_full_form_writes_every_default() {
    let expected = "\
# workers: (default: the CPUs of the cgroup, rounded up)
# admin: 127.0.0.1:15000  (default)
shutdown:
  lame_duck: 0s
  quiet: 2s
  deadline: 30s
access_log: none
overload:
  memory: 90%
  descriptors: 90%
  connections: none
privileges:
  # user: (default: whoever it was started as)
  root: warn
listeners:
  web:
    bind: 127.0.0.1:8080
    direction: inbound
    original_destination: none
    limits:
      connections: 10000
      header_bytes: 60KiB
      headers: 100
      # body: (default: no limit)
      header_timeout: 10s
      idle_timeout: 1h
      streams: 128
    trusted_proxies: []
    merge_slashes: true
    routes:
      - to: app
        priority: default
clusters:
  app:
    endpoints:
      - { address: 127.0.0.1:9001, weight: 1, priority: 0 }
      - { address: 127.0.0.1:9002, weight: 1, priority: 0 }
      - { address: 127.0.0.1:9003, weight: 1, priority: 0 }
    balance: peak-ewma
    protocol: auto
    connect_timeout: 5s
    idle_timeout: 55s
    retry_budget:
      percent: 20%
      min: 3
    circuit_breaker:
      max_connections: 1024
      max_pending: 1024
      max_requests: 1024
      max_retries: 64
      # high: (default: as many again)
    slow_start: 0s
    panic_threshold: 0%
";
    assert_eq!(print(&read(QUICKSTART).unwrap().config), expected);
}

#[test]
fn variables_are_typed_where_they_stand() {
    let text = "
workers: ${WORKERS}
listeners:
  web:
    bind: 127.0.0.1:${PORT}
    merge_slashes: ${NONE:-false}
    routes:
      - match: { headers: { x: \"${PORT}\", y: $$1, z: '$${PORT}' } }
        respond: { status: \"${NONE:-204}\" }
";
    let mesh = read(text).unwrap().config.mesh;
    assert_eq!(mesh.process.workers.unwrap().get(), 3);
    assert_eq!(mesh.listeners["web"].bind.to_string(), "127.0.0.1:9001");
    let headers = &mesh.route_tables["web"].routes[0].matches.headers;
    let values: Vec<_> = headers.iter().map(|header| &header.value).collect();
    let exact = |text: &str| StringMatch::Exact(text.into());
    assert_eq!(values, [&exact("9001"), &exact("$1"), &exact("${PORT}")]);
}

#[test]
fn tables_and_hosts_and_splits() {
    let text = "
listeners:
  a: { bind: 127.0.0.1:1, direction: outbound, routes: shared, trusted_proxies: [10.0.0.0/8, '::1'] }
  b: { bind: 127.0.0.1:2, routes: shared }
  c: { bind: 127.0.0.1:3, access: 1, routes: [] }
  d: { bind: 127.0.0.1:4, limits: { idle_timeout: 5s }, tcp: { to: { x: 0, y: { weight: 3 } } } }
route_tables:
  shared:
    - { match: { host: '*', path: / }, to: { x: { request_headers: { add: { via: [a, b] } } } } }
    - { match: { host: [A.Example.com, '[::1]'], path: /api/, methods: GET }, to: y,
        rewrite: { prefix: / } }
clusters:
  x: { endpoints: ['unix:/run/x.sock'] }
  y: { dns: DB.internal:5 }
";
    let mesh = read(&text.replace("access: 1, ", "")).unwrap().config.mesh;
    assert_eq!(mesh.route_tables.len(), 2);
    let routes = &mesh.route_tables["shared"].routes;
    assert_eq!(routes[0].matches, Match { path: PathMatch::Prefix("".into()), ..Match::default() });
    let Action::Forward(first) = &routes[0].action else { panic!() };
    assert_eq!(first.to.targets[0].weight.get(), 1);
    assert_eq!(first.to.targets[0].request_headers.add.len(), 2);
    let hosts = [HostPattern::Exact("a.example.com".into()), HostPattern::Exact("[::1]".into())];
    assert_eq!(routes[1].matches.hosts, hosts);
    let Action::Forward(second) = &routes[1].action else { panic!() };
    assert_eq!(second.rewrite.path, Some(PathRewrite::Prefix("".into())));
    let Filter::Tcp(tcp) = &mesh.listeners["d"].chains.only().unwrap().filter else { panic!() };
    assert_eq!(tcp.idle_timeout, Duration::from_secs(5));
    assert_eq!(tcp.to.targets.len(), 1);
    assert_eq!(tcp.to.targets[0].to, name("y").into());
    let Source::Dns { host, port: _, uses: _ } = &mesh.clusters["y"].source else { panic!() };
    assert_eq!(&**host, "db.internal");
}

#[test]
fn log_files_are_relative_to_the_document() {
    let text = "access_log: { to: ./log/access.log }\nlisteners: {}\n";
    let mesh = read_at(text, Path::new("/etc/o")).unwrap().config.mesh;
    let to = LogTarget::File(PathBuf::from("/etc/o/log/access.log"));
    assert_eq!(mesh.process.access_log, Some(AccessLog { format: LogFormat::Text, to }));
}

/// A bound against accidents of complexity, not a measurement: a debug build needs about a second.
#[test]
fn ten_thousand_routes() {
    let mut text = "listeners:\n  web:\n    bind: 127.0.0.1:1\n    routes:\n".to_owned();
    for i in 0..10_000 {
        text += &format!("      - match: {{ host: h{i}.example.com, path: /p{i} }}\n        to: c{i}\n");
    }
    text += "clusters:\n";
    for i in 0..10_000 {
        text += &format!("  c{i}: {{ endpoints: [10.0.{}.{}:80] }}\n", i / 250, i % 250);
    }
    let config = read(&text).unwrap().config;
    assert_eq!(config.mesh.route_tables["web"].routes.len(), 10_000);
    assert_eq!(config.endpoints.len(), 10_000);
    let wrong = read(&text.replace("to: c", "to: d")).unwrap_err();
    assert_eq!(wrong.errors.len(), 10_000);
}

#[test]
fn thresholds_of_overload() {
    let rows = [
        ("", Overload::default()),
        (
            "overload: { memory: 0.001% }",
            Overload { memory: Percent::from_millionths(10), ..Overload::default() },
        ),
        (
            "overload: { memory: none, descriptors: 75 }",
            Overload { memory: None, descriptors: Some(Percent::whole(75)), connections: None },
        ),
        (
            "overload: { descriptors: \"${NONE:-none}\", connections: 5000 }",
            Overload { descriptors: None, connections: NonZeroU32::new(5000), ..Overload::default() },
        ),
    ];
    for (text, expected) in rows {
        let parsed = read(&format!("{text}\nlisteners: {{}}\n")).unwrap();
        assert_eq!(parsed.config.mesh.process.overload, expected, "{text}");
    }
}

#[test]
fn a_name_stands_for_all_of_its_addresses_or_for_one_endpoint() {
    let of = |dns: &str| {
        let file = format!(
            "listeners: {{ l: {{ bind: \"127.0.0.1:1\", tcp: {{ to: a }} }} }}\nclusters: {{ a: {{ dns: {dns} }} }}"
        );
        read(&file).map(|parsed| parsed.config.mesh.clusters["a"].source.clone())
    };
    let expected = |uses| Some(Source::Dns { host: "a.test".into(), port: 1.try_into().unwrap(), uses });
    for (dns, uses) in [
        ("\"a.test:1\"", DnsUse::All),
        ("{ host: \"a.test:1\" }", DnsUse::All),
        ("{ host: \"a.test:1\", use: all }", DnsUse::All),
        ("{ host: \"a.test:1\", use: first }", DnsUse::First),
    ] {
        assert_eq!(of(dns).ok(), expected(uses), "{dns}");
    }
    assert!(of("{ use: first }").is_err());
    assert!(of("{ host: \"a.test:1\", use: second }").is_err());
}
