//! Configurations at random: everything that the YAML form can say.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::model::*;

mod authorization;
mod chains;
mod policies;
pub(crate) mod tls;

pub(crate) use self::chains::chains;

pub(crate) fn config() -> impl Strategy<Value = Config> {
    let name = || text_name().prop_map(|n| Name::new(&n).unwrap());
    let clusters = btree_map(name(), cluster_and_endpoints(), 1..5);
    let tables = btree_map(name(), vec(any_route(), 0..4), 0..3);
    let listeners = btree_map(name(), (any_listener(), any::<bool>()), 0..4);
    let process = (process(), option::of(tls::identity()));
    (process, clusters, tables, listeners)
        .prop_map(|(process, clusters, tables, listeners)| assemble(process, clusters, tables, listeners))
}

type RawRoute = (Route, Vec<Index>);
type RawListener = (Listener, Vec<Index>, Vec<RawRoute>);

/// Points every reference at something that exists, and gives every listener a port of its own.
fn assemble(
    (process, identity): (Process, Option<Identity>),
    clusters: BTreeMap<Name, (Cluster, Assignment)>,
    tables: BTreeMap<Name, Vec<RawRoute>>,
    listeners: BTreeMap<Name, (RawListener, bool)>,
) -> Config {
    let names: Vec<Destination> = clusters.iter().flat_map(destinations).collect();
    let http2 = |(name, (cluster, _)): (&Name, &(Cluster, _))| {
        (cluster.protocol == Protocol::Http2).then(|| name.clone())
    };
    let services: Vec<Name> = clusters.iter().filter_map(http2).collect();
    let resolve = |routes: Vec<RawRoute>| RouteTable {
        routes: routes
            .into_iter()
            .map(|(mut route, picks)| {
                if let Action::Forward(forward) = &mut route.action {
                    point(&mut forward.to, &names, &picks);
                    point_aside(forward, &names, &picks);
                }
                point_to_service(&mut route, &services, &picks);
                route
            })
            .collect(),
        on_demand: false,
    };
    let mut mesh = Mesh { process, identity: identity.map(Into::into), ..Mesh::default() };
    mesh.route_tables = tables.into_iter().map(|(name, routes)| (name, resolve(routes))).collect();
    for (i, (name, ((mut listener, picks, routes), share))) in listeners.into_iter().enumerate() {
        if let Address::Ip(ip) = &mut listener.bind {
            ip.set_port(20_000 + u16::try_from(i).unwrap());
        } else {
            listener.bind = Address::Unix(format!("/run/{i} a.sock").into());
            listener.destination = DestinationSource::Bound;
        }
        for chain in listener.chains.each_mut() {
            match &mut chain.filter {
                Filter::Tcp(tcp) => point(&mut tcp.to, &names, &picks),
                Filter::Http(http) => {
                    authorization::point(&mut http.external_authorization, (&names, &services), &picks);
                    http.rate_limit_service = http.rate_limit_service.take().filter(|_| !services.is_empty());
                    if let Some(service) = &mut http.rate_limit_service {
                        service.cluster = services[picks[2].index(services.len())].clone();
                    }
                    match mesh.route_tables.keys().next().filter(|_| share) {
                        Some(table) => http.routes = table.clone(),
                        None => {
                            http.routes = name.clone();
                            mesh.route_tables.insert(name.clone(), resolve(routes.clone()));
                        }
                    }
                }
            }
        }
        mesh.listeners.insert(name, listener);
    }
    let mut endpoints = BTreeMap::new();
    for (name, (cluster, assignment)) in clusters {
        if cluster.source == Source::Static {
            endpoints.insert(name.clone(), assignment.into());
        }
        mesh.clusters.insert(name, cluster.into());
    }
    tls::unproven(&mut mesh);
    authorization::unlooked(&mut mesh);
    Config { mesh, endpoints }
}

