//! A configuration on trial: what it would change is told, and nothing is changed by it.

use std::sync::Arc;

use outrigger_tests::h2client::H2;
use outrigger_tests::{Client, Dir, Origin, Proxy, until};
use serde_json::{Value, json};

use crate::jwt::{Signer, keys, now};

/// Listeners, each with its place in a line; before clusters `cart` and `items` that lead to these.
fn config(listeners: &str, cart: &Origin, items: &Origin) -> String {
    format!(
        "listeners:\n{listeners}clusters:\n  cart: {{ protocol: http1, endpoints: [\"{}\"] }}\n  items: {{ protocol: http1, endpoints: [\"{}\"] }}\n",
        cart.address(),
        items.address()
    )
}

fn web(more: &str, routes: &str) -> String {
    format!("  web: {{ bind: \"127.0.0.1:0\", {more}routes: [{routes}] }}\n")
}

/// What is shown, once so many were held up.
async fn found(proxy: &Proxy, evaluated: u64) -> Value {
    until("the findings", async || {
        let shown = proxy.ask_json("/shadow").await;
        (shown["evaluated"] == evaluated && shown["workers"] == 2).then_some(shown)
    })
    .await
}

/// In force, by the trial, how often.
fn differences(shown: &Value) -> Vec<(&str, &str, u64)> {
    let all = shown["differences"].as_array().unwrap().iter();
    let row = |one: &'_ Value| {
        let text = |key: &str| one[key].as_str().unwrap().to_owned();
        (text("in_force"), text("shadow"), one["requests"].as_u64().unwrap())
    };
    let mut rows: Vec<_> = all.map(row).map(|(a, b, n)| (&*a.leak(), &*b.leak(), n)).collect();
    rows.sort_unstable();
    rows
}

/// Until the workers know what is on trial.
async fn on_trial(proxy: &Proxy, listener: &str) {
    until("what is on trial", async || {
        let shown = proxy.ask_json("/shadow").await;
        (shown["workers"] == 2 && shown["listeners"].as_array()?.contains(&json!(listener))).then_some(())
    })
    .await;
}

async fn requests(proxy: &Proxy, differs: bool) -> f64 {
    let series = format!("outrigger_shadow_requests_total{{differs=\"{differs}\",listener=\"web\"}}");
    proxy.metric(&series).await
}

const NOW: &str =
    "{ match: { path: /items }, to: items }, { match: { path: /old }, redirect: { to: /new } }, { to: cart }";

