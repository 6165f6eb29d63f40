//! How a control plane runs.

use std::collections::BTreeMap;

use super::super::cursor::Cx;
use super::super::fault::{Fault, show};
use super::super::tree::{Node, View};
use super::tls::{Known, crls, file, is_here, is_private, peers};
use super::{address, duration, named, percent, some_time};
use crate::model::{
    Address, Attest, Authority, Bundle, Certificate, Etcd, Name, Nats, NatsLogin, Nodes, Percent, Plane,
    PlaneSecret, PlaneStore, PlaneTls, Reads, Rollout, RootFiles, TrustDomain, Verifier,
};

const NODES: [(&str, Nodes); 2] = [("any", Nodes::Any), ("proven", Nodes::Proven)];
const READS: [(&str, Reads); 2] = [("token", Reads::Token), ("open", Reads::Open)];

/// The whole document.
pub(in super::super) fn plane<'a>(cx: &mut Cx<'a>, root: Node<'a>) -> Option<Plane> {
    let mut m = cx.fields(root, "control plane")?;
    let default = Plane::default();
    let tls = m.optional("tls", own_certificate);
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
    let store = m.optional("store", store).unwrap_or(default.store);
    let documents = m.optional("documents", file);
    let is_shared = store.etcd.is_some();
    let authority = m.optional("ca", |cx, node| authority(cx, node, (in_the_clear, is_shared)));
    let has_authority = m.has("ca");
    let nodes = m.optional("nodes", |cx, node| {
        let nodes = cx.word(node, &NODES)?;
        if nodes == Nodes::Proven && (in_the_clear || !has_authority) {
            let fault = Fault::new("nobody could prove who it is");
            return cx
                .fail(node, fault.hint("write `tls` and `ca`: nodes show certificates of that authority"));
        }
        Some(nodes)
    });
    // Who is to be told is one of its trust domain.
    m.cx.identity = authority.as_ref().map_or(Known::Somebody, |ca| Known::Of(vec![ca.trust_domain.clone()]));
    let can_prove = !in_the_clear && has_authority;
    let secrets = m.optional("secrets", |cx, node| secrets(cx, node, can_prove)).unwrap_or_default();
    let rollout = m.optional("rollout", rollout);
    let reads = m.optional("reads", |cx, node| cx.word(node, &READS)).unwrap_or(default.reads);
    let events = m.optional("events", events);
    m.finish();
    let (xds, api) = (xds.unwrap_or(default.xds), api.unwrap_or(default.api));
    let nodes = nodes.unwrap_or(default.nodes);
    Some(Plane { xds, api, tls, store, documents, authority, secrets, nodes, rollout, reads, events })
}

fn secrets<'a>(cx: &mut Cx<'a>, node: Node<'a>, can_prove: bool) -> Option<BTreeMap<Name, PlaneSecret>> {
    named(cx, node, "secrets by name", |cx, name, node| {
        if [Certificate::OWN, Bundle::OWN].contains(&name.as_str()) {
            let fault = Fault::new(format!("`{name}` is what a node's own identity is called"));
            return cx.fail(node, fault.hint("call it otherwise"));
        }
        let mut m = cx.fields(node, "secret")?;
        m.exactly_one(&["certificate", "trust"]);
        if m.has("trust") {
            m.ask("certificate");
            let (roots, crls) = (m.required("trust", file), m.optional("crls", crls));
            m.finish();
            return Some(PlaneSecret::Roots { roots: roots?, crls: crls.unwrap_or_default() });
        }
        let (certificate, private_key) = (m.optional("certificate", file), m.required("private_key", file));
        let nodes = m.required("nodes", peers);
        m.finish();
        if !can_prove {
            let fault = Fault::new("nobody could prove to be one of `nodes`, who are told the key");
            return cx
                .fail(node, fault.hint("write `tls` and `ca`: nodes show certificates of that authority"));
        }
        let files = PlaneTls { certificate: certificate?, private_key: private_key? };
        Some(PlaneSecret::Certificate { files, nodes: nodes? })
    })
}

fn own_certificate<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<PlaneTls> {
    let mut m = cx.fields(node, "tls")?;
    let certificate = m.required("certificate", file);
    let private_key = m.required("private_key", file);
    m.finish();
    Some(PlaneTls { certificate: certificate?, private_key: private_key? })
}

/// A directory, or one and what is shared.
fn store<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<PlaneStore> {
    match node.view() {
        View::Map => {}
        View::Plain(_) | View::Quoted(_) | View::List | View::Broken => {
            return Some(PlaneStore { directory: file(cx, node)?, etcd: None });
        }
    }
    let mut m = cx.fields(node, "store")?;
    let etcd = m.required("etcd", etcd);
    let directory = m.optional("directory", file).unwrap_or_else(|| PlaneStore::DIRECTORY.into());
    m.finish();
    Some(PlaneStore { directory, etcd: Some(etcd?) })
}

