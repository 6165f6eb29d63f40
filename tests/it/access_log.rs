//! One line a request, whatever became of it.

use outrigger_tests::h2client::H2;
use outrigger_tests::{Echo, Origin, Proxy, until};
use rustix::process::Signal;
use serde_json::Value;

use crate::web_with;

async fn start(format: &str, listener: &str, cluster: &str, endpoints: &[String]) -> Proxy {
    // With one worker lines stand in the order of the requests' ends.
    let log = format!("workers: 1\naccess_log: {{ format: {format}, to: ./access.log }}\n");
    Proxy::start(&(log + &web_with(listener, cluster, endpoints))).await
}

/// The lines, once there are so many.
async fn lines(proxy: &Proxy, n: usize) -> Vec<String> {
    until(&format!("{n} lines in the access log"), async || {
        let text = std::fs::read_to_string(proxy.dir().file("access.log")).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (text.ends_with('\n') && lines.len() >= n).then_some(lines)
    })
    .await
}

async fn json(proxy: &Proxy, n: usize) -> Vec<Value> {
    let lines = lines(proxy, n).await;
    lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[tokio::test]
async fn a_line_says_what_happened() {
    let echo = Echo::start("e").await;
    let proxy = start("json", "", "", &[echo.address().to_string()]).await;
    let mut client = proxy.client("web").await;
    client.send("POST /a%20b?q=\"1\" HTTP/1.1\r\nHost: shop.test\r\n\r\n".replace('"', "%22")).await;
    client.reply().await;
    client.send("PUT /up HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: a \"quoted\\ agent\r\nX-Want: size=11\r\nContent-Length: 5\r\n\r\n12345").await;
    client.reply().await;
    let h2 = H2::connect(proxy.address("web")).await;
    h2.get("/two").await;
    let lines = json(&proxy, 3).await;
    let [first, second, third] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((first["method"].as_str(), first["path"].as_str()), (Some("POST"), Some("/a%20b?q=%221%22")));
    let expected = [
        ("listener", "web"),
        ("protocol", "HTTP/1.1"),
        ("method", "PUT"),
        ("host", "shop.test"),
        ("path", "/up"),
        ("cluster", "app"),
        ("user_agent", "a \"quoted\\ agent"),
    ];
    for (key, value) in expected {
        assert_eq!(second[key].as_str(), Some(value), "{key} in {second}");
    }
    assert_eq!(second["endpoint"].as_str(), Some(echo.address().to_string().as_str()));
    for (key, value) in [("status", 200), ("bytes_in", 5), ("bytes_out", 11), ("attempts", 1)] {
        assert_eq!(second[key].as_u64(), Some(value), "{key} in {second}");
    }
    for key in ["duration_ms", "first_byte_ms"] {
        assert!(second[key].as_f64().is_some_and(|ms| ms > 0.0), "{key} in {second}");
    }
    assert!(second["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{second}");
    assert!(second["@timestamp"].as_str().unwrap().ends_with('Z'), "{second}");
    assert_eq!((third["protocol"].as_str(), third["path"].as_str()), (Some("HTTP/2"), Some("/two")));
}

#[tokio::test]
async fn what_went_wrong_has_a_reason_and_a_flag() {
    let broken = Origin::start(async |mut conn| {
        let Some(request) = conn.request().await else { return };
        match request.target() {
            "/late" => drop(conn.rest().await),
            "/half" => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await,
            "/nonsense" => conn.send("nonsense\r\n\r\n").await,
            _ => {}
        }
    })
    .await;
    let config = format!(
        "access_log: {{ format: json, to: ./access.log }}\nlisteners:\n  web:\n    bind: 127.0.0.1:0\n    limits: {{ body: 10B, header_timeout: 1s }}\n    routes:\n\
         \x20     - {{ match: {{ host: here.test, path: {{ prefix: /down }} }}, to: down }}\n\
         \x20     - {{ match: {{ host: here.test, path: {{ prefix: /none }} }}, to: none }}\n\
         \x20     - {{ match: {{ host: here.test, path: {{ prefix: /late }} }}, to: app, timeout: 200ms }}\n\
         \x20     - {{ match: {{ host: here.test }}, to: app }}\n\
         clusters:\n  app: {{ endpoints: [{}] }}\n  down: {{ endpoints: [127.0.0.1:1] }}\n  none: {{ endpoints: [] }}\n",
        broken.address()
    );
    let proxy = Proxy::start(&config).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: here.test\r\n\r\n");
    let rows = [
        (get("/down"), 503, "UF", "upstream_connect_refused"),
        (get("/none"), 503, "UH", "upstream_no_endpoint"),
        (get("/late"), 504, "UT", "timeout"),
        (get("/closed"), 502, "UC", "upstream_closed"),
        (get("/nonsense"), 502, "UPE", "upstream_protocol"),
        (get("/half"), 200, "UC", "response_broken"),
        (get("/x").replace("here", "elsewhere"), 404, "NR", "no_route"),
        (get("/../x"), 400, "DPE", "bad_path"),
        (get("/").replace("here.test", "a b"), 400, "DPE", "bad_host"),
        (
            outrigger_tests::wire::post("/", "far too long for it").replace("test", "here.test"),
            413,
            "DPE",
            "body_too_large",
        ),
        (
            "GET / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            400,
            "DPE",
            "",
        ),
        ("GET / HTTP/1.1\r\nHos".to_owned(), 408, "DT", "header_timeout"),
    ];
    let mut wrong = Vec::new();
    for (n, (request, status, flag, reason)) in rows.iter().enumerate() {
        let mut client = proxy.client("web").await;
        client.send(request).await;
        let _ = outrigger_tests::within(&format!("an end for {request:?}"), client.try_reply_to("GET")).await;
        let line = json(&proxy, n + 1).await.remove(n);
        let seen =
            (line["status"].as_u64(), line["flag"].as_str(), line["reason"].as_str().unwrap_or_default());
        let good =
            seen.0 == Some(*status) && seen.1 == Some(*flag) && (reason.is_empty() || seen.2 == *reason);
        if !good {
            wrong.push(format!("{request:?}: expected {status} {flag} {reason}, got {line}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_client_that_goes_away_is_written_down() {
    let origin = Origin::start(async |mut conn| {
        conn.head().await;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await;
        loop {
            conn.send([b'x'; 65_536]).await;
            tokio::task::yield_now().await;
        }
    })
    .await;
    let proxy = start("json", "", "", &[origin.address().to_owned()]).await;
    let mut client = proxy.client("web").await;
    client.send(outrigger_tests::wire::get("/endless")).await;
    client.exactly(1000).await;
    drop(client);
    let line = json(&proxy, 1).await.remove(0);
    assert_eq!((line["flag"].as_str(), line["reason"].as_str()), (Some("DC"), Some("client_gone")), "{line}");
}

#[tokio::test]
async fn text_is_one_line_that_nobody_can_forge() {
    let echo = Echo::start("e").await;
    let proxy = start("text", "", "", &[echo.address().to_string()]).await;
    let mut client = proxy.client("web").await;
    client.send("GET /x?a=b HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: one\" 200 - \"two\r\n\r\n").await;
    client.reply().await;
    let line = lines(&proxy, 1).await.remove(0);
    for part in [
        " web 127.0.0.1:",
        "\"GET shop.test/x?a=b HTTP/1.1\" 200 - 0/",
        " app ",
        "user_agent=\"one\\\" 200 - \\\"two\"",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[tokio::test]
async fn tcp_connections_are_written_down() {
    let origin = Origin::start(async |mut conn| {
        let all = conn.rest().await;
        conn.send(&all[..2]).await;
    })
    .await;
    let config = format!(
        "access_log: {{ format: json, to: ./access.log }}\nlisteners:\n  db:\n    bind: 127.0.0.1:0\n    tcp: {{ to: db }}\nclusters:\n  db: {{ endpoints: [{}] }}\n",
        origin.address()
    );
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.client("db").await;
    client.send("12345").await;
    client.finish().await;
    client.rest().await;
    let line = json(&proxy, 1).await.remove(0);
    assert_eq!((line["protocol"].as_str(), line["cluster"].as_str()), (Some("TCP"), Some("db")), "{line}");
    assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(5), Some(2)), "{line}");
}

/// `logrotate` moves the file away and sends SIGHUP.
#[tokio::test]
async fn a_file_that_was_moved_is_opened_anew() {
    let echo = Echo::start("e").await;
    let proxy = start("json", "", "", &[echo.address().to_string()]).await;
    proxy.get("web", "/before").await;
    lines(&proxy, 1).await;
    std::fs::rename(proxy.dir().file("access.log"), proxy.dir().file("access.log.1")).unwrap();
    let before = proxy.version().await;
    proxy.signal(Signal::HUP);
    until("SIGHUP is heard", async || (proxy.version().await > before).then_some(())).await;
    proxy.get("web", "/after").await;
    let lines = json(&proxy, 1).await;
    assert_eq!(lines[0]["path"].as_str(), Some("/after"));
}

#[tokio::test]
async fn the_last_lines_are_written_before_the_end() {
    let echo = Echo::start("e").await;
    let proxy = start("json", "", "", &[echo.address().to_string()]).await;
    let mut client = proxy.client("web").await;
    for _ in 0..100 {
        client.get("/").await;
    }
    drop(client);
    proxy.signal(Signal::TERM);
    proxy.exit(outrigger_tests::wait::PATIENCE).await;
    let text = std::fs::read_to_string(proxy.dir().file("access.log")).unwrap();
    assert_eq!(text.lines().count(), 100);
}
