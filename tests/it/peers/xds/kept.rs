//! What a control plane said last, kept on disk and served by the next start.

use outrigger_tests::pki::{self, Authority};
use outrigger_tests::{Client, Echo, Proxy, until};
use serde_json::json;

use super::{Way, answered_by, asked, at, cluster, control, endpoints, file, listener, state};
use crate::peers::ext_authz::python_with_messages;
use crate::peers::xds_tls::{certificate, served};

/// A file that says beside that where what the control plane says is kept.
fn keeping(port: u16) -> String {
    file(port).replace("\" }", "\", cache: kept.xds }")
}

/// Starts it again where it was, without waiting.
fn again(dir: &std::sync::Arc<outrigger_tests::Dir>, port: u16) -> Proxy {
    let file = dir.write("outrigger.yaml", &outrigger_tests::proxy::with_admin(&keeping(port)));
    Proxy::spawn(dir.clone(), &file, &[])
}

async fn is_kept(dir: &outrigger_tests::Dir, before: &[u8]) -> Vec<u8> {
    until("it is kept", async || std::fs::read(dir.file("kept.xds")).ok().filter(|kept| kept != before)).await
}

/// Killed while its control plane is away, it serves what that said last; and what that says when it comes back.
async fn starts_without(way: Way) {
    let Some(python) = python_with_messages().await else { return };
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let mut said = state("1", &[one.address().port()]);
    said["Cluster"].as_array_mut().unwrap().push(cluster("old", &json!({})));
    said["ClusterLoadAssignment"].as_array_mut().unwrap().push(endpoints("old", &[one.address().port()]));
    said["Listener"].as_array_mut().unwrap().push(listener("old", "table"));
    let (first, port) = control(&python, way, 0, &said).await;
    let dir = std::sync::Arc::new(outrigger_tests::Dir::new());
    let proxy = Proxy::start_in(dir.clone(), &keeping(port)).await;
    answered_by(&proxy, "one").await;
    assert_eq!(proxy.metric("outrigger_xds_cached").await, 0.0);
    is_kept(&dir, b"").await;
    drop((first, proxy));

    let begun = tokio::time::Instant::now();
    let proxy = again(&dir, port);
    proxy.address("web");
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(2),
        "it waits for nobody: {:?}",
        begun.elapsed()
    );
    answered_by(&proxy, "one").await;
    proxy.wait_log("serving what the control plane said last").await;
    assert_eq!(proxy.metric("outrigger_xds_cached").await, 1.0);
    let (mut second, _) = control(&python, way, port, &state("2", &[two.address().port()])).await;
    let asked = asked(&mut second, "Cluster").await;
    if way == Way::Delta {
        let versions: Vec<_> = asked["version"].as_object().unwrap().keys().collect();
        assert_eq!(versions, ["app", "old"], "it says what it has");
    }
    answered_by(&proxy, "two").await;
    proxy.wait_log("no longer listening listener=old").await;
    let left = proxy.ask_json("/clusters").await;
    assert!(!left.to_string().contains("\"old\""), "{left}");
    assert_eq!(proxy.metric("outrigger_xds_cached").await, 0.0);
}

#[tokio::test]
async fn a_start_without_the_control_plane_serves_what_it_said_last() {
    starts_without(Way::Sotw).await;
}

#[tokio::test]
async fn a_start_without_the_control_plane_serves_what_it_said_last_incrementally() {
    starts_without(Way::Delta).await;
}

