//! Where requests are sent, and what is done about their failure.

use std::num::NonZeroU32;
use std::time::Duration;

use ::http::HeaderValue;
use ::http::uri::{Authority, PathAndQuery};

use super::super::cx::Cx;
use super::super::expression;
use super::super::generated::envoy::config::core::v3::{self as core, RoutingPriority};
use super::super::generated::envoy::config::route::v3 as pb;
use super::super::generated::envoy::r#type::matcher::v3 as matcher;
use super::super::generated::outrigger::extensions::v1 as ours;
use super::super::hash;
use super::edits::{self, Both};
use super::matches::prefix_of;
use super::{extension, name, percent, retry};
use crate::model::{
    Destination, Forward, Hedge, Match, Mirror, Name, PathMatch, PathRewrite, Pattern, Priority, Replace,
    Retry, Rewrite, Split, Target, drops,
};
use crate::yaml::canonical_path;

/// What Envoy grants where nothing is written.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What holds for routes that do not say it themselves.
#[derive(Clone, Default)]
pub(super) struct Defaults {
    pub(super) retry: Option<Retry>,
    pub(super) hedge: Option<pb::HedgePolicy>,
    pub(super) mirror: Option<Mirror>,
    pub(super) max_body: Option<u64>,
}

/// What is said beside the action, of a route that sends requests on.
pub(super) struct Beside {
    pub(super) subsets: Vec<String>,
    pub(super) mirror_subset: String,
    pub(super) hedge: Option<ours::route::Hedge>,
    pub(super) retry: Option<ours::route::Retry>,
    pub(super) fallback: Option<ours::route::Fallback>,
}

/// What becomes of requests, and the changes that each share makes.
pub(super) fn forward(
    cx: &mut Cx,
    to: pb::RouteAction,
    (matched, defaults): (&Match, &Defaults),
    beside: Beside,
) -> Option<(Forward, Vec<Both>)> {
    let pb::RouteAction {
        cluster_specifier,
        metadata_match,
        timeout,
        prefix_rewrite,
        regex_rewrite,
        host_rewrite_specifier,
        // It is, in any case.
        append_x_forwarded_host: _,
        retry_policy,
        request_mirror_policies,
        priority,
        upgrade_configs,
        hedge_policy,
        max_stream_duration,
        max_grpc_timeout,
        hash_policy,
        // They were looked at before.
        rate_limits: _,
        include_vh_rate_limits: _,
    } = to;
    let Beside { subsets, mirror_subset, hedge: ours_of_hedge, retry: ours_of_retry, fallback } = beside;
    let split = cx.required("cluster_specifier", cluster_specifier);
    let split = split.and_then(|to| split_of(cx, to, (metadata_match, subsets)));
    let timeout = timeout_of(cx, timeout, (max_stream_duration, max_grpc_timeout));
    let path = rewritten(cx, matched, prefix_rewrite, regex_rewrite);
    let host = host_rewrite_specifier.map_or(Some(None), |host| host_of(cx, host));
    let priority = match RoutingPriority::try_from(priority).unwrap_or_default() {
        RoutingPriority::Default => Priority::Default,
        RoutingPriority::High => Priority::High,
    };
    let mirror = match mirror(cx, request_mirror_policies, &mirror_subset) {
        Some(None) if !mirror_subset.is_empty() => {
            cx.fail("request_mirror_policies", "the extension names a part of a cluster, and it is missing")
        }
        Some(None) => Some(defaults.mirror.clone()),
        read => read,
    };
    upgrades(cx, upgrade_configs);
    let hash = cx.each("hash_policy", hash_policy, hash::key);
    let again = again(cx, retry_policy, defaults, ours_of_retry);
    let retried = again.and_then(|mut retry| {
        let hedge = hedge(cx, hedge_policy, (defaults, retry.as_mut()), ours_of_hedge)?;
        Some((retry, hedge))
    });
    let fallback = fallback.map(|written| cx.within("fallback", |cx| extension::fallback(cx, written)));
    let (split, shares) = split?;
    let (retry, hedge) = retried?;
    let forward = Forward {
        to: split,
        rewrite: Rewrite { path: path?, host: host? },
        timeout: timeout?,
        retry: retry.map(Box::new),
        hedge,
        priority,
        mirror: mirror?.map(Box::new),
        fallback: fallback.map_or(Some(None), |read| read.map(Some))?.map(Box::new),
        hash: hash?.into(),
    };
    Some((forward, shares))
}

