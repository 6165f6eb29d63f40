//! What can be asked, described by OpenAPI.

use axum::Json;
use axum::extract::State;
use outrigger_proto::model::Reads;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, OpenApi};
use utoipa::{Modify, OpenApi as _};

use super::{Api, ca, events, joins, shadow, tokens};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Outrigger control plane", description = "What proxies are told, and what became of it."),
    paths(
        super::apply,
        super::history,
        super::revision,
        super::difference,
        super::rollback,
        super::documents,
        super::status,
        super::live,
        super::ready,
        tokens::tokens,
        tokens::new_token,
        tokens::drop_token,
        joins::joins,
        joins::new_join,
        joins::drop_join,
        ca::bundle,
        ca::rotate,
        events::events,
        events::event_schema,
        shadow::shadow,
        shadow::end,
        shadow::promote,
        openapi
    ),
    components(schemas(super::Problem, crate::events::Event)),
    modifiers(&Bearer)
)]
struct Description;

/// By which right something is asked.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, described: &mut OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some(
            "`outrigger-control token create` makes one; the first stands in the store, as `admin.token`"
                .to_owned(),
        );
        let components = described.components.get_or_insert_with(Components::new);
        components.security_schemes.insert("token".to_owned(), SecurityScheme::Http(scheme).into());
    }
}

/// All that can be asked, and what is answered.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "status", responses(
    (status = 200, description = "This document", body = Object)))]
pub(super) async fn openapi(State(api): State<Api>) -> Json<OpenApi> {
    Json(described(api.reads))
}

/// To look needs a token too, unless that is open.
fn described(reads: Reads) -> OpenApi {
    let mut all = Description::openapi();
    if reads == Reads::Token {
        let needless = SecurityRequirement::default();
        let asked = all.paths.paths.values_mut().flat_map(operations).filter_map(|of| of.security.as_mut());
        asked.for_each(|security| security.retain(|way| *way != needless));
    }
    all
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut path.get, &mut path.post, &mut path.put, &mut path.delete].into_iter().flatten()
}

#[cfg(test)]
#[path = "described_tests.rs"]
mod tests;
