//! What many proxies serve: a proxy's own vocabulary, and `proxies`, which says who serves what of it.

use std::collections::BTreeSet;

use super::super::cursor::Cx;
use super::super::fault::Fault;
use super::super::lint;
use super::super::place::Step;
use super::super::tree::Node;
use super::{Known, look_over, name, served};
use crate::model::{Address, Config, Fleet, Group, IdPattern, Labels, Name, Select};

/// The one group, where nobody names any.
const EVERYBODY: &str = "all";

/// All documents together.
pub(in super::super) fn fleet<'a>(cx: &mut Cx<'a>, root: Node<'a>) -> Option<Fleet> {
    let mut m = cx.fields(root, "fleet")?;
    // Each proxy has its own, or none; which, is known where it runs.
    m.cx.identity = Known::Somebody;
    let served = served(&mut m, false);
    let known = m.optional("listeners", super::index).unwrap_or_default();
    let written = m.has("proxies");
    let groups = m.optional("proxies", |cx, node| {
        cx.entries(node, "groups of proxies by name", |cx, key, place, node| {
            let name = name(cx, key, place);
            let group = group(cx, node, &known)?;
            Some(Group { name: name?, ..group })
        })
    });
    m.finish();
    lint::unused(cx, root);
    let mut config = Config::default();
    served?.put_into(&mut config);
    look_over(cx, root, &config.mesh);
    let groups = if written { groups? } else { vec![everybody()] };
    let fleet = Fleet { config, groups };
    refuse_taken_binds(cx, root, &fleet);
    Some(fleet)
}

fn everybody() -> Group {
    let name = Name::new(EVERYBODY).expect("a name");
    Group { name, select: Select::default(), listeners: None, clusters: None }
}

fn group<'a>(cx: &mut Cx<'a>, node: Node<'a>, listeners: &[Name]) -> Option<Group> {
    let mut m = cx.fields(node, "group")?;
    let select = m.optional("select", select).unwrap_or_default();
    let named = m.optional("listeners", |cx, node| {
        references(cx, node, "listener", |_, name| listeners.contains(name), |_| listeners.to_vec())
    });
    let clusters = m.optional("clusters", |cx, node| {
        let known = |cx: &mut Cx<'a>, name: &Name| match cx.clusters.get_mut(name) {
            Some(used) => {
                *used = true;
                true
            }
            None => !cx.clusters_known,
        };
        references(cx, node, "cluster", known, |cx| cx.clusters.keys().cloned().collect())
    });
    m.finish();
    // Whoever names listeners is told what these lead to, and no more.
    let clusters = clusters.or_else(|| named.is_some().then(BTreeSet::new));
    Some(Group { select, listeners: named, clusters, ..everybody() })
}

fn select<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Select> {
    let mut m = cx.fields(node, "select")?;
    let id = m.optional("id", |cx, node| {
        let text = cx.string(node, "the id of a node, or how it begins and `*`")?;
        match text.strip_suffix('*') {
            _ if text.is_empty() => cx.fail(node, Fault::new("the id is empty")),
            Some(prefix) if prefix.contains('*') => {
                cx.fail(node, Fault::new("more than one `*`").hint("expected one, at the end"))
            }
            None if text.contains('*') => {
                cx.fail(node, Fault::new("a `*` that is not at the end").hint("expected one, at the end"))
            }
            Some(prefix) => Some(IdPattern::Prefix(prefix.into())),
            None => Some(IdPattern::Exact(Box::from(&*text))),
        }
    });
    let cluster = m.optional("cluster", |cx, node| Some(Box::from(&*cx.string(node, "a node's cluster")?)));
    let labels = m.optional("labels", |cx, node| {
        let pairs = cx.entries(node, "labels, as `key: value`", |cx, key, _, value| {
            Some((Box::from(key), Box::from(&*cx.string(value, "a text")?)))
        });
        Some(Labels(pairs?.into_iter().collect()))
    });
    m.finish();
    Some(Select { id, cluster, labels: labels.unwrap_or_default() })
}

/// A list of names of what there is.
fn references<'a>(
    cx: &mut Cx<'a>,
    node: Node<'a>,
    what: &str,
    is_known: impl Fn(&mut Cx<'a>, &Name) -> bool,
    all: impl Fn(&Cx<'a>) -> Vec<Name>,
) -> Option<BTreeSet<Name>> {
    let expected = format!("a list of {what}s by name");
    let names = cx.list(node, &expected, |cx, node| {
        let text = cx.string(node, &format!("the name of a {what}"))?;
        match Name::new(&text).filter(|name| is_known(cx, name)) {
            Some(name) => Some(name),
            None => {
                let fault = Fault::new(format!("there is no {what} `{text}`"));
                let all = if cx.may_suggest() { all(cx) } else { Vec::new() };
                let fault = fault.choice(&text, all.iter().map(Name::as_str), &format!("the {what}s are"));
                cx.fail(node, fault)
            }
        }
    })?;
    Some(names.into_iter().collect())
}

/// One proxy cannot listen twice at an address; two can.
fn refuse_taken_binds<'a>(cx: &mut Cx<'a>, root: Node<'a>, fleet: &Fleet) {
    let Some(map) = root.get("listeners") else { return };
    for group in &fleet.groups {
        let mut binds: Vec<(&Address, &Name)> =
            fleet.listeners(group).map(|(name, listener)| (&listener.bind, name)).collect();
        binds.retain(|(bind, _)| !matches!(bind, Address::Ip(ip) if ip.port() == 0));
        binds.sort_unstable();
        for pair in binds.windows(2) {
            let [(taken, first), (bind, second)] = [pair[0], pair[1]];
            let Some(entry) = map.value.get(second.as_str()).filter(|_| taken == bind) else { continue };
            let place = entry.value.get("bind").map_or(entry.place, |bind| bind.value.place());
            let fault = Fault::new(format!("`{bind}` is taken by the listener `{first}` already"));
            let fault =
                fault.hint(format!("proxies of the group `{}` would have to listen there twice", group.name));
            let steps = [Step::Key("listeners"), Step::Key(entry.key), Step::Key("bind")];
            cx.within_all(&steps, |cx| cx.fail_at::<()>(place, fault));
        }
    }
}
