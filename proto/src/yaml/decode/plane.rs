//! How a control plane runs.

use super::super::cursor::Cx;
use super::super::fault::Fault;
use super::super::tree::Node;
use super::tls::file;
use super::{address, duration, percent, some_time};
use crate::model::{Address, Authority, Percent, Plane, PlaneTls, Reads, Rollout, RootFiles, TrustDomain};

const READS: [(&str, Reads); 2] = [("token", Reads::Token), ("open", Reads::Open)];

/// The whole document.
pub(in super::super) fn plane<'a>(cx: &mut Cx<'a>, root: Node<'a>) -> Option<Plane> {
    let mut m = cx.fields(root, "control plane")?;
    let default = Plane::default();
    let tls = m.optional("tls", |cx, node| {
        let mut m = cx.fields(node, "tls")?;
        let certificate = m.required("certificate", file);
        let private_key = m.required("private_key", file);
        m.finish();
        Some(PlaneTls { certificate: certificate?, private_key: private_key? })
    });
    let in_the_clear = !m.has("tls");
    let mut bind = |key| {
        m.optional(key, |cx, node| {
            let found = address(cx, node)?;
            if in_the_clear && !is_near(&found) {
                let fault = Fault::new(format!(
                    "`{found}` is open to others, who could read tokens and configurations"
                ));
                return cx.fail(
                    node,
                    fault.hint("write `tls: { certificate, private_key }`, or an address on loopback"),
                );
            }
            Some(found)
        })
    };
    let (xds, api) = (bind("xds"), bind("api"));
    let store = m.optional("store", file).unwrap_or(default.store);
    let documents = m.optional("documents", file);
    let authority = m.optional("ca", authority);
    let rollout = m.optional("rollout", rollout);
    let reads = m.optional("reads", |cx, node| cx.word(node, &READS)).unwrap_or(default.reads);
    m.finish();
    let (xds, api) = (xds.unwrap_or(default.xds), api.unwrap_or(default.api));
    Some(Plane { xds, api, tls, store, documents, authority, rollout, reads })
}

fn authority<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Authority> {
    let mut m = cx.fields(node, "ca")?;
    let trust_domain = m.required("trust_domain", |cx, node| {
        cx.parsed(node, "a trust domain, as `example.org`", |text| {
            TrustDomain::new(text).map_err(|error| Fault::new(error.to_string()))
        })
    });
    let root = m.optional("root", |cx, node| {
        let mut m = cx.fields(node, "root")?;
        let (certificate, private_key) = (m.required("certificate", file), m.required("private_key", file));
        m.finish();
        Some(RootFiles { certificate: certificate?, private_key: private_key? })
    });
    let lifetime = m.optional("lifetime", some_time).unwrap_or(Authority::LIFETIME);
    m.finish();
    Some(Authority { trust_domain: trust_domain?, root, lifetime })
}

fn rollout<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Rollout> {
    let mut m = cx.fields(node, "rollout")?;
    let steps = m.required("steps", |cx, node| {
        let steps = cx.list(node, "shares, as `[10%, 50%]`", percent)?;
        let rising = steps.windows(2).all(|pair| pair[0] < pair[1]);
        if steps.is_empty() || steps[0] == Percent::ZERO || !rising {
            let fault = Fault::new("these are not shares that rise from more than nothing");
            return cx.fail(node, fault.hint("expected such as `[10%, 50%]`; after the last all are told"));
        }
        Some(steps)
    });
    let watch = m.optional("watch", duration).unwrap_or(Rollout::WATCH);
    let patience = m.optional("patience", some_time).unwrap_or(Rollout::PATIENCE);
    m.finish();
    Some(Rollout { steps: steps?.into(), watch, patience })
}

fn is_near(address: &Address) -> bool {
    match address {
        Address::Ip(ip) => ip.ip().is_loopback(),
        Address::Unix(_) => true,
    }
}
