//! How a control plane runs: where its events go, who its nodes are, and what it shares.

use std::path::Path;
use std::time::Duration;

use super::super::{Source, parse_plane};
use crate::model::{
    Attest, Etcd, Name, Nats, NatsLogin, Nodes, PeerPattern, Plane, PlaneSecret, PlaneStore, PlaneTls,
    Verifier,
};

fn plane(text: &str) -> Result<Plane, String> {
    let source = Source { name: "control.yaml", text, base: Path::new("/etc"), env: &|_| None };
    parse_plane(&source).map_err(|errors| errors.to_string())
}

fn nats(fields: &str) -> Result<Nats, String> {
    plane(&format!("events:\n  nats: {{ {fields} }}\n")).map(|plane| plane.events.unwrap())
}

#[test]
fn events_are_published_where_it_says() {
    assert_eq!(plane("{}").unwrap(), Plane::default());
    let least = Nats {
        server: "nats://127.0.0.1:4222".into(),
        trust: None,
        login: None,
        stream: "outrigger".into(),
        subject: "outrigger.events".into(),
    };
    assert_eq!(nats("server: 'nats://127.0.0.1:4222/'").unwrap(), least);
    // What is no secret may leave the machine in the clear.
    assert!(!nats("server: 'nats://nats:4222'").unwrap().is_tls());
    let all = nats(
        "server: 'tls://nats:4222', trust: ca.crt, user: me, password: /run/pass, stream: all-of_it, subject: a.b",
    );
    let login = Some(NatsLogin::User("me".into(), "/run/pass".into()));
    let (stream, subject) = ("all-of_it".into(), "a.b".into());
    let expected =
        Nats { server: "tls://nats:4222".into(), trust: Some("/etc/ca.crt".into()), login, stream, subject };
    assert_eq!(all.unwrap(), expected);
    let token = nats("server: 'nats://[::1]:4222', token: token").unwrap().login;
    assert_eq!(token, Some(NatsLogin::Token("/etc/token".into())));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let far =
        "in the clear it would be anybody's; write `tls://` in `server`; `nats://` is for this machine alone";
    let no_server = "expected a server, as `nats://127.0.0.1:4222` or `tls://nats.example:4222`";
    let table = [
        ("", "2:9: events.nats: `server` is missing".to_owned()),
        ("server: nats:4222", format!("2:19: events.nats.server: `nats:4222` is no server; {no_server}")),
        ("server: 'nats://nats'", format!("2:19: events.nats.server: `nats://nats` is no server; {no_server}")),
        ("server: 'ws://nats:80'", format!("2:19: events.nats.server: `ws://nats:80` is no server; {no_server}")),
        (
            "server: 'tls://me:pass@nats:4222'",
            "2:19: events.nats.server: whoever reads this file would know the password; write `user`, and `password` with the name of a file".to_owned(),
        ),
        ("server: 'nats://nats:1', token: a", format!("2:36: events.nats.token: {far}")),
        ("server: 'nats://nats:1', user: a, password: b", format!("2:45: events.nats.password: {far}")),
        ("server: 'tls://nats:1', user: a", "2:9: events.nats: `password` is missing".to_owned()),
        (
            "server: 'tls://nats:1', password: a",
            "2:35: events.nats.password: nobody knows whose it is; write `user` too".to_owned(),
        ),
        (
            "server: 'tls://nats:1', user: a, password: b, token: c",
            "2:57: events.nats.token: a server is shown a token, or a user; remove one of them".to_owned(),
        ),
        (
            "server: 'nats://nats:1', trust: ca.crt",
            "2:36: events.nats.trust: in the clear nobody proves who he is; write `tls://` in `server`".to_owned(),
        ),
        (
            "server: 'tls://nats:1', stream: a.b",
            "2:43: events.nats.stream: `a.b` is no name of a stream; expected up to 32 letters, digits, `_` and `-`".to_owned(),
        ),
        (
            "server: 'tls://nats:1', subject: 'a.>'",
            "2:44: events.nats.subject: `a.>` is no beginning of a subject; expected words between dots, as `outrigger.events`; the type follows by itself".to_owned(),
        ),
        (
            "server: 'tls://nats:1', credentials: a.creds",
            "2:35: events.nats.credentials: there is no such key in `nats`; expected one of".to_owned(),
        ),
    ];
    for (fields, expected) in table {
        let said = nats(fields).unwrap_err();
        assert!(said.starts_with(&format!("control.yaml:{expected}")), "{said}\n{expected}");
    }
    let said = plane("events: { kafka: {} }").unwrap_err();
    assert!(said.contains("events: `nats` is missing") && said.contains("no such key in `events`"), "{said}");
}

