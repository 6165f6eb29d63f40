//! What is on trial, over HTTP.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Api, Author, Changed, Failed, Problem, auth, blocking};
use crate::plane::Promotion;
use crate::shadow::TrialStatus;

/// What is on trial is to come into force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Promote {
    /// What is meant: refused where another is on trial by then. Whatever is by default.
    #[serde(default)]
    pub revision: Option<u64>,
    /// Why; shown in the history.
    #[serde(default)]
    pub message: String,
    /// Even if it takes back what was changed since it was written.
    #[serde(default)]
    pub force: bool,
    /// Only says what would be different.
    #[serde(default)]
    pub dry_run: bool,
}

/// What is on trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(super) struct Shadow {
    /// Nothing where nothing is.
    pub on_trial: Option<TrialStatus>,
}

/// What is on trial, and what would change.
#[utoipa::path(get, path = "/v1/shadow", responses((status = 200, body = Shadow)))]
pub(super) async fn shadow(State(api): State<Api>, _: auth::Reader) -> Result<Json<Shadow>, Failed> {
    blocking(move || Ok(Json(Shadow { on_trial: api.plane.trial_status()? }))).await
}

/// Ends what is on trial; nothing else changes.
#[utoipa::path(delete, path = "/v1/shadow", responses((status = 204), (status = 401, body = Problem),
    (status = 404, description = "Nothing is on trial", body = Problem)))]
pub(super) async fn end(State(api): State<Api>, Author(author): Author) -> Result<StatusCode, Failed> {
    blocking(move || match api.plane.end_shadow(&author)? {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(Failed(StatusCode::NOT_FOUND, "nothing is on trial".to_owned())),
    })
    .await
}

/// Makes a revision of what is on trial, which comes into force as any other does, by a rollout where there is one.
#[utoipa::path(post, path = "/v1/shadow/promote", request_body = Promote, responses(
    (status = 200, body = Changed), (status = 401, body = Problem),
    (status = 409, description = "Nothing or another revision is on trial, or what it was written on is not in force any more",
        body = Problem)))]
pub(super) async fn promote(
    State(api): State<Api>,
    Author(author): Author,
    Json(Promote { revision, message, force, dry_run }): Json<Promote>,
) -> Result<Json<Changed>, Failed> {
    let promotion = Promotion { revision, author, message, force, dry_run };
    blocking(move || Ok(Json(api.plane.promote(&promotion)?.into()))).await
}
