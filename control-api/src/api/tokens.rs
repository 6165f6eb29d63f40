//! Who may change something: tokens of people and programs.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answers::{Ended, Made, Misfit, Misread, Refused};
use super::asked::{Aside, Body, Path, Would};
use super::auth::{keep_token, new_token as make_token};
use super::{Api, Author, Failed, Problem, blocking};
use crate::store::{Store, StoreError};

/// Authors that are no people.
const RESERVED: [&str; 2] = ["directory", "rollout"];

/// Whose token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Whose it is: the author of what is changed with it.
    pub name: String,
    /// Only says what would be made.
    #[serde(default)]
    pub dry_run: bool,
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

/// Whose tokens there are.
#[utoipa::path(get, path = "/v1/tokens", security(("token" = [])),
    responses((status = 200, description = "All of them", body = Vec<TokenEntry>), Refused))]
pub(super) async fn tokens(State(api): State<Api>, _: Author) -> Result<Json<Vec<TokenEntry>>, Failed> {
    blocking(move || {
        let tokens = api.plane.store().tokens()?.into_values();
        Ok(Json(tokens.map(|token| TokenEntry { name: token.name, created: token.created }).collect()))
    })
    .await
}

/// Makes a token.
#[utoipa::path(post, path = "/v1/tokens", params(Aside), request_body = TokenRequest, security(("token" = [])),
    responses((status = 200, description = "It is made; or, in a dry run, what would be", body = inline(Made<NewToken>)), Refused, Misfit))]
pub(super) async fn new_token(
    State(api): State<Api>,
    _: Author,
    aside: Aside,
    Body(TokenRequest { name, dry_run }): Body<TokenRequest>,
) -> Result<Json<Made<NewToken>>, Failed> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || !name.chars().all(fits) || RESERVED.contains(&name.as_str()) {
        let why = format!(
            "`{name}` is no name of a token; expected letters, digits, `.`, `_` and `-`, and none of ours"
        );
        return Err(Failed(StatusCode::UNPROCESSABLE_ENTITY, why));
    }
    blocking(move || {
        let store = api.plane.store();
        if aside.dry_run || dry_run {
            let beside = match tokens_of(store, &name)? {
                0 => String::new(),
                others => format!(", beside {others} that stay good"),
            };
            return Ok(Json(Made::Would(Would { would: format!("make a token of `{name}`{beside}") })));
        }
        let token = make_token();
        keep_token(store, &name, &token)?;
        Ok(Json(Made::Made(NewToken { name, token })))
    })
    .await
}

/// Forgets the tokens of a name.
#[utoipa::path(delete, path = "/v1/tokens/{name}", security(("token" = [])),
    params(("name" = String, Path, description = "Whose they are"), Aside),
    responses(
        (status = 200, description = "A dry run: what would be forgotten", body = Would),
        (status = 204, description = "They are forgotten"),
        (status = 404, description = "There is none of this name", body = Problem),
        Misread, Refused))]
pub(super) async fn drop_token(
    State(api): State<Api>,
    _: Author,
    aside: Aside,
    Path(name): Path<String>,
) -> Result<Ended, Failed> {
    blocking(move || {
        let store = api.plane.store();
        let missing = Failed(StatusCode::NOT_FOUND, format!("there is no token of `{name}`"));
        if aside.dry_run {
            return match tokens_of(store, &name)? {
                0 => Err(missing),
                1 => Ok(Ended::Would(format!("forget the token of `{name}`"))),
                more => Ok(Ended::Would(format!("forget {more} tokens of `{name}`"))),
            };
        }
        if store.drop_tokens(&name)? { Ok(Ended::Done) } else { Err(missing) }
    })
    .await
}

fn tokens_of(store: &dyn Store, name: &str) -> Result<usize, StoreError> {
    Ok(store.tokens()?.values().filter(|token| token.name == name).count())
}