type Subset = (Option<core::Metadata>, Vec<String>);

fn split_of(
    cx: &mut Cx,
    to: pb::route_action::ClusterSpecifier,
    (labels, subsets): Subset,
) -> Option<(Split, Vec<Both>)> {
    use pb::route_action::ClusterSpecifier as C;
    match to {
        C::Cluster(cluster) => {
            let cluster = name(cx, "cluster", &cluster)?;
            let subset = subset_of(cx, labels.as_ref(), (&subsets, 0))?;
            if subsets.len() > 1 {
                return cx.fail("", "the extension names parts of more clusters than there are");
            }
            Some((Split::one(Destination { cluster, subset }), vec![Both::default()]))
        }
        C::WeightedClusters(pb::WeightedCluster { clusters }) => {
            if !subsets.is_empty() && subsets.len() != clusters.len() {
                return cx
                    .fail("weighted_clusters", "the extension names parts of another number of clusters");
            }
            cx.within("weighted_clusters", |cx| shares(cx, clusters, (labels, subsets)))
        }
    }
}

fn shares(
    cx: &mut Cx,
    clusters: Vec<pb::weighted_cluster::ClusterWeight>,
    (labels, subsets): Subset,
) -> Option<(Split, Vec<Both>)> {
    let mut place = 0..;
    let shares = cx.each("clusters", clusters, |cx, share| {
        let place = place.next().expect("it has no end");
        let pb::weighted_cluster::ClusterWeight {
            name: cluster,
            weight,
            metadata_match,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
        } = share;
        let cluster = name(cx, "name", &cluster);
        let subset = subset_of(cx, metadata_match.as_ref().or(labels.as_ref()), (&subsets, place));
        let request = (request_headers_to_add, request_headers_to_remove);
        let response = (response_headers_to_add, response_headers_to_remove);
        let both = edits::both(cx, request, response)?;
        let to = Destination { cluster: cluster?, subset: subset? };
        // Without a weight it has none.
        Some(NonZeroU32::new(weight.unwrap_or_default()).map(|weight| (Target::new(to, weight), both)))
    })?;
    let shares: Vec<_> = shares.into_iter().flatten().collect();
    if shares.is_empty() {
        return cx.fail("clusters", "no cluster has a weight");
    }
    let sum: u64 = shares.iter().map(|(target, _)| u64::from(target.weight.get())).sum();
    if sum > u64::from(u32::MAX) {
        return cx.fail("clusters", "the sum of the weights is above 4294967295");
    }
    let (targets, edits) = shares.into_iter().unzip();
    Some((Split { targets }, edits))
}

/// The part of a cluster that takes requests, by its name: which endpoints have which labels is the cluster's to know.
fn subset_of(
    cx: &mut Cx,
    labels: Option<&core::Metadata>,
    (subsets, place): (&[String], usize),
) -> Option<Option<Name>> {
    let subset = subsets.get(place).map_or("", String::as_str);
    if subset.is_empty() && labels.is_some() {
        return cx.fail("metadata_match", "only where the extension of ours names a subset of the cluster");
    }
    extension::part(cx, "metadata_match", subset)
}

