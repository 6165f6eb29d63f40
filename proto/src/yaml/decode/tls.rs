//! Identity, and TLS of both sides.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::cursor::{Cx, Fields, Secrets};
use super::super::fault::{Fault, show};
use super::super::scalar;
use super::super::tree::{Node, View};
use super::{address, some_time};
use crate::model::{
    Address, Bundle, Certificate, CertificateFiles, ClientAuth, ClientTrust, Csr, DownstreamTls, Holds,
    Identity, IdentitySource, Mutual, MutualUpstream, Name, PeerPattern, Revocation, Roots, San, ServerAuth,
    ServerTls, TrustDomain, Unknown, UpstreamTls,
};

/// What is known of the proxy's identity while what uses it is read.
#[derive(Clone, Debug, Default)]
pub(in super::super) enum Known {
    /// There is none.
    #[default]
    Nobody,
    /// There is one, of trust domains that are not known here.
    Somebody,
    /// There is one that knows these.
    Of(Vec<TrustDomain>),
}

impl Known {
    fn new(identity: &Identity) -> Self {
        match &identity.source {
            IdentitySource::Files { own: _, trust } => Self::Of(trust.keys().cloned().collect()),
            IdentitySource::WorkloadApi(_) | IdentitySource::Csr(_) => Self::Somebody,
        }
    }
}

pub(super) fn identity<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Identity> {
    // One that is wrong is complained of once.
    cx.identity = Known::Somebody;
    let mut m = cx.fields(node, "identity")?;
    m.exactly_one(&["files", "workload_api", "csr"]);
    let files = m.optional("files", files);
    let workload_api = m.optional("workload_api", workload_api);
    let csr = m.optional("csr", csr).map(IdentitySource::Csr);
    let revocation = m.optional("revocation", revocation).unwrap_or_default();
    m.finish();
    let identity = Identity { source: files.or(workload_api).or(csr)?, revocation };
    cx.identity = Known::new(&identity);
    Some(identity)
}

fn files<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<IdentitySource> {
    let mut m = cx.fields(node, "identity_files")?;
    let own = certificate_files(&mut m);
    let trust = m.required("trust", trust);
    m.finish();
    Some(IdentitySource::Files { own: own?, trust: trust? })
}

fn certificate_files(m: &mut Fields<'_, '_>) -> Option<CertificateFiles> {
    let certificate = m.required("certificate", file);
    let private_key = m.required("private_key", file);
    Some(CertificateFiles { certificate: certificate?, private_key: private_key? })
}

fn trust<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<BTreeMap<TrustDomain, PathBuf>> {
    let expected = "files of roots by trust domain, as `{ cluster.local: ca.crt }`";
    let trust = cx.entries(node, expected, |cx, key, place, value| {
        let domain = match TrustDomain::new(key) {
            Ok(domain) => Some(domain),
            Err(error) => {
                let fault = Fault::new(format!("{} is no trust domain: {error}", show(key)));
                cx.fail_at(place, fault.hint("expected a name alone, as `cluster.local`"))
            }
        };
        let file = file(cx, value);
        Some((domain?, file?))
    })?;
    if trust.is_empty() {
        return cx.fail(node, Fault::new("nobody is trusted").hint(format!("expected {expected}")));
    }
    Some(trust.into_iter().collect())
}

fn workload_api<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<IdentitySource> {
    match address(cx, node)? {
        Address::Unix(socket) => Some(IdentitySource::WorkloadApi(socket)),
        Address::Ip(_) => {
            let fault = Fault::new("the Workload API is asked on a unix socket");
            cx.fail(node, fault.hint("expected one as `unix:/run/spire/agent.sock`"))
        }
    }
}

fn csr<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Csr> {
    let mut m = cx.fields(node, "csr")?;
    let server = m.required("server", server);
    let trust = m.optional("trust", file);
    let token = m.optional("token", file);
    let lifetime = m.optional("lifetime", some_time).unwrap_or(Csr::LIFETIME);
    m.finish();
    Some(Csr { server: server?, trust, token, lifetime })
}

/// A token travels there: in the clear it may not leave the machine.
pub(super) fn server<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Box<str>> {
    cx.parsed(node, A_SERVER, server_of)
}

const A_SERVER: &str = "a server, as `https://outrigger-control:15012`";

pub(super) fn server_of(text: &str) -> Result<Box<str>, Fault> {
    let fault = || Fault::new(format!("{} is no server", show(text))).hint(format!("expected {A_SERVER}"));
    let uri: http::Uri = text.parse().map_err(|_| fault())?;
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    match is_private(&uri).filter(|_| bare && uri.port().is_some()) {
        Some(true) => Ok(text.trim_end_matches('/').into()),
        Some(false) => Err(Fault::new("in the clear, a token and a certificate would be anybody's")
            .hint("write `https://`; `http://` is for this machine alone")),
        None => Err(fault()),
    }
}