#[tokio::test]
async fn what_would_change_is_told_and_nothing_changes() {
    let (cart, items) = (Origin::ok("cart").await, Origin::ok("items").await);
    let next = "{ match: { path: /items }, to: { cart: 1, items: 9 } }, { match: { path: /gone }, respond: { status: 410 } }, \
                { match: { path: /v1 }, to: cart, rewrite: { path: /v2/all } }, { match: { methods: [GET] }, to: cart }";
    let rules = "authorization: [{ allow: {} }, { name: no-secrets, deny: { paths: [/secret] } }], ";
    let proxy = Proxy::start_with_trial(
        &config(&web("", NOW), &cart, &items),
        &config(&web(rules, next), &cart, &items),
    )
    .await;
    on_trial(&proxy, "web").await;
    let mut client = proxy.client("web").await;
    let rows = [
        ("GET", "/", 200, "cart"),
        ("GET", "/items/1?q=1", 200, "items"),
        ("GET", "/items/2", 200, "items"),
        ("GET", "/gone", 200, "cart"),
        ("GET", "/v1", 200, "cart"),
        ("GET", "/old", 302, ""),
        ("GET", "/secret", 200, "cart"),
        ("DELETE", "/", 200, "cart"),
    ];
    for (method, path, status, body) in rows {
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: Shop.test\r\n\r\n")).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.text().as_str()), (status, body), "{method} {path}");
        assert!(reply.field("x-outrigger-reason").is_none());
    }
    let h2 = H2::connect(proxy.address("web")).await;
    assert_eq!((h2.get("/").await.status, h2.get("/secret").await.body), (200, b"cart".to_vec()));
    assert!(cart.requests().iter().all(|request| !request.target().starts_with("/v2")));
    let shown = found(&proxy, 10).await;
    let expected = [
        ("redirect to /new (302)", "to cart", 1),
        ("to cart", "denied by authorization[1] (no-secrets)", 2),
        ("to cart", "no route", 1),
        ("to cart", "responds 410", 1),
        ("to cart as it is", "to cart as /v2/all", 1),
        ("to items", "to a split of cart 1, items 9", 2),
    ];
    assert_eq!(differences(&shown), expected, "{shown:#}");
    // Those seen most come first.
    let first = &shown["differences"][0];
    assert_eq!((&first["listener"], &first["requests"]), (&json!("web"), &json!(2)));
    let of = |in_force: &str| {
        let all = shown["differences"].as_array().unwrap();
        all.iter().find(|one| one["in_force"] == in_force).unwrap()["example"].clone()
    };
    assert_eq!(of("to items"), "GET Shop.test/items/1");
    assert_eq!(
        (&shown["refused"], &shown["revision"], &shown["others"]),
        (&Value::Null, &Value::Null, &json!(0))
    );
    assert!(shown["source"].as_str().unwrap().ends_with("next.yaml") && shown["since"].is_u64(), "{shown:#}");
    assert_eq!((requests(&proxy, true).await, requests(&proxy, false).await), (8.0, 2.0));
}

#[tokio::test]
async fn who_may_no_more_and_who_may_again() {
    let (cart, items) = (Origin::ok("cart").await, Origin::ok("items").await);
    let now = "trusted_proxies: [127.0.0.0/8], authorization: [{ allow: { source: [10.0.0.0/8] } }], ";
    let next = "trusted_proxies: [127.0.0.0/8], authorization: [{ allow: { source: [10.1.0.0/16, 192.168.0.0/16] } }], ";
    let proxy = Proxy::start_with_trial(
        &config(&web(now, "{ to: cart }"), &cart, &items),
        &config(&web(next, "{ to: cart }"), &cart, &items),
    )
    .await;
    on_trial(&proxy, "web").await;
    let mut client = proxy.client("web").await;
    for (from, status) in [("10.1.0.1", 200), ("10.2.0.1", 200), ("192.168.0.1", 403), ("172.16.0.1", 403)] {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {from}\r\n\r\n")).await;
        assert_eq!(client.reply().await.status, status, "{from}");
    }
    let shown = found(&proxy, 4).await;
    let expected = [("denied: no rule allows it", "to cart", 1), ("to cart", "denied: no rule allows it", 1)];
    assert_eq!(differences(&shown), expected);
}

#[tokio::test]
async fn tokens_that_would_be_asked_for_are_told() {
    let (cart, items) = (Origin::ok("cart").await, Origin::ok("items").await);
    let next = "jwt: [{ issuer: i, audiences: a, jwks: none.json, required: true }], ";
    let proxy = Proxy::start_with_trial(
        &config(&web("", "{ to: cart }"), &cart, &items),
        &config(&web(next, "{ to: cart }"), &cart, &items),
    )
    .await;
    on_trial(&proxy, "web").await;
    let mut client = proxy.client("web").await;
    for fields in ["", "Authorization: Bearer a.b.c\r\n"] {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
        assert_eq!(client.reply().await.status, 200, "{fields}");
    }
    let shown = found(&proxy, 2).await;
    let expected = [
        ("to cart", "denied without a token", 1),
        ("to cart", "up to its token, which nobody looks at in force", 1),
    ];
    assert_eq!(differences(&shown), expected);
}

