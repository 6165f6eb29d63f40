use std::collections::BTreeSet;

use serde_json::json;

use super::*;

/// The time of all of them.
const NOW: Duration = Duration::from_secs(1_700_000_000);

/// One of each, and what is said of it, which is for whoever reads events by these keys.
fn all() -> Vec<(&'static str, Happened, Value)> {
    let mut all = revisions();
    all.extend(nodes());
    all.extend(identities());
    all
}

fn revisions() -> Vec<(&'static str, Happened, Value)> {
    let s = str::to_owned;
    let shadow = |what| Happened::Shadow { revision: 2, what };
    let ended = |how: &str, by: Option<u64>, author: Option<&str>| json!({ "revision": 2, "how": how, "by": by, "author": author });
    vec![
        (
            "revision.accepted.v1",
            Happened::Revision { number: 2, author: s("me"), message: s(""), rollback_to: Some(1) },
            json!({ "number": 2, "author": "me", "message": "", "rollback_to": 1 }),
        ),
        (
            "revision.refused.v1",
            Happened::Refused { author: s("directory"), why: s("no") },
            json!({ "author": "directory", "why": "no" }),
        ),
        (
            "rollout.step.v1",
            Happened::RolloutStep { revision: 2, percent: 12.5, nodes: vec![s("a")] },
            json!({ "revision": 2, "percent": 12.5, "nodes": ["a"] }),
        ),
        ("rollout.done.v1", Happened::RolloutDone { revision: 2 }, json!({ "revision": 2 })),
        (
            "rollout.back.v1",
            Happened::RolledBack { revision: 2, why: s("no") },
            json!({ "revision": 2, "why": "no" }),
        ),
        (
            "shadow.begun.v1",
            shadow(OfShadow::Begun { author: s("me"), message: s("so") }),
            json!({ "revision": 2, "author": "me", "message": "so" }),
        ),
        ("shadow.ended.v1", shadow(OfShadow::Promoted(3)), ended("promoted", Some(3), None)),
        ("shadow.ended.v1", shadow(OfShadow::Replaced(3)), ended("replaced", Some(3), None)),
        ("shadow.ended.v1", shadow(OfShadow::Ended(s("me"))), ended("ended", None, Some("me"))),
        (
            "shadow.difference.v1",
            shadow(OfShadow::Difference {
                node: s("a"),
                listener: s("web"),
                in_force: s("x"),
                shadow: s("y"),
            }),
            json!({ "revision": 2, "node": "a", "listener": "web", "in_force": "x", "shadow": "y" }),
        ),
        (
            "shadow.refused.v1",
            shadow(OfShadow::Refused { node: s("a"), why: s("no") }),
            json!({ "revision": 2, "node": "a", "why": "no" }),
        ),
        (
            "events.unpublished.v1",
            Happened::Unpublished { first: 1, last: 9 },
            json!({ "first": 1, "last": 9 }),
        ),
    ]
}

fn nodes() -> Vec<(&'static str, Happened, Value)> {
    let s = str::to_owned;
    let endpoint =
        |at, what| Happened::Endpoint { node: s("a"), at, cluster: s("app"), endpoint: s("[::1]:1"), what };
    let ejected = |length| OfEndpoint::Ejected { cause: s("latency"), length };
    vec![
        (
            "node.up.v1",
            Happened::NodeUp { node: s("a"), agent: s("outrigger"), group: None },
            json!({ "node": "a", "agent": "outrigger", "group": null }),
        ),
        ("node.down.v1", Happened::NodeDown { node: s("a") }, json!({ "node": "a" })),
        ("node.ack.v1", Happened::Ack { node: s("a"), revision: 2 }, json!({ "node": "a", "revision": 2 })),
        (
            "node.nack.v1",
            Happened::Nack { node: s("a"), revision: 2, kind: s("routes"), why: s("no") },
            json!({ "node": "a", "revision": 2, "kind": "routes", "why": "no" }),
        ),
        (
            "node.forgot.v1",
            Happened::Forgotten { node: s("a"), events: 7 },
            json!({ "node": "a", "events": 7 }),
        ),
        (
            "endpoint.ejected.v1",
            endpoint(None, ejected(Some(Duration::from_millis(1500)))),
            json!({
                "node": "a", "at": null, "cluster": "app", "endpoint": "[::1]:1", "cause": "latency", "length_ms": 1500,
            }),
        ),
        (
            "endpoint.ejected.v1",
            endpoint(Some(s("then")), ejected(None)),
            json!({
                "node": "a", "at": "then", "cluster": "app", "endpoint": "[::1]:1", "cause": "latency", "length_ms": null,
            }),
        ),
        (
            "endpoint.returned.v1",
            endpoint(None, OfEndpoint::Returned { gone: true }),
            json!({ "node": "a", "at": null, "cluster": "app", "endpoint": "[::1]:1", "gone": true }),
        ),
    ]
}

