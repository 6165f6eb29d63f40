//! Certificates that are renewed, and roots that are replaced, under load: nobody notices.
//!
//! How long it goes on is `OUTRIGGER_ROTATION_SECONDS`, by default a few renewals.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use outrigger_tests::pki::{self, Authority};
use outrigger_tests::{Client, Dir, Origin, Proxy, until};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::DOMAIN;

/// Streams that stay open all the while.
const STREAMS: usize = 200;
/// How long a certificate is good.
const LIFETIME: Duration = Duration::from_secs(10);
/// How often there is a new one.
const RENEWED: Duration = Duration::from_secs(3);

fn seconds() -> Duration {
    let set = std::env::var("OUTRIGGER_ROTATION_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(set.unwrap_or(16))
}

/// Puts an identity into place as Kubernetes does: all files at once, by a link.
fn publish(dir: &Dir, name: &str, svid: &pki::Svid, roots: &str) {
    let version = dir.file(&format!("{name}-{}", OFFSET.fetch_add(1, Relaxed)));
    std::fs::create_dir(&version).unwrap();
    for (file, text) in [("tls.crt", &*svid.chain), ("tls.key", &*svid.key), ("ca.crt", roots)] {
        std::fs::write(version.join(file), text).unwrap();
    }
    std::fs::set_permissions(version.join("tls.key"), PermissionsExt::from_mode(0o400)).unwrap();
    let link = dir.file(&format!("{name}.fresh"));
    std::os::unix::fs::symlink(&version, &link).unwrap();
    std::fs::rename(&link, dir.file(name)).unwrap();
}

static OFFSET: AtomicUsize = AtomicUsize::new(0);

const IDENTITY: &str = "identity: { files: { certificate: now/tls.crt, private_key: now/tls.key, trust: { cluster.local: now/ca.crt } } }\n";

/// Two proxies, an origin, and what goes through them.
struct Scene {
    inner: Proxy,
    outer: Proxy,
    _origin: Origin,
    going: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    load: JoinSet<()>,
    streams: JoinSet<()>,
}

/// Answers; what asks for a stream gets a byte now and then.
async fn serve(mut conn: outrigger_tests::Conn) {
    while let Some(request) = conn.request().await {
        if request.target() != "/stream" {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            continue;
        }
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        loop {
            sleep(Duration::from_millis(500)).await;
            conn.send("1\r\n.\r\n").await;
        }
    }
}

impl Scene {
    async fn start(publish_all: &mut impl FnMut(&Dir, &str)) -> Self {
        let origin = Origin::start(serve).await;
        let dirs = [Arc::new(Dir::new()), Arc::new(Dir::new())];
        publish_all(&dirs[0], "/in");
        publish_all(&dirs[1], "/out");
        let inner = format!(
            "{IDENTITY}listeners:\n  in: {{ bind: 127.0.0.1:0, mtls: strict, routes: [{{ to: app }}] }}\nclusters:\n  app: {{ endpoints: [\"{}\"], protocol: http1 }}\n",
            origin.address()
        );
        let inner = Proxy::start_in(dirs[0].clone(), &inner).await;
        // Connections that are idle for a moment are closed: handshakes go on all the time.
        let outer = format!(
            "{IDENTITY}listeners:\n  out: {{ bind: 127.0.0.1:0, routes: [{{ match: {{ path: /stream }}, to: streams }}, {{ to: in }}] }}\nclusters:\n  \
             in: {{ endpoints: [\"{0}\"], idle_timeout: 100ms, mtls: {{ peers: [\"spiffe://cluster.local/in\"] }} }}\n  \
             streams: {{ endpoints: [\"{0}\"], protocol: http2, mtls: {{ peers: [\"spiffe://cluster.local/*\"] }} }}\n",
            inner.address("in")
        );
        let outer = Proxy::start_in(dirs[1].clone(), &outer).await;
        let (going, done) = (Arc::new(AtomicBool::new(true)), Arc::default());
        let mut scene = Self {
            inner,
            outer,
            _origin: origin,
            going,
            done,
            load: JoinSet::new(),
            streams: JoinSet::new(),
        };
        scene.send();
        scene
    }

    /// Requests and streams, each of which must be answered.
    fn send(&mut self) {
        let to = self.outer.address("out");
        for number in 0..4 {
            let (going, done) = (self.going.clone(), self.done.clone());
            self.load.spawn(async move {
                while going.load(Relaxed) {
                    let mut client = Client::connect(to).await;
                    for _ in 0..10 {
                        assert_eq!(client.get("/").await.status, 200);
                        done.fetch_add(1, Relaxed);
                        sleep(Duration::from_millis(7)).await;
                    }
                    sleep(Duration::from_millis(60 * number)).await;
                }
            });
        }
        for _ in 0..STREAMS {
            let going = self.going.clone();
            self.streams.spawn(async move {
                let mut client = Client::connect(to).await;
                client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
                assert_eq!(client.exactly(12).await, b"HTTP/1.1 200");
                let (mut stream, mut held) = client.into_parts();
                while going.load(Relaxed) {
                    held.clear();
                    let read = tokio::io::AsyncReadExt::read_buf(&mut stream, &mut held).await;
                    assert!(read.unwrap() > 0, "a stream was cut");
                }
            });
        }
    }

    /// Lets so much time pass, with something done every now and then.
    async fn go_on(&mut self, all: Duration, every: Duration, mut work: impl FnMut(&Self)) {
        let end = Instant::now() + all;
        while Instant::now() < end {
            work(self);
            sleep(every).await;
            while let Some(ended) = self.load.try_join_next().or_else(|| self.streams.try_join_next()) {
                ended.unwrap();
            }
        }
    }

    async fn end(mut self) {
        self.going.store(false, Relaxed);
        while let Some(ended) = self.load.join_next().await {
            ended.unwrap();
        }
        while let Some(ended) = self.streams.join_next().await {
            ended.unwrap();
        }
        for (proxy, listener) in [(&self.outer, "out"), (&self.inner, "in")] {
            let metrics = proxy.ask("/metrics").await.text();
            let failed = metrics.lines().filter(|line| {
                line.starts_with("outrigger_downstream_errors_total")
                    || line.starts_with("outrigger_upstream_connect_failures_total")
                    || (line.starts_with("outrigger_downstream_requests_total") && line.contains("5xx"))
            });
            let failed: Vec<_> =
                failed.filter(|line| !line.ends_with(" 0") && !line.contains("client_gone")).collect();
            assert_eq!(failed, [] as [&str; 0], "{listener}");
        }
        println!("{} requests, {STREAMS} streams, none failed", self.done.load(Relaxed));
    }
}

#[tokio::test]
async fn certificates_are_renewed_and_nobody_notices() {
    let authority = Authority::new(DOMAIN);
    let mut renew = |dir: &Dir, path: &str| {
        publish(dir, "now", &authority.svid_for(path, LIFETIME), &authority.pem());
    };
    let mut scene = Scene::start(&mut renew).await;
    until("streams", async || {
        let open = scene.inner.metric("outrigger_downstream_requests_active{listener=\"in\"}").await;
        (open >= STREAMS as f64).then_some(())
    })
    .await;
    scene
        .go_on(seconds(), RENEWED, |scene| {
            renew(scene.inner.dir(), "/in");
            renew(scene.outer.dir(), "/out");
        })
        .await;
    let renewals = scene.inner.metric("outrigger_identity_updates_total").await;
    assert!(renewals >= (seconds().as_secs() / RENEWED.as_secs()) as f64, "{renewals}");
    scene.end().await;
}

#[tokio::test]
async fn a_root_is_replaced_and_nobody_notices() {
    let (old, new) = (Authority::new(DOMAIN), Authority::new(DOMAIN));
    let both = format!("{}{}", old.pem(), new.pem());
    // What both sides have, step by step: whoever comes first must be believed by who comes last.
    let steps = [(&old, old.pem()), (&old, both.clone()), (&new, both)];
    let mut scene =
        Scene::start(&mut |dir: &Dir, path: &str| publish(dir, "now", &old.svid(path), &old.pem())).await;
    for (signer, roots) in steps {
        // Either may have read before the other has been waited for.
        let before = [scene.inner.version().await, scene.outer.version().await];
        for (first, second) in [("/in", "/out")] {
            for path in [first, second] {
                let dir = if path == "/in" { scene.inner.dir() } else { scene.outer.dir() };
                publish(dir, "now", &signer.svid(path), &roots);
            }
        }
        for (proxy, version) in [&scene.inner, &scene.outer].into_iter().zip(before) {
            until("a step", async || (proxy.version().await > version).then_some(())).await;
        }
        scene.go_on(Duration::from_secs(2), Duration::from_millis(500), |_| {}).await;
    }
    scene.end().await;
}
