//! Trust that is taken back: certificates that are revoked, roots that are withdrawn. Who was let in by them is seen off,
//! nobody new is let in, and who has nothing to do with it notices nothing.

use std::sync::Arc;
use std::time::Duration;

use outrigger_tests::h2client::H2;
use outrigger_tests::origin::ok;
use outrigger_tests::pki::{self, Authority};
use outrigger_tests::{Client, Dir, Origin, Proxy, until, within};

use super::{DOMAIN, identity};
use crate::upgrade::{AGREE, ASK, extended, repeat};

const HOUR: Duration = Duration::from_secs(3600);

/// A proxy with revocation lists, in front of an origin, for HTTP and for bytes.
async fn start(authority: &Authority, more: &str, dir: Arc<Dir>) -> (Origin, Proxy) {
    let origin = Origin::ok("").await;
    dir.write("revoked.crl", &authority.revoke(&[], HOUR));
    let config = format!(
        "identity: {{ files: {{ certificate: own.crt, private_key: own.key, trust: {{ cluster.local: ca.crt }} }}, revocation: {{ crls: [revoked.crl]{more} }} }}\n\
         listeners:\n  in: {{ bind: 127.0.0.1:0, mtls: strict, routes: [{{ to: app }}] }}\n  db: {{ bind: 127.0.0.1:0, mtls: strict, tcp: {{ to: app }} }}\n\
         clusters:\n  app: {{ endpoints: [\"{}\"] }}\n",
        origin.address()
    );
    let proxy = Proxy::start_in(dir, &config).await;
    (origin, proxy)
}

/// What counts who was refused for this reason.
fn refusals(reason: &str) -> String {
    format!("outrigger_downstream_errors_total{{listener=\"in\",reason=\"{reason}\"}}")
}

/// Waits until a client was refused for this reason: it may know of that before it is counted.
async fn refused(proxy: &Proxy, reason: &str) {
    proxy.wait_metric(&refusals(reason), |n| n >= 1.0).await;
}

#[tokio::test]
async fn who_is_revoked_is_cut_and_the_others_stay() {
    let authority = Authority::new(DOMAIN);
    let dir = identity(&authority, "/app");
    let (_origin, proxy) = start(&authority, "", dir.clone()).await;
    let (good, bad) = (authority.svid("/good"), authority.svid("/bad"));
    let mut kept = pki::client(proxy.address("in"), Some(&good)).await;
    let mut cut = pki::client(proxy.address("in"), Some(&bad)).await;
    let mut pair = pki::client(proxy.address("db"), Some(&bad)).await;
    assert_eq!(
        (kept.get("/").await.status, cut.get("/").await.status, pair.get("/").await.status),
        (200, 200, 200)
    );
    dir.write("revoked.crl", &authority.revoke(&[&bad], HOUR));
    assert_eq!((cut.rest().await, pair.rest().await), (vec![], vec![]));
    assert_eq!(kept.get("/").await.status, 200);
    assert_eq!(pki::status(proxy.address("in"), Some(&bad), "/").await, None);
    refused(&proxy, "tls_revoked").await;
    assert_eq!(pki::status(proxy.address("in"), Some(&good), "/").await, Some(200));
}

#[tokio::test]
async fn what_no_good_list_covers_is_refused_unless_that_is_let_pass() {
    let authority = Authority::new(DOMAIN);
    let other = Authority::new(DOMAIN);
    let dir = identity(&authority, "/app");
    // Two roots of one trust domain, and a list of one of them.
    dir.write("ca.crt", &format!("{}{}", authority.pem(), other.pem()));
    let (_origin, proxy) = start(&authority, "", dir.clone()).await;
    let (covered, uncovered) = (authority.svid("/a"), other.svid("/a"));
    assert_eq!(pki::status(proxy.address("in"), Some(&covered), "/").await, Some(200));
    assert_eq!(pki::status(proxy.address("in"), Some(&uncovered), "/").await, None);
    refused(&proxy, "tls_unknown_revocation").await;
    // A list that has expired is as good as none.
    dir.write("revoked.crl", &authority.revoke(&[], Duration::ZERO));
    // A connection that was open when the list came is cut, which is counted as another thing.
    until("an old list", async || {
        pki::status(proxy.address("in"), Some(&covered), "/").await;
        (proxy.metric(&refusals("tls_old_revocation_list")).await >= 1.0).then_some(())
    })
    .await;
    assert_eq!(pki::status(proxy.address("in"), Some(&covered), "/").await, None);
    let (_origin, lenient) = start(&authority, ", unknown: allow", dir).await;
    assert_eq!(pki::status(lenient.address("in"), Some(&uncovered), "/").await, Some(200));
}

#[tokio::test]
async fn a_root_that_is_withdrawn_takes_its_own_with_it() {
    let (old, new) = (Authority::new(DOMAIN), Authority::new(DOMAIN));
    let dir = Arc::new(Dir::new());
    dir.write("ca.crt", &format!("{}{}", old.pem(), new.pem()));
    new.svid("/in").write(&dir, "own");
    let origin = Origin::ok("").await;
    let proxy = Proxy::start_in(dir.clone(), &super::inbound("strict", origin.address())).await;
    let mut of_old = pki::client(proxy.address("in"), Some(&old.svid("/a"))).await;
    let mut of_new = pki::client(proxy.address("in"), Some(&new.svid("/a"))).await;
    assert_eq!((of_old.get("/").await.status, of_new.get("/").await.status), (200, 200));
    dir.write("ca.crt", &new.pem());
    assert_eq!(of_old.rest().await, b"");
    assert_eq!(of_new.get("/").await.status, 200);
    assert_eq!(pki::status(proxy.address("in"), Some(&old.svid("/a")), "/").await, None);
}

