//! What the policies for failure and load mean, how they are printed, and what is warned of.

use std::num::NonZeroU32;
use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::read;
use crate::model::*;
use crate::yaml::print;

pub(super) const RESILIENCE: &str = include_str!("resilience.yaml");

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn some(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn header(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

fn forward(route: &Route) -> &Forward {
    let Action::Forward(forward) = &route.action else { panic!("{route:?}") };
    forward
}

#[test]
fn routes_in_full() {
    let parsed = read(RESILIENCE).unwrap();
    assert_eq!(parsed.warnings, []);
    let route = &parsed.config.mesh.route_tables["web"].routes[0];
    let retry = Retry {
        attempts: some(3),
        conditions: vec![
            RetryCondition::ConnectFailure,
            RetryCondition::Reset,
            RetryCondition::Status(StatusCode::SERVICE_UNAVAILABLE),
            RetryCondition::Grpc(14),
        ],
        per_try_timeout: Some(ms(300)),
        backoff: Backoff { base: ms(25), max: ms(250) },
        non_idempotent: false,
        max_body: 65_536,
    };
    let stale = Stale { keep: ms(600_000), max_body: 16_384, memory: 1 << 20 };
    let sent = Forward {
        timeout: Some(ms(2000)),
        retry: Some(Box::new(retry)),
        hedge: Some(Hedge { after: HedgeAfter::Percentile(95) }),
        priority: Priority::High,
        mirror: Some(Box::new(Mirror { to: name("cart-next").into(), percent: Percent::whole(5) })),
        fallback: Some(Box::new(Fallback::Stale(stale, Some(Instead::To(name("cart-static").into()))))),
        ..Forward::new(Split::one(name("cart")))
    };
    assert_eq!(*forward(route), sent);
    let concurrency =
        Concurrency { queue: 50, per: LimitKey::Header(header("x-tenant")), ..Concurrency::new(some(100)) };
    assert_eq!(route.concurrency.as_deref(), Some(&concurrency));
    let rate_limit = RateLimit {
        tokens: some(100),
        every: ms(1000),
        burst: some(20),
        per: LimitKey::Header(header("x-api-key")),
        keys: some(10_000),
    };
    assert_eq!(route.rate_limit.as_deref(), Some(&rate_limit));
    let with = AbortWith::Status(StatusCode::SERVICE_UNAVAILABLE);
    let fault = Fault {
        delay: Some(FaultDelay { fixed: ms(100), percent: Percent::whole(10) }),
        abort: Some(FaultAbort { with, percent: Percent::whole(1) }),
        when: Some(header("x-chaos")),
    };
    assert_eq!(route.fault.as_deref(), Some(&fault));
}

#[test]
fn routes_with_defaults() {
    let route = &read(RESILIENCE).unwrap().config.mesh.route_tables["web"].routes[1];
    let fallback = Instead::Respond(Respond { status: StatusCode::OK, body: "[]".into() });
    let sent = Forward {
        retry: Some(Box::default()),
        hedge: Some(Hedge { after: HedgeAfter::Fixed(ms(50)) }),
        mirror: Some(Box::new(Mirror { to: name("cart-next").into(), percent: Percent::ALL })),
        fallback: Some(Box::new(Fallback::Stale(Stale::new(ms(60_000)), Some(fallback)))),
        ..Forward::new(Split::one(name("cart-static")))
    };
    assert_eq!(*forward(route), sent);
    let adaptive = Some(Adaptive { min: some(4), tolerance: 20 });
    assert_eq!(route.concurrency.as_deref(), Some(&Concurrency { adaptive, ..Concurrency::new(some(10)) }));
    let rate_limit = RateLimit {
        tokens: some(30),
        every: ms(60_000),
        burst: some(30),
        per: LimitKey::Source,
        keys: RateLimit::KEYS,
    };
    assert_eq!(route.rate_limit.as_deref(), Some(&rate_limit));
    let abort = FaultAbort { with: AbortWith::Grpc(14), percent: Percent::ALL };
    let fault = Fault { delay: None, abort: Some(abort), when: Some(header("x-chaos")) };
    assert_eq!(route.fault.as_deref(), Some(&fault));
}

#[test]
fn clusters_in_full() {
    let Config { mesh, endpoints } = read(RESILIENCE).unwrap().config;
    let hash = [
        HashOn::Header(header("x-user")),
        HashOn::Cookie { name: "session".into(), made: Some(MadeCookie::new(ms(3_600_000))) },
        HashOn::Source,
    ]
    .map(HashKey::from);
    let outliers = OutlierDetection {
        consecutive_5xx: 6,
        consecutive_gateway: 4,
        consecutive_local: 3,
        success_rate_deviations: 19,
        failure_percent: Percent::whole(50),
        latency_factor: 50,
        min_requests: some(20),
        interval: ms(5000),
        base_ejection: ms(10_000),
        max_ejection: ms(60_000),
        max_ejected: Percent::whole(30),
    };
    let check = HealthCheck {
        probe: Probe::Http("/healthz?full=1".into()),
        interval: ms(2000),
        unhealthy_interval: ms(500),
        idle_interval: ms(30_000),
        timeout: ms(300),
        unhealthy_after: some(5),
        healthy_after: some(1),
    };
    let cart = Cluster {
        balance: Balance::Maglev(Box::new(hash)),
        retry_budget: RetryBudget { percent: Percent::from_millionths(125_000).unwrap(), min: 0 },
        circuit_breaker: CircuitBreaker {
            default: BreakerLimits {
                max_connections: some(512),
                max_pending: 0,
                max_requests: some(256),
                max_retries: 16,
            },
            high: Some(BreakerLimits {
                max_connections: some(512),
                max_pending: 8,
                max_requests: some(256),
                max_retries: 16,
            }),
        },
        outlier_detection: Some(outliers),
        health_check: Some(Box::new(check)),
        panic_threshold: Percent::from_millionths(5_000).unwrap(),
        zone_weights: [("a".into(), 80), ("b".into(), 20)].into(),
        ..Cluster::new(Source::Static)
    };
    assert_eq!(*mesh.clusters["cart"], cart);
    let placed: Vec<_> =
        endpoints["cart"].endpoints.iter().map(|e| (e.zone.as_deref(), e.priority)).collect();
    assert_eq!(placed, [(Some("a"), 0), (Some("b"), 1)]);
}

#[test]
fn clusters_with_defaults() {
    let mesh = read(RESILIENCE).unwrap().config.mesh;
    let next = &mesh.clusters["cart-next"];
    let hash = [HashOn::Cookie { name: "session".into(), made: None }, HashOn::Query("user".into())]
        .map(HashKey::from);
    assert_eq!(next.balance, Balance::RingHash(Box::new(hash)));
    assert_eq!(next.outlier_detection, Some(OutlierDetection::default()));
    assert_eq!(next.health_check.as_deref(), Some(&HealthCheck::new(Probe::Grpc("".into()))));
    let still = Cluster {
        health_check: Some(Box::new(HealthCheck::new(Probe::Tcp))),
        slow_start: ms(30_000),
        ..Cluster::new(Source::Static)
    };
    assert_eq!(*mesh.clusters["cart-static"], still);
}

/// The second route of the file, in full.
const ROUTE: &str = "
      - to: cart-static
        retry:
          attempts: 2
          conditions: [connect-failure, refused-stream, reset, gateway-error]
          # per_try_timeout: (default: none)
          backoff:
            base: 25ms
            max: 250ms
          non_idempotent: false
          max_body: 64KiB
        hedge:
          after: 50ms
        priority: default
        mirror:
          to: cart-next
          percent: 100%
        fallback:
          stale:
            for: 1m
            max_body: 64KiB
            memory: 4MiB
          respond:
            status: 200
            body: \"[]\"
        rate_limit:
          rate: 30/m
          burst: 30
          per: source
          keys: 10000
        concurrency:
          max: 10
          queue: 0
          wait: 1s
          # per: (default: all requests together)
          adaptive:
            min: 4
            tolerance: 2
        fault:
          abort:
            grpc: unavailable
            percent: 100%
          when:
            header: x-chaos
";

/// What it says of a cluster with `outlier_detection: {}` and a check by gRPC, in full.
const JUDGES: &str = "
    outlier_detection:
      consecutive_5xx: 5
      consecutive_gateway: 0
      consecutive_local: 5
      success_rate_deviations: 0
      failure_percent: 0%
      latency_factor: 0
      min_requests: 50
      interval: 10s
      base_ejection: 30s
      max_ejection: 5m
      max_ejected: 50%
    health_check:
      grpc: \"\"
      interval: 5s
      unhealthy_interval: 1s
      idle_interval: 1m
      timeout: 1s
      unhealthy_after: 3
      healthy_after: 2
";

#[test]
fn the_full_form_writes_what_a_policy_leaves_out() {
    let printed = print(&read(RESILIENCE).unwrap().config);
    assert!(printed.contains(ROUTE), "{printed}");
    assert!(printed.contains(JUDGES), "{printed}");
    // What is printed of a file without warnings has none either.
    assert_eq!(read(&printed).unwrap().warnings, []);
}

#[test]
fn attempts_that_nobody_grants() {
    let text = "
listeners: { w: { bind: 127.0.0.1:1, routes: t } }
route_tables:
  t:
    - { match: { path: /a }, to: { a: 1, b: 1 }, retry: {} }
    - { match: { path: /b }, to: { a: 1, c: 1 }, retry: {}, hedge: { after: p9 } }
clusters:
  a: { dns: 'a:1', retry_budget: { percent: 0%, min: 0 } }
  b: { dns: 'a:1' }
  c: { dns: 'a:1', circuit_breaker: { max_retries: 0 } }
";
    let found: Vec<_> = read(text).unwrap().warnings.iter().map(ToString::to_string).collect();
    let said = "no further attempt is ever made: the cluster grants none; see its `retry_budget`, and `max_retries` \
                of its `circuit_breaker`";
    let expected = ["6:50: route_tables.t[1].retry", "6:61: route_tables.t[1].hedge"];
    assert_eq!(found, expected.map(|place| format!("{place}: {said}")));
}

/// What a route says is hashed holds for the cluster in place of others, too.
#[test]
fn a_hash_that_only_a_fallback_takes_is_taken() {
    let warned = |kept: &str| {
        let text = format!(
            "listeners: {{ w: {{ bind: 127.0.0.1:1, routes: [{{ to: a, hash: [source], fallback: {{ {kept}to: c }} }}] }} }}\n\
             clusters: {{ a: {{ dns: 'a:1' }}, c: {{ dns: 'a:1', balance: maglev }} }}\n"
        );
        read(&text).unwrap().warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(warned(""), [""; 0]);
    assert_eq!(warned("stale: { for: 1s }, "), [""; 0]);
}

#[test]
fn a_mirror_and_a_fallback_lead_somewhere() {
    let text = "
listeners: { w: { bind: 127.0.0.1:1, routes: [{ to: a, mirror: { to: b }, fallback: { to: c } }] } }
clusters: { a: { dns: 'a:1' }, b: { dns: 'a:1' }, c: { dns: 'a:1' }, d: { dns: 'a:1' } }
";
    let found: Vec<_> = read(text).unwrap().warnings.iter().map(ToString::to_string).collect();
    assert_eq!(found, ["3:70: clusters.d: no route and no listener leads to this cluster"]);
}

/// Subsets, and everything that may lead to one.
const SUBSETS: &str = "
listeners:
  web:
    bind: 127.0.0.1:8080
    routes:
      - match: { path: /cart }
        to: { cart/v1: 90, cart/v2: 10 }
        mirror: { to: cart/v2 }
        fallback: { to: cart/v1 }
      - to: a/b
  raw:
    bind: 127.0.0.1:8081
    tcp: { to: cart/v2 }
clusters:
  cart:
    endpoints:
      - { address: 127.0.0.1:1, labels: { version: v1, canary: 'false' } }
      - { address: 127.0.0.1:2, labels: { version: v2 } }
    subsets: { v1: { version: v1, canary: 'false' }, v2: { version: v2 } }
    subset_fallback: any
  a/b: { dns: 'b:1' }
";

#[test]
fn subsets() {
    let parsed = read(SUBSETS).unwrap();
    assert_eq!(parsed.warnings, []);
    let Config { mesh, endpoints } = parsed.config;
    let to = |subset| Destination { cluster: name("cart"), subset: Some(name(subset)) };
    let routes = &mesh.route_tables["web"].routes;
    let Forward { to: split, mirror, fallback, .. } = forward(&routes[0]);
    assert_eq!(
        split.targets.iter().map(|target| target.to.clone()).collect::<Vec<_>>(),
        [to("v1"), to("v2")]
    );
    assert_eq!(mirror.as_ref().unwrap().to, to("v2"));
    assert_eq!(fallback.as_deref(), Some(&Fallback::Instead(Instead::To(to("v1")))));
    assert_eq!(forward(&routes[1]).to, Split::one(name("a/b")), "a cluster's name may hold a slash");
    let Filter::Tcp(tcp) = &mesh.listeners["raw"].chains.only().unwrap().filter else { panic!("{mesh:?}") };
    assert_eq!(tcp.to, Split::one(to("v2")));
    let cart = &mesh.clusters["cart"];
    assert_eq!(cart.subset_fallback, SubsetFallback::Any);
    let within: Vec<_> =
        endpoints["cart"].endpoints.iter().map(|e| e.labels.has_all(&cart.subsets["v1"])).collect();
    assert_eq!(within, [true, false]);
}