/// Whether nobody else reads what is asked for there: it goes by TLS, or stays on this machine. `None` where it is no
/// address of a server of HTTP.
pub(crate) fn is_private(uri: &http::Uri) -> Option<bool> {
    let host = uri.host()?;
    match uri.scheme_str()? {
        "https" => Some(true),
        "http" => Some(is_here(host)),
        _ => None,
    }
}

/// Whether it is this machine.
pub(super) fn is_here(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse();
    host == "localhost" || address.is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

fn revocation<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Revocation> {
    let mut m = cx.fields(node, "revocation")?;
    let crls = m.required("crls", crls);
    let words = [("deny", Unknown::Deny), ("allow", Unknown::Allow)];
    let unknown = m.optional("unknown", |cx, node| cx.word(node, &words)).unwrap_or_default();
    m.finish();
    Some(Revocation { crls: crls?, unknown })
}

/// Files of revocation lists.
pub(super) fn crls<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Box<[PathBuf]>> {
    let expected = "a list of files, as `[revoked.crl]`";
    let crls = cx.list(node, expected, file)?;
    if crls.is_empty() {
        return cx.fail(node, Fault::new("no list is named").hint(format!("expected {expected}")));
    }
    Some(crls.into())
}

/// `tls` or `mtls` of a listener.
pub(super) fn downstream(m: &mut Fields<'_, '_>) -> Option<DownstreamTls> {
    let tls = m.optional("tls", server_tls);
    let words = [("strict", Some(Mutual::Strict)), ("permissive", Some(Mutual::Permissive)), ("none", None)];
    let mtls = m.optional("mtls", |cx, node| {
        let mutual = cx.word(node, &words)?;
        if mutual.is_some() {
            uses_identity(cx, node)?
        }
        Some(mutual)
    });
    if m.has("tls") {
        m.refuse("mtls", || {
            Fault::new("the listener has `tls` already").hint(
                "remove one: `mtls` uses the proxy's identity, `tls` certificates of the listener's own",
            )
        });
    }
    tls.map(DownstreamTls::Own).or(mtls.flatten().map(DownstreamTls::Mutual))
}

fn uses_identity<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<()> {
    match cx.identity {
        Known::Nobody => cx.fail(
            node,
            Fault::new("the proxy has no identity to prove")
                .hint("write `identity` at the top, as `identity: { workload_api: \"unix:/run/spire/agent.sock\" }`"),
        ),
        Known::Somebody | Known::Of(_) => Some(()),
    }
}

fn server_tls<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<ServerTls> {
    let mut m = cx.fields(node, "tls")?;
    m.exactly_one(&["certificate", "certificates"]);
    let one = match m.has("certificates") {
        false => certificate(&mut m),
        true => {
            m.ask("certificate");
            m.ask("private_key");
            m.refuse("private_key", || Fault::new("each of `certificates` has its key").hint("remove it"));
            None
        }
    };
    let certificates = m.optional("certificates", |cx, node| {
        let expected = "a list, as `[{ certificate: a.crt, private_key: a.key }]`";
        let list = cx.list(node, expected, |cx, node| {
            let mut m = cx.fields(node, "certificate")?;
            let one = certificate(&mut m);
            m.finish();
            one
        })?;
        if list.is_empty() {
            return cx.fail(node, Fault::new("the list is empty").hint(format!("expected {expected}")));
        }
        Some(list.into())
    });
    let client = client(&mut m);
    m.finish();
    Some(ServerTls { certificates: certificates.or_else(|| Some([one?].into()))?, client: client? })
}

/// `certificate` and `private_key`: files, or a secret, which holds both.
fn certificate(m: &mut Fields<'_, '_>) -> Option<Certificate> {
    let mut is_secret = false;
    let found = m.required("certificate", |cx, node| {
        is_secret = matches!(node.view(), View::Map);
        named(cx, node, Holds::Certificate)
    });
    if is_secret {
        m.ask("private_key");
        m.refuse("private_key", || Fault::new("the secret holds its key").hint("remove it"));
    }
    let private_key = if is_secret { None } else { m.required("private_key", file) };
    Some(match found? {
        Named::Secret(name) => Certificate::Secret(name),
        Named::File(certificate) => {
            Certificate::Files(CertificateFiles { certificate, private_key: private_key? })
        }
    })
}

/// Where something of TLS comes from.
enum Named {
    File(PathBuf),
    Secret(Name),
}

/// A file in a proxy's own, and a secret in what a control plane tells: neither can name what is the other's.
fn named<'a>(cx: &mut Cx<'a>, node: Node<'a>, holds: Holds) -> Option<Named> {
    let is_secret = matches!(node.view(), View::Map);
    match cx.secrets {
        Secrets::None if is_secret => {
            let fault = Fault::new("secrets are named in documents of a control plane alone");
            cx.fail(node, fault.hint("write the path of a file"))
        }
        Secrets::Any | Secrets::These(_) if !is_secret => {
            let fault = Fault::new("a file of the proxies' machines is not named from afar");
            cx.fail(
                node,
                fault.hint("write `{ secret: NAME }`, of `secrets` in the control plane's own file"),
            )
        }
        Secrets::None => file(cx, node).map(Named::File),
        Secrets::Any | Secrets::These(_) => {
            let mut m = cx.fields(node, "secret")?;
            let name = m.required("secret", |cx, node| secret(cx, node, holds));
            m.finish();
            name.map(Named::Secret)
        }
    }
}

