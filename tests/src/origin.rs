//! An HTTP/1.1 origin on bare sockets, that does with each connection what its script says, and keeps every request as
//! it came, to the byte.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::wait::until;
use crate::wire::{Message, Wire, field, request_framing};

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// The message.
    pub message: Message,
    /// Which of the origin's connections it came on, from 0.
    pub connection: usize,
}

impl Received {
    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.message.fields, name)
    }

    /// All values of a field.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.message.fields.iter();
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The target of its first line.
    pub fn target(&self) -> &str {
        self.message.start.split(' ').nth(1).unwrap_or_default()
    }
}

/// What the origin has seen.
#[derive(Debug, Default)]
pub struct Seen {
    opened: AtomicUsize,
    closed: AtomicUsize,
    requests: Mutex<Vec<Received>>,
}

/// An origin; gone, with its connections, when dropped.
#[derive(Debug)]
pub struct Origin {
    address: String,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    async fn accept(&self) -> Box<dyn Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                Box::new(stream)
            }
            Self::Unix(listener) => Box::new(listener.accept().await.unwrap().0),
        }
    }
}

/// Connections to this port of loopback that neither side has closed, as the kernel has it: what was closed counts no
/// longer from that moment on, while whoever serves it learns of that later.
pub fn established(port: u16) -> usize {
    const ESTABLISHED: &str = "01";
    let local = format!("0100007F:{port:04X}");
    let count = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let rows = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        rows.filter(|row| row.get(1) == Some(&local.as_str()) && row.get(3) == Some(&ESTABLISHED)).count()
    };
    // The table is not read at one moment: one that is closed meanwhile and one that is opened may both be in it.
    (0..3).map(|_| count()).min().expect("three counts")
}

/// Both halves of a stream.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One connection, as the script has it.
#[derive(Debug)]
pub struct Conn {
    /// Its number, from 0.
    pub number: usize,
    wire: Wire<Box<dyn Stream>>,
    seen: Arc<Seen>,
}

impl std::fmt::Debug for dyn Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

impl Origin {
    /// Every connection is handled by `script`, and closed when that returns.
    pub async fn start<F: Future<Output = ()> + Send + 'static>(
        script: impl Fn(Conn) -> F + Send + Sync + 'static,
    ) -> Self {
        Self::start_at("127.0.0.1:0", script).await
    }

    /// The same at this address.
    pub async fn start_at<F: Future<Output = ()> + Send + 'static>(
        address: &str,
        script: impl Fn(Conn) -> F + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self::accept(address, script, Listening::Tcp(listener))
    }

    /// The same on a unix socket.
    pub fn start_unix<F: Future<Output = ()> + Send + 'static>(
        path: &Path,
        script: impl Fn(Conn) -> F + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        Self::accept(format!("unix:{}", path.display()), script, Listening::Unix(listener))
    }

    fn accept<F: Future<Output = ()> + Send + 'static>(
        address: String,
        script: impl Fn(Conn) -> F + Send + Sync + 'static,
        listening: Listening,
    ) -> Self {
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            // Its connections end with the origin.
            let mut serving = tokio::task::JoinSet::new();
            loop {
                let stream = listening.accept().await;
                let number = shared.opened.fetch_add(1, SeqCst);
                serving.spawn(script(Conn { number, wire: Wire::new(stream), seen: shared.clone() }));
                while serving.try_join_next().is_some() {}
            }
        });
        Self { address, seen, task }
    }

    /// Every request is answered once it is told to let them go, with `x`.
    pub async fn gated() -> (Self, watch::Sender<bool>) {
        let (open, gate) = watch::channel(false);
        let origin = Self::start(move |mut conn| {
            let mut gate = gate.clone();
            async move {
                while conn.request().await.is_some() {
                    let _ = gate.wait_for(|open| *open).await;
                    conn.send(ok("x")).await;
                }
            }
        })
        .await;
        (origin, open)
    }

    /// Every request gets these bytes for an answer.
    pub async fn answering(reply: &str) -> Self {
        let reply = reply.to_owned();
        Self::start(move |mut conn| {
            let reply = reply.clone();
            async move {
                while conn.request().await.is_some() {
                    conn.send(&reply).await;
                }
            }
        })
        .await
    }

    /// Every request gets `200` and this body for an answer.
    pub async fn ok(body: &str) -> Self {
        Self::answering(&ok(body)).await
    }

    /// Where it listens, as configurations write it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where it listens.
    pub fn socket(&self) -> SocketAddr {
        self.address.parse().expect("a TCP origin")
    }

    /// Connections that were opened.
    pub fn opened(&self) -> usize {
        self.seen.opened.load(SeqCst)
    }

    /// Connections that have ended.
    pub fn closed(&self) -> usize {
        self.seen.closed.load(SeqCst)
    }

    /// Requests that came whole, in order.
    pub fn requests(&self) -> Vec<Received> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// How many requests came whole.
    pub fn count(&self) -> usize {
        self.seen.requests.lock().unwrap().len()
    }

    /// The request that came last; panics when there was none.
    pub fn last(&self) -> Received {
        self.requests().pop().expect("the origin has seen a request")
    }

    /// Waits until so many connections have ended.
    pub async fn wait_closed(&self, n: usize) {
        until("the origin's connections end", async || (self.closed() >= n).then_some(())).await;
    }

    /// Waits until so many requests have come.
    pub async fn wait_requests(&self, n: usize) {
        until("requests reach the origin", async || (self.count() >= n).then_some(())).await;
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Conn {
    /// The next request, with its body; `None` when the connection ends.
    pub async fn request(&mut self) -> Option<Received> {
        let mut message = self.wire.head().await?;
        let framing = request_framing(&message.fields);
        self.wire.body(&mut message, framing).await?;
        Some(self.note(message))
    }

    /// The next request's head alone.
    pub async fn head(&mut self) -> Option<Received> {
        let message = self.wire.head().await?;
        Some(self.note(message))
    }

    fn note(&self, message: Message) -> Received {
        let received = Received { message, connection: self.number };
        self.seen.requests.lock().unwrap().push(received.clone());
        received
    }

    /// Sends bytes; a connection that is gone is found when reading.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.wire.io.write_all(bytes.as_ref()).await;
    }

    /// Ends our side.
    pub async fn finish(&mut self) {
        let _ = self.wire.io.shutdown().await;
    }

    /// So many bytes, unless the connection ends before.
    pub async fn exactly(&mut self, n: usize) -> Option<Vec<u8>> {
        self.wire.exactly(n).await
    }

    /// What has come, at least a byte, unless the connection has ended.
    pub async fn some(&mut self) -> Option<Vec<u8>> {
        if self.wire.held.is_empty() && !self.wire.fill().await {
            return None;
        }
        Some(std::mem::take(&mut self.wire.held))
    }

    /// All that comes until the end.
    pub async fn rest(&mut self) -> Vec<u8> {
        self.wire.rest().await
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.seen.closed.fetch_add(1, SeqCst);
    }
}

/// An address that refuses connections. It is held meanwhile: a port that was free a moment ago may be somebody's by now.
#[derive(Debug)]
pub struct Nobody {
    address: String,
    _bound: TcpSocket,
}

impl Nobody {
    /// Takes one.
    pub fn new() -> Self {
        let bound = TcpSocket::new_v4().unwrap();
        bound.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Self { address: bound.local_addr().unwrap().to_string(), _bound: bound }
    }

    /// Where nobody listens.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Default for Nobody {
    fn default() -> Self {
        Self::new()
    }
}

/// `200` with this body.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
