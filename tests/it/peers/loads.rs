//! Tools that make load or look closely: h2load, nghttp, wrk. None of them may see an error.

use std::sync::Arc;

use outrigger_tests::peer::{Peer, peer};
use outrigger_tests::{Dir, Echo, Proxy};

use super::{certify, quiet, run};

pub(super) struct Scene {
    tool: Peer,
    pub(super) proxy: Proxy,
    pub(super) ca: String,
    _echo: Echo,
}

/// Listeners: without and with TLS, each to an HTTP/1.1 and an HTTP/2 upstream.
pub(super) const LISTENERS: [&str; 4] = ["plain-http1", "plain-http2", "tls-http1", "tls-http2"];

impl Scene {
    pub(super) async fn start(tool: &str) -> Option<Self> {
        let tool = peer(tool)?;
        let echo = Echo::start("origin").await;
        let dir = Arc::new(Dir::new());
        let ca = certify(&dir);
        let mut config = "listeners:\n".to_owned();
        for listener in LISTENERS {
            let (front, back) = listener.split_once('-').unwrap();
            let tls =
                if front == "tls" { "tls: { certificate: tls.crt, private_key: tls.key }, " } else { "" };
            config += &format!("  {listener}: {{ bind: 127.0.0.1:0, {tls}routes: [{{ to: {back} }}] }}\n");
        }
        config += "clusters:\n";
        for protocol in ["http1", "http2"] {
            config += &format!("  {protocol}: {{ endpoints: [{}], protocol: {protocol} }}\n", echo.address());
        }
        let proxy = Proxy::start_in(dir, &config).await;
        Some(Self { tool, proxy, ca, _echo: echo })
    }

    pub(super) fn url(&self, listener: &str, path: &str) -> String {
        let scheme = if listener.starts_with("tls") { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}{path}", self.proxy.address(listener).port())
    }

    pub(super) async fn run(&self, args: &[&str], stdin: &[u8]) -> String {
        run(self.tool.path(), args, stdin).await.ok()
    }
}

#[tokio::test]
async fn h2load() {
    let Some(scene) = Scene::start("h2load").await else { return };
    let file = scene.proxy.dir().write("body", &"b".repeat(20_000));
    let body = format!("--data={}", file.display());
    let loads: [&[&str]; 5] = [
        &["-m10"],
        &["-m100"],
        &["-m10", "-Hx-want: size=40000"],
        &["-m10", "-Hx-want: echo", &body],
        &["--h1"],
    ];
    for listener in LISTENERS {
        for load in loads {
            let url = scene.url(listener, "/load");
            let said = scene.run(&[load, &["-n2000", "-c4", "-t1", &url]].concat(), b"").await;
            let good = "requests: 2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout";
            assert!(
                said.contains(good) && said.contains("status codes: 2000 2xx"),
                "{listener} {load:?}:\n{said}"
            );
            let protocol = if load.contains(&"--h1") { "http/1.1" } else { "h2" };
            let spoken = said.contains(&format!("Application protocol: {protocol}"));
            assert!(spoken, "{listener}: not {protocol}:\n{said}");
        }
    }
    quiet(&scene.proxy).await;
}

#[tokio::test]
async fn nghttp() {
    let Some(scene) = Scene::start("nghttp").await else { return };
    for listener in LISTENERS {
        let url = scene.url(listener, "/seen");
        let said = scene.run(&["-v", "--no-verify-peer", "-m5", "-Hx-want: trailers", &url], b"").await;
        assert!(said.contains(":status: 200") && said.contains("x-sum: 0"), "{listener}:\n{said}");
        // A GOAWAY of the proxy would be one for an error: nghttp leaves first.
        let errors = ["recv GOAWAY", "[ERROR]", "RST_STREAM", "Some requests were not processed"];
        assert!(!errors.iter().any(|error| said.contains(error)), "{listener}:\n{said}");
    }
    quiet(&scene.proxy).await;
}

#[tokio::test]
async fn wrk() {
    let Some(scene) = Scene::start("wrk").await else { return };
    let pipeline = "init = function(args)\n  local one = wrk.format()\n  batch = one:rep(16)\nend\n\
                    request = function() return batch end\n";
    let pipeline = scene.proxy.dir().write("pipeline.lua", pipeline);
    for listener in LISTENERS {
        let url = scene.url(listener, "/load");
        let loads: [&[&str]; 3] = [&[], &["-Hconnection: close"], &["-s", pipeline.to_str().unwrap()]];
        for load in loads {
            let said = scene.run(&[load, &["-t1", "-c8", "-d1s", &url]].concat(), b"").await;
            let bad =
                said.contains("Socket errors") || said.contains("Non-2xx") || said.contains(" 0 requests in");
            assert!(!bad && said.contains("requests in"), "{listener} {load:?}:\n{said}");
        }
    }
    quiet(&scene.proxy).await;
}
