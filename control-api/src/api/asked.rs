//! What is asked, taken apart. What cannot be is answered as all else that is wrong.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::{Json, extract};
use http::StatusCode;
use http::Uri;
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Api, Failed};

/// A body, of JSON.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body<T>(pub T);

/// Parameters of a query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<T>(pub T);

/// What stands in a path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path<T>(pub T);

/// All that is said beside a body.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Aside {
    /// Only says what would happen: all is checked, and nothing is changed. A body that has a `dry_run` may say so instead.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a dry run would have done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Would {
    /// That, in words.
    pub would: String,
}

impl Aside {
    /// What is said in the query of a change. Whatever else is said there is misplaced or misspelt, and without it the change would
    /// be another.
    pub(super) fn of(uri: &Uri) -> Result<Self, Failed> {
        let aside = extract::Query::try_from_uri(uri).map(|extract::Query(aside)| aside);
        aside.map_err(|_| {
            let query = uri.query().unwrap_or_default();
            let why = format!(
                "`{query}` is not looked at here: the body says what is wanted, and `dry_run=true` that it is only to be said; \
                 nothing is changed"
            );
            Failed(StatusCode::BAD_REQUEST, why)
        })
    }
}

impl FromRequestParts<Api> for Aside {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Failed> {
        Self::of(&parts.uri)
    }
}

impl<T: DeserializeOwned> FromRequest<Api> for Body<T> {
    type Rejection = Failed;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Failed> {
        let body = Json::from_request(request, api).await;
        body.map(|Json(body)| Self(body)).map_err(|refused| Failed(refused.status(), refused.body_text()))
    }
}

impl<T: DeserializeOwned> FromRequestParts<Api> for Query<T> {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Failed> {
        let query = extract::Query::from_request_parts(parts, api).await;
        query
            .map(|extract::Query(query)| Self(query))
            .map_err(|refused| Failed(refused.status(), refused.body_text()))
    }
}

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for Path<T> {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Failed> {
        let path = extract::Path::from_request_parts(parts, api).await;
        path.map(|extract::Path(path)| Self(path))
            .map_err(|refused| Failed(refused.status(), refused.body_text()))
    }
}
