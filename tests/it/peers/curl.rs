//! curl, in every dialect it has: HTTP/1.0, HTTP/1.1, HTTP/2 by prior knowledge and by ALPN, uploads, downloads, a
//! tunnel by CONNECT.

use outrigger_tests::peer::peer;
use outrigger_tests::{Origin, Proxy};

use super::loads::{LISTENERS, Scene};
use super::{quiet, run};

const MIB: usize = 1024 * 1024;
/// The version and the status that curl saw.
const WRITE_OUT: &str = "-w\n%{http_version} %{response_code} %{num_connects}";

/// The protocols that curl can speak with a listener.
fn dialects(listener: &str) -> &'static [(&'static str, &'static str)] {
    if listener.starts_with("tls") {
        &[("--http1.1", "1.1"), ("--http2", "2")]
    } else {
        // An upgrade to h2c is obsolete; a server need not take part.
        &[("--http1.1", "1.1"), ("--http2-prior-knowledge", "2"), ("--http2", "1.1"), ("--http1.0", "1")]
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
                assert!(
                    came == body,
                    "{listener} {flag} {upload:?}: {} of {} bytes, or others",
                    came.len(),
                    body.len()
                );
            }
            let (came, facts) = scene.curl(&[flag, "-Hx-want: size=5242880", &url], b"").await;
            assert_eq!((came.len(), facts), (5 * MIB, format!("{version} 200 1")), "{listener} {flag}");
        }
    }
    quiet(&scene.proxy).await;
}

#[tokio::test]
async fn curl_tunnels_by_connect() {
    let Some(curl) = peer("curl") else { return };
    // Behind the proxy, one that agrees to any tunnel, and then answers what comes through it.
    let origin = Origin::start(async |mut conn| {
        conn.request().await;
        conn.send("HTTP/1.1 200 Connected\r\n\r\n").await;
        while conn.request().await.is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ninside").await;
        }
    })
    .await;
    let proxy = Proxy::start(&format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ match: {{ methods: [CONNECT] }}, to: app }}] }}\n\
         clusters:\n  app: {{ endpoints: [{}] }}\n",
        origin.address()
    ))
    .await;
    let via = format!("http://{}", proxy.address("web"));
    let url = "http://far.test:8080/there";
    let said =
        run(curl.path(), &["-sS", "--max-time", "30", "--proxytunnel", "-x", &via, url, url], b"").await.ok();
    assert_eq!(said, "insideinside");
    let [connect, inner, again] = origin.requests().try_into().unwrap();
    assert_eq!(
        (connect.message.start.as_str(), connect.field("host")),
        ("CONNECT far.test:8080 HTTP/1.1", Some("far.test:8080"))
    );
    for inside in [inner, again] {
        assert_eq!(
            (inside.target(), inside.field("x-forwarded-for")),
            ("/there", None),
            "a tunnel's bytes are not read"
        );
    }
    quiet(&proxy).await;
}
