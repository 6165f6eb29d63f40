//! As whom the process runs: what is left of root, and what is said where root is left.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use outrigger_tests::peer::skip;
use outrigger_tests::proxy::{outrigger, with_admin};
use outrigger_tests::{Dir, Echo, Proxy};

use crate::web;

/// Nobody, on every system.
const NOBODY: &str = "privileges: { user: \"65534:65534\" }\n";

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("only root can give root up");
    }
    root
}

/// A line of `/proc/PID/status`, without its name.
fn status(proxy: &Proxy, thread: &str, name: &str) -> String {
    let path = format!("/proc/{}/task/{thread}/status", proxy.pid());
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name}: {text}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn threads(proxy: &Proxy) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn root_is_given_up_by_every_thread_and_for_good() {
    if !is_root() {
        return;
    }
    let echo = Echo::start("e").await;
    let config = web([echo.address()]) + NOBODY;
    let proxy = Proxy::start(&config).await;
    for thread in threads(&proxy) {
        for name in ["Uid", "Gid"] {
            assert_eq!(status(&proxy, &thread, name), "65534 65534 65534 65534");
        }
        assert_eq!(status(&proxy, &thread, "Groups"), "65534");
        // CAP_NET_BIND_SERVICE, where the system let us have it, and nothing else.
        for name in ["CapEff", "CapPrm"] {
            let capabilities = u64::from_str_radix(&status(&proxy, &thread, name), 16).unwrap();
            assert_eq!(capabilities & !(1 << 10), 0, "{name}");
        }
        assert_eq!(status(&proxy, &thread, "CapInh"), "0000000000000000");
        assert_eq!(status(&proxy, &thread, "NoNewPrivs"), "1");
    }
    assert!(!proxy.log().contains("runs as root"), "{}", proxy.log());
    // It serves, it counts what it watches, and it follows its file.
    assert_eq!(proxy.get("web", "/").await.status, 200);
    assert!(proxy.metric("process_open_fds").await > 0.0);
    proxy.reload(&config.replace("- to: app", "- respond: { status: 418 }")).await;
    assert_eq!(proxy.get("web", "/").await.status, 418);
}

#[tokio::test]
async fn a_name_brings_its_groups() {
    if !is_root() {
        return;
    }
    let echo = Echo::start("e").await;
    let proxy = Proxy::start(&(web([echo.address()]) + "privileges: { user: daemon, root: refuse }\n")).await;
    let thread = proxy.pid().to_string();
    assert_eq!(status(&proxy, &thread, "Uid"), "1 1 1 1");
    assert_eq!(
        (status(&proxy, &thread, "Gid"), status(&proxy, &thread, "Groups")),
        ("1 1 1 1".into(), "1".into())
    );
}

#[tokio::test]
async fn what_could_not_be_read_again_is_an_error_at_once() {
    if !is_root() {
        return;
    }
    // The file itself, and a key: root could read both.
    let dir = Arc::new(Dir::new());
    outrigger_tests::tls::write_certificate(&dir, &["localhost"]);
    let only_root = |name: &str, mode| {
        std::fs::set_permissions(dir.file(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let config = web(["127.0.0.1:1"]) + NOBODY;
    let file = dir.write("outrigger.yaml", &with_admin(&config));
    only_root("outrigger.yaml", 0o600);
    let proxy = Proxy::spawn(dir.clone(), &file, &[]);
    assert!(!proxy.exit(std::time::Duration::from_secs(10)).await.success());
    proxy.wait_log("no longer root, and so a reload would fail").await;
    let tls = "    tls: { certificate: tls.crt, private_key: tls.key }\n    routes:";
    let file = dir.write("outrigger.yaml", &with_admin(&config.replace("    routes:", tls)));
    only_root("tls.key", 0o600);
    let proxy = Proxy::spawn(dir.clone(), &file, &[]);
    assert!(!proxy.exit(std::time::Duration::from_secs(10)).await.success());
    proxy.wait_log("tls.key").await;
}

#[tokio::test]
async fn what_is_said_of_root_is_as_the_file_says() {
    if !is_root() {
        return;
    }
    let config = web(["127.0.0.1:1"]);
    let proxy = Proxy::start(&config).await;
    proxy.wait_log("runs as root, and has no need to").await;
    assert_eq!(status(&proxy, &proxy.pid().to_string(), "NoNewPrivs"), "1");
    let proxy = Proxy::start(&(config.clone() + "privileges: { root: allow }\n")).await;
    assert!(!proxy.log().contains("root"), "{}", proxy.log());
    for (privileges, said) in [
        ("{ root: refuse }", "privileges.root: refused, and the process runs as root"),
        ("{ user: no-such-user }", "privileges.user: there is no user `no-such-user` here"),
    ] {
        let ran = outrigger(&["run", "-"], &format!("{config}privileges: {privileges}\n"));
        let log = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success() && log.contains(said), "{log}");
    }
}
