//! A service whose health can be changed while it serves.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::Instant;

use crate::error::{Doing, Result};

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BAD: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

/// How a service is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Weather {
    /// Every request is answered 200 at once.
    Well,
    /// So many of a hundred are answered 503.
    Failing(u64),
    /// Every connection is closed in place of an answer.
    Closing,
    /// Every request takes so long.
    Slow(Duration),
    /// For so long all fail, then for so long none.
    Flapping(Duration),
}

/// A service; gone when dropped.
#[derive(Debug)]
pub(crate) struct Service {
    port: u16,
    state: Rc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    weather: Cell<(Weather, Instant)>,
    requests: Cell<u64>,
}

impl Service {
    /// One that is well.
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.doing("starting a service")?;
        let port = listener.local_addr().doing("starting a service")?.port();
        let weather = Cell::new((Weather::Well, Instant::now()));
        let state = Rc::new(State { weather, requests: Cell::new(0) });
        let shared = state.clone();
        let task = spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn_local(serve(stream, shared.clone()));
            }
        });
        Ok(Self { port, state, task })
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on it is so.
    pub(crate) fn set(&self, weather: Weather) {
        self.state.weather.set((weather, Instant::now()));
    }

    /// Requests that have reached it.
    pub(crate) fn requests(&self) -> u64 {
        self.state.requests.get()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, state: Rc<State>) {
    let _best_effort = stream.set_nodelay(true);
    let mut head = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut head).await {
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        head.clear();
        match state.answer().await {
            Some(answer) if stream.write_all(answer).await.is_ok() => {}
            Some(_) | None => return,
        }
    }
}

impl State {
    /// `None` where there is none.
    async fn answer(&self) -> Option<&'static [u8]> {
        let number = self.requests.replace(self.requests.get() + 1);
        let (weather, since) = self.weather.get();
        Some(match weather {
            Weather::Well => GOOD,
            Weather::Closing => return None,
            // Spread evenly, and alike in every run; 37 is prime to 100.
            Weather::Failing(percent) if number * 37 % 100 < percent => BAD,
            Weather::Failing(_) => GOOD,
            Weather::Slow(time) => {
                tokio::time::sleep(time).await;
                GOOD
            }
            Weather::Flapping(time) => {
                let turn = since.elapsed().as_millis() / time.as_millis().max(1);
                if turn.is_multiple_of(2) { BAD } else { GOOD }
            }
        })
    }
}