#[test]
fn nodes_prove_who_they_are_as_it_says() {
    let attest = |fields: &str| {
        let text = format!(
            "tls: {{ certificate: a.crt, private_key: a.key }}\nca:\n  trust_domain: mesh.test\n  attest: {{ {fields} }}\nnodes: proven\n"
        );
        plane(&text).map(|plane| (plane.nodes, plane.authority.unwrap().attest))
    };
    assert_eq!(attest("").unwrap(), (Nodes::Proven, Attest::default()));
    let verifier = |url: &str, trust: Option<&str>, seconds: u64| Verifier {
        url: url.into(),
        trust: trust.map(Into::into),
        timeout: Duration::from_secs(seconds),
    };
    let all = attest(
        "certificates: theirs.crt, verifier: { url: 'https://a.test/x?y=z', trust: a.crt, timeout: 2s }",
    );
    let expected = Attest {
        certificates: Some("/etc/theirs.crt".into()),
        verifier: Some(verifier("https://a.test/x?y=z", Some("/etc/a.crt"), 2)),
    };
    assert_eq!(all.unwrap().1, expected);
    let here = attest("verifier: { url: 'http://[::1]:8080/attest' }").unwrap().1.verifier;
    assert_eq!(here, Some(verifier("http://[::1]:8080/attest", None, 5)));
    let an_address = "expected an address, as `https://attest.example/node`";
    let table = [
        ("verifier: {}", "`url` is missing".to_owned()),
        ("verifier: { url: attest }", format!("verifier.url: `attest` is no address; {an_address}")),
        ("verifier: { url: 'https://me:pass@a.test/' }", format!("is no address; {an_address}")),
        (
            "verifier: { url: 'http://a.test/' }",
            "in the clear, what nodes show would be anybody's; write `https://`".to_owned(),
        ),
        ("tokens: a", "there is no such key in `attest`".to_owned()),
    ];
    for (fields, expected) in table {
        let said = attest(fields).unwrap_err();
        assert!(said.contains(&expected), "{said}\n{expected}");
    }
}

#[test]
fn without_tls_nobody_shows_a_certificate() {
    let table = [
        (
            "ca: { trust_domain: a.test, attest: { certificates: a.crt } }",
            "in the clear nobody shows a certificate",
        ),
        (
            "ca: { trust_domain: a.test }\nnodes: proven",
            "nodes: nobody could prove who it is; write `tls` and `ca`",
        ),
        (
            "tls: { certificate: a.crt, private_key: a.key }\nnodes: proven",
            "nodes: nobody could prove who it is; write `tls` and `ca`",
        ),
        ("nodes: some", "nodes: "),
    ];
    for (text, expected) in table {
        let said = plane(text).unwrap_err();
        assert!(said.contains(expected), "{said}\n{expected}");
    }
    assert_eq!(plane("nodes: any").unwrap().nodes, Nodes::Any);
}

#[test]
fn what_is_kept_is_kept_here_or_shared() {
    let store = |text: &str| plane(text).map(|plane| plane.store).unwrap();
    assert_eq!(store("store: dir"), PlaneStore { directory: "/etc/dir".into(), etcd: None });
    let least = Etcd {
        endpoints: ["http://127.0.0.1:2379".into()].into(),
        prefix: "/outrigger".into(),
        trust: None,
        certificate: None,
        login: None,
    };
    let directory = PlaneStore::DIRECTORY.into();
    let expected = PlaneStore { directory, etcd: Some(least.clone()) };
    assert_eq!(store("store: { etcd: { endpoints: 'http://127.0.0.1:2379/' } }"), expected);
    let all = "store: { directory: own, etcd: { endpoints: ['https://a:2379', 'https://b:2379'], prefix: /mesh/one, trust: ca.crt, tls: { certificate: own.crt, private_key: own.key }, user: me, password: /run/pass } }";
    let etcd = Etcd {
        endpoints: ["https://a:2379".into(), "https://b:2379".into()].into(),
        prefix: "/mesh/one".into(),
        trust: Some("/etc/ca.crt".into()),
        certificate: Some(PlaneTls {
            certificate: "/etc/own.crt".into(),
            private_key: "/etc/own.key".into(),
        }),
        login: Some(("me".into(), "/run/pass".into())),
    };
    assert_eq!(store(all), PlaneStore { directory: "/etc/own".into(), etcd: Some(etcd) });
}

