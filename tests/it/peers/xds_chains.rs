//! Several chains on one listener, by a control plane that is not ours: each connection is taken by the one that Envoy takes
//! it by.

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_tests::pki::{self, Authority, client_config};
use outrigger_tests::{Client, Control, Proxy, until, within};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::envoy::{Envoy, node};
use super::ext_authz::python_with_messages;
use super::free_port;
use super::xds::{Way, at, cluster, control, endpoints, file};
use super::xds_tls::{certificate, of, server};

const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// What a chain does, and what it is told apart by.
fn chain(matches: &Value, last: Value, secret: Option<&str>) -> Value {
    let mut chain =
        json!({ "filter_chain_match": matches, "filters": [{ "name": "last", "typed_config": last }] });
    if let Some(secret) = secret {
        let common = json!({ "tls_certificate_sds_secret_configs": [of(secret)] });
        let context = json!({
            "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"), "common_tls_context": common,
        });
        chain["transport_socket"] = json!({ "name": "tls", "typed_config": context });
    }
    chain
}

/// Answers each request so.
fn says(answer: &str) -> Value {
    let respond = json!({ "status": 200, "body": { "inline_string": answer } });
    let routes = json!([{ "match": { "prefix": "/" }, "direct_response": respond }]);
    json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "web",
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] },
        "http_filters": [{ "name": "router", "typed_config": { "@type": format!("{TYPES}.filters.http.router.v3.Router") } }],
    })
}

fn passes_to(cluster: &str) -> Value {
    json!({ "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"), "stat_prefix": "tcp", "cluster": cluster })
}

fn listener(name: &str, port: u16, chains: &[Value], rest: Option<Value>) -> Value {
    let inspector = json!({ "@type": format!("{TYPES}.filters.listener.tls_inspector.v3.TlsInspector") });
    let mut listener = json!({
        "name": name, "address": at(port), "filter_chains": chains,
        "listener_filters": [{ "name": "tls", "typed_config": inspector }],
    });
    if let Some(mut rest) = rest {
        rest.as_object_mut().unwrap().remove("filter_chain_match");
        listener["default_filter_chain"] = rest;
    }
    listener
}

