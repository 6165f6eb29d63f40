//! A signing service: we make a key, it signs a certificate for it, and again before that one lapses. The protocol is
//! `outrigger.identity.v1`; the key is made anew each time and never leaves this process.
//!
//! The first time a token says who asks. From then on the certificate that is in force does, where the service asks for one, and
//! the token beside it as long as it is there: which of them counts is the service's to say. One that has lapsed is not shown.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_proto::identity::{SIGN, SignRequest, SignResponse};
use outrigger_proto::model::{Csr, TrustDomain};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use zeroize::Zeroizing;

use super::backoff::Backoff;
use super::offer::{Accepted, Offer, Taker};
use super::renewal::Plan;
use super::verify::Validity;
use super::{Identity, dial};

/// For a connection, and for the whole of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of an answer.
const LARGEST: usize = 4 << 20;

/// Between two tries, while there is nothing to lose yet.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Gets a certificate, and a new one in time, for as long as this is polled.
pub async fn follow(config: Csr, taker: Taker) {
    let mut backoff = Backoff::new(WAITS);
    loop {
        match ask(&config, &taker.identity).await {
            Ok(offer) => {
                if let Some(accepted) = taker.take(offer) {
                    backoff = rest(accepted).await;
                    continue;
                }
            }
            Err(error) => taker.failed(&format_args!("{}: {error}", config.server)),
        }
        tokio::time::sleep(backoff.next(fastrand::u64(..))).await;
    }
}

/// Waits until a certificate is to be renewed; how to wait between tries from then on.
async fn rest(Accepted { id: _, not_before, not_after }: Accepted) -> Backoff {
    let begun = Instant::now();
    let plan = Plan::new(Validity { not_before, not_after }, SystemTime::now(), fastrand::u64(..));
    while let Some(wait) = plan.wait(SystemTime::now(), begun.elapsed()) {
        tokio::time::sleep(wait).await;
    }
    let (base, max) = WAITS;
    let longest = plan.longest_wait().clamp(Duration::from_millis(100), max);
    Backoff::new((base.min(longest), longest))
}

async fn ask(config: &Csr, own: &Arc<Identity>) -> Result<Offer, CsrError> {
    let shown = own.good(SystemTime::now()).is_some().then_some(own);
    let answered = ask_as(config, shown).await;
    // It may be what we show that ends the conversation, where a token alone would do.
    if shown.is_none() || config.token.is_none() || !answered.as_ref().is_err_and(CsrError::is_of_who_asks) {
        return answered;
    }
    match ask_as(config, None).await {
        Err(CsrError::Token(_) | CsrError::NoToken) => answered,
        without => without,
    }
}

async fn ask_as(config: &Csr, own: Option<&Arc<Identity>>) -> Result<Offer, CsrError> {
    let key = Zeroizing::new(KeyPair::generate().map_err(|_| CsrError::Key)?);
    // It names nobody: who we are is the service's to say.
    let params = CertificateParams::default();
    let csr = params.serialize_request(&*key).map_err(|_| CsrError::Key)?;
    let mut request =
        Request::new(SignRequest { csr: csr.der().to_vec(), lifetime_seconds: config.lifetime.as_secs() });
    match config.token.as_deref().map(bearer) {
        Some(Ok(bearer)) => drop(request.metadata_mut().insert("authorization", bearer)),
        // It was needed once, and may be gone.
        Some(Err(error)) if own.is_none() => return Err(error),
        Some(Err(_)) | None => {}
    }
    offer(exchange(connect(config, own), request).await?, &key)
}

fn bearer(token: &Path) -> Result<MetadataValue<Ascii>, CsrError> {
    let token = Zeroizing::new(std::fs::read_to_string(token).map_err(CsrError::Token)?);
    let token = Some(token.trim()).filter(|token| !token.is_empty()).ok_or(CsrError::NoToken)?;
    let bearer = Zeroizing::new(format!("Bearer {token}"));
    let mut bearer = MetadataValue::try_from(bearer.as_str()).map_err(|_| CsrError::NoToken)?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

/// One answer, on a connection of its own.
async fn exchange(
    connecting: impl Future<Output = Result<Channel, CsrError>>,
    request: Request<SignRequest>,
) -> Result<SignResponse, CsrError> {
    let exchange = async {
        let mut grpc = Grpc::new(connecting.await?).max_decoding_message_size(LARGEST);
        grpc.ready().await.map_err(|error| CsrError::Unreachable(error.to_string()))?;
        let codec = ProstCodec::<SignRequest, SignResponse>::default();
        let answered = grpc.unary(request, http::uri::PathAndQuery::from_static(SIGN), codec).await;
        Ok(answered.map_err(CsrError::Refused)?.into_inner())
    };
    tokio::time::timeout(PATIENCE, exchange).await.unwrap_or(Err(CsrError::Silent))
}

fn offer(SignResponse { chain, bundles }: SignResponse, key: &KeyPair) -> Result<Offer, CsrError> {
    let certificates = |list: Vec<Vec<u8>>| list.into_iter().map(CertificateDer::from).collect::<Vec<_>>();
    let bundle = |(name, bundle): (String, outrigger_proto::identity::Bundle)| {
        let domain = TrustDomain::new(&name).map_err(|_| CsrError::TrustDomain(name))?;
        Ok((domain, certificates(bundle.roots)))
    };
    Ok(Offer {
        chain: certificates(chain),
        key: Zeroizing::new(PrivateKeyDer::Pkcs8(key.serialize_der().into())),
        bundles: bundles.into_iter().map(bundle).collect::<Result<_, CsrError>>()?,
        crls: Vec::new(),
        is_fresh: true,
    })
}

async fn connect(config: &Csr, own: Option<&Arc<Identity>>) -> Result<Channel, CsrError> {
    let channel = dial::channel(&config.server, config.trust.as_deref(), own, PATIENCE);
    channel.await.map_err(CsrError::Unreachable)
}

/// Why there is no certificate.
#[derive(Debug)]
enum CsrError {
    Key,
    Token(io::Error),
    NoToken,
    Unreachable(String),
    Silent,
    TrustDomain(String),
    Refused(Status),
}

impl CsrError {
    /// Whether somebody else, or nobody, might be answered otherwise.
    fn is_of_who_asks(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused(status) => matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied),
            Self::Key | Self::Token(_) | Self::NoToken | Self::Silent | Self::TrustDomain(_) => false,
        }
    }
}

impl fmt::Display for CsrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => write!(f, "no key could be made"),
            Self::Token(error) => write!(f, "the token cannot be read: {error}"),
            Self::NoToken => write!(f, "the token's file holds no token"),
            Self::Unreachable(error) => write!(f, "cannot be reached: {error}"),
            Self::Silent => write!(f, "no answer within {PATIENCE:?}"),
            Self::TrustDomain(name) => write!(f, "the answer names a trust domain that is none: {name:?}"),
            Self::Refused(status) => write!(f, "{:?}: {}", status.code(), status.message()),
        }
    }
}

#[cfg(test)]
#[path = "csr_tests.rs"]
mod tests;
