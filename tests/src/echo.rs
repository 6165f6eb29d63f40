//! An origin that says what reached it, over HTTP/1.1 and HTTP/2 without TLS, told apart by the first bytes.
//!
//! The request's `x-want` says what else it should do, in words with commas between: `echo` sends the request's body
//! back as it comes, with its trailers; `size=N` answers with N bytes; `status=N`; `trailers` ends the answer with the
//! trailer `x-sum`, the length of the request's body.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Response};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::wire::{Fields, Wire, field, request_framing};

/// An echo origin; gone, with its connections, when dropped.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    name: String,
    requests: AtomicUsize,
    resets: AtomicUsize,
    opened: AtomicUsize,
    closed: AtomicUsize,
}

/// What reached the origin.
#[derive(Clone, Debug)]
pub struct Report {
    /// The origin's name.
    pub origin: String,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: String,
    /// The method.
    pub method: String,
    /// The path and the query.
    pub path: String,
    /// The host, or the `:authority`.
    pub host: String,
    /// The fields.
    pub fields: Fields,
    /// Bytes of the body.
    pub length: usize,
    /// The trailers.
    pub trailers: Fields,
}

impl Report {
    /// What an answer's body says.
    pub fn parse(body: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(body)
            .unwrap_or_else(|error| panic!("no report: {error}: {}", String::from_utf8_lossy(body)));
        let text = |key: &str| value[key].as_str().unwrap().to_owned();
        let fields = |key: &str| {
            let pair =
                |pair: &Value| (pair[0].as_str().unwrap().to_owned(), pair[1].as_str().unwrap().to_owned());
            value[key].as_array().unwrap().iter().map(pair).collect()
        };
        Self {
            origin: text("origin"),
            protocol: text("protocol"),
            method: text("method"),
            path: text("path"),
            host: text("host"),
            fields: fields("fields"),
            length: value["length"].as_u64().unwrap().try_into().unwrap(),
            trailers: fields("trailers"),
        }
    }

    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.fields, name)
    }

    fn print(&self) -> Bytes {
        let Self { origin, protocol, method, path, host, fields, length, trailers } = self;
        let value = json!({
            "origin": origin, "protocol": protocol, "method": method, "path": path, "host": host,
            "fields": fields, "length": length, "trailers": trailers,
        });
        Bytes::from(value.to_string())
    }
}

impl Echo {
    /// Starts one of this name.
    pub async fn start(name: &str) -> Self {
        Self::start_at("127.0.0.1:0", name).await
    }

    /// The same at this address.
    pub async fn start_at(address: &str, name: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts { name: name.to_owned(), ..Counts::default() });
        let shared = counts.clone();
        let task = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                shared.opened.fetch_add(1, SeqCst);
                serving.spawn(serve(stream, Guard(shared.clone())));
                while serving.try_join_next().is_some() {}
            }
        });
        Self { address, counts, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests that came whole.
    pub fn requests(&self) -> usize {
        self.counts.requests.load(SeqCst)
    }

    /// Requests that broke off.
    pub fn resets(&self) -> usize {
        self.counts.resets.load(SeqCst)
    }

    /// Connections that were opened.
    pub fn opened(&self) -> usize {
        self.counts.opened.load(SeqCst)
    }

    /// Connections that have ended.
    pub fn closed(&self) -> usize {
        self.counts.closed.load(SeqCst)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts a connection's end.
struct Guard(Arc<Counts>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, SeqCst);
    }
}

/// What `x-want` says.
#[derive(Clone, Debug, Default)]
struct Want {
    echo: bool,
    trailers: bool,
    size: Option<usize>,
    status: u16,
}

impl Want {
    fn parse(text: Option<&str>) -> Self {
        let mut want = Self { status: 200, ..Self::default() };
        for word in text.unwrap_or_default().split(',').map(str::trim) {
            match word.split_once('=').unwrap_or((word, "")) {
                ("echo", _) => want.echo = true,
                ("trailers", _) => want.trailers = true,
                ("size", n) => want.size = Some(n.parse().unwrap()),
                ("status", n) => want.status = n.parse().unwrap(),
                ("", _) => {}
                (other, _) => panic!("the echo cannot {other}"),
            }
        }
        want
    }

    fn body(&self, report: &Report) -> Bytes {
        self.size.map_or_else(|| report.print(), |size| Bytes::from(vec![b'x'; size]))
    }
}

async fn serve(stream: TcpStream, counts: Guard) {
    let mut first = [0; 3];
    match stream.peek(&mut first).await {
        Ok(n) if n > 0 && first[..n] == b"PRI"[..n] => serve_h2(stream, &counts.0).await,
        Ok(_) | Err(_) => serve_h1(stream, &counts.0).await,
    }
}

