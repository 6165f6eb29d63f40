//! Several documents as one.

use std::collections::BTreeMap;

use crate::model::{Fleet, Holds, IdPattern, Labels, Name, Select};
use crate::yaml::{Document, parse_fleet};

fn read(documents: &[(&str, &str)]) -> Result<Fleet, String> {
    read_with(documents, None)
}

fn read_with(documents: &[(&str, &str)], secrets: Option<&BTreeMap<Name, Holds>>) -> Result<Fleet, String> {
    let documents: Vec<_> = documents.iter().map(|(name, text)| Document { name, text }).collect();
    parse_fleet(&documents, secrets).map(|parsed| parsed.fleet).map_err(|errors| errors.to_string())
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

fn web(tls: &str) -> String {
    format!("listeners: {{ web: {{ bind: 0.0.0.0:443, tls: {{ {tls} }}, routes: [{{ respond: {{}} }}] }} }}")
}

fn legacy(tls: &str) -> String {
    format!("clusters: {{ legacy: {{ endpoints: [127.0.0.1:1], tls: {{ sans: [a], {tls} }} }} }}")
}

#[test]
fn a_group_is_told_the_secrets_that_its_listeners_and_clusters_name() {
    let web = web(
        "certificates: [{ certificate: { secret: shop } }, { certificate: { secret: next } }], client: required, client_trust: { secret: partners }",
    );
    let legacy = legacy("trust: { secret: theirs }, certificate: { secret: own }");
    let groups =
        "proxies: { a: { select: { id: a }, listeners: [web] }, b: { listeners: [], clusters: [legacy] } }";
    let fleet = read(&[("web", &web), ("legacy", &legacy), ("groups", groups)]).unwrap();
    let named = |group: usize| {
        let names = fleet.secrets(&fleet.groups[group]);
        names.into_iter().map(Name::as_str).collect::<Vec<_>>()
    };
    assert_eq!(named(0), ["next", "partners", "shop"]);
    assert_eq!(named(1), ["own", "theirs"]);
}

#[test]
fn secrets_are_named_as_they_are_there_and_files_are_not() {
    let name = |text| Name::new(text).unwrap();
    let known = [(name("shop"), Holds::Certificate), (name("partners"), Holds::Roots)].into();
    let table = [
        (web("certificate: { secret: shop }"), None),
        (legacy("trust: { secret: partners }, certificate: { secret: shop }"), None),
        (legacy("trust: system"), None),
        (
            web("certificate: { secret: shpo }"),
            Some("listeners.web.tls.certificate.secret: there is no secret `shpo`; did you mean `shop`?"),
        ),
        (
            web("certificate: { secret: partners }"),
            Some(
                "listeners.web.tls.certificate.secret: the secret `partners` holds something else; secrets that hold certificates are `shop`",
            ),
        ),
        (
            web("certificate: { secret: shop }, private_key: shop.key"),
            Some("listeners.web.tls.private_key: the secret holds its key; remove it"),
        ),
        (
            web("certificate: shop.crt, private_key: shop.key"),
            Some(
                "listeners.web.tls.certificate: a file of the proxies' machines is not named from afar; write `{ secret: NAME }`, of `secrets` in the control plane's own file",
            ),
        ),
        (
            web(
                "certificate: { secret: shop }, client: required, client_trust: { secret: partners }, revocation: { crls: [a] }",
            ),
            Some(
                "listeners.web.tls.revocation: the secret `partners` holds these lists; write `crls` there, in the control plane's own file",
            ),
        ),
        (
            legacy("trust: ca.crt"),
            Some("clusters.legacy.tls.trust: a file of the proxies' machines is not named from afar"),
        ),
        (
            legacy("trust: { secret: shop }"),
            Some(
                "clusters.legacy.tls.trust.secret: the secret `shop` holds something else; secrets that hold roots are `partners`",
            ),
        ),
        (legacy("trust: { secert: shop }"), Some("clusters.legacy.tls.trust: `secret` is missing")),
    ];
    for (text, expected) in table {
        let found = read_with(&[("a", &text)], Some(&known));
        match expected {
            None => drop(found.unwrap()),
            Some(expected) => {
                let said = found.unwrap_err();
                assert!(said.contains(expected), "{text}\n{said}");
            }
        }
    }
    // Where it is not known which there are, any may be meant.
    read(&[("a", &web("certificate: { secret: shpo }"))]).unwrap();
    let none = read_with(&[("a", &web("certificate: { secret: shop }"))], Some(&BTreeMap::new()));
    assert!(none.unwrap_err().contains("there is no secret `shop`; write it below `secrets`"));
}
