//! HTTP/1.1 by hand: a client that sends the bytes it is told to and keeps what it gets as it came, and the little
//! parsing that both ends of a test need. It is lenient: what is to be strict is the proxy.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wait::within;

/// Header fields in the order and case they came in.
pub type Fields = Vec<(String, String)>;

/// A message's head and body, as they came.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The head, with the empty line.
    pub head: String,
    /// The first line.
    pub start: String,
    /// The fields.
    pub fields: Fields,
    /// The body, chunks taken apart.
    pub body: Vec<u8>,
    /// The body's bytes as they came, with the framing of chunks.
    pub raw: Vec<u8>,
    /// The fields after the last chunk.
    pub trailers: Fields,
}

/// The first value of a field.
pub fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
}

/// Reads messages from a stream.
#[derive(Debug)]
pub struct Wire<T> {
    /// The stream.
    pub io: T,
    /// What has been read and not yet used.
    pub held: Vec<u8>,
}

/// What a message's body is framed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(usize),
    /// Chunks.
    Chunked,
    /// The end of the connection.
    Close,
}

impl<T: AsyncRead + Unpin> Wire<T> {
    /// Nothing has been read yet.
    pub fn new(io: T) -> Self {
        Self { io, held: Vec::new() }
    }

    /// Reads more; `false` at the end, or where the connection was reset.
    pub async fn fill(&mut self) -> bool {
        let mut space = [0; 16 * 1024];
        match self.io.read(&mut space).await {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.held.extend_from_slice(&space[..n]);
                true
            }
        }
    }

    /// Bytes up to and with `end`.
    pub async fn through(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let mut looked = 0;
        loop {
            let found = self.held[looked..].windows(end.len()).position(|window| window == end);
            if let Some(at) = found {
                return Some(self.held.drain(..looked + at + end.len()).collect());
            }
            looked = self.held.len().saturating_sub(end.len() - 1);
            if !self.fill().await {
                return None;
            }
        }
    }

    /// So many bytes.
    pub async fn exactly(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.held.len() < n {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.held.drain(..n).collect())
    }

    /// All that comes until the end.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.held)
    }

    /// A head; `None` when the stream ends before it is whole.
    pub async fn head(&mut self) -> Option<Message> {
        let head = String::from_utf8_lossy(&self.through(b"\r\n\r\n").await?).into_owned();
        let mut lines = head.trim_end_matches("\r\n").split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines.map(split_field).collect();
        Some(Message { head, start, fields, ..Message::default() })
    }

    /// Reads the body of a message whose head has been read; `None` when it breaks off.
    pub async fn body(&mut self, message: &mut Message, framing: Framing) -> Option<()> {
        match framing {
            Framing::None => {}
            Framing::Length(n) => message.body = self.exactly(n).await?,
            Framing::Close => message.body = self.rest().await,
            Framing::Chunked => return self.chunks(message).await,
        }
        message.raw = message.body.clone();
        Some(())
    }

    async fn chunks(&mut self, message: &mut Message) -> Option<()> {
        loop {
            let line = self.through(b"\r\n").await?;
            message.raw.extend_from_slice(&line);
            let text = String::from_utf8_lossy(&line);
            let size = usize::from_str_radix(text.split([';', '\r']).next()?.trim(), 16).ok()?;
            if size == 0 {
                break;
            }
            let data = self.exactly(size + 2).await?;
            message.body.extend_from_slice(&data[..size]);
            message.raw.extend_from_slice(&data);
        }
        loop {
            let line = self.through(b"\r\n").await?;
            message.raw.extend_from_slice(&line);
            if line == b"\r\n" {
                return Some(());
            }
            message.trailers.push(split_field(String::from_utf8_lossy(&line).trim_end()));
        }
    }
}

fn split_field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_owned(), value.trim().to_owned())
}

/// How a request's body is framed.
pub fn request_framing(fields: &Fields) -> Framing {
    if field(fields, "transfer-encoding").is_some() {
        return Framing::Chunked;
    }
    field(fields, "content-length").and_then(|n| n.parse().ok()).map_or(Framing::None, Framing::Length)
}

/// A response.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The head as it came.
    pub head: String,
    /// The fields.
    pub fields: Fields,
    /// The body.
    pub body: Vec<u8>,
    /// The fields after the last chunk.
    pub trailers: Fields,
}

impl Reply {
    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.fields, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the connection ends after this.
    pub fn closes(&self) -> bool {
        self.field("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"))
    }
}

/// A connection that sends what it is told to.
#[derive(Debug)]
pub struct Client<T = TcpStream> {
    wire: Wire<T>,
}

impl Client {
    /// Connects.
    pub async fn connect(to: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(to)).await;
        Self::over(stream.unwrap_or_else(|error| panic!("cannot connect to {to}: {error}")))
    }

    /// Connects, if somebody listens.
    pub async fn try_connect(to: SocketAddr) -> Option<Self> {
        TcpStream::connect(to).await.ok().map(Self::over)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Client<T> {
    /// A client on a stream.
    pub fn over(stream: T) -> Self {
        Self { wire: Wire::new(stream) }
    }

    /// The stream, and what has been read of it and not used.
    pub fn into_parts(self) -> (T, Vec<u8>) {
        (self.wire.io, self.wire.held)
    }

    /// Sends bytes; a connection that is gone is found when reading.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within("sending", self.wire.io.write_all(bytes.as_ref())).await;
    }

    /// Ends our side.
    pub async fn finish(&mut self) {
        let _ = self.wire.io.shutdown().await;
    }

    /// The response to a request that was not HEAD; panics when there is none.
    pub async fn reply(&mut self) -> Reply {
        self.reply_to("GET").await
    }

    /// The response to a request of this method; panics when there is none.
    pub async fn reply_to(&mut self, method: &str) -> Reply {
        within("a response", self.try_reply_to(method))
            .await
            .expect("a whole response before the connection ends")
    }

    /// The response, unless the connection ends first.
    pub async fn try_reply_to(&mut self, method: &str) -> Option<Reply> {
        let mut message = self.wire.head().await?;
        let status = message.start.split(' ').nth(1)?.parse().ok()?;
        let framing = match status {
            100..=199 | 204 | 304 => Framing::None,
            _ if method == "HEAD" => Framing::None,
            200..=299 if method == "CONNECT" => Framing::None,
            _ if field(&message.fields, "transfer-encoding").is_some() => Framing::Chunked,
            _ => field(&message.fields, "content-length")
                .map_or(Framing::Close, |n| Framing::Length(n.parse().unwrap())),
        };
        self.wire.body(&mut message, framing).await?;
        let Message { head, start: _, fields, body, raw: _, trailers } = message;
        Some(Reply { status, head, fields, body, trailers })
    }

    /// One GET; panics when there is no answer.
    pub async fn get(&mut self, path: &str) -> Reply {
        within("an answer", self.try_get(path)).await.unwrap_or_else(|| panic!("no answer to GET {path}"))
    }

    /// One GET.
    pub async fn try_get(&mut self, path: &str) -> Option<Reply> {
        self.send(get(path)).await;
        self.try_reply_to("GET").await
    }

    /// So many bytes; panics when the connection ends before.
    pub async fn exactly(&mut self, n: usize) -> Vec<u8> {
        within("bytes", self.wire.exactly(n)).await.expect("the connection ended early")
    }

    /// Waits until the other side has ended the connection; what it still sent is returned.
    pub async fn rest(&mut self) -> Vec<u8> {
        within("the end of the connection", self.wire.rest()).await
    }
}

/// A GET without anything but a host.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// A POST of this body.
pub fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
