//! The SPIFFE Workload API (SPIFFE_Workload_API.md, section 4 and SPIFFE_Workload_Endpoint.md): an agent beside us says
//! who we are, over a unix socket, and says it anew whenever that changes.
//!
//! Messages under the specification's own numbers, of which those that we use.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::mem;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use outrigger_proto::model::{SpiffeId, TrustDomain};
use prost::Message;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;
use x509_parser::asn1_rs::Any;
use x509_parser::prelude::FromDer as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::backoff::Backoff;
use super::dial::root_cause;
use super::offer::{Offer, Taker};

const PATH: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

/// Without it a request could have been made by somebody who was tricked into it (Workload Endpoint, section 5.1).
const HEADER: &str = "workload.spiffe.io";

/// Bytes of a message; a bundle of a thousand roots fits.
const LARGEST: usize = 4 << 20;

/// For a connection to the socket, and for the first answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two tries.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A stream that lasted this long was one: an agent that hangs up after each answer is not asked again at once.
const STEADY: Duration = Duration::from_secs(1);

/// `X509SVIDRequest`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct SvidRequest {}

/// `X509SVIDResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct SvidResponse {
    /// Who we are; the first is the default.
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<Svid>,
    /// Revocation lists, as DER.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub crl: Vec<Vec<u8>>,
    /// Roots of other trust domains, by the SPIFFE ID of each, as DER one behind the other.
    #[prost(map = "string, bytes", tag = "3")]
    pub federated_bundles: HashMap<String, Vec<u8>>,
}

/// `X509SVID`; its key is shown to nobody, and wiped when it is dropped.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct Svid {
    /// The name.
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    /// The chain, leaf first, as DER one behind the other.
    #[prost(bytes = "vec", tag = "2")]
    pub x509_svid: Vec<u8>,
    /// The key, as PKCS #8 DER.
    #[prost(bytes = "vec", tag = "3")]
    pub x509_svid_key: Vec<u8>,
    /// Roots of its trust domain, as DER one behind the other.
    #[prost(bytes = "vec", tag = "4")]
    pub bundle: Vec<u8>,
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

impl Drop for Svid {
    fn drop(&mut self) {
        self.x509_svid_key.zeroize();
    }
}

/// Follows what the agent says, for as long as this is polled.
pub async fn follow(socket: PathBuf, taker: Taker) {
    let mut backoff = Backoff::new(WAITS);
    loop {
        let begun = Instant::now();
        let ended = match connect(&socket).await {
            Ok(channel) => listen(channel, &taker).await,
            Err(error) => error,
        };
        taker.failed(&format_args!("Workload API at {}: {ended}", socket.display()));
        after(&mut backoff, begun.elapsed());
        tokio::time::sleep(backoff.next(fastrand::u64(..))).await;
    }
}

/// A stream has ended that lasted so long.
fn after(backoff: &mut Backoff, lasted: Duration) {
    if lasted >= STEADY {
        backoff.reset();
    }
}

/// Takes what comes, until nothing comes any more: why.
async fn listen(channel: Channel, taker: &Taker) -> ApiError {
    let mut stream = match ask(channel).await {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    let mut patience = Some(PATIENCE);
    loop {
        // An agent that has nothing for us says so at once; after that it speaks when it has something to say.
        let next = match patience.take() {
            Some(patience) => tokio::time::timeout(patience, stream.message()).await,
            None => Ok(stream.message().await),
        };
        let response = match next {
            Ok(Ok(Some(response))) => response,
            Ok(Ok(None)) => return ApiError::Ended,
            Ok(Err(status)) => return ApiError::Refused(status),
            Err(_) => return ApiError::Silent,
        };
        match offer(response) {
            // What is not taken is logged and counted there.
            Ok(offer) => drop(taker.take(offer)),
            Err(error) => taker.failed(&error),
        }
    }
}

async fn ask(channel: Channel) -> Result<Streaming<SvidResponse>, ApiError> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(LARGEST);
    let mut request = Request::new(SvidRequest {});
    request.metadata_mut().insert(HEADER, MetadataValue::from_static("true"));
    let asked = async {
        grpc.ready().await.map_err(|error| ApiError::Unreachable(error.to_string()))?;
        let codec = ProstCodec::<SvidRequest, SvidResponse>::default();
        let path = http::uri::PathAndQuery::from_static(PATH);
        Ok(grpc.server_streaming(request, path, codec).await.map_err(ApiError::Refused)?.into_inner())
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(ApiError::Silent))
}

