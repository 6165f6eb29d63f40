//! Mutual TLS as it should be: between two of us, with modes, with what is passed on.

use outrigger_tests::pki::{self, Authority};
use outrigger_tests::{Client, Dir, Echo, Origin, Proxy, Report, within};
use tokio::io::AsyncReadExt;

use super::{DOMAIN, IDENTITY, identity, inbound};

#[tokio::test]
async fn a_strict_listener_serves_whom_it_knows_and_says_who_they_are() {
    let authority = Authority::new(DOMAIN);
    let echo = Echo::start("app").await;
    let dir = identity(&authority, "/ns/shop/sa/cart");
    let proxy = Proxy::start_in(dir, &inbound("strict", &echo.address().to_string())).await;
    let caller = authority.svid("/ns/shop/sa/web");
    let mut client = pki::client(proxy.address("in"), Some(&caller)).await;
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: By=me;URI=spiffe://evil/a\r\n\r\n")
        .await;
    let report = Report::parse(&client.reply().await.body);
    let said = report.field("x-forwarded-client-cert").unwrap();
    assert!(said.starts_with("By=spiffe://cluster.local/ns/shop/sa/cart;Hash="), "{said}");
    assert!(said.ends_with(";URI=spiffe://cluster.local/ns/shop/sa/web") && !said.contains("evil"), "{said}");
    assert_eq!(report.field("x-forwarded-proto"), Some("https"));
    // Nobody else.
    assert_eq!(pki::status(proxy.address("in"), None, "/").await, None);
    assert_eq!(Client::connect(proxy.address("in")).await.try_get("/").await.map(|reply| reply.status), None);
    proxy
        .wait_metric(
            "outrigger_downstream_errors_total{listener=\"in\",reason=\"tls_no_certificate\"}",
            |n| n == 1.0,
        )
        .await;
    proxy
        .wait_metric("outrigger_downstream_errors_total{listener=\"in\",reason=\"tls_handshake\"}", |n| {
            n == 1.0
        })
        .await;
    assert_eq!(
        proxy.metric("outrigger_downstream_security_total{listener=\"in\",security=\"mtls\"}").await,
        1.0
    );
}

#[tokio::test]
async fn a_permissive_listener_serves_the_clear_beside_on_one_port() {
    let authority = Authority::new(DOMAIN);
    let echo = Echo::start("app").await;
    let dir = identity(&authority, "/app");
    let proxy = Proxy::start_in(dir, &inbound("permissive", &echo.address().to_string())).await;
    let mut plain = Client::connect(proxy.address("in")).await;
    plain
        .send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: URI=spiffe://cluster.local/root\r\n\r\n")
        .await;
    let report = Report::parse(&plain.reply().await.body);
    assert_eq!(
        (report.field("x-forwarded-client-cert"), report.field("x-forwarded-proto")),
        (None, Some("http"))
    );
    let caller = authority.svid("/web");
    assert_eq!(pki::status(proxy.address("in"), Some(&caller), "/").await, Some(200));
    // TLS is not the clear: who begins it must say who it is.
    assert_eq!(pki::status(proxy.address("in"), None, "/").await, None);
    for (security, expected) in [("plaintext", 1.0), ("mtls", 1.0)] {
        let series =
            format!("outrigger_downstream_security_total{{listener=\"in\",security=\"{security}\"}}");
        assert_eq!(proxy.metric(&series).await, expected, "{security}");
    }
}

/// Two proxies, the way of a request in a mesh: plain, mutual TLS, plain.
struct Pair {
    outer: Proxy,
    inner: Proxy,
}

impl Pair {
    async fn start(peers: &str, protocol: &str, app: &str) -> Self {
        let authority = Authority::new(DOMAIN);
        let inner = Proxy::start_in(identity(&authority, "/ns/pay/sa/api"), &inbound("strict", app)).await;
        let config = format!(
            "workers: 1\n{IDENTITY}listeners:\n  out: {{ bind: 127.0.0.1:0, direction: outbound, routes: [{{ to: pay }}] }}\n\
             clusters:\n  pay: {{ endpoints: [\"{}\"], protocol: {protocol}, mtls: {{ peers: [\"{peers}\"] }} }}\n",
            inner.address("in")
        );
        let outer = Proxy::start_in(identity(&authority, "/ns/shop/sa/web"), &config).await;
        Self { outer, inner }
    }
}