#[tokio::test]
async fn an_upstream_that_is_not_believed_any_longer_gets_nothing_more() {
    let (old, new) = (Authority::new(DOMAIN), Authority::new(DOMAIN));
    let origin = Origin::ok("").await;
    let both = format!("{}{}", old.pem(), new.pem());
    let inner = Arc::new(Dir::new());
    inner.write("ca.crt", &both);
    old.svid("/in").write(&inner, "own");
    let inner = Proxy::start_in(inner, &super::inbound("strict", origin.address())).await;
    for protocol in ["http1", "http2"] {
        let outer = Arc::new(Dir::new());
        outer.write("ca.crt", &both);
        new.svid("/out").write(&outer, "own");
        let config = format!(
            "{}listeners:\n  out: {{ bind: 127.0.0.1:0, routes: [{{ to: in }}] }}\nclusters:\n  in: {{ endpoints: [\"{}\"], protocol: {protocol}, mtls: {{ peers: [\"spiffe://cluster.local/in\"] }} }}\n",
            super::IDENTITY,
            inner.address("in")
        );
        let outer_proxy = Proxy::start_in(outer.clone(), &config).await;
        let mut client = Client::connect(outer_proxy.address("out")).await;
        assert_eq!(client.get("/").await.status, 200, "{protocol}");
        outer.write("ca.crt", &new.pem());
        until("nothing more", async || {
            let reply = client.get("/").await;
            (reply.status == 503 && reply.text().contains("no trusted root")).then_some(())
        })
        .await;
    }
}

/// An origin that agrees to tunnels, after a request that wants none.
async fn agreeing() -> Origin {
    Origin::start(async |mut conn| {
        if conn.head().await.is_some_and(|request| request.field("upgrade").is_none()) {
            conn.send(ok("settled")).await;
            conn.head().await;
        }
        conn.send(AGREE).await;
        repeat(&mut conn).await;
    })
    .await
}

/// A proxy that believes two roots, with a listener for HTTP and one for bytes; its clusters `in` and `db` are another
/// proxy's, whose certificate is of the first. The directory is the first one's.
async fn pair(old: &Authority, new: &Authority, origin: &Origin) -> (Arc<Dir>, Proxy, Proxy) {
    let both = format!("{}{}", old.pem(), new.pem());
    let (inner, outer) = (Arc::new(Dir::new()), Arc::new(Dir::new()));
    inner.write("ca.crt", &both);
    old.svid("/in").write(&inner, "own");
    let config = super::inbound("strict", origin.address())
        .replace("clusters:", "  db: { bind: 127.0.0.1:0, mtls: strict, tcp: { to: app } }\nclusters:");
    let inner = Proxy::start_in(inner, &config).await;
    outer.write("ca.crt", &both);
    new.svid("/out").write(&outer, "own");
    let cluster = |listener: &str| {
        format!(
            "{{ endpoints: [\"{}\"], protocol: http1, mtls: {{ peers: [\"spiffe://cluster.local/in\"] }} }}",
            inner.address(listener)
        )
    };
    let config = format!(
        "{}listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: in }}] }}\n  tcp: {{ bind: 127.0.0.1:0, tcp: {{ to: db }} }}\n\
         clusters:\n  in: {}\n  db: {}\n",
        super::IDENTITY,
        cluster("in"),
        cluster("db"),
    );
    let proxy = Proxy::start_in(outer.clone(), &config).await;
    (outer, proxy, inner)
}

/// What bytes are passed on through ends with the trust in who gets them, whether anything moves on it or not.
#[tokio::test]
async fn tunnels_to_an_upstream_that_is_not_believed_any_longer_are_cut() {
    let (old, new) = (Authority::new(DOMAIN), Authority::new(DOMAIN));
    let origin = agreeing().await;
    let (dir, proxy, _inner) = pair(&old, &new, &origin).await;
    let mut clients = Vec::new();
    for listener in ["web", "tcp"] {
        let mut client = proxy.client(listener).await;
        client.send(ASK).await;
        assert_eq!(client.reply().await.status, 101, "{listener}");
        client.send("bytes").await;
        assert_eq!(client.exactly(5).await, b"bytes", "{listener}");
        clients.push(client);
    }
    let http2 = H2::connect(proxy.address("web")).await;
    assert_eq!(http2.get("/").await.status, 200);
    let (response, _stream) = http2.open(extended("websocket", "/chat"), false).await;
    let response = within("an answer", response).await.unwrap();
    assert_eq!(response.status(), 200);
    let open = |cluster| format!("outrigger_upstream_connections{{cluster=\"{cluster}\"}}");
    // A tunnel is a connection of its cluster's for as long as it lasts.
    assert!(proxy.metric(&open("in")).await >= 2.0);
    dir.write("ca.crt", &new.pem());
    for mut client in clients {
        assert_eq!(within("the end", client.rest()).await, b"");
    }
    let mut body = response.into_body();
    assert!(within("the end", body.data()).await.is_none_or(|data| data.is_err()));
    for cluster in ["in", "db"] {
        proxy.wait_metric(&open(cluster), |n| n == 0.0).await;
    }
    proxy.wait_log("a tunnel is cut").await;
}
