//! Policies that do nothing, or more than was meant.

use std::collections::HashSet;

use http::Method;

use super::super::cursor::Cx;
use super::super::decode::each_route;
use super::super::fault::Fault;
use super::super::place::Step;
use super::super::tree::Node;
use super::super::words::show_condition;
use crate::model::{
    Action, Assignment, Balance, Cluster, Fallback, Forward, HedgeAfter, Instead, Labels, Mesh, Name,
    OutlierDetection, Percent, Priority, Retry, RetryCondition, Route, SubsetFallback,
};

/// Conditions that another one holds already.
pub(in super::super) fn conditions<'a>(cx: &mut Cx<'a>, list: Node<'a>, conditions: &[RetryCondition]) {
    for (index, (condition, node)) in conditions.iter().zip(list.items()).enumerate() {
        if let Some(wider) = conditions.iter().find(|wider| holds(**wider, *condition)) {
            let (inner, wider) = (show_condition(*condition), show_condition(*wider));
            let fault = Fault::new(format!("`{wider}` holds `{inner}` already"));
            cx.within(Step::Item(index), |cx| cx.warn_at(node.place(), fault));
        }
    }
}

fn holds(wider: RetryCondition, condition: RetryCondition) -> bool {
    let any = |range: std::ops::RangeInclusive<u16>| match condition {
        RetryCondition::Status(status) => range.contains(&status.as_u16()),
        RetryCondition::ConnectFailure
        | RetryCondition::Reset
        | RetryCondition::RefusedStream
        | RetryCondition::ServerError
        | RetryCondition::GatewayError
        | RetryCondition::Retriable4xx
        | RetryCondition::Grpc(_) => false,
    };
    match wider {
        RetryCondition::ServerError => condition == RetryCondition::GatewayError || any(500..=599),
        RetryCondition::GatewayError => any(502..=504),
        RetryCondition::Retriable4xx => any(409..=409),
        RetryCondition::ConnectFailure
        | RetryCondition::Reset
        | RetryCondition::RefusedStream
        | RetryCondition::Status(_)
        | RetryCondition::Grpc(_) => false,
    }
}

/// A wait in a queue that has no places.
pub(in super::super) fn wait<'a>(cx: &mut Cx<'a>, concurrency: Node<'a>) {
    if concurrency.get("queue").is_none() && concurrency.get("wait").is_some() {
        let fault = Fault::new("no request waits: the queue has no places").hint("write `queue` too");
        warn(cx, concurrency, &["wait"], fault);
    }
}

/// What a route does in vain, or to everybody.
pub(in super::super) fn route<'a>(cx: &mut Cx<'a>, node: Node<'a>, route: &Route) {
    if route.fault.as_deref().is_some_and(|fault| fault.when.is_none()) {
        let fault = Fault::new("every client meets these failures");
        warn(cx, node, &["fault"], fault.hint("choose requests: `when: { header: x-chaos }`"));
    }
    let Action::Forward(forward) = &route.action else { return };
    let Forward {
        to: _,
        rewrite: _,
        timeout,
        retry: again,
        hedge,
        priority: _,
        mirror: _,
        fallback,
        hash: _,
    } = forward;
    if let Some(service) = route.global_rate_limit.as_ref().and_then(|limit| limit.service.as_ref())
        && timeout.is_some_and(|whole| service.timeout >= whole)
    {
        let fault = Fault::new("the route's `timeout` ends a request before this has an effect");
        warn(cx, node, &["global_rate_limit", "timeout"], fault.hint("write a time below `timeout`"));
    }
    if let Some(again) = again {
        retry(cx, node, again);
        if again.per_try_timeout.zip(*timeout).is_some_and(|(each, whole)| each >= whole) {
            let fault = Fault::new("no attempt takes so long: the route's `timeout` ends it before");
            warn(cx, node, &["retry", "per_try_timeout"], fault.hint("write a time below `timeout`"));
        }
    }
    let methods = &route.matches.methods;
    if fallback.as_deref().and_then(Fallback::stale).is_some()
        && !(methods.is_empty() || methods.contains(&Method::GET))
    {
        let fault = Fault::new("nothing is ever kept: only answers to GET are, and the route matches none");
        warn(cx, node, &["fallback", "stale"], fault.hint("remove it, or add GET to `match.methods`"));
    }
    if let Some(HedgeAfter::Fixed(after)) = hedge.as_ref().map(|hedge| hedge.after)
        && timeout.is_some_and(|whole| after >= whole)
    {
        let fault =
            Fault::new("no second attempt is ever started: the route's `timeout` ends the first before");
        warn(cx, node, &["hedge", "after"], fault.hint("write a time below `timeout`"));
    }
}

