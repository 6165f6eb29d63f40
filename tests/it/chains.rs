//! Several chains on one listener, as a file says them: what becomes of connections that do not say what they are, of limits,
//! and of connections when what is said changes.

use outrigger_tests::wait::PATIENCE;
use outrigger_tests::{Client, Proxy, within};
use rustix::process::Signal;
use tokio::net::{TcpSocket, TcpStream};

/// A listener `web` of these chains.
fn web(chains: &str) -> String {
    let table = |name: &str| format!("  {name}: [{{ respond: {{ body: {name} }} }}]\n");
    let tables = ["one", "two", "three"].map(table).concat();
    format!("listeners:\n  web: {{ bind: 127.0.0.1:0, {chains} }}\nroute_tables:\n{tables}")
}

async fn counted(proxy: &Proxy, series: &str, times: f64) {
    let (name, label) = series.split_once(' ').unwrap();
    let series = format!("outrigger_downstream_{name}_total{{listener=\"web\",{label}}}");
    proxy.wait_metric(&series, |n| (n - times).abs() < 0.5).await;
}

#[tokio::test]
async fn nobody_is_waited_for_who_does_not_say_what_it_is() {
    let chains = "chains: [{ when: { sni: a.test }, routes: one, limits: { header_timeout: 1s } }]";
    let proxy = Proxy::start(&web(chains)).await;
    for (sent, series, times) in [
        (&b"\x16this is no handshake"[..], "errors reason=\"tls_handshake\"", 1.0),
        // The beginning of one, and nothing at all.
        (&[22, 3, 1, 2, 0, 1], "limits limit=\"header_timeout\"", 1.0),
        (&[], "limits limit=\"header_timeout\"", 2.0),
        (b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "errors reason=\"no_chain\"", 1.0),
    ] {
        let mut client = proxy.client("web").await;
        client.send(sent).await;
        let answer = client.rest().await;
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
        counted(&proxy, series, times).await;
    }
    // One that ends by itself costs no more.
    drop(proxy.client("web").await);
    counted(&proxy, "errors reason=\"no_chain\"", 2.0).await;
}

#[tokio::test]
async fn an_undecided_connection_holds_up_no_end() {
    let proxy = Proxy::start(&web("chains: [{ when: { sni: a.test }, routes: one }]")).await;
    let mut undecided = proxy.client("web").await;
    undecided.send([22, 3, 1]).await;
    proxy.signal(Signal::TERM);
    assert!(proxy.exit(PATIENCE).await.success(), "{}", proxy.log());
    assert_eq!(undecided.rest().await, b"");
}

async fn from(ip: [u8; 4], proxy: &Proxy) -> Client<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((ip, 0).into()).unwrap();
    Client::over(within("a connection", socket.connect(proxy.address("web"))).await.unwrap())
}

#[tokio::test]
async fn the_other_end_decides_before_where_it_is() {
    let chains = "chains: [{ when: { direct_source: 127.0.0.2 }, routes: two }, { when: { origin: local }, routes: one }]";
    let proxy = Proxy::start(&web(chains)).await;
    assert_eq!(from([127, 0, 0, 1], &proxy).await.get("/").await.body, b"one");
    assert_eq!(from([127, 0, 0, 2], &proxy).await.get("/").await.body, b"two");
}

#[tokio::test]
async fn each_chain_counts_its_own_connections() {
    let chains = "chains: [{ when: { source: 127.0.0.2 }, routes: two, limits: { connections: 1 } }], rest: { routes: one }";
    let proxy = Proxy::start(&web(chains)).await;
    let mut one = from([127, 0, 0, 1], &proxy).await;
    let mut two = from([127, 0, 0, 2], &proxy).await;
    assert_eq!((one.get("/").await.body, two.get("/").await.body), (b"one".to_vec(), b"two".to_vec()));
    assert!(from([127, 0, 0, 2], &proxy).await.try_get("/").await.is_none());
    counted(&proxy, "limits limit=\"connections\"", 1.0).await;
    assert_eq!(from([127, 0, 0, 1], &proxy).await.get("/").await.body, b"one");
    assert_eq!(two.get("/").await.body, b"two");
}

#[tokio::test]
async fn a_connection_stays_with_what_takes_its_like() {
    let proxy = Proxy::start(&web("routes: one")).await;
    let mut open = proxy.client("web").await;
    assert_eq!(open.get("/").await.body, b"one");
    // One chain for all, and one for the rest.
    let chains = "chains: [{ when: { source: 127.0.0.2 }, routes: two }], rest: { routes: three }";
    proxy.reload(&web(chains)).await;
    let mut two = from([127, 0, 0, 2], &proxy).await;
    assert_eq!((open.get("/").await.body, two.get("/").await.body), (b"three".to_vec(), b"two".to_vec()));
    proxy.reload(&web("routes: one")).await;
    assert_eq!(open.get("/").await.body, b"one");
    // Nothing takes what it was taken by: it goes on as it was.
    assert_eq!(two.get("/").await.body, b"two");
    assert_eq!(from([127, 0, 0, 2], &proxy).await.get("/").await.body, b"one");
}
