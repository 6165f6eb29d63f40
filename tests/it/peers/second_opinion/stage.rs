//! Origins that do what a request tells them to: what they do is decided by the request, so that all three proxies meet the
//! same ones in the same state.
//!
//! The field `x-play` holds a word for each attempt, of which the last one stays; one of an origin's own, as `x-a`, stands
//! before it. A number is a status.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrigger_tests::{Client, Conn, Origin, Received, Reply, within};
use tokio::io::{AsyncRead, AsyncWrite};

/// How long an answer is late.
const LATE: Duration = Duration::from_secs(1);

/// What came of each request, by its number: whom it came to, and as what.
type Log = Arc<Mutex<BTreeMap<String, Vec<(&'static str, Received)>>>>;

/// The origins, by name.
pub(super) struct Stage {
    origins: Vec<(&'static str, Origin)>,
    log: Log,
    requests: AtomicUsize,
}

/// What a client has seen of a request, and whom it came to, in order.
pub(super) struct Seen {
    pub(super) reply: Option<Reply>,
    pub(super) attempts: Vec<(&'static str, Received)>,
}

impl Stage {
    pub(super) async fn start(names: &[&'static str]) -> Self {
        let log = Log::default();
        let mut origins = Vec::new();
        for &name in names {
            let log = log.clone();
            let origin = Origin::start(move |mut conn| {
                let log = log.clone();
                async move {
                    while let Some(request) = conn.request().await {
                        let word = noted(&log, name, request);
                        if !act(&mut conn, name, &word).await {
                            return;
                        }
                    }
                }
            });
            origins.push((name, origin.await));
        }
        Self { origins, log, requests: AtomicUsize::new(0) }
    }

    /// A configuration with their addresses in the place of their names, as `@a`.
    pub(super) fn placed(&self, document: &str) -> String {
        self.origins.iter().fold(document.to_owned(), |document, (name, origin)| {
            document.replace(&format!("@{name}"), origin.address())
        })
    }

    /// Sends a request, which ends before the empty line of its head.
    pub(super) async fn ask<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        client: &mut Client<T>,
        request: &str,
        body: &str,
    ) -> Seen {
        let id = self.requests.fetch_add(1, SeqCst).to_string();
        client.send(format!("{request}x-id: {id}\r\n\r\n{body}")).await;
        let method = request.split(' ').next().unwrap_or_default();
        let reply = within(request, Box::pin(client.try_reply_to(method))).await;
        let attempts = self.log.lock().unwrap().remove(&id).unwrap_or_default();
        Seen { reply, attempts }
    }
}

impl Seen {
    /// The origin whose answer it is.
    pub(super) fn by(&self) -> Option<&str> {
        self.reply.as_ref()?.field("x-by")
    }

    /// The status, and that of gRPC where there is one.
    pub(super) fn status(&self) -> String {
        let Some(reply) = &self.reply else { return "cut".to_owned() };
        let grpc = reply.field("grpc-status").map(|status| format!(" grpc {status}")).unwrap_or_default();
        format!("{}{grpc}", reply.status)
    }

    /// Whom it came to: which was the first is a matter of luck, which was another is not.
    pub(super) fn tried(&self) -> String {
        let mut seen = Vec::new();
        let each = self.attempts.iter().map(|(by, request)| {
            let place = seen.iter().position(|known| known == by).unwrap_or_else(|| {
                seen.push(*by);
                seen.len() - 1
            });
            let body = request.message.body.len();
            let body = if body == 0 { String::new() } else { format!("({body} bytes)") };
            format!("{}{body}", ["first", "second"][place])
        });
        each.collect::<Vec<_>>().join(", ")
    }
}

/// What the request wants done this time.
fn noted(log: &Log, name: &'static str, request: Received) -> String {
    let id = request.field("x-id").unwrap_or_default().to_owned();
    let own = request.field(&format!("x-{name}")).map(str::to_owned);
    let play = request.field("x-play").unwrap_or("200").to_owned();
    let mut log = log.lock().unwrap();
    let attempts = log.entry(id).or_default();
    let words: Vec<_> = play.split(' ').collect();
    let word = words[attempts.len().min(words.len() - 1)].to_owned();
    attempts.push((name, request));
    own.unwrap_or(word)
}

/// Does it; `false` when the connection ends. Unless a word says so none is used again: whether one that is dead was meant
/// to be is nobody's guess then.
async fn act(conn: &mut Conn, by: &str, word: &str) -> bool {
    let answer = |status: &str, fields: &str| {
        format!("HTTP/1.1 {status} Word\r\nX-By: {by}\r\n{fields}Content-Length: 0\r\n\r\n")
    };
    let (word, of) = word.split_once('-').unwrap_or((word, ""));
    match word {
        "reset" => {}
        // The connection ends in the head, or behind it.
        "half" => conn.send("HTTP/1.1 200 OK\r\nX-By: ").await,
        "begun" => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome").await,
        // Nothing more comes behind the head.
        "stalled" => {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome").await;
            conn.rest().await;
        }
        "silent" | "stuck" => {
            conn.rest().await;
        }
        // Later than those are answered who do not want to wait.
        "late" => {
            tokio::time::sleep(LATE).await;
            conn.send(answer("200", "Connection: close\r\n")).await;
        }
        "grpc" => {
            let fields =
                format!("Content-Type: application/grpc\r\nGrpc-Status: {of}\r\nConnection: close\r\n");
            conn.send(answer("200", &fields)).await;
        }
        "kept" => {
            conn.send(answer("200", "")).await;
            return true;
        }
        status => {
            let after = if of.is_empty() { String::new() } else { format!("Retry-After: {of}\r\n") };
            conn.send(answer(status, &format!("{after}Connection: close\r\n"))).await;
        }
    }
    false
}
