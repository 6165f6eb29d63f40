//! External authorization, asked of a gRPC server of PyPI's grpcio with the messages that xds-protos makes of Envoy's own
//! files: their numbers, and its HTTP/2, are not ours. And Envoy as a second opinion of what is asked, and of what comes
//! of the answer.

use std::collections::BTreeMap;
use std::path::PathBuf;

use outrigger_tests::peer::skip;
use outrigger_tests::{Client, Echo, Origin, Proxy, Reply, Report};
use serde_json::{Value, json};

use super::envoy::Envoy;
use super::{Running, python, run, script};

/// The Python that has Envoy's messages as well.
pub(super) async fn python_with_messages() -> Option<PathBuf> {
    let python = python(&["grpc"]).await?;
    let find = "import os, sys; sys.path.insert(0, os.path.join(sys.prefix, 'xds')); \
                import envoy.service.auth.v3.external_auth_pb2";
    if !run(&python, &["-c", find], b"").await.success {
        skip("Python's xds-protos is not installed");
        return None;
    }
    Some(python)
}

/// Envoy, told to ask the service on this port, before this upstream.
fn envoys_config(service: u16, upstream: u16) -> Value {
    const TYPES: &str = "type.googleapis.com/envoy.extensions";
    let at = |port: u16| json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let filters = json!([
        { "name": "envoy.filters.http.ext_authz", "typed_config": {
            "@type": format!("{TYPES}.filters.http.ext_authz.v3.ExtAuthz"),
            "transport_api_version": "V3",
            "grpc_service": { "envoy_grpc": { "cluster_name": "authz" }, "timeout": "10s" },
            "with_request_body": { "max_request_bytes": 8, "allow_partial_message": true },
        }},
        { "name": "envoy.filters.http.router", "typed_config": {
            "@type": format!("{TYPES}.filters.http.router.v3.Router"),
        }},
    ]);
    let extensions = json!({ "context_extensions": { "tier": "gold" } });
    let route = json!({
        "match": { "prefix": "/" },
        "route": { "cluster": "app" },
        "typed_per_filter_config": { "envoy.filters.http.ext_authz": {
            "@type": format!("{TYPES}.filters.http.ext_authz.v3.ExtAuthzPerRoute"), "check_settings": extensions,
        }},
    });
    let host = json!({ "name": "all", "domains": ["*"], "routes": [route] });
    let manager = json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "web", "http_filters": filters, "route_config": { "virtual_hosts": [host] },
        "use_remote_address": true,
    });
    let filter = json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager });
    let http2 = json!({
        "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": { "http2_protocol_options": {} },
    });
    let cluster = |name: &str, port: u16| {
        json!({
            "name": name,
            "type": "STATIC",
            "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": at(port) } }] }] },
        })
    };
    let mut authz = cluster("authz", service);
    authz["typed_extension_protocol_options"] =
        json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2 });
    let clusters = [authz, cluster("app", upstream)];
    let listener = json!({ "name": "web", "address": at(0), "filter_chains": [{ "filters": [filter] }] });
    json!({ "admin": { "address": at(0) }, "static_resources": { "listeners": [listener], "clusters": clusters } })
}

