//! The control plane is away, and proxies are started again meanwhile: each has another beside it, and what was said last.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use outrigger_tests::load::{Load, OnClose};
use outrigger_tests::wait::PATIENCE;
use outrigger_tests::{Control, Dir, Echo, Proxy, until};
use rustix::process::Signal;

use super::super::{answered_by, port, proxy};

const NAMES: [&str; 2] = ["a", "b"];
/// Proxies that lose their control plane in the same moment.
const MANY: usize = 12;

/// A listener and an address for each, one service behind both.
fn document(at: [SocketAddr; 2], service: u16) -> String {
    let [a, b] = at;
    format!(
        "listeners:
  a: {{ bind: \"{a}\", routes: all }}
  b: {{ bind: \"{b}\", routes: all }}
route_tables: {{ all: [{{ to: app }}] }}
clusters: {{ app: {{ endpoints: [127.0.0.1:{service}] }} }}
proxies:
  a: {{ select: {{ id: a }}, listeners: [a] }}
  b: {{ select: {{ id: b }}, listeners: [b] }}
"
    )
}

/// Addresses that are free, below those that the system gives away: nobody else takes one while its proxy is away.
fn addresses() -> [SocketAddr; 2] {
    let first = 10_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let mut free = (first..).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    NAMES.map(|_| SocketAddr::from(([127, 0, 0, 1], free.next().unwrap())))
}

/// One of the two, in its directory, which holds what it was told.
async fn replica(dir: &Arc<Dir>, control: &str, id: &str) -> Proxy {
    let config = format!(
        "node: {{ id: {id} }}\nxds: {{ server: \"http://{control}\", cache: kept.xds }}\nshutdown: {{ quiet: 100ms }}\n"
    );
    Proxy::start_in(dir.clone(), &config).await
}

#[tokio::test]
async fn proxies_that_start_again_without_it_are_missed_by_nobody() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let at = addresses();
    let control = Control::start("", &[("mesh.yaml", &document(at, port(&one)))]);
    let address = control.xds().to_string();
    let dirs = NAMES.map(|_| Arc::new(Dir::new()));
    let mut replicas = Vec::new();
    for (dir, name) in dirs.iter().zip(NAMES) {
        let replica = replica(dir, &address, name).await;
        replica.wait_log(&format!("listening listener={name}")).await;
        replicas.push(replica);
    }
    control.wait_in_sync(2, 1).await;
    for dir in &dirs {
        until("what was said is kept", async || dir.file("kept.xds").is_file().then_some(())).await;
    }
    let load = Load::spread(&at, "/", 4, OnClose::Elsewhere);
    load.more(50).await;
    control.process().kill();
    for _ in 0..2 {
        for number in 0..NAMES.len() {
            load.more(50).await;
            replicas[number].signal(Signal::TERM);
            let status = replicas[number].exit(PATIENCE).await;
            assert!(status.success(), "{status}");
            load.more(50).await;
            replicas[number] = replica(&dirs[number], &address, NAMES[number]).await;
            replicas[number].wait_log("serving what the control plane said last").await;
            replicas[number].wait_log(&format!("listening listener={}", NAMES[number])).await;
        }
    }
    // It is back, with something new.
    control.document("mesh.yaml", &document(at, port(&two)));
    let back = Control::start_in(control.dir().clone(), &address, "");
    back.wait_in_sync(2, 2).await;
    load.more(50).await;
    let outcome = load.stop().await;
    assert!(outcome.failures.is_empty(), "{outcome:?}");
    assert!(outcome.closes >= 4, "each was left at least once by somebody: {outcome:?}");
    for at in at {
        let reply = outrigger_tests::Client::connect(at).await.get("/").await;
        assert_eq!(outrigger_tests::Report::parse(&reply.body).origin, "two");
    }
}

/// The waits that a proxy has told since it lost its control plane.
fn waits(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| line.contains("the control plane is away"))
        .filter_map(|line| line.split_once(" wait=")?.1.split(' ').next())
        .collect()
}

#[tokio::test]
async fn those_who_lose_it_together_come_back_one_by_one() {
    let one = Echo::start("one").await;
    let control = Control::start("", &[("web.yaml", &super::super::web(&[port(&one)]))]);
    let address = control.xds().to_string();
    let mut proxies = Vec::new();
    for number in 0..MANY {
        proxies.push(proxy(&control, &format!("p{number}")).await);
    }
    control.wait_in_sync(MANY, 1).await;
    control.process().kill();
    let mut seen = Vec::new();
    for proxy in &proxies {
        until("it waits for the second time", async || (waits(&proxy.log()).len() >= 2).then_some(())).await;
        seen.extend(waits(&proxy.log())[..2].iter().map(|wait| (*wait).to_owned()));
    }
    let different: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(different.len(), seen.len(), "some have waited alike: {seen:?}");
    let back = Control::start_in(control.dir().clone(), &address, "");
    back.wait_in_sync(MANY, 1).await;
    for proxy in &proxies {
        answered_by(proxy, "one").await;
    }
}
