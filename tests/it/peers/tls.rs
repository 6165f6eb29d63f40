//! TLS between us and others' libraries: curl, OpenSSL, gRPC, Envoy on either side; a scanner and a fuzzer.

use std::path::Path;
use std::sync::Arc;

use outrigger_tests::peer::peer;
use outrigger_tests::pki::{Authority, DOMAIN, IDENTITY, Svid, leaf};
use outrigger_tests::{Client, Dir, Echo, Proxy, Report};
use rcgen::SanType;
use serde_json::json;

use super::envoy::Envoy;
use super::{Running, python, quiet, run, script};

const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// A certificate with a name that those look for who do not know of SPIFFE.
fn named(authority: &Authority, path: &str) -> Svid {
    let mut params = leaf(&[&authority.id(path)]);
    params.subject_alt_names.push(SanType::DnsName("localhost".try_into().unwrap()));
    authority.sign(params)
}

/// A directory with our identity and a client's.
fn identities(authority: &Authority) -> Arc<Dir> {
    let dir = Arc::new(Dir::new());
    dir.write("ca.crt", &authority.pem());
    named(authority, "/app").write(&dir, "own");
    named(authority, "/client").write(&dir, "client");
    named(&Authority::new(DOMAIN), "/client").write(&dir, "stranger");
    dir
}

async fn strict(authority: &Authority, cluster: &str) -> Proxy {
    let config = format!(
        "{IDENTITY}listeners:\n  in: {{ bind: 127.0.0.1:0, mtls: strict, routes: [{{ to: app }}] }}\nclusters:\n  app: {{ {cluster} }}\n"
    );
    Proxy::start_in(identities(authority), &config).await
}

fn path(dir: &Dir, name: &str) -> String {
    dir.file(name).to_str().unwrap().to_owned()
}

#[tokio::test]
async fn curl_is_let_in_by_its_certificate() {
    let Some(curl) = peer("curl") else { return };
    let authority = Authority::new(DOMAIN);
    let echo = Echo::start("app").await;
    let proxy = strict(&authority, &format!("endpoints: [\"{}\"]", echo.address())).await;
    let dir = proxy.dir();
    let url = format!("https://localhost:{}/", proxy.address("in").port());
    for (own, versions) in [(Some("client"), true), (None, false), (Some("stranger"), false)] {
        for more in [&["--tlsv1.3"][..], &["--tls-max", "1.2"], &["--http1.1"]] {
            let (ca, mut args) = (path(dir, "ca.crt"), vec!["-sS", "--max-time", "10"]);
            let files = own.map(|own| (path(dir, &format!("{own}.crt")), path(dir, &format!("{own}.key"))));
            args.extend(["--cacert", &ca, &url]);
            args.extend(more);
            if let Some((certificate, key)) = &files {
                args.extend(["--cert", certificate, "--key", key]);
            }
            let ran = run(curl.path(), &args, b"").await;
            assert_eq!(ran.success, versions, "{own:?} {more:?}: {}", ran.stderr);
            if versions {
                let report = Report::parse(ran.stdout.as_bytes());
                let said = report.field("x-forwarded-client-cert").unwrap().to_owned();
                assert!(said.ends_with("URI=spiffe://cluster.local/client"), "{said}");
            }
        }
    }
    quiet(&proxy).await;
}

#[tokio::test]
async fn openssl_is_let_in_by_its_certificate_and_resumes() {
    let Some(openssl) = peer("openssl") else { return };
    let authority = Authority::new(DOMAIN);
    let echo = Echo::start("app").await;
    let proxy = strict(&authority, &format!("endpoints: [\"{}\"]", echo.address())).await;
    let dir = proxy.dir();
    let to = proxy.address("in").to_string();
    let (ca, session) = (path(dir, "ca.crt"), path(dir, "session"));
    let (certificate, key) = (path(dir, "client.crt"), path(dir, "client.key"));
    let common = [
        "s_client",
        "-connect",
        &to,
        "-CAfile",
        &ca,
        "-verify_return_error",
        "-servername",
        "localhost",
        "-ign_eof",
    ];
    let own = ["-cert", &certificate, "-key", &key];
    let ask = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for version in ["-tls1_3", "-tls1_2"] {
        let first = [&common[..], &own, &[version, "-sess_out", &session]].concat();
        let ran = run(openssl.path(), &first, ask).await;
        assert!(
            ran.stdout.contains("HTTP/1.1 200") && ran.stdout.contains("New, TLSv1."),
            "{version} {}",
            ran.stdout
        );
        let again = [&common[..], &own, &[version, "-sess_in", &session]].concat();
        let ran = run(openssl.path(), &again, ask).await;
        assert!(
            ran.stdout.contains("HTTP/1.1 200") && ran.stdout.contains("Reused, TLSv1."),
            "{version} {}",
            ran.stdout
        );
        let ran = run(openssl.path(), &[&common[..], &[version]].concat(), ask).await;
        assert!(!ran.stdout.contains("HTTP/1.1"), "{version} {}", ran.stdout);
    }
    // What is older is not spoken at all.
    for version in ["-tls1_1", "-tls1"] {
        let old = [&common[..], &own, &[version, "-cipher", "ALL:@SECLEVEL=0"]].concat();
        let ran = run(openssl.path(), &old, ask).await;
        assert!(!ran.success && !ran.stdout.contains("HTTP/1.1"), "{version}");
    }
    quiet(&proxy).await;
}

