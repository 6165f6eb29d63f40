//! From a tree to the model.
//!
//! One function a kind of mapping, in the order of the document. Clusters and route tables are indexed by name before
//! anything that refers to them is read, so that they may be written in any order.

mod authorization;
mod chains;
mod cluster;
mod control;
mod external_authorization;
mod fleet;
mod global_rate_limit;
mod hash;
mod headers;
mod jwt;
mod listener;
mod matches;
mod plane;
mod policy;
mod process;
mod route;
mod split;
mod tls;
mod upstream;

pub(crate) use self::authorization::of_one_hop;
pub(super) use self::cluster::{MAX_LABEL, MAX_LABELS, MAX_PRIORITY, MAX_ZONE_WEIGHT};
pub(super) use self::fleet::fleet;
pub(super) use self::global_rate_limit::MAX_HITS;
pub(super) use self::listener::MAX_HEADERS;
pub(super) use self::plane::plane;
pub(super) use self::policy::{MAX_ATTEMPTS, MAX_KEYS, TOLERANCES};
pub(super) use self::process::MAX_WORKERS;
pub(super) use self::route::REDIRECTS;
pub(super) use self::tls::Known;
pub(crate) use self::tls::is_private;
pub(super) use self::upstream::{LATENCY_FACTORS, MAX_DEVIATIONS, MAX_FLOOR, MAX_ROW, MIN_INTERVAL};

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::cursor::{Cx, Fields};
use super::fault::{Fault, show};
use super::place::Step;
use super::scalar::show_duration;
use super::tree::{Node, View};
use super::{lint, ratio, scalar};
use crate::error::Place;
use crate::model::{
    Address, Admin, Alike, Assignment, Cluster, Config, Filter, HttpFilter, Listener, Mesh, Name, Percent,
    Route, RouteTable,
};

/// Listeners, each with its route table when that is written in place.
type Listeners = BTreeMap<Name, (Listener, Option<RouteTable>)>;

/// The whole document.
pub(super) fn config<'a>(cx: &mut Cx<'a>, root: Node<'a>) -> Option<Config> {
    let mut m = cx.fields(root, "config")?;
    let process = process::process(&mut m);
    let identity = m.optional("identity", tls::identity).map(Arc::new);
    // A control plane may say what listens.
    let must_listen = !(m.has("xds") || m.cx.variable(control::SERVER).is_some());
    let served = served(&mut m, must_listen);
    m.finish();
    lint::unused(cx, root);

    let served = served?;
    refuse_taken_binds(cx, root, &process.admin, &served.listeners);
    lint::process(cx, root, &process, served.listeners.len());
    let mut config = Config { mesh: Mesh { process, identity, ..Mesh::default() }, ..Config::default() };
    served.put_into(&mut config);
    look_over(cx, root, &config.mesh);
    Some(config)
}

/// What a document says of listeners, route tables and clusters.
struct Served {
    listeners: Listeners,
    tables: BTreeMap<Name, RouteTable>,
    clusters: BTreeMap<Name, (Cluster, Option<Assignment>)>,
}

/// Reads it; what refers to something may stand before it.
fn served<'a>(m: &mut Fields<'_, 'a>, must_listen: bool) -> Option<Served> {
    let mut names = m.optional("clusters", index).unwrap_or_default();
    m.optional("clusters", |cx, node| {
        cx.clusters_known = matches!(node.view(), View::Map);
        Some(())
    });
    m.cx.clusters = names.drain(..).map(|name| (name, false)).collect();
    m.cx.subsets = m.optional("clusters", |_, node| Some(index_subsets(node))).unwrap_or_default();
    names = m.optional("route_tables", index).unwrap_or_default();
    m.cx.tables = names.drain(..).map(|name| (name, false)).collect();
    m.optional("listeners", index_inline_tables);

    let read = |cx: &mut Cx<'a>, node| named(cx, node, "listeners by name", listener::listener);
    let listeners = if must_listen {
        m.required("listeners", read)
    } else {
        m.optional("listeners", read).or_else(|| (!m.has("listeners")).then(BTreeMap::new))
    };
    let tables = m.optional("route_tables", |cx, node| named(cx, node, "route tables by name", route::table));
    let clusters = m.optional("clusters", |cx, node| named(cx, node, "clusters by name", cluster::cluster));
    Some(Served {
        listeners: listeners?,
        tables: tables.unwrap_or_default(),
        clusters: clusters.unwrap_or_default(),
    })
}

impl Served {
    fn put_into(self, config: &mut Config) {
        let Self { listeners, tables, clusters } = self;
        config.mesh.route_tables = tables;
        for (name, (listener, inline)) in listeners {
            config.mesh.route_tables.extend(inline.map(|table| (name.clone(), table)));
            config.mesh.listeners.insert(name, listener);
        }
        let mut alike = Alike::default();
        for (name, (cluster, assignment)) in clusters {
            config.endpoints.extend(assignment.map(|assignment| (name.clone(), assignment.into())));
            config.mesh.clusters.insert(name, alike.share(cluster.into()));
        }
    }
}

