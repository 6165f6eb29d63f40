//! Where more of the configuration comes from: `node` and `xds`.

use super::super::cursor::{Cx, Fields};
use super::super::fault::Fault;
use super::super::tree::Node;
use super::tls::{file, server};
use crate::model::{self, ControlPlane, Locality};

pub(super) fn control<'a>(m: &mut Fields<'_, 'a>) -> Option<ControlPlane> {
    let node = m.optional("node", node);
    let written = m.has("node");
    if written && !m.has("xds") {
        m.refuse("node", || {
            Fault::new("nobody is told who this is")
                .hint("write `xds` too, as `xds: { server: \"https://host:18000\" }`")
        });
    }
    m.optional("xds", |cx, at| {
        let mut m = cx.fields(at, "xds")?;
        let server = m.required("server", server);
        let trust = m.optional("trust", file);
        let cache = m.optional("cache", file);
        m.finish();
        if !written {
            return cx.fail(
                at,
                Fault::new("the control plane is not told who asks").hint("write `node: { id: ... }` too"),
            );
        }
        Some(ControlPlane { server: server?, trust, cache, node: node? })
    })
}

fn node<'a>(cx: &mut Cx<'a>, at: Node<'a>) -> Option<model::Node> {
    let mut m = cx.fields(at, "node")?;
    let id = m.required("id", |cx, node| {
        let text = text(cx, node)?;
        if text.is_empty() {
            return cx.fail(node, Fault::new("the id is empty").hint("expected one that no other proxy has"));
        }
        Some(text)
    });
    let cluster = m.optional("cluster", text).unwrap_or_default();
    let locality = m.optional("locality", |cx, node| {
        let mut m = cx.fields(node, "locality")?;
        let locality = Locality {
            region: m.optional("region", text).unwrap_or_default(),
            zone: m.optional("zone", text).unwrap_or_default(),
            sub_zone: m.optional("sub_zone", text).unwrap_or_default(),
        };
        m.finish();
        Some(locality)
    });
    m.finish();
    Some(model::Node { id: id?, cluster, locality: locality.unwrap_or_default() })
}

fn text<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Box<str>> {
    Some(Box::from(&*cx.string(node, "a text")?))
}
