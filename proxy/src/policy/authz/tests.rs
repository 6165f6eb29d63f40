use http::{HeaderMap, HeaderName, HeaderValue, Method};
use outrigger_proto::model::{HostPattern, PeerPattern, SpiffeId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::json;

use super::*;

const A: &str = "spiffe://td/ns/a/sa/x";
const B: &str = "spiffe://td/ns/b/sa/x";

fn rule(effect: Effect, when: When) -> Rule {
    Rule { name: None, effect, dry_run: false, when }
}

fn peers(pattern: &str) -> When {
    When { peers: [PeerPattern::new(pattern).unwrap()].into(), ..When::default() }
}

fn path(pattern: PathPattern) -> When {
    When { paths: [pattern].into(), ..When::default() }
}

/// What becomes of `GET path` by this peer.
#[track_caller]
fn check(rules: &[Rule], peer: Option<&str>, path: &str, expected: Decision) {
    let id = peer.map(|peer| SpiffeId::new(peer).unwrap());
    let caller = Caller { identity: id.as_ref(), source: None, sni: None, port: None };
    let headers = HeaderMap::new();
    let head = ReqHead { host: "h", path, query: None, method: &Method::GET, headers: &headers };
    let asked = Asked { head, claims: None };
    let rules = Rules::new(&Authorization { rules: rules.into() });
    assert_eq!(rules.decide(&rules.fitting(&caller), Some(&asked)), expected);
}

const PASSES: Decision = Decision { denied: None, otherwise: None, audited: None };

fn denied(denial: Denial) -> Decision {
    Decision { denied: Some(denial), ..PASSES }
}

#[test]
fn deny_comes_before_allow_and_nothing_is_allowed_by_default() {
    let all = When::default;
    let a = || peers("spiffe://td/ns/a/*");
    let allow = |when| rule(Effect::Allow, when);
    let deny = |when| rule(Effect::Deny, when);
    let default = denied(Denial::Default);
    check(&[allow(all())], None, "/", PASSES);
    check(&[allow(a())], Some(A), "/", PASSES);
    check(&[allow(a())], Some(B), "/", default);
    check(&[allow(a())], None, "/", default);
    check(&[allow(all()), deny(a())], Some(A), "/", denied(Denial::Rule(1)));
    check(&[deny(a()), allow(all())], Some(A), "/", denied(Denial::Rule(0)));
    check(&[deny(a()), allow(all())], Some(B), "/", PASSES);
    check(&[deny(a()), allow(all())], None, "/", PASSES);
    check(&[deny(a())], Some(B), "/", default);
    check(&[rule(Effect::Audit, all())], None, "/", Decision { audited: Some(0), ..PASSES });
    check(&[rule(Effect::Audit, all()), allow(a())], None, "/", Decision { audited: Some(0), ..default });
}

#[test]
fn dry_runs_decide_nothing_and_say_what_they_would() {
    let all = When::default;
    let dry = |effect, when| Rule { dry_run: true, ..rule(effect, when) };
    let would = |otherwise, denied| Decision { denied, otherwise: Some(otherwise), audited: None };
    let denied_by = |place| Otherwise::Denied(Denial::Rule(place));
    check(&[dry(Effect::Deny, all())], None, "/", would(denied_by(0), None));
    check(&[rule(Effect::Allow, all()), dry(Effect::Deny, all())], None, "/", would(denied_by(1), None));
    let a = peers("spiffe://td/ns/a/*");
    check(&[dry(Effect::Allow, a.clone())], Some(A), "/", PASSES);
    check(&[dry(Effect::Allow, a.clone())], Some(B), "/", would(Otherwise::Denied(Denial::Default), None));
    let rules = [rule(Effect::Allow, a), dry(Effect::Allow, all())];
    check(&rules, Some(B), "/", would(Otherwise::Allowed, Some(Denial::Default)));
    check(&rules, Some(A), "/", PASSES);
}

#[test]
fn paths_fit_by_whole_segments() {
    let below = || path(PathPattern::Below("/cart/".into()));
    let prefix = || path(PathPattern::Prefix("/cart".into()));
    let exact = || path(PathPattern::Exact("/cart".into()));
    let rows = [
        (below(), "/cart/1", true),
        (below(), "/cart/", true),
        (below(), "/cart", false),
        (below(), "/cartoon", false),
        (prefix(), "/cart", true),
        (prefix(), "/cart/1", true),
        (prefix(), "/cartoon", false),
        (exact(), "/cart", true),
        (exact(), "/cart/", false),
        (exact(), "/Cart", false),
        (path(PathPattern::Prefix("".into())), "/any", true),
        (path(PathPattern::Below("/".into())), "/any", true),
    ];
    for (when, path, fits) in rows {
        let expected = if fits { PASSES } else { denied(Denial::Default) };
        check(&[rule(Effect::Allow, when)], None, path, expected);
    }
}

#[test]
fn each_value_of_a_field_is_looked_at_by_itself() {
    let name = || HeaderName::from_static("x-role");
    let field =
        |value: StringMatch| When { headers: [HeaderRule { name: name(), value }].into(), ..When::default() };
    let exact = || StringMatch::Exact("admin".into());
    let prefix = || StringMatch::Prefix("adm".into());
    let regex = || StringMatch::Regex(outrigger_proto::model::Pattern::new("^adm").unwrap());
    let opaque: &[u8] = b"adm\xff";
    for (value, allows, denies) in [(prefix(), true, true), (exact(), false, false), (regex(), false, true)] {
        assert_eq!(
            (value_fits(&value, opaque, false), value_fits(&value, opaque, true)),
            (allows, denies),
            "{value:?}"
        );
    }
    let rows: [(&[&str], StringMatch, bool, bool); 9] = [
        (&["admin"], exact(), true, true),
        (&["user", "admin"], exact(), false, true),
        (&["user,admin"], exact(), false, false),
        (&["admin", "admin"], exact(), true, true),
        (&[], exact(), false, false),
        (&["admin", ""], prefix(), false, true),
        (&["x\u{e9}"], StringMatch::Present, true, true),
        (&[], StringMatch::Absent, true, true),
        (&[""], StringMatch::Absent, false, false),
    ];
    for (values, value, allows, denies) in rows {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        for (effect, fits) in [(Effect::Allow, allows), (Effect::Deny, denies)] {
            let when = field(value.clone());
            let head = ReqHead { host: "h", path: "/", query: None, method: &Method::GET, headers: &headers };
            let found = fits_request(&when, &Asked { head, claims: None }, effect != Effect::Allow);
            assert_eq!(found, fits, "{values:?} {value:?} {effect:?}");
        }
    }
}

#[test]
fn claims_fit_as_texts_words_and_items() {
    let claims = json!({ "sub": "alice", "scope": "read write", "groups": ["ops", 7], "n": 7, "b": true, "o": {}, "z": null });
    let Value::Object(claims) = claims else { unreachable!() };
    let claims = Claims(claims);
    let rows = [
        ("sub", "alice", true),
        ("sub", "ali", false),
        ("scope", "write", true),
        ("scope", "read write", true),
        ("scope", "rea", false),
        ("groups", "ops", true),
        ("groups", "7", false),
        ("n", "7", true),
        ("b", "true", true),
        ("o", "", false),
        ("z", "", false),
        ("none", "", false),
    ];
    for (name, value, fits) in rows {
        let rule = ClaimRule { name: name.into(), values: ["other".into(), value.into()].into() };
        assert_eq!(claim_fits(&rule, &claims), fits, "{name} {value}");
    }
}

#[test]
fn who_could_pass_with_no_request_is_known() {
    let http = || path(PathPattern::Exact("/a".into()));
    let a = || peers("spiffe://td/ns/a/*");
    let rows = [
        (vec![rule(Effect::Allow, http())], None, true),
        (vec![rule(Effect::Allow, a())], Some(A), true),
        (vec![rule(Effect::Allow, a())], Some(B), false),
        (vec![rule(Effect::Allow, When::default()), rule(Effect::Deny, a())], Some(A), false),
        (vec![rule(Effect::Allow, When::default()), rule(Effect::Deny, http())], Some(A), true),
        (vec![rule(Effect::Audit, When::default())], None, true),
        (vec![Rule { dry_run: true, ..rule(Effect::Deny, When::default()) }], None, true),
    ];
    for (rules, peer, expected) in rows {
        let id = peer.map(|peer| SpiffeId::new(peer).unwrap());
        let caller = Caller { identity: id.as_ref(), source: None, sni: None, port: None };
        let text = format!("{rules:?}");
        let rules = Rules::new(&Authorization { rules: rules.into() });
        assert_eq!(rules.could_pass(&rules.fitting(&caller)), expected, "{text}");
    }
}

fn any_when() -> impl Strategy<Value = When> {
    let peer =
        select(vec!["spiffe://td/*", "spiffe://td/ns/a/*", A, B]).prop_map(|p| PeerPattern::new(p).unwrap());
    let network = select(vec!["10.0.0.0/8", "10.1.0.0/16", "::/0"]).prop_map(|text| text.parse().unwrap());
    let host = || {
        select(vec![
            HostPattern::Exact("a.test".into()),
            HostPattern::Suffix(".test".into()),
            HostPattern::Suffix(".a.test".into()),
        ])
    };
    let path = select(vec![
        PathPattern::Exact("/a".into()),
        PathPattern::Below("/a/".into()),
        PathPattern::Prefix("/a".into()),
        PathPattern::Regex(outrigger_proto::model::Pattern::new("^/a?$").unwrap()),
    ]);
    let value = select(vec![
        StringMatch::Present,
        StringMatch::Absent,
        StringMatch::Exact("1".into()),
        StringMatch::Prefix("1".into()),
        StringMatch::Regex(outrigger_proto::model::Pattern::new("1$").unwrap()),
    ]);
    let header = value.prop_map(|value| HeaderRule { name: HeaderName::from_static("x-a"), value });
    let claim = Just(ClaimRule { name: "sub".into(), values: ["a".into(), "b".into()].into() });
    let conn = (vec(peer, 0..2), vec(network, 0..2), vec(host(), 0..2), vec(select(vec![80_u16, 443]), 0..2));
    let methods = subsequence(vec![Method::GET, Method::POST], 0..=2);
    let request = (methods, vec(host(), 0..2), vec(path, 0..2), vec(header, 0..2), vec(claim, 0..2));
    (conn, request).prop_map(|((peers, source, sni, ports), (methods, hosts, paths, headers, claims))| When {
        peers: peers.into(),
        source: source.into(),
        sni: sni.into(),
        ports: ports.into(),
        methods: methods.into(),
        hosts: hosts.into(),
        paths: paths.into(),
        headers: headers.into(),
        claims: claims.into(),
    })
}

fn any_authorization() -> impl Strategy<Value = Authorization> {
    let effect = select(vec![Effect::Allow, Effect::Deny, Effect::Audit]);
    let rule = (effect, any::<bool>(), any_when()).prop_map(|(effect, dry_run, when)| Rule {
        name: None,
        effect,
        dry_run: dry_run && effect != Effect::Audit,
        when,
    });
    vec(rule, 1..8).prop_map(|rules| Authorization { rules: rules.into() })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_naive_evaluator_says_the_same(
        authorization in any_authorization(),
        identity in option::of(select(vec![A, B, "spiffe://other/a"])),
        source in option::of(select(vec!["10.1.2.3", "10.2.0.1", "192.0.2.1", "2001:db8::1"])),
        sni in option::of(select(vec!["a.test", "b.a.test", "test"])),
        port in option::of(select(vec![80_u16, 443, 8080])),
        (method, host, path) in (
            select(vec![Method::GET, Method::POST, Method::PUT]),
            select(vec!["a.test", "b.a.test", "x"]),
            select(vec!["/", "/a", "/a/", "/a/b", "/ab"]),
        ),
        values in vec(select(vec!["1", "21", "12", ""]), 0..3),
        sub in option::of(select(vec!["a", "c"])),
        is_request in any::<bool>(),
    ) {
        let identity = identity.map(|id| SpiffeId::new(id).unwrap());
        let source = source.map(|source| source.parse().unwrap());
        let caller = Caller { identity: identity.as_ref(), source, sni, port };
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-a", HeaderValue::from_static(value));
        }
        let claims = sub.map(|sub| Claims([("sub".to_owned(), json!(sub))].into_iter().collect()));
        let head = ReqHead { host, path, query: None, method: &method, headers: &headers };
        let asked = Asked { head, claims: claims.as_ref() };
        let asked = is_request.then_some(&asked);
        let rules = Rules::new(&authorization);
        let fitting = rules.fitting(&caller);
        let decision = rules.decide(&fitting, asked);
        prop_assert_eq!(decision, naive::decide(&authorization, &caller, asked));
        // Whom nothing could let pass, nothing does.
        if is_request && !rules.could_pass(&fitting) {
            prop_assert!(decision.denied.is_some());
        }
    }
}