fn identities() -> Vec<(&'static str, Happened, Value)> {
    let s = str::to_owned;
    let now = SystemTime::UNIX_EPOCH + NOW;
    let lapse = |whose: &str, not_after, node: Option<&str>| Happened::Expiring {
        whose: s(whose),
        serial: s("07"),
        not_after,
        node: node.map(|node| (s(node), Some(s("then")))),
        why: s("no"),
    };
    let join = || (s("0123"), s("spiffe://mesh.test/a"), s("me"));
    let ((id, spiffe_id, author), of_join) =
        (join(), json!({ "id": "0123", "spiffe_id": "spiffe://mesh.test/a", "author": "me" }));
    let created = Happened::JoinCreated { id, spiffe_id, author };
    let (id, spiffe_id, author) = join();
    vec![
        ("join.created.v1", created, of_join.clone()),
        ("join.revoked.v1", Happened::JoinRevoked { id, spiffe_id, author }, of_join),
        (
            "ca.rotated.v1",
            Happened::Rotated { trust_domain: s("mesh.test"), roots: 2 },
            json!({ "trust_domain": "mesh.test", "roots": 2 }),
        ),
        (
            "certificate.issued.v1",
            Happened::Issued {
                spiffe_id: s("spiffe://mesh.test/a"),
                serial: s("07"),
                not_after: s("then"),
                by: s("certificate"),
            },
            json!({ "spiffe_id": "spiffe://mesh.test/a", "serial": "07", "not_after": "then", "by": "certificate" }),
        ),
        (
            "certificate.expiring.v1",
            lapse("spiffe://mesh.test/a", now + Duration::from_secs(1), Some("a")),
            json!({
                "spiffe_id": "spiffe://mesh.test/a", "serial": "07", "not_after": "2023-11-14T22:13:21Z", "node": "a", "at": "then", "why": "no",
            }),
        ),
        (
            "certificate.expired.v1",
            lapse("root", now, None),
            json!({
                "spiffe_id": null, "serial": "07", "not_after": "2023-11-14T22:13:20Z", "node": null, "at": null, "why": "no",
            }),
        ),
    ]
}

/// Whether this is what a schema says, as far as ours say anything.
fn fits(schema: &Value, value: &Value) -> bool {
    let is = |kind: &Value| match kind.as_str() {
        Some("object") => {
            let keys = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
            let required: BTreeSet<_> =
                schema["required"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
            let keys = (keys(&schema["properties"]), value.as_object().map(|_| keys(value)));
            keys.1.as_ref() == Some(&keys.0)
                && keys.0.iter().all(|key| {
                    required.contains(key.as_str()) && fits(&schema["properties"][key], &value[key])
                })
        }
        Some("array") => {
            value.as_array().is_some_and(|of| of.iter().all(|value| fits(&schema["items"], value)))
        }
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64(),
        Some("number") => value.is_number(),
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        other => panic!("{other:?} is not looked at here"),
    };
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(is),
        kind => is(kind),
    };
    kinds && schema["enum"].as_array().is_none_or(|of| of.contains(value))
}

#[test]
fn what_is_said_is_what_is_described() {
    let schema = schema();
    let mut types: BTreeSet<_> = schema["$defs"].as_object().unwrap().keys().collect();
    let ways: BTreeSet<_> = schema["oneOf"]
        .as_array()
        .unwrap()
        .iter()
        .map(|way| way["properties"]["type"]["const"].as_str().unwrap())
        .collect();
    assert_eq!(ways, types.iter().map(|kind| kind.as_str()).collect());
    for (kind, happened, data) in all() {
        let event = happened.numbered(7, SystemTime::UNIX_EPOCH + NOW);
        assert_eq!((event.kind.strip_prefix(OURS), &event.data), (Some(kind), &data));
        let of = &schema["$defs"][&event.kind];
        assert!(of["description"].is_string() && fits(of, &data), "{kind}: {data} is not {of:#}");
        types.remove(&event.kind);
        // And around it.
        let event = serde_json::to_value(&event).unwrap();
        let keys = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&event), keys(&schema["properties"]));
    }
    assert!(types.is_empty(), "none of these is looked at here: {types:?}");
}

#[test]
fn every_time_can_be_written() {
    let epoch = SystemTime::UNIX_EPOCH;
    let seconds = Duration::from_secs;
    assert_eq!(rfc3339(epoch + seconds(86_400)), "1970-01-02T00:00:00Z");
    assert_eq!(rfc3339(epoch + seconds(1_000_000_000_000_000)), "9999-12-31T23:59:59Z");
    assert_eq!(rfc3339(epoch - seconds(1_000_000_000_000_000)), "1970-01-01T00:00:00Z");
}