#[tokio::test]
async fn connections_are_held_up_where_bytes_are_passed_on() {
    let cart = Origin::start(async |mut conn| conn.send("cart").await).await;
    let items = Origin::start(async |mut conn| conn.send("items").await).await;
    let tcp =
        |more: &str, to: &str| format!("  db: {{ bind: \"127.0.0.1:0\", {more}tcp: {{ to: {to} }} }}\n");
    let next = |text: &str| config(text, &cart, &items);
    let proxy = Proxy::start_with_trial(&next(&tcp("", "cart")), &next(&tcp("", "items"))).await;
    on_trial(&proxy, "db").await;
    assert_eq!(proxy.client("db").await.rest().await, b"cart");
    let shown = found(&proxy, 1).await;
    assert_eq!(differences(&shown), [("to cart", "to items", 1)]);
    let example = shown["differences"][0]["example"].as_str().unwrap();
    assert!(example.starts_with("127.0.0.1:"), "{example}");
    let rows = [
        (tcp("authorization: [{ deny: { source: 127.0.0.1/32 } }], ", "cart"), "denied by authorization[0]"),
        (
            tcp("", "cart").replace("db:", "db: { bind: \"127.0.0.1:0\", routes: [{ to: cart }] }\n  x:"),
            "read as HTTP",
        ),
        (tcp("", "{ cart: 1, items: 1 }"), "to a split of cart 1, items 1"),
    ];
    for (said, expected) in rows {
        proxy.dir().write("next.yaml", &next(&said));
        found(&proxy, 0).await;
        assert_eq!(proxy.client("db").await.rest().await, b"cart", "{expected}");
        assert_eq!(differences(&found(&proxy, 1).await), [("to cart", expected, 1)]);
    }
}

#[tokio::test]
async fn chains_are_found_as_they_would_be() {
    let (cart, items) = (Origin::ok("cart").await, Origin::ok("items").await);
    let now = "  web: { bind: \"127.0.0.1:0\", routes: [{ to: cart }] }\n";
    let next = "  web: { bind: \"127.0.0.1:0\", chains: [{ when: { source: 127.0.0.1/32 }, routes: some }] }\nroute_tables: { some: [{ to: items }] }\n";
    let proxy = Proxy::start_with_trial(&config(now, &cart, &items), &config(next, &cart, &items)).await;
    on_trial(&proxy, "web").await;
    assert_eq!(proxy.get("web", "/").await.text(), "cart");
    assert_eq!(differences(&found(&proxy, 1).await), [("to cart", "to items", 1)]);
    proxy.dir().write("next.yaml", &config(&next.replace("127.0.0.1/32", "10.0.0.0/8"), &cart, &items));
    found(&proxy, 0).await;
    assert_eq!(proxy.get("web", "/").await.text(), "cart");
    assert_eq!(differences(&found(&proxy, 1).await), [("to cart", "closed: no chain takes it", 1)]);
}

#[tokio::test]
async fn another_is_found_and_a_bad_one_says_why_and_harms_nothing() {
    let (cart, items) = (Origin::ok("cart").await, Origin::ok("items").await);
    let of = |to: &str| config(&web("", &format!("{{ to: {to} }}")), &cart, &items);
    let bad = of("cart").replace("routes:", "ruotes:");
    let proxy = Proxy::start_with_trial(&of("cart"), &bad).await;
    let refused = async || {
        let shown = proxy.ask_json("/shadow").await;
        let why = shown["refused"][0].as_str()?.to_owned();
        (shown["listeners"] == json!([])).then_some(why)
    };
    let why = until("the refusal", refused).await;
    assert!(why.ends_with("listeners.web: one of `routes`, `tcp`, `chains` is missing"), "{why}");
    proxy.wait_log("is refused: nothing is held up").await;
    let mut client = proxy.client("web").await;
    assert_eq!(client.get("/").await.text(), "cart");
    // On a connection that was there before.
    proxy.dir().write("next.yaml", &of("items"));
    on_trial(&proxy, "web").await;
    assert_eq!(client.get("/").await.text(), "cart");
    let shown = found(&proxy, 1).await;
    assert_eq!((differences(&shown), &shown["refused"]), (vec![("to cart", "to items", 1)], &Value::Null));
    // What comes into force is no longer anything else.
    proxy.reload(&of("items")).await;
    found(&proxy, 0).await;
    assert_eq!(client.get("/").await.text(), "items");
    assert_eq!(differences(&found(&proxy, 1).await), []);
    proxy.dir().write("next.yaml", "listeners: [");
    until("the refusal", refused).await;
    std::fs::remove_file(proxy.dir().file("next.yaml")).unwrap();
    until("it is gone", async || refused().await?.ends_with("there is no such file").then_some(())).await;
    assert_eq!(client.get("/").await.text(), "items");
    assert_eq!(proxy.ask("/ready").await.status, 200);
    assert_eq!(proxy.version().await, 2);
}

