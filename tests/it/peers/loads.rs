//! Tools that make load or speak HTTP for a living: h2load, nghttp, wrk, curl. None of them may see an error.

use std::sync::Arc;

use outrigger_tests::peer::{Peer, peer};
use outrigger_tests::{Dir, Echo, Proxy};

use super::{address, certify, quiet, run};

const MIB: usize = 1024 * 1024;

struct Scene {
    tool: Peer,
    proxy: Proxy,
    ca: String,
    _echo: Echo,
}

/// Listeners: without and with TLS, each to an HTTP/1.1 and an HTTP/2 upstream.
const LISTENERS: [&str; 4] = ["plain-http1", "plain-http2", "tls-http1", "tls-http2"];

impl Scene {
    async fn start(tool: &str) -> Option<Self> {
        let tool = peer(tool)?;
        let echo = Echo::start("origin").await;
        let dir = Arc::new(Dir::new());
        let ca = certify(&dir);
        let mut config = "listeners:\n".to_owned();
        for listener in LISTENERS {
            let (front, back) = listener.split_once('-').unwrap();
            let tls = if front == "tls" { "tls: { certificate: tls.crt, private_key: tls.key }, " } else { "" };
            config += &format!("  {listener}: {{ bind: 127.0.0.1:0, {tls}routes: [{{ to: {back} }}] }}\n");
        }
        config += "clusters:\n";
        for protocol in ["http1", "http2"] {
            config += &format!("  {protocol}: {{ endpoints: [{}], protocol: {protocol} }}\n", echo.address());
        }
        let proxy = Proxy::start_in(dir, &config).await;
        for listener in LISTENERS {
            address(&proxy, listener).await;
        }
        Some(Self { tool, proxy, ca, _echo: echo })
    }

    fn url(&self, listener: &str, path: &str) -> String {
        let scheme = if listener.starts_with("tls") { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}{path}", self.proxy.address(listener).port())
    }

    async fn run(&self, args: &[&str], stdin: &[u8]) -> String {
        run(self.tool.path(), args, stdin).await.ok()
    }
}

#[tokio::test]
async fn h2load() {
    let Some(scene) = Scene::start("h2load").await else { return };
    let file = scene.proxy.dir().write("body", &"b".repeat(20_000));
    let body = format!("--data={}", file.display());
    let loads: [&[&str]; 4] =
        [&["-m10"], &["-m100"], &["-m10", "-Hx-want: size=40000"], &["-m10", "-Hx-want: echo", &body]];
    for listener in LISTENERS {
        for load in loads {
            let url = scene.url(listener, "/load");
            let said = scene.run(&[load, &["-n2000", "-c4", "-t1", &url]].concat(), b"").await;
            let good = "requests: 2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout";
            assert!(said.contains(good) && said.contains("status codes: 2000 2xx"), "{listener} {load:?}:\n{said}");
            let http2 = said.contains("Application protocol: h2");
            assert!(http2, "{listener}: not HTTP/2:\n{said}");
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
            let bad = said.contains("Socket errors") || said.contains("Non-2xx") || said.contains(" 0 requests in");
            assert!(!bad && said.contains("requests in"), "{listener} {load:?}:\n{said}");
        }
    }
    quiet(&scene.proxy).await;
}

/// The version and the status that curl saw.
const WRITE_OUT: &str = "-w\n%{http_version} %{response_code} %{num_connects}";

/// The protocols that curl can speak with a listener.
fn dialects(listener: &str) -> &'static [(&'static str, &'static str)] {
    if listener.starts_with("tls") {
        &[("--http1.1", "1.1"), ("--http2", "2")]
    } else {
        // An upgrade to h2c is obsolete; a server need not take part.
        &[("--http1.1", "1.1"), ("--http2-prior-knowledge", "2"), ("--http2", "1.1"), ("--http1.0", "1.1")]
    }
}

impl Scene {
    /// What curl wrote, and what it says of the transfer.
    async fn curl(&self, args: &[&str], stdin: &[u8]) -> (String, String) {
        let common = ["-sS", "--max-time", "30", "--cacert", &self.ca, WRITE_OUT];
        let said = self.run(&[&common, args].concat(), stdin).await;
        let (body, facts) = said.rsplit_once('\n').expect("what was asked for by -w");
        (body.to_owned(), facts.to_owned())
    }
}

#[tokio::test]
async fn curl_speaks_each_protocol() {
    let Some(scene) = Scene::start("curl").await else { return };
    for listener in LISTENERS {
        for (flag, version) in dialects(listener) {
            let url = scene.url(listener, "/a/b?c=d");
            let (body, facts) = scene.curl(&[flag, &url], b"").await;
            assert_eq!(facts, format!("{version} 200 1"), "{listener} {flag}: {body}");
            assert!(body.contains("\"path\":\"/a/b?c=d\""), "{listener} {flag}: {body}");
            let (head, facts) = scene.curl(&[flag, "-I", &url], b"").await;
            assert_eq!(facts, format!("{version} 200 1"), "{listener} {flag} -I: {head}");
            let (_, facts) = scene.curl(&[flag, &url, "-Hx-want: status=418"], b"").await;
            assert_eq!(facts, format!("{version} 418 1"), "{listener} {flag}");
            // curl 7.88 cannot use a connection twice that it opened with prior knowledge, to any server.
            if !["--http1.0", "--http2-prior-knowledge"].contains(flag) {
                let (_, facts) = scene.curl(&[flag, &url, &url, &url], b"").await;
                assert!(facts.ends_with(" 200 0"), "{listener} {flag}: the connection was not kept: {facts}");
            }
        }
    }
    quiet(&scene.proxy).await;
}

#[tokio::test]
async fn curl_moves_five_megabytes_each_way() {
    let Some(scene) = Scene::start("curl").await else { return };
    let body: String = (0..5 * MIB / 8).map(|n| format!("{n:08x}")).collect();
    let file = scene.proxy.dir().write("upload", &body);
    let file = file.to_str().unwrap();
    for listener in LISTENERS {
        for (flag, version) in dialects(listener).iter().filter(|(flag, _)| *flag != "--http1.0") {
            let url = scene.url(listener, "/upload");
            // With a length, and a `100` to wait for; with a length at once; in chunks.
            let uploads: [(&[&str], &[u8]); 3] =
                [(&["-T", file], b""), (&["-T", file, "-Hexpect:"], b""), (&["-T", "-"], body.as_bytes())];
            for (upload, stdin) in uploads {
                let args = [&[flag, "-Hx-want: echo", &url][..], upload].concat();
                let (came, facts) = scene.curl(&args, stdin).await;
                assert_eq!(facts, format!("{version} 200 1"), "{listener} {flag} {upload:?}");
                assert!(came == body, "{listener} {flag} {upload:?}: {} of {} bytes, or others", came.len(), body.len());
            }
            let (came, facts) = scene.curl(&[flag, "-Hx-want: size=5242880", &url], b"").await;
            assert_eq!((came.len(), facts), (5 * MIB, format!("{version} 200 1")), "{listener} {flag}");
        }
    }
    quiet(&scene.proxy).await;
}
