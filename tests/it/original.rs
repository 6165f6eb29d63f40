//! Endpoints that are named by who comes: by a header here, by the kernel in [`redirect`].

mod redirect;

use outrigger_tests::{Client, Dir, Echo, Origin, Proxy, Report, until};
use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::watch;

use crate::peers::free_port;

/// A listener `web` that sends all to the cluster `there`.
fn config(cluster: &str) -> String {
    format!(
        "listeners:
  web: {{ bind: 127.0.0.1:0, routes: [{{ to: there }}] }}
clusters:
  there: {{ original_destination: {{ {cluster} }} }}
"
    )
}

const BY_HEADER: &str = "header: x-envoy-original-dst-host";

fn asks(for_: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: test\r\nx-envoy-original-dst-host: {for_}\r\n\r\n")
}

/// The status and the reason of an answer of ours, or who has answered.
async fn came(client: &mut Client, request: String) -> String {
    client.send(request).await;
    let reply = client.reply().await;
    match reply.field("x-outrigger-reason") {
        Some(reason) => format!("{} {reason}", reply.status),
        None => Report::parse(&reply.body).origin,
    }
}

async fn endpoints(proxy: &Proxy) -> Vec<String> {
    let clusters = proxy.ask_json("/clusters").await;
    let all = clusters["clusters"].as_array().unwrap().iter();
    let endpoints = all.flat_map(|cluster| cluster["endpoints"].as_array().unwrap());
    endpoints.map(|endpoint| endpoint["address"].as_str().unwrap().to_owned()).collect()
}

fn error(reason: &str) -> String {
    format!("outrigger_downstream_errors_total{{listener=\"web\",reason=\"{reason}\"}}")
}

#[tokio::test]
async fn a_header_names_the_endpoint() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let (one, two) = (one.address().to_string(), two.address().to_string());
    let proxy = Proxy::start(&config(BY_HEADER)).await;
    let mut client = proxy.client("web").await;
    assert_eq!(came(&mut client, asks(&one)).await, "one");
    assert_eq!(came(&mut client, asks(&two)).await, "two");
    assert_eq!(came(&mut client, asks(&one)).await, "one");
    // A place has one form.
    let mapped = format!("[::ffff:127.0.0.1]:{}", two.rsplit(':').next().unwrap());
    assert_eq!(came(&mut client, asks(&mapped)).await, "two");
    let mut named = endpoints(&proxy).await;
    named.sort();
    let mut expected = [one.clone(), two];
    expected.sort();
    assert_eq!(named, expected);
    let opened = "outrigger_upstream_connections_total{cluster=\"there\"}";
    assert_eq!(proxy.metric(opened).await, 2.0, "connections are kept");
    for (value, expected) in [
        ("localhost:80", "503 bad_original_destination"),
        ("0.0.0.0:80", "503 bad_original_destination"),
        (&format!("{one}, {one}"), "503 bad_original_destination"),
    ] {
        assert_eq!(came(&mut client, asks(value)).await, expected, "{value}");
    }
    let none = "GET / HTTP/1.1\r\nHost: test\r\n\r\n".to_owned();
    assert_eq!(came(&mut client, none).await, "503 no_original_destination");
    let closed = asks(&format!("127.0.0.1:{}", free_port()));
    assert_eq!(came(&mut client, closed).await, "503 upstream_connect_refused");
    assert_eq!(proxy.metric(&error("bad_original_destination")).await, 3.0);
    assert_eq!(proxy.metric(&error("no_original_destination")).await, 1.0);
}

#[tokio::test]
async fn nobody_is_believed_who_is_not_to_be() {
    let echo = Echo::start("one").await;
    let proxy = Proxy::start(&config("")).await;
    let mut client = proxy.client("web").await;
    let named = asks(&echo.address().to_string());
    assert_eq!(came(&mut client, named).await, "503 no_original_destination");
    assert_eq!(echo.requests(), 0);
    // Somebody who watches is told once.
    let named = asks(&echo.address().to_string());
    assert_eq!(came(&mut client, named).await, "503 no_original_destination");
    let told = proxy.log().matches("no original destination").count();
    assert_eq!(told, 1, "{}", proxy.log());
}

#[tokio::test]
async fn what_would_come_back_is_not_sent() {
    let all = "listeners:\n  all: { bind: \"[::]:0\", routes: [{ respond: {} }] }\n";
    let config = config(BY_HEADER).replace("listeners:\n", all);
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.client("web").await;
    let (web, all) = (proxy.address("web"), proxy.address("all").port());
    let own = [
        web.to_string(),
        format!("[::ffff:127.0.0.1]:{}", web.port()),
        format!("127.0.0.1:{all}"),
        format!("127.1.2.3:{all}"),
        format!("[::1]:{all}"),
        proxy.admin().to_string(),
    ];
    for address in &own {
        assert_eq!(came(&mut client, asks(address)).await, "503 own_address", "{address}");
    }
    assert_eq!(proxy.metric(&error("own_address")).await, 6.0);
    assert_eq!(endpoints(&proxy).await, [""; 0]);
    // The same port elsewhere is somebody else's.
    let other = came(&mut client, asks(&format!("127.0.0.2:{}", web.port()))).await;
    assert_eq!(other, "503 upstream_connect_refused");
}