fn timeout_of(
    cx: &mut Cx,
    timeout: Option<prost_types::Duration>,
    (stream, grpc): (Option<pb::route_action::MaxStreamDuration>, Option<prost_types::Duration>),
) -> Option<Option<Duration>> {
    let response = match timeout {
        None => Some(Some(TIMEOUT)),
        written => cx.time("timeout", written),
    };
    let pb::route_action::MaxStreamDuration { max_stream_duration, grpc_timeout_header_max } =
        stream.unwrap_or_default();
    let whole = cx.time("max_stream_duration.max_stream_duration", max_stream_duration);
    let asked = match grpc_timeout_header_max {
        None => Some(None),
        written => cx.time("max_stream_duration.grpc_timeout_header_max", written),
    };
    let grpc = match grpc {
        None => None,
        written => Some(cx.time("max_grpc_timeout", written)?),
    };
    let (response, whole) = (response?, whole?);
    let timeout = match (response, whole) {
        (Some(response), Some(whole)) => Some(response.min(whole)),
        (response, whole) => response.or(whole),
    };
    // What a caller of gRPC grants is honoured, and never makes the time longer.
    if asked?.is_some_and(|most| timeout.is_none_or(|timeout| most < timeout)) {
        let problem = "calls of gRPC have as long as the others: this is less";
        return cx.fail("max_stream_duration.grpc_timeout_header_max", problem);
    }
    if grpc.is_some_and(|most| most != timeout) {
        return cx.fail("max_grpc_timeout", "calls of gRPC have as long as the others: write the `timeout`");
    }
    Some(timeout)
}

fn rewritten(
    cx: &mut Cx,
    matched: &Match,
    prefix: String,
    regex: Option<matcher::RegexMatchAndSubstitute>,
) -> Option<Option<PathRewrite>> {
    match regex {
        None if prefix.is_empty() => Some(None),
        Some(_) if !prefix.is_empty() => cx.fail("regex_rewrite", "`prefix_rewrite` is there, too"),
        Some(regex) => cx.within("regex_rewrite", |cx| by_expression(cx, matched, regex)).map(Some),
        None => by_prefix(cx, matched, &prefix).map(Some),
    }
}

fn by_prefix(cx: &mut Cx, matched: &Match, prefix: &str) -> Option<PathRewrite> {
    let path = sendable(cx, "prefix_rewrite", prefix)?;
    match &matched.path {
        PathMatch::Prefix(_) => Some(PathRewrite::Prefix(path.trim_end_matches('/').into())),
        // Of `/` what follows is joined at the slash, or it is not joined at a slash at all.
        PathMatch::Any => match path.strip_suffix('/') {
            Some(path) => Some(PathRewrite::Prefix(path.into())),
            None => cx.fail("prefix_rewrite", "of a prefix that ends with `/`, it does so as well"),
        },
        // What matched is the whole.
        PathMatch::Exact(_) => Some(PathRewrite::Whole(path.into())),
        PathMatch::Regex(pattern) => match prefix_of(pattern) {
            Some(_) => found(cx, "prefix_rewrite", pattern.clone(), path),
            // So is what an expression fits.
            None => Some(PathRewrite::Whole(path.into())),
        },
    }
}

fn by_expression(
    cx: &mut Cx,
    matched: &Match,
    regex: matcher::RegexMatchAndSubstitute,
) -> Option<PathRewrite> {
    let matcher::RegexMatchAndSubstitute { pattern, substitution } = regex;
    let matcher::RegexMatcher { regex } = cx.required("pattern", pattern)?;
    let pattern = match expression::compiled(&regex) {
        Ok(pattern) => pattern,
        Err(why) => return cx.fail("pattern.regex", why),
    };
    if pattern.is_whole() && !substitution.contains('\\') {
        let path = sendable(cx, "substitution", &substitution)?;
        return Some(PathRewrite::Whole(path.into()));
    }
    let prefix = match &matched.path {
        PathMatch::Prefix(prefix) if !prefix.is_empty() => Some(&**prefix),
        PathMatch::Prefix(_) | PathMatch::Any | PathMatch::Exact(_) | PathMatch::Regex(_) => None,
    };
    if prefix.is_some_and(|prefix| drops(prefix, &regex, &substitution)) {
        return Some(PathRewrite::Prefix(Box::default()));
    }
    found(cx, "substitution", pattern, &substitution)
}

fn found(cx: &mut Cx, field: &str, pattern: Pattern, with: &str) -> Option<PathRewrite> {
    match Replace::new(pattern, with) {
        Ok(replace) => Some(PathRewrite::Found(replace)),
        Err(error) => cx.fail(field, error.to_string()),
    }
}

