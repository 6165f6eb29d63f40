//! The authority that nodes get their identities from.

use axum::extract::State;
use http::StatusCode;

use super::answers::{Ended, Misread, Refused};
use super::asked::{Aside, Would};
use super::{Api, Author, Failed, Problem, blocking};
use crate::ca::Authority;
use crate::events::Happened;

pub(super) fn authority(api: &Api) -> Result<&Authority, Failed> {
    let missing =
        || Failed(StatusCode::NOT_FOUND, "no identities are given here: `ca` is not written".to_owned());
    api.plane.authority.as_ref().ok_or_else(missing)
}

/// The roots to be believed, as PEM. They are no secret.
#[utoipa::path(get, path = "/v1/ca/bundle", responses(
    (status = 200, description = "All of them, one after the other", body = String),
    (status = 404, description = "No identities are given here", body = Problem)))]
pub(super) async fn bundle(State(api): State<Api>) -> Result<String, Failed> {
    Ok(authority(&api)?.bundle_pem())
}

/// Makes a new root, which is told to everybody from now on, and signs once they know it.
#[utoipa::path(post, path = "/v1/ca/rotate", params(Aside), security(("token" = [])), responses(
    (status = 200, description = "A dry run: what would be made", body = Would),
    (status = 204, description = "It is made"),
    (status = 404, description = "No identities are given here", body = Problem),
    (status = 409, description = "The root is a file of the operator's, or cannot be written", body = Problem),
    Misread, Refused))]
pub(super) async fn rotate(State(api): State<Api>, _: Author, aside: Aside) -> Result<Ended, Failed> {
    blocking(move || {
        let authority = authority(&api)?;
        let refused = |why| Failed(StatusCode::CONFLICT, why);
        let trust_domain = authority.trust_domain().to_string();
        if aside.dry_run {
            let (_, number) = authority.next().map_err(refused)?;
            let believed = authority.bundle().len();
            let would = format!(
                "make root {number} of `{trust_domain}`, to be believed beside the {believed} that there are"
            );
            return Ok(Ended::Would(would));
        }
        authority.rotate().map_err(refused)?;
        api.plane.note(Happened::Rotated { trust_domain, roots: authority.bundle().len() });
        Ok(Ended::Done)
    })
    .await
}