fn retry<'a>(cx: &mut Cx<'a>, node: Node<'a>, retry: &Retry) {
    if retry.attempts.get() == 1 {
        let fault = Fault::new("the first attempt is the only one: no request is ever sent again");
        warn(cx, node, &["retry", "attempts"], fault.hint("write 2 or more, or leave `retry` out"));
    }
    if retry.non_idempotent {
        let fault = Fault::new("a request that changes something may be carried out more than once");
        let fault =
            fault.hint("the service must know a request that it has seen, by a key in it for example");
        warn(cx, node, &["retry", "non_idempotent"], fault);
    }
}

/// What a cluster is told in vain.
pub(in super::super) fn cluster<'a>(cx: &mut Cx<'a>, node: Node<'a>, cluster: &Cluster) {
    let hashes = matches!(cluster.balance, Balance::RingHash(_) | Balance::Maglev(_));
    if hashes && !cluster.slow_start.is_zero() {
        let fault = Fault::new("a balancer by hash lets no share grow: an endpoint has its own at once");
        warn(cx, node, &["slow_start"], fault.hint("remove it, or balance in another way"));
    }
    if cluster.outlier_detection.as_ref().is_some_and(ejects_nothing) {
        let fault = Fault::new("everything that could leave an endpoint out is turned off");
        warn(cx, node, &["outlier_detection"], fault.hint("remove it, or turn something on"));
    }
    if cluster.panic_threshold > Percent::ZERO && !is_judged(cluster) {
        let fault = Fault::new("nothing finds an endpoint unhealthy, so there is never a panic");
        let fault = fault.hint("write `health_check` or `outlier_detection` too");
        warn(cx, node, &["panic_threshold"], fault);
    }
}

/// Whether anything finds an endpoint unhealthy.
fn is_judged(cluster: &Cluster) -> bool {
    cluster.outlier_detection.is_some() || cluster.health_check.is_some()
}

fn ejects_nothing(outliers: &OutlierDetection) -> bool {
    let OutlierDetection {
        consecutive_5xx,
        consecutive_gateway,
        consecutive_local,
        success_rate_deviations,
        failure_percent,
        latency_factor,
        min_requests: _,
        interval: _,
        base_ejection: _,
        max_ejection: _,
        max_ejected: _,
    } = outliers;
    let rows = [consecutive_5xx, consecutive_gateway, consecutive_local];
    let means = [success_rate_deviations, latency_factor];
    rows.into_iter().chain(means).all(|bound| *bound == 0) && *failure_percent == Percent::ZERO
}

/// A judgement of endpoints where there is only one to choose.
pub(super) fn only_one<'a>(cx: &mut Cx<'a>, node: Node<'a>, cluster: &Cluster) {
    let judgements = [
        ("health_check", cluster.health_check.is_some()),
        ("outlier_detection", cluster.outlier_detection.is_some()),
        // Without one of the others it does nothing anyhow, and that is said already.
        ("panic_threshold", cluster.panic_threshold > Percent::ZERO && is_judged(cluster)),
    ];
    for (key, written) in judgements {
        if written {
            let fault = Fault::new("this cluster has one endpoint: there is none to take its place");
            warn(cx, node, &[key], fault.hint("remove it, or add an endpoint"));
        }
    }
}

