//! What changes, and who dies, while requests are under way.

use outrigger_tests::load::{Load, OnClose};
use outrigger_tests::{Control, Echo};

use super::{answered_by, port, proxy};

/// A hundred changes of everything that can change, each with the number of the last: other clusters, routes, balancers,
/// endpoints. What `/` leads to is always somebody who answers.
fn edit(number: usize, ports: [u16; 2]) -> String {
    let (one, two) = (ports[number % 2], ports[(number + 1) % 2]);
    let balance = ["random", "round-robin", "least-request", "peak-ewma"][number % 4];
    let name = format!("c{}", number % 7);
    let more = if number.is_multiple_of(3) { format!(", 127.0.0.1:{two}") } else { String::new() };
    let timeout = if number.is_multiple_of(2) { ", timeout: 10s" } else { "" };
    let extra = match number % 5 {
        0 => "      - { match: { path: { prefix: /x } }, respond: { status: 204 } }\n",
        1 => "      - { match: { path: { prefix: /y } }, to: aside }\n",
        _ => "",
    };
    format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n{extra}      - {{ to: {name}{timeout} }}\n\
         clusters:\n  {name}: {{ endpoints: [127.0.0.1:{one}{more}], balance: {balance} }}\n  aside: {{ endpoints: [127.0.0.1:{two}] }}\n"
    )
}

#[tokio::test]
async fn a_hundred_changes_under_load_lose_no_request() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let ports = [port(&one), port(&two)];
    let control = Control::start("", &[]);
    let file = control.dir().file("mesh.yaml").display().to_string();
    let apply = |number: usize| {
        control.dir().write("mesh.yaml", &edit(number, ports));
        control.ok(&["apply", &file]);
    };
    apply(0);
    let proxy = proxy(&control, "a").await;
    answered_by(&proxy, "one").await;
    let load = Load::start(proxy.address("web"), "/", 4, OnClose::Reconnect);
    for number in 1..=100 {
        apply(number);
        load.more(8).await;
    }
    control.wait_in_sync(1, 101).await;
    let outcome = load.stop().await;
    assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
    assert!(outcome.answers >= 800 && outcome.closes == 0, "{outcome:?}");
}

#[tokio::test]
async fn a_control_plane_that_dies_under_load_is_missed_by_nobody() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let document = |ports: &[u16]| super::web(ports);
    let control = Control::start("", &[("web.yaml", &document(&[port(&one)]))]);
    let address = control.xds().to_string();
    let proxy = proxy(&control, "a").await;
    answered_by(&proxy, "one").await;
    control.wait_in_sync(1, 1).await;
    let load = Load::start(proxy.address("web"), "/", 4, OnClose::Reconnect);
    let mut control = Some(control);
    for round in 0..3 {
        let dead = control.take().unwrap();
        dead.process().kill();
        load.more(50).await;
        dead.document("web.yaml", &document(&[port(if round % 2 == 0 { &two } else { &one })]));
        let back = Control::start_in(dead.dir().clone(), &address, "");
        back.wait_in_sync(1, round + 2).await;
        load.more(50).await;
        control = Some(back);
    }
    let outcome = load.stop().await;
    assert!(outcome.failures.is_empty() && outcome.closes == 0, "{outcome:?}");
    answered_by(&proxy, "two").await;
}