/// What can only be said once everything is read.
fn look_over<'a>(cx: &mut Cx<'a>, root: Node<'a>, mesh: &Mesh) {
    global_rate_limit::refuse_unasked(cx, root, mesh);
    external_authorization::refuse_unasked(cx, root, mesh);
    jwt::refuse_unlooked(cx, root, mesh);
    lint::no_budget(cx, root, mesh);
    lint::no_high(cx, root, mesh);
    lint::no_hash(cx, root, mesh);
}

/// The names of a mapping; what is wrong with it is said when it is read.
fn index(_: &mut Cx<'_>, node: Node<'_>) -> Option<Vec<Name>> {
    Some(node.entries().filter_map(|entry| Name::new(entry.key)).collect())
}

/// The names of the subsets of each cluster.
fn index_subsets(clusters: Node<'_>) -> HashMap<Name, BTreeMap<Name, bool>> {
    let subsets = clusters.entries().filter_map(|entry| {
        let subsets = entry.value.get("subsets")?.value;
        let names = subsets.entries().filter_map(|entry| Some((Name::new(entry.key)?, false)));
        Some((Name::new(entry.key)?, names.collect()))
    });
    subsets.collect()
}

/// A listener's list of routes is a table under the listener's name.
fn index_inline_tables<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<()> {
    for entry in node.entries() {
        let Some(routes) = entry.value.get("routes") else { continue };
        let Some(name) = Name::new(entry.key) else { continue };
        if !matches!(routes.value.view(), View::List) {
            continue;
        }
        if cx.tables.insert(name, true).is_some() {
            let fault = Fault::new(format!("a route table of the name `{}` exists already", entry.key));
            let fault = fault
                .hint("rename it, or use it here: a list of routes is a table under the listener's name");
            cx.within_all(&[Step::Key(entry.key), Step::Key("routes")], |cx| {
                cx.fail_at::<()>(routes.place, fault)
            });
        }
    }
    Some(())
}

/// Looks at every route that could be read, where it is written.
pub(super) fn each_route<'a>(
    cx: &mut Cx<'a>,
    root: Node<'a>,
    mesh: &Mesh,
    mut look: impl FnMut(&mut Cx<'a>, Node<'a>, &Route),
) {
    for section in root.entries().filter(|entry| matches!(entry.key, "listeners" | "route_tables")) {
        for named in section.value.entries() {
            let Some(table) = mesh.route_tables.get(named.key) else { continue };
            let mut steps = vec![Step::Key(section.key), Step::Key(named.key)];
            let mut list = named.value;
            if let Some(routes) = list.get("routes") {
                steps.push(Step::Key(routes.key));
                list = routes.value;
            }
            for (index, (route, node)) in table.routes.iter().zip(list.items()).enumerate() {
                steps.push(Step::Item(index));
                cx.within_all(&steps, |cx| look(cx, node, route));
                steps.pop();
            }
        }
    }
}

/// Looks at every chain of HTTP that was read, at its place.
fn each_http_chain<'a>(
    cx: &mut Cx<'a>,
    root: Node<'a>,
    mesh: &Mesh,
    mut look: impl FnMut(&mut Cx<'a>, Node<'a>, &HttpFilter),
) {
    let Some(listeners) = root.get("listeners") else { return };
    for entry in listeners.value.entries() {
        let listener = Name::new(entry.key).and_then(|name| mesh.listeners.get(&name));
        let Some(listener) = listener else { continue };
        for ((below, node), chain) in chains::written(entry.value).zip(listener.chains.each()) {
            let Filter::Http(http) = &chain.filter else { continue };
            let steps = [vec![Step::Key("listeners"), Step::Key(entry.key)], below].concat();
            cx.within_all(&steps, |cx| look(cx, node, http));
        }
    }
}

/// Says of the first route of a chain that is so what is wrong with it there.
fn refuse_route<'a>(
    cx: &mut Cx<'a>,
    chain: Node<'a>,
    (mesh, http): (&Mesh, &HttpFilter),
    is_wrong: impl Fn(&Route) -> bool,
    fault: impl Fn(usize) -> Fault,
) {
    let Some((table, written)) = mesh.route_tables.get(&http.routes).zip(chain.get("routes")) else {
        return;
    };
    if let Some(place) = table.routes.iter().position(is_wrong) {
        let at = written.value.place();
        cx.within(Step::Key("routes"), |cx| cx.fail_at::<()>(at, fault(place)));
    }
}

