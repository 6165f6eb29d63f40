//! A gRPC service of one method that does as it is told, and its messages, written and read by hand: what it takes for
//! granted, the proxy may take for granted wrongly. `peers` asks some that are not ours.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A question, as it came.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) target: String,
    pub(super) fields: HeaderMap,
    pub(super) message: Vec<u8>,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(super) enum Say {
    /// This message.
    Message(Vec<u8>),
    /// This gRPC status, at once.
    Grpc(u16),
    /// This HTTP status.
    Http(u16),
    /// Nothing.
    Nothing,
}

type Script = dyn Fn(&Asked) -> Say + Send + Sync;

/// The service; gone, with its connections, when dropped.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) address: SocketAddr,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    asked: Mutex<Vec<Asked>>,
    opened: AtomicUsize,
}

impl Service {
    pub(super) async fn start(script: impl Fn(&Asked) -> Say + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, script): (Arc<Seen>, Arc<Script>) = (Arc::default(), Arc::new(script));
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                shared.opened.fetch_add(1, SeqCst);
                serving.spawn(serve(stream, script.clone(), shared.clone()));
            }
        });
        Self { address, seen, task }
    }

    /// Always the same.
    pub(super) async fn saying(say: Say) -> Self {
        Self::start(move |_| say.clone()).await
    }

    /// The questions so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.seen.asked.lock().unwrap().clone()
    }

    /// Connections that were opened.
    pub(super) fn opened(&self) -> usize {
        self.seen.opened.load(SeqCst)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, script: Arc<Script>, seen: Arc<Seen>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut answering = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        answering.spawn(answer(request, respond, script.clone(), seen.clone()));
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    script: Arc<Script>,
    seen: Arc<Seen>,
) -> Option<()> {
    let (head, mut stream) = request.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        body.extend_from_slice(&data.ok()?);
    }
    let (prefix, message) = body.split_at(5);
    assert_eq!(prefix[0], 0, "not compressed");
    assert_eq!(u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize, message.len());
    let asked = Asked { target: head.uri.to_string(), fields: head.headers, message: message.to_vec() };
    let say = script(&asked);
    seen.asked.lock().unwrap().push(asked);
    let response = Response::builder().header("content-type", "application/grpc");
    match say {
        Say::Message(message) => {
            let mut stream = respond.send_response(response.body(()).unwrap(), false).ok()?;
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            stream.send_data([&[0][..], &length, &message].concat().into(), false).ok()?;
            let status = (http::HeaderName::from_static("grpc-status"), "0".parse().unwrap());
            stream.send_trailers(HeaderMap::from_iter([status])).ok()?;
        }
        Say::Grpc(status) => {
            let response = response.header("grpc-status", status);
            respond.send_response(response.body(()).unwrap(), true).ok()?;
        }
        Say::Http(status) => {
            let response = Response::builder().status(status);
            respond.send_response(response.body(()).unwrap(), true).ok()?;
        }
        Say::Nothing => std::future::pending().await,
    }
    Some(())
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The fields of a message: number, and content or value.
pub(super) fn parts(mut message: &[u8]) -> impl Iterator<Item = (u64, &[u8], u64)> {
    std::iter::from_fn(move || {
        let tag = (!message.is_empty()).then(|| varint(&mut message))?;
        let value = varint(&mut message);
        match tag & 7 {
            0 => Some((tag >> 3, &[][..], value)),
            2 => {
                let (content, rest) = message.split_at(usize::try_from(value).unwrap());
                message = rest;
                Some((tag >> 3, content, 0))
            }
            other => panic!("wire type {other}"),
        }
    })
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

/// A field with content.
pub(super) fn nested(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![tag << 3 | 2];
    let mut length = content.len();
    while length > 0x7f {
        field.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    field.push(u8::try_from(length).unwrap());
    [&field, content].concat()
}