#[tokio::test]
async fn endpoints_are_bounded_and_forgotten() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let limits = format!("{BY_HEADER}, max_endpoints: 1, cleanup: 100ms");
    let proxy = Proxy::start(&config(&limits)).await;
    // One that is in use stays, and there is no room.
    let (held, open) = Origin::gated().await;
    let mut waiting = proxy.client("web").await;
    waiting.send(asks(held.address())).await;
    held.wait_requests(1).await;
    let mut client = proxy.client("web").await;
    let second = asks(&two.address().to_string());
    assert_eq!(came(&mut client, second.clone()).await, "503 max_endpoints");
    let overflows = "outrigger_upstream_overflows_total{cluster=\"there\",limit=\"max_endpoints\"}";
    assert_eq!(proxy.metric(overflows).await, 1.0);
    assert_eq!(endpoints(&proxy).await, [held.address()]);
    open.send(true).unwrap();
    assert_eq!(waiting.reply().await.text(), "x");
    until("it is forgotten", async || endpoints(&proxy).await.is_empty().then_some(())).await;
    // So are its connections.
    held.wait_closed(1).await;
    assert_eq!(came(&mut client, second).await, "two");
    // A larger limit holds at once, and touches nobody.
    proxy.reload(&config(&format!("{BY_HEADER}, max_endpoints: 9, cleanup: 1h"))).await;
    assert_eq!(came(&mut client, asks(&one.address().to_string())).await, "one");
    assert_eq!(came(&mut client, asks(&two.address().to_string())).await, "two");
    assert_eq!(endpoints(&proxy).await.len(), 2);
}

