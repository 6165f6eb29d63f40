//! What lives is kept: a change that the control plane tells under way touches what it names and nothing else.

mod edits;
mod replicas;
mod table;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::Request;
use outrigger_tests::echo::send_h2;
use outrigger_tests::h2client::H2;
use outrigger_tests::{Client, Control, Echo, Origin, Proxy, within};

use crate::upgrade::{AGREE, ASK, repeat};

/// Text frame of a client, masked with zeros, of eight bytes.
const FRAME: [u8; 6] = [0x81, 0x88, 0, 0, 0, 0];

/// An origin that agrees to any upgrade, and sends back what it gets.
async fn sockets() -> Origin {
    Origin::start(async |mut conn| {
        conn.head().await;
        conn.send(AGREE).await;
        repeat(&mut conn).await;
    })
    .await
}

/// A call of gRPC that stays open, and whose messages come back.
#[derive(Debug)]
struct Call {
    /// Its connection, which is to stay as well.
    client: H2,
    send: SendStream<Bytes>,
    body: RecvStream,
    /// Who answers it.
    origin: String,
}

impl Call {
    async fn open(proxy: &Proxy) -> Self {
        let client = H2::connect(proxy.address("web")).await;
        let call = Request::post("http://test/calls").header("te", "trailers").header("x-want", "echo");
        let call = call.header("content-type", "application/grpc").body(()).unwrap();
        let (response, send) = client.open(call, false).await;
        let response = within("the head of a call", response).await.unwrap();
        assert_eq!(response.status(), 200);
        let origin = response.headers()["x-origin"].to_str().unwrap().to_owned();
        Self { client, send, body: response.into_body(), origin }
    }

    /// A message there and back.
    async fn say(&mut self, text: &str) {
        let message = [&[0, 0, 0, 0, 8], text.as_bytes()].concat();
        send_h2(&mut self.send, message.clone().into()).await.expect("the call is open");
        let mut back = Vec::new();
        while back.len() < message.len() {
            let data =
                within("a message of a call", self.body.data()).await.expect("the call goes on").unwrap();
            self.body.flow_control().release_capacity(data.len()).unwrap();
            back.extend_from_slice(&data);
        }
        assert_eq!(back, message);
    }
}

/// What stays open whatever comes: WebSockets, and calls of gRPC.
#[derive(Debug)]
struct Held {
    sockets: Vec<Client>,
    calls: Vec<Call>,
    said: usize,
}

impl Held {
    async fn open(proxy: &Proxy, each: usize) -> Self {
        let (mut sockets, mut calls) = (Vec::new(), Vec::new());
        for _ in 0..each {
            let mut socket = proxy.client("web").await;
            socket.send(ASK.replace("Host: t\r", "Host: test\r")).await;
            assert_eq!(socket.reply().await.status, 101);
            sockets.push(socket);
            calls.push(Call::open(proxy).await);
        }
        Self { sockets, calls, said: 0 }
    }

    /// A message over each of them, there and back.
    async fn say(&mut self) {
        self.said += 1;
        let text = format!("m{:07}", self.said);
        for call in &mut self.calls {
            call.say(&text).await;
        }
        let frame = [&FRAME, text.as_bytes()].concat();
        for socket in &mut self.sockets {
            socket.send(&frame).await;
            assert_eq!(socket.exactly(frame.len()).await, frame);
        }
    }
}

/// A control plane with a document that people change.
struct Plane {
    control: Control,
    revision: u64,
}

impl Plane {
    fn start(text: &str) -> Self {
        let mut plane = Self { control: Control::start("", &[]), revision: 0 };
        plane.apply(text);
        plane
    }

    fn apply(&mut self, text: &str) {
        let file = self.control.dir().write("mesh.yaml", text).display().to_string();
        self.control.ok(&["apply", &file]);
        self.revision += 1;
    }

    /// Waits until its one node has taken the last of it.
    async fn taken(&self) {
        self.control.wait_in_sync(1, self.revision).await;
    }
}

/// Connections that were opened at an origin, and those that have ended.
fn connections(echo: &Echo) -> (usize, usize) {
    (echo.opened(), echo.closed())
}

/// What a proxy serves, written out.
async fn in_force(proxy: &Proxy) -> String {
    proxy.ask("/config?format=yaml").await.text()
}