async fn connect(socket: &Path) -> Result<Channel, ApiError> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The address is nobody's: the connector knows where to go.
    let endpoint = Endpoint::from_static("http://localhost").connect_timeout(PATIENCE);
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|error| ApiError::Unreachable(root_cause(&error)))
}

/// What a response offers.
fn offer(response: SvidResponse) -> Result<Offer, ApiError> {
    let SvidResponse { svids, crl, federated_bundles } = response;
    let mut svid = svids.into_iter().next().ok_or(ApiError::NoSvid)?;
    let Svid { spiffe_id, x509_svid, x509_svid_key, bundle } = &mut svid;
    let id = SpiffeId::new(spiffe_id).map_err(|_| ApiError::Malformed("spiffe_id"))?;
    let mut bundles = BTreeMap::new();
    for (domain, bundle) in federated_bundles {
        let name = domain.strip_prefix("spiffe://").unwrap_or(&domain);
        let domain = TrustDomain::new(name).map_err(|_| ApiError::Malformed("federated_bundles"))?;
        // An empty one is one that was taken back (section 4.4): that domain is unknown, the others are not.
        if !bundle.is_empty() {
            bundles.insert(domain, certificates(&bundle, "federated_bundles")?);
        }
    }
    let own = TrustDomain::new(id.trust_domain()).map_err(|_| ApiError::Malformed("spiffe_id"))?;
    bundles.insert(own, certificates(bundle, "bundle")?);
    Ok(Offer {
        chain: certificates(x509_svid, "x509_svid")?,
        key: Zeroizing::new(PrivateKeyDer::Pkcs8(mem::take(x509_svid_key).into())),
        bundles,
        crls: crl.into_iter().map(CertificateRevocationListDer::from).collect(),
        // An agent gives what it has had for a while.
        is_fresh: false,
    })
}

/// Certificates that stand one behind the other.
fn certificates(mut rest: &[u8], field: &'static str) -> Result<Vec<CertificateDer<'static>>, ApiError> {
    let mut certificates = Vec::new();
    while !rest.is_empty() {
        let (behind, _) = Any::from_der(rest).map_err(|_| ApiError::Malformed(field))?;
        let (one, behind) = rest.split_at(rest.len() - behind.len());
        certificates.push(CertificateDer::from(one.to_vec()));
        rest = behind;
    }
    if certificates.is_empty() { Err(ApiError::Malformed(field)) } else { Ok(certificates) }
}

/// Why the agent has said nothing that can be used.
#[derive(Debug)]
enum ApiError {
    Unreachable(String),
    Silent,
    Ended,
    NoSvid,
    Malformed(&'static str),
    Refused(Status),
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "cannot be reached: {error}"),
            Self::Silent => write!(f, "no answer within {PATIENCE:?}"),
            Self::Ended => write!(f, "the agent has ended the stream"),
            Self::NoSvid => write!(f, "the answer holds no identity"),
            Self::Malformed(field) => write!(f, "the answer's `{field}` cannot be read"),
            Self::Refused(status) if status.code() == Code::PermissionDenied => {
                write!(f, "the agent knows of no identity for this process; is it registered?")
            }
            Self::Refused(status) => write!(f, "{:?}: {}", status.code(), status.message()),
        }
    }
}

#[cfg(test)]
#[path = "workload_api_tests.rs"]
mod tests;
