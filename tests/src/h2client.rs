//! An HTTP/2 client that shows streams, resets and trailers.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::echo::{Report, send_h2};
use crate::wait::within;

/// A connection, without TLS and by prior knowledge.
#[derive(Debug)]
pub struct H2 {
    requests: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
}

/// A whole response.
#[derive(Debug)]
pub struct H2Reply {
    /// The status.
    pub status: u16,
    /// The fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
    /// The trailers, if there were any.
    pub trailers: Option<HeaderMap>,
}

impl H2Reply {
    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The body as an echo's report.
    pub fn report(&self) -> Report {
        Report::parse(&self.body)
    }
}

impl H2 {
    /// Connects.
    pub async fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 22);
        let (requests, connection) = within("the HTTP/2 handshake", builder.handshake(stream)).await.unwrap();
        Self { requests, driver: tokio::spawn(connection) }
    }

    /// Opens a stream; its body may be sent unless `ends`.
    pub async fn open(&self, request: Request<()>, ends: bool) -> (ResponseFuture, SendStream<Bytes>) {
        self.try_open(request, ends).await.unwrap()
    }

    /// The same.
    ///
    /// # Errors
    /// The connection has ended, or takes no more streams.
    pub async fn try_open(
        &self,
        request: Request<()>,
        ends: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut ready = within("room for a stream", self.requests.clone().ready()).await?;
        ready.send_request(request, ends)
    }

    /// Sends a request with a body and trailers, and collects its response.
    pub async fn send(
        &self,
        request: Request<()>,
        body: Vec<u8>,
        trailers: Option<HeaderMap>,
    ) -> Result<H2Reply, h2::Error> {
        let ends = body.is_empty() && trailers.is_none();
        let (response, mut stream) = self.open(request, ends).await;
        let sending = async {
            // A response may come before the body is sent: the stream is then gone, and that is no failure.
            if ends || send_h2(&mut stream, body.into()).await.is_none() {
                return;
            }
            let _ = match trailers {
                Some(trailers) => stream.send_trailers(trailers),
                None => stream.send_data(Bytes::new(), true),
            };
        };
        let receiving = async { collect(response.await?).await };
        within("an HTTP/2 response", async { tokio::join!(sending, receiving).1 }).await
    }

    /// One GET; panics when there is no whole response.
    pub async fn get(&self, path: &str) -> H2Reply {
        self.send(get(path), Vec::new(), None).await.unwrap()
    }

    /// Waits until the connection has ended.
    pub async fn ended(self) -> Result<(), h2::Error> {
        let Self { requests, driver } = self;
        drop(requests);
        within("the end of the connection", driver).await.unwrap()
    }
}

/// A request without anything but a target.
pub fn get(path: &str) -> Request<()> {
    Request::get(format!("http://test{path}")).body(()).unwrap()
}

/// Reads a response to its end.
///
/// # Errors
/// The stream was reset, or the connection broke.
pub async fn collect(response: Response<RecvStream>) -> Result<H2Reply, h2::Error> {
    let (head, mut stream) = response.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        let _ = stream.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await?;
    Ok(H2Reply { status: head.status.as_u16(), headers: head.headers, body, trailers })
}