async fn serve_h1(stream: TcpStream, counts: &Counts) {
    let mut wire = Wire::new(stream);
    loop {
        let Some(mut message) = wire.head().await else { return };
        let framing = request_framing(&message.fields);
        if wire.body(&mut message, framing).await.is_none() {
            counts.resets.fetch_add(1, SeqCst);
            return;
        }
        counts.requests.fetch_add(1, SeqCst);
        let mut start = message.start.split(' ').map(str::to_owned);
        let (method, path) = (start.next().unwrap_or_default(), start.next().unwrap_or_default());
        let want = Want::parse(field(&message.fields, "x-want"));
        let report = Report {
            origin: counts.name.clone(),
            protocol: start.next().unwrap_or_default(),
            host: field(&message.fields, "host").unwrap_or_default().to_owned(),
            path,
            length: message.body.len(),
            fields: message.fields,
            trailers: message.trailers.clone(),
            method,
        };
        let body = if want.echo { Bytes::from(message.body) } else { want.body(&report) };
        let mut trailers = if want.echo { message.trailers } else { Fields::new() };
        if want.trailers {
            trailers.push(("x-sum".to_owned(), report.length.to_string()));
        }
        if wire.io.write_all(&h1_answer(&want, &report, &body, &trailers)).await.is_err() {
            return;
        }
    }
}

fn h1_answer(want: &Want, report: &Report, body: &[u8], trailers: &Fields) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {} Fine\r\nX-Origin: {}\r\n", want.status, report.origin).into_bytes();
    let head = report.method == "HEAD";
    if trailers.is_empty() {
        out.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
        out.extend_from_slice(if head { b"" } else { body });
        return out;
    }
    let names: Vec<_> = trailers.iter().map(|(name, _)| name.as_str()).collect();
    out.extend(format!("Trailer: {}\r\nTransfer-Encoding: chunked\r\n\r\n", names.join(", ")).bytes());
    if !body.is_empty() {
        out.extend(format!("{:x}\r\n", body.len()).bytes());
        out.extend_from_slice(body);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        out.extend(format!("{name}: {value}\r\n").bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}

async fn serve_h2(stream: TcpStream, counts: &Arc<Counts>) {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 22);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    let mut answering = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let counts = counts.clone();
        answering.spawn(async move {
            if answer_h2(request, respond, &counts).await.is_none() {
                counts.resets.fetch_add(1, SeqCst);
            }
        });
        while answering.try_join_next().is_some() {}
    }
}

async fn answer_h2(
    request: http::Request<RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    counts: &Counts,
) -> Option<()> {
    let (head, mut body) = request.into_parts();
    let want = Want::parse(head.headers.get("x-want").map(|v| v.to_str().unwrap()));
    let mut response = Response::builder().status(want.status).header("x-origin", &counts.name);
    if want.trailers {
        response = response.header("trailer", "x-sum");
    }
    let response = response.body(()).unwrap();
    let mut early = None;
    if want.echo {
        early = Some(respond.send_response(response.clone(), false).ok()?);
    }
    let mut length = 0;
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        length += data.len();
        let _ = body.flow_control().release_capacity(data.len());
        if let Some(stream) = &mut early {
            send_h2(stream, data).await?;
        }
    }
    let received = body.trailers().await.ok()?.unwrap_or_default();
    counts.requests.fetch_add(1, SeqCst);
    let report = Report {
        origin: counts.name.clone(),
        protocol: "HTTP/2".to_owned(),
        method: head.method.to_string(),
        path: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        host: head.uri.authority().map(ToString::to_string).unwrap_or_default(),
        fields: fields(&head.headers),
        length,
        trailers: fields(&received),
    };
    let mut stream = match early {
        Some(stream) => stream,
        None => {
            let mut stream = respond.send_response(response, false).ok()?;
            send_h2(&mut stream, want.body(&report)).await?;
            stream
        }
    };
    let mut trailers = if want.echo { received } else { HeaderMap::new() };
    if want.trailers {
        trailers.insert("x-sum", length.into());
    }
    if trailers.is_empty() {
        stream.send_data(Bytes::new(), true).ok()
    } else {
        stream.send_trailers(trailers).ok()
    }
}

fn fields(headers: &HeaderMap) -> Fields {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// Sends bytes as the peer takes them; `None` when it no longer does.
pub async fn send_h2(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Option<()> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await?.ok()?;
        stream.send_data(bytes.split_to(room.min(bytes.len())), false).ok()?;
    }
    Some(())
}
