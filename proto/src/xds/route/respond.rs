//! Answers of our own, redirects among them.

use ::http::{HeaderValue, StatusCode, Uri};

use super::super::cx::Cx;
use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::config::route::v3 as pb;
use super::extension;
use crate::model::{HeaderEdits, Redirect, Respond};

pub(super) fn respond(cx: &mut Cx, answer: pb::DirectResponseAction) -> Option<Respond> {
    let pb::DirectResponseAction { status, body } = answer;
    use core::data_source::Specifier;
    let body = match body.and_then(|body| body.specifier) {
        None => String::new(),
        Some(Specifier::InlineString(text)) => text,
        Some(Specifier::InlineBytes(bytes)) => match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(_) => return cx.fail("body.inline_bytes", "this is not text"),
        },
    };
    extension::answer(cx, status, body)
}

/// A redirect that was written as an answer with a `location`, which is taken out of the changes to it.
pub(super) fn disguised(cx: &mut Cx, answer: &Respond, response: &mut HeaderEdits) -> Option<Redirect> {
    let Respond { status, body } = answer;
    let first = response.set.first().filter(|(name, _)| *name == ::http::header::LOCATION);
    match first {
        Some((_, to)) if is_redirect(*status) && body.is_empty() => {
            let to = to.clone();
            response.set.remove(0);
            Some(Redirect { to, status: *status })
        }
        Some(_) | None => cx.fail("", "the extension calls this a redirect, and it is none"),
    }
}

/// The statuses that a redirect may have (RFC 9110 section 15.4).
fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// A redirect to one place, whatever was asked for: what is kept of the request's target is not supported.
pub(super) fn redirect(cx: &mut Cx, action: pb::RedirectAction) -> Option<Redirect> {
    use pb::redirect_action::{
        PathRewriteSpecifier as P, RedirectResponseCode as C, SchemeRewriteSpecifier as S,
    };
    let pb::RedirectAction {
        scheme_rewrite_specifier,
        host_redirect,
        port_redirect,
        path_rewrite_specifier,
        response_code,
        strip_query,
    } = action;
    let status = match C::try_from(response_code).unwrap_or_default() {
        C::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
        C::Found => StatusCode::FOUND,
        C::SeeOther => StatusCode::SEE_OTHER,
        C::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
        C::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
    };
    let Some(P::PathRedirect(path)) = path_rewrite_specifier.filter(|P::PathRedirect(path)| !path.is_empty())
    else {
        return cx.fail("path_redirect", "this is missing: a redirect leads to one path here");
    };
    if !strip_query && !path.contains('?') {
        return cx.fail("strip_query", "the query of a request is not kept: write `true`");
    }
    let scheme = match scheme_rewrite_specifier {
        None | Some(S::HttpsRedirect(false)) => String::new(),
        Some(S::HttpsRedirect(true)) => "https".to_owned(),
        Some(S::SchemeRedirect(scheme)) => scheme,
    };
    let port = match port_redirect {
        0 => String::new(),
        port => format!(":{port}"),
    };
    let to = match (&*scheme, &*host_redirect) {
        ("", "") if port.is_empty() => path,
        ("http" | "https", host) if !host.is_empty() => format!("{scheme}://{host}{port}{path}"),
        ("" | "http" | "https", _) => {
            let problem = "a redirect leads to a path, or to a scheme and a host: one of the two is missing";
            return cx.fail("host_redirect", problem);
        }
        (_, _) => return cx.fail("scheme_redirect", format!("`{scheme}` is not supported")),
    };
    let path = to.starts_with('/') && !to.starts_with("//");
    let fits = to.parse::<Uri>().is_ok() && (path || to.contains("://"));
    match HeaderValue::from_str(&to).ok().filter(|_| fits) {
        Some(to) => Some(Redirect { to, status }),
        None => cx.fail("path_redirect", format!("`{to}` cannot be redirected to")),
    }
}