fn secret<'a>(cx: &mut Cx<'a>, node: Node<'a>, holds: Holds) -> Option<Name> {
    let text = cx.string(node, "the name of a secret")?;
    let Some(name) = Name::new(&text) else {
        return cx.fail(node, Fault::new(format!("{} is no name", show(&text))));
    };
    let Secrets::These(all) = cx.secrets else { return Some(name) };
    let fault = match all.get(&name) {
        Some(found) if *found == holds => return Some(name),
        Some(_) => Fault::new(format!("the secret `{name}` holds something else")),
        None => Fault::new(format!("there is no secret `{name}`")),
    };
    let fits = all.iter().filter(|(_, found)| **found == holds).map(|(name, _)| name.as_str());
    let what = match holds {
        Holds::Certificate => "certificates",
        Holds::Roots => "roots",
    };
    let fault = match fits.clone().next() {
        None => fault.hint("write it below `secrets` of the control plane's own file"),
        Some(_) => fault.choice(&text, fits, &format!("secrets that hold {what} are")),
    };
    cx.fail(node, fault)
}

fn client(m: &mut Fields<'_, '_>) -> Option<ClientAuth> {
    type Asked = fn(ClientTrust) -> ClientAuth;
    let words = [
        ("none", None),
        ("optional", Some(ClientAuth::Optional as Asked)),
        ("required", Some(ClientAuth::Required)),
    ];
    let asked = m.optional("client", |cx, node| cx.word(node, &words));
    if asked.is_none() && m.has("client") {
        return None;
    }
    let asked = asked.flatten();
    let roots = match asked {
        None => m.optional("client_trust", bundle),
        Some(_) => m.required("client_trust", bundle),
    };
    let revocation = m.optional("revocation", revocation).unwrap_or_default();
    refuse_lists(m, roots.as_ref());
    let Some(asked) = asked else {
        for key in ["client_trust", "revocation"] {
            m.refuse(key, || {
                Fault::new("clients are not asked for a certificate")
                    .hint("remove it, or write `client: required` or `client: optional`")
            });
        }
        return Some(ClientAuth::None);
    };
    Some(asked(ClientTrust { roots: roots?, revocation }))
}

fn bundle<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Bundle> {
    named(cx, node, Holds::Roots).map(|named| match named {
        Named::File(file) => Bundle::File(file),
        Named::Secret(name) => Bundle::Secret(name),
    })
}

fn refuse_lists(m: &mut Fields<'_, '_>, roots: Option<&Bundle>) {
    if let Some(Bundle::Secret(name)) = roots {
        m.refuse("revocation", || {
            Fault::new(format!("the secret `{name}` holds these lists"))
                .hint("write `crls` there, in the control plane's own file")
        });
    }
}

/// `tls` or `mtls` of a cluster; `host` is the name that its endpoints are resolved from.
pub(super) fn upstream(m: &mut Fields<'_, '_>, host: Option<&str>) -> Option<UpstreamTls> {
    let tls = m.optional("tls", |cx, node| server_auth(cx, node, host));
    let mtls = m.optional("mtls", mutual_upstream);
    if m.has("tls") {
        m.refuse("mtls", || {
            Fault::new("the cluster has `tls` already")
                .hint("remove one: `mtls` is for peers with a SPIFFE identity, `tls` for anybody else")
        });
    }
    tls.map(Box::new).map(UpstreamTls::Server).or(mtls.map(UpstreamTls::Mutual))
}

fn mutual_upstream<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<MutualUpstream> {
    let mut m = cx.fields(node, "cluster_mtls")?;
    let identity = uses_identity(m.cx, node);
    let peers = m.required("peers", peers);
    let sni = m.optional("sni", host);
    m.finish();
    identity?;
    Some(MutualUpstream { peers: peers?, sni })
}

