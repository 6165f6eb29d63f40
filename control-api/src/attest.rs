//! Who a node is, before it has a certificate: it shows a join token, which whoever runs the mesh has made for one identity.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use outrigger_proto::identity::{Bundle, SIGN, SignRequest, SignResponse};
use outrigger_proto::model::{SpiffeId, TrustDomain};
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::ca::SignError;
use crate::events::{Happened, rfc3339};
use crate::plane::Plane;
use crate::store::{Join, StoreError};
use crate::token;

/// Where certificates are asked for.
pub fn router(plane: Arc<Plane>) -> Router {
    Router::new().route(SIGN, post(sign)).with_state(plane)
}

/// Makes a token: whoever shows it in time is this.
///
/// # Errors
/// The store cannot be written.
pub fn create_join(plane: &Plane, id: &SpiffeId, lifetime: Duration) -> Result<String, StoreError> {
    let token = token::make();
    let now = seconds(SystemTime::now());
    let join = Join { spiffe_id: id.to_string(), expires: now.saturating_add(lifetime.as_secs()) };
    plane.store().put_join(&token::hash(&token), &join, now)?;
    Ok(token)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

async fn sign(State(plane): State<Arc<Plane>>, request: axum::extract::Request) -> Response {
    let mut grpc = Grpc::new(ProstCodec::<SignResponse, SignRequest>::default());
    grpc.unary(Sign(plane), request).await.map(axum::body::Body::new)
}

struct Sign(Arc<Plane>);

impl UnaryService<SignRequest> for Sign {
    type Response = SignResponse;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<SignResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<SignRequest>) -> Self::Future {
        let plane = Arc::clone(&self.0);
        Box::pin(async move {
            let work = tokio::task::spawn_blocking(move || answer(&plane, request));
            let answered = work.await.map_err(|_| Status::internal("the work was given up"))?;
            answered.map(tonic::Response::new)
        })
    }
}

fn answer(plane: &Plane, request: Request<SignRequest>) -> Result<SignResponse, Status> {
    let Some(authority) = &plane.authority else {
        return Err(Status::unimplemented("no identities are given here: `ca` is not written"));
    };
    let said = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    let shown = said.and_then(|said| said.strip_prefix("Bearer ")).map(str::trim);
    let id = attested(plane, authority.trust_domain(), shown)?;
    let SignRequest { csr, lifetime_seconds } = request.into_inner();
    let signed =
        authority.sign(&csr, &id, Duration::from_secs(lifetime_seconds)).map_err(|error| match error {
            SignError::Request(why) => Status::invalid_argument(why),
            SignError::Authority(why) => {
                tracing::error!(why, "nothing can be signed");
                Status::internal("nothing can be signed")
            }
        })?;
    let not_after = rfc3339(signed.not_after);
    plane.note(Happened::Issued { spiffe_id: id.to_string(), serial: signed.serial, not_after });
    let bundle = Bundle { roots: authority.bundle() };
    let bundles = HashMap::from([(authority.trust_domain().to_string(), bundle)]);
    Ok(SignResponse { chain: vec![signed.certificate], bundles })
}

/// Who shows this token.
fn attested(plane: &Plane, domain: &TrustDomain, token: Option<&str>) -> Result<SpiffeId, Status> {
    let Some(token) = token else {
        return Err(Status::unauthenticated(
            "a join token is needed; `outrigger-control token join` makes one",
        ));
    };
    let join = plane.store().join(&token::hash(token)).map_err(|error| {
        tracing::error!(%error, "join tokens cannot be read");
        Status::unavailable("join tokens cannot be read")
    })?;
    let join = join.ok_or_else(|| Status::unauthenticated("this join token is not known here"))?;
    if join.expires <= seconds(SystemTime::now()) {
        return Err(Status::unauthenticated("this join token has expired"));
    }
    let id = SpiffeId::new(&join.spiffe_id).map_err(|error| Status::internal(error.to_string()))?;
    // It may have been made when another trust domain was ours.
    if id.trust_domain() != domain.as_str() {
        return Err(Status::permission_denied(format!("`{id}` is not of the trust domain `{domain}`")));
    }
    Ok(id)
}
