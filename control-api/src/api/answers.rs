//! What is answered, and how it is described.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::openapi::{Content, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use super::asked::Would;
use crate::store::StoreError;

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// All of it, line by line.
    pub error: String,
}

/// A status, and what is wrong.
#[derive(Debug)]
pub struct Failed(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(Problem { error: self.1 })).into_response()
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

/// What becomes of something of which nothing is left to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It is done.
    Done,
    /// It would be.
    Would(String),
}

impl IntoResponse for Ended {
    fn into_response(self) -> Response {
        match self {
            Self::Done => StatusCode::NO_CONTENT.into_response(),
            Self::Would(would) => Json(Would { would }).into_response(),
        }
    }
}

/// What was made, or in a dry run would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Made<T> {
    /// It is made.
    Made(T),
    /// It would be.
    Would(Would),
}

/// How whoever needs a token may be refused, whatever is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refused {}

/// How parameters may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Misread {}

/// How a body may be, beside what it says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Misfit {}

impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        problems([
            ("401", "No token is shown, or one that is not known here"),
            ("500", "The store cannot be read or written"),
            ("503", "The store is away; try again"),
        ])
    }
}

impl IntoResponses for Misread {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        problems([("400", "Something of it is not understood; nothing is changed")])
    }
}

impl IntoResponses for Misfit {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        problems([
            ("400", "The query is not understood, or the body is no JSON; nothing is changed"),
            ("413", "The body is too large"),
            ("415", "The body is not said to be JSON (`content-type`)"),
            ("422", "Something in the body is wrong, all of which is said; nothing is changed"),
        ])
    }
}

fn problems<const N: usize>(of: [(&str, &str); N]) -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
    let described = of.map(|(status, description)| {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let response = ResponseBuilder::new().description(description).content("application/json", content);
        (status.to_owned(), response.build().into())
    });
    described.into()
}
