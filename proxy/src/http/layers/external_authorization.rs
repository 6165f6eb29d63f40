//! Whether a request is let in, asked of a service (Envoy's ext_authz), by gRPC or by HTTP. Without an answer nobody is,
//! unless the listener says otherwise.
//!
//! Only listeners that ask take this road, which is boxed: the others pay a branch.

use std::borrow::Cow;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use outrigger_proto::model::{CheckBody, CheckProtocol, CheckUse, ExternalAuthorization, OnFailure};
use tokio::time::Instant;

use super::detour::{Detour, Fork, Inner};
use super::{Outcome, timeout};
use crate::body::Body;
use crate::error::{GrpcCode, ProxyError};
use crate::facts::Beginning;
use crate::http::call::{Call, Ledger, Wanted};
use crate::http::{headers, peek};
use crate::policy::ext_authz::{self, Allowed, Denied, PARTIAL_BODY, Peer, Question, Verdict};
use crate::upstream::{ClusterView, Whole};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// By which clients prove who they are: the service has to see these, whoever sets them afterwards.
const CREDENTIALS: [HeaderName; 2] = [header::AUTHORIZATION, header::COOKIE];
/// Bytes of a denial's body that a gRPC caller is told.
const LONGEST_MESSAGE: usize = 1024;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct ExternalAuthorizationFork;

impl Fork for ExternalAuthorizationFork {
    fn send<S: Inner>(self, inner: &mut S, call: Call) -> Detour<S::Future> {
        match asked(&call.ledger) {
            None => Detour::straight(inner.call(call)),
            Some(_) => Detour::around(checked(inner.clone(), call)),
        }
    }
}

/// Whom the request is asked about, if anybody.
fn asked(ledger: &Ledger) -> Option<(&ExternalAuthorization, &ClusterView)> {
    let asked = ledger.http().0.external_authorization.as_deref()?;
    let service = || ledger.view().authorizer.as_deref().expect("who asks has somebody to ask");
    ext_authz::is_asked(of_route(ledger)).then(|| (asked, service()))
}

fn of_route(ledger: &Ledger) -> Option<&CheckUse> {
    ledger.route()?.external_authorization.as_deref()
}

async fn checked<S: Inner>(mut inner: S, mut call: Call) -> Outcome {
    let ledger = call.ledger.clone();
    let (policy, service) = asked(&ledger).expect("looked at before");
    let stats = &ledger.view().state.stats;
    let body = match policy.body {
        // What follows a CONNECT is a tunnel's; a request that asks for an upgrade may have a body like any other.
        Some(shown) if *call.request.method() != Method::CONNECT => read_ahead(&mut call, shown).await?,
        Some(_) | None => None,
    };
    match ask(&call, body.as_ref(), (policy, service)).await? {
        Some(Verdict::Allowed(allowed)) => {
            stats.external_authorization("ok");
            change(&mut call, policy, allowed)?;
        }
        Some(Verdict::Denied(denied)) => {
            stats.external_authorization("denied");
            ledger.set_error(ProxyError::DeniedExternally);
            return Ok(answer(denied, ledger.is_grpc()));
        }
        None => {
            stats.external_authorization("error");
            if policy.on_failure == OnFailure::Deny {
                return Err(ProxyError::AuthorizationUnavailable);
            }
            // Nobody has replaced them, and whoever stands behind us would take a client's word for the service's.
            take_credentials(call.request.headers_mut(), policy);
        }
    }
    // What the wait has cost is not the endpoint's, which is yet to be asked.
    ledger.trip().held_up(Instant::now());
    inner.call(call).await
}

/// Reads what the service is shown of the body; the request is as good as before.
async fn read_ahead(call: &mut Call, shown: CheckBody) -> Result<Option<Beginning>, ProxyError> {
    let until = timeout::deadline(call);
    let body = std::mem::replace(call.request.body_mut(), Body::empty());
    let reading = peek::beginning(body, usize::try_from(shown.max.get()).unwrap_or(usize::MAX));
    let read = match until {
        Some(until) => tokio::time::timeout_at(until, reading).await.map_err(|_| ProxyError::Timeout)?,
        None => reading.await,
    };
    let (beginning, body) = read?;
    *call.request.body_mut() = body;
    // It was asked for by reading it: there is nothing left to expect.
    call.request.headers_mut().remove(header::EXPECT);
    if beginning.partial && !shown.partial {
        return Err(ProxyError::AuthorizationBody(shown.max.get()));
    }
    Ok(Some(beginning))
}

