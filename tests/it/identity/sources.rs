//! Identities that come by themselves: from an agent that speaks the SPIFFE Workload API, and from a service that signs.
//! Both servers are ours, written on bare HTTP/2 with messages made by hand from the protocols' own texts.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use outrigger_tests::pki::{self, Authority, Svid, leaf};
use outrigger_tests::proxy::with_admin;
use outrigger_tests::tls::write_certificate;
use outrigger_tests::{Dir, Origin, Proxy, until};
use rcgen::{CertificateSigningRequestParams, SanType};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::DOMAIN;

/// A field of a message, of the kind that has a length (protobuf's wire type 2).
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}

fn der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::pem_slice_iter(pem.as_bytes()).flat_map(|one| one.unwrap().to_vec()).collect()
}

/// `X509SVIDResponse`, with the roots of another trust domain beside.
fn response(svid: &Svid, id: &str, bundle: &str, federated: &[(&str, String)]) -> Vec<u8> {
    let own = [
        field(1, id.as_bytes()),
        field(2, &der(&svid.chain)),
        field(3, svid.private_key().secret_der()),
        field(4, &der(bundle)),
        // A hint, which we do not know of.
        field(5, b"internal"),
    ];
    let mut all = field(1, &own.concat());
    for (domain, roots) in federated {
        all.extend(field(3, &[field(1, domain.as_bytes()), field(2, &der(roots))].concat()));
    }
    all
}

/// What an agent does about who asks.
#[derive(Clone)]
enum Says {
    Message(Vec<u8>),
    Status(u16),
}

/// An agent; what it says is said to all who are connected, and to all who come.
struct Agent {
    says: watch::Sender<Says>,
    asked: Arc<Mutex<Vec<http::request::Parts>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    fn start(socket: &Path, first: Says) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let (says, said) = watch::channel(first);
        let asked: Arc<Mutex<Vec<_>>> = Arc::default();
        let seen = asked.clone();
        let task = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                serving.spawn(serve(stream, said.clone(), seen.clone()));
            }
        });
        Self { says, asked, task }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    mut said: watch::Receiver<Says>,
    seen: Arc<Mutex<Vec<http::request::Parts>>>,
) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut streams = JoinSet::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        seen.lock().unwrap().push(request.into_parts().0);
        let mut said = said.clone();
        said.mark_changed();
        streams.spawn(async move {
            let head = http::Response::builder().header("content-type", "application/grpc");
            let mut body = None;
            while said.changed().await.is_ok() {
                let now = said.borrow_and_update().clone();
                match now {
                    Says::Message(message) => {
                        let body = body.get_or_insert_with(|| {
                            let head = http::Response::builder().header("content-type", "application/grpc");
                            respond.send_response(head.body(()).unwrap(), false).unwrap()
                        });
                        body.send_data(frame(&message), false).unwrap();
                    }
                    Says::Status(status) => {
                        let head = head.header("grpc-status", status).body(()).unwrap();
                        respond.send_response(head, true).unwrap();
                        return;
                    }
                }
            }
        });
    }
    said.mark_unchanged();
}

async fn start(dir: &Arc<Dir>, identity: &str) -> (Origin, Proxy) {
    let origin = Origin::ok("").await;
    let config = format!(
        "identity: {{ {identity} }}\nlisteners:\n  in: {{ bind: 127.0.0.1:0, mtls: strict, routes: [{{ to: app }}] }}\nclusters:\n  app: {{ endpoints: [\"{}\"] }}\n",
        origin.address()
    );
    // Ready it is once it is somebody.
    let file = dir.write("outrigger.yaml", &with_admin(&config));
    let proxy = Proxy::spawn(dir.clone(), &file, &[]);
    proxy.wait_log("listening listener=in").await;
    (origin, proxy)
}

async fn ready(proxy: &Proxy) {
    until("an identity", async || (proxy.ask("/ready").await.status == 200).then_some(())).await;
}

/// Whom the proxy says it is.
async fn shown(proxy: &Proxy, caller: &Svid) -> Option<Vec<u8>> {
    let config = pki::client_config(Some(caller), &["http/1.1"]);
    let stream = pki::connect(proxy.address("in"), "localhost", &config).await.ok()?;
    Some(stream.get_ref().1.peer_certificates()?[0].to_vec())
}

