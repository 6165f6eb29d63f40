//! Clients that ask at a fixed rate over connections that they keep, by HTTP/1.1 and by HTTP/2, and others that hold a
//! WebSocket or a call of gRPC open and say something over it ten times a second. An idle connection that the proxy has
//! closed is noted and replaced, as clients do; what has been asked and is not answered has failed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{Instant, interval, timeout};

use super::origin::{CALL, send};
use crate::net::local;

/// Requests a second, by HTTP/1.1 and by HTTP/2.
pub(crate) const RATES: [u32; 2] = [400, 200];
/// WebSockets, and as many calls.
pub(crate) const HELD: usize = 8;
/// Between two messages over each of them.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);
/// Who has no answer by then takes it for a failure.
const PATIENCE: Duration = Duration::from_secs(5);

const UPGRADE: &[u8] = b"GET /chat HTTP/1.1\r\nhost: swap\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: eA==\r\nsec-websocket-version: 13\r\n\r\n";
/// A frame of text, masked with zeros.
const FRAME: &[u8] = b"\x81\x84\0\0\0\0ping";
/// A message of gRPC.
const MESSAGE: &[u8] = b"\0\0\0\0\x04ping";

/// What came of it so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Of each answer, how long it took.
    pub(crate) took: Vec<Duration>,
    /// Messages that came back.
    pub(crate) messages: usize,
    /// Requests that were not answered 200, by what happened instead.
    pub(crate) failed: BTreeMap<String, usize>,
    /// WebSockets and calls that were broken off, by how.
    pub(crate) broken: BTreeMap<String, usize>,
    /// Connections that the proxy has ended, or said that it will.
    pub(crate) closed: usize,
}

/// Clients at work; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Clients {
    state: Rc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    port: u16,
    idle: RefCell<Vec<TcpStream>>,
    h2: RefCell<Option<SendRequest<Bytes>>>,
    tally: RefCell<Tally>,
}

impl Clients {
    /// They ask the proxy at this port.
    pub(crate) fn start(port: u16) -> Self {
        let state = Rc::new(State {
            port,
            idle: RefCell::default(),
            h2: RefCell::default(),
            tally: RefCell::default(),
        });
        let mut tasks = JoinSet::new();
        for (number, rate) in RATES.into_iter().enumerate() {
            let state = state.clone();
            tasks.spawn_local(async move {
                let mut ticks = interval(Duration::from_secs(1) / rate);
                loop {
                    ticks.tick().await;
                    spawn_local(state.clone().ask(number == 1));
                }
            });
        }
        for _ in 0..HELD {
            tasks.spawn_local(hold(state.clone(), "a WebSocket", State::socket));
            tasks.spawn_local(hold(state.clone(), "a call", State::call));
        }
        Self { state, _tasks: tasks }
    }

    /// What came of all since the last time.
    pub(crate) fn take(&self) -> Tally {
        self.state.tally.take()
    }
}

