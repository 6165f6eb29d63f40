//! The end of the stack: what the route does with a request.

use bytes::Bytes;
use http::{Method, Response, Version, header};
use outrigger_proto::model::Action;
use tokio::time::Instant;

use super::Outcome;
use super::edit::{apply, apply_to};
use super::retry::is_mark;
use crate::body::{Body, text};
use crate::http::call::{Call, Wanted};
use crate::http::{affinity, expect, headers};
use crate::policy::deadline::{GRPC_TIMEOUT, grpc_timeout};
use crate::upstream::{Answer, Sent, UpstreamError};

/// Answers a request as its route says.
///
/// # Errors
/// Why there is no answer.
pub async fn forward(call: Call) -> Outcome {
    let ledger = call.ledger.clone();
    match &ledger.route().expect("the route is found before it is followed").action {
        Action::Respond(respond) => Ok(text(respond.status, Bytes::copy_from_slice(respond.body.as_bytes()))),
        Action::Redirect(redirect) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = redirect.status;
            response.headers_mut().insert(header::LOCATION, redirect.to.clone());
            Ok(response)
        }
        Action::Forward(_) => send(call).await,
    }
}

async fn send(call: Call) -> Outcome {
    let Call { mut request, tunnel, ledger } = call;
    let upstream = ledger.conn().worker().upstream();
    let (target, cluster) = ledger.destination();
    if tunnel != Wanted::Nothing && request.version() == Version::HTTP_2 {
        // What the client sends on the stream is the tunnel's, and waits until the upstream has agreed to it.
        ledger.set_tunnel_request(std::mem::replace(request.body_mut(), Body::empty()));
    }
    let is_first = ledger.is_first_sent();
    if let Some(target) = target {
        // A further attempt sends what the first one did, but for what it says of itself.
        apply_to(request.headers_mut(), &target.request_headers, |name| is_first || is_mark(name));
    }
    if let Some(deadline) = ledger.deadline()
        && ledger.is_grpc()
    {
        // What is left of it: whoever is asked knows when nobody waits any more.
        request.headers_mut().insert(GRPC_TIMEOUT, grpc_timeout(deadline - Instant::now()));
    }
    let extended = request.method() == Method::CONNECT && matches!(tunnel, Wanted::Upgrade(_));
    if is_first {
        headers::shape(&mut request, &tunnel, cluster.config.protocol, ledger.conn().is_secure())?;
    }
    expect::prepare(&mut request);
    ledger.enter_cluster(cluster);
    ledger.trip().set_priority(ledger.forward().map(|forward| forward.priority).unwrap_or_default());
    let new_cookie = affinity::choose(&request, cluster, &ledger);
    let Sent { answer, flight } = upstream.send(cluster, request, ledger.trip()).await?;
    ledger.set_flight(Some(flight));
    let mut response = match answer {
        // To an extended CONNECT a 2xx says that the tunnel stands, and it does not.
        Answer::Response(response) if extended && response.status().is_success() => {
            return Err(UpstreamError::Protocol.into());
        }
        Answer::Response(response) => response,
        Answer::Tunnel(response, stream) => {
            ledger.set_tunnel(stream);
            response
        }
    };
    if ledger.keeps_answers() && headers::is_unframed(&response) {
        ledger.set_unframed();
    }
    headers::strip_response(response.status(), response.headers_mut());
    if let Some(target) = target {
        apply(response.headers_mut(), &target.response_headers);
    }
    affinity::give(new_cookie, &mut response);
    Ok(response)
}
