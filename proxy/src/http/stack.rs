//! The road of a request through the policies, read from the top down.

use std::convert::Infallible;

use http::Response;
use tower::{Service, ServiceBuilder, service_fn};

use super::call::Call;
use super::layers::admit::admit;
use super::layers::authenticate::authenticate;
use super::layers::authorize::authorize;
use super::layers::check::CheckLayer;
use super::layers::concurrency::ConcurrencyFork;
use super::layers::detour::DetourLayer;
use super::layers::edit::EditLayer;
use super::layers::external_authorization::ExternalAuthorizationFork;
use super::layers::fallback::FallbackFork;
use super::layers::fault::FaultLayer;
use super::layers::forward::forward;
use super::layers::global_rate_limit::GlobalRateLimitFork;
use super::layers::mirror::MirrorLayer;
use super::layers::observe::ObserveLayer;
use super::layers::on_demand::OnDemandFork;
use super::layers::rate_limit::rate_limit;
use super::layers::retry::RetryLayer;
use super::layers::route::route;
use super::layers::shadow::beside_trial;
use super::layers::timeout::TimeoutLayer;
use crate::body::Body;

/// What every request passes through: any service of this shape.
pub trait Stack:
    Service<Call, Response = Response<Body>, Error = Infallible> + Clone + Unpin + 'static
{
}

impl<S: Service<Call, Response = Response<Body>, Error = Infallible> + Clone + Unpin + 'static> Stack for S {}

/// The stack of a worker. It holds no policy: each layer reads its own part of the route that the request carries.
pub fn stack() -> impl Stack {
    ServiceBuilder::new()
        // Outermost, so that also what is refused further in is answered, counted and logged.
        .layer(ObserveLayer)
        // Before routing: what is routed, authorized, logged and sent on must be the same host and path.
        .layer(CheckLayer::new(admit))
        .layer(DetourLayer::new(OnDemandFork))
        // Where it goes; then who somebody is, and what it may: of what is canonical, and before anything is spent on who may
        // not. What is on trial is held up against all three.
        .layer(CheckLayer::new(beside_trial(|call| {
            route(call)?;
            authenticate(call)?;
            authorize(call)
        })))
        // After the rules that cost no call; and before limits by what only the service knows of a caller.
        .layer(DetourLayer::new(ExternalAuthorizationFork))
        // Before anything is spent on a request.
        .layer(CheckLayer::new(rate_limit))
        // After the limit that costs no call.
        .layer(DetourLayer::new(GlobalRateLimitFork))
        .layer(DetourLayer::new(ConcurrencyFork))
        // Inside the limits: who is held up on purpose is under way, as with an upstream that is slow.
        .layer(FaultLayer)
        // Outside the timeout: the changes apply to the answer that a timeout becomes of, too.
        .layer(EditLayer)
        // Outside the timeout: what has taken too long has not answered either.
        .layer(DetourLayer::new(FallbackFork))
        .layer(TimeoutLayer)
        // Once for a request, however often it is tried.
        .layer(MirrorLayer)
        .layer(RetryLayer)
        // On the heap once, where it would be moved through each of them.
        .service(service_fn(|call| Box::pin(forward(call))))
}