/// Levels of priority that nobody has, below one that somebody has.
pub(super) fn levels<'a>(cx: &mut Cx<'a>, list: Node<'a>, assignment: &Assignment) {
    let endpoints = || assignment.endpoints.iter().zip(list.items()).enumerate();
    let mut used: Vec<u8> = assignment.endpoints.iter().map(|endpoint| endpoint.priority).collect();
    used.sort_unstable();
    used.dedup();
    let Some((missing, next)) = (0_u8..).zip(used).find(|(level, used)| level != used) else { return };
    let first = endpoints().find(|(_, (endpoint, _))| endpoint.priority == next);
    if let Some((index, (_, node))) = first {
        let fault = Fault::new(format!("no endpoint has priority {missing}, and this one has {next}"));
        let fault = fault.hint("priorities count up from 0 without a gap");
        cx.within(Step::Item(index), |cx| warn(cx, node, &["priority"], fault));
    }
}

/// Zones that are weighed and that no endpoint stands in: the others share what was meant for them, if there are any.
pub(super) fn zones<'a>(cx: &mut Cx<'a>, node: Node<'a>, (assignment, cluster): (&Assignment, &Cluster)) {
    let Some(weights) = node.get("zone_weights").filter(|_| !assignment.endpoints.is_empty()) else { return };
    let stands_in = |zone: &str| assignment.endpoints.iter().any(|e| e.zone.as_deref() == Some(zone));
    if !cluster.zone_weights.iter().any(|(zone, weight)| *weight > 0 && stands_in(zone)) {
        let fault =
            Fault::new("all endpoints stand in zones of weight 0: every request is answered with 503");
        warn(cx, node, &["zone_weights"], fault.hint("give a zone that has endpoints a weight"));
        return;
    }
    for entry in weights.value.entries().filter(|entry| !stands_in(entry.key)) {
        let steps = [Step::Key("zone_weights"), Step::Key(entry.key)];
        let fault = Fault::new("no endpoint stands in this zone: the others share its load");
        cx.within_all(&steps, |cx| cx.warn_at(entry.place, fault));
    }
}

/// Subsets that no endpoint is in.
pub(super) fn subsets<'a>(cx: &mut Cx<'a>, node: Node<'a>, (assignment, cluster): (&Assignment, &Cluster)) {
    let Some(written) = node.get("subsets").filter(|_| !assignment.endpoints.is_empty()) else { return };
    let is_empty = |wanted: &Labels| !assignment.endpoints.iter().any(|e| e.labels.has_all(wanted));
    for entry in written.value.entries() {
        if cluster.subsets.get(entry.key).is_some_and(is_empty) {
            let what = match cluster.subset_fallback {
                SubsetFallback::None => "every request to it is answered with 503",
                SubsetFallback::Any => "the whole cluster takes its place",
            };
            let steps = [Step::Key("subsets"), Step::Key(entry.key)];
            let fault = Fault::new(format!("no endpoint has these labels: {what}"));
            cx.within_all(&steps, |cx| cx.warn_at(entry.place, fault));
        }
    }
}

/// Further attempts where no cluster of the route grants any.
pub(in super::super) fn no_budget<'a>(cx: &mut Cx<'a>, root: Node<'a>, mesh: &Mesh) {
    each_route(cx, root, mesh, |cx, node, route| never_again(cx, node, route, mesh));
}

/// Limits of a class that no request of any route has.
pub(in super::super) fn no_high<'a>(cx: &mut Cx<'a>, root: Node<'a>, mesh: &Mesh) {
    let routes = mesh.route_tables.values().flat_map(|table| table.routes.iter());
    let forwards = routes.filter_map(|route| match &route.action {
        Action::Forward(forward) => Some(forward),
        Action::Redirect(_) | Action::Respond(_) => None,
    });
    let high: Vec<_> = forwards.filter(|forward| forward.priority == Priority::High).collect();
    let targets = high.iter().flat_map(|forward| forward.to.targets.iter().map(|target| &target.to));
    let fallbacks = high.iter().filter_map(|forward| match forward.fallback.as_deref()?.instead()? {
        Instead::To(to) => Some(to),
        Instead::Respond(_) => None,
    });
    let used: HashSet<_> = targets.chain(fallbacks).map(|to| to.cluster.as_str()).collect();
    let Some(clusters) = root.get("clusters") else { return };
    for cluster in clusters.value.entries().filter(|cluster| !used.contains(cluster.key)) {
        let keys = ["circuit_breaker", "high"];
        if keys.iter().try_fold(cluster.value, |node, key| Some(node.get(key)?.value)).is_some() {
            let fault = Fault::new("no route to this cluster has `priority: high`");
            let fault = fault.hint("write it in a route, or remove this");
            let steps = [Step::Key(clusters.key), Step::Key(cluster.key)];
            cx.within_all(&steps, |cx| warn(cx, cluster.value, &keys, fault));
        }
    }
}

