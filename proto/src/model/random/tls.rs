//! Identities, and TLS of both sides.

use std::net::IpAddr;
use std::path::PathBuf;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::time;
use crate::model::*;

fn path() -> impl Strategy<Value = PathBuf> {
    "[a-z0-9 .$/]{1,9}[a-z]".prop_map(PathBuf::from)
}

fn certificate_files() -> impl Strategy<Value = CertificateFiles> {
    (path(), path()).prop_map(|(certificate, private_key)| CertificateFiles { certificate, private_key })
}

/// Certificates, and roots: in files alone, or in secrets alone. Whatever else is the same in both forms.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By {
    Files,
    Secrets,
}

fn secret() -> impl Strategy<Value = Name> {
    select(vec!["default", "ROOTCA", "web", "spiffe://a", "a:b/c"]).prop_map(|name| Name::new(name).unwrap())
}

fn certificate(by: By) -> BoxedStrategy<Certificate> {
    match by {
        By::Files => certificate_files().prop_map(Certificate::Files).boxed(),
        By::Secrets => secret().prop_map(Certificate::Secret).boxed(),
    }
}

fn bundle(by: By) -> BoxedStrategy<Bundle> {
    match by {
        By::Files => path().prop_map(Bundle::File).boxed(),
        By::Secrets => secret().prop_map(Bundle::Secret).boxed(),
    }
}

fn revocation(by: By) -> BoxedStrategy<Revocation> {
    let some = (vec(path(), 1..3), select(vec![Unknown::Deny, Unknown::Allow]));
    let some = option::of(some.prop_map(|(crls, unknown)| Revocation { crls: crls.into(), unknown }));
    match by {
        By::Files => some.prop_map(Option::unwrap_or_default).boxed(),
        // There the lists stand with the roots.
        By::Secrets => Just(Revocation::default()).boxed(),
    }
}

fn trust_domain() -> impl Strategy<Value = String> {
    select(vec!["a", "cluster.local", "x_1-2", "null", "10"]).prop_map(str::to_owned)
}

pub(crate) fn peer() -> impl Strategy<Value = PeerPattern> {
    (trust_domain(), "(/[A-Za-z0-9_-]{1,4}){0,3}", any::<bool>()).prop_map(|(domain, path, below)| {
        let below = if below { "/*" } else { "" };
        PeerPattern::new(&format!("spiffe://{domain}{path}{below}")).unwrap()
    })
}

fn host() -> impl Strategy<Value = Box<str>> {
    "[a-z][a-z0-9-]{0,4}(\\.[a-z]{1,3}){0,2}".prop_map(Into::into)
}

/// Of every trust domain that a peer may be of.
pub(super) fn identity() -> impl Strategy<Value = Identity> {
    let all = ["a", "cluster.local", "x_1-2", "null", "10"].map(|name| TrustDomain::new(name).unwrap());
    let files = (certificate_files(), vec(path(), all.len())).prop_map(move |(own, files)| {
        IdentitySource::Files { own, trust: all.iter().cloned().zip(files).collect() }
    });
    let server = select(vec!["https://ca:1", "http://127.0.0.1:2", "http://[::1]:3", "http://localhost:4"]);
    let csr = (server, option::of(path()), option::of(path()), time()).prop_map(
        |(server, trust, token, lifetime)| {
            IdentitySource::Csr(Csr { server: server.into(), trust, token, lifetime })
        },
    );
    let source = prop_oneof![
        files,
        "/[a-z .]{1,9}[a-z]".prop_map(|socket| IdentitySource::WorkloadApi(socket.into())),
        csr
    ];
    (source, revocation(By::Files)).prop_map(|(source, revocation)| Identity { source, revocation })
}

pub(crate) fn downstream(by: By) -> impl Strategy<Value = DownstreamTls> {
    let trust = move || {
        (bundle(by), revocation(by)).prop_map(|(roots, revocation)| ClientTrust { roots, revocation })
    };
    let client = prop_oneof![
        Just(ClientAuth::None),
        trust().prop_map(ClientAuth::Optional),
        trust().prop_map(ClientAuth::Required),
    ];
    let own = (vec(certificate(by), 1..3), client).prop_map(|(certificates, client)| {
        DownstreamTls::Own(ServerTls { certificates: certificates.into(), client })
    });
    prop_oneof![own, select(vec![Mutual::Strict, Mutual::Permissive]).prop_map(DownstreamTls::Mutual)]
}

pub(crate) fn upstream(by: By) -> impl Strategy<Value = UpstreamTls> {
    let mutual = (vec(peer(), 1..3), option::of(host()))
        .prop_map(|(peers, sni)| UpstreamTls::Mutual(MutualUpstream { peers: peers.into(), sni }));
    let roots = prop_oneof![Just(Roots::System), bundle(by).prop_map(Roots::Of)];
    let san = prop_oneof![
        host().prop_map(San::Dns),
        any::<IpAddr>().prop_map(San::Ip),
        peer().prop_map(San::Spiffe)
    ];
    let server = (roots, host(), vec(san, 1..3), option::of(certificate(by)), revocation(by)).prop_map(
        |(roots, sni, sans, certificate, revocation)| {
            let server = ServerAuth { roots, sni: Some(sni), sans: sans.into(), certificate, revocation };
            UpstreamTls::Server(server.into())
        },
    );
    prop_oneof![mutual, server]
}

/// What the proxy's identity proves needs one.
pub(super) fn unproven(mesh: &mut Mesh) {
    if mesh.identity.is_some() {
        return;
    }
    for chain in mesh.listeners.values_mut().flat_map(|listener| listener.chains.each_mut()) {
        let FilterChain { tls, authorization, .. } = chain;
        if let Some(DownstreamTls::Mutual(_)) = tls {
            (*tls, *authorization) = (None, None);
        }
    }
    for cluster in mesh.clusters.values_mut() {
        let tls = &mut std::sync::Arc::make_mut(cluster).tls;
        *tls = tls.take().filter(|tls| matches!(tls, UpstreamTls::Server(_)));
    }
}
