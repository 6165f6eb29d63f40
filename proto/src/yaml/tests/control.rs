//! What the environment says of a control plane, where the document does not.

use std::path::{Path, PathBuf};

use super::super::{Source, parse, print};
use crate::model::{ControlPlane, Metadata, OnDemand};

/// What is followed, with these variables.
fn followed(text: &str, variables: &[(&str, &str)]) -> Result<Option<ControlPlane>, String> {
    let env =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let parsed = parse(&Source { name: "test.yaml", text, base: Path::new("/etc"), env: &env });
    let config = parsed.map_err(|errors| errors.to_string())?.config;
    let printed = print(&config);
    let nothing = Source { name: "printed", text: &printed, base: Path::new(""), env: &|_| None };
    assert_eq!(parse(&nothing).unwrap().config, config, "{printed}");
    Ok(config.mesh.process.control.map(|control| *control))
}

#[test]
fn the_environment_says_what_the_document_does_not() {
    let all = [
        ("OUTRIGGER_XDS_SERVER", "http://127.0.0.1:1"),
        ("OUTRIGGER_XDS_TRUST", "ca.crt"),
        ("OUTRIGGER_XDS_CACHE", "/var/kept"),
        ("OUTRIGGER_NODE_ID", "a"),
        ("OUTRIGGER_NODE_CLUSTER", "b"),
        ("OUTRIGGER_NODE_REGION", "c"),
        ("OUTRIGGER_NODE_ZONE", "d"),
        ("OUTRIGGER_NODE_SUB_ZONE", "e"),
        ("HOSTNAME", "host"),
    ];
    let shown = |control: ControlPlane| {
        let ControlPlane { server, trust, cache, on_demand, load_reports, trials, events, sockets, node } =
            control;
        let on_demand = on_demand.map_or("-".to_owned(), |OnDemand { idle }| format!("{idle:?}"));
        let path = |path: Option<PathBuf>| path.map_or("-".to_owned(), |path| path.display().to_string());
        let (place, length) = (node.locality, node.metadata.len());
        let sockets: Vec<_> = sockets.iter().map(|path| path.display().to_string()).collect();
        format!(
            "{server} {} {} {on_demand} {load_reports} {trials} {events} [{}] {} {} {} {} {} {length}",
            path(trust),
            path(cache),
            sockets.join(","),
            node.id,
            node.cluster,
            place.region,
            place.zone,
            place.sub_zone
        )
    };
    let shown = |text: &str, variables| shown(followed(text, variables).unwrap().unwrap());
    assert_eq!(shown("{}", &all), "http://127.0.0.1:1 ca.crt /var/kept - true true true [] a b c d e 0");
    let text = "node: { id: x, locality: { zone: z }, metadata: { k: v } }\nxds: { server: 'https://y:1', cache: kept, load_reports: false, trials: false, events: false, sockets: [/run/app, near], on_demand: true }";
    assert_eq!(
        shown(text, &all),
        "https://y:1 ca.crt /etc/kept 3600s false false false [/run/app,/etc/near] x b c z e 1"
    );
    assert_eq!(
        shown("xds: { cache: kept }\nnode: {}", &all),
        "http://127.0.0.1:1 ca.crt /etc/kept - true true true [] a b c d e 0"
    );
    assert_eq!(
        shown("xds: { server: 'https://y:1' }", &all[8..]),
        "https://y:1 - - - true true true [] host     0"
    );
    let labels = ("OUTRIGGER_NODE_LABELS", " role = web, team=a=b ,");
    let text = "xds: { server: 'https://y:1' }";
    let node = followed(text, &[all[8], labels]).unwrap().unwrap().node;
    let expected = [("role", "web"), ("team", "a=b")];
    let expected = expected.map(|(key, value)| (Box::from(key), Metadata::Text(value.into())));
    assert_eq!(node.metadata, [("labels".into(), Metadata::Map(expected.into()))].into());
    // What is written of it is all there is.
    let written = format!("{text}\nnode: {{ id: x, metadata: {{ k: v }} }}");
    let node = followed(&written, &[labels]).unwrap().unwrap().node;
    assert_eq!(node.metadata, [("k".into(), Metadata::Text("v".into()))].into());
    let idle = "xds: { server: 'https://y:1', on_demand: { idle: 90s } }";
    assert_eq!(shown(idle, &all[8..]), "https://y:1 - - 90s true true true [] host     0");
    // Nobody is followed for the sake of a name.
    let own = "listeners: { a: { bind: 127.0.0.1:0, routes: [{ respond: {} }] } }";
    assert_eq!(followed(own, &all[1..]), Ok(None));
}

#[test]
fn what_is_wrong_with_a_variable_is_said_of_it() {
    let check = |variables: &[(&str, &str)], expected: &str| {
        assert_eq!(followed("{}", variables).unwrap_err(), expected);
    };
    let server = ("OUTRIGGER_XDS_SERVER", "http://127.0.0.1:1");
    check(&[("OUTRIGGER_XDS_SERVER", "")], "test.yaml:1:1: `listeners` is missing");
    check(
        &[server, ("OUTRIGGER_NODE_ID", "")],
        "test.yaml: OUTRIGGER_NODE_ID: the control plane is not told who asks; set it",
    );
    check(
        &[server, ("HOSTNAME", "a"), ("OUTRIGGER_NODE_LABELS", "role=web,team")],
        "test.yaml: OUTRIGGER_NODE_LABELS: `team` is no label; expected labels as in `role=web,team=shop`",
    );
    check(
        &[("OUTRIGGER_XDS_SERVER", "127.0.0.1"), ("HOSTNAME", "a")],
        "test.yaml: OUTRIGGER_XDS_SERVER: `127.0.0.1` is no server; expected a server, as `https://outrigger-control:15012`",
    );
}

#[test]
fn metadata_has_the_types_of_the_document() {
    let text = "xds: { server: 'https://y:1' }\nnode: { id: x, metadata: { a: 1.50, b: '1', c: true, d: [x, -2], e: { f: '${N}' } } }";
    let control = followed(text, &[("N", "7")]).unwrap().unwrap();
    let words: Vec<_> = control.node.metadata.values().map(|value| format!("{value:?}")).collect();
    let expected = [
        "Number(1.5)",
        "Text(\"1\")",
        "Bool(true)",
        "List([Text(\"x\"), Number(-2.0)])",
        "Map({\"f\": Text(\"7\")})",
    ];
    assert_eq!(words, expected);
}