#[tokio::test]
async fn grpcio_is_let_in_by_its_certificate() {
    let Some(python) = python(&["grpc"]).await else { return };
    let mut server = Running::start(&python, &[&script("grpc_server.py")]);
    let authority = Authority::new(DOMAIN);
    let port = server.port().await;
    let proxy = strict(&authority, &format!("endpoints: [127.0.0.1:{port}], protocol: http2")).await;
    let dir = proxy.dir();
    let (script, listener, ca) =
        (script("grpc_mtls.py"), proxy.address("in").port().to_string(), path(dir, "ca.crt"));
    for (own, expected) in [(Some("client"), "OK"), (None, "UNAVAILABLE"), (Some("stranger"), "UNAVAILABLE")]
    {
        let files = own.map(|own| (path(dir, &format!("{own}.crt")), path(dir, &format!("{own}.key"))));
        let mut args = vec![script.as_str(), &listener, &ca];
        if let Some((certificate, key)) = &files {
            args.extend([certificate.as_str(), key]);
        }
        let ran = run(&python, &args, b"").await;
        assert_eq!(ran.stdout.trim(), expected, "{own:?}: {}", ran.stderr);
    }
}

/// Envoy's words for a certificate of its own and whom it believes.
fn context(dir: &Dir, own: &str, peer: &str) -> serde_json::Value {
    let file = |name: &str| json!({ "filename": path(dir, name) });
    json!({
        "tls_certificates": [{ "certificate_chain": file(&format!("{own}.crt")), "private_key": file(&format!("{own}.key")) }],
        "validation_context": {
            "trusted_ca": file("ca.crt"),
            "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": peer } }],
        },
        "alpn_protocols": ["h2"],
    })
}