fn etcd<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Etcd> {
    let mut m = cx.fields(node, "etcd")?;
    let endpoints = m.required("endpoints", |cx, node| {
        cx.one_or_more(node, A_MEMBER, |cx, node| cx.parsed(node, A_MEMBER, etcd_member))
    });
    let prefix = m.optional("prefix", |cx, node| cx.parsed(node, "a path, as `/outrigger`", prefix));
    let trust = m.optional("trust", file);
    let certificate = m.optional("tls", own_certificate);
    let user = m.optional("user", |cx, node| cx.string(node, "a name"));
    let password = if m.has("user") { m.required("password", file) } else { m.optional("password", file) };
    if !m.has("user") {
        m.refuse("password", || Fault::new("nobody knows whose it is").hint("write `user` too"));
    }
    if endpoints.iter().flatten().any(|member| member.starts_with("http://")) {
        for key in ["trust", "tls"] {
            m.refuse(key, || {
                Fault::new("in the clear nobody proves who he is").hint("write `https://` in `endpoints`")
            });
        }
    }
    m.finish();
    Some(Etcd {
        endpoints: endpoints?.into(),
        prefix: prefix.unwrap_or_else(|| Etcd::PREFIX.into()),
        trust,
        certificate,
        login: user.map(|user| Box::from(&*user)).zip(password),
    })
}

const A_MEMBER: &str = "a member, as `http://127.0.0.1:2379` or `https://etcd.example:2379`";

fn etcd_member(text: &str) -> Result<Box<str>, Fault> {
    let fault =
        || Fault::new(format!("{} is no member of etcd", show(text))).hint(format!("expected {A_MEMBER}"));
    let uri = at_a_port(text, fault)?;
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if uri.host().is_some_and(is_here) => {}
        Some("http") => {
            return Err(Fault::new("in the clear whoever is between could say what is served")
                .hint("write `https://`; `http://` is for this machine alone"));
        }
        Some(_) | None => return Err(fault()),
    }
    Ok(text.trim_end_matches('/').into())
}

/// A host and its port, without a path or a login; the scheme is the caller's to judge.
fn at_a_port(text: &str, fault: impl Fn() -> Fault) -> Result<http::Uri, Fault> {
    let uri: http::Uri = text.parse().map_err(|_| fault())?;
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    if !bare || uri.port_u16().is_none() || uri.host().is_none_or(str::is_empty) {
        return Err(fault());
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(Fault::new("whoever reads this file would know the password")
            .hint("write `user`, and `password` with the name of a file"));
    }
    Ok(uri)
}

fn prefix(text: &str) -> Result<Box<str>, Fault> {
    let is_path = text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_word));
    if !is_path {
        let fault = Fault::new(format!("{} is no beginning of keys", show(text)));
        return Err(fault.hint("expected words behind `/`, as `/outrigger`"));
    }
    Ok(text.into())
}

fn authority<'a>(
    cx: &mut Cx<'a>,
    node: Node<'a>,
    (in_the_clear, is_shared): (bool, bool),
) -> Option<Authority> {
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
    let attest = m.optional("attest", |cx, node| attest(cx, node, in_the_clear)).unwrap_or_default();
    let lacks_root = is_shared && !m.has("root");
    m.finish();
    if lacks_root {
        let fault = Fault::new("replicas sign by one root, and its key does not belong into etcd");
        return cx
            .fail(node, fault.hint("write `root: { certificate, private_key }`, the same for each of them"));
    }
    Some(Authority { trust_domain: trust_domain?, root, lifetime, attest })
}

fn attest<'a>(cx: &mut Cx<'a>, node: Node<'a>, in_the_clear: bool) -> Option<Attest> {
    let mut m = cx.fields(node, "attest")?;
    let certificates = m.optional("certificates", file);
    if in_the_clear {
        m.refuse("certificates", || {
            Fault::new("in the clear nobody shows a certificate").hint("write `tls` too")
        });
    }
    let verifier = m.optional("verifier", verifier);
    m.finish();
    Some(Attest { certificates, verifier })
}

const A_VERIFIER: &str = "an address, as `https://attest.example/node`";