/// All that a cluster can be referred to as.
fn destinations((cluster, (config, _)): (&Name, &(Cluster, Assignment))) -> Vec<Destination> {
    let subsets = config.subsets.keys().map(|subset| Some(subset.clone()));
    let to = |subset| Destination { cluster: cluster.clone(), subset };
    subsets.chain([None]).map(to).collect()
}

/// Each cluster at most once, as a mapping can say it.
fn point(split: &mut Split, names: &[Destination], picks: &[Index]) {
    let mut left = names.to_vec();
    split.targets.truncate(left.len());
    for (target, pick) in split.targets.iter_mut().zip(picks) {
        target.to = left.remove(pick.index(left.len()));
    }
}

/// A fallback never leads to the one cluster that failed.
fn point_aside(forward: &mut Forward, names: &[Destination], picks: &[Index]) {
    if let Some(mirror) = &mut forward.mirror {
        mirror.to = names[picks[3].index(names.len())].clone();
    }
    let fits = |name: &&Destination| forward.to.targets.iter().any(|target| target.to != **name);
    let fit: Vec<_> = names.iter().filter(fits).collect();
    let other = (!fit.is_empty()).then(|| fit[picks[4].index(fit.len())].clone());
    match (forward.fallback.as_deref_mut(), other) {
        (Some(Fallback::Stale(_, Some(instead @ Instead::To(_)))), Some(other)) => {
            *instead = Instead::To(other)
        }
        (Some(Fallback::Stale(_, instead @ Some(Instead::To(_)))), None) => *instead = None,
        (Some(Fallback::Instead(Instead::To(to))), Some(other)) => *to = other,
        (Some(Fallback::Instead(Instead::To(_))), None) => forward.fallback = None,
        (_, _) => {}
    }
}

/// The service of a limit is asked in HTTP/2.
fn point_to_service(route: &mut Route, services: &[Name], picks: &[Index]) {
    let Some(limit) = &mut route.global_rate_limit else { return };
    match &mut limit.service {
        Some(service) if !services.is_empty() => {
            service.cluster = services[picks[3].index(services.len())].clone();
        }
        service => *service = None,
    }
}

fn text_name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[a-z][a-z0-9-]{0,8}",
        1 => "[\\PC&&[^\\s]]{1,6}".prop_filter("a name", |n| Name::new(n).is_some()),
        1 => select(vec!["on", "1", "true", "null", "a.b", "a:b", "$x", "<<", "~"]).prop_map(str::to_owned),
    ]
}

/// Texts with all that quoting and escaping has to get right.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-zA-Z0-9 $:#'\"\\\\{}\\[\\],&*!|>%@`.-]{0,12}",
        1 => any::<String>(),
        1 => select(vec!["", "1", "on", "true", "~", "1e3", "${X}", "$$", " a ", "a\nb\n", "\u{85}\u{feff}", "- a"])
            .prop_map(str::to_owned),
    ]
}

fn boxed_text() -> impl Strategy<Value = Box<str>> {
    text().prop_map(Into::into)
}

fn time() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1..1_000_u64).prop_map(Duration::from_secs),
        (1..100_000_u64).prop_map(Duration::from_millis),
        (1..1_000_000_000_u64).prop_map(Duration::from_nanos),
    ]
}

