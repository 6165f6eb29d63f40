//! How a control plane runs: where its events go.

use std::path::Path;

use super::super::{Source, parse_plane};
use crate::model::{Nats, NatsLogin, Plane};

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
