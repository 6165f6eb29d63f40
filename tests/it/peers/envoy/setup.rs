//! Two proxies that are told the same, each in its own words.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use outrigger_tests::{Client, Dir, Proxy, until};
use serde_json::{Value, json};

use super::look::Behind;
use crate::peers::{Running, python, run};

/// Where Envoy's types are.
const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// Our side.
pub(super) async fn outrigger(origin: &Behind) -> Proxy {
    let to = |name: &str| format!("to: app, request_headers: {{ set: {{ x-route: {name} }} }}");
    let routes = [
        format!("match: {{ host: special.test }}, {}", to("host")),
        format!("match: {{ host: \"*.wild.test\" }}, {}", to("wild")),
        format!("match: {{ path: {{ exact: /exact }} }}, {}", to("exact")),
        format!("match: {{ path: {{ prefix: /pre }} }}, rewrite: {{ prefix: /new }}, {}", to("prefix")),
        format!("match: {{ path: {{ regex: \"^/v[0-9]+/items$\" }} }}, {}", to("regex")),
        format!("match: {{ path: {{ exact: /method }}, methods: [POST] }}, {}", to("method")),
        format!("match: {{ headers: {{ x-beta: \"1\" }} }}, {}", to("header")),
        format!("match: {{ query: {{ debug: \"true\" }} }}, {}", to("query")),
        format!(
            "match: {{ path: {{ exact: /host }} }}, rewrite: {{ host: items.internal }}, {}",
            to("rewritten")
        ),
        "match: { path: { exact: /old } }, redirect: { to: \"https://shop.test/new\", status: 301 }"
            .to_owned(),
        "match: { path: { exact: /teapot } }, respond: { status: 418, body: \"short and stout\" }".to_owned(),
        to("default"),
    ];
    let routes: String = routes.iter().map(|route| format!("      - {{ {route} }}\n")).collect();
    Proxy::start(&format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n{routes}\
         clusters:\n  app: {{ endpoints: [{}], protocol: {} }}\n",
        origin.address(),
        origin.protocol()
    ))
    .await
}

fn envoys_routes() -> Value {
    let to = |name: &str, matches: Value, route: Value| {
        let mut route = route;
        route["cluster"] = "app".into();
        route["timeout"] = "0s".into();
        let header = json!({ "header": { "key": "x-route", "value": name }, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" });
        json!({ "match": matches, "route": route, "request_headers_to_add": [header] })
    };
    let plain = || json!({});
    let exact = |value: &str| json!({ "exact": value });
    let header = |name: &str, value: &str| json!([{ "name": name, "string_match": exact(value) }]);
    let all = json!([
        to("exact", json!({ "path": "/exact" }), plain()),
        to("prefix", json!({ "path_separated_prefix": "/pre" }), json!({ "prefix_rewrite": "/new" })),
        to("regex", json!({ "safe_regex": { "regex": "/v[0-9]+/items" } }), plain()),
        to("method", json!({ "path": "/method", "headers": header(":method", "POST") }), plain()),
        to("header", json!({ "prefix": "/", "headers": header("x-beta", "1") }), plain()),
        to("query", json!({ "prefix": "/", "query_parameters": [{ "name": "debug", "string_match": exact("true") }] }), plain()),
        to("rewritten", json!({ "path": "/host" }), json!({ "host_rewrite_literal": "items.internal", "append_x_forwarded_host": true })),
        { "match": { "path": "/old" }, "redirect": { "https_redirect": true, "host_redirect": "shop.test", "path_redirect": "/new", "strip_query": true } },
        { "match": { "path": "/teapot" }, "direct_response": { "status": 418, "body": { "inline_string": "short and stout" } } },
        to("default", json!({ "prefix": "/" }), plain()),
    ]);
    json!({ "name": "web", "ignore_port_in_host_matching": true, "virtual_hosts": [
        { "name": "special", "domains": ["special.test"], "routes": [to("host", json!({ "prefix": "/" }), plain())] },
        { "name": "wild", "domains": ["*.wild.test"], "routes": [to("wild", json!({ "prefix": "/" }), plain())] },
        { "name": "all", "domains": ["*"], "routes": all },
    ]})
}

fn envoys_config(origin: &Behind) -> Value {
    let at = |address: SocketAddr| json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } });
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let typed = |name: &str, mut value: Value| {
        value["@type"] = format!("{TYPES}.{name}").into();
        value
    };
    let router = typed("filters.http.router.v3.Router", json!({ "suppress_envoy_headers": true }));
    let manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": "web",
            // The defaults of the safe by default: Envoy's edge settings.
            "use_remote_address": true,
            "normalize_path": true,
            "merge_slashes": true,
            "path_with_escaped_slashes_action": "REJECT_REQUEST",
            // What it adds of its own.
            "generate_request_id": false,
            "server_header_transformation": "PASS_THROUGH",
            "http_protocol_options": { "accept_http_10": true, "enable_trailers": true },
            "upgrade_configs": [{ "upgrade_type": "websocket" }],
            "proxy_100_continue": true,
            "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": router }],
            "route_config": envoys_routes(),
        }),
    );
    let spoken = match origin {
        Behind::Http1(_) => json!({ "http_protocol_options": { "enable_trailers": true } }),
        Behind::Http2(_) => json!({ "http2_protocol_options": {} }),
    };
    let spoken = typed("upstreams.http.v3.HttpProtocolOptions", json!({ "explicit_http_config": spoken }));
    let endpoint = json!({ "endpoint": { "address": at(origin.address()) } });
    let cluster = json!({
        "name": "app",
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": spoken },
        "load_assignment": { "cluster_name": "app", "endpoints": [{ "lb_endpoints": [endpoint] }] },
    });
    let filter = json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager });
    let listener = json!({ "name": "web", "address": at(any), "filter_chains": [{ "filters": [filter] }] });
    json!({
        "admin": { "address": at(any) },
        "static_resources": { "listeners": [listener], "clusters": [cluster] },
    })
}

