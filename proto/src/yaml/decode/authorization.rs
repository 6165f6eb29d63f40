//! Who may do what: `authorization` of a listener.

use http::HeaderName;

use super::super::cursor::{Cx, Fields};
use super::super::fault::{Fault, show};
use super::super::tree::{Node, View};
use super::super::{canonical, lint, scalar};
use super::matches::{hosts, methods, pattern, string_match};
use super::{headers, tls};
use crate::model::{Authorization, ClaimRule, Effect, HeaderRule, PathPattern, Rule, When};

/// Longer lists of rules than this nobody keeps in mind.
const MAX_RULES: usize = 10_000;

/// Where the rules stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around {
    /// Requests can be looked at.
    pub(super) http: bool,
    /// Tokens are looked at.
    pub(super) claims: bool,
    /// Clients prove who they are.
    pub(super) identified: bool,
    /// There is TLS.
    pub(super) tls: bool,
}

pub(super) fn authorization<'a>(cx: &mut Cx<'a>, node: Node<'a>, around: Around) -> Option<Authorization> {
    let expected = "a list of rules, as `[{ allow: { peers: [\"spiffe://cluster.local/ns/shop/*\"] } }]`";
    let rules = cx.list(node, expected, |cx, node| rule(cx, node, around))?;
    match rules.len() {
        0 => cx.fail(
            node,
            Fault::new("there is no rule: nobody could be let in").hint(format!("expected {expected}")),
        ),
        1..=MAX_RULES => {
            let authorization = Authorization { rules: rules.into() };
            lint::authorization(cx, node, &authorization);
            Some(authorization)
        }
        count => cx.fail(
            node,
            Fault::new(format!("there are {count} rules")).hint(format!("expected at most {MAX_RULES}")),
        ),
    }
}

fn rule<'a>(cx: &mut Cx<'a>, node: Node<'a>, around: Around) -> Option<Rule> {
    let mut m = cx.fields(node, "authorization_rule")?;
    m.exactly_one(&["allow", "deny", "audit"]);
    let effects = [("allow", Effect::Allow), ("deny", Effect::Deny), ("audit", Effect::Audit)];
    let mut read = None;
    for (key, effect) in effects {
        let when = m.optional(key, |cx, node| when(cx, node, around));
        read = read.or(when.map(|when| (effect, when)));
    }
    let name = m.optional("name", |cx, node| {
        let text = cx.string(node, "a rule's name")?;
        Some(super::name(cx, &text, node.place())?.as_str().into())
    });
    let dry_run = m.optional("dry_run", Cx::boolean).unwrap_or(false);
    if m.has("audit") {
        m.refuse("dry_run", || Fault::new("an audit decides nothing anyway").hint("remove it"));
    }
    m.finish();
    let (effect, when) = read?;
    Some(Rule { name, effect, dry_run, when })
}

fn when<'a>(cx: &mut Cx<'a>, node: Node<'a>, around: Around) -> Option<When> {
    let mut m = cx.fields(node, "authorization_when")?;
    let before = m.cx.errors.len();
    let when = When {
        peers: m.optional("peers", tls::peers).unwrap_or_default(),
        source: some(&mut m, "source", |cx, node| {
            cx.one_or_more(node, "a network, or a list of networks", |cx, node| {
                cx.parsed(node, "a network, as `10.0.0.0/8`", scalar::network)
            })
        }),
        sni: some(&mut m, "sni", hosts),
        ports: some(&mut m, "ports", |cx, node| {
            cx.one_or_more(node, "a port, or a list of ports", |cx, node| {
                u16::try_from(cx.whole(node, 1, u16::MAX.into())?).ok()
            })
        }),
        methods: some(&mut m, "methods", methods),
        hosts: some(&mut m, "hosts", hosts),
        paths: some(&mut m, "paths", |cx, node| cx.one_or_more(node, "a path, or a list of paths", path)),
        headers: some(&mut m, "headers", header_rules),
        claims: some(&mut m, "claims", claims),
    };
    refuse(&mut m, around);
    let wrong = m.cx.errors.len() > before;
    m.finish();
    (!wrong).then_some(when)
}

