//! Bad certificates, each refused for its own reason, by whom it is shown to. None ends more than its connection.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrigger_tests::pki::{self, Authority, Svid, leaf};
use outrigger_tests::{Client, Origin, Proxy};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{DOMAIN, IDENTITY, identity, inbound};

const ID: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// What is wrong, the certificate, and the reason that is to be given.
#[expect(clippy::too_many_lines, reason = "a flat table")]
fn animals(authority: &Authority) -> Vec<(&'static str, Svid, &'static str)> {
    let now = OffsetDateTime::now_utc();
    let hour = Duration::from_secs(3600);
    let with = |uris: &[&str], change: &dyn Fn(&mut CertificateParams)| {
        let mut params = leaf(uris);
        change(&mut params);
        authority.sign(params)
    };
    let plain = |uris: &[&str]| with(uris, &|_| {});
    let signing = |intermediate: bool| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        match intermediate {
            true => CertifiedIssuer::signed_by(params, key, authority.issuer()).unwrap(),
            false => CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    };
    let by = |issuer: &CertifiedIssuer<'static, KeyPair>, chain: &str| {
        let key = KeyPair::generate().unwrap();
        let signed = leaf(&[ID]).signed_by(&key, issuer).unwrap();
        Svid { chain: format!("{}{chain}", signed.pem()), key: key.serialize_pem(), serial: 1.into() }
    };
    let own = KeyPair::generate().unwrap();
    let self_signed = Svid {
        chain: leaf(&[ID]).self_signed(&own).unwrap().pem(),
        key: own.serialize_pem(),
        serial: 1.into(),
    };
    let other = signing(false);
    let mut animals = vec![
        ("expired", with(&[ID], &|p| p.not_after = now - Duration::from_secs(30)), "tls_expired"),
        (
            "not yet",
            with(&[ID], &|p| (p.not_before, p.not_after) = (now + hour, now + 2 * hour)),
            "tls_not_yet_valid",
        ),
        ("self-signed", self_signed, "tls_unknown_issuer"),
        ("another root's", by(&other, ""), "tls_unknown_issuer"),
        ("another root's, with that root", by(&other, &other.pem()), "tls_unknown_issuer"),
        (
            "for code",
            with(&[ID], &|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]),
            "tls_wrong_usage",
        ),
        (
            "for servers alone",
            with(&[ID], &|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            "tls_wrong_usage",
        ),
        (
            "no URI",
            with(&[], &|p| p.subject_alt_names = vec![SanType::DnsName(DOMAIN.try_into().unwrap())]),
            "tls_no_uri",
        ),
        ("no name at all", plain(&[]), "tls_no_uri"),
        ("two URIs", plain(&[ID, "spiffe://cluster.local/ns/shop/sa/admin"]), "tls_several_uris"),
        ("a URI twice", plain(&[ID, ID]), "tls_several_uris"),
        ("another kind of URI beside", plain(&[ID, "https://cluster.local/"]), "tls_several_uris"),
        ("no SPIFFE ID", plain(&["https://cluster.local/ns/shop"]), "tls_not_spiffe"),
        ("capitals in the trust domain", plain(&["spiffe://Cluster.Local/ns/shop"]), "tls_not_spiffe"),
        ("capitals in the scheme", plain(&["SPIFFE://cluster.local/ns/shop"]), "tls_not_spiffe"),
        ("NUL in the trust domain", plain(&["spiffe://cluster.local\0.evil/ns/shop"]), "tls_not_spiffe"),
        ("NUL in the path", plain(&["spiffe://cluster.local/ns/shop\0/x"]), "tls_not_spiffe"),
        ("dots", plain(&["spiffe://cluster.local/ns/../admin"]), "tls_not_spiffe"),
        ("percent", plain(&["spiffe://cluster.local/ns%2fshop"]), "tls_not_spiffe"),
        ("a port", plain(&["spiffe://cluster.local:443/ns"]), "tls_not_spiffe"),
        ("another trust domain", plain(&["spiffe://other.local/ns/shop/sa/web"]), "tls_unknown_trust_domain"),
        ("a trust domain below", plain(&["spiffe://a.cluster.local/ns"]), "tls_unknown_trust_domain"),
        ("the trust domain itself", plain(&["spiffe://cluster.local"]), "tls_not_a_leaf"),
        (
            "an authority's",
            with(&[ID], &|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            "tls_not_a_leaf",
        ),
        (
            "one that may sign",
            with(&[ID], &|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)),
            "tls_not_a_leaf",
        ),
    ];
    // Below a certificate that may not sign.
    let key = KeyPair::generate().unwrap();
    let mut params = leaf(&[ID]);
    params.is_ca = IsCa::ExplicitNoCa;
    let not_an_authority = CertifiedIssuer::signed_by(params, key, authority.issuer()).unwrap();
    animals.push(("below a leaf", by(&not_an_authority, &not_an_authority.pem()), "tls_unknown_issuer"));
    // A long chain, which leads to the root in the end.
    let mut issuer = signing(true);
    let mut chain = issuer.pem();
    for _ in 0..12 {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        issuer = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &issuer).unwrap();
        chain = format!("{}{chain}", issuer.pem());
    }
    animals.push(("deep", by(&issuer, &chain), "tls_too_complex"));
    // Much of it: beyond what a handshake's message may hold, and just below.
    let names =
        |n: usize| (0..n).map(|i| SanType::DnsName(format!("{i:060}.example.com").try_into().unwrap()));
    animals.push(("huge", with(&[ID], &|p| p.subject_alt_names.extend(names(1000))), "tls_handshake"));
    animals
}