fn process() -> impl Strategy<Value = Process> {
    let admin =
        prop_oneof![Just(Admin::default()), address().prop_map(|address| Admin { address, written: true }),];
    let times = (prop_oneof![Just(Duration::ZERO), time()], time(), time());
    let shutdown = times.prop_map(|(lame_duck, quiet, deadline)| Shutdown { lame_duck, quiet, deadline });
    let file = "[a-z $#]{1,5}(/[a-z .]{1,4}[a-z]){0,2}".prop_map(|path| LogTarget::File(PathBuf::from(path)));
    let to = prop_oneof![Just(LogTarget::Stdout), Just(LogTarget::Stderr), file];
    let log = (select(vec![LogFormat::Text, LogFormat::Json]), to)
        .prop_map(|(format, to)| AccessLog { format, to });
    let workers = option::of((1..1024_usize).prop_map(|n| NonZeroUsize::new(n).unwrap()));
    let number = || (1..u32::MAX).prop_map(|n| NonZeroU32::new(n).unwrap());
    let user = prop_oneof![
        select(vec!["outrigger", "on", "1a", "null", "a'b"]).prop_map(|name| User::Name(name.into())),
        (number(), number()).prop_map(|(uid, gid)| User::Ids { uid, gid }),
    ];
    let privileges = (option::of(user), select(vec![Root::Warn, Root::Refuse, Root::Allow]))
        .prop_map(|(user, root)| Privileges { user, root });
    (workers, admin, shutdown, option::of(log), policies::overload(), (privileges, option::of(control())))
        .prop_map(|(workers, admin, shutdown, access_log, overload, (privileges, control))| Process {
            workers,
            admin,
            shutdown,
            access_log,
            overload,
            privileges,
            control: control.map(Box::new),
        })
}

fn control() -> impl Strategy<Value = ControlPlane> {
    let server = select(vec!["https://a:1", "http://127.0.0.1:1", "https://[::1]:18000"]);
    let trust = option::of("[a-z]{1,5}".prop_map(PathBuf::from));
    let id = text().prop_filter("an id", |text| !text.is_empty()).prop_map(Box::from);
    let locality = (boxed_text(), boxed_text(), boxed_text()).prop_map(|(region, zone, sub_zone)| Locality {
        region,
        zone,
        sub_zone,
    });
    let metadata = btree_map(boxed_text(), metadata(), 0..3);
    let node = (id, boxed_text(), locality, metadata).prop_map(|(id, cluster, locality, metadata)| Node {
        id,
        cluster,
        locality,
        metadata,
    });
    let cache = option::of("[a-z]{1,5}".prop_map(PathBuf::from));
    let sockets = vec("[a-z]{1,5}".prop_map(PathBuf::from), 0..3);
    let on_demand = option::of((1..10_000_u64).prop_map(|ms| OnDemand { idle: Duration::from_millis(ms) }));
    (server, trust, cache, (on_demand, any::<[bool; 3]>(), sockets), node).prop_map(
        |(server, trust, cache, (on_demand, [load_reports, trials, events], sockets), node)| ControlPlane {
            server: server.into(),
            trust,
            cache,
            on_demand,
            load_reports,
            trials,
            events,
            sockets: sockets.into(),
            node,
        },
    )
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let numbers = prop_oneof![(-1000..1000_i32).prop_map(f64::from), proptest::num::f64::NORMAL];
    let leaf = prop_oneof![
        any::<bool>().prop_map(Metadata::Bool),
        numbers.prop_map(Metadata::Number),
        boxed_text().prop_map(Metadata::Text),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(|items| Metadata::List(items.into())),
            btree_map(boxed_text(), inner, 0..3).prop_map(Metadata::Map),
        ]
    })
}

fn address() -> impl Strategy<Value = Address> {
    prop_oneof![
        (any::<[u8; 4]>(), 1..20_000_u16).prop_map(|(ip, port)| Address::Ip((ip, port).into())),
        (any::<[u16; 8]>(), 1..20_000_u16).prop_map(|(ip, port)| Address::Ip((ip, port).into())),
        "/[a-z $:#]{1,9}[a-z]".prop_map(|path| Address::Unix(path.into())),
    ]
}

fn network() -> impl Strategy<Value = ipnet::IpNet> {
    prop_oneof![
        (any::<[u8; 4]>(), 0..=32_u8)
            .prop_map(|(ip, len)| ipnet::IpNet::new(ip.into(), len).unwrap().trunc()),
        (any::<[u16; 8]>(), 0..=128_u8)
            .prop_map(|(ip, len)| ipnet::IpNet::new(ip.into(), len).unwrap().trunc()),
    ]
}

