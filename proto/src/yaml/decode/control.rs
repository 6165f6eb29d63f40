//! Where more of the configuration comes from: `node` and `xds`. What the document does not say of them the environment may,
//! as containers are given it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::cursor::{Cx, Fields};
use super::super::fault::{Fault, show};
use super::super::scalar::{Core, core};
use super::super::tree::{Node, View};
use super::some_time;
use super::tls::{file, server, server_of};
use crate::error::ConfigError;
use crate::model::{self, ControlPlane, Locality, Metadata, OnDemand};

/// Names a control plane.
pub(super) const SERVER: &str = "OUTRIGGER_XDS_SERVER";
const TRUST: &str = "OUTRIGGER_XDS_TRUST";
const CACHE: &str = "OUTRIGGER_XDS_CACHE";
const ID: &str = "OUTRIGGER_NODE_ID";
/// Whose id it is where none is said.
const HOST: &str = "HOSTNAME";
const CLUSTER: &str = "OUTRIGGER_NODE_CLUSTER";
const REGION: &str = "OUTRIGGER_NODE_REGION";
const ZONE: &str = "OUTRIGGER_NODE_ZONE";
const SUB_ZONE: &str = "OUTRIGGER_NODE_SUB_ZONE";
/// `role=web,team=shop`: what stands below `labels` in its metadata, by which control planes tell nodes apart.
const LABELS: &str = "OUTRIGGER_NODE_LABELS";

/// Beyond it not every whole number is a number of JSON's.
const EXACT: f64 = 9_007_199_254_740_992.0;

pub(super) fn control<'a>(m: &mut Fields<'_, 'a>) -> Option<ControlPlane> {
    let (node_written, xds_written) = (m.has("node"), m.has("xds"));
    let is_followed = xds_written || m.cx.variable(SERVER).is_some();
    let node = m.optional("node", node).or_else(|| if node_written { None } else { unwritten_node(m.cx) });
    if !is_followed {
        m.refuse("node", || {
            Fault::new("nobody is told who this is")
                .hint("write `xds` too, as `xds: { server: \"https://host:18000\" }`")
        });
    }
    let written = m.optional("xds", |cx, at| {
        let mut m = cx.fields(at, "xds")?;
        let named = if m.cx.variable(SERVER).is_some() {
            m.optional("server", server)
        } else {
            m.required("server", server)
        };
        let says = m.has("server");
        let (trust, cache) = (m.optional("trust", file), m.optional("cache", file));
        let on_demand = m.optional("on_demand", on_demand);
        let [reports, trials, events] =
            ["load_reports", "trials", "events"].map(|name| m.optional(name, Cx::boolean));
        let sockets = m.optional("sockets", |cx, at| cx.list(at, "a list of directories", file));
        m.finish();
        if !node_written && node.is_none() {
            return cx.fail(
                at,
                Fault::new("the control plane is not told who asks").hint("write `node: { id: ... }` too"),
            );
        }
        let named = if says { Some(named?) } else { None };
        Some((named, trust, cache, on_demand, [reports, trials, events], sockets))
    });
    if !is_followed || (xds_written && written.is_none()) {
        return None;
    }
    let (named, trust, cache, on_demand, [reports, trials, events], sockets) = written.unwrap_or_default();
    let path = |cx: &Cx<'_>, name| cx.variable(name).map(PathBuf::from);
    let (trust, cache) = (trust.or_else(|| path(m.cx, TRUST)), cache.or_else(|| path(m.cx, CACHE)));
    let server = named.or_else(|| server_from_environment(m.cx))?;
    if node.is_none() && !node_written {
        return refuse_variable(
            m.cx,
            ID,
            Fault::new("the control plane is not told who asks").hint("set it"),
        );
    }
    Some(ControlPlane {
        server,
        trust,
        cache,
        on_demand: on_demand.unwrap_or_default(),
        load_reports: reports.unwrap_or(true),
        trials: trials.unwrap_or(true),
        events: events.unwrap_or(true),
        sockets: sockets.unwrap_or_default().into(),
        node: node?,
    })
}

fn on_demand<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Option<OnDemand>> {
    if !matches!(node.view(), View::Map) {
        return Some(cx.boolean(node)?.then(OnDemand::default));
    }
    let mut m = cx.fields(node, "on_demand")?;
    let idle = m.required("idle", some_time);
    m.finish();
    Some(Some(OnDemand { idle: idle? }))
}

fn server_from_environment(cx: &mut Cx<'_>) -> Option<Box<str>> {
    let text = cx.variable(SERVER)?;
    server_of(&text).map_or_else(|fault| refuse_variable(cx, SERVER, fault), Some)
}

/// What a variable holds is no part of the document, and has no place there.
fn refuse_variable<T>(cx: &mut Cx<'_>, name: &str, Fault { problem, hint }: Fault) -> Option<T> {
    cx.errors.push(ConfigError { place: None, path: name.to_owned(), problem, hint });
    None
}

