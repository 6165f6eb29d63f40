//! What the kernel has redirected reaches whom it was meant for. In a network of its own, with real rules.

use std::net::SocketAddr;

use outrigger_tests::h2client::H2;
use outrigger_tests::network::Network;
use outrigger_tests::{Client, Echo, Origin, Proxy, Report, until};
use tokio::net::TcpStream;

use super::endpoints;

const ADDRESSES: [&str; 4] = ["192.0.2.1/32", "192.0.2.2/32", "2001:db8::1/128", "2001:db8::2/128"];

/// As a sidecar is deployed: what the machine sends to these ports comes to the proxy, but for what the proxy itself sends.
const RULES: &str = "
table inet sidecar {
  chain output {
    type nat hook output priority -100; policy accept;
    meta skuid 1337 accept
    tcp dport { 80, 81, 8443, 15006 } redirect to :15001
  }
}";

/// As whom the proxy runs, so that the rules know it.
const USER: &str = "privileges: { user: \"1337:1337\" }\n";

fn to(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

async fn get(address: &str) -> (u16, String) {
    let reply = Client::connect(to(address)).await.get("/").await;
    match reply.field("x-outrigger-reason") {
        Some(reason) => (reply.status, reason.to_owned()),
        None if reply.status == 200 => (200, Report::parse(&reply.body).origin),
        None => (reply.status, reply.text()),
    }
}

fn answered(status: u16, by: &str) -> (u16, String) {
    (status, by.to_owned())
}

/// Speaks first, and says who it is.
async fn greeter(address: &'static str) -> Origin {
    Origin::start_at(address, move |mut conn| async move {
        conn.send(format!("{address}\n")).await;
        conn.rest().await;
    })
    .await
}

async fn greeting(client: &mut Client<TcpStream>) -> String {
    client.finish().await;
    String::from_utf8(client.rest().await).unwrap()
}

#[test]
fn http_reaches_where_it_was_going() {
    let Some(network) = Network::new(&ADDRESSES, RULES) else { return };
    network.run(async || {
        let _one = Echo::start_at("192.0.2.1:80", "one").await;
        let _two = Echo::start_at("192.0.2.2:80", "two").await;
        let _six = Echo::start_at("[2001:db8::1]:80", "six").await;
        let config = format!(
            "{USER}access_log: {{ format: json, to: stdout }}
listeners:
  web:
    bind: \"[::]:15001\"
    direction: outbound
    original_destination: redirect
    routes: [{{ to: passthrough }}]
clusters:
  passthrough: {{ original_destination: {{ cleanup: 100ms }} }}
"
        );
        let proxy = Proxy::start(&config).await;
        assert_eq!(get("192.0.2.1:80").await, answered(200, "one"));
        assert_eq!(get("192.0.2.2:80").await, answered(200, "two"));
        assert_eq!(get("[2001:db8::1]:80").await, answered(200, "six"));
        assert_eq!(get("192.0.2.1:80").await, answered(200, "one"));
        // HTTP/2 is spoken with whom the client spoke it with.
        let h2 = H2::connect(to("192.0.2.2:80")).await;
        assert_eq!(h2.get("/").await.report().protocol, "HTTP/2");
        drop(h2);
        // Nobody listens there, and that is nobody's fault here.
        assert_eq!(get("192.0.2.2:81").await, answered(503, "upstream_connect_refused"));
        assert_eq!(get("[2001:db8::2]:80").await, answered(503, "upstream_connect_refused"));
        until("lines of the log", async || {
            let log = proxy.stdout();
            ["192.0.2.1:80", "192.0.2.2:80", "[2001:db8::1]:80"]
                .iter()
                .all(|address| log.contains(&format!("\"endpoint\":\"{address}\"")))
                .then_some(())
        })
        .await;
        until("they are forgotten", async || endpoints(&proxy).await.is_empty().then_some(())).await;
        assert_eq!(get("[2001:db8::1]:80").await, answered(200, "six"));
    });
}

#[test]
fn bytes_reach_where_they_were_going_and_ports_choose_chains() {
    let Some(network) = Network::new(&ADDRESSES, RULES) else { return };
    network.run(async || {
        let _one = greeter("192.0.2.1:81").await;
        let _six = greeter("[2001:db8::1]:81").await;
        let _web = Echo::start_at("192.0.2.1:80", "one").await;
        let config = format!(
            "{USER}listeners:
  four:
    bind: 127.0.0.1:15001
    original_destination: redirect
    chains:
      - {{ when: {{ port: 81 }}, tcp: {{ to: passthrough }} }}
      - {{ when: {{ destination: [192.0.2.2, \"2001:db8::2\"] }}, routes: second }}
      - {{ when: {{ port: 8443 }}, authorization: [{{ allow: {{ ports: [8443] }} }}], routes: second }}
    rest: {{ authorization: [{{ deny: {{ ports: [15001] }} }}, {{ allow: {{ ports: [80] }} }}], routes: through }}
  six:
    bind: \"[::1]:15001\"
    original_destination: redirect
    chains:
      - {{ when: {{ port: 81 }}, tcp: {{ to: passthrough }} }}
      - {{ when: {{ destination: \"2001:db8::2\" }}, routes: second }}
route_tables:
  second: [{{ respond: {{ status: 418, body: second }} }}]
  through: [{{ to: passthrough }}]
clusters:
  passthrough: {{ original_destination: {{}} }}
"
        );
        let proxy = Proxy::start(&config).await;
        for address in ["192.0.2.1:81", "[2001:db8::1]:81"] {
            let mut client = Client::connect(to(address)).await;
            assert_eq!(greeting(&mut client).await, format!("{address}\n"));
        }
        assert_eq!(get("192.0.2.2:80").await, answered(418, "second"));
        assert_eq!(get("[2001:db8::2]:80").await, answered(418, "second"));
        assert_eq!(get("192.0.2.1:8443").await, answered(418, "second"));
        // What is allowed is what it was going to.
        assert_eq!(get("192.0.2.1:80").await, answered(200, "one"));
        // Where nothing takes it, it is closed.
        let mut client = Client::connect(to("[2001:db8::1]:80")).await;
        assert_eq!(client.rest().await, b"");
        let no_chain = "outrigger_downstream_errors_total{listener=\"six\",reason=\"no_chain\"}";
        proxy.wait_metric(no_chain, |n| n == 1.0).await;
    });
}

#[test]
fn a_loop_is_refused() {
    let Some(network) = Network::new(&ADDRESSES, RULES) else { return };
    network.run(async || {
        let config = format!(
            "{USER}listeners:
  web:
    bind: \"[::]:15001\"
    original_destination: redirect
    routes: [{{ to: passthrough }}]
  db:
    bind: 0.0.0.0:15002
    original_destination: redirect
    tcp: {{ to: passthrough }}
  other:
    bind: 0.0.0.0:15006
    routes: [{{ respond: {{}} }}]
  heedless:
    bind: 127.0.0.1:15003
    routes: [{{ to: passthrough }}]
clusters:
  passthrough: {{ original_destination: {{}} }}
"
        );
        let proxy = Proxy::start(&config).await;
        // Nobody has redirected these.
        let none = answered(503, "no_original_destination");
        assert_eq!(get("127.0.0.1:15001").await, none);
        assert_eq!(get("192.0.2.1:15001").await, none);
        assert_eq!(get("[2001:db8::1]:15001").await, none);
        assert_eq!(get("127.0.0.1:15003").await, none);
        let mut client = Client::connect(to("192.0.2.1:15002")).await;
        assert_eq!(client.rest().await, b"");
        let error = |listener: &str, reason: &str| {
            format!("outrigger_downstream_errors_total{{listener=\"{listener}\",reason=\"{reason}\"}}")
        };
        proxy.wait_metric(&error("web", "no_original_destination"), |n| n == 3.0).await;
        proxy.wait_metric(&error("db", "no_original_destination"), |n| n == 1.0).await;
        // Redirected on its way to the proxy itself.
        assert_eq!(get("192.0.2.1:15006").await, answered(503, "own_address"));
        assert_eq!(get("[2001:db8::1]:15006").await, answered(503, "upstream_connect_refused"));
        proxy.wait_metric(&error("web", "own_address"), |n| n == 1.0).await;
        let connected = "outrigger_upstream_connections_total{cluster=\"passthrough\"}";
        assert_eq!(proxy.metric(connected).await, 0.0);
        assert_eq!(proxy.log().matches("this is said once").count(), 1, "{}", proxy.log());
    });
}

/// Where anybody may bind to any address, those of others are still those of others.
#[test]
fn who_may_be_bound_to_is_not_ours_for_that() {
    let Some(network) = Network::new(&ADDRESSES, RULES) else { return };
    network.run(async || {
        std::fs::write("/proc/sys/net/ipv4/ip_nonlocal_bind", "1").unwrap();
        let config = format!(
            "{USER}listeners:
  web: {{ bind: 0.0.0.0:15001, routes: [{{ to: named }}] }}
clusters: {{ named: {{ original_destination: {{ header: x-to }}, connect_timeout: 100ms }} }}
"
        );
        let _proxy = Proxy::start(&config).await;
        for (named, expected) in [
            ("192.0.2.1:15001", "own_address"),
            ("127.9.9.9:15001", "own_address"),
            ("192.0.2.9:15001", "upstream_connect_failed"),
        ] {
            let mut client = Client::connect(to("127.0.0.1:15001")).await;
            client.send(format!("GET / HTTP/1.1\r\nHost: test\r\nx-to: {named}\r\n\r\n")).await;
            assert_eq!(client.reply().await.field("x-outrigger-reason"), Some(expected), "{named}");
        }
    });
}

/// As who writes rules does once: what the proxy sends is redirected as well.
#[test]
fn what_comes_back_is_not_sent_again() {
    let rules = RULES.replace("    meta skuid 1337 accept\n", "");
    let Some(network) = Network::new(&ADDRESSES, &rules) else { return };
    network.run(async || {
        let one = Echo::start_at("192.0.2.1:80", "one").await;
        let _db = greeter("192.0.2.1:81").await;
        let config = format!(
            "{USER}listeners:
  four:
    bind: \"[::]:15001\"
    original_destination: redirect
    chains: [{{ when: {{ port: 81 }}, tcp: {{ to: passthrough }} }}]
    rest: {{ routes: through }}
route_tables: {{ through: [{{ to: passthrough }}] }}
clusters: {{ passthrough: {{ original_destination: {{}} }} }}
"
        );
        let proxy = Proxy::start(&config).await;
        let error = "outrigger_downstream_errors_total{listener=\"four\",reason=\"own_address\"}";
        let connected = "outrigger_upstream_connections_total{cluster=\"passthrough\"}";
        assert_eq!(get("192.0.2.1:80").await, answered(503, "own_address"));
        assert_eq!((proxy.metric(connected).await, proxy.metric(error).await), (1.0, 1.0));
        assert_eq!(get("[2001:db8::1]:80").await, answered(503, "own_address"));
        let mut client = Client::connect(to("192.0.2.1:81")).await;
        assert_eq!(greeting(&mut client).await, "");
        proxy.wait_metric(error, |n| n >= 3.0).await;
        // Where nothing is sent first, it may go round once more until it is seen.
        let connected = proxy.metric(connected).await;
        assert!((3.0..10.0).contains(&connected), "{connected}");
        assert_eq!(one.requests(), 0);
        assert_eq!(proxy.log().matches("this is said once").count(), 1, "{}", proxy.log());
    });
}