/// How somebody connects.
#[derive(Clone, Copy, Debug)]
enum By {
    /// In the clear, from there.
    Clear([u8; 4]),
    /// With TLS, naming this host, or none, and offering this.
    Tls(Option<&'static str>, &'static [&'static str]),
}

const HERE: [u8; 4] = [127, 0, 0, 1];

async fn first_answer(stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<String> {
    let reply = Client::over(stream).try_get("/").await?;
    Some(String::from_utf8(reply.body).unwrap())
}

/// What is answered, if anything is.
async fn answer(to: SocketAddr, by: By) -> Option<String> {
    let socket = TcpSocket::new_v4().unwrap();
    match by {
        By::Clear(from) => {
            socket.bind((from, 0).into()).unwrap();
            first_answer(socket.connect(to).await.ok()?).await
        }
        By::Tls(host, alpn) => {
            let mut config = Arc::unwrap_or_clone(client_config(None, alpn));
            config.enable_sni = host.is_some();
            let name = ServerName::try_from(host.unwrap_or("none.test")).unwrap();
            let stream = socket.connect(to).await.ok()?;
            first_answer(TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?).await
        }
    }
}

/// A listener for each thing that chains are told apart by, and some for what comes before what.
#[expect(clippy::too_many_lines, reason = "a flat table")]
fn listeners() -> Vec<Value> {
    let web = Some("web");
    let by = |matches: Value, name: &str| chain(&matches, says(name), web);
    let clear = |matches: Value, name: &str| chain(&matches, says(name), None);
    let network = |prefix: &str, length: u8| json!([{ "address_prefix": prefix, "prefix_len": length }]);
    vec![
        listener(
            "hosts",
            0,
            &[
                by(json!({ "server_names": ["a.test", "b.test"] }), "exact"),
                by(json!({ "server_names": ["*.test"] }), "wide"),
                by(json!({ "server_names": ["*.b.test"] }), "narrow"),
                by(json!({}), "any"),
            ],
            None,
        ),
        listener("nobody", 0, &[by(json!({ "server_names": ["a.test"] }), "a")], None),
        listener(
            "rest",
            0,
            &[by(json!({ "server_names": ["a.test"] }), "a")],
            Some(clear(json!({}), "rest")),
        ),
        listener(
            "transport",
            0,
            &[
                by(json!({ "transport_protocol": "tls" }), "tls"),
                clear(json!({ "transport_protocol": "raw_buffer" }), "clear"),
            ],
            None,
        ),
        listener(
            "protocols",
            0,
            &[
                by(json!({ "application_protocols": ["x"] }), "x"),
                by(json!({ "application_protocols": ["http/1.1", "y"] }), "http"),
                by(json!({}), "any"),
            ],
            None,
        ),
        listener(
            "transport-before-protocols",
            0,
            &[
                by(json!({ "application_protocols": ["x"] }), "x"),
                by(json!({ "transport_protocol": "tls" }), "tls"),
                clear(json!({}), "any"),
            ],
            None,
        ),
        listener(
            "host-before-protocols",
            0,
            &[
                by(json!({ "server_names": ["a.test"], "application_protocols": ["x"] }), "a"),
                by(json!({ "application_protocols": ["http/1.1"] }), "http"),
            ],
            Some(by(json!({}), "rest")),
        ),
        listener(
            "destinations",
            0,
            &[
                clear(json!({ "prefix_ranges": network("127.0.0.0", 8) }), "wide"),
                clear(json!({ "prefix_ranges": network("127.0.0.1", 32) }), "narrow"),
                clear(json!({ "prefix_ranges": network("10.0.0.0", 8) }), "elsewhere"),
                // What comes first decides.
                clear(json!({ "destination_port": 1, "prefix_ranges": network("127.0.0.1", 32) }), "port"),
            ],
            None,
        ),
        listener(
            "sources",
            0,
            &[
                clear(json!({ "source_prefix_ranges": network("127.0.0.2", 32) }), "two"),
                clear(json!({ "source_prefix_ranges": network("127.0.0.0", 8) }), "near"),
                clear(json!({ "source_type": "EXTERNAL" }), "external"),
            ],
            None,
        ),
        listener(
            "local",
            0,
            &[
                clear(json!({ "source_prefix_ranges": network("127.0.0.2", 32) }), "two"),
                clear(json!({ "source_type": "SAME_IP_OR_LOOPBACK" }), "local"),
            ],
            None,
        ),
        listener(
            "direct-before-origin",
            0,
            &[
                clear(json!({ "direct_source_prefix_ranges": network("127.0.0.2", 32) }), "two"),
                clear(json!({ "source_type": "SAME_IP_OR_LOOPBACK" }), "local"),
            ],
            None,
        ),
        listener(
            "destination-before-all",
            0,
            &[
                by(json!({ "server_names": ["a.test"], "application_protocols": ["x"] }), "a"),
                by(json!({ "application_protocols": ["http/1.1"] }), "http"),
                by(json!({ "prefix_ranges": network("127.0.0.1", 32), "server_names": ["b.test"] }), "b"),
            ],
            Some(clear(json!({}), "rest")),
        ),
    ]
}

const PROBES: [By; 12] = [
    By::Clear(HERE),
    By::Clear([127, 0, 0, 2]),
    By::Tls(None, &[]),
    By::Tls(Some("a.test"), &[]),
    By::Tls(Some("B.test"), &[]),
    By::Tls(Some("c.test"), &[]),
    By::Tls(Some("x.b.test"), &[]),
    By::Tls(Some("x.y.b.test"), &[]),
    By::Tls(Some("else.where"), &["http/1.1"]),
    By::Tls(Some("a.test"), &["x", "http/1.1"]),
    By::Tls(Some("a.test"), &["http/1.1", "x"]),
    By::Tls(Some("b.test"), &["http/1.1", "y"]),
];

#[tokio::test]
async fn a_connection_is_taken_by_the_chain_that_envoy_takes_it_by() {
    let (Some(python), Some(envoy)) = (python_with_messages().await, Envoy::find().await) else { return };
    let listeners = listeners();
    let web = Authority::new("a").named("web.test");
    let state =
        json!({ "version": "1", "Cluster": [], "Listener": listeners, "Secret": [certificate("web", &web)] });
    let (_control, port) = control(&python, Way::Sotw, 0, &state).await;
    let envoy = envoy.run(&node("envoy", ([127, 0, 0, 1], port).into(), "GRPC")).await;
    let proxy = Proxy::start(&file(port)).await;
    let (mut differ, mut answered) = (Vec::new(), std::collections::BTreeSet::new());
    for listener in &listeners {
        let name = listener["name"].as_str().unwrap();
        for by in PROBES {
            let ours = answer(proxy.address(name), by).await;
            let envoys = answer(envoy.address_of(name), by).await;
            if ours != envoys {
                differ.push(format!("{name} {by:?}: ours {ours:?}, Envoy's {envoys:?}"));
            }
            answered.extend(ours.map(|answer| format!("{name} {answer}")));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    // That they agree means something: every chain that can have a turn had it.
    let never = [
        "destinations wide",
        "destinations elsewhere",
        "destinations port",
        "sources two",
        "transport-before-protocols x",
        "destination-before-all a",
        "destination-before-all http",
    ];
    let chains = listeners.iter().flat_map(|listener| {
        let all = listener["filter_chains"].as_array().unwrap().iter();
        all.map(move |chain| (listener["name"].as_str().unwrap(), &chain["filters"][0]["typed_config"]))
    });
    for (listener, manager) in chains {
        let body = &manager["route_config"]["virtual_hosts"][0]["routes"][0]["direct_response"]["body"];
        let name = format!("{listener} {}", body["inline_string"].as_str().unwrap());
        assert_eq!(answered.contains(&name), !never.contains(&name.as_str()), "{name}: {answered:?}");
    }
}

/// What is shown to somebody who names this host.
async fn shown(to: SocketAddr, host: &str) -> Option<Vec<u8>> {
    let stream = pki::connect(to, host, &client_config(None, &[])).await.ok()?;
    Some(stream.get_ref().1.peer_certificates()?[0].to_vec())
}

#[tokio::test]
async fn each_chain_has_its_certificate_and_its_routes_and_keeps_its_connections() {
    let Some(python) = python_with_messages().await else { return };
    let authority = Authority::new("a");
    let [a, b] = ["a.test", "b.test"].map(|host| authority.named(host));
    let secrets = json!([certificate("a", &a), certificate("b", &b)]);
    let names = |host: &str| json!({ "server_names": [host] });
    let state = |version: &str, chains: &[Value]| json!({ "version": version, "Cluster": [], "Secret": secrets, "Listener": [listener("web", 0, chains, None)] });
    let [of_a, of_b] =
        ["a", "b"].map(|name| move |answer: &str, names: &Value| chain(names, says(answer), Some(name)));
    let (a_test, b_test) = (names("a.test"), names("b.test"));
    let first = state("1", &[of_a("one", &a_test), of_b("two", &b_test)]);
    let (mut control, port) = control(&python, Way::Delta, 0, &first).await;
    let proxy = Proxy::start(&file(port)).await;
    let web = proxy.address("web");
    for (host, svid) in [("a.test", &a), ("b.test", &b)] {
        assert_eq!(shown(web, host).await, Some(svid.certificates()[0].to_vec()), "{host}");
    }
    let open = |host: &'static str| async move {
        Client::over(pki::connect(web, host, &client_config(None, &["http/1.1"])).await.unwrap())
    };
    let (mut to_a, mut to_b) = (open("a.test").await, open("b.test").await);
    assert_eq!((to_a.get("/").await.body, to_b.get("/").await.body), (b"one".to_vec(), b"two".to_vec()));
    // Nobody else is served, and it is counted.
    assert_eq!(shown(web, "c.test").await, None);
    assert_eq!(answer(web, By::Clear(HERE)).await, None);
    let closed = "outrigger_downstream_errors_total{listener=\"web\",reason=\"no_chain\"}";
    proxy.wait_metric(closed, |n| n == 2.0).await;
    assert_eq!(proxy.metric("outrigger_downstream_connections{listener=\"web\"}").await, 2.0);
    // In another order, with other answers: each connection is its chain's, wherever that stands.
    control.tell(&state("2", &[of_b("four", &b_test), of_a("three", &a_test)]).to_string()).await;
    until("other answers", async || (to_a.get("/").await.body == b"three").then_some(())).await;
    assert_eq!(to_b.get("/").await.body, b"four");
    // A chain that is gone serves whom it has, as it was.
    control.tell(&state("3", &[of_a("five", &a_test)]).to_string()).await;
    until("another answer", async || (to_a.get("/").await.body == b"five").then_some(())).await;
    assert_eq!(to_b.get("/").await.body, b"four");
    assert_eq!(shown(web, "b.test").await, None);
}

/// TLS that is not ours to take off is passed on as it came, however it comes; by the port that it came to.
#[tokio::test]
async fn what_was_looked_at_is_passed_on() {
    let Some(python) = python_with_messages().await else { return };
    let authority = Authority::new("a");
    let backend = server(&authority.named("app.test"), &authority).await;
    let port = free_port();
    let chains = [
        chain(&json!({ "destination_port": port, "server_names": ["app.test"] }), passes_to("app"), None),
        chain(&json!({ "destination_port": port, "transport_protocol": "raw_buffer" }), says("clear"), None),
        chain(&json!({}), says("another port"), None),
    ];
    let state = json!({
        "version": "1",
        "Cluster": [cluster("app", &json!({}))],
        "ClusterLoadAssignment": [endpoints("app", &[backend])],
        "Listener": [listener("web", port, &chains, None)],
    });
    let (_control, plane) = control(&python, Way::Delta, 0, &state).await;
    let proxy = Proxy::start(&file(plane)).await;
    let web = proxy.address("web");
    let caller = authority.named("caller.test");
    let config = client_config(Some(&caller), &[]);
    let stream = pki::connect(web, "app.test", &config).await.unwrap();
    assert_eq!(Client::over(stream).get("/").await.status, 200);
    assert_eq!(answer(web, By::Clear(HERE)).await.as_deref(), Some("clear"));
    // A byte at a time.
    let mut hello = Vec::new();
    let mut client = ClientConnection::new(config, ServerName::try_from("app.test").unwrap()).unwrap();
    client.write_tls(&mut hello).unwrap();
    let mut stream = TcpStream::connect(web).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in hello {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut record = [0; 5];
    within("an answer", stream.read_exact(&mut record)).await.unwrap();
    // A handshake record.
    assert_eq!(record[0], 22);
}

/// What a file says of chains is what Envoy does with them, told by our control plane.
#[tokio::test]
async fn chains_of_a_file_are_envoys_too() {
    let Some(envoy) = Envoy::find().await else { return };
    let authority = Authority::new("a");
    let inside = authority.named("a.test");
    let backend = server(&inside, &authority).await;
    let control = Control::start(
        "",
        &[(
            "a.yaml",
            &format!(
                "listeners:
  web:
    bind: 127.0.0.1:0
    chains:
      - {{ when: {{ source: 127.0.0.2 }}, routes: two }}
      - {{ when: {{ sni: [a.test, '*.b.test'] }}, tcp: {{ to: inside }} }}
      - {{ when: {{ sni: c.test, transport: tls, alpn: x }}, tcp: {{ to: inside }} }}
    rest: {{ routes: rest }}
route_tables: {{ two: [{{ respond: {{ body: two }} }}], rest: [{{ respond: {{ body: rest }} }}] }}
clusters: {{ inside: {{ endpoints: [127.0.0.1:{backend}] }} }}
"
            ),
        )],
    );
    let envoy = envoy.run(&node("envoy", control.xds(), "DELTA_GRPC")).await;
    let proxy = Proxy::start(&file(control.xds().port())).await;
    let shows = Some(inside.certificates()[0].to_vec());
    for to in [proxy.address("web"), envoy.address] {
        assert_eq!(answer(to, By::Clear(HERE)).await.as_deref(), Some("rest"));
        assert_eq!(answer(to, By::Clear([127, 0, 0, 2])).await.as_deref(), Some("two"));
        assert_eq!(shown(to, "a.test").await, shows);
        assert_eq!(shown(to, "x.b.test").await, shows);
        // It is spoken in the clear there.
        assert_eq!(shown(to, "b.test").await, None);
        assert_eq!(shown(to, "c.test").await, None);
    }
    let printed = proxy.ask("/config?format=yaml").await.text();
    assert!(printed.contains("when: { sni: [a.test, \"*.b.test\"] }"), "{printed}");
}
