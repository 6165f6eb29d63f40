//! Private keys stay where they are: not in a log, not in what admin shows, not in a core file.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use outrigger_tests::pki::{self, Authority};
use outrigger_tests::{Dir, Proxy};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::{DOMAIN, IDENTITY};

#[tokio::test]
async fn nobody_is_told_a_private_key() {
    let authority = Authority::new(DOMAIN);
    let dir = Arc::new(Dir::new());
    dir.write("ca.crt", &authority.pem());
    let (own, listener, other) = (authority.svid("/app"), authority.svid("/tls"), authority.svid("/other"));
    own.write(&dir, "own");
    listener.write(&dir, "tls");
    std::fs::set_permissions(dir.file("tls.key"), PermissionsExt::from_mode(0o644)).unwrap();
    let config = format!(
        "access_log: {{ format: json, to: stdout }}\n{IDENTITY}listeners:\n  in: {{ bind: 127.0.0.1:0, mtls: strict, routes: [{{ respond: {{}} }}] }}\n  \
         own: {{ bind: 127.0.0.1:0, tls: {{ certificate: tls.crt, private_key: tls.key }}, routes: [{{ respond: {{}} }}] }}\n"
    );
    let file = dir.write("outrigger.yaml", &outrigger_tests::proxy::with_admin(&config));
    let proxy = Proxy::spawn(dir.clone(), &file, &[("OUTRIGGER_LOG", "trace")]);
    proxy.wait_log("listening listener=own").await;
    assert_eq!(pki::status(proxy.address("in"), Some(&other), "/").await, Some(200));
    // What is wrong is said without it, too.
    std::fs::write(dir.file("own.key"), &other.key).unwrap();
    proxy.wait_log("the private key does not belong to the certificate").await;
    std::fs::write(dir.file("own.key"), own.key.replace("PRIVATE", "PRIVETE")).unwrap();
    proxy.wait_log("holds no PEM private key").await;
    proxy.wait_log("tls.key has mode 0644; expected 0600 or 0400").await;
    let mut told = proxy.log() + &proxy.stdout();
    for path in ["/config", "/config?format=yaml", "/metrics", "/clusters", "/ready"] {
        told += &proxy.ask(path).await.text();
    }
    let check = outrigger_tests::proxy::outrigger(&["check", "--effective", file.to_str().unwrap()], "");
    told += &String::from_utf8_lossy(&check.stdout);
    told += &String::from_utf8_lossy(&check.stderr);
    assert!(told.len() > 2000);
    for svid in [&own, &listener, &other] {
        for line in svid.key.lines().filter(|line| !line.starts_with("---")) {
            assert!(!told.contains(line), "a line of a key was told");
        }
    }
    // Asked of the kernel by setting what is there already.
    let pid = Pid::from_raw(proxy.pid().cast_signed());
    let before = prlimit(pid, Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
    assert_eq!(before.current, Some(0));
}
