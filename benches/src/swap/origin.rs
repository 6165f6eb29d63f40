//! A service that speaks whatever a client of it does: HTTP/1.1, WebSocket, HTTP/2 with calls that stay open. It counts the
//! connections that were opened to it, and those that have ended.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};

use crate::error::{Doing, Result};

/// The path of calls that stay open.
pub(crate) const CALL: &str = "/call";

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const AGREED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n";

/// A service; gone when dropped.
#[derive(Debug)]
pub(crate) struct Origin {
    port: u16,
    counts: Rc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    opened: Cell<usize>,
    closed: Cell<usize>,
}

impl Origin {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.doing("starting a service")?;
        let port = listener.local_addr().doing("starting a service")?.port();
        let counts = Rc::<Counts>::default();
        let shared = counts.clone();
        let task = spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.opened.update(|opened| opened + 1);
                let counts = shared.clone();
                spawn_local(async move {
                    serve(stream).await;
                    counts.closed.update(|closed| closed + 1);
                });
            }
        });
        Ok(Self { port, counts, task })
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Connections that were opened.
    pub(crate) fn opened(&self) -> usize {
        self.counts.opened.get()
    }

    /// Connections that have ended.
    pub(crate) fn closed(&self) -> usize {
        self.counts.closed.get()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream) {
    let _best_effort = stream.set_nodelay(true);
    let mut first = [0; 3];
    match stream.peek(&mut first).await {
        Ok(1..) if first.starts_with(b"PRI") => serve_h2(stream).await,
        Ok(_) | Err(_) => serve_h1(stream).await,
    }
}

async fn serve_h1(mut stream: TcpStream) {
    let mut head = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut head).await {
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let is_upgrade =
            String::from_utf8_lossy(&head).to_ascii_lowercase().contains("\r\nupgrade: websocket");
        head.clear();
        if stream.write_all(if is_upgrade { AGREED } else { GOOD }).await.is_err() {
            return;
        }
        if is_upgrade {
            let (mut read, mut write) = stream.split();
            let _however_it_ends = tokio::io::copy(&mut read, &mut write).await;
            return;
        }
    }
}

async fn serve_h2(stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        spawn_local(answer(request, respond));
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Option<()> {
    let stays = request.uri().path() == CALL;
    let mut stream = respond.send_response(Response::new(()), false).ok()?;
    if !stays {
        return stream.send_data(Bytes::from_static(b"ok"), true).ok();
    }
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        body.flow_control().release_capacity(data.len()).ok()?;
        send(&mut stream, data).await?;
    }
    stream.send_data(Bytes::new(), true).ok()
}

/// Sends bytes as the peer takes them; `None` when it no longer does.
pub(crate) async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Option<()> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await?.ok()?;
        stream.send_data(bytes.split_to(room.min(bytes.len())), false).ok()?;
    }
    Some(())
}
