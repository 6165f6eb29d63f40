//! Events, published to NATS JetStream by the real server: what `GET /v1/events` has, the stream has, in the same order, whoever
//! of the two is killed meanwhile.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use outrigger_tests::peer::{Peer, peer};
use outrigger_tests::process::Process;
use outrigger_tests::{Control, Dir, pki, until, within};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::web;

/// A server of NATS with a directory of its own.
pub(super) struct Server(Process);

impl Server {
    /// It listens on this port, or on a free one.
    pub(super) async fn start(program: &Peer, dir: &Path, port: u16, more: &str) -> Self {
        let config = dir.join("nats.conf");
        let store = dir.join("jetstream");
        let port = if port == 0 { -1 } else { i32::from(port) };
        let text = format!(
            "host: 127.0.0.1\nport: {port}\njetstream {{ store_dir: {} }}\n{more}\n",
            store.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(program.path());
        command.arg("-c").arg(config);
        let server = Self(Process::spawn("nats-server", command));
        server.0.wait_log("Server is ready").await;
        server
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.0.wait_address("Listening for client connections on ").expect("it listens")
    }

    async fn reader(&self) -> Reader {
        let stream = TcpStream::connect(self.address()).await.unwrap();
        let inbox = format!("in.{}", stream.local_addr().unwrap().port());
        let mut reader = Reader { stream: BufReader::new(stream), inbox };
        assert!(reader.line().await.starts_with("INFO "));
        let subscribe = format!("SUB {} 1\r\n", reader.inbox);
        reader.say(&format!("CONNECT {{\"verbose\":false}}\r\n{subscribe}")).await;
        reader
    }
}

/// Somebody who reads a stream, by the protocol itself (<https://docs.nats.io/reference/reference-protocols/nats-protocol>).
struct Reader {
    stream: BufReader<TcpStream>,
    /// Where answers go: nobody else's.
    inbox: String,
}

impl Reader {
    async fn say(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        within("the server speaks", self.stream.read_line(&mut line)).await.unwrap();
        assert!(!line.starts_with("-ERR"), "{line}");
        line.trim_end().to_owned()
    }

    /// Asks JetStream.
    async fn ask(&mut self, what: &str, body: &Value) -> Value {
        let body = body.to_string();
        let head = format!("PUB $JS.API.{what} {} {}", self.inbox, body.len());
        self.say(&format!("{head}\r\n{body}\r\n")).await;
        loop {
            let line = self.line().await;
            let Some(length) = line.strip_prefix("MSG ").and_then(|line| line.rsplit(' ').next()) else {
                continue;
            };
            let mut answer = vec![0; length.parse::<usize>().unwrap() + 2];
            within("the answer is whole", self.stream.read_exact(&mut answer)).await.unwrap();
            return serde_json::from_slice(&answer).unwrap();
        }
    }

    /// So many messages that the stream has; `None` before there is one.
    async fn count(&mut self) -> Option<u64> {
        let info = self.ask("STREAM.INFO.outrigger", &json!({})).await;
        info["state"]["messages"].as_u64()
    }

