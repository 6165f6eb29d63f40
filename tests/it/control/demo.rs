//! `outrigger-control demo`: what a newcomer sees is true, and nothing of it stays.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use outrigger_tests::process::Process;
use outrigger_tests::{Dir, control, proxy, until};
use rustix::process::Signal;

/// All that it writes goes below this directory.
fn demo(dir: &Dir) -> Command {
    let mut command = Command::new(control::binary());
    command.arg("demo").env("OUTRIGGER_BIN", proxy::binary()).env("TMPDIR", dir.path());
    command
}

/// No file, and no process that was started with one.
#[track_caller]
fn nothing_is_left(dir: &Path) {
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
    let path = dir.to_str().unwrap();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains(path), "{}", String::from_utf8_lossy(&line));
    }
}

#[test]
fn all_acts_go_as_they_should() {
    let dir = Dir::new();
    let said = demo(&dir).arg("--check").output().unwrap();
    let (out, errors) = (String::from_utf8(said.stdout).unwrap(), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success(), "{out}{errors}");
    for line in [
        "ok: 6 proxies are connected, and all have revision 2\n",
        "spiffe://demo.outrigger/cart, spiffe://demo.outrigger/front, spiffe://demo.outrigger/stock\n",
        "ok: whoever asks cart-1 in the clear, as nobody, is cut off without an answer\n",
        "ok: stock answers 403 to front",
        "revision 3 is told to one of each service: ",
        "there is no cluster `crat`; did you mean `cart`?\n",
        "ok: cart-2 answers all of it\n",
        "ok: revision 6 says where it is, and it has its part again\n",
        "all proxies are connected, and have revision 6\n",
        "ok: and it leads the next one, revision 7, to all of them\n",
        " requests, 0 failed, 6 proxies in sync with revision 7\n",
    ] {
        assert!(out.contains(line), "no `{line}` in:\n{out}");
    }
    // Whichever is seen first: the proxy that hangs does not take the change, or requests wait for it.
    let back = "ok: revision 4 is taken back by itself: ";
    let reasons = [
        "a node has not taken it within 2s: stock-",
        "95 of 100 requests to those who were told end within ",
    ];
    assert!(
        reasons.iter().any(|why| out.contains(&format!("{back}{why}"))),
        "no `{back}` for a good reason in:\n{out}"
    );
    nothing_is_left(dir.path());
}

#[tokio::test]
async fn whoever_has_seen_enough_ends_it_and_all_of_its_processes() {
    let dir = Dir::new();
    let demo = Process::spawn("the demonstration", demo(&dir));
    until("it is up", async || demo.stdout().contains("proxies are connected").then_some(())).await;
    demo.signal(Signal::INT);
    assert!(demo.exit(Duration::from_secs(15)).await.success());
    nothing_is_left(dir.path());
}

#[test]
fn without_a_proxy_it_says_what_to_run() {
    let dir = Dir::new();
    let said = demo(&dir).args(["--proxy", "/nowhere/outrigger"]).output().unwrap();
    assert!(!said.status.success());
    assert_eq!(
        String::from_utf8_lossy(&said.stderr),
        "the proxy is not at /nowhere/outrigger: `cargo build --release -p outrigger` makes it, \
         `--proxy PATH` or OUTRIGGER_BIN names it\n"
    );
    nothing_is_left(dir.path());
}
