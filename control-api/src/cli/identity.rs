//! An identity in files, for programs that cannot ask for one themselves: a key is made here, and signed there. Asked again, it
//! shows the certificate that it has got before, so that a timer renews it without a token.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http::Uri;
use hyper_util::rt::TokioIo;
use outrigger_proto::identity::{SIGN, SignRequest, SignResponse};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;
use zeroize::Zeroizing;

use super::{Done, print};
use crate::{pem, tls};

/// For a connection, and for the whole of an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is written, in the order in which it is.
const FILES: [&str; 3] = ["roots.crt", "identity.key", "identity.crt"];

/// Who is to be asked, and what for.
#[derive(Debug, Args)]
pub(super) struct Identity {
    /// Where nodes ask the control plane, as `https://outrigger-control:18000`
    #[arg(long, value_name = "URL")]
    server: Uri,
    /// PEM file of the roots that it is checked against; the system's by default
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// File of a token; not needed again while the certificate is good
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// Directory for `identity.crt`, `identity.key` and `roots.crt`; made where it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Only see whether it can be asked: nothing is signed, and nothing written
    #[arg(long)]
    dry_run: bool,
}

/// Gets a certificate, and writes it down.
pub(super) fn get(args: &Identity) -> Done {
    let made = |error: rcgen::Error| format!("no key can be made: {error}");
    let key = Zeroizing::new(KeyPair::generate().map_err(made)?);
    let csr = CertificateParams::default().serialize_request(&*key).map_err(made)?;
    let mut request = Request::new(SignRequest { csr: csr.der().to_vec(), lifetime_seconds: 0 });
    if let Some(token) = args.token.as_deref().filter(|token| token.exists() || shown(&args.out).is_none()) {
        let token = fs::read_to_string(token).map_err(|error| format!("{}: {error}", token.display()))?;
        let token = Zeroizing::new(token);
        let bearer = format!("Bearer {}", token.trim()).parse().map_err(|_| "this is no token".to_owned())?;
        request.metadata_mut().insert("authorization", bearer);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let asked = async { tokio::time::timeout(PATIENCE, ask(args, request)).await };
    let answer = runtime.block_on(asked).map_err(|_| format!("no answer within {PATIENCE:?}"))??;
    let Some(answer) = answer else {
        let (server, out) = (&args.server, args.out.display());
        return print(&format!(
            "{server} can be asked; what it says to what is shown it says when it signs, and {out} stays: this was a dry run\n"
        ));
    };
    let SignResponse { chain, bundles } = answer;
    let roots = bundles.into_values().flat_map(|bundle| bundle.roots);
    let roots = Zeroizing::new(pem(roots));
    let texts = [roots, Zeroizing::new(key.serialize_pem()), Zeroizing::new(pem(chain.into_iter()))];
    keep(&args.out, texts)
}

fn pem(certificates: impl Iterator<Item = Vec<u8>>) -> String {
    certificates.map(|der| pem::pem(&CertificateDer::from(der))).collect()
}

/// All is written before any of it counts.
fn keep(directory: &Path, texts: [Zeroizing<String>; 3]) -> Done {
    let failed = |path: &Path, error: &std::io::Error| format!("{}: {error}", path.display());
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| failed(directory, &error))?;
    let fresh = |name: &str| directory.join(format!("{name}.new"));
    for (name, text) in FILES.into_iter().zip(&texts) {
        let path = fresh(name);
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .map_err(|error| failed(&path, &error))?;
    }
    for name in FILES {
        let path = directory.join(name);
        fs::rename(fresh(name), &path).map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}

/// What there is from before, if it is of use: whether it is still good is the server's to say.
fn shown(directory: &Path) -> Option<CertifiedKey> {
    let chain = CertificateDer::pem_file_iter(directory.join("identity.crt")).ok()?;
    let key = PrivateKeyDer::from_pem_file(directory.join("identity.key")).ok()?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain.collect::<Result<_, _>>().ok()?, key, &provider).ok()
}

/// Nothing in a dry run.
async fn ask(args: &Identity, request: Request<SignRequest>) -> Result<Option<SignResponse>, String> {
    let server = &args.server;
    let away = |error: &dyn std::fmt::Display| format!("{server} cannot be asked: {error}");
    let (Some("https"), Some(host)) = (server.scheme_str(), server.host()) else {
        return Err(format!("{server}: in the clear a token would be anybody's; write `https://`"));
    };
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let name = name.map_err(|error| away(&error))?;
    let socket = TcpStream::connect((name.to_str().into_owned(), server.port_u16().unwrap_or(443))).await;
    let socket = socket.map_err(|error| away(&error))?;
    let stream = TlsConnector::from(Arc::new(config(args)?)).connect(name, socket).await;
    let mut stream = Some(stream.map_err(|error| away(&error))?);
    // The connection that there is, once.
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.take().map(TokioIo::new);
        async move { stream.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected)) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(connector).await.map_err(|error| away(&error))?;
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| away(&error))?;
    if args.dry_run {
        return Ok(None);
    }
    let codec = ProstCodec::<SignRequest, SignResponse>::default();
    let answered = grpc.unary(request, http::uri::PathAndQuery::from_static(SIGN), codec).await;
    let refused = |status: tonic::Status| format!("{server} signs nothing: {}", status.message());
    Ok(Some(answered.map_err(refused)?.into_inner()))
}

fn config(args: &Identity) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(tls::roots(args.trust.as_deref())?);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let builder = builder.with_root_certificates(roots);
    let mut config = match shown(&args.out) {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