/// Keeps something open; what is broken off is noted, and opened again.
async fn hold(state: Rc<State>, what: &str, open: impl AsyncFn(&State) -> std::io::Result<()>) {
    loop {
        let error = match open(&state).await {
            Ok(()) => "ended".to_owned(),
            Err(error) => error.to_string(),
        };
        *state.tally.borrow_mut().broken.entry(format!("{what}: {error}")).or_default() += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

impl State {
    async fn ask(self: Rc<Self>, http2: bool) {
        let at = Instant::now();
        let answered =
            timeout(PATIENCE, async { if http2 { self.ask_h2().await } else { self.ask_h1().await } });
        let error = match answered.await {
            Ok(Ok(200)) => {
                self.tally.borrow_mut().took.push(at.elapsed());
                return;
            }
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer in {PATIENCE:?}"),
        };
        *self.tally.borrow_mut().failed.entry(error).or_default() += 1;
    }

    fn note_closed(&self) {
        self.tally.borrow_mut().closed += 1;
    }

    /// One of those that wait and are open.
    fn take_idle(&self) -> Option<TcpStream> {
        loop {
            let stream = self.idle.borrow_mut().pop()?;
            match stream.try_read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(stream),
                Ok(_) | Err(_) => self.note_closed(),
            }
        }
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(local(self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn ask_h1(&self) -> std::io::Result<u16> {
        let mut stream = match self.take_idle() {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        stream.write_all(b"GET / HTTP/1.1\r\nhost: swap\r\n\r\n").await?;
        let head = head(&mut stream).await?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).await?;
        if head.contains("\r\nconnection: close") {
            self.note_closed();
        } else {
            self.idle.borrow_mut().push(stream);
        }
        status(&head)
    }

    /// Opens a connection, whose end is noted whenever it comes.
    async fn connect_h2(self: &Rc<Self>) -> std::io::Result<SendRequest<Bytes>> {
        let (requests, connection) =
            h2::client::handshake(self.connect().await?).await.map_err(Error::other)?;
        let state = Rc::downgrade(self);
        spawn_local(async move {
            let _however_it_ends = connection.await;
            if let Some(state) = state.upgrade() {
                state.note_closed();
            }
        });
        Ok(requests)
    }

    async fn ask_h2(self: &Rc<Self>) -> std::io::Result<u16> {
        let known = self.h2.borrow().clone();
        let ready = match known {
            Some(known) => known.ready().await.ok(),
            None => None,
        };
        let mut ready = match ready {
            Some(ready) => ready,
            None => {
                let new = self.connect_h2().await?;
                self.h2.replace(Some(new.clone()));
                new.ready().await.map_err(Error::other)?
            }
        };
        let request = Request::get("http://swap/h2").body(()).map_err(Error::other)?;
        let (response, _) = ready.send_request(request, true).map_err(Error::other)?;
        let response = response.await.map_err(Error::other)?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            let data = data.map_err(Error::other)?;
            body.flow_control().release_capacity(data.len()).map_err(Error::other)?;
        }
        Ok(status)
    }

    async fn socket(&self) -> std::io::Result<()> {
        let mut stream = self.connect().await?;
        stream.write_all(UPGRADE).await?;
        let answer = head(&mut stream).await?;
        if status(&answer)? != 101 {
            return Err(Error::other(answer.lines().next().unwrap_or_default()));
        }
        let mut ticks = interval(PAUSE);
        loop {
            ticks.tick().await;
            stream.write_all(FRAME).await?;
            // One that hangs is broken too.
            timeout(PATIENCE, stream.read_exact(&mut [0; FRAME.len()])).await??;
            self.tally.borrow_mut().messages += 1;
        }
    }

    async fn call(&self) -> std::io::Result<()> {
        let (requests, connection) =
            h2::client::handshake(self.connect().await?).await.map_err(Error::other)?;
        let mut driver = JoinSet::new();
        driver.spawn_local(async move { drop(connection.await) });
        let call = Request::post(format!("http://swap{CALL}")).header("te", "trailers");
        let call = call.header("content-type", "application/grpc").body(()).map_err(Error::other)?;
        let mut ready = requests.ready().await.map_err(Error::other)?;
        let (response, mut stream) = ready.send_request(call, false).map_err(Error::other)?;
        let response = response.await.map_err(Error::other)?;
        if response.status() != 200 {
            return Err(Error::other(response.status().to_string()));
        }
        let mut body = response.into_body();
        let mut ticks = interval(PAUSE);
        loop {
            ticks.tick().await;
            if timeout(PATIENCE, send(&mut stream, Bytes::from_static(MESSAGE))).await?.is_none() {
                return Err(Error::other("it takes no more messages"));
            }
            let mut left = MESSAGE.len();
            while left > 0 {
                let data = timeout(PATIENCE, body.data()).await?;
                let data = data.ok_or(ErrorKind::UnexpectedEof)?.map_err(Error::other)?;
                body.flow_control().release_capacity(data.len()).map_err(Error::other)?;
                left = left.saturating_sub(data.len());
            }
            self.tally.borrow_mut().messages += 1;
        }
    }
}

/// The head of an answer in small letters; an end before it is one without an answer.
async fn head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(Error::other("the connection ended without an answer"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&head).to_ascii_lowercase())
}

fn status(head: &str) -> std::io::Result<u16> {
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| Error::other("not an answer"))
}
