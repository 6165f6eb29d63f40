//! The services of the demonstration, and how they call: each answers with its name, and with what whom it calls has answered.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use http::{Request, StatusCode};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// For a connection and a whole answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const LARGEST: usize = 64 << 10;
/// What the answers of a revision are known by.
pub(super) const VERSION: &str = "x-version";

/// A replica of a service, for as long as this value lives.
#[derive(Debug)]
pub(super) struct Service {
    address: SocketAddr,
    calls: Arc<OnceLock<SocketAddr>>,
    task: JoinHandle<()>,
}

/// What it knows when it is asked.
#[derive(Clone, Debug)]
struct Known {
    name: Arc<str>,
    /// Where its own proxy takes what is for the service that it calls; whoever calls nobody has none.
    calls: Arc<OnceLock<SocketAddr>>,
}

impl Service {
    /// Starts it on a port that is free.
    ///
    /// # Errors
    /// The operating system's: no port can be had.
    pub(super) fn start(runtime: &Handle, name: &str) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let _inside = runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        let calls = Arc::new(OnceLock::new());
        let known = Known { name: name.into(), calls: Arc::clone(&calls) };
        let task = runtime.spawn(async move {
            // It serves for ever.
            let _ = axum::serve(listener, Router::new().fallback(answer).with_state(known)).await;
        });
        Ok(Self { address, calls, task })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it calls there, once and for all.
    pub(super) fn calls(&self, next: SocketAddr) {
        let _ = self.calls.set(next);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(Known { name, calls }): State<Known>) -> (StatusCode, String) {
    let Some(next) = calls.get() else { return (StatusCode::OK, format!("{name}\n")) };
    match call(*next).await {
        Ok(Answer { status: StatusCode::OK, version: _, body }) => (StatusCode::OK, format!("{name} {body}")),
        Ok(Answer { status, version: _, body }) => {
            (StatusCode::BAD_GATEWAY, format!("{name} is answered {status}: {}\n", body.trim_end()))
        }
        Err(lost) => (StatusCode::BAD_GATEWAY, format!("{name} has no answer: {lost}\n")),
    }
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// What the proxy in front says its configuration is.
    pub(super) version: Option<String>,
    pub(super) body: String,
}

/// One request, in the clear, on a connection of its own.
///
/// # Errors
/// Why there is no answer. Nothing is sent twice.
pub(super) async fn call(to: SocketAddr) -> Result<Answer, String> {
    let late = |_| format!("nothing within {PATIENCE:?}");
    tokio::time::timeout(PATIENCE, exchange(to)).await.map_err(late)?
}

async fn exchange(to: SocketAddr) -> Result<Answer, String> {
    let stream = TcpStream::connect(to).await.map_err(|error| format!("cannot connect: {error}"))?;
    let broken = |error: hyper::Error| format!("the connection broke: {error}");
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // What breaks it is told to the request that it carries.
    tokio::spawn(async move { drop(connection.await) });
    let request = Request::get("/").header("host", "demo").header("connection", "close").body(Body::empty());
    let (head, body) =
        sender.send_request(request.expect("its parts are valid")).await.map_err(broken)?.into_parts();
    let body = axum::body::to_bytes(Body::new(body), LARGEST).await.map_err(|error| error.to_string())?;
    let version = head.headers.get(VERSION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Ok(Answer { status: head.status, version, body: String::from_utf8_lossy(&body).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_calls_says_who_answered() {
        let runtime = Handle::current();
        let (near, far) =
            (Service::start(&runtime, "cart-1").unwrap(), Service::start(&runtime, "stock-2").unwrap());
        assert_eq!(call(near.address()).await.unwrap().body, "cart-1\n");
        near.calls(far.address());
        assert_eq!(call(near.address()).await.unwrap().body, "cart-1 stock-2\n");
        let address = far.address();
        drop(far);
        while call(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        let lost = call(near.address()).await.unwrap();
        assert!(lost.status == 502 && lost.body.starts_with("cart-1 has no answer: "), "{lost:?}");
    }
}
