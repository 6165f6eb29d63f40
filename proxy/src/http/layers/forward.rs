//! The end of the stack: what the route does with a request.

use bytes::Bytes;
use http::{Method, Response, Version, header};
use outrigger_proto::model::{Action, Forward, Protocol};

use super::Outcome;
use super::edit::apply;
use crate::body::{Body, text};
use crate::error::ProxyError;
use crate::http::call::{Call, Wanted};
use crate::http::{expect, headers};
use crate::routing::pick_target;
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
        Action::Forward(forward) => send(call, forward).await,
    }
}

async fn send(call: Call, forward: &Forward) -> Outcome {
    let Call { mut request, tunnel, ledger } = call;
    let upstream = ledger.conn().worker().upstream();
    let chosen = match forward.to.targets.len() {
        1 => 0,
        _ => pick_target(&forward.to, upstream.random()),
    };
    let target = &forward.to.targets[chosen];
    let cluster = ledger.clusters()[chosen].clone();
    if tunnel != Wanted::Nothing && request.version() == Version::HTTP_2 {
        // What the client sends on the stream is the tunnel's, and waits until the upstream has agreed to it.
        ledger.set_tunnel_request(std::mem::replace(request.body_mut(), Body::empty()));
    }
    apply(request.headers_mut(), &target.request_headers);
    let extended = request.method() == Method::CONNECT && matches!(tunnel, Wanted::Upgrade(_));
    shape(&mut request, &tunnel, &cluster.config.protocol, ledger.conn().is_secure())?;
    expect::prepare(&mut request);
    ledger.set_cluster(cluster.clone());
    let Sent { answer, lease } = upstream.send(&cluster, request, ledger.trip()).await?;
    ledger.set_lease(lease);
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
    headers::strip_response(response.status(), response.headers_mut());
    apply(response.headers_mut(), &target.response_headers);
    Ok(response)
}

/// Gives a request the form of the protocol it will be sent with.
fn shape(
    request: &mut http::Request<Body>,
    tunnel: &Wanted,
    protocol: &Protocol,
    secure: bool,
) -> Result<(), ProxyError> {
    let h2 = match protocol {
        Protocol::Http1 => false,
        Protocol::Http2 if *tunnel != Wanted::Nothing => return Err(UpstreamError::NoTunnel.into()),
        Protocol::Http2 => true,
        Protocol::Auto => request.version() == http::Version::HTTP_2 && *tunnel == Wanted::Nothing,
    };
    if !h2 {
        headers::shape_h1(request, tunnel);
        return Ok(());
    }
    if headers::shape_h2(request, secure) { Ok(()) } else { Err(ProxyError::Host) }
}
