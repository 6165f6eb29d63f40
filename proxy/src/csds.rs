//! What the control plane has told us and what became of it, for whoever asks on the admin interface (CSDS, over gRPC). Those
//! who debug meshes have tools for it.

use std::pin::Pin;

use http::{Request, Response};
use hyper::body::Incoming;
use outrigger_proto::xds::discovery::Node;
use outrigger_proto::xds::status::{ClientConfig, ClientStatusRequest, ClientStatusResponse, FETCH, STREAM};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::server::{Grpc, StreamingService, UnaryService};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use crate::control::xds::Inquiry;

/// Who answers.
#[derive(Clone, Debug)]
pub struct Csds {
    node: Node,
    inquire: Inquiry,
}

impl Csds {
    /// For this node; `inquire` asks the one who speaks with the control plane.
    pub fn new(node: Node, inquire: Inquiry) -> Self {
        Self { node, inquire }
    }

    /// Whether a request is for it.
    pub fn takes(path: &str) -> bool {
        path == FETCH || path == STREAM
    }

    /// Answers a call.
    pub async fn answer(self, request: Request<Incoming>) -> Response<tonic::body::Body> {
        let codec = ProstCodec::<ClientStatusResponse, ClientStatusRequest>::default();
        let mut grpc = Grpc::new(codec);
        if request.uri().path() == FETCH {
            grpc.unary(self, request).await
        } else {
            grpc.streaming(self, request).await
        }
    }

    async fn status(&self, ClientStatusRequest { exclude_resource_contents }: ClientStatusRequest) -> Answer {
        let found = self.inquire.ask(!exclude_resource_contents).await;
        let generic_xds_configs = found.ok_or_else(|| {
            Status::unavailable("it is connecting to its control plane: ask again in a moment")
        })?;
        let config = ClientConfig { node: Some(self.node.clone()), generic_xds_configs };
        Ok(ClientStatusResponse { config: vec![config] })
    }
}

type Answer = Result<ClientStatusResponse, Status>;
type Answers = ReceiverStream<Answer>;
type Later<T> = Pin<Box<dyn Future<Output = Result<tonic::Response<T>, Status>>>>;

impl UnaryService<ClientStatusRequest> for Csds {
    type Response = ClientStatusResponse;
    type Future = Later<ClientStatusResponse>;

    fn call(&mut self, request: tonic::Request<ClientStatusRequest>) -> Self::Future {
        let own = self.clone();
        Box::pin(async move { own.status(request.into_inner()).await.map(tonic::Response::new) })
    }
}

impl StreamingService<ClientStatusRequest> for Csds {
    type Response = ClientStatusResponse;
    type ResponseStream = Answers;
    type Future = Later<Answers>;

    fn call(&mut self, request: tonic::Request<Streaming<ClientStatusRequest>>) -> Self::Future {
        let (own, mut asked) = (self.clone(), request.into_inner());
        let (answers, queued) = mpsc::channel(1);
        tokio::task::spawn_local(async move {
            while let Ok(Some(request)) = asked.message().await {
                if answers.send(own.status(request).await).await.is_err() {
                    return;
                }
            }
        });
        Box::pin(std::future::ready(Ok(tonic::Response::new(ReceiverStream::new(queued)))))
    }
}
