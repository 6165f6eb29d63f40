//! Tokens by which nodes say who they are.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use outrigger_proto::model::SpiffeId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answers::{Ended, Made, Misfit, Misread, Refused};
use super::asked::{Aside, Body, Path, Would};
use super::ca::authority;
use super::{Api, Author, Failed, Problem, blocking};
use crate::attest;
use crate::events::rfc3339;

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
    /// Only says what would be made.
    #[serde(default)]
    pub dry_run: bool,
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

/// Makes a token by which a node says who it is.
#[utoipa::path(post, path = "/v1/join-tokens", params(Aside), request_body = JoinRequest, security(("token" = [])),
    responses(
        (status = 200, description = "It is made; or, in a dry run, what would be", body = inline(Made<NewJoin>)),
        (status = 404, description = "No identities are given here", body = Problem),
        Refused, Misfit))]
pub(super) async fn new_join(
    State(api): State<Api>,
    Author(author): Author,
    aside: Aside,
    Body(JoinRequest { spiffe_id, lifetime_seconds, once, dry_run }): Body<JoinRequest>,
) -> Result<Json<Made<NewJoin>>, Failed> {
    let wrong = |why: String| Failed(StatusCode::UNPROCESSABLE_ENTITY, why);
    let id = SpiffeId::new(&spiffe_id).map_err(|error| wrong(format!("`{spiffe_id}`: {error}")))?;
    let domain = authority(&api)?.trust_domain().as_str();
    if id.trust_domain() != domain {
        return Err(wrong(format!("`{spiffe_id}` is not of the trust domain `{domain}`, which is ours")));
    }
    if lifetime_seconds == 0 {
        return Err(wrong("a token that lives for 0 seconds could never be shown".to_owned()));
    }
    let lifetime = Duration::from_secs(lifetime_seconds);
    if aside.dry_run || dry_run {
        let often = if once { ", once" } else { "" };
        let until = SystemTime::now().checked_add(lifetime).map(rfc3339).unwrap_or_default();
        let would =
            format!("make a token by which a node is `{spiffe_id}`, to be shown until {until}{often}");
        return Ok(Json(Made::Would(Would { would })));
    }
    blocking(move || {
        let (id, token) = attest::create(&api.plane, (&id, author), lifetime, once)?;
        Ok(Json(Made::Made(NewJoin { id, spiffe_id, token })))
    })
    .await
}

/// Which join tokens there are: those that can still be shown, and those of which certificates live.
#[utoipa::path(get, path = "/v1/join-tokens", security(("token" = [])),
    responses((status = 200, description = "All of them", body = Vec<JoinEntry>), Refused))]
pub(super) async fn joins(State(api): State<Api>, _: Author) -> Result<Json<Vec<JoinEntry>>, Failed> {
    blocking(move || {
        let joins = api.plane.store().joins()?.into_iter();
        let mut joins: Vec<_> = joins.map(|(hash, join)| attest::describe(&hash, join)).collect();
        joins.sort_by(|a, b| (&a.spiffe_id, &a.created, &a.id).cmp(&(&b.spiffe_id, &b.created, &b.id)));
        Ok(Json(joins))
    })
    .await
}

/// Takes a join token back: neither it nor a certificate that goes back to it leads to another one.
#[utoipa::path(delete, path = "/v1/join-tokens/{id}", security(("token" = [])),
    params(("id" = String, Path, description = "Its id, as the list shows it"), Aside),
    responses(
        (status = 200, description = "A dry run: what would be taken back", body = Would),
        (status = 204, description = "It is taken back"),
        (status = 404, description = "There is none of this id that was not taken back before", body = Problem),
        Misread, Refused))]
pub(super) async fn drop_join(
    State(api): State<Api>,
    Author(author): Author,
    aside: Aside,
    Path(id): Path<String>,
) -> Result<Ended, Failed> {
    blocking(move || {
        let ended = if aside.dry_run {
            let whose = attest::holder(&api.plane, &id)?;
            whose.map(|whose| {
                Ended::Would(format!("take back the token of `{whose}`, and all that goes back to it"))
            })
        } else {
            attest::take_back(&api.plane, &id, author)?.then_some(Ended::Done)
        };
        let missing =
            || Failed(StatusCode::NOT_FOUND, format!("there is no join token `{id}` to be taken back"));
        ended.ok_or_else(missing)
    })
    .await
}