#[tokio::test]
async fn two_proxies_prove_themselves_to_each_other() {
    for protocol in ["http1", "http2"] {
        let echo = Echo::start("app").await;
        let pair =
            Pair::start("spiffe://cluster.local/ns/pay/*", protocol, &echo.address().to_string()).await;
        for _ in 0..3 {
            let reply = pair.outer.get("out", "/").await;
            let report = Report::parse(&reply.body);
            let said = report.field("x-forwarded-client-cert").unwrap();
            assert!(said.ends_with(";URI=spiffe://cluster.local/ns/shop/sa/web"), "{said}");
        }
        let mtls = "outrigger_downstream_security_total{listener=\"in\",security=\"mtls\"}";
        assert_eq!(pair.inner.metric(mtls).await, 1.0, "connections are pooled: {protocol}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_somebody_else_gets_nothing() {
    for protocol in ["http1", "http2"] {
        let origin = Origin::ok("").await;
        let pair = Pair::start("spiffe://cluster.local/ns/other/*", protocol, origin.address()).await;
        let reply = pair.outer.get("out", "/").await;
        assert_eq!(reply.status, 503);
        assert!(reply.text().contains("not of whom was meant"), "{}", reply.text());
        let series = "outrigger_upstream_connect_failures_total{cluster=\"pay\",reason=\"tls_not_expected\"}";
        assert!(pair.outer.metric(series).await >= 1.0);
        assert_eq!(origin.count(), 0);
    }
}

#[tokio::test]
async fn bytes_are_carried_as_well() {
    let authority = Authority::new(DOMAIN);
    let origin = Origin::start(async |mut conn| {
        conn.send("220 hello\r\n").await;
        let line = conn.exactly(6).await.unwrap();
        conn.send(line).await;
    })
    .await;
    let inner = format!(
        "{IDENTITY}listeners:\n  in: {{ bind: 127.0.0.1:0, mtls: strict, tcp: {{ to: db }} }}\nclusters:\n  db: {{ endpoints: [\"{}\"] }}\n",
        origin.address()
    );
    let inner = Proxy::start_in(identity(&authority, "/db"), &inner).await;
    let outer = format!(
        "{IDENTITY}listeners:\n  out: {{ bind: 127.0.0.1:0, tcp: {{ to: db }} }}\nclusters:\n  db: {{ endpoints: [\"{}\"], mtls: {{ peers: [\"spiffe://cluster.local/db\"] }} }}\n",
        inner.address("in")
    );
    let outer = Proxy::start_in(identity(&authority, "/web"), &outer).await;
    let mut client = outer.client("out").await;
    assert_eq!(client.exactly(11).await, b"220 hello\r\n");
    client.send("QUIT\r\n").await;
    assert_eq!(client.rest().await, b"QUIT\r\n");
}

#[tokio::test]
async fn endpoints_outside_of_the_mesh_are_known_by_name() {
    let dir = std::sync::Arc::new(Dir::new());
    outrigger_tests::tls::write_certificate(&dir, &["legacy.example.com", "127.0.0.2"]);
    let echo = Echo::start("app").await;
    let server = format!(
        "listeners:\n  in: {{ bind: 127.0.0.1:0, tls: {{ certificate: tls.crt, private_key: tls.key }}, routes: [{{ to: app }}] }}\nclusters:\n  app: {{ endpoints: [\"{}\"] }}\n",
        echo.address()
    );
    let server = Proxy::start_in(dir.clone(), &server).await;
    let rows = [
        ("trust: ca.crt, sni: legacy.example.com", 200),
        ("trust: ca.crt, sans: [legacy.example.com]", 200),
        ("trust: ca.crt, sans: [other.example.com, 127.0.0.2]", 200),
        ("trust: ca.crt, sni: other.example.com", 503),
        ("trust: ca.crt, sans: [127.0.0.1]", 503),
        ("trust: ca.crt, sans: [\"spiffe://a/b\"]", 503),
        ("sni: legacy.example.com", 503),
    ];
    for (tls, expected) in rows {
        let config = format!(
            "listeners:\n  out: {{ bind: 127.0.0.1:0, routes: [{{ to: legacy }}] }}\nclusters:\n  legacy: {{ endpoints: [\"{}\"], tls: {{ {tls} }} }}\n",
            server.address("in")
        );
        let client = Dir::new();
        client.write("ca.crt", &std::fs::read_to_string(dir.file("ca.crt")).unwrap());
        let proxy = Proxy::start_in(client.into(), &config).await;
        assert_eq!(proxy.get("out", "/").await.status, expected, "{tls}");
    }
}

#[tokio::test]
async fn a_health_check_proves_itself_and_sees_who_answers() {
    let authority = Authority::new(DOMAIN);
    let origin = Origin::ok("").await;
    let inner = Proxy::start_in(identity(&authority, "/api"), &inbound("strict", origin.address())).await;
    let config = |peer: &str| {
        format!(
            "{IDENTITY}listeners:\n  out: {{ bind: 127.0.0.1:0, routes: [{{ to: pay }}] }}\nclusters:\n  pay:\n    endpoints: [\"{}\"]\n    \
             mtls: {{ peers: [\"spiffe://cluster.local/{peer}\"] }}\n    health_check: {{ http: /healthz, interval: 50ms, idle_interval: 50ms, unhealthy_interval: 50ms, unhealthy_after: 1 }}\n",
            inner.address("in")
        )
    };
    let outer = Proxy::start_in(identity(&authority, "/web"), &config("api")).await;
    origin.wait_requests(2).await;
    assert_eq!(origin.last().target(), "/healthz");
    outer.reload(&config("other")).await;
    let series = "outrigger_upstream_health_checks_total{cluster=\"pay\",result=\"tls\"}";
    outer.wait_metric(series, |n| n >= 1.0).await;
}

#[tokio::test]
async fn a_client_that_says_nothing_is_given_up() {
    let authority = Authority::new(DOMAIN);
    let config =
        inbound("permissive", "127.0.0.1:9").replace("mtls:", "limits: { header_timeout: 300ms }, mtls:");
    let proxy = Proxy::start_in(identity(&authority, "/app"), &config).await;
    let mut silent = Client::connect(proxy.address("in")).await;
    assert_eq!(silent.rest().await, b"");
}

#[tokio::test]
async fn certificates_are_shown_by_the_host_that_is_named() {
    let dir = std::sync::Arc::new(Dir::new());
    let authority = Authority::new("any");
    for (name, host) in [("a", "a.example.com"), ("b", "*.example.com"), ("c", "c.test")] {
        let params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        authority.sign(params).write(&dir, name);
    }
    let files = |name: &str| format!("{{ certificate: {name}.crt, private_key: {name}.key }}");
    let config = format!(
        "listeners:\n  in: {{ bind: 127.0.0.1:0, tls: {{ certificates: [{}, {}, {}] }}, routes: [{{ respond: {{ body: ok }} }}] }}\n",
        files("c"),
        files("a"),
        files("b")
    );
    let proxy = Proxy::start_in(dir.clone(), &config).await;
    let rows = [
        ("a.example.com", "a"),
        ("A.Example.COM", "a"),
        ("x.example.com", "b"),
        ("x.y.example.com", "c"),
        ("example.com", "c"),
        ("c.test", "c"),
        ("other.test", "c"),
    ];
    for (host, expected) in rows {
        let stream = pki::connect(proxy.address("in"), host, &pki::client_config(None, &[])).await.unwrap();
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        let file = std::fs::read(dir.file(&format!("{expected}.crt"))).unwrap();
        let wanted =
            <rustls::pki_types::CertificateDer as rustls::pki_types::pem::PemObject>::from_pem_slice(&file)
                .unwrap();
        assert!(shown == wanted, "{host}");
    }
}

#[tokio::test]
async fn certificates_of_clients_may_be_asked_for_without_an_identity() {
    let dir = std::sync::Arc::new(Dir::new());
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    dir.write("clients.crt", &ours.pem());
    ours.sign(rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap()).write(&dir, "tls");
    let echo = Echo::start("app").await;
    for (asked, nobody) in [("required", None), ("optional", Some(200))] {
        let config = format!(
            "listeners:\n  in: {{ bind: 127.0.0.1:0, tls: {{ certificate: tls.crt, private_key: tls.key, client: {asked}, client_trust: clients.crt }}, routes: [{{ to: app }}] }}\nclusters:\n  app: {{ endpoints: [\"{}\"] }}\n",
            echo.address()
        );
        let proxy = Proxy::start_in(dir.clone(), &config).await;
        let (known, stranger) = (ours.svid("/a"), theirs.svid("/a"));
        assert_eq!(pki::status(proxy.address("in"), None, "/").await, nobody, "{asked}");
        assert_eq!(pki::status(proxy.address("in"), Some(&stranger), "/").await, None, "{asked}");
        let reply = pki::client(proxy.address("in"), Some(&known)).await.get("/").await;
        let report = Report::parse(&reply.body);
        let said = report.field("x-forwarded-client-cert").unwrap();
        assert!(said.starts_with("Hash=") && !said.contains("URI"), "{said}");
    }
}

#[tokio::test]
async fn a_session_is_resumed_by_whom_it_began() {
    let authority = Authority::new(DOMAIN);
    let origin = Origin::ok("").await;
    let dir = identity(&authority, "/app");
    let proxy = Proxy::start_in(dir.clone(), &inbound("strict", origin.address())).await;
    let config = pki::client_config(Some(&authority.svid("/web")), &["http/1.1"]);
    let resumed = async || {
        let mut stream = pki::connect(proxy.address("in"), "localhost", &config).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, outrigger_tests::wire::get("/").as_bytes())
            .await
            .unwrap();
        let mut byte = [0];
        let read = within("an answer", stream.read(&mut byte)).await;
        assert_eq!(read.ok(), Some(1));
        stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    };
    assert!(!resumed().await);
    assert!(resumed().await);
    // A renewed certificate of ours changes nothing about whom we believe.
    let version = proxy.version().await;
    authority.svid("/app").write(&dir, "own");
    outrigger_tests::until("a new version", async || (proxy.version().await > version).then_some(())).await;
    assert!(resumed().await);
    // A root more, and everybody proves itself anew.
    let version = proxy.version().await;
    dir.write("ca.crt", &format!("{}{}", authority.pem(), Authority::new(DOMAIN).pem()));
    outrigger_tests::until("a new version", async || (proxy.version().await > version).then_some(())).await;
    assert!(!resumed().await);
    assert!(resumed().await);
}
