//! `full.yaml` of the contract, with its ports replaced by origins of ours: every route does what is written.

use std::sync::Arc;

use outrigger_tests::peer::peer;
use outrigger_tests::tls::write_certificate;
use outrigger_tests::{Dir, Echo, Origin, Proxy, Reply, Report, within};

const FULL: &str = include_str!("full.yaml");

struct Shop {
    proxy: Proxy,
    origins: Vec<Echo>,
    _database: Origin,
}

/// Starts it; without TLS, the requests can be written by hand.
async fn start(tls: bool) -> Shop {
    let mut text = FULL.replace("127.0.0.1:15000", "127.0.0.1:0").replace("127.0.0.1:8443", "127.0.0.1:0");
    text = text.replace("127.0.0.1:15432", "127.0.0.1:0");
    if !tls {
        text = text
            .lines()
            .filter(|line| !line.starts_with("    tls:"))
            .map(|line| format!("{line}\n"))
            .collect();
    }
    let mut origins = Vec::new();
    for (name, port) in [("cart-1", 9001), ("cart-2", 9002), ("v1", 9003), ("v2", 9004), ("grpc", 9005)] {
        let echo = Echo::start(name).await;
        text = text.replace(&format!("127.0.0.1:{port}"), &echo.address().to_string());
        origins.push(echo);
    }
    let database = Origin::start(async |mut conn| {
        while let Some(bytes) = conn.some().await {
            conn.send(bytes).await;
        }
    })
    .await;
    text = text.replace("localhost:5432", &format!("localhost:{}", database.socket().port()));
    let dir = Arc::new(Dir::new());
    write_certificate(&dir, &["shop.example.com", "localhost"]);
    Shop { proxy: Proxy::start_in(dir, &text).await, origins, _database: database }
}

