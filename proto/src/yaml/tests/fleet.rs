//! Several documents as one.

use crate::model::{Fleet, IdPattern, Labels, Name, Select};
use crate::yaml::{Document, parse_fleet};

fn read(documents: &[(&str, &str)]) -> Result<Fleet, String> {
    let documents: Vec<_> = documents.iter().map(|(name, text)| Document { name, text }).collect();
    parse_fleet(&documents).map(|parsed| parsed.fleet).map_err(|errors| errors.to_string())
}

const SHOP: &str = "
listeners:
  web: { bind: 0.0.0.0:80, routes: [{ match: { path: { prefix: /cart } }, to: cart, mirror: { to: copy } }, { to: rest }] }
clusters:
  cart: { endpoints: [10.0.0.1:80] }
  copy: { endpoints: [10.0.0.2:80] }
";
const REST: &str = "
clusters:
  rest: { endpoints: [10.0.0.3:80] }
  aside: { endpoints: [10.0.0.4:80] }
listeners:
  db: { bind: 0.0.0.0:5432, tcp: { to: rest } }
";

#[test]
fn one_document_leads_to_what_another_says_and_without_groups_everybody_is_told_all() {
    let fleet = read(&[("shop.yaml", SHOP), ("rest.yaml", REST)]).unwrap();
    let names = |names: &mut dyn Iterator<Item = &Name>| names.map(Name::to_string).collect::<Vec<_>>();
    assert_eq!(names(&mut fleet.config.mesh.clusters.keys()), ["aside", "cart", "copy", "rest"]);
    let [all] = &fleet.groups[..] else { panic!("{:?}", fleet.groups) };
    assert_eq!((all.name.as_str(), &all.select), ("all", &Select::default()));
    assert_eq!(names(&mut fleet.listeners(all).map(|(name, _)| name)), ["db", "web"]);
    assert_eq!(fleet.clusters(all).len(), 4);
}

#[test]
fn a_group_is_told_what_its_listeners_lead_to() {
    let groups = "
proxies:
  shop:
    select: { id: \"shop-*\", cluster: shop, labels: { tier: front } }
    listeners: [web]
  db:
    listeners: [db]
    clusters: [aside]
";
    let fleet = read(&[("shop.yaml", SHOP), ("rest.yaml", REST), ("groups.yaml", groups)]).unwrap();
    let [shop, db] = &fleet.groups[..] else { panic!("{:?}", fleet.groups) };
    let labels = Labels([("tier".into(), "front".into())].into());
    let id = Some(IdPattern::Prefix("shop-".into()));
    assert_eq!(shop.select, Select { id, cluster: Some("shop".into()), labels });
    let told = |group| fleet.clusters(group).into_iter().map(Name::as_str).collect::<Vec<_>>();
    assert_eq!(told(shop), ["cart", "copy", "rest"]);
    assert_eq!(told(db), ["aside", "rest"]);
    assert!(fleet.tables(db).is_empty());
}

#[test]
fn each_fault_is_named_in_its_own_document() {
    let table: [(&[(&str, &str)], &str); 9] = [
        (
            &[("a", "clusters: { x: { endpoints: [] } }"), ("b", "\n\nclusters: { x: { endpoints: [] } }")],
            "b:3:13: clusters.x: another document has this name already; rename one of them",
        ),
        (
            &[("a", "clusters: { x: { endpoints: [] } }"), ("b", "clusters: 7")],
            "b:1:11: clusters: another document has this key too, and so it is to be a mapping",
        ),
        (&[("a", "- 1")], "a:1:1: a document is a mapping; expected `key: value`"),
        (
            &[("a", SHOP), ("b", "\nclusters:\n  rest: { endpoints: [nowhere] }")],
            "b:3:23: clusters.rest.endpoints[0]: `nowhere` is not an address; expected `ip:port`, `[v6]:port` or `unix:/path`",
        ),
        (
            &[("a", SHOP)],
            "a:3:115: listeners.web.routes[1].to: there is no cluster `rest`; the clusters are `cart`, `copy`",
        ),
        (
            &[("a", "workers: 2")],
            "a:1:1: workers: there is no such key in `fleet`; expected one of `clusters`, `route_tables`, `listeners`, `proxies`",
        ),
        (
            &[("a", SHOP), ("b", REST), ("c", "proxies: { p: { listeners: [wep] } }")],
            "c:1:29: proxies.p.listeners[0]: there is no listener `wep`; did you mean `web`?",
        ),
        (
            &[
                ("a", SHOP),
                ("b", REST),
                ("c", "listeners: { other: { bind: 0.0.0.0:80, tcp: { to: rest } } }"),
            ],
            "a:3:16: listeners.web.bind: `0.0.0.0:80` is taken by the listener `other` already; \
             proxies of the group `all` would have to listen there twice",
        ),
        (
            &[("a", "clusters: { x: { endpoints: [\"${HOST}:80\"] } }")],
            "a:1:30: clusters.x.endpoints[0]: the variable `${HOST}` is not replaced here; \
             write its value, as what many proxies serve must not depend on who reads it",
        ),
    ];
    let found: Vec<_> = table.iter().map(|(documents, _)| read(documents).unwrap_err()).collect();
    let expected: Vec<_> = table.iter().map(|(_, expected)| *expected).collect();
    assert_eq!(found, expected);
}

#[test]
fn two_groups_may_listen_at_one_address() {
    let other = "listeners: { other: { bind: 0.0.0.0:80, tcp: { to: rest } } }
proxies: { a: { select: { id: a }, listeners: [web] }, b: { listeners: [other] } }";
    read(&[("shop", SHOP), ("rest", REST), ("other", other)]).unwrap();
}