    /// All that the stream has: subject, headers, event.
    async fn all(&mut self) -> Vec<(String, String, Value)> {
        let mut all = Vec::new();
        for sequence in 1..=self.count().await.unwrap_or(0) {
            let got = self.ask("STREAM.MSG.GET.outrigger", &json!({ "seq": sequence })).await;
            let message = &got["message"];
            let bytes = |key: &str| {
                use base64::Engine;
                let text = message[key].as_str().unwrap_or_default();
                base64::engine::general_purpose::STANDARD.decode(text).unwrap()
            };
            let headers = String::from_utf8(bytes("hdrs")).unwrap();
            let event = serde_json::from_slice(&bytes("data")).unwrap();
            all.push((message["subject"].as_str().unwrap().to_owned(), headers, event));
        }
        all
    }
}

/// The events that a control plane has.
pub(super) fn kept(control: &Control) -> Vec<Value> {
    control.ok(&["events"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until the stream has exactly what the control plane has, at least so many.
pub(super) async fn same(control: &Control, server: &Server, least: usize) -> Vec<(String, String, Value)> {
    let mut reader = server.reader().await;
    until("everything is published", async || {
        let kept = kept(control);
        (kept.len() >= least && reader.count().await == Some(kept.len() as u64)).then_some(())
    })
    .await;
    let all = reader.all().await;
    let published: Vec<_> = all.iter().map(|(_, _, event)| event.clone()).collect();
    assert_eq!(published, kept(control));
    all
}

fn directory() -> Arc<Dir> {
    let dir = Arc::new(Dir::new());
    std::fs::create_dir(dir.file("mesh")).unwrap();
    std::fs::create_dir(dir.file("nats")).unwrap();
    dir
}

fn control(dir: &Arc<Dir>, server: &str) -> Control {
    Control::start_in(dir.clone(), "127.0.0.1:0", &format!("events: {{ nats: {{ {server} }} }}"))
}

/// Makes revisions, one for each of these ports.
fn revisions(control: &Control, ports: std::ops::Range<u16>) {
    for port in ports {
        let file = control.dir().write("web.yaml", &web(&[port])).display().to_string();
        control.ok(&["apply", &file]);
    }
}

#[tokio::test]
async fn every_event_is_published_once_with_its_type_for_subject() {
    let Some(program) = peer("nats-server") else { return };
    let dir = directory();
    let server = Server::start(&program, &dir.file("nats"), 0, "").await;
    let control = control(&dir, &format!("server: 'nats://{}'", server.address()));
    revisions(&control, 1..4);
    control.document("bad.yaml", "clusters: 1\n");
    let all = same(&control, &server, 4).await;
    let subjects: Vec<_> = all.iter().map(|(subject, ..)| subject.as_str()).collect();
    let accepted = "outrigger.events.revision.accepted.v1";
    assert_eq!(subjects, [accepted, accepted, accepted, "outrigger.events.revision.refused.v1"]);
    let (_, headers, event) = &all[0];
    let id = format!("Nats-Msg-Id: 1@{}\r\n", event["time"].as_str().unwrap());
    assert!(
        headers.contains(&id) && headers.contains("content-type: application/cloudevents+json\r\n"),
        "{headers}"
    );
    let mut shown = Value::Null;
    until("it is shown", async || {
        shown = control.status()["publishing"].clone();
        (shown["published"] == 4).then_some(())
    })
    .await;
    assert_eq!(
        (&shown["connected"], &shown["behind"], &shown["why"]),
        (&json!(true), &json!(0), &Value::Null)
    );
    assert!(control.ok(&["status"]).contains(" up to 4, 0 behind\n"));
}

#[tokio::test]
async fn a_control_plane_that_is_killed_loses_nothing() {
    let Some(program) = peer("nats-server") else { return };
    let dir = directory();
    let server = Server::start(&program, &dir.file("nats"), 0, "").await;
    let port = server.address().port();
    let settings = format!("server: 'nats://127.0.0.1:{port}'");
    for round in 1..4 {
        let control = control(&dir, &settings);
        revisions(&control, round * 10..round * 10 + 5);
        // The last ones are hardly on their way.
        control.process().kill();
    }
    let first = control(&dir, &settings);
    same(&first, &server, 15).await;
    // What it has written, sent to one who takes nothing any more, is published by the next one.
    server.0.signal(Signal::STOP);
    revisions(&first, 40..45);
    first.process().kill();
    server.0.kill();
    let server = Server::start(&program, &dir.file("nats"), port, "").await;
    let all = same(&control(&dir, &settings), &server, 20).await;
    let ids: Vec<_> = all.iter().map(|(_, _, event)| event["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, (1..=20).map(|id| id.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_server_that_is_killed_loses_nothing() {
    let Some(program) = peer("nats-server") else { return };
    let dir = directory();
    let mut server = Server::start(&program, &dir.file("nats"), 0, "").await;
    let port = server.address().port();
    let control = control(&dir, &format!("server: 'nats://{}'", server.address()));
    revisions(&control, 1..6);
    for round in 1..3 {
        // What is on its way to it is lost with it, and what comes while it is away finds nobody.
        server.0.signal(Signal::STOP);
        revisions(&control, round * 10..round * 10 + 3);
        server.0.kill();
        revisions(&control, round * 10 + 3..round * 10 + 5);
        until("it is known to be away", async || {
            let status = control.status();
            (status["publishing"]["connected"] == false && status["publishing"]["behind"] != 0).then_some(())
        })
        .await;
        server = Server::start(&program, &dir.file("nats"), port, "").await;
        same(&control, &server, 5 + usize::from(round) * 5).await;
    }
    assert!(control.process().log().contains("events are kept, and published later"));
}

/// A stream that is there is left as it is, and one that is lost gets all that is kept.
#[tokio::test]
async fn a_stream_is_made_where_it_is_not_there_and_never_altered() {
    let Some(program) = peer("nats-server") else { return };
    let dir = directory();
    let server = Server::start(&program, &dir.file("nats"), 0, "").await;
    let mut reader = server.reader().await;
    let own = json!({ "name": "outrigger", "subjects": ["outrigger.events.>", "more"], "storage": "memory", "max_msg_size": 1000 });
    let made = reader.ask("STREAM.CREATE.outrigger", &own).await;
    assert_eq!(made["config"]["storage"], "memory", "{made}");
    let control = control(&dir, &format!("server: 'nats://{}'", server.address()));
    let file = control.dir().write("web.yaml", &web(&[1])).display().to_string();
    control.ok(&["apply", &file, "-m", &"long ".repeat(500)]);
    // What is too large for it goes as far as it fits, and holds nobody up.
    revisions(&control, 2..4);
    until("they are published", async || (reader.count().await == Some(3)).then_some(())).await;
    let all = reader.all().await;
    assert!(all[0].2["data"]["left_out"].is_string(), "{:?}", all[0]);
    assert_eq!((&all[1].2["id"], &all[1].2["data"]["number"]), (&json!("2"), &json!(2)));
    let info = reader.ask("STREAM.INFO.outrigger", &json!({})).await;
    assert_eq!(info["config"]["subjects"], own["subjects"]);
    reader.ask("STREAM.DELETE.outrigger", &json!({})).await;
    revisions(&control, 4..5);
    same(&control, &server, 4).await;
    let info = reader.ask("STREAM.INFO.outrigger", &json!({})).await;
    assert_eq!(
        (&info["config"]["storage"], &info["config"]["subjects"]),
        (&json!("file"), &json!(["outrigger.events.>"]))
    );
}

/// Nothing is taken for published that the stream has not acknowledged.
#[tokio::test]
async fn a_stream_that_does_not_take_them_gets_them_when_it_does() {
    let Some(program) = peer("nats-server") else { return };
    let dir = directory();
    let server = Server::start(&program, &dir.file("nats"), 0, "").await;
    let mut reader = server.reader().await;
    let stream = |subject: &str| json!({ "name": "outrigger", "subjects": [subject] });
    reader.ask("STREAM.CREATE.outrigger", &stream("other.>")).await;
    let control = control(&dir, &format!("server: 'nats://{}'", server.address()));
    revisions(&control, 1..4);
    until("it says why", async || {
        let said = control.status()["publishing"].clone();
        (said["why"] == "no stream found for given subject" && said["behind"] == 3).then_some(())
    })
    .await;
    reader.ask("STREAM.UPDATE.outrigger", &stream("outrigger.events.>")).await;
    same(&control, &server, 3).await;
}

#[tokio::test]
async fn a_server_is_believed_by_its_root_alone_and_wants_a_password() {
    let Some(program) = peer("nats-server") else { return };
    let dir = directory();
    let authority = pki::Authority::new("nats.test");
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let shown = authority.sign(params);
    dir.write("ca.crt", &authority.pem());
    dir.write("other.crt", &pki::Authority::new("other.test").pem());
    dir.write("password", "wrong\n");
    let [certificate, key] =
        [("tls.crt", &shown.chain), ("tls.key", &shown.key)].map(|(name, text)| dir.write(name, text));
    let more = format!(
        "tls {{ cert_file: {}, key_file: {} }}\nauthorization {{ user: me, password: pass }}",
        certificate.display(),
        key.display()
    );
    let server = Server::start(&program, &dir.file("nats"), 0, &more).await;
    let login =
        format!("server: 'tls://localhost:{}', user: me, password: password", server.address().port());
    let why = async |control: &Control| {
        until("it says why", async || control.status()["publishing"]["why"].as_str().map(str::to_owned)).await
    };
    let stranger = control(&dir, &format!("{login}, trust: other.crt"));
    let said = why(&stranger).await;
    assert!(said.contains("UnknownIssuer") || said.contains("certificate"), "{said}");
    drop(stranger);
    let control = control(&dir, &format!("{login}, trust: ca.crt"));
    assert!(why(&control).await.contains("authorization violation"));
    revisions(&control, 1..3);
    // It is read again by itself.
    dir.write("password", "pass\n");
    until("they are published", async || (control.status()["publishing"]["published"] == 2).then_some(()))
        .await;
}