impl Shop {
    async fn ask(&self, request: &str, host: &str, fields: &str) -> Reply {
        let mut client = self.proxy.client("public").await;
        client.send(format!("{request} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).await;
        client.reply().await
    }
}

fn origin(reply: &Reply) -> &str {
    reply.field("x-origin").unwrap_or("none")
}

#[tokio::test]
async fn hosts_prefixes_and_methods() {
    let shop = start(false).await;
    let rows = [
        ("GET /cart", "shop.example.com", "cart"),
        ("GET /cart/7?x=y", "shop.example.com", "cart"),
        ("GET /cart", "SHOP.example.COM", "cart"),
        ("GET /cart", "shop.example.com:8443", "cart"),
        ("GET /cart", "de.shop.example.com", "cart"),
        ("GET /cart", "a.b.shop.example.com", "cart"),
        ("POST /cart", "shop.example.com", "cart"),
        ("DELETE /cart", "shop.example.com", "none"),
        ("GET /cartoon", "shop.example.com", "none"),
        ("GET /CART", "shop.example.com", "none"),
        ("GET /cart", "example.com", "none"),
        ("GET /cart", "notshop.example.com", "none"),
        ("GET /cart", "shop.example.com.evil", "none"),
    ];
    for (request, host, expected) in rows {
        let reply = shop.ask(request, host, "Content-Length: 0\r\n").await;
        assert!(origin(&reply).starts_with(expected), "{request} {host}: {}", reply.head);
        if expected == "none" {
            assert_eq!((reply.status, reply.text().as_str()), (404, "nothing here\n"), "{request} {host}");
            assert_eq!(reply.field("content-type"), Some("text/plain; charset=utf-8"));
        }
    }
}

#[tokio::test]
async fn expressions_fields_and_queries_and_what_is_rewritten() {
    let shop = start(false).await;
    let beta = "X-Beta: 1\r\nX-Secret: s\r\nVia: first\r\nX-From: me\r\n";
    let reply = shop.ask("GET /v12/items?debug=true&n=1", "any.example", beta).await;
    assert!(matches!(origin(&reply), "v1" | "v2"), "{}", reply.head);
    let report = Report::parse(&reply.body);
    assert_eq!((report.path.as_str(), report.host.as_str()), ("/items?debug=true&n=1", "items.internal"));
    assert_eq!(report.field("x-forwarded-host"), Some("any.example"));
    assert_eq!(report.field("x-from"), Some("edge"));
    assert_eq!(report.field("x-secret"), None);
    let via: Vec<_> = report
        .fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("via"))
        .map(|(_, v)| v.as_str())
        .collect();
    assert_eq!(via, ["first", "outrigger"]);
    let rows = [
        ("GET /v12/items?debug=false", beta),
        ("GET /v12/items", beta),
        ("GET /v12/items?debug=true", "X-Beta: 2\r\n"),
        ("GET /v12/items?debug=true", ""),
        ("GET /v/items?debug=true", beta),
        ("GET /v12/items/7?debug=true", beta),
        ("GET /x/v12/items?debug=true", beta),
    ];
    for (request, fields) in rows {
        let reply = shop.ask(request, "any.example", fields).await;
        assert_eq!((reply.status, origin(&reply)), (404, "none"), "{request} {fields}");
    }
}

#[tokio::test]
async fn a_split_follows_its_weights() {
    let shop = start(false).await;
    let mut client = shop.proxy.client("public").await;
    let mut second = 0;
    for _ in 0..500 {
        client.send("GET /v1/items?debug=true HTTP/1.1\r\nHost: t\r\nX-Beta: 1\r\n\r\n").await;
        second += u32::from(origin(&client.reply().await) == "v2");
    }
    // 50 are expected; 20 is more than four standard deviations away.
    assert!((20..=85).contains(&second), "{second} of 500 went to the tenth");
}

#[tokio::test]
async fn least_request_over_weights_uses_both() {
    let shop = start(false).await;
    let mut client = shop.proxy.client("public").await;
    for _ in 0..60 {
        client.send("GET /cart HTTP/1.1\r\nHost: shop.example.com\r\n\r\n").await;
        assert_eq!(client.reply().await.status, 200);
    }
    assert!(shop.origins[1].requests() >= shop.origins[0].requests());
    assert_eq!(shop.origins[0].requests() + shop.origins[1].requests(), 60);
}

#[tokio::test]
async fn redirects_and_protocols() {
    let shop = start(false).await;
    let reply = shop.ask("GET /old?x=1", "t", "").await;
    assert_eq!((reply.status, reply.field("location")), (301, Some("https://shop.example.com/new")));
    assert_eq!(shop.ask("GET /old/er", "t", "").await.status, 404);
    let reply = shop.ask("GET /grpc.health.v1.Health/Check", "t", "").await;
    let report = Report::parse(&reply.body);
    assert_eq!((report.origin.as_str(), report.protocol.as_str()), ("grpc", "HTTP/2"));
    assert_eq!(report.path, "/grpc.health.v1.Health/Check");
}

#[tokio::test]
async fn bytes_go_to_a_name() {
    let shop = start(false).await;
    let mut client = shop.proxy.client("database").await;
    client.send("any bytes\0at all").await;
    assert_eq!(client.exactly(16).await, b"any bytes\0at all");
}

#[tokio::test]
async fn the_whole_file_as_it_is_written() {
    let Some(curl) = peer("curl") else { return };
    let shop = start(true).await;
    let port = shop.proxy.address("public").port();
    let ca = shop.proxy.dir().file("ca.crt");
    let (resolve, url) =
        (format!("shop.example.com:{port}:127.0.0.1"), format!("https://shop.example.com:{port}/cart"));
    for (version, number) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let args = ["-sS", version, "--cacert", ca.to_str().unwrap(), "--resolve", &resolve, &url];
        let out = curl.run(args.iter().copied().chain(["-w", "\n%{http_version} %{http_code}"])).await.ok();
        let (body, said) = out.rsplit_once('\n').unwrap();
        assert_eq!(said, format!("{number} 200"));
        let report = Report::parse(body.as_bytes());
        assert!(report.origin.starts_with("cart"), "{report:?}");
        assert_eq!(report.field("x-forwarded-proto"), Some("https"));
    }
    within(
        "the log",
        shop.proxy
            .wait_metric("outrigger_downstream_requests_total{listener=\"public\",code=\"2xx\"}", |n| {
                n == 2.0
            }),
    )
    .await;
    let lines: Vec<serde_json::Value> = outrigger_tests::until("two lines in the access log", async || {
        let lines: Vec<_> =
            shop.proxy.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (lines.len() == 2).then_some(lines)
    })
    .await;
    // Each worker writes its own lines, in no order between them.
    for protocol in ["HTTP/2", "HTTP/1.1"] {
        let line =
            lines.iter().find(|line| line["protocol"] == protocol).unwrap_or_else(|| panic!("{lines:?}"));
        assert_eq!(
            (line["path"].as_str(), line["route"].as_str()),
            (Some("/cart"), Some("public.routes[0]")),
            "{line}"
        );
    }
}