/// Envoy between a listener and a cluster, with TLS at one of them.
fn envoy(
    to: std::net::SocketAddr,
    downstream: Option<serde_json::Value>,
    upstream: Option<serde_json::Value>,
) -> serde_json::Value {
    let at = |port: u16| json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let typed = |name: &str, mut value: serde_json::Value| {
        value["@type"] = format!("{TYPES}.{name}").into();
        value
    };
    let socket = |name: &str, context: serde_json::Value| json!({ "name": "tls", "typed_config": typed(name, context) });
    let http2 = json!({ "explicit_http_config": { "http2_protocol_options": {} } });
    let spoken = json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed("upstreams.http.v3.HttpProtocolOptions", http2) });
    let endpoints = json!([{ "lb_endpoints": [{ "endpoint": { "address": at(to.port()) } }] }]);
    let mut cluster = json!({
        "name": "app", "type": "STATIC", "connect_timeout": "5s", "typed_extension_protocol_options": spoken,
        "load_assignment": { "cluster_name": "app", "endpoints": endpoints },
    });
    if let Some(context) = upstream {
        let context = json!({ "common_tls_context": context, "sni": "localhost" });
        cluster["transport_socket"] = socket("transport_sockets.tls.v3.UpstreamTlsContext", context);
    }
    let router = typed("filters.http.router.v3.Router", json!({}));
    let routes = json!({ "name": "r", "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "app" } }] }] });
    let manager = json!({ "stat_prefix": "in", "http_filters": [{ "name": "router", "typed_config": router }], "route_config": routes });
    let manager = typed("filters.network.http_connection_manager.v3.HttpConnectionManager", manager);
    let mut chain = json!({ "filters": [{ "name": "http", "typed_config": manager }] });
    if let Some(context) = downstream {
        let context = json!({ "common_tls_context": context, "require_client_certificate": true });
        chain["transport_socket"] = socket("transport_sockets.tls.v3.DownstreamTlsContext", context);
    }
    json!({
        "admin": { "address": at(0) },
        "static_resources": { "listeners": [{ "name": "in", "address": at(0), "filter_chains": [chain] }], "clusters": [cluster] },
    })
}

#[tokio::test]
async fn envoy_and_we_prove_ourselves_to_each_other() {
    let Some(binary) = Envoy::find().await else { return };
    let authority = Authority::new(DOMAIN);
    let echo = Echo::start("app").await;
    // It calls us.
    let proxy = strict(&authority, &format!("endpoints: [\"{}\"]", echo.address())).await;
    let dir = proxy.dir().clone();
    for (own, peer, status) in [("client", "/app", 200), ("client", "/other", 503), ("stranger", "/app", 503)]
    {
        let upstream = context(&dir, own, &authority.id(peer));
        let calling = binary.run(&envoy(proxy.address("in"), None, Some(upstream))).await;
        let reply = Client::connect(calling.address).await.get("/").await;
        assert_eq!(reply.status, status, "{own} {peer}: {}", reply.text());
        if status == 200 {
            let report = Report::parse(&reply.body);
            assert!(
                report
                    .field("x-forwarded-client-cert")
                    .unwrap()
                    .ends_with("URI=spiffe://cluster.local/client")
            );
        }
    }
    // We call it.
    let downstream = context(&dir, "client", &authority.id("/app"));
    let called = binary.run(&envoy(echo.address(), Some(downstream), None)).await;
    for (peer, status) in [("client", 200), ("app", 503)] {
        let config = format!(
            "{IDENTITY}listeners:\n  out: {{ bind: 127.0.0.1:0, routes: [{{ to: envoy }}] }}\nclusters:\n  envoy: {{ endpoints: [\"{}\"], protocol: http2, mtls: {{ peers: [\"spiffe://cluster.local/{peer}\"] }} }}\n",
            called.address
        );
        let ours = Arc::new(Dir::new());
        for name in ["ca.crt", "own.crt", "own.key"] {
            ours.write(name, &std::fs::read_to_string(dir.file(name)).unwrap());
        }
        let proxy = Proxy::start_in(ours, &config).await;
        assert_eq!(proxy.get("out", "/").await.status, status, "{peer}");
    }
}

/// A listener with a certificate of its own, as it would face the world.
async fn facing_the_world(patience: &str) -> Proxy {
    let dir = Arc::new(Dir::new());
    let authority = Authority::new("world");
    dir.write("ca.crt", &authority.pem());
    named(&authority, "/tls").write(&dir, "tls");
    let config = "listeners:\n  in: { bind: 127.0.0.1:0, limits: { header_timeout: PATIENCE }, tls: { certificate: tls.crt, private_key: tls.key }, routes: [{ respond: { body: ok } }] }\n";
    Proxy::start_in(dir, &config.replace("PATIENCE", patience)).await
}

/// What testssl.sh finds by these checks.
async fn scan(testssl: &Path, proxy: &Proxy, checks: &[&str]) -> Vec<serde_json::Value> {
    let (out, ca) = (path(proxy.dir(), "out.json"), path(proxy.dir(), "ca.crt"));
    let _ = std::fs::remove_file(&out);
    let target = format!("localhost:{}", proxy.address("in").port());
    let quiet = ["--quiet", "--color", "0", "--warnings", "off", "--nodns", "none"];
    let files = ["--add-ca", &ca, "--jsonfile", &out];
    let ran = run(testssl, &[&quiet[..], &files, checks, &[&target]].concat(), b"").await;
    let text =
        std::fs::read_to_string(&out).unwrap_or_else(|error| panic!("{error}: {}{}", ran.stdout, ran.stderr));
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn a_scanner_finds_nothing_above_low() {
    let Some(testssl) = peer("testssl") else { return };
    let proxy = facing_the_world("10s").await;
    // Protocols, ciphers, forward secrecy, vulnerabilities, server defaults; headers are the service's.
    let mut findings = scan(testssl.path(), &proxy, &["-p", "-s", "-f", "-P", "-S", "-U"]).await;
    assert!(findings.len() > 60, "{} findings only", findings.len());
    // A ticket of TLS 1.3 comes after the handshake, and the scanner's client may have left by then: it could not check,
    // and is asked to do so again.
    let unchecked = |finding: &serde_json::Value| {
        finding["id"] == "sessionresumption_ticket"
            && finding["finding"] == "check failed because of connect problem"
    };
    for _ in 0..5 {
        if !findings.iter().any(unchecked) {
            break;
        }
        findings.retain(|finding| !unchecked(finding));
        findings.extend(scan(testssl.path(), &proxy, &["-S"]).await);
    }
    // Of the test's certificate, which lives for an hour and nobody revokes; and of the scanner's own OpenSSL.
    let not_ours =
        ["cert_revocation", "cert_expirationStatus", "cert_notAfter", "cert_extlifeSpan", "engine_problem"];
    let bad: Vec<_> = findings
        .iter()
        .filter(|finding| !["OK", "INFO", "LOW", "DEBUG"].contains(&finding["severity"].as_str().unwrap()))
        .filter(|finding| !not_ours.contains(&finding["id"].as_str().unwrap()))
        .map(|finding| format!("{} {} {}", finding["severity"], finding["id"], finding["finding"]))
        .collect();
    assert_eq!(bad, [] as [&str; 0]);
}

#[tokio::test]
async fn a_fuzzer_breaks_connections_and_nothing_else() {
    let Some(python) = python(&["tlslite"]).await else { return };
    // Much of it is half a message: what is missing is not waited for long.
    let proxy = facing_the_world("300ms").await;
    let port = proxy.address("in").port().to_string();
    let seed = (std::process::id() % 10_000).to_string();
    let ran = run(&python, &[&script("tls_fuzz.py"), &port, &seed, "120"], b"").await;
    assert!(ran.stdout.starts_with("DONE 120 120 5"), "seed {seed}: {}{}", ran.stdout, ran.stderr);
    assert!(!proxy.log().contains("panic"), "seed {seed}: {}", proxy.log());
    assert!(Path::new(&format!("/proc/{}", proxy.pid())).exists());
    quiet(&proxy).await;
}
