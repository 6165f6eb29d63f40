//! Who may look, and who may change: bearer tokens, of which only hashes are kept.

use std::time::SystemTime;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{StatusCode, header};
use outrigger_proto::model::Reads;

use super::{Api, Failed};
use crate::events::rfc3339;
use crate::store::{Store, StoreError, Token};
use crate::token;

/// Whoever asks has a token, of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author(pub String);

/// Whoever asks may look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader;

/// Makes a token, which nobody knows yet.
pub fn new_token() -> String {
    token::make()
}

/// Keeps the hash of a token of this name.
///
/// # Errors
/// The store cannot be written.
pub fn keep_token(store: &dyn Store, name: &str, token: &str) -> Result<(), StoreError> {
    store
        .put_token(&token::hash(token), &Token { name: name.to_owned(), created: rfc3339(SystemTime::now()) })
}

impl FromRequestParts<Api> for Author {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Failed> {
        let refused = |why: &str| Failed(StatusCode::UNAUTHORIZED, why.to_owned());
        let said = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(token) = said.and_then(|said| said.strip_prefix("Bearer ")) else {
            return Err(refused("a token is needed: send `authorization: Bearer TOKEN`"));
        };
        let (hash, plane) = (token::hash(token.trim()), api.plane.clone());
        let known = super::blocking(move || Ok(plane.store().token(&hash)?)).await?;
        known.map(|token| Self(token.name)).ok_or_else(|| refused("this token is not known here"))
    }
}

impl FromRequestParts<Api> for Reader {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Failed> {
        match api.reads {
            Reads::Open => Ok(Self),
            Reads::Token => Author::from_request_parts(parts, api).await.map(|_| Self),
        }
    }
}