/// What the file of the contract does not show.
#[tokio::test]
async fn prefixes_are_rewritten_and_splits_edit_headers() {
    let echo = Echo::start("e").await;
    let config = format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n\
         \x20     - match: {{ path: {{ prefix: /api/v1 }} }}\n        to: {{ app: {{ weight: 1, request_headers: {{ set: {{ x-share: a }} }}, response_headers: {{ set: {{ x-back: b }} }} }} }}\n        rewrite: {{ prefix: /internal }}\n\
         \x20     - match: {{ path: {{ prefix: /strip }} }}\n        to: app\n        rewrite: {{ prefix: / }}\n\
         \x20     - match: {{ path: {{ regex: ^/swap }} }}\n        to: app\n        rewrite: {{ regex: {{ pattern: \"^/swap/([^/]+)/([^/]*)\", with: /\\2/\\1 }} }}\n\
         \x20     - match: {{ path: {{ regex: ^/up }} }}\n        to: app\n        rewrite: {{ regex: {{ pattern: ^/up, with: /.. }} }}\n\
         \x20     - match: {{ path: {{ regex: ^/raw }} }}\n        to: app\n        rewrite: {{ regex: {{ pattern: ^/raw, with: /static/ }} }}\n\
         \x20     - match: {{ path: {{ regex: ^/bare }} }}\n        to: app\n        rewrite: {{ regex: {{ pattern: \"^/bare/(.*)$\", with: \"\\\\1\" }} }}\n\
         clusters:\n  app: {{ endpoints: [\"{}\"] }}\n",
        echo.address()
    );
    let proxy = Proxy::start(&config).await;
    let rows = [
        ("/api/v1", "/internal"),
        ("/api/v1/", "/internal/"),
        ("/api/v1/x/y?q=1", "/internal/x/y?q=1"),
        ("/strip", "/"),
        ("/strip/a", "/a"),
        ("/strip?x", "/?x"),
        ("/swap/a/b/c?q=/swap/a/b", "/b/a/c?q=/swap/a/b"),
        ("/swap/a", "/swap/a"),
        ("/swapped", "/swapped"),
        // One form of a path is sent on, whatever was put together.
        ("/swap/a/", "//a"),
        ("/upper/a", "/..per/a"),
        ("/raw/x", "/static//x"),
        ("/raw...", "/static/..."),
    ];
    for (sent, seen) in rows {
        let reply = proxy.get("web", sent).await;
        let report = Report::parse(&reply.body);
        assert_eq!(report.path, seen, "{sent}");
        if sent.starts_with("/api") {
            assert_eq!((report.field("x-share"), reply.field("x-back")), (Some("a"), Some("b")));
        }
    }
    let rows = [
        ("/elsewhere", 404, "no_route"),
        ("/up/a", 400, "rewrite_dot_segment"),
        ("/raw../secret", 400, "rewrite_dot_segment"),
        ("/raw%2e%2E/secret", 400, "rewrite_dot_segment"),
        ("/raw.", 400, "rewrite_dot_segment"),
        ("/raw..%2fsecret", 400, "bad_path"),
        ("/bare/a", 500, "rewrite_no_path"),
    ];
    for (sent, status, reason) in rows {
        let reply = proxy.get("web", sent).await;
        assert_eq!((reply.status, reply.field("x-outrigger-reason")), (status, Some(reason)), "{sent}");
    }
}

/// What is asked of a server as a whole has no path in which anything could be found.
#[tokio::test]
async fn an_asterisk_stays_where_an_expression_finds_nothing() {
    let echo = Echo::start("e").await;
    let config = format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n\
         \x20     - {{ to: app, rewrite: {{ regex: {{ pattern: ^/api, with: /v1 }} }} }}\n\
         clusters:\n  app: {{ endpoints: [\"{}\"] }}\n",
        echo.address()
    );
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.client("web").await;
    client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.field("x-outrigger-reason")), (200, None));
    assert_eq!(Report::parse(&reply.body).path, "*");
}

/// Ten thousand routes are found as one is.
#[tokio::test]
async fn many_routes_are_all_found() {
    let echo = Echo::start("e").await;
    let mut config = String::from("listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n");
    for i in 0..10_000 {
        config.push_str(&format!("      - {{ match: {{ host: h{}.test, path: {{ prefix: /p{i} }} }}, respond: {{ status: 200, body: \"{i}\" }} }}\n", i % 100));
    }
    config.push_str(&format!(
        "      - {{ to: app }}\nclusters:\n  app: {{ endpoints: [\"{}\"] }}\n",
        echo.address()
    ));
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.client("web").await;
    for i in [0, 1, 99, 100, 4_711, 9_999] {
        client.send(format!("GET /p{i}/x HTTP/1.1\r\nHost: h{}.test\r\n\r\n", i % 100)).await;
        assert_eq!(client.reply().await.text(), i.to_string());
        client.send(format!("GET /p{i}/x HTTP/1.1\r\nHost: h{}.test\r\n\r\n", (i + 1) % 100)).await;
        assert_eq!(origin(&client.reply().await), "e");
    }
}