fn filter_chain(by: tls::By) -> impl Strategy<Value = FilterChain> {
    let routes = Name::new("set-later").unwrap();
    let http = (
        vec(network(), 0..3),
        any::<bool>(),
        authorization::jwt(),
        option::of(authorization::external()),
        option::of(policies::rate_limit_service()),
    );
    let http = http.prop_map(move |(trusted_proxies, merge_slashes, jwt, external, counts)| {
        Filter::Http(HttpFilter {
            jwt: jwt.into(),
            external_authorization: external.map(Box::new),
            rate_limit_service: counts.map(Box::new),
            routes: routes.clone(),
            trusted_proxies,
            merge_slashes,
        })
    });
    let tcp =
        (bare_split(), time()).prop_map(|(to, idle_timeout)| Filter::Tcp(TcpFilter { to, idle_timeout }));
    let chain = (option::of(tls::downstream(by)), limits(), prop_oneof![2 => http, 1 => tcp]);
    let chain = chain.prop_flat_map(|(tls, limits, filter)| {
        let (http, claims) = match &filter {
            Filter::Http(http) => (true, !http.jwt.is_empty()),
            Filter::Tcp(_) => (false, false),
        };
        let around = (http, claims, matches!(tls, Some(DownstreamTls::Mutual(_))), tls.is_some());
        option::of(authorization::authorization(around)).prop_map(move |authorization| FilterChain {
            tls: tls.clone(),
            authorization,
            limits: limits.clone(),
            filter: filter.clone(),
        })
    });
    chain.boxed()
}

fn any_listener() -> impl Strategy<Value = RawListener> {
    let direction = select(vec![Direction::Inbound, Direction::Outbound]);
    let one = filter_chain(tls::By::Files).prop_map(Chains::from);
    let chains = prop_oneof![4 => one, 1 => chains(tls::By::Files)];
    let destination = select(vec![DestinationSource::Bound, DestinationSource::Redirected]);
    let listener = (address(), direction, destination, chains);
    let listener = listener.prop_map(|(bind, direction, destination, chains)| Listener {
        bind,
        direction,
        destination,
        chains,
    });
    (listener, vec(any::<Index>(), 4), vec(any_route(), 0..4))
}

fn limits() -> impl Strategy<Value = Limits> {
    let sizes = (8192..=1_000_000_usize, option::of(1..u64::MAX));
    let counts = (1..u32::MAX, 1..=10_000_usize, 1..u32::MAX);
    (sizes, counts, time(), time()).prop_map(
        |((head, body), (connections, headers, streams), header, idle)| Limits {
            connections: NonZeroU32::new(connections).unwrap(),
            header_bytes: NonZeroUsize::new(head).unwrap(),
            headers: NonZeroUsize::new(headers).unwrap(),
            body: body.and_then(NonZeroU64::new),
            header_timeout: header,
            idle_timeout: idle,
            streams: NonZeroU32::new(streams).unwrap(),
        },
    )
}

fn any_route() -> impl Strategy<Value = RawRoute> {
    let action = prop_oneof![
        4 => (split(), rewrite(), option::of(time()), policies::forwarded()).prop_map(
            |(to, rewrite, timeout, rest)| Action::Forward(Forward { to, rewrite, timeout, ..rest }),
        ),
        1 => (select(vec!["/new", "https://example.com/$x?a=b#c"]), select(vec![301_u16, 302, 303, 307, 308]))
            .prop_map(|(to, status)| Action::Redirect(Redirect {
                to: HeaderValue::from_static(to),
                status: StatusCode::from_u16(status).unwrap(),
            })),
        1 => respond().prop_map(Action::Respond),
    ];
    let limits = (
        option::of(policies::rate_limit().prop_map(Box::new)),
        option::of(policies::global_rate_limit().prop_map(Box::new)),
        option::of(policies::concurrency().prop_map(Box::new)),
        option::of(policies::fault().prop_map(Box::new)),
        option::of(select(vec![JwtUse::Required, JwtUse::Optional, JwtUse::None])),
        option::of(authorization::check_use().prop_map(Box::new)),
    );
    let route = (matches(), action, limits, edits(), edits());
    let route = route.prop_map(|(matches, mut action, limits, request_headers, response_headers)| {
        let (rate_limit, global_rate_limit, concurrency, fault, jwt, external_authorization) = limits;
        if let Action::Forward(Forward { rewrite, .. }) = &mut action
            && matches!(rewrite.path, Some(PathRewrite::Prefix(_)))
            && !matches!(matches.path, PathMatch::Prefix(_))
        {
            rewrite.path = None;
        }
        Route {
            matches,
            action,
            jwt,
            external_authorization,
            rate_limit,
            global_rate_limit,
            concurrency,
            fault,
            request_headers,
            response_headers,
        }
    });
    (route, vec(any::<Index>(), 5))
}

