//! Fields of one hop stay on it (RFC 9110 section 7.6.1), and nobody says of himself who he is.

use outrigger_tests::origin::ok;
use outrigger_tests::{Origin, Proxy, Received};

use crate::web_with;

async fn send(listener: &str, fields: &str) -> Received {
    let origin = Origin::answering(&ok("")).await;
    let proxy = Proxy::start(&web_with(listener, "", [origin.address()])).await;
    let mut client = proxy.client("web").await;
    client.send(format!("GET / HTTP/1.1\r\nHost: shop.example.com\r\n{fields}\r\n")).await;
    let reply = client.reply().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    origin.last()
}

/// The values that the origin sees.
#[track_caller]
fn check(seen: &Received, name: &str, expected: &[&str]) {
    assert_eq!(seen.values(name), expected, "{name} in {:?}", seen.message.head);
}

#[tokio::test]
async fn hop_by_hop_fields_stay_on_their_hop() {
    let fields = "Connection: keep-alive, X-Mine\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\n\
                  X-Mine: 1\r\nX-Other: 2\r\nUpgrade: h2c\r\n";
    let seen = send("", fields).await;
    for gone in ["connection", "keep-alive", "proxy-connection", "te", "x-mine", "upgrade"] {
        check(&seen, gone, &[]);
    }
    check(&seen, "x-other", &["2"]);
    check(&seen, "host", &["shop.example.com"]);
}

#[tokio::test]
async fn connection_cannot_name_away_what_others_rely_on() {
    let fields = "Connection: close, authorization, cookie, x-forwarded-for, content-type, host\r\nAuthorization: Basic x\r\nCookie: a=b\r\n\
                  Content-Type: a/b\r\n";
    let seen = send("", fields).await;
    check(&seen, "authorization", &["Basic x"]);
    check(&seen, "cookie", &["a=b"]);
    check(&seen, "content-type", &["a/b"]);
    check(&seen, "host", &["shop.example.com"]);
    check(&seen, "x-forwarded-for", &["127.0.0.1"]);
}

#[tokio::test]
async fn what_strangers_say_of_themselves_is_dropped() {
    let fields = "X-Forwarded-For: 10.1.1.1\r\nX-Forwarded-For: 10.1.1.2\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
                  X-Forwarded-Port: 1\r\nForwarded: for=10.1.1.1\r\nX_Forwarded_For: 10.1.1.1\r\n\
                  x_forwarded-client_cert: By=a\r\nx_other: stays\r\n";
    let seen = send("", fields).await;
    check(&seen, "x-forwarded-for", &["127.0.0.1"]);
    check(&seen, "x-forwarded-proto", &["http"]);
    // To some upstreams `_` is `-`.
    let gone =
        ["x-forwarded-host", "x-forwarded-port", "forwarded", "x_forwarded_for", "x_forwarded-client_cert"];
    for gone in gone {
        check(&seen, gone, &[]);
    }
    check(&seen, "x_other", &["stays"]);
}

#[tokio::test]
async fn what_trusted_proxies_say_is_added_to() {
    let trusted = "trusted_proxies: [127.0.0.0/8]";
    let fields = "X-Forwarded-For: 10.1.1.1\r\nX-Forwarded-For: 10.1.1.2\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop\r\n";
    let seen = send(trusted, fields).await;
    check(&seen, "x-forwarded-for", &["10.1.1.1, 10.1.1.2, 127.0.0.1"]);
    check(&seen, "x-forwarded-proto", &["https"]);
    check(&seen, "x-forwarded-host", &["shop"]);
    let seen = send("trusted_proxies: [10.0.0.0/8]", fields).await;
    check(&seen, "x-forwarded-for", &["127.0.0.1"]);
    check(&seen, "x-forwarded-proto", &["http"]);
    let seen = send(trusted, "").await;
    check(&seen, "x-forwarded-for", &["127.0.0.1"]);
    check(&seen, "x-forwarded-proto", &["http"]);
}

#[tokio::test]
async fn hop_by_hop_fields_of_answers_stay_on_their_hop() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Mine\r\nKeep-Alive: timeout=5\r\nX-Mine: 1\r\nProxy-Connection: x\r\n\
         Upgrade: h2c\r\nX-Other: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let proxy = Proxy::start(&web_with("", "", [origin.address()])).await;
    let reply = proxy.get("web", "/").await;
    for gone in ["connection", "keep-alive", "x-mine", "proxy-connection", "upgrade"] {
        assert_eq!(reply.field(gone), None, "{}", reply.head);
    }
    assert_eq!(reply.field("x-other"), Some("2"));
    let cookies: Vec<_> =
        reply.fields.iter().filter(|(name, _)| name == "Set-Cookie").map(|(_, v)| v.as_str()).collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
}