/// A part that says nothing is left out; one that is empty would fit nothing, or everything: nobody could tell.
fn some<'a, T>(
    m: &mut Fields<'_, 'a>,
    key: &'static str,
    decode: impl FnOnce(&mut Cx<'a>, Node<'a>) -> Option<Vec<T>>,
) -> Box<[T]> {
    m.optional(key, |cx, node| {
        let before = cx.errors.len();
        let read = decode(cx, node)?;
        if read.is_empty() && cx.errors.len() == before {
            return cx.fail(node, Fault::new("nothing is named here").hint("leave the key out for anything"));
        }
        Some(read)
    })
    .unwrap_or_default()
    .into()
}

fn refuse(m: &mut Fields<'_, '_>, around: Around) {
    if !around.http {
        for key in ["methods", "hosts", "paths", "headers", "claims"] {
            m.refuse(key, || {
                Fault::new("this is about HTTP, and the listener passes bytes")
                    .hint("remove it, or write `routes`")
            });
        }
    }
    if around.http && !around.claims {
        m.refuse("claims", || {
            Fault::new("nobody looks at tokens here: no claim would ever fit")
                .hint("write `jwt` at the listener")
        });
    }
    if !around.identified {
        m.refuse("peers", || {
            Fault::new("clients of this listener do not prove who they are: nobody would ever fit")
                .hint("write `mtls: strict` or `mtls: permissive` at the listener")
        });
    }
    if !around.tls {
        m.refuse("sni", || {
            Fault::new("the listener has no TLS, in which clients name a host")
                .hint("remove it, or write `hosts`")
        });
    }
}

/// A path, or `{exact | prefix | regex}`; a string may end in `/*`.
fn path<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<PathPattern> {
    if !matches!(node.view(), View::Map) {
        let text = cx.string(node, "a path, as `/cart` or `/cart/*`")?;
        let (path, star) = match text.strip_suffix('*') {
            Some(above) => (above, true),
            None => (&*text, false),
        };
        if path.contains('*') || (star && !path.ends_with('/')) {
            let fault = Fault::new(format!("{} has a `*` where none can be", show(&text)));
            return cx.fail(node, fault.hint("it may stand alone at the end, behind a `/`, as `/cart/*`"));
        }
        if let Err(fault) = canonical::check(path) {
            return cx.fail(node, fault);
        }
        return Some(if star { PathPattern::Below(path.into()) } else { PathPattern::Exact(path.into()) });
    }
    let mut m = cx.fields(node, "path_match")?;
    m.exactly_one(&["exact", "prefix", "regex"]);
    let exact = m.optional("exact", |cx, node| {
        Some(PathPattern::Exact(super::matches::canonical_path(cx, node)?.into()))
    });
    let prefix = m.optional("prefix", |cx, node| {
        let path = super::matches::canonical_path(cx, node)?;
        Some(PathPattern::Prefix(path.strip_suffix('/').unwrap_or(&path).into()))
    });
    let regex = m.optional("regex", |cx, node| Some(PathPattern::Regex(pattern(cx, node)?)));
    m.finish();
    exact.or(prefix).or(regex)
}

fn header_rules<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Vec<HeaderRule>> {
    let mut seen = Vec::new();
    cx.entries(node, "values by header name, as `{ x-team: shop }`", |cx, key, place, node| {
        let name = headers::name(cx, key, place, &mut seen);
        if let Some(name) = name.as_ref().filter(|name| of_one_hop(name)) {
            let fault = Fault::new(format!("`{name}` is of the connection, and is not looked at here"));
            return cx.fail_at(place, fault.hint("write `hosts` for the host; the others no rule needs"));
        }
        let value = string_match(cx, node);
        Some(HeaderRule { name: name?, value: value? })
    })
}

/// Fields that are taken out, or that HTTP/2 has in another place, before anybody looks.
pub(crate) fn of_one_hop(name: &HeaderName) -> bool {
    const NAMES: [&str; 8] = [
        "host",
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.contains(&name.as_str())
}

fn claims<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Vec<ClaimRule>> {
    cx.entries(node, "values by claim, as `{ sub: alice }`", |cx, key, _, node| {
        let values = cx.one_or_more(node, "a value, or a list of values", |cx, node| {
            Some(Box::<str>::from(&*cx.string(node, "a value")?))
        })?;
        if values.is_empty() {
            return cx.fail(node, Fault::new("no value is named").hint("leave the claim out for anything"));
        }
        Some(ClaimRule { name: key.into(), values: values.into() })
    })
}
