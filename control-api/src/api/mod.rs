//! What people and programs ask and change: REST, described by OpenAPI at `/v1/openapi.json`. The command line is one of its
//! clients.

mod answers;
mod asked;
mod auth;
mod ca;
mod described;
mod events;
mod joins;
mod shadow;
mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{Method, StatusCode};
use outrigger_proto::model::Reads;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::answers::{Failed, Problem};
use self::answers::{Misfit, Misread, Refused};
pub use self::asked::Would;
use self::asked::{Aside, Body, Path, Query};
pub use self::auth::{Author, keep_token, new_token as make_token};
pub use self::joins::{JoinEntry, JoinRequest, NewJoin};
pub use self::tokens::{NewToken, TokenEntry, TokenRequest};
use crate::nats::Standing;
use crate::nodes::NodeStatus;
use crate::plane::{Change, ChangeError, Outcome, Plane};
use crate::store::etcd::Etcd;
use crate::store::{Entry, Revision, StoreError};

/// Bytes of a request: documents for a large fleet.
const LARGEST: usize = 64 << 20;
/// Revisions shown at once.
const MOST: usize = 1000;

/// What the handlers share.
#[derive(Clone, Debug)]
pub struct Api {
    plane: Arc<Plane>,
    reads: Reads,
}

/// What is different, and what is to be said of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// The revision in force; with `shadow` the one on trial.
    pub revision: u64,
    /// What is different, as a unified diff; empty where nothing is.
    pub diff: String,
    /// What is allowed but can hardly be meant.
    pub warnings: Vec<String>,
}

/// Documents to be put or taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// Documents by name; `null` takes one away. Others stay as they are.
    pub documents: BTreeMap<String, Option<String>>,
    /// Why; shown in the history.
    #[serde(default)]
    pub message: String,
    /// Only says what would be different.
    #[serde(default)]
    pub dry_run: bool,
    /// It is put on trial, in place of any other: proxies say what would change, and nothing does.
    #[serde(default)]
    pub shadow: bool,
}

/// What is to be as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The revision that is brought back.
    pub to: u64,
    /// Why; shown in the history.
    #[serde(default)]
    pub message: String,
    /// Only says what would be different.
    #[serde(default)]
    pub dry_run: bool,
}

/// What is served, and to whom.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Status {
    /// The revision that is told to all; 0 before there is any.
    pub revision: u64,
    /// The one that is told to some so far, if there is one.
    pub candidate: Option<u64>,
    /// The one that is on trial, if there is one.
    pub shadow: Option<u64>,
    /// How publishing events goes; nothing where this control plane does not publish them.
    pub publishing: Option<Publishing>,
    /// Who is connected, to this control plane or to another of the same store.
    pub nodes: Vec<NodeStatus>,
}

/// How publishing events goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Publishing {
    /// To which server of NATS.
    pub server: String,
    /// Into which stream.
    pub stream: String,
    /// Whether it takes them now.
    pub connected: bool,
    /// The last event that it has acknowledged; 0 before any.
    pub published: u64,
    /// So many events that happened since are not acknowledged yet.
    pub behind: u64,
    /// Why it takes none.
    pub why: Option<String>,
}

/// The whole of it.
pub fn router(plane: Arc<Plane>, reads: Reads) -> Router {
    let api = Api { plane, reads };
    Router::new()
        .route("/v1/revisions", get(history).post(apply))
        .route("/v1/revisions/{number}", get(revision))
        .route("/v1/revisions/{number}/diff", get(difference))
        .route("/v1/rollback", post(rollback))
        .route("/v1/documents", get(documents))
        .route("/v1/status", get(status))
        .route("/v1/shadow", get(shadow::shadow).delete(shadow::end))
        .route("/v1/shadow/promote", post(shadow::promote))
        .route("/v1/events", get(events::events))
        .route("/v1/events/schema", get(events::event_schema))
        .route("/v1/tokens", get(tokens::tokens).post(tokens::new_token))
        .route("/v1/tokens/{name}", axum::routing::delete(tokens::drop_token))
        .route("/v1/join-tokens", get(joins::joins).post(joins::new_join))
        .route("/v1/join-tokens/{id}", axum::routing::delete(joins::drop_join))
        .route("/v1/ca/bundle", get(ca::bundle))
        .route("/v1/ca/rotate", post(ca::rotate))
        .route("/v1/openapi.json", get(described::openapi))
        .route("/live", get(live))
        .route("/ready", get(ready))
        .fallback(|| async {
            Failed(StatusCode::NOT_FOUND, "there is nothing here; see /v1/openapi.json".into())
        })
        .method_not_allowed_fallback(|| async {
            Failed(StatusCode::METHOD_NOT_ALLOWED, "this is not asked so; see /v1/openapi.json".into())
        })
        .layer(from_fn(refuse_asides))
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(api)
}