/// A path that a request can be sent with.
fn sendable<'p>(cx: &mut Cx, field: &str, path: &'p str) -> Option<&'p str> {
    match canonical_path(path) {
        Ok(()) if path.parse::<PathAndQuery>().is_ok() => Some(path),
        Ok(()) => cx.fail(field, "this holds a character that a request cannot"),
        Err(why) => cx.fail(field, why),
    }
}

fn host_of(cx: &mut Cx, host: pb::route_action::HostRewriteSpecifier) -> Option<Option<HeaderValue>> {
    let pb::route_action::HostRewriteSpecifier::HostRewriteLiteral(host) = host;
    let authority = host.parse::<Authority>().ok();
    let fits = authority.is_some_and(|it| !it.as_str().contains('@') && !it.host().is_empty());
    match HeaderValue::from_str(&host).ok().filter(|_| fits) {
        Some(host) => Some(Some(host)),
        None => cx.fail("host_rewrite_literal", "this is not a host"),
    }
}

/// Who gets copies: one.
pub(super) fn mirror(
    cx: &mut Cx,
    policies: Vec<pb::route_action::RequestMirrorPolicy>,
    subset: &str,
) -> Option<Option<Mirror>> {
    let mut policies = cx.each("request_mirror_policies", policies, |cx, policy| {
        // Its host is as it was; a header of ours tells that it is a copy.
        let pb::route_action::RequestMirrorPolicy {
            cluster,
            runtime_fraction,
            disable_shadow_host_suffix_append: _,
        } = policy;
        let cluster = name(cx, "cluster", &cluster);
        let percent = percent(cx, "runtime_fraction", runtime_fraction)?;
        let subset = extension::part(cx, "cluster", subset)?;
        Some(Mirror { to: Destination { cluster: cluster?, subset }, percent })
    })?;
    let first = policies.pop();
    if !policies.is_empty() {
        return cx.fail("request_mirror_policies", "there is one copy at the most");
    }
    Some(first)
}

fn upgrades(cx: &mut Cx, configs: Vec<pb::route_action::UpgradeConfig>) {
    let _ = cx.each("upgrade_configs", configs, |cx, config| {
        let pb::route_action::UpgradeConfig { upgrade_type, enabled } = config;
        if upgrade_type.eq_ignore_ascii_case("connect") {
            return cx.fail("upgrade_type", "CONNECT is not supported");
        }
        if enabled == Some(false) {
            return cx.fail("enabled", "upgrades are always passed on");
        }
        Some(())
    });
}

/// The policy of a route, with what we say of it; one without conditions is none.
fn again(
    cx: &mut Cx,
    policy: Option<pb::RetryPolicy>,
    defaults: &Defaults,
    beside: Option<ours::route::Retry>,
) -> Option<Option<Retry>> {
    let mut retry = match policy {
        None => defaults.retry.clone(),
        Some(policy) => Some(cx.within("retry_policy", |cx| retry::retry(cx, policy, None))?),
    };
    match (&mut retry, beside) {
        (_, None) => {}
        (None, Some(_)) => return cx.fail("retry_policy", "the extension adds to it, and it is missing"),
        (Some(retry), Some(beside)) => {
            cx.within("retry_policy", |cx| extension::retry(cx, beside, retry))?;
        }
    }
    if let (Some(retry), Some(max_body)) = (&mut retry, defaults.max_body) {
        retry.max_body = max_body;
    }
    Some(retry.filter(|retry| !retry.conditions.is_empty()))
}

fn hedge(
    cx: &mut Cx,
    policy: Option<pb::HedgePolicy>,
    (defaults, retry): (&Defaults, Option<&mut Retry>),
    beside: Option<ours::route::Hedge>,
) -> Option<Option<Hedge>> {
    let hedge = match policy.or(defaults.hedge) {
        None => None,
        Some(policy) => cx.within("hedge_policy", |cx| retry::hedge(cx, policy, retry))?,
    };
    match beside {
        None => Some(hedge),
        Some(_) if hedge.is_some() => cx.fail("hedge_policy", "the extension says another"),
        Some(beside) => cx.within("hedge", |cx| extension::hedge(cx, beside)).map(Some),
    }
}
