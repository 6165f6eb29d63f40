//! Answers of our own, redirects among them.

use ::http::header::LOCATION;

use super::super::super::generated::envoy::config::core::v3 as core;
use super::super::super::generated::envoy::config::route::v3 as pb;
use super::Cx;
use crate::model::{HeaderEdits, Redirect, Respond};

pub(super) fn respond(answer: &Respond) -> pb::DirectResponseAction {
    let Respond { status, body } = answer;
    let text = core::data_source::Specifier::InlineString(body.to_string());
    pb::DirectResponseAction {
        status: u32::from(status.as_u16()),
        body: (!body.is_empty()).then_some(core::DataSource { specifier: Some(text) }),
    }
}

/// A redirect, where it leads to a path, alone or with a scheme and a host.
pub(super) fn redirect(redirect: &Redirect) -> Option<pb::RedirectAction> {
    use pb::redirect_action::{PathRewriteSpecifier, RedirectResponseCode as C, SchemeRewriteSpecifier as S};
    let Redirect { to, status } = redirect;
    let to = to.to_str().ok().filter(|to| !to.contains('#'))?;
    let (scheme, rest) = match to.split_once("://") {
        Some(("https", rest)) => (Some(S::HttpsRedirect(true)), rest),
        Some(("http", rest)) => (Some(S::SchemeRedirect("http".to_owned())), rest),
        Some(_) | None => (None, to),
    };
    let (host, path) = rest.split_at(rest.find('/')?);
    if scheme.is_some() == host.is_empty() || host.contains(['@', '?']) {
        return None;
    }
    let code = match status.as_u16() {
        301 => C::MovedPermanently,
        302 => C::Found,
        303 => C::SeeOther,
        307 => C::TemporaryRedirect,
        308 => C::PermanentRedirect,
        _ => return None,
    };
    Some(pb::RedirectAction {
        scheme_rewrite_specifier: scheme,
        host_redirect: host.to_owned(),
        port_redirect: 0,
        path_rewrite_specifier: Some(PathRewriteSpecifier::PathRedirect(path.to_owned())),
        response_code: code.into(),
        strip_query: !path.contains('?'),
    })
}

/// A redirect elsewhere: an answer, and the first change to it.
pub(super) fn disguised(
    cx: &mut Cx,
    redirect: &Redirect,
    response: &mut HeaderEdits,
) -> Option<pb::DirectResponseAction> {
    let Redirect { to, status } = redirect;
    if response.remove.contains(&LOCATION) {
        return cx.fail("response_headers", "the `location` of such a redirect cannot be removed there");
    }
    response.set.insert(0, (LOCATION, to.clone()));
    Some(respond(&Respond { status: *status, body: Box::default() }))
}
