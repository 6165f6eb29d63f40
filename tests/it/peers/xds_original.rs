//! Connections that the kernel has redirected, by a control plane that is not ours: they go where Envoy has them go. And what
//! our control plane says of endpoints that requests name, Envoy takes as it was meant.

use std::net::SocketAddr;

use outrigger_tests::network::Network;
use outrigger_tests::{Client, Control, Echo, Origin, Proxy, Report, within};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

use super::envoy::{Envoy, node};
use super::ext_authz::python_with_messages;
use super::free_port;
use super::xds::{Way, control, file};

const TYPES: &str = "type.googleapis.com/envoy.extensions";
const ADDRESSES: [&str; 5] =
    ["192.0.2.1/32", "192.0.2.2/32", "192.0.2.7/32", "2001:db8::1/128", "2001:db8::7/128"];
/// What comes from these two is redirected: neither proxy sends from there.
const RULES: &str = "
table inet sidecar {
  chain output {
    type nat hook output priority -100; policy accept;
    ip saddr 192.0.2.7 tcp dport { 80, 81, 82 } redirect to :15001
    ip6 saddr 2001:db8::7 tcp dport { 80, 81, 82 } redirect to :15001
  }
}";

fn passes() -> Value {
    json!({
        "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": "tcp", "cluster": "passthrough",
    })
}

fn serves(routes: &Value) -> Value {
    json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "web",
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] },
        "http_filters": [{ "name": "router", "typed_config": { "@type": format!("{TYPES}.filters.http.router.v3.Router") } }],
    })
}

fn listener(name: &str, ip: &str) -> Value {
    let chain = |matches: Value, last: Value| json!({ "filter_chain_match": matches, "filters": [{ "name": "last", "typed_config": last }] });
    let said = json!([{ "match": { "prefix": "/" }, "direct_response": { "status": 418 } }]);
    let mut rest = chain(
        json!({}),
        serves(&json!([{ "match": { "prefix": "/" }, "route": { "cluster": "passthrough" } }])),
    );
    rest.as_object_mut().unwrap().remove("filter_chain_match");
    json!({
        "name": name,
        "address": { "socket_address": { "address": ip, "port_value": 15001 } },
        "listener_filters": [{
            "name": "envoy.filters.listener.original_dst",
            "typed_config": { "@type": format!("{TYPES}.filters.listener.original_dst.v3.OriginalDst") },
        }],
        "filter_chains": [
            chain(json!({ "destination_port": 81 }), passes()),
            chain(json!({ "destination_port": 82, "prefix_ranges": [{ "address_prefix": "192.0.2.0", "prefix_len": 24 }] }), serves(&said)),
        ],
        "default_filter_chain": rest,
    })
}

fn state() -> Value {
    let named = json!({
        "name": "passthrough", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "cleanup_interval": "1s",
        "connect_timeout": "1s", "original_dst_lb_config": { "use_http_header": true },
        "circuit_breakers": { "thresholds": [{ "max_connections": 100 }] },
    });
    json!({
        "version": "1",
        "Cluster": [named],
        "Listener": [listener("four", "127.0.0.1"), listener("six", "::1")],
    })
}

/// A connection that is redirected, where its address is one of those.
async fn connect(to: &str, from: Option<&str>) -> Option<Client<TcpStream>> {
    let to: SocketAddr = to.parse().unwrap();
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    }
    socket.connect(to).await.ok().map(Client::over)
}

/// What comes of a request that has this header.
async fn came(client: Option<Client<TcpStream>>, header: Option<&str>) -> String {
    let Some(mut client) = client else { return "refused".to_owned() };
    let header = header.map(|value| format!("x-envoy-original-dst-host: {value}\r\n")).unwrap_or_default();
    client.send(format!("GET / HTTP/1.1\r\nHost: test\r\n{header}\r\n")).await;
    let Some(reply) = within("an answer", client.try_reply_to("GET")).await else { return "cut".to_owned() };
    match reply.status {
        200 => Report::parse(&reply.body).origin,
        status => status.to_string(),
    }
}

/// Where a connection goes, by where, from where, and with which header; ports that are redirected, and the proxy's own.
const ROWS: [(&str, Option<&str>, Option<&str>); 11] = [
    ("192.0.2.1:80", Some("192.0.2.7"), None),
    ("192.0.2.2:80", Some("192.0.2.7"), None),
    ("[2001:db8::1]:80", Some("2001:db8::7"), None),
    ("192.0.2.1:80", Some("192.0.2.7"), Some("192.0.2.2:80")),
    ("192.0.2.1:80", Some("192.0.2.7"), Some("[2001:db8::1]:80")),
    ("[2001:db8::1]:80", Some("2001:db8::7"), Some("192.0.2.1:80")),
    ("192.0.2.1:82", Some("192.0.2.7"), None),
    ("[2001:db8::1]:82", Some("2001:db8::7"), None),
    ("192.0.2.1:82", Some("192.0.2.7"), Some("192.0.2.2:80")),
    // Without a header, that would be sent to itself by Envoy, until the time is up; by us it is refused.
    ("127.0.0.1:15001", None, Some("192.0.2.1:80")),
    ("[::1]:15001", None, Some("[2001:db8::1]:80")),
];