/// Workloads that somebody vouches for.
pub(super) fn peers<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Box<[PeerPattern]>> {
    let expected = "a list of SPIFFE IDs, as `[\"spiffe://cluster.local/ns/shop/*\"]`";
    let peers = cx.list(node, expected, |cx, node| {
        let peer = cx.parsed(node, "a SPIFFE ID, as `spiffe://cluster.local/ns/shop/sa/cart`", peer)?;
        if let Known::Of(known) = &cx.identity
            && !known.iter().any(|known| known.as_str() == peer.trust_domain())
        {
            let names = known.iter().map(|known| known.as_str().to_owned()).collect::<Vec<_>>();
            let domain = peer.trust_domain();
            let fault = Fault::new(format!("nobody vouches for the trust domain {}", show(domain)));
            let fault = fault.choice(domain, names.iter().map(|name| &**name), "`identity` trusts");
            return cx.fail(node, fault);
        }
        Some(peer)
    })?;
    if peers.is_empty() {
        return cx.fail(node, Fault::new("nobody is named").hint(format!("expected {expected}")));
    }
    Some(peers.into())
}

fn peer(text: &str) -> Result<PeerPattern, Fault> {
    PeerPattern::new(text).map_err(|error| {
        Fault::new(format!("{} is no SPIFFE ID: {error}", show(text))).hint(
            "expected one as `spiffe://cluster.local/ns/shop/sa/cart`, or `spiffe://cluster.local/ns/shop/*`",
        )
    })
}

fn server_auth<'a>(cx: &mut Cx<'a>, node: Node<'a>, resolved: Option<&str>) -> Option<ServerAuth> {
    let mut m = cx.fields(node, "cluster_tls")?;
    let roots = m.optional("trust", roots).unwrap_or_default();
    let sni = m.optional("sni", host).or_else(|| resolved.map(Into::into));
    let sans = m.optional("sans", sans);
    let certificate = if m.has("certificate") || m.has("private_key") {
        certificate(&mut m)
    } else {
        m.ask("certificate");
        m.ask("private_key");
        None
    };
    let revocation = m.optional("revocation", revocation).unwrap_or_default();
    refuse_lists(&mut m, roots.bundle());
    let wrong = (m.has("sans") && sans.is_none()) || (m.has("sni") && sni.is_none());
    m.finish();
    if wrong {
        return None;
    }
    let Some(sans) = sans.or_else(|| Some([San::Dns(sni.clone()?)].into())) else {
        let fault = Fault::new("it is not said whose certificate is expected");
        return cx.fail(node, fault.hint("write `sni: host`, or `sans: [host]`"));
    };
    Some(ServerAuth { roots, sni, sans, certificate, revocation })
}

/// `system`, or a file; one of that name is written `./system`.
fn roots<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Roots> {
    if let View::Plain(text) | View::Quoted(text) = node.view()
        && cx.expands_to(text, "system")
    {
        return Some(Roots::System);
    }
    if matches!(node.view(), View::Map) || !matches!(cx.secrets, Secrets::None) {
        return bundle(cx, node).map(Roots::Of);
    }
    let text = cx.string(node, "`system`, or a file's path")?;
    // The same file, without what keeps it from being the word.
    file_of(cx, node, text.strip_prefix("./").unwrap_or(&text)).map(Bundle::File).map(Roots::Of)
}

fn sans<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Box<[San]>> {
    let expected = "a list of names, as `[legacy.example.com]`";
    let sans = cx.list(node, expected, |cx, node| {
        cx.parsed(node, "a host, an address or a SPIFFE ID", |text| {
            if text.contains("://") {
                return peer(text).map(San::Spiffe);
            }
            if let Ok(ip) = text.trim_matches(['[', ']']).parse() {
                return Ok(San::Ip(ip));
            }
            let host = text.to_ascii_lowercase();
            scalar::host_name(&host)?;
            Ok(San::Dns(host.into()))
        })
    })?;
    if sans.is_empty() {
        return cx.fail(node, Fault::new("no name is expected").hint(format!("expected {expected}")));
    }
    Some(sans.into())
}

fn host<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Box<str>> {
    cx.parsed(node, "a host, as `legacy.example.com`", |text| {
        let host = text.to_ascii_lowercase();
        if host.parse::<std::net::IpAddr>().is_ok() {
            return Err(Fault::new(format!("{} is an address", show(text)))
                .hint("only hosts are named (RFC 6066 section 3): write `sans: [address]`"));
        }
        scalar::host_name(&host)?;
        Ok(host.into())
    })
}

/// A file's path, relative to the configuration's own place.
pub(super) fn file<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<PathBuf> {
    let text = cx.string(node, "a file's path")?;
    file_of(cx, node, &text)
}

fn file_of<'a>(cx: &mut Cx<'a>, node: Node<'a>, text: &str) -> Option<PathBuf> {
    if text.is_empty() || text.ends_with('/') {
        return cx.fail(node, Fault::new(format!("{} is not a file's path", show(text))));
    }
    Some(cx.base.join(text))
}