/// What a change is asked with is looked at by whoever makes it; here nobody can forget to.
async fn refuse_asides(request: Request, next: Next) -> Result<Response, Failed> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        Aside::of(request.uri())?;
    }
    Ok(next.run(request).await)
}

/// That it runs.
#[utoipa::path(get, path = "/live", tag = "status", responses((status = 200, description = "It does", body = String)))]
async fn live() -> &'static str {
    "ok\n"
}

/// Whether changes can be made: what is served is served all the same.
#[utoipa::path(get, path = "/ready", tag = "status", responses(
    (status = 200, description = "They can", body = String),
    (status = 503, description = "The store is away, and why", body = Problem)))]
async fn ready(State(api): State<Api>) -> Result<&'static str, Failed> {
    match api.plane.store().shared().and_then(Etcd::away) {
        Some(why) => Err(StoreError::Away(why).into()),
        None => Ok("ok\n"),
    }
}

impl From<ChangeError> for Failed {
    fn from(error: ChangeError) -> Self {
        let status = match error {
            ChangeError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ChangeError::Refused(_) => StatusCode::CONFLICT,
            ChangeError::Store(error) => return error.into(),
        };
        Self(status, error.to_string())
    }
}

impl From<Outcome> for Changed {
    fn from(Outcome { revision, diff, warnings }: Outcome) -> Self {
        Self { revision, diff, warnings }
    }
}

/// Runs what may wait for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failed> + Send + 'static,
) -> Result<T, Failed> {
    let gone = |_| Failed(StatusCode::INTERNAL_SERVER_ERROR, "the work was given up".into());
    tokio::task::spawn_blocking(work).await.map_err(gone)?
}

/// Checks documents, and makes a revision of them and those that stay.
#[utoipa::path(post, path = "/v1/revisions", tag = "revisions", params(Aside), request_body = Apply, security(("token" = [])), responses(
    (status = 200, description = "They are accepted; or, in a dry run, would be", body = Changed),
    (status = 409, description = "They are not the author's to change, or there is no such document", body = Problem),
    Refused, Misfit))]
async fn apply(
    State(api): State<Api>,
    Author(author): Author,
    aside: Aside,
    Body(Apply { documents, message, dry_run, shadow }): Body<Apply>,
) -> Result<Json<Changed>, Failed> {
    let dry_run = aside.dry_run || dry_run;
    let change = Change { author, message, documents, shadow, dry_run };
    blocking(move || Ok(Json(api.plane.change(change)?.into()))).await
}

/// Brings an earlier revision back, as a new one.
#[utoipa::path(post, path = "/v1/rollback", tag = "revisions", params(Aside), request_body = Rollback, security(("token" = [])), responses(
    (status = 200, description = "It is accepted; or, in a dry run, would be", body = Changed),
    (status = 409, description = "There is no such revision, or it never was in force", body = Problem),
    Refused, Misfit))]
