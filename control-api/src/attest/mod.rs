//! Who a node is, and what it gets for that: a certificate. There are several ways of proving it, each an [`Attestor`]; the first
//! that is convinced decides, and what all of them said stands in the refusal.
//!
//! A certificate says what it goes back to ([`Origin`]), and so does the next one that is asked for with it: what was taken
//! back meanwhile leads to no more.

mod certificates;
mod joins;
mod own;
mod verifier;

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::post;
use outrigger_proto::identity::{Bundle, SIGN, SignRequest, SignResponse};
use outrigger_proto::model::{Attest, SpiffeId, TrustDomain};
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;
use zeroize::Zeroizing;

use self::certificates::Certificates;
pub use self::joins::{create, describe, holder, take_back};
pub use self::own::Own;
pub(crate) use self::own::is_secret;
use self::verifier::Verifier;
use crate::ca::{self, Authority, SignError, Signed};
use crate::events::{Happened, rfc3339};
use crate::origin::Origin;
use crate::plane::Plane;
use crate::tls::Peer;
use crate::token;

/// All ways of proving who one is, in the order in which they are asked.
#[derive(Debug)]
pub struct Attestors {
    plane: Arc<Plane>,
    certificates: Arc<Certificates>,
    ways: Vec<Attestor>,
}

/// One way of proving who one is.
#[derive(Debug)]
enum Attestor {
    /// A certificate that is still good.
    Certificates(Arc<Certificates>),
    /// A token that was made here for one identity.
    Joins,
    /// A token that somebody else knows.
    Verifier(Verifier),
}

/// What a node shows, over one connection.
struct Shown {
    peer: Peer,
    token: Option<Zeroizing<String>>,
    /// Whom it asks to be, if it says so.
    asked: Option<String>,
}

/// Somebody has proven who he is.
#[derive(Debug)]
struct Proven {
    id: SpiffeId,
    origin: Origin,
    by: By,
}

/// With what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Certificate,
    JoinToken,
    Verifier,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::JoinToken => "join token",
            Self::Verifier => "verifier",
        })
    }
}

impl Attestor {
    /// Who shows this; `None` where nothing of this way is shown.
    fn attest(&self, plane: &Plane, authority: &Authority, shown: &Shown) -> Result<Option<Proven>, Status> {
        match self {
            Self::Certificates(certificates) => certificates.renews(plane, authority, &shown.peer.chain),
            Self::Joins => {
                let ours = shown.token.as_ref().filter(|token| token::is_ours(token));
                ours.map(|token| joins::attest(plane, token)).transpose()
            }
            Self::Verifier(verifier) => verifier.attest(authority.trust_domain(), shown),
        }
    }
}

