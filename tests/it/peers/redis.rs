//! Redis through a TCP listener: answers in turn, many commands at once, a server that speaks unasked, large values.

use std::fmt::Write as _;

use outrigger_tests::peer::{Peer, Ran, peer};
use outrigger_tests::{Client, Dir, Proxy, until};

use super::{Running, free_port, quiet, run};

struct Scene {
    cli: Peer,
    proxy: Proxy,
    port: String,
    _server: Running,
    _dir: Dir,
}

impl Scene {
    /// The server behind TCP, or behind a unix socket: one is joined by `splice`, the other may not be.
    async fn start(unix: bool) -> Option<Self> {
        let (server, cli) = (peer("redis-server")?, peer("redis-cli")?);
        let dir = Dir::new();
        let port = if unix { "0".to_owned() } else { free_port().to_string() };
        let socket = dir.file("redis.sock");
        let mut args =
            vec!["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir", dir.path().to_str()?];
        if unix {
            args.extend(["--unixsocket", socket.to_str()?]);
        }
        let mut running = Running::start(server.path(), &args);
        running
            .line_with(if unix { "ready to accept connections at" } else { "eady to accept connections" })
            .await;
        let endpoint = if unix { format!("unix:{}", socket.display()) } else { format!("127.0.0.1:{port}") };
        let proxy = Proxy::start(&format!(
            "listeners:\n  redis: {{ bind: 127.0.0.1:0, tcp: {{ to: redis }} }}\n\
             clusters:\n  redis: {{ endpoints: [\"{endpoint}\"] }}\n"
        ))
        .await;
        let port = proxy.address("redis").port().to_string();
        Some(Self { cli, proxy, port, _server: running, _dir: dir })
    }

    async fn cli(&self, args: &[&str], stdin: &[u8]) -> Ran {
        run(self.cli.path(), &[&["-h", "127.0.0.1", "-p", &self.port, "--raw"][..], args].concat(), stdin)
            .await
    }

    async fn ask(&self, args: &[&str]) -> String {
        self.cli(args, b"").await.ok().trim_end().to_owned()
    }
}

async fn commands(unix: bool) {
    let Some(scene) = Scene::start(unix).await else { return };
    assert_eq!(scene.ask(&["SET", "greeting", "hello"]).await, "OK");
    assert_eq!(scene.ask(&["GET", "greeting"]).await, "hello");
    assert_eq!(scene.ask(&["EVAL", "return {1,2,'three'}", "0"]).await, "1\n2\nthree");
    pipeline(&scene).await;
    large(&scene).await;
    quiet(&scene.proxy).await;
}

/// A thousand commands before the first answer is read.
async fn pipeline(scene: &Scene) {
    let mut commands = String::new();
    for n in 0..1000 {
        let (key, value) = (format!("key:{n}"), "v".repeat(n % 100));
        write!(commands, "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), value.len())
            .unwrap();
    }
    let said = scene.cli(&["--pipe"], commands.as_bytes()).await.ok();
    assert!(said.contains("errors: 0, replies: 1000"), "{said}");
    let size: usize = scene.ask(&["DBSIZE"]).await.parse().unwrap();
    assert!(size >= 1000, "{size}");
    // By hand, on one connection, and a half-close at the end: every answer comes all the same.
    let mut client = scene.proxy.client("redis").await;
    client.send((0..1000).map(|n| format!("GET key:{n}\r\n")).collect::<String>()).await;
    client.send("QUIT\r\n").await;
    client.finish().await;
    let wanted: String = (0..1000).map(|n| format!("${}\r\n{}\r\n", n % 100, "v".repeat(n % 100))).collect();
    assert_eq!(String::from_utf8_lossy(&client.rest().await), wanted + "+OK\r\n");
}

async fn large(scene: &Scene) {
    let value: String = (0..5 * 1024 * 1024 / 8).map(|n| format!("{n:08x}")).collect();
    assert_eq!(scene.cli(&["-x", "SET", "large"], value.as_bytes()).await.ok().trim_end(), "OK");
    assert_eq!(scene.ask(&["STRLEN", "large"]).await, value.len().to_string());
    assert!(scene.ask(&["GET", "large"]).await == value, "5 MiB do not come back as they were");
}

#[tokio::test]
async fn commands_over_tcp() {
    commands(false).await;
}

#[tokio::test]
async fn commands_over_a_unix_socket() {
    commands(true).await;
}

#[tokio::test]
async fn the_server_pushes_what_is_published() {
    let Some(scene) = Scene::start(false).await else { return };
    let args = ["-h", "127.0.0.1", "-p", &scene.port, "--csv", "SUBSCRIBE", "news"];
    let mut subscriber = Running::start(scene.cli.path(), &args);
    subscriber.line_with("\"subscribe\",\"news\",1").await;
    let mut publisher = scene.proxy.client("redis").await;
    for n in 0..100 {
        publisher.send(format!("PUBLISH news item-{n}\r\n")).await;
        assert_eq!(publisher.exactly(4).await, b":1\r\n");
        assert_eq!(subscriber.line().await, format!("\"message\",\"news\",\"item-{n}\""));
    }
    drop((subscriber, publisher));
    // The subscriber's end reaches the server.
    until("the server has no subscriber left", async || {
        (scene.ask(&["PUBSUB", "NUMSUB", "news"]).await == "news\n0").then_some(())
    })
    .await;
    quiet(&scene.proxy).await;
}

#[tokio::test]
async fn many_clients_under_load() {
    let Some(scene) = Scene::start(false).await else { return };
    let Some(benchmark) = peer("redis-benchmark") else { return };
    let args = [
        "-h",
        "127.0.0.1",
        "-p",
        &scene.port,
        "-n",
        "5000",
        "-c",
        "20",
        "-P",
        "16",
        "-t",
        "set,get",
        "--csv",
    ];
    let said = run(benchmark.path(), &args, b"").await.ok();
    assert!(said.contains("\"SET\"") && said.contains("\"GET\""), "{said}");
    quiet(&scene.proxy).await;
}

#[tokio::test]
async fn a_server_that_is_gone_ends_the_connection() {
    let Some(cli) = peer("redis-cli") else { return };
    let proxy = Proxy::start(&format!(
        "listeners:\n  redis: {{ bind: 127.0.0.1:0, tcp: {{ to: redis }} }}\n\
         clusters:\n  redis: {{ endpoints: [127.0.0.1:{}] }}\n",
        free_port()
    ))
    .await;
    let port = proxy.address("redis").port().to_string();
    let ran = run(cli.path(), &["-h", "127.0.0.1", "-p", &port, "PING"], b"").await;
    let said = ran.stdout.clone() + &ran.stderr;
    assert!(said.contains("closed") || said.contains("reset"), "{said}");
    assert!(Client::connect(proxy.address("redis")).await.rest().await.is_empty());
    quiet(&proxy).await;
}