/// What the service decides; `None` when it decides nothing. The request's own deadline holds here as well.
async fn ask(
    call: &Call,
    body: Option<&Beginning>,
    (policy, service): (&ExternalAuthorization, &ClusterView),
) -> Result<Option<Verdict>, ProxyError> {
    let upstream = call.ledger.conn().worker().upstream();
    let (patience, own) = timeout::patience(call, policy.timeout);
    let material = call.ledger.view().tls.as_ref().and_then(|tls| tls.identity.as_ref()?.material());
    let destination =
        Peer { address: call.ledger.conn().destination(), identity: material.as_deref().map(|own| &own.id) };
    let question = question(call, policy, (destination, body))?;
    let answer = match &policy.protocol {
        CheckProtocol::Grpc { context } => {
            let message = question.encode(context, of_route(&call.ledger));
            let answer = upstream.call(service, ext_authz::PATH, &message, patience).await;
            answer.map(|message| ext_authz::by_grpc(&message))
        }
        CheckProtocol::Http { path_prefix, response_headers } => {
            // Whoever could make a request that nobody can be asked about would get past a service that may be silent.
            let request = by_http(call, &question, (path_prefix, service));
            let request = request.ok_or(ProxyError::AuthorizationUnavailable)?;
            let answer = upstream.exchange(service, request, patience).await;
            answer.map(|response| {
                let (head, Whole { data, trailers: _ }) = response.into_parts();
                let taken = (&*policy.set_headers, &**response_headers);
                ext_authz::by_http((head.status, &head.headers), data, taken)
            })
        }
    };
    timeout::decided(answer, own, &policy.cluster)
}

fn question<'a>(
    call: &'a Call,
    policy: &'a ExternalAuthorization,
    (destination, body): (Peer<'a>, Option<&'a Beginning>),
) -> Result<Question<'a>, ProxyError> {
    let Call { request, tunnel: _, ledger } = call;
    let conn = ledger.conn();
    let id = request.headers().get(X_REQUEST_ID).and_then(|id| id.to_str().ok());
    let source = match (conn.peer(), headers::client(request, conn, &ledger.http().0.trusted_proxies)) {
        // A proxy that is believed speaks for somebody else, of whom there is no port.
        (Some(peer), Some(client)) if client != peer.ip().to_canonical() => Some((client, 0).into()),
        (peer, _) => peer,
    };
    Ok(Question {
        id: id
            .map_or_else(|| Cow::Owned(format!("{:016x}", conn.worker().upstream().random())), Cow::Borrowed),
        at: SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .saturating_sub(ledger.trip().started().elapsed()),
        source: Peer { address: source, identity: conn.spiffe_id() },
        destination,
        sni: conn.proven().and_then(|proven| proven.sni.as_deref()),
        head: headers::head(request).ok_or(ProxyError::Host)?,
        target: request.uri().path_and_query().map_or("", PathAndQuery::as_str),
        scheme: if conn.is_secure() { "https" } else { "http" },
        version: request.version(),
        show: policy.show_headers.as_deref(),
        body,
    })
}

/// The question to a service that is asked by HTTP: the head of the request, its path behind the prefix.
fn by_http(
    call: &Call,
    question: &Question<'_>,
    (path_prefix, service): (&str, &ClusterView),
) -> Option<Box<Request<Body>>> {
    let bytes = question.body.map(|body| body.bytes.clone()).unwrap_or_default();
    let mut request = Box::new(Request::new(Body::empty()));
    *request.method_mut() = match (question.head.method, &call.tunnel) {
        // RFC 8441 section 5: in HTTP/1 it would have been one.
        (&Method::CONNECT, Wanted::Upgrade(_)) => Method::GET,
        (&Method::CONNECT, _) => return None,
        (method, _) => method.clone(),
    };
    *request.uri_mut() = [path_prefix, question.target].concat().parse::<Uri>().ok()?;
    *request.version_mut() = Version::HTTP_11;
    let fields = request.headers_mut();
    for (name, value) in question.shown() {
        if !of_the_body(name) {
            fields.append(name.clone(), value.clone());
        }
    }
    fields.insert(header::HOST, HeaderValue::from_str(question.head.host).ok()?);
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    if let Some(body) = question.body {
        fields.insert(PARTIAL_BODY, HeaderValue::from_static(if body.partial { "true" } else { "false" }));
    }
    *request.body_mut() = Body::full(bytes);
    let secure = call.ledger.conn().is_secure();
    headers::shape(&mut request, &Wanted::Nothing, service.config.protocol, secure).ok()?;
    Some(request)
}

