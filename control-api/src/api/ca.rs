//! The authority that nodes get their identities from.

use axum::extract::State;
use http::StatusCode;

use super::{Api, Author, Failed, Problem, blocking};
use crate::ca::Authority;
use crate::events::Happened;

pub(super) fn authority(api: &Api) -> Result<&Authority, Failed> {
    let missing =
        || Failed(StatusCode::NOT_FOUND, "no identities are given here: `ca` is not written".to_owned());
    api.plane.authority.as_ref().ok_or_else(missing)
}

/// The roots to be believed, as PEM. They are no secret.
#[utoipa::path(get, path = "/v1/ca/bundle", responses((status = 200, body = String), (status = 404, body = Problem)))]
pub(super) async fn bundle(State(api): State<Api>) -> Result<String, Failed> {
    Ok(authority(&api)?.bundle_pem())
}

/// Makes a new root, which is told to everybody from now on, and signs once they know it.
#[utoipa::path(post, path = "/v1/ca/rotate", responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn rotate(State(api): State<Api>, _: Author) -> Result<StatusCode, Failed> {
    blocking(move || {
        let authority = authority(&api)?;
        authority.rotate().map_err(|why| Failed(StatusCode::CONFLICT, why))?;
        let (trust_domain, roots) = (authority.trust_domain().to_string(), authority.bundle().len());
        api.plane.note(Happened::Rotated { trust_domain, roots });
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}
