//! Who may change something: tokens of people and programs.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{keep_token, new_token as make_token};
use super::{Api, Author, Failed, Problem, blocking};

/// Authors that are no people.
const RESERVED: [&str; 2] = ["directory", "rollout"];

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

/// Whose tokens there are.
#[utoipa::path(get, path = "/v1/tokens", responses((status = 200, body = Vec<TokenEntry>)))]
pub(super) async fn tokens(State(api): State<Api>, _: Author) -> Result<Json<Vec<TokenEntry>>, Failed> {
    blocking(move || {
        let tokens = api.plane.store().tokens()?.into_values();
        Ok(Json(tokens.map(|token| TokenEntry { name: token.name, created: token.created }).collect()))
    })
    .await
}

/// Makes a token.
#[utoipa::path(post, path = "/v1/tokens", request_body = TokenRequest, responses((status = 200, body = NewToken)))]
pub(super) async fn new_token(
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
pub(super) async fn drop_token(
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