/// What is hashed, where no cluster of the route takes it; and clusters that nobody tells what is hashed.
pub(in super::super) fn no_hash<'a>(cx: &mut Cx<'a>, root: Node<'a>, mesh: &Mesh) {
    let mut told = HashSet::new();
    each_route(cx, root, mesh, |cx, node, route| {
        let Action::Forward(forward) = &route.action else { return };
        if forward.hash.is_empty() {
            return;
        }
        // What is hashed for them is hashed for the one in their place, too.
        let instead = match forward.fallback.as_deref().and_then(Fallback::instead) {
            Some(Instead::To(to)) => Some(&to.cluster),
            Some(Instead::Respond(_)) | None => None,
        };
        let clusters = || forward.to.targets.iter().map(|target| &target.to.cluster).chain(instead);
        told.extend(clusters().cloned());
        // Of one that is not here nothing is known.
        if clusters().all(|name| mesh.clusters.get(name).is_some_and(|cluster| !asks_routes(cluster))) {
            let fault = Fault::new(
                "no cluster of the route takes this: they balance otherwise, or say it themselves",
            );
            let fault = fault.hint("write `balance: maglev` at the cluster, or remove this");
            warn(cx, node, &["hash"], fault);
        }
    });
    let Some(clusters) = root.get("clusters") else { return };
    for entry in clusters.value.entries() {
        let Some((name, cluster)) = mesh.clusters.get_key_value(entry.key) else { continue };
        if asks_routes(cluster) && !told.contains(name) {
            let fault = Fault::new(
                "neither this cluster nor a route to it says what is hashed: each request goes anywhere",
            );
            let fault =
                fault.hint("write `{ maglev: { hash: [{ header: x-user }] } }`, or `hash` at its routes");
            let steps = [Step::Key(clusters.key), Step::Key(entry.key)];
            cx.within_all(&steps, |cx| warn(cx, entry.value, &["balance"], fault));
        }
    }
}

fn asks_routes(cluster: &Cluster) -> bool {
    match &cluster.balance {
        Balance::RingHash(keys) | Balance::Maglev(keys) => keys.is_empty(),
        Balance::PeakEwma | Balance::LeastRequest | Balance::RoundRobin | Balance::Random => false,
    }
}

fn never_again<'a>(cx: &mut Cx<'a>, node: Node<'a>, route: &Route, mesh: &Mesh) {
    let Action::Forward(forward) = &route.action else { return };
    let none = |name: &Name| {
        mesh.clusters.get(name).is_some_and(|cluster| grants_nothing(cluster, forward.priority))
    };
    if !forward.to.targets.iter().all(|target| none(&target.to.cluster)) {
        return;
    }
    for (key, written) in [("retry", forward.retry.is_some()), ("hedge", forward.hedge.is_some())] {
        if written {
            let fault = Fault::new("no further attempt is ever made: the cluster grants none");
            let fault = fault.hint("see its `retry_budget`, and `max_retries` of its `circuit_breaker`");
            warn(cx, node, &[key], fault);
        }
    }
}

fn grants_nothing(cluster: &Cluster, priority: Priority) -> bool {
    let budget = cluster.retry_budget;
    (budget.percent == Percent::ZERO && budget.min == 0)
        || cluster.circuit_breaker.of(priority).max_retries == 0
}

/// Warns of a key, or of the last one above it that was written.
fn warn<'a>(cx: &mut Cx<'a>, node: Node<'a>, keys: &[&str], fault: Fault) {
    let (mut at, mut place, mut steps) = (node, node.place(), Vec::with_capacity(keys.len()));
    for key in keys {
        let Some(entry) = at.get(key) else { break };
        steps.push(Step::Key(entry.key));
        (at, place) = (entry.value, entry.place);
    }
    cx.within_all(&steps, |cx| cx.warn_at(place, fault));
}
