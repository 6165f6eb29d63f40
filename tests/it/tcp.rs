//! Bytes as they are: both directions, each ended by whoever ends it, none lost, none invented.

use std::sync::Arc;

use outrigger_tests::{Client, Dir, Origin, Proxy, until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

fn config(bind: &str, endpoint: &str, more: &str) -> String {
    format!(
        "listeners:\n  db:\n    bind: \"{bind}\"\n{more}    tcp: {{ to: db }}\nclusters:\n  db: {{ endpoints: [\"{endpoint}\"] }}\n"
    )
}

async fn start<F: Future<Output = ()> + Send + 'static>(
    script: impl Fn(outrigger_tests::Conn) -> F + Send + Sync + 'static,
) -> (Origin, Proxy) {
    let origin = Origin::start(script).await;
    let proxy = Proxy::start(&config("127.0.0.1:0", origin.address(), "")).await;
    (origin, proxy)
}

#[tokio::test]
async fn the_client_ends_first() {
    let (_origin, proxy) = start(async |mut conn| {
        let all = conn.rest().await;
        conn.send(format!("got {}", all.len())).await;
    })
    .await;
    let mut client = proxy.client("db").await;
    client.send([7; 1000]).await;
    client.finish().await;
    assert_eq!(client.rest().await, b"got 1000");
}

#[tokio::test]
async fn the_origin_ends_first() {
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    let (_origin, proxy) = start(move |mut conn| {
        let tell = tell.clone();
        async move {
            conn.send("hello and goodbye").await;
            conn.finish().await;
            tell.send(conn.rest().await).unwrap();
        }
    })
    .await;
    let mut told = told;
    let mut client = proxy.client("db").await;
    assert_eq!(client.rest().await, b"hello and goodbye");
    client.send("still here").await;
    client.finish().await;
    assert_eq!(within("the other direction", told.recv()).await.unwrap(), b"still here");
}

#[tokio::test]
async fn who_speaks_first_makes_no_difference() {
    let (_origin, proxy) = start(async |mut conn| {
        conn.send("220 hello\r\n").await;
        let line = conn.exactly(6).await.unwrap();
        conn.send(line).await;
    })
    .await;
    let mut client = proxy.client("db").await;
    assert_eq!(client.exactly(11).await, b"220 hello\r\n");
    client.send("QUIT\r\n").await;
    assert_eq!(client.rest().await, b"QUIT\r\n");
}

/// A checksum of what came, in an order that matters.
fn sum(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn noise(n: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..n).map(next).collect()
}

#[tokio::test]
async fn a_large_transfer_arrives_as_it_was() {
    const SIZE: usize = 32 << 20;
    let (_origin, proxy) = start(async |mut conn| {
        while let Some(bytes) = conn.some().await {
            conn.send(bytes).await;
        }
    })
    .await;
    let sent = noise(SIZE);
    let (client, _) = proxy.client("db").await.into_parts();
    let (mut from, mut to) = client.into_split();
    let expected = sum(sent.iter().copied());
    let sending = tokio::spawn(async move {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    });
    let mut received = Vec::with_capacity(SIZE);
    within("all of it", from.read_to_end(&mut received)).await.unwrap();
    sending.await.unwrap();
    assert_eq!((received.len(), sum(received.into_iter())), (SIZE, expected));
}

#[tokio::test]
async fn an_origin_that_does_not_read_holds_the_client_back() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let (_origin, proxy) = start(move |mut conn| {
        let mut gate = gate.clone();
        async move {
            let _ = gate.wait_for(|go| *go).await;
            let all = conn.rest().await;
            conn.send(all.len().to_string()).await;
        }
    })
    .await;
    let (mut stream, _) = proxy.client("db").await.into_parts();
    let piece = [1; 64 << 10];
    let mut sent = 0;
    while let Ok(n) = tokio::time::timeout(std::time::Duration::from_millis(500), stream.write(&piece)).await
    {
        sent += n.unwrap();
        assert!(sent < 256 << 20, "{sent} bytes were taken for an origin that reads nothing");
    }
    go.send(true).unwrap();
    let mut client = Client::over(stream);
    client.finish().await;
    assert_eq!(client.rest().await, sent.to_string().as_bytes());
}

#[tokio::test]
async fn a_reset_of_the_client_reaches_the_origin() {
    let (origin, proxy) = start(async |mut conn| {
        conn.some().await;
        conn.rest().await;
    })
    .await;
    let mut client = proxy.client("db").await;
    client.send("x").await;
    until("the origin is there", async || (origin.opened() == 1).then_some(())).await;
    let (stream, _) = client.into_parts();
    stream.set_zero_linger().unwrap();
    drop(stream);
    origin.wait_closed(1).await;
}

