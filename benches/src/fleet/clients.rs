//! Clients that ask at a fixed rate, whatever the answers: those of a service in trouble do not wait for each other.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::Instant;

use crate::net::{local, whole};

/// Requests a second.
pub(crate) const RATE: u64 = 400;
/// Who has no answer by then takes it for a failure.
const PATIENCE: Duration = Duration::from_secs(5);

/// One request and what came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shot {
    /// When it was sent.
    pub(crate) at: Instant,
    /// Until its answer was whole.
    pub(crate) took: Duration,
    /// What it asked for.
    pub(crate) path: &'static str,
    /// Whether it was answered 200.
    pub(crate) good: bool,
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Clients {
    state: Rc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    port: u16,
    idle: RefCell<Vec<TcpStream>>,
    shots: RefCell<Vec<Shot>>,
}

impl Clients {
    /// They ask the proxy at this port for these paths, in this order, again and again.
    pub(crate) fn start(port: u16, paths: &'static [&'static str]) -> Self {
        let state = Rc::new(State { port, idle: RefCell::default(), shots: RefCell::default() });
        let shared = state.clone();
        let task = spawn_local(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE as u32);
            for path in paths.iter().cycle() {
                ticks.tick().await;
                spawn_local(shared.clone().ask(path));
            }
        });
        Self { state, task }
    }

    /// Stops them, waits for the answers that are due, and tells what came of all.
    pub(crate) async fn finish(self) -> Vec<Shot> {
        self.task.abort();
        tokio::time::sleep(PATIENCE).await;
        self.state.shots.take()
    }
}

impl State {
    async fn ask(self: Rc<Self>, path: &'static str) {
        let at = Instant::now();
        let answered = tokio::time::timeout(PATIENCE, self.exchange(path)).await;
        let good = matches!(answered, Ok(Ok(200)));
        self.shots.borrow_mut().push(Shot { at, took: at.elapsed(), path, good });
    }

    /// The status of the answer; the connection is kept where that is whole.
    async fn exchange(&self, path: &str) -> std::io::Result<u16> {
        let idle = self.idle.borrow_mut().pop();
        let mut stream = match idle {
            Some(stream) => stream,
            None => TcpStream::connect(local(self.port)).await?,
        };
        stream.set_nodelay(true)?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: fleet\r\n\r\n").as_bytes()).await?;
        let mut answer = Vec::with_capacity(512);
        loop {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(status) = whole(&answer) {
                self.idle.borrow_mut().push(stream);
                return Ok(status);
            }
        }
    }
}