/// A number with at most one digit after the point, in tenths, that fits.
fn tenths<'a>(cx: &mut Cx<'a>, node: Node<'a>, expected: &str, fits: impl Fn(u32) -> bool) -> Option<u32> {
    cx.parsed(node, expected, |text| {
        let hint = || format!("expected {expected}");
        let found = ratio::tenths(text).map_err(|fault| fault.hint(hint()))?;
        let out_of_range = || Fault::new(format!("{} is out of range", show(text))).hint(hint());
        fits(found).then_some(found).ok_or_else(out_of_range)
    })
}

/// A mapping by name.
fn named<'a, T>(
    cx: &mut Cx<'a>,
    node: Node<'a>,
    expected: &str,
    mut decode: impl FnMut(&mut Cx<'a>, &Name, Node<'a>) -> Option<T>,
) -> Option<BTreeMap<Name, T>> {
    let entries = cx.entries(node, expected, |cx, key, place, value| {
        let name = name(cx, key, place);
        // A bad name hides no error of what it names.
        let stand_in = || Name::new("_").expect("a name");
        let decoded = decode(cx, &name.clone().unwrap_or_else(stand_in), value)?;
        Some((name?, decoded))
    })?;
    Some(entries.into_iter().collect())
}

fn name(cx: &mut Cx<'_>, key: &str, place: Place) -> Option<Name> {
    match Name::new(key) {
        Some(name) => Some(name),
        None if key.is_empty() => cx.fail_at(place, Fault::new("a name is empty")),
        None => {
            let fault = Fault::new("a name holds white space or a control character");
            cx.fail_at(
                place,
                fault.hint("names stand in logs and labels: use letters, digits, `-`, `_` and `.`"),
            )
        }
    }
}

/// Two sockets cannot listen on one address, unless the system chooses the port.
fn refuse_taken_binds<'a>(cx: &mut Cx<'a>, root: Node<'a>, admin: &Admin, listeners: &Listeners) {
    let mut binds: Vec<(&Address, Place, Vec<Step<'a>>)> = Vec::new();
    if let Some(written) = root.get("admin").filter(|_| admin.written) {
        binds.push((&admin.address, written.value.place(), vec![Step::Key("admin")]));
    }
    let Some(map) = root.get("listeners") else { return };
    for (name, (listener, _)) in listeners {
        let Some(entry) = map.value.get(name.as_str()) else { continue };
        let Some(bind) = entry.value.get("bind") else { continue };
        let steps = vec![Step::Key("listeners"), Step::Key(entry.key), Step::Key("bind")];
        binds.push((&listener.bind, bind.value.place(), steps));
    }
    binds.retain(|(bind, ..)| !matches!(bind, Address::Ip(ip) if ip.port() == 0));
    binds.sort_by_key(|(bind, place, _)| (*bind, *place));
    for pair in binds.windows(2) {
        let ((taken, first, _), (bind, place, steps)) = (&pair[0], &pair[1]);
        if taken == bind {
            let fault = Fault::new(format!("`{bind}` is taken in line {} already", first.line));
            cx.within_all(steps, |cx| cx.fail_at::<()>(*place, fault));
        }
    }
}

const DURATION: &str = "a duration, as `250ms` or `1m30s`";

/// A duration that may be zero.
fn duration<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Duration> {
    cx.parsed(node, DURATION, scalar::duration)
}

/// A duration that may not be zero.
fn some_time<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Duration> {
    cx.parsed(node, DURATION, |text| not_zero(scalar::duration(text)?))
}

fn not_zero(time: Duration) -> Result<Duration, Fault> {
    match time {
        Duration::ZERO => Err(Fault::new("zero makes no sense here: nothing could be done in time")
            .hint("leave the key out for the default, or write a longer time")),
        time => Ok(time),
    }
}

/// Says that a bound is below what it bounds; either may be a default that nobody wrote.
fn crossed<'a, T>(
    cx: &mut Cx<'a>,
    node: Node<'a>,
    (max, most): (&str, Duration),
    (base, least): (&str, Duration),
) -> Option<T> {
    let (most, least) = (show_duration(most), show_duration(least));
    let fault = Fault::new(format!("`{max}` is {most}, and `{base}` is {least}"));
    cx.fail(node, fault.hint(format!("`{max}` may not be below `{base}`")))
}

fn percent<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Percent> {
    cx.parsed(node, "a percentage, as `10%`", ratio::percent)
}

/// A number from `least` to `most`.
fn whole<'a>(cx: &mut Cx<'a>, node: Node<'a>, least: u32, most: u32) -> Option<u32> {
    u32::try_from(cx.whole(node, least.into(), most.into())?).ok()
}

/// A number from 1 to `most`.
fn count<'a>(cx: &mut Cx<'a>, node: Node<'a>, most: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(whole(cx, node, 1, most)?)
}

fn address<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Address> {
    cx.parsed(node, "an address, as `127.0.0.1:8080`, `[::1]:8080` or `unix:/path`", scalar::address)
}
