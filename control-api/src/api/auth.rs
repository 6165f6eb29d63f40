//! Who may look, and who may change: bearer tokens, of which only hashes are kept.

use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{StatusCode, header};
use outrigger_proto::model::Reads;

use super::{Api, Failed};
use crate::events::rfc3339;
use crate::store::{Store, StoreError, Token};

/// Bytes at random.
const LENGTH: usize = 24;
/// By which a token is known for one, where it has got lost.
const PREFIX: &str = "outrigger_";

/// Whoever asks has a token, of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author(pub String);

/// Whoever asks may look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader;

/// Makes a token of this name, and keeps its hash.
///
/// # Errors
/// The store cannot be written.
pub fn create_token(store: &Store, name: &str) -> Result<String, StoreError> {
    let mut bytes = [0; LENGTH];
    rand::fill(&mut bytes).expect("the system has randomness");
    let token = format!("{PREFIX}{}", hex(&bytes));
    store.put_token(&hash(&token), &Token { name: name.to_owned(), created: rfc3339(SystemTime::now()) })?;
    Ok(token)
}

/// What is kept of a token. It is long and random: looking it up by its hash tells nobody anything.
fn hash(token: &str) -> String {
    hex(digest(&SHA256, token.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl FromRequestParts<Api> for Author {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Failed> {
        let refused = |why: &str| Failed(StatusCode::UNAUTHORIZED, why.to_owned());
        let said = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(token) = said.and_then(|said| said.strip_prefix("Bearer ")) else {
            return Err(refused("a token is needed: send `authorization: Bearer TOKEN`"));
        };
        let (hash, plane) = (hash(token.trim()), api.plane.clone());
        let known = super::blocking(move || Ok(plane.store().tokens()?.remove(&hash))).await?;
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
