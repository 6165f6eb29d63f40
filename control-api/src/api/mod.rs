//! What people and programs ask and change: REST, described by OpenAPI at `/v1/openapi.json`. The command line is one of its
//! clients.

mod auth;
mod events;
mod shadow;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{Method, StatusCode};
use outrigger_proto::model::{Reads, SpiffeId};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};

pub use self::auth::{Author, keep_token, new_token as make_token};
use crate::attest;
use crate::ca::Authority;
use crate::events::Happened;
use crate::nats::Standing;
use crate::nodes::NodeStatus;
use crate::plane::{Change, ChangeError, Outcome, Plane};
use crate::store::etcd::Etcd;
use crate::store::{Entry, Revision, StoreError};

/// Bytes of a request: documents for a large fleet.
const LARGEST: usize = 64 << 20;
/// Authors that are no people.
const RESERVED: [&str; 2] = ["directory", "rollout"];
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

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// All of it, line by line.
    pub error: String,
}

/// Whose token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Whose it is: the author of what is changed with it.
    pub name: String,
}

/// A new token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewToken {
    /// Whose it is.
    pub name: String,
    /// Itself; it is not shown again.
    pub token: String,
}

/// A token, without what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenEntry {
    /// Whose it is.
    pub name: String,
    /// Since when, RFC 3339.
    pub created: String,
}

/// Who is to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// Who whoever shows the token is.
    pub spiffe_id: String,
    /// How long it can be shown, in seconds.
    pub lifetime_seconds: u64,
    /// It is good for one certificate; later ones are asked for with that one.
    #[serde(default)]
    pub once: bool,
}

/// A new join token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewJoin {
    /// By which it is taken back.
    pub id: String,
    /// Who whoever shows it is.
    pub spiffe_id: String,
    /// Itself; it is not shown again.
    pub token: String,
}

/// A join token, without what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinEntry {
    /// By which it is taken back.
    pub id: String,
    /// Who whoever shows it is.
    pub spiffe_id: String,
    /// Since when, RFC 3339; nothing where that was not kept.
    pub created: Option<String>,
    /// Until when it can be shown, RFC 3339.
    pub expires: String,
    /// It is good for one certificate.
    pub once: bool,
    /// Until when the last certificate lives that goes back to it, RFC 3339; nothing before there is any.
    pub lives_until: Option<String>,
    /// When it was taken back, RFC 3339.
    pub revoked: Option<String>,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Outrigger control plane", description = "What proxies are told, and what became of it."),
    paths(
        apply,
        history,
        revision,
        difference,
        rollback,
        documents,
        status,
        tokens,
        new_token,
        drop_token,
        joins,
        new_join,
        drop_join,
        bundle,
        rotate,
        events::events,
        shadow::shadow,
        shadow::end,
        shadow::promote
    ),
    components(schemas(Problem, crate::events::Event))
)]
struct Description;

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
        .route("/v1/tokens", get(tokens).post(new_token))
        .route("/v1/tokens/{name}", axum::routing::delete(drop_token))
        .route("/v1/join-tokens", get(joins).post(new_join))
        .route("/v1/join-tokens/{id}", axum::routing::delete(drop_join))
        .route("/v1/ca/bundle", get(bundle))
        .route("/v1/ca/rotate", post(rotate))
        .route("/v1/openapi.json", get(|| async { Json(Description::openapi()) }))
        .route("/live", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .fallback(|| async {
            Failed(StatusCode::NOT_FOUND, "there is nothing here; see /v1/openapi.json".into())
        })
        .layer(from_fn(refuse_asides))
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(api)
}

/// How something is to be changed, its body says: what is said beside that is misplaced or misspelt, and without it the change
/// would be another.
async fn refuse_asides(request: Request, next: Next) -> Result<Response, Failed> {
    let query = request.uri().query().filter(|query| !query.is_empty());
    match query.filter(|_| !matches!(*request.method(), Method::GET | Method::HEAD)) {
        None => Ok(next.run(request).await),
        Some(query) => {
            let why =
                format!("`{query}` is not looked at here: the body says what is wanted; nothing is changed");
            Err(Failed(StatusCode::BAD_REQUEST, why))
        }
    }
}

