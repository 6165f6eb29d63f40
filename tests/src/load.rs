//! Clients that keep asking, each on a connection that it keeps, until they are told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use tokio::task::JoinSet;

use crate::h2client::{H2, collect, get};
use crate::wait::{until, within};
use crate::wire::Client;

/// What clients do when an answer says `connection: close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnClose {
    /// Ask on over a new connection.
    Reconnect,
    /// Ask no more: whoever drains sends its clients elsewhere.
    Leave,
    /// Ask on at the next address, as a load balancer does; so too where nobody listens.
    Elsewhere,
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
        Self::spread(&[to], path, clients, on_close)
    }

    /// The same, each of them at first at the next of these addresses.
    pub fn spread(to: &[SocketAddr], path: &str, clients: usize, on_close: OnClose) -> Self {
        let state = Arc::new(State::default());
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let mut own = to.to_vec();
            own.rotate_left(number % to.len());
            tasks.spawn(ask(state.clone(), own, path.to_owned(), on_close));
        }
        Self { state, clients: tasks }
    }

    /// Starts so many clients that GET `path` by HTTP/2, each on a connection that is never to end.
    pub fn start_h2(to: SocketAddr, path: &str, clients: usize) -> Self {
        let state = Arc::new(State::default());
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            tasks.spawn(ask_h2(state.clone(), to, path.to_owned()));
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

/// A connection to the first of them who listens, if others may answer as well; those who do not are asked last from now on.
async fn connect(to: &mut [SocketAddr], on_close: OnClose) -> Option<Client> {
    let tries = if on_close == OnClose::Elsewhere { to.len() } else { 1 };
    for _ in 0..tries {
        if let Some(client) = Client::try_connect(to[0]).await {
            return Some(client);
        }
        to.rotate_left(1);
    }
    None
}

async fn ask(state: Arc<State>, mut to: Vec<SocketAddr>, path: String, on_close: OnClose) -> Vec<String> {
    let mut failures = Vec::new();
    'connection: loop {
        let Some(mut client) = connect(&mut to, on_close).await else {
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
                        OnClose::Elsewhere => {
                            to.rotate_left(1);
                            continue 'connection;
                        }
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

async fn ask_h2(state: Arc<State>, to: SocketAddr, path: String) -> Vec<String> {
    let client = H2::connect(to).await;
    while !state.stop.load(SeqCst) {
        let asked = async {
            let (response, _) = client.try_open(get(&path), true).await?;
            collect(response.await?).await
        };
        match tokio::time::timeout(crate::wait::PATIENCE, asked).await {
            Ok(Ok(reply)) if reply.status == 200 => drop(state.answers.fetch_add(1, SeqCst)),
            Ok(Ok(reply)) => {
                return vec![format!("{}: {}", reply.status, String::from_utf8_lossy(&reply.body))];
            }
            Ok(Err(error)) => return vec![format!("HTTP/2: {error}")],
            Err(_) => return vec!["no answer in time".to_owned()],
        }
    }
    Vec::new()
}