#[tokio::test]
async fn clients_with_bad_certificates_are_refused_each_for_its_reason() {
    let authority = Authority::new(DOMAIN);
    let origin = Origin::ok("").await;
    let proxy = Proxy::start_in(identity(&authority, "/app"), &inbound("strict", origin.address())).await;
    let series =
        |reason: &str| format!("outrigger_downstream_errors_total{{listener=\"in\",reason=\"{reason}\"}}");
    for (what, svid, reason) in animals(&authority) {
        let before = proxy.metric(&series(reason)).await;
        assert!(is_refused(&proxy, &svid).await, "{what}");
        proxy.wait_metric(&series(reason), |n| n == before + 1.0).await;
    }
    assert_eq!(origin.count(), 0);
    // It is as well as before.
    let good = authority.svid("/ns/shop/sa/web");
    assert_eq!(pki::status(proxy.address("in"), Some(&good), "/").await, Some(200));
}

/// A server that shows whatever it is told to, to anybody.
#[derive(Debug)]
struct Shown(Mutex<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.lock().unwrap().clone())
    }
}

fn certified(svid: &Svid) -> Arc<CertifiedKey> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = provider.key_provider.load_private_key(svid.private_key()).unwrap();
    Arc::new(CertifiedKey::new(svid.certificates(), key))
}

#[tokio::test]
async fn upstreams_with_bad_certificates_get_nothing_each_for_its_reason() {
    let authority = Authority::new(DOMAIN);
    let shown = Arc::new(Shown(Mutex::new(certified(&authority.svid("/app")))));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut server = builder.with_no_client_auth().with_cert_resolver(shown.clone());
    // Who resumes a session shows no certificate.
    (server.send_tls13_tickets, server.session_storage) = (0, Arc::new(NoServerSessionStorage {}));
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, tell) = (acceptor.clone(), tell.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut request = [0; 1024];
                if let Ok(read @ 1..) = stream.read(&mut request).await {
                    tell.send(request[..read].to_vec()).unwrap();
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                        .await;
                }
            });
        }
    });
    let config = format!(
        "{IDENTITY}listeners:\n  out: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\nclusters:\n  \
         app: {{ endpoints: [\"{to}\"], mtls: {{ peers: [\"spiffe://cluster.local/*\", \"spiffe://cluster.local\"] }} }}\n"
    );
    let proxy = Proxy::start_in(identity(&authority, "/web"), &config).await;
    assert_eq!(proxy.get("out", "/").await.status, 200);
    assert!(told.recv().await.is_some());
    for (what, svid, reason) in animals(&authority) {
        if what == "for servers alone" {
            continue;
        }
        *shown.0.lock().unwrap() = certified(&svid);
        let reply = proxy.get("out", "/").await;
        let expected = format!("upstream_{reason}");
        assert_eq!((reply.status, reply.field("x-outrigger-reason")), (503, Some(&*expected)), "{what}");
    }
    // Not a byte of a request was sent to any of them.
    assert!(told.try_recv().is_err());
    *shown.0.lock().unwrap() = certified(&authority.svid("/app"));
    assert_eq!(proxy.get("out", "/").await.status, 200);
}

#[tokio::test]
async fn a_key_that_is_not_the_certificates_proves_nothing() {
    let authority = Authority::new(DOMAIN);
    let proxy = Proxy::start_in(identity(&authority, "/app"), &inbound("strict", "127.0.0.1:9")).await;
    let stolen = Svid { key: authority.svid("/thief").key, ..authority.svid("/ns/shop/sa/web") };
    assert!(is_refused(&proxy, &stolen).await);
    let series = "outrigger_downstream_errors_total{listener=\"in\",reason=\"tls_bad_signature\"}";
    proxy.wait_metric(series, |n| n == 1.0).await;
}

/// Shows it without having looked at it.
async fn is_refused(proxy: &Proxy, svid: &Svid) -> bool {
    let config = pki::client_config_unchecked(svid);
    match pki::connect(proxy.address("in"), "localhost", &config).await {
        Err(_) => true,
        Ok(stream) => Client::over(stream).try_get("/").await.is_none(),
    }
}
