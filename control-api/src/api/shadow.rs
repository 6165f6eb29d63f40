//! What is on trial, over HTTP.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answers::{Ended, Misfit, Misread, Refused};
use super::asked::{Aside, Body, Would};
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
#[utoipa::path(get, path = "/v1/shadow", security((), ("token" = [])), responses(
    (status = 200, description = "That, or that nothing is", body = Shadow), Refused))]
pub(super) async fn shadow(State(api): State<Api>, _: auth::Reader) -> Result<Json<Shadow>, Failed> {
    blocking(move || Ok(Json(Shadow { on_trial: api.plane.trial_status()? }))).await
}

/// Ends what is on trial; nothing else changes.
#[utoipa::path(delete, path = "/v1/shadow", operation_id = "end_shadow", params(Aside), security(("token" = [])), responses(
    (status = 200, description = "A dry run: what would end", body = Would),
    (status = 204, description = "It has ended"),
    (status = 404, description = "Nothing is on trial", body = Problem),
    Misread, Refused))]
pub(super) async fn end(
    State(api): State<Api>,
    Author(author): Author,
    Aside { dry_run }: Aside,
) -> Result<Ended, Failed> {
    blocking(move || match api.plane.end_shadow(&author, dry_run)? {
        Some(revision) if dry_run => Ok(Ended::Would(format!("end the trial of revision {revision}"))),
        Some(_) => Ok(Ended::Done),
        None => Err(Failed(StatusCode::NOT_FOUND, "nothing is on trial".to_owned())),
    })
    .await
}

/// Makes a revision of what is on trial, which comes into force as any other does, by a rollout where there is one.
#[utoipa::path(post, path = "/v1/shadow/promote", operation_id = "promote_shadow", params(Aside), request_body = Promote,
    security(("token" = [])), responses(
    (status = 200, description = "It is accepted; or, in a dry run, would be", body = Changed),
    (status = 409, description = "Nothing or another revision is on trial, or what it was written on is not in force any more",
        body = Problem),
    Refused, Misfit))]
pub(super) async fn promote(
    State(api): State<Api>,
    Author(author): Author,
    aside: Aside,
    Body(Promote { revision, message, force, dry_run }): Body<Promote>,
) -> Result<Json<Changed>, Failed> {
    let dry_run = aside.dry_run || dry_run;
    let promotion = Promotion { revision, author, message, force, dry_run };
    blocking(move || Ok(Json(api.plane.promote(&promotion)?.into()))).await
}