fn config(service: u16, upstream: &str) -> String {
    format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    external_authorization: {{ grpc: authz, timeout: 10s, \
         body: {{ max: 8B, partial: true }} }}\n    routes: [{{ to: app, external_authorization: {{ context: {{ tier: \
         gold }} }} }}]\nclusters:\n  app: {{ endpoints: [\"{upstream}\"] }}\n  authz: {{ endpoints: \
         [127.0.0.1:{service}], protocol: http2 }}\n"
    )
}

async fn ask(to: std::net::SocketAddr, say: &str) -> Reply {
    let mut client = Client::connect(to).await;
    let fields = "x-a: 1\r\nx-b: 1\r\nx-c: 1\r\nx-secret: s\r\ncookie: a=1\r\nContent-Length: 12";
    client
        .send(format!(
            "POST /a%20b?token=1&q=%2F HTTP/1.1\r\nHost: test\r\nx-say: {say}\r\n{fields}\r\n\r\nhello, world"
        ))
        .await;
    client.reply().await
}

/// Of the proxy itself, and not of the request. For a client on loopback Envoy makes another address up.
const OWN: [&str; 5] = [
    "x-request-id",
    "x-envoy-internal",
    "x-envoy-external-address",
    "x-envoy-expected-rq-timeout-ms",
    "x-forwarded-for",
];

/// What the service was asked, without what is another for each proxy and request.
async fn asked(service: &mut Running) -> Value {
    let line = service.line().await;
    let mut asked: Value = serde_json::from_str(line.strip_prefix("ASKED ").unwrap()).unwrap();
    let attributes = &mut asked["attributes"];
    for end in ["source", "destination"] {
        let socket = attributes[end]["address"]["socket_address"].as_object_mut().unwrap();
        assert!(socket.remove("port_value").unwrap().as_u64().unwrap() > 0);
    }
    let request = attributes["request"].as_object_mut().unwrap();
    assert!(request.remove("time").is_some_and(|time| time.as_str().unwrap().starts_with("20")));
    let http = request["http"].as_object_mut().unwrap();
    assert!(!http.remove("id").unwrap().as_str().unwrap().is_empty());
    let fields = http["headers"].as_object_mut().unwrap();
    fields.retain(|name, _| !OWN.contains(&name.as_str()));
    // Of things that we have none of.
    for nothing in ["metadata_context", "route_metadata_context"] {
        let said = asked["attributes"].as_object_mut().unwrap().remove(nothing);
        assert!(said.is_none_or(|said| said == json!({})), "{nothing}");
    }
    asked
}

/// What an upstream was sent of what the service may change.
fn sent(reply: &Reply) -> BTreeMap<String, String> {
    let report = Report::parse(&reply.body);
    let changed = ["x-user", "x-a", "x-b", "x-c", "x-d", "x-secret", "cookie", "host"];
    let mut sent = BTreeMap::from([
        (":path".to_owned(), report.path),
        (":length".to_owned(), report.length.to_string()),
    ]);
    for (name, value) in report.fields {
        let name = name.to_lowercase();
        if changed.contains(&name.as_str()) {
            // Two lines of a field are one with a comma (RFC 9110 section 5.3).
            sent.entry(name).and_modify(|known| *known += &format!(",{value}")).or_insert(value);
        }
    }
    sent
}

/// What a client got of what the service may say.
fn got(reply: &Reply) -> (u16, Vec<String>, String) {
    let ours = ["x-one", "x-two", "content-type", "location", "set-cookie"];
    let lines = reply.head.lines().filter(|line| {
        line.split_once(": ").is_some_and(|(name, _)| ours.contains(&name.to_lowercase().as_str()))
    });
    // What is said in protobuf is UTF-8, whether that is said or not.
    let mut lines: Vec<_> = lines.map(|line| line.to_lowercase().replace("; charset=utf-8", "")).collect();
    lines.sort();
    let text = if reply.status == 200 { String::new() } else { reply.text() };
    (reply.status, lines, text)
}

#[tokio::test]
async fn what_is_asked_and_done_is_what_envoy_asks_and_does() {
    let (Some(python), Some(envoy)) = (python_with_messages().await, Envoy::find().await) else { return };
    let mut service = Running::start(&python, &[&script("authz_server.py")]);
    let port = service.port().await;
    let echo = Echo::start("e").await;
    let envoy = envoy.run(&envoys_config(port, echo.address().port())).await;
    let proxy = Proxy::start(&config(port, &echo.address().to_string())).await;
    for say in ["allow", "change", "deny", "login"] {
        let ours = ask(proxy.address("web"), say).await;
        let our_question = asked(&mut service).await;
        let envoys = ask(envoy.address, say).await;
        let envoys_question = asked(&mut service).await;
        assert_eq!(our_question, envoys_question, "{say}");
        let (mut our_answer, envoys_answer) = (got(&ours), got(&envoys));
        // As below: what is added to nothing is lost there.
        let added = our_answer.1.extract_if(.., |line| line.starts_with("set-cookie")).count();
        assert_eq!(added, if say == "login" { 2 } else { 0 });
        assert_eq!(our_answer, envoys_answer, "{say}");
        if ours.status == 200 {
            let (mut ours, envoys) = (sent(&ours), sent(&envoys));
            // Envoy adds to a field only where there is one, and calls that a thing to do. Nothing is lost here.
            assert_eq!(ours.remove("x-d").is_some(), say == "change");
            assert_eq!(ours, envoys, "{say}");
        }
    }
    // Its error is none of the client's business: it is as if it had said nothing.
    let ours = ask(proxy.address("web"), "broken").await;
    assert_eq!(ours.field("x-outrigger-reason"), Some("external_authorization_unavailable"));
}

/// The same by HTTP.
#[tokio::test]
async fn by_http_the_service_sees_what_envoy_shows_it() {
    let Some(envoy) = Envoy::find().await else { return };
    let echo = Echo::start("e").await;
    let authz =
        Origin::answering("HTTP/1.1 200 OK\r\nx-user: alice\r\nx-other: 1\r\nContent-Length: 0\r\n\r\n")
            .await;
    let mut config = envoys_config(authz.socket().port(), echo.address().port());
    let filter = config
        .pointer_mut("/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config")
        .unwrap();
    let exact = |name: &str| json!({ "patterns": [{ "exact": name }] });
    filter.as_object_mut().unwrap().remove("grpc_service");
    filter["allowed_headers"] = json!({ "patterns": [{ "prefix": "x-" }, { "exact": "cookie" }] });
    filter["http_service"] = json!({
        "server_uri": { "uri": "http://authz", "cluster": "authz", "timeout": "10s" },
        "path_prefix": "/check",
        "authorization_response": { "allowed_upstream_headers": exact("x-user") },
    });
    config["static_resources"]["clusters"][0]
        .as_object_mut()
        .unwrap()
        .remove("typed_extension_protocol_options");
    let envoy = envoy.run(&config).await;
    let asked_by = "http: authz, path_prefix: /check, set_headers: [x-user], timeout: 10s, body: { max: 8B, partial: true }";
    let proxy = Proxy::start(&format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    external_authorization: {{ {asked_by} }}\n    routes: [{{ to: app \
         }}]\nclusters:\n  app: {{ endpoints: [\"{}\"] }}\n  authz: {{ endpoints: [\"{}\"] }}\n",
        echo.address(),
        authz.address(),
    ))
    .await;
    let mut questions = Vec::new();
    for address in [proxy.address("web"), envoy.address] {
        let reply = ask(address, "allow").await;
        assert_eq!(reply.status, 200, "{}", reply.head);
        assert_eq!(Report::parse(&reply.body).field("x-user"), Some("alice"));
        assert_eq!(Report::parse(&reply.body).field("x-other"), None);
        let asked = authz.last().message;
        let fields = asked.fields.into_iter().map(|(name, value)| (name.to_lowercase(), value));
        let mut fields: Vec<_> = fields.filter(|(name, _)| !OWN.contains(&name.as_str())).collect();
        fields.sort();
        questions.push((asked.start, fields, asked.body));
    }
    assert_eq!(questions[0], questions[1]);
}