fn node<'a>(cx: &mut Cx<'a>, at: Node<'a>) -> Option<model::Node> {
    let mut m = cx.fields(at, "node")?;
    let unsaid = id_from_environment(m.cx);
    let id = |cx: &mut Cx<'a>, node| {
        let text = text(cx, node)?;
        if text.is_empty() {
            return cx.fail(node, Fault::new("the id is empty").hint("expected one that no other proxy has"));
        }
        Some(text)
    };
    let id = match unsaid {
        Some(unsaid) if !m.has("id") => {
            m.optional("id", id);
            Some(unsaid)
        }
        Some(_) | None => m.required("id", id),
    };
    let cluster = m.optional("cluster", text);
    let locality = m.optional("locality", |cx, node| {
        let mut m = cx.fields(node, "locality")?;
        let parts = ["region", "zone", "sub_zone"].map(|key| m.optional(key, text));
        m.finish();
        Some(parts)
    });
    let metadata = match m.has("metadata") {
        true => m.optional("metadata", metadata).unwrap_or_default(),
        false => labels_from_environment(m.cx).unwrap_or_default(),
    };
    m.finish();
    let [region, zone, sub_zone] = locality.unwrap_or_default();
    let locality = Locality {
        region: said(cx, region, REGION),
        zone: said(cx, zone, ZONE),
        sub_zone: said(cx, sub_zone, SUB_ZONE),
    };
    Some(model::Node { id: id?, cluster: said(cx, cluster, CLUSTER), locality, metadata })
}

/// Who it is where the document does not say a word about it.
fn unwritten_node(cx: &mut Cx<'_>) -> Option<model::Node> {
    let metadata = labels_from_environment(cx).unwrap_or_default();
    let locality = Locality {
        region: said(cx, None, REGION),
        zone: said(cx, None, ZONE),
        sub_zone: said(cx, None, SUB_ZONE),
    };
    let (id, cluster) = (id_from_environment(cx)?, said(cx, None, CLUSTER));
    Some(model::Node { id, cluster, locality, metadata })
}

fn labels_from_environment(cx: &mut Cx<'_>) -> Option<BTreeMap<Box<str>, Metadata>> {
    let text = cx.variable(LABELS)?;
    let mut labels = BTreeMap::new();
    for label in text.split(',').map(str::trim).filter(|label| !label.is_empty()) {
        let Some((key, value)) = label.split_once('=').filter(|(key, _)| !key.trim_end().is_empty()) else {
            let fault = Fault::new(format!("{} is no label", show(label)));
            return refuse_variable(cx, LABELS, fault.hint("expected labels as in `role=web,team=shop`"));
        };
        labels.insert(key.trim_end().into(), Metadata::Text(value.trim_start().into()));
    }
    (!labels.is_empty()).then(|| BTreeMap::from([("labels".into(), Metadata::Map(labels))]))
}

fn id_from_environment(cx: &Cx<'_>) -> Option<Box<str>> {
    cx.variable(ID).or_else(|| cx.variable(HOST)).map(Box::from)
}

/// What was written, else what the variable says.
fn said(cx: &Cx<'_>, written: Option<Box<str>>, name: &str) -> Box<str> {
    written.unwrap_or_else(|| cx.variable(name).unwrap_or_default().into())
}

fn metadata<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<BTreeMap<Box<str>, Metadata>> {
    let entries = cx.entries(node, "a mapping, as `{ team: web }`", |cx, key, _, node| {
        Some((Box::from(key), value(cx, node)?))
    });
    Some(entries?.into_iter().collect())
}

/// Its type is that of YAML; what comes out of a variable is text.
fn value<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Metadata> {
    match node.view() {
        View::Broken => None,
        View::Map => metadata(cx, node).map(Metadata::Map),
        View::List => cx.list(node, "a list", value).map(|items| Metadata::List(items.into())),
        View::Quoted(_) => text(cx, node).map(Metadata::Text),
        View::Plain(plain) => match core(plain) {
            Core::Bool => cx.boolean(node).map(Metadata::Bool),
            Core::Int | Core::Float => cx.parsed(node, "a number", number).map(Metadata::Number),
            Core::Str => text(cx, node).map(Metadata::Text),
            Core::Null => cx.unlike(node, "a text, a number, a boolean, a list or a mapping"),
        },
    }
}

fn number(text: &str) -> Result<f64, Fault> {
    let refused =
        |problem| Err(Fault::new(format!("{} {problem}", show(text))).hint("write it in quotes, as text"));
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => {
            let is_whole = core(text) == Core::Int;
            if is_whole && number.abs() >= EXACT {
                refused("is too large to be sent exactly")
            } else {
                Ok(number)
            }
        }
        Ok(_) | Err(_) => refused("is no decimal number"),
    }
}

fn text<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Box<str>> {
    Some(Box::from(&*cx.string(node, "a text")?))
}