/// Where the proxy is behind another address as well, as behind that of a service, it does not know itself there: but it is
/// named only once.
#[tokio::test]
async fn what_comes_back_by_another_address_names_nobody_any_more() {
    let proxy = Proxy::start(&config(BY_HEADER)).await;
    let service = Proxy::start(&format!(
        "listeners: {{ tcp: {{ bind: 127.0.0.1:0, tcp: {{ to: all }} }} }}
clusters: {{ all: {{ endpoints: [\"{}\"] }} }}
",
        proxy.address("web")
    ))
    .await;
    let mut client = proxy.client("web").await;
    client.send(asks(&service.address("tcp").to_string())).await;
    assert_eq!(client.reply().await.status, 503);
    assert_eq!(proxy.metric(&error("no_original_destination")).await, 1.0, "once, and no more");
    assert_eq!(endpoints(&proxy).await, [service.address("tcp").to_string()]);
}

/// A copy goes where its request was to go, or as its own cluster has it; neither says so any more.
#[tokio::test]
async fn a_copy_has_its_endpoint_named_as_the_request_has() {
    let (one, copy) = (Origin::ok("one").await, Origin::ok("copy").await);
    let port = format!("{BY_HEADER}, port: {}", copy.socket().port());
    let config = config(BY_HEADER).replace("{ to: there }", "{ to: there, mirror: { to: copies } }");
    let proxy = Proxy::start(&format!("{config}  copies: {{ original_destination: {{ {port} }} }}\n")).await;
    let mut client = proxy.client("web").await;
    client.send(asks(one.address())).await;
    assert_eq!(client.reply().await.text(), "one");
    copy.wait_requests(1).await;
    for request in [one.last(), copy.last()] {
        assert_eq!(request.field("x-envoy-original-dst-host"), None);
    }
}

/// The host names it, and is the host all the same.
#[tokio::test]
async fn a_host_that_names_the_endpoint_stays() {
    let one = Origin::ok("one").await;
    let proxy = Proxy::start(&config("header: host")).await;
    let mut client = proxy.client("web").await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", one.address())).await;
    assert_eq!(client.reply().await.text(), "one");
    assert_eq!(one.last().field("host"), Some(one.address()));
}

/// Retries, breakers and ejection find an endpoint as any other.
#[tokio::test]
async fn a_named_endpoint_is_one_as_any_other() {
    let echo = Echo::start("one").await;
    let failing = Origin::answering("HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n").await;
    let config = config(&format!("{BY_HEADER}, cleanup: 1h"))
        .replace(
            "routes: [{ to: there }]",
            "routes: [{ to: there, retry: { attempts: 3, conditions: [5xx] } }]",
        )
        .replace(
            " } }\n",
            " }, outlier_detection: { consecutive_5xx: 3, base_ejection: 1h, max_ejection: 1h } }\n",
        );
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.client("web").await;
    // Of one alone none is left out.
    assert_eq!(came(&mut client, asks(&echo.address().to_string())).await, "one");
    client.send(asks(failing.address())).await;
    assert_eq!(client.reply().await.status, 500);
    // Nobody else was meant, and nobody else is named any more.
    assert_eq!(failing.count(), 3);
    for request in failing.requests() {
        assert_eq!(request.field("x-envoy-original-dst-host"), None);
    }
    assert_eq!(came(&mut client, asks(failing.address())).await, "503 upstream_no_endpoint");
    assert_eq!(came(&mut client, asks(&echo.address().to_string())).await, "one");
    let clusters: Value = proxy.ask_json("/clusters").await;
    assert_eq!(clusters["clusters"][0]["endpoints"].as_array().unwrap().len(), 2);
    assert_eq!(failing.count(), 3);
}

#[tokio::test]
async fn http2_goes_there_too() {
    let echo = Echo::start("one").await;
    let config = config(&format!("{BY_HEADER}, port: {}", echo.address().port()));
    let proxy = Proxy::start(&config.replace(" } }\n", " }, protocol: http2 }\n")).await;
    let mut client = proxy.client("web").await;
    client.send(asks("127.0.0.1:1")).await;
    assert_eq!(Report::parse(&client.reply().await.body).protocol, "HTTP/2");
    assert_eq!(endpoints(&proxy).await, [echo.address().to_string()]);
}

/// A proxy with a certificate of its own stands for whatever is there.
#[tokio::test]
async fn with_tls_it_is_known_whose_certificate_is_expected() {
    let dir = std::sync::Arc::new(Dir::new());
    outrigger_tests::tls::write_certificate(&dir, &["there.example.com"]);
    let server = "listeners:\n  in: { bind: 127.0.0.1:0, tls: { certificate: tls.crt, private_key: tls.key }, routes: [{ respond: { body: in } }] }\n";
    let server = Proxy::start_in(dir.clone(), server).await;
    for (tls, expected) in
        [("sni: there.example.com", 200), ("sans: [there.example.com]", 200), ("sni: other.example.com", 503)]
    {
        let config =
            config(BY_HEADER).replace(" } }\n", &format!(" }}, tls: {{ trust: ca.crt, {tls} }} }}\n"));
        let client = Dir::new();
        client.write("ca.crt", &std::fs::read_to_string(dir.file("ca.crt")).unwrap());
        let proxy = Proxy::start_in(client.into(), &config).await;
        let mut client = proxy.client("web").await;
        client.send(asks(&server.address("in").to_string())).await;
        assert_eq!(client.reply().await.status, expected, "{tls}");
    }
}

/// A listener that believes tokens by keys that come from there: until they do, a configuration waits to come into force.
fn that_waits_for(keys: &Origin) -> String {
    format!(
        "  waits:
    bind: 127.0.0.1:0
    jwt: [{{ issuer: \"https://id.test\", jwks: \"http://{}/jwks\", audiences: [shop] }}]
    routes: [{{ respond: {{}} }}]
clusters:",
        keys.address()
    )
}

/// Of two configurations the one in force holds until the other one is.
#[tokio::test]
async fn a_cluster_comes_to_name_its_endpoints_and_loses_no_request() {
    let echo = Echo::start("one").await;
    let address = echo.address().to_string();
    let named = config(BY_HEADER);
    let stated = named
        .replace(&format!("original_destination: {{ {BY_HEADER} }}"), &format!("endpoints: [\"{address}\"]"));
    for (first, second) in [(&stated, &named), (&named, &stated)] {
        let proxy = Proxy::start(first).await;
        let mut client = proxy.client("web").await;
        assert_eq!(came(&mut client, asks(&address)).await, "one");
        let (keys, open) = Origin::gated().await;
        proxy.rewrite(&second.replace("clusters:", &that_waits_for(&keys)));
        proxy.signal(Signal::HUP);
        keys.wait_requests(1).await;
        assert_eq!(came(&mut client, asks(&address)).await, "one", "it is about to come into force");
        assert_eq!(endpoints(&proxy).await, [&*address]);
        open.send(true).unwrap();
        until("it is in force", async || (proxy.version().await > 1).then_some(())).await;
        assert_eq!(came(&mut client, asks(&address)).await, "one");
        assert_eq!(endpoints(&proxy).await, [&*address]);
    }
}

/// A request that is tried again goes where it was to go, whatever others name meanwhile.
#[tokio::test]
async fn a_request_of_before_does_not_go_where_others_say() {
    let (open, gate) = watch::channel(false);
    let stated = Origin::start(move |mut conn| {
        let mut gate = gate.clone();
        async move {
            while conn.request().await.is_some() {
                let _ = gate.wait_for(|open| *open).await;
                conn.send("HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n").await;
            }
        }
    })
    .await;
    let other = Echo::start("other").await;
    let named = config(BY_HEADER)
        .replace("{ to: there }", "{ to: there, retry: { attempts: 2, conditions: [5xx] } }");
    let before = named.replace(
        &format!("original_destination: {{ {BY_HEADER} }}"),
        &format!("endpoints: [\"{}\"]", stated.address()),
    );
    let proxy = Proxy::start(&before).await;
    let mut waiting = proxy.client("web").await;
    waiting.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    stated.wait_requests(1).await;
    proxy.reload(&named).await;
    let mut client = proxy.client("web").await;
    assert_eq!(came(&mut client, asks(&other.address().to_string())).await, "other");
    open.send(true).unwrap();
    assert_eq!(waiting.reply().await.status, 500);
    assert_eq!((stated.count(), other.requests()), (2, 1));
}
