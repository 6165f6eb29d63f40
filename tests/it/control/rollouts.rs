//! A revision that proxies take, and that hurts.

use outrigger_tests::load::{Load, OnClose, Outcome};
use outrigger_tests::{Control, Echo, Proxy, until};
use serde_json::Value;

use super::{answered_by, port, proxy, web};

/// So many clients at each of two proxies, once both say what they are asked.
pub(super) async fn loads(control: &Control, proxies: &[Proxy; 2], clients: usize) -> [Load; 2] {
    let load = |proxy: &Proxy| Load::start(proxy.address("web"), "/", clients, OnClose::Reconnect);
    let loads = [load(&proxies[0]), load(&proxies[1])];
    until("both say what they are asked", async || {
        let status = control.status();
        let asked =
            |node: &Value| node["load"]["requests_per_second"].as_f64().is_some_and(|rate| rate > 1.0);
        status["nodes"].as_array().unwrap().iter().all(asked).then_some(())
    })
    .await;
    loads
}

/// A control plane, and two proxies of one group under load.
struct Fleet {
    control: Control,
    /// With what the proxies ask; never read, but it must live.
    _proxies: [Proxy; 2],
    loads: [Load; 2],
}

impl Fleet {
    async fn start(settings: &str, document: &str, clients: usize) -> Self {
        let control = Control::start(settings, &[("web.yaml", document)]);
        let proxies = [proxy(&control, "a").await, proxy(&control, "b").await];
        for proxy in &proxies {
            answered_by(proxy, "one").await;
        }
        control.wait_in_sync(2, 1).await;
        let loads = loads(&control, &proxies, clients).await;
        Self { control, _proxies: proxies, loads }
    }

    /// Why the second revision is taken back, and what became of the requests.
    async fn taken_back(self) -> (String, [Outcome; 2]) {
        let Self { control, _proxies, loads: [first, second] } = self;
        let back = until("it is taken back", async || control.events("rollout.back.v1").pop()).await;
        assert_eq!(back["data"]["revision"], 2);
        control.wait_in_sync(2, 3).await;
        let why = back["data"]["why"].as_str().unwrap().to_owned();
        (why, [first.stop().await, second.stop().await])
    }
}

#[tokio::test]
async fn one_that_fails_requests_is_taken_back_and_comes_to_nobody_else() {
    let one = Echo::start("one").await;
    let good = web(&[port(&one)]);
    let fleet = Fleet::start("rollout: { steps: [50%], watch: 3s }", &good, 2).await;
    fleet.control.document("web.yaml", &good.replace("to: app", "respond: { status: 503 }"));
    let (why, outcomes) = fleet.taken_back().await;
    assert!(why.contains("requests to those who were told"), "{why}");
    let failed = outcomes.map(|outcome| outcome.failures.len());
    assert!(failed.contains(&0) && failed.iter().any(|failed| *failed > 0), "{failed:?}");
}

#[tokio::test]
async fn one_that_is_slow_is_taken_back() {
    let one = Echo::start("one").await;
    let taking = |delay| {
        web(&[port(&one)]).replace("to: app", &format!("to: app, fault: {{ delay: {{ fixed: {delay} }} }}"))
    };
    let settings = "rollout: { steps: [50%], watch: 5s, slowdown: 1.5 }";
    let fleet = Fleet::start(settings, &taking("50ms"), 12).await;
    fleet.control.document("web.yaml", &taking("400ms"));
    let (why, outcomes) = fleet.taken_back().await;
    assert!(why.starts_with("95 of 100 requests to those who were told end within"), "{why}");
    assert!(outcomes.iter().all(|outcome| outcome.failures.is_empty()));
}

#[tokio::test]
async fn one_that_is_good_comes_to_all() {
    let one = Echo::start("one").await;
    let good = web(&[port(&one)]);
    let fleet = Fleet::start("rollout: { steps: [50%], watch: 1s, slowdown: 100 }", &good, 2).await;
    fleet.control.document("web.yaml", &good.replace("to: app", "to: app, timeout: 9s"));
    fleet.control.wait_in_sync(2, 2).await;
    until("the event", async || fleet.control.events("rollout.done.v1").pop()).await;
    let Fleet { control, _proxies, loads: [first, second] } = fleet;
    assert!(control.events("rollout.back.v1").is_empty());
    for outcome in [first.stop().await, second.stop().await] {
        assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
    }
}