#[tokio::test]
async fn without_a_trial_nothing_is_shown() {
    let cart = Origin::ok("cart").await;
    let proxy = Proxy::start(&crate::web([cart.address()])).await;
    assert_eq!(proxy.get("web", "/").await.text(), "cart");
    let shown = proxy.ask_json("/shadow").await;
    assert_eq!(
        (&shown["source"], &shown["listeners"], &shown["evaluated"]),
        (&Value::Null, &json!([]), &json!(0))
    );
    assert!(!proxy.ask("/metrics").await.text().contains("outrigger_shadow"));
    assert!(Client::connect(proxy.admin()).await.get("/").await.text().contains("/shadow\n"));
}

/// The same on both sides, where much is decided: whatever is decided otherwise is decided wrongly.
#[tokio::test]
async fn the_same_makes_no_difference_to_tokens_and_to_a_service_that_is_asked() {
    let (signer, stranger) = (Signer::new("a"), Signer::new("b"));
    let (cart, service) = (Origin::ok("cart").await, Origin::ok("").await);
    let dir = Arc::new(Dir::new());
    let jwks = dir.write("jwks.json", &keys(&[&signer]));
    let more = format!(
        "jwt: [{{ issuer: i, audiences: a, jwks: {jwks:?}, required: true }}], external_authorization: {{ http: authz }}, \
         authorization: [{{ deny: {{ paths: [/deny], claims: {{ sub: bob }} }} }}, {{ allow: {{}} }}], "
    );
    let routes = "{ match: { path: /none }, jwt: none, to: cart }, { match: { path: /optional }, jwt: optional, to: cart }, \
                  { match: { path: /alone }, external_authorization: none, to: cart }, { match: { path: { prefix: / } }, to: cart }";
    let text = format!(
        "{}  authz: {{ protocol: http1, endpoints: [\"{}\"] }}\n",
        config(&web(&more, routes), &cart, &cart),
        service.address()
    );
    let proxy = Proxy::start_with_trial(&text, &text).await;
    on_trial(&proxy, "web").await;
    let claims =
        |sub: &str| format!("{{\"iss\":\"i\",\"aud\":\"a\",\"exp\":{},\"sub\":\"{sub}\"}}", now() + 300);
    let bearer = |token: String| format!("Authorization: Bearer {token}\r\n");
    let good = bearer(signer.sign(&claims("alice")));
    let bob = bearer(signer.sign(&claims("bob")));
    let tokens = [
        (String::new(), [200, 200, 401, 401, 401]),
        (bearer("a.b.c".to_owned()), [200, 401, 401, 401, 401]),
        (bearer(stranger.sign(&claims("alice"))), [200, 401, 401, 401, 401]),
        (good.repeat(2), [200, 401, 401, 401, 401]),
        (good, [200; 5]),
        (bob, [200, 200, 200, 200, 403]),
    ];
    let mut client = proxy.client("web").await;
    for (fields, expected) in &tokens {
        for (path, status) in ["/none", "/optional", "/alone", "/", "/deny"].iter().zip(expected) {
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
            assert_eq!(client.reply().await.status, *status, "{path} {fields}");
        }
    }
    let asked = service.requests().len();
    assert_eq!((differences(&found(&proxy, 30).await), asked), (vec![], 12));
}