fn respond() -> impl Strategy<Value = Respond> {
    (205..600_u16, boxed_text()).prop_map(|(status, body)| {
        let status = StatusCode::from_u16(status).unwrap();
        let silent = matches!(status.as_u16(), 205 | 304);
        Respond { status, body: if silent { Box::default() } else { body } }
    })
}

fn pattern() -> impl Strategy<Value = Pattern> {
    select(vec!["^/v[0-9]+/items$", "^/a", "", "a|b", r#"[\s"']+$"#, "(?i)x{1,3}", "$$"])
        .prop_map(|p| Pattern::new(p).unwrap())
}

fn path() -> impl Strategy<Value = Box<str>> {
    "(/[a-z0-9$:@%+=~*-]{1,6}){1,3}".prop_map(|path: String| path.replace('%', "%20").into())
}

fn matches() -> impl Strategy<Value = Match> {
    let host = prop_oneof![
        "[a-z0-9-]{1,6}(\\.[a-z]{1,4}){0,2}".prop_map(|h: String| HostPattern::Exact(h.into())),
        "(\\.[a-z0-9_]{1,4}){1,3}".prop_map(|h: String| HostPattern::Suffix(h.into())),
    ];
    let path_match = prop_oneof![
        Just(PathMatch::Any),
        path().prop_map(PathMatch::Exact),
        prop_oneof![Just(Box::default()), path()].prop_map(PathMatch::Prefix),
        pattern().prop_map(PathMatch::Regex),
    ];
    let method =
        select(vec![Method::GET, Method::POST, Method::OPTIONS, Method::from_bytes(b"PURGE!").unwrap()]);
    let methods = vec(method, 0..3).prop_map(|mut methods| {
        methods.sort_by_key(ToString::to_string);
        methods.dedup();
        methods
    });
    let headers = btree_map(select(vec!["x-beta", "host", "cookie", "1"]), string_match(), 0..3);
    let headers = headers.prop_map(|headers| {
        let header = |(name, value)| HeaderMatch { name: HeaderName::from_static(name), value };
        headers.into_iter().map(header).collect()
    });
    let query = btree_map(text().prop_filter("a key of YAML", |t| t.len() < 100), string_match(), 0..3);
    let query = query.prop_map(|query| {
        query.into_iter().map(|(name, value)| QueryMatch { name: name.into(), value }).collect()
    });
    let hosts = btree_set(host, 0..3).prop_map(|hosts| hosts.into_iter().collect());
    (hosts, path_match, methods, headers, query).prop_map(|(hosts, path, methods, headers, query)| Match {
        hosts,
        path,
        methods,
        headers,
        query,
    })
}

fn string_match() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        Just(StringMatch::Present),
        Just(StringMatch::Absent),
        boxed_text().prop_map(StringMatch::Exact),
        boxed_text().prop_filter("not empty", |t| !t.is_empty()).prop_map(StringMatch::Prefix),
        pattern().prop_map(StringMatch::Regex),
    ]
}

