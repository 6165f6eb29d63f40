//! The road of a request through the policies, read from the top down.

use std::convert::Infallible;

use http::Response;
use tower::{Service, ServiceBuilder, service_fn};

use super::call::Call;
use super::layers::admit::AdmitLayer;
use super::layers::edit::EditLayer;
use super::layers::forward::forward;
use super::layers::observe::ObserveLayer;
use super::layers::route::RouteLayer;
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
        .layer(AdmitLayer)
        .layer(RouteLayer)
        // Outside the timeout: the changes apply to the answer that a timeout becomes of, too.
        .layer(EditLayer)
        .layer(TimeoutLayer)
        .service(service_fn(forward))
}
