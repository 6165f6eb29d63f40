//! Clients that keep asking, each on a connection that it keeps, until they are told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use tokio::task::JoinSet;

use crate::wait::{until, within};
use crate::wire::Client;

/// What clients do when an answer says `connection: close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnClose {
    /// Ask on over a new connection.
    Reconnect,
    /// Ask no more: whoever drains sends its clients elsewhere.
    Leave,
}

/// Load on one address.
#[derive(Debug)]
pub struct Load {
    state: Arc<State>,
    clients: JoinSet<Vec<String>>,
}

#[derive(Debug, Default)]
struct State {
    stop: AtomicBool,
    answers: AtomicUsize,
    closes: AtomicUsize,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Whole answers with status 200.
    pub answers: usize,
    /// Answers that said `connection: close`.
    pub closes: usize,
    /// Everything else that happened.
    pub failures: Vec<String>,
}

impl Load {
    /// Starts so many clients that GET `path`.
    pub fn start(to: SocketAddr, path: &str, clients: usize, on_close: OnClose) -> Self {
        let state = Arc::new(State::default());
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            tasks.spawn(ask(state.clone(), to, path.to_owned(), on_close));
        }
        Self { state, clients: tasks }
    }

    /// Whole answers so far.
    pub fn answers(&self) -> usize {
        self.state.answers.load(SeqCst)
    }

    /// Waits for so many further answers.
    pub async fn more(&self, n: usize) {
        let wanted = self.answers() + n;
        until("the load makes progress", async || (self.answers() >= wanted).then_some(())).await;
    }

    /// Stops it after the requests that are under way.
    pub async fn stop(self) -> Outcome {
        self.state.stop.store(true, SeqCst);
        self.end().await
    }

    /// Waits until all clients have left.
    pub async fn end(self) -> Outcome {
        let Self { state, mut clients } = self;
        let mut failures = Vec::new();
        while let Some(client) = within("clients end", clients.join_next()).await {
            failures.extend(client.unwrap());
        }
        Outcome { answers: state.answers.load(SeqCst), closes: state.closes.load(SeqCst), failures }
    }
}

async fn ask(state: Arc<State>, to: SocketAddr, path: String, on_close: OnClose) -> Vec<String> {
    let mut failures = Vec::new();
    'connection: loop {
        let Some(mut client) = Client::try_connect(to).await else {
            failures.push("connection refused".to_owned());
            return failures;
        };
        while !state.stop.load(SeqCst) {
            let Ok(reply) = tokio::time::timeout(crate::wait::PATIENCE, client.try_get(&path)).await else {
                failures.push("no answer in time".to_owned());
                return failures;
            };
            match reply {
                Some(reply) if reply.status == 200 => {
                    state.answers.fetch_add(1, SeqCst);
                    if !reply.closes() {
                        continue;
                    }
                    state.closes.fetch_add(1, SeqCst);
                    match on_close {
                        OnClose::Reconnect => continue 'connection,
                        OnClose::Leave => return failures,
                    }
                }
                Some(reply) => failures.push(format!("{}: {}", reply.status, reply.text().trim())),
                None => {
                    failures.push("the connection ended without an answer".to_owned());
                    continue 'connection;
                }
            }
        }
        return failures;
    }
}