fn weight() -> impl Strategy<Value = NonZeroU32> {
    prop_oneof![Just(1), 1..1_000_000_u32].prop_map(|n| NonZeroU32::new(n).unwrap())
}

fn bare_split() -> impl Strategy<Value = Split> {
    let cluster = Name::new("set-later").unwrap();
    vec(weight(), 1..4).prop_map(move |weights| Split {
        targets: weights.into_iter().map(|weight| Target::new(cluster.clone(), weight)).collect(),
    })
}

fn split() -> impl Strategy<Value = Split> {
    (bare_split(), vec((edits(), edits()), 3)).prop_map(|(mut split, edits)| {
        for (target, (request, response)) in split.targets.iter_mut().zip(edits) {
            (target.request_headers, target.response_headers) = (request, response);
        }
        split
    })
}

fn rewrite() -> impl Strategy<Value = Rewrite> {
    let path = prop_oneof![
        path().prop_map(PathRewrite::Whole),
        select(vec![("^/v[0-9]+", "/$x"), ("a", ""), ("^/(a+)(/b)?$", r"/\2/\1"), ("^/a", "/b")]).prop_map(
            |(pattern, with)| {
                PathRewrite::Found(Replace::new(Pattern::new(pattern).unwrap(), with).unwrap())
            }
        ),
        prop_oneof![Just(Box::default()), path()].prop_map(PathRewrite::Prefix),
    ];
    let host = select(vec!["items.internal", "127.0.0.1:80", "[::1]:80"]).prop_map(HeaderValue::from_static);
    (option::of(path), option::of(host)).prop_map(|(path, host)| Rewrite { path, host })
}

/// Values of one name stand together, names once but for `add`.
fn edits() -> impl Strategy<Value = HeaderEdits> {
    let name = || select(vec!["x-a", "via", "server", "1", "on"]).prop_map(HeaderName::from_static);
    let value = || {
        let fits =
            |t: &String| t.trim_matches([' ', '\t']) == t && HeaderValue::from_bytes(t.as_bytes()).is_ok();
        text()
            .prop_filter("a header value", fits)
            .prop_map(|t| HeaderValue::from_bytes(t.as_bytes()).unwrap())
    };
    let ordered = |names: Vec<HeaderName>| {
        let mut seen = Vec::new();
        names
            .into_iter()
            .filter(|n| {
                !seen.contains(n) && {
                    seen.push(n.clone());
                    true
                }
            })
            .collect::<Vec<_>>()
    };
    let remove = vec(name(), 0..3).prop_map(ordered);
    let set = (vec(name(), 0..3).prop_map(ordered), vec(value(), 3))
        .prop_map(|(n, v)| n.into_iter().zip(v).collect());
    let add =
        (vec(name(), 0..3).prop_map(ordered), vec(vec(value(), 1..3), 3)).prop_map(|(names, values)| {
            let each = names.into_iter().zip(values);
            each.flat_map(|(name, values)| values.into_iter().map(move |value| (name.clone(), value)))
                .collect()
        });
    let some = (remove, set, add).prop_map(|(remove, set, add)| HeaderEdits { remove, set, add });
    prop_oneof![2 => Just(HeaderEdits::default()), 1 => some]
}

