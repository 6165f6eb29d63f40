//! What the demonstration tells its proxies: a document for each service, written by those whose it is, and one that says
//! which proxy serves what.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The services, in the order in which they call.
pub(super) const SERVICES: [&str; 3] = ["front", "cart", "stock"];
/// Whose identities the control plane gives.
pub(super) const TRUST_DOMAIN: &str = "demo.outrigger";

/// What the documents say, as far as it changes.
#[derive(Clone, Debug)]
pub(super) struct Said {
    /// What all answers are marked with.
    pub(super) version: &'static str,
    /// How long `stock` may take.
    pub(super) timeout: &'static str,
    /// Where the proxies of each service take what is for it.
    pub(super) addresses: BTreeMap<&'static str, Vec<SocketAddr>>,
}

/// What a service's proxies are known by, and prove.
pub(super) fn identity(service: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/{service}")
}

/// The listener at which a service's own proxy takes what is for another.
pub(super) fn outbound(service: &str, to: &str) -> String {
    format!("{service}-to-{to}")
}

/// The listeners of a service's proxies.
pub(super) fn listeners(service: &str) -> &'static [&'static str] {
    match service {
        "front" => &["front", "front-to-cart", "front-to-stock"],
        "cart" => &["cart", "cart-to-stock"],
        _ => &["stock"],
    }
}

/// All documents, by name.
pub(super) fn all(said: &Said) -> BTreeMap<String, String> {
    let Said { version, timeout, addresses } = said;
    let endpoints = |service| {
        let known = addresses.get(service).map(Vec::as_slice).unwrap_or_default();
        known.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
    };
    let filled = |(name, text): (&str, &str)| {
        let text = text
            .replace("VERSION", version)
            .replace("TIMEOUT", timeout)
            .replace("CARTS", &endpoints("cart"))
            .replace("STOCKS", &endpoints("stock"))
            .replace("DOMAIN", TRUST_DOMAIN);
        (name.to_owned(), text)
    };
    [("proxies.yaml", PROXIES), ("front.yaml", FRONT), ("cart.yaml", CART), ("stock.yaml", STOCK)]
        .map(filled)
        .into()
}

const PROXIES: &str = "\
# Which proxy serves what: a node says of itself which cluster it is of.
proxies:
  front: { select: { cluster: front }, listeners: [front, front-to-cart, front-to-stock] }
  cart:  { select: { cluster: cart },  listeners: [cart, cart-to-stock] }
  stock: { select: { cluster: stock }, listeners: [stock] }
clusters:
  # The service beside the proxy. Where that is the proxy's own file says, which has the last word.
  app: { endpoints: [127.0.0.1:8080] }
";

const FRONT: &str = "\
listeners:
  front:                          # where clients come in, in the clear
    bind: 127.0.0.1:0
    routes:
      - to: app
        response_headers: { set: { x-version: VERSION } }
  front-to-cart:                  # what the service sends to `cart`
    bind: 127.0.0.1:0
    direction: outbound
    routes:
      - { to: cart, retry: { attempts: 3 } }
  front-to-stock:                 # what it has no business to send, and `stock` refuses
    bind: 127.0.0.1:0
    direction: outbound
    routes: [{ to: stock }]
";

const CART: &str = "\
listeners:
  cart:                           # where others come in, who prove who they are
    bind: 127.0.0.1:0
    mtls: strict
    authorization: [{ allow: { peers: [\"spiffe://DOMAIN/front\"] } }]
    routes: [{ to: app }]
  cart-to-stock:
    bind: 127.0.0.1:0
    direction: outbound
    routes:
      - { to: stock, retry: { attempts: 3, per_try_timeout: 1s } }
clusters:
  cart:
    endpoints: [CARTS]
    balance: least-request
    mtls: { peers: [\"spiffe://DOMAIN/cart\"] }
    connect_timeout: 1s
    outlier_detection: { consecutive_5xx: 0, consecutive_local: 3, base_ejection: 2s }
    panic_threshold: 50%          # who is left is asked, whatever is held against it
";

const STOCK: &str = "\
listeners:
  stock:
    bind: 127.0.0.1:0
    mtls: strict
    authorization: [{ allow: { peers: [\"spiffe://DOMAIN/cart\"] } }]
    routes: [{ to: app, timeout: TIMEOUT }]
clusters:
  stock:
    endpoints: [STOCKS]
    balance: least-request
    mtls: { peers: [\"spiffe://DOMAIN/stock\"] }
    connect_timeout: 1s
    outlier_detection: { consecutive_5xx: 0, consecutive_local: 3, base_ejection: 2s }
    panic_threshold: 50%          # who is left is asked, whatever is held against it
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_are_right_before_and_after_the_addresses_are_known() {
        let mut said = Said { version: "one", timeout: "3s", addresses: BTreeMap::new() };
        for addresses in [&[][..], &[1, 2]] {
            let of =
                |service| (service, addresses.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect());
            said.addresses = SERVICES.map(of).into();
            let (serving, warnings) = crate::documents::checked(1, &all(&said), None).unwrap();
            let of_nobody =
                warnings.iter().filter(|warning| warning.contains("this cluster has no endpoint"));
            let expected = if addresses.is_empty() { 2 } else { 0 };
            assert_eq!((of_nobody.count(), warnings.len()), (expected, expected), "{warnings:?}");
            for service in SERVICES {
                let group =
                    serving.fleet().groups.iter().find(|group| group.name.as_str() == service).unwrap();
                let named: Vec<_> = serving.fleet().listeners(group).map(|(name, _)| name.as_str()).collect();
                assert_eq!(named, listeners(service));
            }
        }
    }
}