/// What is kept and cannot be served is said, and is no reason not to start.
#[tokio::test]
async fn what_is_kept_is_served_whole_or_not_at_all() {
    let Some(python) = python_with_messages().await else { return };
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let (first, port) = control(&python, Way::Delta, 0, &state("1", &[one.address().port()])).await;
    let dir = std::sync::Arc::new(outrigger_tests::Dir::new());
    let proxy = Proxy::start_in(dir.clone(), &keeping(port)).await;
    answered_by(&proxy, "one").await;
    let kept = is_kept(&dir, b"").await;
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(dir.file("kept.xds")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    drop((first, proxy));

    let mut damaged = kept.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let version = [&b"outrigger xds cache 9\n"[..], &kept[22..]].concat();
    let own = "listeners:\n  own: { bind: 127.0.0.1:0, routes: [{ respond: { status: 418 } }] }\n";
    let rows = [
        (damaged, "proxy-1", "it is damaged: its checksum does not fit"),
        (kept[..middle].to_vec(), "proxy-1", "it is damaged: its checksum does not fit"),
        (version, "proxy-1", "it is of another version, `9`"),
        (b"listeners: {}\n".to_vec(), "proxy-1", "it is not such a file"),
        (kept, "proxy-2", "it is that of another node, `proxy-1`"),
    ];
    for (bytes, node, why) in rows {
        let (_control, port) = control(&python, Way::Delta, 0, &state("2", &[two.address().port()])).await;
        std::fs::write(dir.file("kept.xds"), &bytes).unwrap();
        let proxy = Proxy::start_in(dir.clone(), &(keeping(port).replace("proxy-1", node) + own)).await;
        proxy.wait_log(&format!("what the control plane said last is not served: {why}")).await;
        assert_eq!(proxy.get("own", "/").await.status, 418);
        assert_eq!(proxy.metric("outrigger_xds_cached").await, 0.0);
        answered_by(&proxy, "two").await;
        // What is in force takes its place.
        is_kept(&dir, &bytes).await;
    }
}

/// Another has taken the port that was kept: what the file says is served all the same.
#[tokio::test]
async fn what_is_kept_and_cannot_come_into_force_keeps_nothing_from_starting() {
    let Some(python) = python_with_messages().await else { return };
    let one = Echo::start("one").await;
    let mut said = state("1", &[one.address().port()]);
    let taken = crate::peers::free_port();
    said["Listener"][0]["address"] = at(taken);
    let (first, port) = control(&python, Way::Delta, 0, &said).await;
    let dir = std::sync::Arc::new(outrigger_tests::Dir::new());
    let proxy = Proxy::start_in(dir.clone(), &keeping(port)).await;
    answered_by(&proxy, "one").await;
    is_kept(&dir, b"").await;
    drop((first, proxy));
    let _taken = std::net::TcpListener::bind(("127.0.0.1", taken)).unwrap();
    let own = "listeners:\n  own: { bind: 127.0.0.1:0, routes: [{ respond: { status: 418 } }] }\n";
    let proxy = Proxy::start_in(dir, &(keeping(port) + own)).await;
    assert_eq!(proxy.get("own", "/").await.status, 418);
    proxy.wait_log("refused by xDS: Listener[web]: cannot listen on").await;
}

/// What is secret is not kept: neither a key that was told, nor the one that came in its place.
async fn keeps_no_secret(way: Way) {
    let Some(python) = python_with_messages().await else { return };
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let authority = Authority::new("a");
    let svids = [authority.named("localhost"), authority.named("localhost")];
    let said = |version: &str, app: &Echo, svid| {
        let mut said = served(version, app.address().port(), &json!([certificate("web", svid)]));
        said["Listener"].as_array_mut().unwrap().push(listener("plain", "table"));
        said
    };
    let (mut first, port) = control(&python, way, 0, &said("1", &one, &svids[0])).await;
    let dir = std::sync::Arc::new(outrigger_tests::Dir::new());
    let proxy = Proxy::start_in(dir.clone(), &keeping(port)).await;
    assert_eq!(pki::status(proxy.address("web"), None, "/").await, Some(200));
    let mut kept = vec![is_kept(&dir, b"").await];
    first.tell(&said("2", &two, &svids[1]).to_string()).await;
    until("the second of all is kept", async || {
        let port = two.address().port();
        let now = std::fs::read(dir.file("kept.xds")).unwrap();
        // The port, as a field of a message.
        let field = [&[0x18][..], &varint(port)].concat();
        now.windows(field.len()).any(|bytes| bytes == field).then(|| kept.push(now))
    })
    .await;
    for kept in &kept {
        let has = |text: &str| kept.windows(text.len()).any(|bytes| bytes == text.as_bytes());
        assert!(has("tls_certificate") || has("web"), "it holds who names the secret");
        assert!(!has("PRIVATE KEY") && !has("BEGIN CERTIFICATE"));
        let lines = svids.iter().flat_map(|svid| svid.key.lines().chain(svid.chain.lines()));
        for line in lines.filter(|line| !line.is_empty()) {
            assert!(!has(line), "{line}");
        }
    }
    drop((first, proxy));
    // Who names it waits for it, and serves nobody, least of all in the clear.
    let proxy = Proxy::start_in(dir, &keeping(port)).await;
    assert_eq!(proxy.get("plain", "/").await.status, 200);
    proxy.wait_log("the secret `web` has not come, or holds something else: it is left out").await;
    assert!(!proxy.log().contains("listening listener=web"), "{}", proxy.log());
    let (_second, _) = control(&python, way, port, &said("3", &two, &svids[1])).await;
    let web = proxy.address("web");
    until("it is shown", async || (pki::status(web, None, "/").await == Some(200)).then_some(())).await;
    assert_eq!(Client::connect(web).await.try_get("/").await.map(|reply| reply.status), None);
}

/// A number as messages have it.
fn varint(number: u16) -> Vec<u8> {
    let (mut rest, mut out) = (number, Vec::new());
    while rest > 0x7f {
        out.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
    out
}

#[tokio::test]
async fn no_secret_is_kept() {
    keeps_no_secret(Way::Sotw).await;
}

#[tokio::test]
async fn no_secret_is_kept_incrementally() {
    keeps_no_secret(Way::Delta).await;
}