#[tokio::test]
async fn an_origin_that_is_not_there_ends_the_connection() {
    let proxy = Proxy::start(&config("127.0.0.1:0", "127.0.0.1:1", "")).await;
    let mut client = proxy.client("db").await;
    assert_eq!(client.rest().await, b"");
    proxy
        .wait_metric(
            "outrigger_downstream_errors_total{listener=\"db\",reason=\"upstream_connect_refused\"}",
            |n| n >= 1.0,
        )
        .await;
}

#[tokio::test]
async fn idle_connections_are_closed_and_busy_ones_are_not() {
    let origin = Origin::start(async |mut conn| {
        while let Some(bytes) = conn.some().await {
            conn.send(bytes).await;
        }
    })
    .await;
    let text = config("127.0.0.1:0", origin.address(), "").replace("to: db }", "to: db, idle_timeout: 1s }");
    let proxy = Proxy::start(&text).await;
    let mut busy = proxy.client("db").await;
    let mut idle = proxy.client("db").await;
    idle.send("x").await;
    assert_eq!(idle.exactly(1).await, b"x");
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(2);
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(100));
    while tokio::time::Instant::now() < end {
        tick.tick().await;
        busy.send("y").await;
        assert_eq!(busy.exactly(1).await, b"y");
    }
    assert_eq!(idle.rest().await, b"");
}

#[tokio::test]
async fn unix_sockets_on_both_sides() {
    let dir = Arc::new(Dir::new());
    let (front, back) = (dir.file("front.sock"), dir.file("back.sock"));
    let _origin = Origin::start_unix(&back, async |mut conn| {
        let all = conn.rest().await;
        conn.send(all).await;
    });
    // What a process that crashed has left behind is in nobody's way.
    drop(std::os::unix::net::UnixListener::bind(&front).unwrap());
    let unix = |path: &std::path::Path| format!("unix:{}", path.display());
    let _proxy = Proxy::start_in(dir.clone(), &config(&unix(&front), &unix(&back), "")).await;
    let mut client = Client::over(UnixStream::connect(&front).await.unwrap());
    client.send(noise(100_000)).await;
    client.finish().await;
    assert_eq!(sum(client.rest().await.into_iter()), sum(noise(100_000).into_iter()));
}

#[tokio::test]
async fn http_over_unix_sockets() {
    let dir = Arc::new(Dir::new());
    let (front, back) = (dir.file("front.sock"), dir.file("back.sock"));
    let origin = Origin::start_unix(&back, async |mut conn| {
        while conn.request().await.is_some() {
            conn.send(outrigger_tests::origin::ok("over unix")).await;
        }
    });
    let text =
        crate::web([origin.address()]).replace("127.0.0.1:0", &format!("\"unix:{}\"", front.display()));
    let _proxy = Proxy::start_in(dir.clone(), &text).await;
    let mut client = Client::over(UnixStream::connect(&front).await.unwrap());
    assert_eq!(client.get("/").await.text(), "over unix");
    assert_eq!(origin.last().field("host"), Some("test"));
}

#[tokio::test]
async fn tls_is_taken_off_before_bytes_are_passed() {
    let Some(curl) = outrigger_tests::peer::peer("curl") else { return };
    let origin = Origin::ok("plain inside").await;
    let dir = Arc::new(Dir::new());
    outrigger_tests::tls::write_certificate(&dir, &["localhost"]);
    let text =
        config("127.0.0.1:0", origin.address(), "    tls: { certificate: tls.crt, private_key: tls.key }\n");
    let proxy = Proxy::start_in(dir.clone(), &text).await;
    let url = format!("https://localhost:{}/", proxy.address("db").port());
    let out = curl
        .run(["-sS", "-4", "--http1.1", "--cacert", dir.file("ca.crt").to_str().unwrap(), &url])
        .await
        .ok();
    assert_eq!(out, "plain inside");
}

#[tokio::test]
async fn connections_are_spread_over_endpoints() {
    let (a, b) = (Origin::ok("a").await, Origin::ok("b").await);
    let text = format!(
        "listeners:\n  db:\n    bind: 127.0.0.1:0\n    tcp: {{ to: db }}\nclusters:\n  db: {{ endpoints: [{}, {}], balance: round-robin }}\n",
        a.address(),
        b.address()
    );
    let proxy = Proxy::start(&text).await;
    for _ in 0..20 {
        assert_eq!(proxy.get("db", "/").await.status, 200);
    }
    assert_eq!((a.opened(), b.opened()), (10, 10));
}