impl Attestors {
    /// Reads what the ways need.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn open(plane: Arc<Plane>, settings: &Attest) -> Result<Self, String> {
        let Attest { certificates, verifier } = settings;
        let certificates = Arc::new(Certificates::open(certificates.as_deref())?);
        let mut ways = vec![Attestor::Certificates(certificates.clone()), Attestor::Joins];
        if let Some(verifier) = verifier {
            ways.push(Attestor::Verifier(Verifier::open(verifier)?));
        }
        Ok(Self { plane, certificates, ways })
    }

    /// Reads what is read at the start, and nothing else.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it should be.
    pub fn check(Attest { certificates, verifier }: &Attest) -> Result<(), String> {
        Certificates::open(certificates.as_deref())?;
        verifier.as_ref().map_or(Ok(()), |verifier| Verifier::open(verifier).map(drop))
    }

    fn attested(&self, authority: &Authority, shown: &Shown) -> Result<Proven, Status> {
        let mut refused: Option<Status> = None;
        for way in &self.ways {
            match way.attest(&self.plane, authority, shown) {
                Ok(Some(proven)) => return of_ours(proven, authority.trust_domain()),
                Ok(None) => {}
                // Of several the last one counts: it is what a node without a certificate would hear.
                Err(status) => {
                    let before = refused.map(|before| format!("{}; ", before.message()));
                    let said = format!("{}{}", before.unwrap_or_default(), status.message());
                    refused = Some(Status::new(status.code(), said));
                }
            }
        }
        Err(refused.unwrap_or_else(|| {
            Status::unauthenticated(
                "a join token is needed, or a certificate of ours; `outrigger-control token join` makes a token",
            )
        }))
    }

    /// Who somebody is, by a certificate of ours that is still good. It reads, and so it blocks.
    ///
    /// # Errors
    /// He shows none, or one that is not good.
    pub fn who(&self, peer: &Peer) -> Result<SpiffeId, Status> {
        let missing = || Status::unauthenticated("a certificate of ours is to be shown");
        let authority = self.plane.authority.as_ref().ok_or_else(missing)?;
        let shown = self.certificates.shown(&self.plane, authority, &peer.chain)?.ok_or_else(missing)?;
        of_ours(shown, authority.trust_domain()).map(|proven| proven.id)
    }

    fn answer(&self, peer: Peer, request: Request<SignRequest>) -> Result<SignResponse, Status> {
        let Some(authority) = &self.plane.authority else {
            return Err(Status::unimplemented("no identities are given here: `ca` is not written"));
        };
        let said = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = said.and_then(|said| said.strip_prefix("Bearer ")).map(str::trim);
        let token = token.map(|token| Zeroizing::new(token.to_owned()));
        let SignRequest { csr, lifetime_seconds } = request.into_inner();
        let shown = Shown { peer, token, asked: ca::asked(&csr) };
        let proven = self.attested(authority, &shown)?;
        let signed = self.signed(authority, (&csr, Duration::from_secs(lifetime_seconds)), &proven)?;
        let bundle = Bundle { roots: authority.bundle() };
        let bundles = HashMap::from([(authority.trust_domain().to_string(), bundle)]);
        Ok(SignResponse { chain: vec![signed.certificate], bundles })
    }

    /// A certificate for whoever has proven who it is, by this request; it is written down what it goes back to.
    fn signed(
        &self,
        authority: &Authority,
        (csr, lifetime): (&[u8], Duration),
        Proven { id, origin, by }: &Proven,
    ) -> Result<Signed, Status> {
        let signed = authority.sign(csr, (id, *origin), lifetime).map_err(|error| match error {
            SignError::Request(why) => Status::invalid_argument(why),
            SignError::Authority(why) => {
                tracing::error!(why, "nothing can be signed");
                Status::internal("nothing can be signed")
            }
        })?;
        // Nobody has it before this is written: of two who show what is good for one, one gets it.
        if let Origin::Join(join) = origin {
            joins::note_signed(&self.plane, *join, *by, seconds(signed.not_after))?;
        }
        let (spiffe_id, by, not_after) = (id.to_string(), by.to_string(), rfc3339(signed.not_after));
        self.plane.note(Happened::Issued { spiffe_id, serial: signed.serial.clone(), not_after, by });
        Ok(signed)
    }
}

/// It may have been made, or signed, when another trust domain was ours.
fn of_ours(proven: Proven, domain: &TrustDomain) -> Result<Proven, Status> {
    if proven.id.trust_domain() != domain.as_str() {
        let why = format!("`{}` is not of the trust domain `{domain}`", proven.id);
        return Err(Status::permission_denied(why));
    }
    Ok(proven)
}

/// Since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Where certificates are asked for.
pub fn router(attestors: Arc<Attestors>) -> Router {
    Router::new().route(SIGN, post(sign)).with_state(attestors)
}

/// Lets those pass who show a certificate of ours that is still good, whoever they are by it. They are looked at when they begin to
/// ask.
pub async fn proven_alone(
    State(attestors): State<Arc<Attestors>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: axum::extract::Request,
    next: Next,
) -> Response {
    let looked = tokio::task::spawn_blocking(move || attestors.who(&peer)).await;
    match looked.unwrap_or_else(|_| Err(Status::internal("the work was given up"))) {
        Ok(_) => next.run(request).await,
        Err(status) => status.into_http(),
    }
}

async fn sign(
    State(attestors): State<Arc<Attestors>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: axum::extract::Request,
) -> Response {
    let mut grpc = Grpc::new(ProstCodec::<SignResponse, SignRequest>::default());
    grpc.unary(Sign(attestors, peer), request).await.map(axum::body::Body::new)
}

struct Sign(Arc<Attestors>, Peer);

impl UnaryService<SignRequest> for Sign {
    type Response = SignResponse;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<SignResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<SignRequest>) -> Self::Future {
        let (attestors, peer) = (Arc::clone(&self.0), self.1.clone());
        Box::pin(async move {
            let work = tokio::task::spawn_blocking(move || attestors.answer(peer, request));
            let answered = work.await.map_err(|_| Status::internal("the work was given up"))?;
            answered.map(tonic::Response::new)
        })
    }
}

#[cfg(test)]
mod tests;
