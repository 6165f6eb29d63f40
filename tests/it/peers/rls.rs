//! Global rate limits, asked of a gRPC server of PyPI's grpcio: its HTTP/2, its framing and its trailers are not ours. And
//! Envoy as a second opinion of what is asked.

use outrigger_tests::{Client, Echo, Proxy};
use serde_json::{Value, json};

use super::envoy::Envoy;
use super::{Running, python, script};

#[tokio::test]
async fn a_service_of_grpcio_is_understood() {
    let Some(python) = python(&["grpc"]).await else { return };
    let mut server = Running::start(&python, &[&script("rls_server.py")]);
    let echo = Echo::start("e").await;
    let proxy = Proxy::start(&format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n      - to: app\n        global_rate_limit: {{ cluster: \
         rls, domain: shop, descriptors: [[source]], timeout: 10s, on_failure: deny }}\nclusters:\n  app: {{ \
         endpoints: [\"{}\"] }}\n  rls: {{ endpoints: [127.0.0.1:{}], protocol: http2 }}\n",
        echo.address(),
        server.port().await,
    ))
    .await;
    for (status, seen) in [(200, "1"), (200, "2"), (429, "3")] {
        let reply = proxy.get("web", "/").await;
        assert_eq!((reply.status, reply.field("x-seen")), (status, Some(seen)), "{}", reply.head);
    }
    // domain: shop; a descriptor of one entry, remote_address: 127.0.0.1.
    let address = "0a0e72656d6f74655f6164647265737312093132372e302e302e31";
    assert_eq!(server.line().await, format!("ASKED 0a0473686f70121d0a1b{address}"));
}

/// Envoy, told to ask the service on this port.
fn envoys_config(port: u16) -> Value {
    const TYPES: &str = "type.googleapis.com/envoy.extensions";
    let at = |port: u16| json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let service = json!({
        "transport_api_version": "V3", "grpc_service": { "envoy_grpc": { "cluster_name": "rls" } },
    });
    let filters = json!([
        { "name": "envoy.filters.http.ratelimit", "typed_config": {
            "@type": format!("{TYPES}.filters.http.ratelimit.v3.RateLimit"),
            "domain": "shop", "timeout": "10s", "failure_mode_deny": true, "rate_limit_service": service,
        }},
        { "name": "envoy.filters.http.router", "typed_config": {
            "@type": format!("{TYPES}.filters.http.router.v3.Router"),
        }},
    ]);
    let key = json!({ "header_name": "x-api-key", "descriptor_key": "x-api-key" });
    let limits = json!([
        { "actions": [
            { "request_headers": key },
            { "generic_key": { "descriptor_key": "path", "descriptor_value": "cart" } },
        ]},
        { "actions": [{ "remote_address": {} }] },
        { "actions": [{ "request_headers": { "header_name": "x-missing", "descriptor_key": "x-missing" } }] },
    ]);
    let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": "rls" } });
    let host = json!({ "name": "all", "domains": ["*"], "routes": [route], "rate_limits": limits });
    let manager = json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "web", "http_filters": filters, "route_config": { "virtual_hosts": [host] },
    });
    let filter = json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager });
    let http2 = json!({
        "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": { "http2_protocol_options": {} },
    });
    let endpoint = json!({ "endpoint": { "address": at(port) } });
    let cluster = json!({
        "name": "rls",
        "type": "STATIC",
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2 },
        "load_assignment": { "cluster_name": "rls", "endpoints": [{ "lb_endpoints": [endpoint] }] },
    });
    let listener = json!({ "name": "web", "address": at(0), "filter_chains": [{ "filters": [filter] }] });
    json!({ "admin": { "address": at(0) }, "static_resources": { "listeners": [listener], "clusters": [cluster] } })
}

#[tokio::test]
async fn what_is_asked_is_what_envoy_asks() {
    let (Some(python), Some(envoy)) = (python(&["grpc"]).await, Envoy::find().await) else { return };
    let mut server = Running::start(&python, &[&script("rls_server.py")]);
    let port = server.port().await;
    let envoy = envoy.run(&envoys_config(port)).await;
    let descriptors =
        "[[{ header: x-api-key }, { key: path, value: cart }], [source], [{ header: x-missing }]]";
    let limit = format!(
        "{{ cluster: rls, domain: shop, timeout: 10s, on_failure: deny, descriptors: {descriptors} }}"
    );
    let proxy = Proxy::start(&format!(
        "listeners: {{ web: {{ bind: 127.0.0.1:0, routes: [{{ respond: {{}}, global_rate_limit: {limit} }}] }} }}\n\
         clusters: {{ rls: {{ endpoints: [127.0.0.1:{port}], protocol: http2 }} }}\n"
    ))
    .await;
    let mut asked = Vec::new();
    for address in [proxy.address("web"), envoy.address] {
        let mut client = Client::connect(address).await;
        client.send("GET / HTTP/1.1\r\nHost: test\r\nx-api-key: k\r\n\r\n".to_owned()).await;
        let seen = client.reply().await.field("x-seen").map(str::to_owned);
        asked.push((server.line().await, seen));
    }
    let [(ours, ours_seen), (envoys, envoys_seen)]: [(String, Option<String>); 2] = asked.try_into().unwrap();
    assert_eq!(ours, envoys);
    assert_eq!(
        [ours_seen.as_deref(), envoys_seen.as_deref()],
        [Some("1"), Some("2")],
        "it counts both as the same"
    );
}
