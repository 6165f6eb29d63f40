//! What is allowed but can hardly be meant. Warnings stop nothing.

mod resilience;

pub(super) use self::resilience::{cluster, conditions, no_budget, no_hash, no_high, route, wait};
use super::cursor::Cx;
use super::fault::{Fault, show};
use super::place::Step;
use super::tree::Node;
use crate::model::{
    Assignment, Authorization, Cluster, Effect, HostPattern, Match, PathMatch, Percent, Process, Route, Rule,
    When,
};

/// Clusters that nothing leads to, and route tables that no listener uses.
pub(super) fn unused<'a>(cx: &mut Cx<'a>, root: Node<'a>) {
    for entry in root.entries() {
        let (used, problem) = match entry.key {
            "clusters" => (&cx.clusters, "no route and no listener leads to this cluster"),
            "route_tables" => (&cx.tables, "no listener uses this route table"),
            _ => continue,
        };
        let unused = entry.value.entries().filter(|named| used.get(named.key) == Some(&false));
        for named in unused.collect::<Vec<_>>() {
            let steps = [Step::Key(entry.key), Step::Key(named.key)];
            cx.within_all(&steps, |cx| cx.warn_at(named.place, Fault::new(problem)));
        }
        if entry.key == "clusters" {
            unused_subsets(cx, entry.value);
        }
    }
}

/// Subsets that nothing leads to.
fn unused_subsets<'a>(cx: &mut Cx<'a>, clusters: Node<'a>) {
    for cluster in clusters.entries() {
        let (Some(used), Some(subsets)) = (cx.subsets.get(cluster.key), cluster.value.get("subsets")) else {
            continue;
        };
        let unused = subsets.value.entries().filter(|named| used.get(named.key) == Some(&false));
        for named in unused.collect::<Vec<_>>() {
            let steps =
                [Step::Key("clusters"), Step::Key(cluster.key), Step::Key("subsets"), Step::Key(named.key)];
            let fault = Fault::new("no route and no listener leads to this subset");
            cx.within_all(&steps, |cx| cx.warn_at(named.place, fault));
        }
    }
}

/// A process that serves nothing, sheds too late, or ends before it has drained.
pub(super) fn process<'a>(cx: &mut Cx<'a>, root: Node<'a>, process: &Process, listeners: usize) {
    for entry in root.entries() {
        let fault = match entry.key {
            "listeners" if listeners == 0 => Fault::new("nothing listens"),
            "shutdown" if process.shutdown.deadline <= process.shutdown.lame_duck => {
                Fault::new("the deadline is over before the lame-duck time is: nothing is drained")
                    .hint("both count from the signal: write a later `deadline`")
            }
            "overload" if process.overload.memory == Some(Percent::ALL) => {
                Fault::new("at the limit of memory the kernel ends the process before it sheds anything")
                    .hint("write less than `memory: 100%`, or `none`")
            }
            _ => continue,
        };
        cx.within(Step::Key(entry.key), |cx| cx.warn_at(entry.place, fault));
    }
}

/// Routes behind one that takes everything they could take.
pub(super) fn unreachable<'a>(cx: &mut Cx<'a>, table: Node<'a>, routes: &[Route]) {
    let Some(first) = routes.iter().position(|route| takes_all(&route.matches)) else { return };
    let behind = routes.iter().zip(table.items()).enumerate().skip(first + 1);
    for (index, (route, node)) in behind {
        if route.matches.hosts.is_empty() {
            let fault =
                Fault::new(format!("this route is never reached: routes[{first}] takes every request first"));
            let fault = fault.hint("move it further up, or give it a host");
            cx.within(Step::Item(index), |cx| cx.warn_at(node.place(), fault));
        }
    }
}

fn takes_all(matched: &Match) -> bool {
    let Match { hosts, path, methods, headers, query } = matched;
    let any_path = match path {
        PathMatch::Any => true,
        PathMatch::Prefix(prefix) => prefix.is_empty(),
        PathMatch::Exact(_) | PathMatch::Regex(_) => false,
    };
    let hosts: &[HostPattern] = hosts;
    any_path && hosts.is_empty() && methods.is_empty() && headers.is_empty() && query.is_empty()
}

/// A cluster without endpoints, or with one that is chosen whatever is known of it, or with gaps among them.
pub(super) fn endpoints<'a>(cx: &mut Cx<'a>, node: Node<'a>, assignment: &Assignment, cluster: &Cluster) {
    let Some(entry) = node.get("endpoints") else { return };
    match assignment.endpoints.len() {
        0 => {
            let fault = Fault::new("this cluster has no endpoint: every request to it is answered with 503");
            cx.within(Step::Key("endpoints"), |cx| cx.warn_at(entry.place, fault));
        }
        1 => resilience::only_one(cx, node, cluster),
        2.. => {}
    }
    cx.within(Step::Key("endpoints"), |cx| resilience::levels(cx, entry.value, assignment));
    resilience::zones(cx, node, (assignment, cluster));
    resilience::subsets(cx, node, (assignment, cluster));
}

/// A `*` at the end of a path, where it is an ordinary character.
pub(super) fn star<'a>(cx: &mut Cx<'a>, node: Node<'a>, path: &str) {
    if let Some(before) = path.strip_suffix("/*") {
        let fault = Fault::new(format!("the `*` in {} is an ordinary character", show(path)));
        let above = if before.is_empty() { "/" } else { before };
        cx.warn_at(node.place(), fault.hint(format!("everything below is `prefix: {above}`")));
    }
}

/// Rules that let nobody in, and such that change nothing.
pub(super) fn authorization<'a>(cx: &mut Cx<'a>, node: Node<'a>, authorization: &Authorization) {
    let rules = &authorization.rules;
    let allows = |rule: &Rule| rule.decides() && rule.effect == Effect::Allow;
    if rules.iter().any(Rule::decides) && !rules.iter().any(allows) {
        let fault = Fault::new("no rule allows anybody: everybody is refused");
        cx.warn_at(node.place(), fault.hint("add `{ allow: {} }` to let everybody else in"));
    }
    for (index, (rule, item)) in rules.iter().zip(node.items()).enumerate() {
        if rule.effect == Effect::Deny && rule.when == When::default() && !rule.dry_run {
            let fault = Fault::new("this rule refuses everybody, whatever the others say");
            cx.within(Step::Item(index), |cx| cx.warn_at(item.place(), fault));
        }
    }
}