/// Whether changes can be made: what is served is served all the same.
async fn ready(State(api): State<Api>) -> Result<&'static str, Failed> {
    match api.plane.store().shared().and_then(Etcd::away) {
        Some(why) => Err(StoreError::Away(why).into()),
        None => Ok("ok\n"),
    }
}

/// A status, and what is wrong.
#[derive(Debug)]
pub struct Failed(StatusCode, String);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(Problem { error: self.1 })).into_response()
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

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        let status = match error {
            StoreError::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
            StoreError::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
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
#[utoipa::path(post, path = "/v1/revisions", request_body = Apply, responses(
    (status = 200, body = Changed), (status = 401, body = Problem), (status = 409, body = Problem),
    (status = 422, description = "Something is wrong; nothing is changed", body = Problem)))]
async fn apply(
    State(api): State<Api>,
    Author(author): Author,
    Json(Apply { documents, message, dry_run, shadow }): Json<Apply>,
) -> Result<Json<Changed>, Failed> {
    let change = Change { author, message, documents, shadow, dry_run };
    blocking(move || Ok(Json(api.plane.change(change)?.into()))).await
}

/// Brings an earlier revision back, as a new one.
#[utoipa::path(post, path = "/v1/rollback", request_body = Rollback, responses(
    (status = 200, body = Changed), (status = 401, body = Problem), (status = 409, body = Problem)))]
async fn rollback(
    State(api): State<Api>,
    Author(author): Author,
    Json(Rollback { to, message, dry_run }): Json<Rollback>,
) -> Result<Json<Changed>, Failed> {
    blocking(move || Ok(Json(api.plane.rollback(to, &(author, message), dry_run)?.into()))).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Most {
    most: Option<usize>,
}

/// What was accepted, or put on trial, the last first.
#[utoipa::path(get, path = "/v1/revisions", params(("most" = Option<usize>, Query, description = "So many; 100 by default")),
    responses((status = 200, body = Vec<Entry>)))]
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
#[utoipa::path(get, path = "/v1/revisions/{number}", responses((status = 200, body = Revision), (status = 404, body = Problem)))]
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
#[utoipa::path(get, path = "/v1/revisions/{number}/diff",
    params(("from" = Option<u64>, Query, description = "What was in force when it was written by default")),
    responses((status = 200, body = String), (status = 404, body = Problem)))]
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
#[utoipa::path(get, path = "/v1/documents", responses((status = 200, body = BTreeMap<String, String>)))]
async fn documents(
    State(api): State<Api>,
    _: auth::Reader,
) -> Result<Json<BTreeMap<String, String>>, Failed> {
    blocking(move || Ok(Json(api.plane.store().latest()?.map_or_else(BTreeMap::new, |it| it.documents))))
        .await
}

/// Who is connected, what each has taken, and what it refused.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status)))]
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

/// Whose tokens there are.
#[utoipa::path(get, path = "/v1/tokens", responses((status = 200, body = Vec<TokenEntry>)))]
async fn tokens(State(api): State<Api>, _: Author) -> Result<Json<Vec<TokenEntry>>, Failed> {
    blocking(move || {
        let tokens = api.plane.store().tokens()?.into_values();
        Ok(Json(tokens.map(|token| TokenEntry { name: token.name, created: token.created }).collect()))
    })
    .await
}

/// Makes a token.
#[utoipa::path(post, path = "/v1/tokens", request_body = TokenRequest, responses((status = 200, body = NewToken)))]
async fn new_token(
    State(api): State<Api>,
    _: Author,
    Json(TokenRequest { name }): Json<TokenRequest>,
) -> Result<Json<NewToken>, Failed> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || !name.chars().all(fits) || RESERVED.contains(&name.as_str()) {
        let why = format!(
            "`{name}` is no name of a token; expected letters, digits, `.`, `_` and `-`, and none of ours"
        );
        return Err(Failed(StatusCode::UNPROCESSABLE_ENTITY, why));
    }
    blocking(move || {
        let token = make_token();
        keep_token(api.plane.store(), &name, &token)?;
        Ok(Json(NewToken { name, token }))
    })
    .await
}