async fn rollback(
    State(api): State<Api>,
    Author(author): Author,
    aside: Aside,
    Body(Rollback { to, message, dry_run }): Body<Rollback>,
) -> Result<Json<Changed>, Failed> {
    let dry_run = aside.dry_run || dry_run;
    blocking(move || Ok(Json(api.plane.rollback(to, &(author, message), dry_run)?.into()))).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Most {
    most: Option<usize>,
}

/// What was accepted, or put on trial, the last first.
#[utoipa::path(get, path = "/v1/revisions", tag = "revisions", security((), ("token" = [])),
    params(("most" = Option<usize>, Query, description = "So many; 100 by default, 1000 at the most")),
    responses((status = 200, description = "Those, without what they say", body = Vec<Entry>), Misread, Refused))]
async fn history(
    State(api): State<Api>,
    _: auth::Reader,
    Query(Most { most }): Query<Most>,
) -> Result<Json<Vec<Entry>>, Failed> {
    blocking(move || Ok(Json(api.plane.store().history(most.unwrap_or(100).min(MOST))?))).await
}

fn found(api: &Api, number: u64) -> Result<Revision, Failed> {
    let missing = || Failed(StatusCode::NOT_FOUND, format!("there is no revision {number}"));
    api.plane.store().revision(number)?.ok_or_else(missing)
}

/// A revision, whole.
#[utoipa::path(get, path = "/v1/revisions/{number}", tag = "revisions", security((), ("token" = [])),
    params(("number" = u64, Path, description = "Its number")),
    responses(
        (status = 200, description = "All that it says", body = Revision),
        (status = 404, description = "There is no such revision", body = Problem),
        Misread, Refused))]
async fn revision(
    State(api): State<Api>,
    _: auth::Reader,
    Path(number): Path<u64>,
) -> Result<Json<Revision>, Failed> {
    blocking(move || found(&api, number).map(Json)).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Against {
    from: Option<u64>,
}

/// What a revision changed, or in what it differs from another.
#[utoipa::path(get, path = "/v1/revisions/{number}/diff", tag = "revisions", security((), ("token" = [])),
    params(
        ("number" = u64, Path, description = "Its number"),
        ("from" = Option<u64>, Query, description = "The other; what was in force when it was written by default, 0 for nothing")),
    responses(
        (status = 200, description = "A unified diff; empty where nothing is different", body = String),
        (status = 404, description = "There is no such revision", body = Problem),
        Misread, Refused))]
async fn difference(
    State(api): State<Api>,
    _: auth::Reader,
    Path(number): Path<u64>,
    Query(Against { from }): Query<Against>,
) -> Result<String, Failed> {
    blocking(move || {
        let after = found(&api, number)?;
        let before = match from.unwrap_or(after.before()) {
            0 => BTreeMap::new(),
            from => found(&api, from)?.documents,
        };
        Ok(crate::documents::diff(&before, &after.documents))
    })
    .await
}

/// The documents in force.
#[utoipa::path(get, path = "/v1/documents", tag = "revisions", security((), ("token" = [])), responses(
    (status = 200, description = "What they say, by name", body = BTreeMap<String, String>), Refused))]
async fn documents(
    State(api): State<Api>,
    _: auth::Reader,
) -> Result<Json<BTreeMap<String, String>>, Failed> {
    blocking(move || Ok(Json(api.plane.store().latest()?.map_or_else(BTreeMap::new, |it| it.documents))))
        .await
}

/// Who is connected, what each has taken, and what it refused.
#[utoipa::path(get, path = "/v1/status", tag = "status", security((), ("token" = [])), responses(
    (status = 200, description = "All of that", body = Status), Refused))]
async fn status(State(api): State<Api>, _: auth::Reader) -> Json<Status> {
    let published = api.plane.published().borrow().clone();
    let revision = published.stable.revision;
    let candidate = published.candidate.map(|candidate| candidate.serving.revision);
    let shadow = api.plane.trial().borrow().as_ref().map(|trial| trial.entry.number);
    let nodes = api.plane.everybody();
    Json(Status { revision, candidate, shadow, publishing: publishing(&api.plane), nodes })
}

fn publishing(plane: &Plane) -> Option<Publishing> {
    let Standing { server, stream, connected, published, why } = plane.publishing.borrow().clone()?;
    let behind = plane.last_event().borrow().saturating_sub(published);
    Some(Publishing { server, stream, connected, published, behind, why })
}
