//! Who may do what: rules over requests and connections, and what becomes of those that were let in before.

use outrigger_tests::pki::{self, Authority, DOMAIN, IDENTITY};
use outrigger_tests::{Client, Echo, Origin, Proxy, Report, h2client, until};

/// A listener `in` with these rules, in front of `app`.
fn config(rules: &str, more: &str, app: &str) -> String {
    format!(
        "access_log: {{ format: json, to: stdout }}\nlisteners:\n  in:\n    bind: 127.0.0.1:0\n{more}    authorization: [{rules}]\n    routes: [{{ to: app }}]\nclusters:\n  app: {{ endpoints: [\"{app}\"] }}\n"
    )
}

async fn decisions(proxy: &Proxy, decision: &str) -> f64 {
    proxy
        .metric(&format!(
            "outrigger_downstream_authorization_total{{listener=\"in\",decision=\"{decision}\"}}"
        ))
        .await
}

#[tokio::test]
async fn requests_pass_by_the_rules_and_the_answer_does_not_say_by_which() {
    let echo = Echo::start("app").await;
    let rules = "{ allow: { methods: [GET], paths: [\"/cart/*\", /health] } }, { name: no-admin, deny: { paths: [{ prefix: /cart/admin }] } }, \
                 { allow: { headers: { x-team: ops } } }, { deny: { hosts: [\"*.evil.test\"] } }";
    let proxy = Proxy::start(&config(rules, "", &echo.address().to_string())).await;
    let rows = [
        ("GET /cart/1", "", 200),
        ("GET /health", "", 200),
        ("GET /healthy", "", 403),
        ("POST /cart/1", "", 403),
        ("GET /cart/admin", "", 403),
        ("GET /cart/admin/x", "", 403),
        ("GET /cart/administrators", "", 200),
        ("GET /other", "", 403),
        ("GET /other", "X-Team: ops\r\n", 200),
        ("GET /other", "X-Team: ops\r\nX-Team: dev\r\n", 403),
        ("GET /other", "X-Team: ops,dev\r\n", 403),
        ("GET /cart/admin", "X-Team: ops\r\n", 403),
    ];
    for (start, fields, status) in rows {
        let mut client = proxy.client("in").await;
        client.send(format!("{start} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, status, "{start} {fields}");
        if status == 403 {
            assert_eq!(reply.field("x-outrigger-reason"), Some("authorization_denied"));
            assert!(!reply.text().contains("no-admin") && !reply.text().contains('['), "{}", reply.text());
        }
    }
    let mut client = proxy.client("in").await;
    client.send("GET /cart/1 HTTP/1.1\r\nHost: A.Evil.Test:80\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 403);
    let named = || proxy.stdout().contains("\"authorization\":\"denied: authorization[1] (no-admin)\"");
    until("the rule in the log", async || named().then_some(())).await;
    assert!(proxy.stdout().contains("\"flag\":\"UAEX\",\"reason\":\"authorization_denied\""));
    assert_eq!((decisions(&proxy, "allowed").await, decisions(&proxy, "denied").await), (4.0, 9.0));
}

#[tokio::test]
async fn http2_and_grpc_are_answered_in_their_own_words() {
    let echo = Echo::start("app").await;
    let rules = "{ allow: { paths: [/a] } }";
    let proxy = Proxy::start(&config(rules, "", &echo.address().to_string())).await;
    let client = h2client::H2::connect(proxy.address("in")).await;
    let (allowed, denied) = (client.get("/a").await, client.get("/b").await);
    assert_eq!((allowed.status, denied.status), (200, 403));
    let mut call = h2client::get("/b");
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let grpc = client.send(call, Vec::new(), None).await.unwrap();
    assert_eq!((grpc.status, grpc.field("grpc-status")), (200, Some("7")));
}

#[tokio::test]
async fn networks_and_ports_count_for_tcp_too() {
    let origin = Origin::start(async |mut conn| conn.send("hello").await).await;
    for (rules, served) in [
        ("{ allow: { source: [127.0.0.0/8] } }", true),
        ("{ allow: { source: [10.0.0.0/8] } }", false),
        ("{ allow: {} }, { deny: { source: 127.0.0.1/32 } }", false),
        ("{ allow: { ports: [1] } }", false),
        ("{ allow: {} }, { deny: { source: 10.0.0.0/8 } }", true),
    ] {
        let config = format!(
            "access_log: {{ format: json, to: stdout }}\nlisteners:\n  in: {{ bind: 127.0.0.1:0, authorization: [{rules}], tcp: {{ to: db }} }}\nclusters:\n  db: {{ endpoints: [\"{}\"] }}\n",
            origin.address()
        );
        let proxy = Proxy::start(&config).await;
        let mut client = proxy.client("in").await;
        assert_eq!(client.rest().await, if served { &b"hello"[..] } else { b"" }, "{rules}");
        if !served {
            until("a line", async || {
                proxy.stdout().contains("\"reason\":\"authorization_denied\"").then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn who_stands_behind_a_proxy_that_is_believed_is_the_source() {
    let echo = Echo::start("app").await;
    let more = "    trusted_proxies: [127.0.0.0/8]\n";
    let rules = "{ allow: {} }, { deny: { source: 10.66.0.0/16 } }";
    let proxy = Proxy::start(&config(rules, more, &echo.address().to_string())).await;
    let mut client = proxy.client("in").await;
    for (said, status) in [("10.66.1.1", 403), ("10.67.1.1", 200), ("10.66.1.1, 10.67.1.1", 200)] {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {said}\r\n\r\n")).await;
        assert_eq!(client.reply().await.status, status, "{said}");
    }
}

#[tokio::test]
async fn dry_runs_and_audits_are_told_and_decide_nothing() {
    let echo = Echo::start("app").await;
    let rules = "{ allow: {} }, { deny: { paths: [/secret] }, dry_run: true }, { name: looked-at, audit: { methods: [DELETE] } }";
    let proxy = Proxy::start(&config(rules, "", &echo.address().to_string())).await;
    let mut client = proxy.client("in").await;
    assert_eq!(client.get("/secret").await.status, 200);
    client.send("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    for (decision, times) in [("would_deny", 1.0), ("allowed", 2.0), ("audit", 1.0), ("denied", 0.0)] {
        assert_eq!(decisions(&proxy, decision).await, times, "{decision}");
    }
    for line in ["would be denied: authorization[1]", "audit: authorization[2] (looked-at)"] {
        until(line, async || proxy.stdout().contains(line).then_some(())).await;
    }
}

#[tokio::test]
async fn whoever_a_new_policy_refuses_is_seen_off() {
    let (origin, _gate) = Origin::gated().await;
    let plain = |rules: &str| {
        format!(
            "listeners:\n  in: {{ bind: 127.0.0.1:0, authorization: [{rules}], routes: [{{ to: app }}] }}\n  \
             db: {{ bind: 127.0.0.1:0, authorization: [{rules}], tcp: {{ to: db }} }}\nclusters:\n  app: {{ endpoints: [\"{0}\"] }}\n  db: {{ endpoints: [\"{0}\"] }}\n",
            origin.address()
        )
    };
    let proxy = Proxy::start(&plain("{ allow: {} }")).await;
    let mut pair = proxy.client("db").await;
    pair.send("x").await;
    let mut idle = proxy.client("in").await;
    idle.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut busy = proxy.client("in").await;
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.wait_requests(1).await;
    // Nothing changes for who may stay.
    proxy.reload(&plain("{ allow: {} }, { deny: { source: 10.0.0.0/8 } }")).await;
    pair.send("y").await;
    proxy.reload(&plain("{ allow: {} }, { deny: { source: 127.0.0.0/8 } }")).await;
    assert_eq!(pair.rest().await, b"");
    // What was under way had a while to end in, and has not.
    assert_eq!(busy.rest().await, b"");
    let mut fresh = proxy.client("in").await;
    assert_eq!(fresh.get("/").await.status, 403);
}

#[tokio::test]
async fn identities_are_what_peers_is_about() {
    let authority = Authority::new(DOMAIN);
    let dir = pki::identity(&authority, "/app");
    let echo = Echo::start("app").await;
    let config = |rules: &str| {
        format!("{IDENTITY}{}", config(rules, "    mtls: permissive\n", &echo.address().to_string()))
    };
    let rules = "{ allow: { peers: [\"spiffe://cluster.local/ns/shop/*\"], methods: [GET, POST], paths: [\"/cart/*\"] } }, \
                 { allow: { peers: [\"spiffe://cluster.local/ns/ops/sa/admin\"] } }, { allow: { paths: [/health] } }, { deny: { sni: bad.test } }";
    let proxy = Proxy::start_in(dir, &config(rules)).await;
    let to = proxy.address("in");
    let rows = [
        ("/ns/shop/sa/web", "/cart/1", 200),
        ("/ns/shop/sa/web", "/other", 403),
        ("/ns/shopping/sa/web", "/cart/1", 403),
        ("/ns/ops/sa/admin", "/other", 200),
        ("/ns/ops/sa/admin2", "/other", 403),
        ("/ns/any", "/health", 200),
    ];
    for (peer, path, status) in rows {
        assert_eq!(pki::status(to, Some(&authority.svid(peer)), path).await, Some(status), "{peer} {path}");
    }
    // In the clear nobody is anybody.
    let mut plain = Client::connect(to).await;
    assert_eq!((plain.get("/health").await.status, plain.get("/cart/1").await.status), (200, 403));
    let admin = authority.svid("/ns/ops/sa/admin");
    let named = pki::connect(to, "Bad.test", &pki::client_config(Some(&admin), &[])).await.unwrap();
    assert_eq!(Client::over(named).get("/other").await.status, 403);
    // Who loses its right is gone; who keeps it stays on the connection that it has.
    let mut kept = pki::client(to, Some(&admin)).await;
    let mut lost = pki::client(to, Some(&authority.svid("/ns/shop/sa/web"))).await;
    assert_eq!((kept.get("/a").await.status, lost.get("/cart/1").await.status), (200, 200));
    proxy.reload(&config("{ allow: { peers: [\"spiffe://cluster.local/ns/ops/*\"] } }")).await;
    assert_eq!(lost.rest().await, b"");
    assert_eq!(kept.get("/a").await.status, 200);
}

const SPELLINGS: &[&str] = &[
    "/admin",
    "/admin/",
    "//admin",
    "/./admin",
    "/x/../admin",
    "/admin/.",
    "/admin/..",
    "/admin/../admin",
    "/%61dmin",
    "/%61%64%6d%69%6e",
    "/admin%2f",
    "/admin%2Fx",
    "/admin%5cx",
    "/admin\\x",
    "/admin;x",
    "/admin;/x",
    "/;/admin",
    "/x;/../admin",
    "/%2e/admin",
    "/%2e%2e/admin",
    "/x/%2e%2e/admin",
    "/x/%2E./admin",
    "/.%2e/admin",
    "/%252e%252e/admin",
    "/%2561dmin",
    "/admin%00",
    "/admin%0a",
    "/admin?x",
    "/admin%3fx",
    "/admin#x",
    "/admin%23x",
    "/ADMIN",
    "/Admin",
    "/admin%20",
    "/admin./",
    "/admin../",
    "/a/b/../../admin",
    "/a//../admin",
    "/a/./b/../../admin/x",
    "/admin//x",
    "//admin//x",
    "/x/..;/admin",
    "/%c0%ae%c0%ae/admin",
    "/%uff0e/admin",
    "http://a/admin",
    "http://a//admin",
    "/admin/%2e%2e/admin",
    "/\u{0}admin",
    "/%ef%bc%8fadmin",
    "/..admin",
    "/.admin",
    "/x/%2e%2e%2fadmin",
    "/x%2f..%2fadmin",
    "/./../admin",
    "/../admin",
    "/...//admin",
];

/// However a path is written, what the policy saw is what the upstream gets: nothing below `/admin` ever does.
#[tokio::test]
async fn no_spelling_of_a_path_gets_around_a_rule() {
    let echo = Echo::start("app").await;
    let rules = "{ allow: {} }, { deny: { paths: [{ prefix: /admin }] } }";
    let proxy = Proxy::start(&config(rules, "", &echo.address().to_string())).await;
    let mut passed = 0;
    for target in SPELLINGS {
        let mut client = proxy.client("in").await;
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let reply = client.reply().await;
        if reply.status != 200 {
            assert!(matches!(reply.status, 400 | 403), "{target}: {}", reply.status);
            continue;
        }
        passed += 1;
        let report = Report::parse(&reply.body);
        let path = report.path.split('?').next().unwrap();
        // As naive, and as generous, as any service could be.
        let decoded = decode(&decode(path)).replace('\\', "/");
        let mut segments = Vec::new();
        for segment in decoded.split('/') {
            match segment.split(';').next().unwrap() {
                "" | "." => {}
                ".." => drop(segments.pop()),
                name => segments.push(name.to_owned()),
            }
        }
        let below_admin = segments.first().is_some_and(|first| first == "admin");
        // Encoded twice is a name of its own, to us and to whom we send it; parameters are part of a name (RFC 3986).
        let meant = path.contains("%25") || path.contains(';');
        assert!(!below_admin || meant, "{target} came through as {path}");
    }
    assert!(passed >= 5, "{passed}");
}

fn decode(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.filter(|_| bytes[at] == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