#[test]
fn what_cannot_be_shared_is_refused() {
    let a_member = "expected a member, as `http://127.0.0.1:2379` or `https://etcd.example:2379`";
    let table = [
        ("", "1:16: store.etcd: `endpoints` is missing".to_owned()),
        ("endpoints: []", "1:29: store.etcd.endpoints: the list is empty".to_owned()),
        ("endpoints: 'etcd:1'", format!("1:29: store.etcd.endpoints: `etcd:1` is no member of etcd; {a_member}")),
        (
            "endpoints: ['https://a']",
            format!("1:30: store.etcd.endpoints[0]: `https://a` is no member of etcd; {a_member}"),
        ),
        (
            "endpoints: 'http://etcd:1'",
            "1:29: store.etcd.endpoints: in the clear whoever is between could say what is served; write `https://`".to_owned(),
        ),
        (
            "endpoints: 'https://me:pass@etcd:1'",
            "1:29: store.etcd.endpoints: whoever reads this file would know the password".to_owned(),
        ),
        (
            "endpoints: 'http://[::1]:1', prefix: outrigger",
            "1:55: store.etcd.prefix: `outrigger` is no beginning of keys; expected words behind `/`".to_owned(),
        ),
        (
            "endpoints: 'http://[::1]:1', trust: ca.crt",
            "1:47: store.etcd.trust: in the clear nobody proves who he is; write `https://` in `endpoints`".to_owned(),
        ),
        (
            "endpoints: 'http://[::1]:1', tls: { certificate: a, private_key: b }",
            "1:47: store.etcd.tls: in the clear nobody proves who he is; write `https://` in `endpoints`".to_owned(),
        ),
        (
            "endpoints: 'https://a:1', tls: { certificate: a }",
            "1:49: store.etcd.tls: `private_key` is missing".to_owned(),
        ),
        ("endpoints: 'https://a:1', user: a", "1:16: store.etcd: `password` is missing".to_owned()),
        (
            "endpoints: 'https://a:1', password: a",
            "1:44: store.etcd.password: nobody knows whose it is; write `user` too".to_owned(),
        ),
        ("endpoints: 'https://a:1', key: a", "1:44: store.etcd.key: there is no such key in `etcd`".to_owned()),
    ];
    for (fields, expected) in table {
        let said = plane(&format!("store: {{ etcd: {{ {fields} }} }}")).unwrap_err();
        assert!(said.starts_with(&format!("control.yaml:{expected}")), "{said}\n{expected}");
    }
    let shared = "store: { etcd: { endpoints: 'http://[::1]:1' } }\nca: { trust_domain: a.test }\n";
    let said = plane(shared).unwrap_err();
    let expected =
        "control.yaml:2:5: ca: replicas sign by one root, and its key does not belong into etcd; write `root";
    assert!(said.starts_with(expected), "{said}");
}

const PROVEN: &str = "tls: { certificate: a, private_key: b }\nca: { trust_domain: a.test }\n";

#[test]
fn secrets_are_files_and_who_may_have_them() {
    let text = format!(
        "{PROVEN}secrets: {{ shop: {{ certificate: shop.crt, private_key: shop.key, nodes: ['spiffe://a.test/ns/shop/*'] }}, partners: {{ trust: p.crt, crls: [p.crl] }} }}"
    );
    let secrets = plane(&text).unwrap().secrets;
    let files = PlaneTls { certificate: "/etc/shop.crt".into(), private_key: "/etc/shop.key".into() };
    let nodes = [PeerPattern::new("spiffe://a.test/ns/shop/*").unwrap()].into();
    let expected = [
        ("partners", PlaneSecret::Roots { roots: "/etc/p.crt".into(), crls: ["/etc/p.crl".into()].into() }),
        ("shop", PlaneSecret::Certificate { files, nodes }),
    ];
    assert_eq!(secrets, expected.map(|(name, of)| (Name::new(name).unwrap(), of)).into());
    // Roots are no secret.
    plane("secrets: { partners: { trust: p.crt } }").unwrap();
}

#[test]
fn a_key_is_told_to_nobody_who_could_be_anybody() {
    let certificate = "certificate: c, private_key: k";
    let table = [
        (
            "",
            format!("a: {{ {certificate}, nodes: ['spiffe://a.test/*'] }}"),
            "1:15: secrets.a: nobody could prove to be one of `nodes`, who are told the key; write `tls` and `ca`",
        ),
        (PROVEN, format!("a: {{ {certificate} }}"), "3:15: secrets.a: `nodes` is missing"),
        (PROVEN, format!("a: {{ {certificate}, nodes: [] }}"), "3:56: secrets.a.nodes: nobody is named"),
        (
            PROVEN,
            format!("a: {{ {certificate}, nodes: ['spiffe://b.test/*'] }}"),
            "3:57: secrets.a.nodes[0]: nobody vouches for the trust domain `b.test`",
        ),
        (
            PROVEN,
            "a: { certificate: c, trust: t }".to_owned(),
            "3:33: secrets.a: `certificate` and `trust` exclude each other",
        ),
        (PROVEN, "a: {}".to_owned(), "3:15: secrets.a: one of `certificate`, `trust` is missing"),
        (
            "",
            "ROOTCA: { trust: t }".to_owned(),
            "1:20: secrets.ROOTCA: `ROOTCA` is what a node's own identity is called; call it otherwise",
        ),
        (
            "",
            "a: { trust: t, nodes: [] }".to_owned(),
            "1:27: secrets.a.nodes: there is no such key in `secret`",
        ),
    ];
    for (before, secret, expected) in table {
        let said = plane(&format!("{before}secrets: {{ {secret} }}")).unwrap_err();
        assert!(said.contains(expected), "{said}\n{expected}");
    }
}
