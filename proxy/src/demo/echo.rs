//! Three small services for the demonstration to proxy: each answers with what it saw of the request. They have a
//! thread of their own, so that they reach the proxy over TCP as any service would, and share nothing with it.

use std::convert::Infallible;
use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::oneshot;

use super::client::collect;
use crate::body::Body;

/// What the services are called, and how long each takes to answer.
const CAST: [(&str, Duration); 3] =
    [("alpha", Duration::ZERO), ("beta", Duration::ZERO), ("gamma", Duration::from_millis(5))];
/// After an error that is ours (no descriptors left): the next try.
const PAUSE: Duration = Duration::from_millis(100);

/// One of the services.
#[derive(Clone, Debug)]
pub(super) struct Service {
    /// What it calls itself in its answers.
    pub(super) name: &'static str,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// What it adds to each answer.
    pub(super) delay: Duration,
}

/// The services, for as long as this value lives.
#[derive(Debug)]
pub(super) struct Services {
    all: Vec<Service>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Services {
    /// Starts them on ports that are free.
    ///
    /// # Errors
    /// The operating system's: no port or no thread can be had.
    pub(super) fn start() -> io::Result<Self> {
        let mut open = Vec::new();
        for (name, delay) in CAST {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            open.push((Service { name, address: listener.local_addr()?, delay }, listener));
        }
        let all = open.iter().map(|(service, _)| service.clone()).collect();
        let (stop, stopped) = oneshot::channel();
        let body = move || {
            if let Err(error) = serve(open, stopped) {
                tracing::error!(%error, "the echo services cannot start");
            }
        };
        let thread = std::thread::Builder::new().name("echo".to_owned()).spawn(body)?;
        Ok(Self { all, stop: Some(stop), thread: Some(thread) })
    }

    /// All of them.
    pub(super) fn all(&self) -> &[Service] {
        &self.all
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

fn serve(open: Vec<(Service, TcpListener)>, stopped: oneshot::Receiver<()>) -> io::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async {
        for (service, listener) in open {
            tokio::task::spawn_local(accept(service, tokio::net::TcpListener::from_std(listener)?));
        }
        // Nothing is ever sent: the other half is dropped.
        let _ = stopped.await;
        Ok(())
    })
}

async fn accept(service: Service, listener: tokio::net::TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // A short answer must not wait for the acknowledgement of the one before.
                let _ = stream.set_nodelay(true);
                tokio::task::spawn_local(converse(service.clone(), stream));
            }
            Err(error) => {
                tracing::warn!(%error, service = service.name, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(service: Service, stream: tokio::net::TcpStream) {
    let Service { name, address: _, delay } = service;
    let answer = service_fn(move |request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        // A request that breaks off gets no answer that anyone could read.
        let body = collect(body).await.unwrap_or_default();
        tokio::time::sleep(delay).await;
        Ok::<_, Infallible>(Response::new(Body::full(echo(name, &head, &body))))
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = connection.await {
        tracing::debug!(%error, service = name, "a connection ended badly");
    }
}

/// The service's name, the request line, the headers, and after an empty line the body, if there was one.
fn echo(name: &str, head: &Parts, body: &Bytes) -> Bytes {
    let mut text = format!("{name}: {} {}\n", head.method, head.uri);
    for (header, value) in &head.headers {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{header}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    let mut bytes = text.into_bytes();
    if !body.is_empty() {
        bytes.push(b'\n');
        bytes.extend_from_slice(body);
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(request: http::request::Builder, body: &'static str, expected: &str) {
        let (head, ()) = request.body(()).unwrap().into_parts();
        let bytes = echo("alpha", &head, &Bytes::from_static(body.as_bytes()));
        assert_eq!(String::from_utf8(bytes.into()).unwrap(), expected);
    }

    #[test]
    fn an_echo_tells_what_was_seen() {
        check(Request::get("/hello?x=1"), "", "alpha: GET /hello?x=1\n");
        check(Request::get("/").header("x-a", "1").header("x-a", "2"), "", "alpha: GET /\nx-a: 1\nx-a: 2\n");
        check(
            Request::post("/in").header("content-length", "4"),
            "a\nb\n",
            "alpha: POST /in\ncontent-length: 4\n\na\nb\n",
        );
    }
}
