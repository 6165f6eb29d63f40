//! Secrets of clusters that are renewed under load, by a control plane that is not ours: no request fails, what is under way
//! goes on, and of the connections to endpoints those are opened anew that the change is about.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use outrigger_tests::load::{Load, OnClose};
use outrigger_tests::origin::ok;
use outrigger_tests::pki::{Authority, Svid};
use outrigger_tests::wire::Wire;
use outrigger_tests::{Client, Proxy, Reply, until};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::ext_authz::python_with_messages;
use super::xds::{Way, cluster, control, endpoints, file, listener, routes, to};
use super::xds_tls::{came_of, certificate, towards};

const HOUR: Duration = Duration::from_secs(3600);

/// Who asks for a certificate, and answers with the number of the connection and what he was shown when it began; to `/held`
/// once he is let go.
struct Server {
    port: u16,
    opened: Arc<AtomicUsize>,
    let_go: watch::Sender<bool>,
}

impl Server {
    async fn start(shows: &Svid, believes: &Authority) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut store = RootCertStore::empty();
        store.add(believes.issuer().der().clone()).unwrap();
        let clients =
            WebPkiClientVerifier::builder_with_provider(store.into(), provider.clone()).build().unwrap();
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_client_cert_verifier(clients);
        let config = builder.with_single_cert(shows.certificates(), shows.private_key()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (opened, (let_go, gate)) = (Arc::<AtomicUsize>::default(), watch::channel(false));
        let count = opened.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::spawn(serve(acceptor.clone(), stream, count.clone(), gate.clone()));
            }
        });
        Self { port, opened, let_go }
    }

    fn opened(&self) -> usize {
        self.opened.load(SeqCst)
    }
}

async fn serve(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    opened: Arc<AtomicUsize>,
    mut gate: watch::Receiver<bool>,
) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let number = opened.fetch_add(1, SeqCst);
    let shown = hex(&stream.get_ref().1.peer_certificates().unwrap()[0]);
    let mut wire = Wire::new(stream);
    while let Some(request) = wire.head().await {
        if request.start.starts_with("GET /held ") {
            let _ = gate.wait_for(|open| *open).await;
        }
        let answer = ok(&format!("{number} {shown}"));
        if wire.io.write_all(answer.as_bytes()).await.is_err() || wire.io.flush().await.is_err() {
            return;
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether an answer is over a connection that this was shown on.
fn is_by(answer: &Reply, svid: &Svid) -> bool {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().ends_with(&hex(&svid.certificates()[0]))
}

/// What is told of the two secrets.
struct Told<'a> {
    own: &'a Svid,
    roots: String,
    crl: String,
}

impl Told<'_> {
    fn state(&self, version: usize, port: u16) -> Value {
        let Self { own, roots, crl } = self;
        let roots = json!({ "name": "ca", "validation_context": {
            "trusted_ca": { "inline_string": roots }, "crl": { "inline_string": crl },
        } });
        let to = json!([to(&json!({ "path": "/calm" }), "calm"), to(&json!({ "prefix": "/" }), "app")]);
        let names = ["app", "calm"];
        json!({
            "version": version.to_string(),
            "Cluster": (names.map(|name| cluster(name, &towards("app.test")))),
            "ClusterLoadAssignment": (names.map(|name| endpoints(name, &[port]))),
            "Listener": [listener("web", "table")],
            "RouteConfiguration": [routes("table", &to)],
            "Secret": [certificate("own", own), roots],
        })
    }
}

/// A request that is under way until the server is let go.
async fn held(proxy: &Proxy) -> Client {
    let mut client = proxy.client("web").await;
    client.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n").await;
    client
}

async fn renewed_under_load(way: Way) {
    let Some(python) = python_with_messages().await else { return };
    let (authority, other) = (Authority::new("a"), Authority::new("b"));
    let shows = authority.named("app.test");
    let server = Server::start(&shows, &authority).await;
    let [first, renewed] = [(); 2].map(|()| authority.named("proxy.test"));
    let another = authority.named("another.test");
    let (alone, both) = (authority.pem(), format!("{}{}", authority.pem(), other.pem()));
    let (empty, stranger) = (authority.revoke(&[], HOUR), authority.revoke(&[&another], HOUR));
    let told = |own, roots: &String, crl: &String| Told { own, roots: roots.clone(), crl: crl.clone() };
    let start = told(&first, &alone, &empty);
    let (mut control, port) = control(&python, way, 0, &start.state(0, server.port)).await;
    let proxy = Proxy::start(&file(port)).await;
    came_of(&proxy, 200, None).await;
    // What it is, what is told, and whether connections are opened anew for it.
    let rows = [
        ("a certificate that is renewed", told(&renewed, &alone, &empty), false),
        ("the certificate of another", told(&another, &alone, &empty), true),
        ("a root more", told(&another, &both, &empty), true),
        ("a root less", told(&another, &alone, &empty), true),
        ("another list", told(&another, &alone, &stranger), true),
    ];
    let load = Load::start(proxy.address("web"), "/", 4, OnClose::Reconnect);
    load.more(50).await;
    // Of this cluster there is one connection, and one client.
    let mut calm = proxy.client("web").await;
    let mut last = calm.get("/calm").await;
    assert!(is_by(&last, &first));
    let mut waiting = vec![held(&proxy).await];
    for (number, (name, told, anew)) in rows.iter().enumerate() {
        let version = proxy.version().await;
        control.tell(&told.state(number + 1, server.port).to_string()).await;
        until(name, async || (proxy.version().await > version).then_some(())).await;
        load.more(200).await;
        let next = calm.get("/calm").await;
        assert_eq!(next.text() != last.text(), *anew, "{name}: over {} after {}", next.text(), last.text());
        assert_eq!(is_by(&next, told.own), *anew, "{name}");
        last = next;
        if !anew {
            // One more than there are connections: for one of them another is opened, which shows what was told.
            let opened = server.opened();
            for _ in 0..=opened {
                waiting.push(held(&proxy).await);
            }
            until("another is opened", async || (server.opened() > opened).then_some(())).await;
        }
    }
    let outcome = load.stop().await;
    assert_eq!((outcome.failures, outcome.closes), (Vec::new(), 0));
    server.let_go.send(true).unwrap();
    let mut answers = Vec::new();
    for client in &mut waiting {
        answers.push(client.reply().await);
    }
    assert!(is_by(&answers[0], &first), "what was under way goes on as it began");
    assert!(answers.iter().any(|answer| is_by(answer, &renewed)), "nobody is shown the renewed one");
    // And whoever is revoked by name is answered for no longer.
    let revoked = told(&another, &alone, &authority.revoke(&[&shows], HOUR));
    control.tell(&revoked.state(rows.len() + 1, server.port).to_string()).await;
    came_of(&proxy, 503, Some("upstream_tls_revoked")).await;
}

#[tokio::test]
async fn secrets_are_renewed_under_load() {
    renewed_under_load(Way::Sotw).await;
}

#[tokio::test]
async fn secrets_are_renewed_under_load_incrementally() {
    renewed_under_load(Way::Delta).await;
}