fn verifier<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Verifier> {
    let mut m = cx.fields(node, "verifier")?;
    let url = m.required("url", |cx, node| {
        cx.parsed(node, A_VERIFIER, |text| {
            let fault =
                || Fault::new(format!("{} is no address", show(text))).hint(format!("expected {A_VERIFIER}"));
            let uri: http::Uri = text.parse().map_err(|_| fault())?;
            let is_bare = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
            match is_private(&uri).filter(|_| is_bare) {
                Some(true) => Ok(Box::from(text)),
                Some(false) => Err(Fault::new("in the clear, what nodes show would be anybody's")
                    .hint("write `https://`; `http://` is for this machine alone")),
                None => Err(fault()),
            }
        })
    });
    let trust = m.optional("trust", file);
    let timeout = m.optional("timeout", some_time).unwrap_or(Verifier::TIMEOUT);
    m.finish();
    Some(Verifier { url: url?, trust, timeout })
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
    let failures = m.optional("failures", percent).unwrap_or(Rollout::FAILURES);
    let slowdown = m.optional("slowdown", |cx, node| {
        cx.parsed(node, "how many times as long it may take, as `3`", |text| match text.parse::<f64>() {
            Ok(times) if times.is_finite() && times >= 1.0 => Ok(times),
            Ok(_) | Err(_) => Err(Fault::new(format!("{} is not 1 or more", show(text)))),
        })
    });
    let patience = m.optional("patience", some_time).unwrap_or(Rollout::PATIENCE);
    m.finish();
    let slowdown = slowdown.unwrap_or(Rollout::SLOWDOWN);
    Some(Rollout { steps: steps?.into(), watch, failures, slowdown, patience })
}

fn events<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Nats> {
    let mut m = cx.fields(node, "events")?;
    let nats = m.required("nats", nats);
    m.finish();
    nats
}

fn nats<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Nats> {
    let mut m = cx.fields(node, "nats")?;
    let server = m.required("server", |cx, node| cx.parsed(node, A_SERVER, nats_server));
    let trust = m.optional("trust", file);
    let (token, user) = (m.optional("token", file), m.optional("user", |cx, node| cx.string(node, "a name")));
    let password = if m.has("user") { m.required("password", file) } else { m.optional("password", file) };
    let stream = m.optional("stream", |cx, node| cx.parsed(node, "a name, as `outrigger`", stream));
    let subject = m.optional("subject", |cx, node| cx.parsed(node, A_SUBJECT, subject));
    if m.has("user") {
        m.refuse("token", || Fault::new("a server is shown a token, or a user").hint("remove one of them"));
    } else {
        m.refuse("password", || Fault::new("nobody knows whose it is").hint("write `user` too"));
    }
    if let Some((server, is_kept)) = &server {
        if !server.starts_with("tls://") {
            m.refuse("trust", || {
                Fault::new("in the clear nobody proves who he is").hint("write `tls://` in `server`")
            });
        }
        for key in ["token", "password"] {
            if !is_kept {
                m.refuse(key, || {
                    Fault::new("in the clear it would be anybody's")
                        .hint("write `tls://` in `server`; `nats://` is for this machine alone")
                });
            }
        }
    }
    m.finish();
    let user = user.zip(password).map(|(user, password)| NatsLogin::User(Box::from(&*user), password));
    Some(Nats {
        server: server?.0,
        trust,
        login: token.map(NatsLogin::Token).or(user),
        stream: stream.unwrap_or_else(|| Nats::STREAM.into()),
        subject: subject.unwrap_or_else(|| Nats::SUBJECT.into()),
    })
}

const A_SERVER: &str = "a server, as `nats://127.0.0.1:4222` or `tls://nats.example:4222`";
const A_SUBJECT: &str = "words between dots, as `outrigger.events`";

/// A server, and whether nobody else reads what it is told.
fn nats_server(text: &str) -> Result<(Box<str>, bool), Fault> {
    let fault = || Fault::new(format!("{} is no server", show(text))).hint(format!("expected {A_SERVER}"));
    let uri = at_a_port(text, fault)?;
    let is_kept = match uri.scheme_str() {
        Some("tls") => true,
        Some("nats") => uri.host().is_some_and(is_here),
        Some(_) | None => return Err(fault()),
    };
    Ok((text.trim_end_matches('/').into(), is_kept))
}

/// What every part of NATS takes for a name without giving a meaning to it.
fn is_word(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    !text.is_empty() && text.chars().all(fits)
}

fn stream(text: &str) -> Result<Box<str>, Fault> {
    if !is_word(text) || text.len() > 32 {
        let fault = Fault::new(format!("{} is no name of a stream", show(text)));
        return Err(fault.hint("expected up to 32 letters, digits, `_` and `-`"));
    }
    Ok(text.into())
}

fn subject(text: &str) -> Result<Box<str>, Fault> {
    if !text.split('.').all(is_word) {
        let fault = Fault::new(format!("{} is no beginning of a subject", show(text)));
        return Err(fault.hint(format!("expected {A_SUBJECT}; the type follows by itself")));
    }
    Ok(text.into())
}

fn is_near(address: &Address) -> bool {
    match address {
        Address::Ip(ip) => ip.ip().is_loopback(),
        Address::Unix(_) => true,
    }
}