#[tokio::test]
async fn an_agent_says_who_we_are_and_says_it_anew() {
    let (authority, partner) = (Authority::new(DOMAIN), Authority::new("partner.test"));
    let dir = Arc::new(Dir::new());
    let socket = dir.file("agent.sock");
    let (origin, proxy) = start(
        &dir,
        "workload_api: \"unix:agent.sock\"".replace("agent.sock", socket.to_str().unwrap()).as_str(),
    )
    .await;
    // There is nobody yet: not ready, and nobody is let in.
    let not_ready = proxy.ask("/ready").await;
    assert_eq!((not_ready.status, not_ready.text().as_str()), (503, "there is no identity yet\n"));
    let caller = authority.svid("/web");
    assert_eq!(pki::status(proxy.address("in"), Some(&caller), "/").await, None);
    // It does not know us, then it does.
    let agent = Agent::start(&socket, Says::Status(7));
    proxy.wait_log("is it registered?").await;
    let first = authority.svid("/app");
    let federated = [("spiffe://partner.test", partner.pem())];
    agent.says.send_replace(Says::Message(response(
        &first,
        &authority.id("/app"),
        &authority.pem(),
        &federated,
    )));
    ready(&proxy).await;
    assert_eq!(shown(&proxy, &caller).await.unwrap(), der(&first.chain));
    assert_eq!(pki::status(proxy.address("in"), Some(&caller), "/").await, Some(200));
    assert_eq!(pki::status(proxy.address("in"), Some(&partner.svid("/x")), "/").await, Some(200));
    let heads = agent.asked.lock().unwrap().clone();
    assert_eq!(heads[0].uri.path(), "/SpiffeWorkloadAPI/FetchX509SVID");
    assert_eq!(heads[0].headers["workload.spiffe.io"], "true");
    // A new one, on the same stream, and the partner is nobody any more.
    let second = authority.svid("/app");
    agent.says.send_replace(Says::Message(response(&second, &authority.id("/app"), &authority.pem(), &[])));
    until("the second", async || (shown(&proxy, &caller).await? == der(&second.chain)).then_some(())).await;
    assert_eq!(pki::status(proxy.address("in"), Some(&partner.svid("/x")), "/").await, None);
    // What is not good changes nothing: garbage, nobody, another's key, another's root.
    let other = Svid { key: first.key.clone(), ..authority.svid("/app") };
    let stranger = Authority::new(DOMAIN).svid("/app");
    let id = authority.id("/app");
    let mut expired = leaf(&[&id]);
    expired.not_after = OffsetDateTime::now_utc() - Duration::from_secs(30);
    let old = authority.sign(expired);
    for (number, bad) in [
        vec![0xff; 40],
        vec![],
        response(&other, &id, &authority.pem(), &[]),
        response(&stranger, &id, &authority.pem(), &[]),
        response(&old, &id, &authority.pem(), &[]),
    ]
    .into_iter()
    .enumerate()
    {
        let before = proxy.metric("outrigger_identity_failures_total").await;
        agent.says.send_replace(Says::Message(bad));
        proxy.wait_metric("outrigger_identity_failures_total", |n| n > before).await;
        assert_eq!(shown(&proxy, &caller).await.unwrap(), der(&second.chain), "{number}");
    }
    // The agent is gone, and comes back with a new one.
    drop(agent);
    assert_eq!(pki::status(proxy.address("in"), Some(&caller), "/").await, Some(200));
    let third = authority.svid("/app");
    let _agent = Agent::start(&socket, Says::Message(response(&third, &id, &authority.pem(), &[])));
    until("the third", async || (shown(&proxy, &caller).await? == der(&third.chain)).then_some(())).await;
    drop(origin);
}

/// Signs what it is asked to, for who has the token.
async fn signer(signing: Signing, tls: Option<TlsAcceptor>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (signing, tls) = (signing.clone(), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => sign_all(stream, signing).await,
                    Some(tls) => {
                        let Ok(stream) = tls.accept(stream).await else { return };
                        sign_all(stream, signing).await;
                    }
                }
            });
        }
    });
    address
}

async fn sign_all(stream: impl AsyncRead + AsyncWrite + Unpin, signing: Signing) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut answering = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        answering.spawn(sign(request, respond, signing.clone()));
    }
}

/// By whom, for how long, and what was asked.
type Signing = (Arc<Authority>, Duration, Arc<Mutex<Vec<String>>>);