fn cluster() -> impl Strategy<Value = Cluster> {
    let uses = select(vec![DnsUse::All, DnsUse::First]);
    let dns =
        ("[a-z0-9-]{1,8}(\\.[a-z_]{1,4}){1,2}\\.?", 1..u16::MAX, uses).prop_map(|(host, port, uses)| {
            Source::Dns { host: host.into(), port: NonZeroU16::new(port).unwrap(), uses }
        });
    let protocol = select(vec![Protocol::Auto, Protocol::Http1, Protocol::Http2]);
    let header = select(vec![Original::HEADER, http::HeaderName::from_static("x-to")]);
    let original = (option::of(header), option::of(1..=u16::MAX), time(), 1..=65_536_u32);
    let original = original.prop_map(|(header, port, cleanup, most)| {
        let (port, max_endpoints) = (port.and_then(NonZeroU16::new), NonZeroU32::new(most).unwrap());
        Source::Original(Original { header, port, cleanup, max_endpoints })
    });
    let source = prop_oneof![3 => Just(Source::Static), 1 => dns, 1 => original];
    let limits = (policies::retry_budget(), policies::circuit_breaker());
    let judges = (
        option::of(policies::outlier_detection()),
        option::of(policies::health_check().prop_map(Box::new)),
        prop_oneof![Just(Duration::ZERO), time()],
        policies::percent(),
    );
    (source, policies::balance(), protocol, time(), time(), limits, judges).prop_map(
        |(source, balance, protocol, connect_timeout, idle_timeout, limits, judges)| Cluster {
            source,
            balance,
            protocol,
            tls: None,
            connect_timeout,
            idle_timeout,
            retry_budget: limits.0,
            circuit_breaker: limits.1,
            outlier_detection: judges.0,
            health_check: judges.1,
            slow_start: judges.2,
            panic_threshold: judges.3,
            zone_weights: BTreeMap::new(),
            subsets: BTreeMap::new(),
            subset_fallback: SubsetFallback::None,
        },
    )
}

/// Where zones are weighed, every endpoint stands in one that is.
pub(crate) fn cluster_and_endpoints() -> impl Strategy<Value = (Cluster, Assignment)> {
    let weights = btree_map(text_name().prop_map(Box::<str>::from), 0..=1_000_000_u32, 1..4)
        .prop_filter("a zone that is used", |weights| weights.values().any(|weight| *weight > 0));
    let places = vec(any::<Index>(), 4);
    let names = "[a-z][a-z0-9-]{0,8}".prop_map(|name| Name::new(&name).unwrap());
    let fallback = select(vec![SubsetFallback::None, SubsetFallback::Any]);
    let subsets = (btree_map(names, labels(), 1..4), fallback);
    let parts = (option::of((weights, places)), option::of(subsets));
    let clusters = (cluster(), option::of(tls::upstream(tls::By::Files)));
    (clusters, assignment(), parts).prop_map(|((mut cluster, tls), mut assignment, (zones, subsets))| {
        cluster.tls = tls;
        // There is nothing to choose from where a request names its endpoint.
        if matches!(cluster.source, Source::Original(_)) {
            cluster.balance = Balance::default();
            (cluster.health_check, cluster.slow_start) = (None, Duration::ZERO);
            cluster.panic_threshold = Percent::ZERO;
        }
        if let Some((subsets, fallback)) = subsets.filter(|_| cluster.source == Source::Static) {
            (cluster.subsets, cluster.subset_fallback) = (subsets, fallback);
        }
        if let Some((weights, places)) = zones.filter(|_| cluster.source == Source::Static) {
            let names: Vec<_> = weights.keys().cloned().collect();
            for (endpoint, place) in assignment.endpoints.iter_mut().zip(places) {
                endpoint.zone = Some(place.get(&names).clone());
            }
            cluster.zone_weights = weights;
        }
        (cluster, assignment)
    })
}

fn labels() -> impl Strategy<Value = Labels> {
    let value = text_name().prop_map(Box::<str>::from);
    btree_map(text_name().prop_map(Box::<str>::from), value, 1..4).prop_map(Labels)
}

fn assignment() -> impl Strategy<Value = Assignment> {
    let zone = option::of(text_name().prop_map(Into::into));
    let labels = option::of(labels()).prop_map(Option::unwrap_or_default);
    let rest = (weight(), 0..=127_u8, zone, labels);
    btree_map(address(), rest, 0..4).prop_map(|endpoints| Assignment {
        endpoints: endpoints
            .into_iter()
            .map(|(address, (weight, priority, zone, labels))| Endpoint {
                address,
                weight,
                priority,
                zone,
                labels,
            })
            .collect(),
    })
}