/// What comes of each row, at whoever listens.
async fn all() -> Vec<String> {
    let mut all = Vec::new();
    for (to, from, header) in ROWS {
        let came = came(connect(to, from).await, header).await;
        all.push(format!("{to} {header:?}: {came}"));
    }
    for (to, from) in [("192.0.2.1:81", Some("192.0.2.7")), ("[2001:db8::1]:81", Some("2001:db8::7"))] {
        let mut client = connect(to, from).await.unwrap();
        client.send("x").await;
        client.finish().await;
        all.push(format!("{to}: {}", String::from_utf8_lossy(&client.rest().await)));
    }
    all
}

async fn says(address: &'static str) -> Origin {
    Origin::start_at(address, move |mut conn| async move {
        conn.rest().await;
        conn.send(address).await;
    })
    .await
}

/// Who listens behind, and the control plane, which is asked by what `serve` starts.
async fn behind<S, F: Future<Output = S>>(serve: impl FnOnce(u16) -> F) -> Option<Vec<String>> {
    let python = python_with_messages().await?;
    let _one = Echo::start_at("192.0.2.1:80", "one").await;
    let _two = Echo::start_at("192.0.2.2:80", "two").await;
    let _six = Echo::start_at("[2001:db8::1]:80", "six").await;
    let (_raw, _raw_six) = (says("192.0.2.1:81").await, says("[2001:db8::1]:81").await);
    let (_control, plane) = control(&python, Way::Delta, 0, &state()).await;
    let _serving = serve(plane).await;
    Some(all().await)
}

#[test]
fn connections_go_where_envoy_has_them_go() {
    let mut seen = Vec::new();
    for ours in [true, false] {
        let Some(network) = Network::new(&ADDRESSES, RULES) else { return };
        let mut came = None;
        network.run(async || {
            came = if ours {
                behind(async |plane| {
                    let proxy = Proxy::start(&file(plane)).await;
                    for listener in ["four", "six"] {
                        proxy.address(listener);
                    }
                    proxy
                })
                .await
            } else {
                let Some(envoy) = Envoy::find().await else { return };
                let at = |plane: u16| SocketAddr::from(([127, 0, 0, 1], plane));
                behind(async |plane| envoy.run(&node("envoy", at(plane), "DELTA_GRPC")).await).await
            };
        });
        let Some(came) = came else { return };
        seen.push(came);
    }
    assert_eq!(seen[0], seen[1], "ours, and Envoy's");
    assert!(seen[0][0].ends_with("one") && seen[0][2].ends_with("six"), "{:?}", seen[0]);
}

/// A file says it, our control plane writes it, and Envoy does as we do.
#[tokio::test]
async fn what_requests_name_is_envoys_too() {
    let Some(envoy) = Envoy::find().await else { return };
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let document = format!(
        "listeners:
  web: {{ bind: 127.0.0.1:0, original_destination: redirect, routes: [{{ match: {{ path: {{ exact: /two }} }}, to: fixed }}, {{ to: there }}] }}
  tcp: {{ bind: 127.0.0.1:0, original_destination: redirect, tcp: {{ to: there }} }}
clusters:
  there: {{ original_destination: {{ header: x-to, max_endpoints: 9 }} }}
  fixed: {{ original_destination: {{ header: x-to, port: {}, cleanup: 1s }}, protocol: http2 }}
",
        two.address().port()
    );
    let control = Control::start("", &[("mesh.yaml", &document)]);
    let proxy = Proxy::start(&file(control.xds().port())).await;
    let envoy = envoy.run(&node("envoy", control.xds(), "GRPC")).await;
    let (one, closed) = (one.address().to_string(), format!("127.0.0.1:{}", free_port()));
    let (mut seen, mut sent_on) = (Vec::new(), Vec::new());
    for (web, tcp) in
        [(proxy.address("web"), proxy.address("tcp")), (envoy.address_of("web"), envoy.address_of("tcp"))]
    {
        let mut came = Vec::new();
        for (path, header) in [
            ("/", format!("x-to: {one}\r\n")),
            ("/two", format!("x-to: {one}\r\n")),
            ("/two", "x-to: 127.0.0.1:1\r\n".to_owned()),
            ("/", String::new()),
            ("/", "x-to: localhost:80\r\n".to_owned()),
            ("/", format!("x-envoy-original-dst-host: {one}\r\n")),
            ("/", format!("x-to: {closed}\r\n")),
        ] {
            let mut client = Client::connect(web).await;
            client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{header}\r\n")).await;
            let reply = client.reply().await;
            came.push(match reply.status {
                200 => {
                    let Report { origin, protocol, fields, .. } = Report::parse(&reply.body);
                    sent_on.push(fields.iter().any(|(name, _)| name == "x-to"));
                    format!("{origin} {protocol}")
                }
                status => status.to_string(),
            });
        }
        let mut client = Client::connect(tcp).await;
        client.send("x").await;
        came.push(format!("{:?}", client.rest().await));
        seen.push(came);
    }
    let expected = ["one HTTP/1.1", "two HTTP/2", "two HTTP/2", "503", "503", "503", "503", "[]"];
    assert_eq!(seen, [expected, expected], "ours, and Envoy's");
    assert_eq!(sent_on, [[false; 3], [true; 3]].concat(), "by us a request is sent where it is named once");
    let printed = proxy.ask("/config?format=yaml").await.text();
    for part in ["original_destination: redirect", "header: x-to", "max_endpoints: 9"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
}