/// Envoy's binary, out of the package that holds it.
pub(in crate::peers) struct Envoy(PathBuf);

/// Envoy as it runs.
pub(in crate::peers) struct Serving {
    /// Where it listens.
    pub(in crate::peers) address: SocketAddr,
    /// Of each listener, by name.
    addresses: BTreeMap<String, SocketAddr>,
    _process: Running,
    _dir: Dir,
}

impl Serving {
    /// Where the listener of this name listens.
    pub(in crate::peers) fn address_of(&self, listener: &str) -> SocketAddr {
        *self.addresses.get(listener).unwrap_or_else(|| panic!("no {listener} in {:?}", self.addresses))
    }
}

/// What it is started with as a node of a control plane, which it asks in this way: `GRPC` or `DELTA_GRPC`.
pub(in crate::peers) fn node(id: &str, control: SocketAddr, way: &str) -> Value {
    let ads = json!({ "ads": {}, "resource_api_version": "V3" });
    let at = |address: SocketAddr| json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } });
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let http2 = json!({ "@type": format!("type.googleapis.com/{options}"), "explicit_http_config": { "http2_protocol_options": {} } });
    let plane = json!({
        "name": "xds", "type": "STATIC", "typed_extension_protocol_options": { options: http2 },
        "load_assignment": { "cluster_name": "xds", "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": at(control) } }] }] },
    });
    json!({
        "node": { "id": id, "cluster": "web" },
        "admin": { "address": at(([127, 0, 0, 1], 0).into()) },
        "cluster_manager": { "load_stats_config": {
            "api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds" } }],
        } },
        "dynamic_resources": {
            "ads_config": { "api_type": way, "transport_api_version": "V3", "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds" } }] },
            "lds_config": ads, "cds_config": ads,
        },
        "static_resources": { "clusters": [plane] },
    })
}

impl Envoy {
    pub(in crate::peers) async fn find() -> Option<Self> {
        let python = python(&["envoy"]).await?;
        let find = "import envoy, os; print(os.path.join(os.path.dirname(envoy.__file__), '_bin', 'envoy'))";
        let path = run(&python, &["-c", find], b"").await.ok();
        Some(Self(path.trim().into()))
    }

    pub(super) async fn serve(&self, origin: &Behind) -> Serving {
        self.run(&envoys_config(origin)).await
    }

    /// Runs it with this configuration, of one listener.
    pub(in crate::peers) async fn run(&self, config: &Value) -> Serving {
        let dir = Dir::new();
        let config = dir.write("envoy.json", &config.to_string());
        let (config, admin, log) = (config.to_str().unwrap(), dir.file("admin"), dir.file("log"));
        // What is drained, it says at once.
        let drains = ["--drain-strategy", "immediate"];
        let args = ["-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "warning"];
        let files = ["--admin-address-path", admin.to_str().unwrap(), "--log-path", log.to_str().unwrap()];
        let mut process = Running::start(&self.0, &[&args[..], &drains, &files].concat());
        let addresses = until("Envoy listens", async || {
            if let Some(status) = process.child.try_wait().unwrap() {
                panic!("Envoy ended with {status}:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            let admin = std::fs::read_to_string(&admin).ok()?.trim().parse().ok()?;
            if Client::try_connect(admin).await?.try_get("/ready").await?.status != 200 {
                return None;
            }
            let listeners = Client::connect(admin).await.get("/listeners?format=json").await;
            let listeners: Value = serde_json::from_slice(&listeners.body).ok()?;
            let all = listeners["listener_statuses"].as_array()?.iter().map(|listener| {
                let port = listener["local_address"]["socket_address"]["port_value"].as_u64()?;
                let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).ok()?));
                Some((listener["name"].as_str()?.to_owned(), address))
            });
            all.collect::<Option<BTreeMap<_, _>>>().filter(|all| !all.is_empty())
        })
        .await;
        let address = *addresses.values().next().unwrap();
        Serving { address, addresses, _process: process, _dir: dir }
    }
}