/// What is said of the way of the request's own body, and of its answer's; the service's are others.
fn of_the_body(name: &HeaderName) -> bool {
    [header::EXPECT, header::TE].contains(name)
}

/// Lets a request go on as the service wants it.
fn change(call: &mut Call, policy: &ExternalAuthorization, allowed: Allowed) -> Result<(), ProxyError> {
    let Allowed { request: changes, remove, query, response } = allowed;
    if !changes.is_empty() || !remove.is_empty() {
        // Its answer may be for whom the service says it is of, whatever it says itself by now.
        call.ledger.set_known();
    }
    let request = &mut call.request;
    if !query.is_empty() {
        let edited = query.apply(request.uri().query());
        if !headers::set_query(request, edited.as_deref()) {
            return Err(ProxyError::AuthorizationUnavailable);
        }
        call.ledger.set_target(request.uri());
    }
    let fields = request.headers_mut();
    take_credentials(fields, policy);
    changes.into_iter().for_each(|change| change.apply(fields));
    for name in remove {
        fields.remove(name);
    }
    call.ledger.change_answer(response);
    Ok(())
}

/// Takes out of a request what only the service may say, before anybody looks: routes do too.
pub fn strip(fields: &mut HeaderMap, policy: &ExternalAuthorization) {
    headers::take_away(fields, policy.set_headers.iter().filter(|name| !CREDENTIALS.contains(name)));
}

/// Takes out of a request by what a client has proven who it is, where that is the service's to set from here on.
fn take_credentials(fields: &mut HeaderMap, policy: &ExternalAuthorization) {
    for name in policy.set_headers.iter().filter(|name| CREDENTIALS.contains(name)) {
        fields.remove(name);
    }
}

/// What a request that is not let in is answered with.
fn answer(denied: Denied, grpc: bool) -> Response<Body> {
    let Denied { status, headers, body } = denied;
    let mut response = if grpc {
        // A trailers-only answer (gRPC over HTTP/2); what the service says of gRPC itself stands.
        let mut response = Response::new(Body::empty());
        let fields = response.headers_mut();
        fields.insert("grpc-status", HeaderValue::from(GrpcCode::from_status(status) as u16));
        if let Some(message) = grpc_message(&body) {
            fields.insert("grpc-message", message);
        }
        let code = fields["grpc-status"].clone();
        fields.extend(headers);
        if fields["grpc-status"] == "0" {
            // It would be a success.
            fields.insert("grpc-status", code);
        }
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        response
    } else {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        *response.body_mut() = Body::full(body);
        response
    };
    let reason = ProxyError::DeniedExternally.answer().reason;
    response.headers_mut().insert("x-outrigger-reason", HeaderValue::from_static(reason));
    response
}

/// A text as gRPC has it in a header (gRPC over HTTP/2, "Percent-Encoded"); `None` for an empty one.
fn grpc_message(text: &Bytes) -> Option<HeaderValue> {
    let mut message = String::new();
    for byte in text.iter().take(LONGEST_MESSAGE) {
        match byte {
            b' '..=b'~' if *byte != b'%' => message.push(char::from(*byte)),
            _ => message.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(message).ok().filter(|message| !message.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_has_a_form_for_each_kind_of_caller() {
        let denied = |status: u16, body: &'static str| Denied {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_static("/login"))]),
            body: Bytes::from_static(body.as_bytes()),
        };
        let field = |response: &Response<Body>, name: &str| {
            response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        let plain = answer(denied(302, "go"), false);
        assert_eq!((plain.status().as_u16(), field(&plain, "location")), (302, Some("/login".to_owned())));
        assert_eq!(field(&plain, "content-length").as_deref(), Some("2"));
        for (status, code) in [(401, "16"), (403, "7"), (429, "14"), (302, "2")] {
            let grpc = answer(denied(status, "nó 100%\n"), true);
            assert_eq!((grpc.status().as_u16(), field(&grpc, "grpc-status").as_deref()), (200, Some(code)));
            assert_eq!(field(&grpc, "grpc-message").as_deref(), Some("n%C3%B3 100%25%0A"));
            assert_eq!(field(&grpc, "location").as_deref(), Some("/login"));
        }
        assert_eq!(field(&answer(denied(403, ""), true), "grpc-message"), None);
        let mut own = denied(403, "");
        for (said, status) in [("9", "9"), ("0", "7")] {
            own.headers.insert("grpc-status", HeaderValue::from_static(said));
            assert_eq!(field(&answer(own.clone(), true), "grpc-status").as_deref(), Some(status));
        }
    }
}