async fn sign(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    (authority, lifetime, asked): Signing,
) {
    let (head, mut stream) = request.into_parts();
    let mut body = Vec::new();
    while let Some(Ok(data)) = stream.data().await {
        body.extend_from_slice(&data);
    }
    let token = head.headers.get("authorization").map_or("", |value| value.to_str().unwrap()).to_owned();
    asked.lock().unwrap().push(format!("{} {token}", head.uri.path()));
    let ok = http::Response::builder().header("content-type", "application/grpc");
    if token != "Bearer joined" {
        let head = ok.header("grpc-status", 16).header("grpc-message", "no such token").body(()).unwrap();
        respond.send_response(head, true).unwrap();
        return;
    }
    // The frame's head, then `csr`, whose length takes two bytes or one.
    let message = &body[5..];
    assert_eq!(message[0], 0x0a);
    let (length, at) = match message[1] {
        short @ ..0x80 => (usize::from(short), 2),
        low => (usize::from(low & 0x7f) | usize::from(message[2]) << 7, 3),
    };
    let csr = &message[at..at + length];
    let mut csr = CertificateSigningRequestParams::from_der(&csr.to_vec().into()).unwrap();
    let now = OffsetDateTime::now_utc();
    csr.params = leaf(&[]);
    csr.params.subject_alt_names = vec![SanType::URI(authority.id("/signed").as_str().try_into().unwrap())];
    (csr.params.not_before, csr.params.not_after) = (now - Duration::from_secs(1), now + lifetime);
    let signed = csr.signed_by(authority.issuer()).unwrap();
    let bundle = [field(1, DOMAIN.as_bytes()), field(2, &field(1, &der(&authority.pem())))].concat();
    let message = [field(1, signed.der()), field(2, &bundle)].concat();
    let mut body = respond.send_response(ok.body(()).unwrap(), false).unwrap();
    body.send_data(frame(&message), false).unwrap();
    let trailers = http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    body.send_trailers(trailers).unwrap();
}

#[tokio::test]
async fn a_service_signs_and_signs_again_in_time() {
    let authority = Arc::new(Authority::new(DOMAIN));
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let address = signer((authority.clone(), Duration::from_secs(6), asked.clone()), None).await;
    let dir = Arc::new(Dir::new());
    dir.write("token", "wrong\n");
    let csr = format!("csr: {{ server: \"http://{address}\", token: token, lifetime: 6s }}");
    let (_origin, proxy) = start(&dir, &csr).await;
    proxy.wait_log("no such token").await;
    assert_eq!(proxy.ask("/ready").await.status, 503);
    dir.write("token", "joined\n");
    ready(&proxy).await;
    let caller = authority.svid("/web");
    let first = shown(&proxy, &caller).await.unwrap();
    assert_eq!(pki::status(proxy.address("in"), Some(&caller), "/").await, Some(200));
    // Well before the end of its six seconds another is there, with another key.
    until("a renewed certificate", async || (shown(&proxy, &caller).await? != first).then_some(())).await;
    assert_eq!(pki::status(proxy.address("in"), Some(&caller), "/").await, Some(200));
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked[0], "/outrigger.identity.v1.CertificateAuthority/Sign Bearer wrong");
    assert!(asked.iter().filter(|asked| asked.ends_with("joined")).count() <= 4, "{asked:?}");
    // Neither token nor key is told to anybody.
    let told =
        format!("{}{}{}", proxy.log(), proxy.ask("/config").await.text(), proxy.ask("/metrics").await.text());
    assert!(!told.contains("joined") && !told.contains("PRIVATE"));
}

#[tokio::test]
async fn a_token_is_told_to_the_right_service_alone() {
    let authority = Arc::new(Authority::new(DOMAIN));
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let dir = Arc::new(Dir::new());
    write_certificate(&dir, &["localhost"]);
    let signing = (authority.clone(), Duration::from_secs(3600), asked.clone());
    let address = signer(signing, Some(acceptor(&dir))).await;
    dir.write("token", "joined\n");
    // That of somebody else, first.
    dir.write("trust.crt", &authority.pem());
    let server = format!("https://localhost:{}", address.port());
    let (_origin, proxy) =
        start(&dir, &format!("csr: {{ server: \"{server}\", trust: trust.crt, token: token }}")).await;
    proxy.wait_log("UnknownIssuer").await;
    assert_eq!(proxy.ask("/ready").await.status, 503);
    assert!(asked.lock().unwrap().is_empty());
    dir.write("trust.crt", &std::fs::read_to_string(dir.file("ca.crt")).unwrap());
    ready(&proxy).await;
    assert_eq!(pki::status(proxy.address("in"), Some(&authority.svid("/web")), "/").await, Some(200));
    assert_eq!(asked.lock().unwrap().len(), 1);
}

/// TLS by `tls.crt` and `tls.key`, for HTTP/2.
fn acceptor(dir: &Dir) -> TlsAcceptor {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let chain = CertificateDer::pem_file_iter(dir.file("tls.crt")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(dir.file("tls.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config).into()
}