/// Forgets the tokens of a name.
#[utoipa::path(delete, path = "/v1/tokens/{name}", responses((status = 204), (status = 404, body = Problem)))]
async fn drop_token(
    State(api): State<Api>,
    _: Author,
    Path(name): Path<String>,
) -> Result<StatusCode, Failed> {
    blocking(move || {
        if api.plane.store().drop_tokens(&name)? {
            return Ok(StatusCode::NO_CONTENT);
        }
        Err(Failed(StatusCode::NOT_FOUND, format!("there is no token of `{name}`")))
    })
    .await
}

fn authority(api: &Api) -> Result<&Authority, Failed> {
    let missing =
        || Failed(StatusCode::NOT_FOUND, "no identities are given here: `ca` is not written".to_owned());
    api.plane.authority.as_ref().ok_or_else(missing)
}

/// Makes a token by which a node says who it is.
#[utoipa::path(post, path = "/v1/join-tokens", request_body = JoinRequest, responses(
    (status = 200, body = NewJoin), (status = 404, body = Problem), (status = 422, body = Problem)))]
async fn new_join(
    State(api): State<Api>,
    Author(author): Author,
    Json(JoinRequest { spiffe_id, lifetime_seconds, once }): Json<JoinRequest>,
) -> Result<Json<NewJoin>, Failed> {
    let wrong = |why: String| Failed(StatusCode::UNPROCESSABLE_ENTITY, why);
    let id = SpiffeId::new(&spiffe_id).map_err(|error| wrong(format!("`{spiffe_id}`: {error}")))?;
    let domain = authority(&api)?.trust_domain().as_str();
    if id.trust_domain() != domain {
        return Err(wrong(format!("`{spiffe_id}` is not of the trust domain `{domain}`, which is ours")));
    }
    if lifetime_seconds == 0 {
        return Err(wrong("a token that lives for 0 seconds could never be shown".to_owned()));
    }
    blocking(move || {
        let lifetime = Duration::from_secs(lifetime_seconds);
        let (id, token) = attest::create(&api.plane, (&id, author), lifetime, once)?;
        Ok(Json(NewJoin { id, spiffe_id, token }))
    })
    .await
}

/// Which join tokens there are: those that can still be shown, and those of which certificates live.
#[utoipa::path(get, path = "/v1/join-tokens", responses((status = 200, body = Vec<JoinEntry>)))]
async fn joins(State(api): State<Api>, _: Author) -> Result<Json<Vec<JoinEntry>>, Failed> {
    blocking(move || {
        let joins = api.plane.store().joins()?.into_iter();
        let mut joins: Vec<_> = joins.map(|(hash, join)| attest::describe(&hash, join)).collect();
        joins.sort_by(|a, b| (&a.spiffe_id, &a.created, &a.id).cmp(&(&b.spiffe_id, &b.created, &b.id)));
        Ok(Json(joins))
    })
    .await
}

/// Takes a join token back: neither it nor a certificate that goes back to it leads to another one.
#[utoipa::path(delete, path = "/v1/join-tokens/{id}", responses((status = 204), (status = 404, body = Problem)))]
async fn drop_join(
    State(api): State<Api>,
    Author(author): Author,
    Path(id): Path<String>,
) -> Result<StatusCode, Failed> {
    blocking(move || {
        if attest::take_back(&api.plane, &id, author)? {
            return Ok(StatusCode::NO_CONTENT);
        }
        Err(Failed(StatusCode::NOT_FOUND, format!("there is no join token `{id}` to be taken back")))
    })
    .await
}

/// The roots to be believed, as PEM. They are no secret.
#[utoipa::path(get, path = "/v1/ca/bundle", responses((status = 200, body = String), (status = 404, body = Problem)))]
async fn bundle(State(api): State<Api>) -> Result<String, Failed> {
    Ok(authority(&api)?.bundle_pem())
}

/// Makes a new root, which is told to everybody from now on, and signs once they know it.
#[utoipa::path(post, path = "/v1/ca/rotate", responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn rotate(State(api): State<Api>, _: Author) -> Result<StatusCode, Failed> {
    blocking(move || {
        let authority = authority(&api)?;
        authority.rotate().map_err(|why| Failed(StatusCode::CONFLICT, why))?;
        let (trust_domain, roots) = (authority.trust_domain().to_string(), authority.bundle().len());
        api.plane.note(Happened::Rotated { trust_domain, roots });
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}
