//! Where requests are sent, and what is done about their failure.

use std::num::NonZeroU32;

use super::super::super::generated::envoy::config::core::v3::{self as core, RoutingPriority};
use super::super::super::generated::envoy::config::route::v3 as pb;
use super::super::super::generated::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use super::super::super::generated::envoy::r#type::matcher::v3 as matcher;
use super::super::super::generated::envoy::r#type::v3 as kind;
use super::super::super::generated::outrigger::extensions::v1 as ours;
use super::super::super::route::{
    MAX_BODY, PREVIOUS_HOSTS, STATUSES, conditions, default_backoff, exact_word, prefix_of, then,
    touch_alike, word,
};
use super::matches::regex_of;
use super::{Cx, edits, extension, hash, packed, time};
use crate::model::{
    Backoff, Destination, Forward, HeaderEdits, Hedge, HedgeAfter, Mirror, PathMatch, PathRewrite, Percent,
    Priority, Retry, RetryCondition, Rewrite, Split, Target,
};
use crate::yaml::canonical_path;

/// How often Envoy looks for a host that a request has not been sent to.
const HOST_SELECTIONS: i64 = 5;

pub(super) fn forward(
    cx: &mut Cx,
    forward: &Forward,
    matched: &PathMatch,
    (request, beside): (&mut HeaderEdits, &mut ours::Route),
) -> Option<pb::RouteAction> {
    let Forward {
        to,
        rewrite: Rewrite { path, host },
        timeout,
        retry,
        hedge,
        priority,
        mirror,
        fallback,
        hash,
    } = forward;
    let timeout = time(cx, "timeout", timeout.unwrap_or_default())?;
    let mut out = pb::RouteAction {
        cluster_specifier: Some(split(cx, to, request)?),
        timeout: Some(timeout),
        // What a caller of gRPC grants is honoured here in any case. Where Envoy is told so, it looks at no `timeout`.
        max_stream_duration: Some(pb::route_action::MaxStreamDuration {
            max_stream_duration: Some(timeout),
            grpc_timeout_header_max: Some(timeout),
        }),
        priority: match priority {
            Priority::Default => RoutingPriority::Default,
            Priority::High => RoutingPriority::High,
        }
        .into(),
        // So is an upgrade.
        upgrade_configs: vec![pb::route_action::UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            enabled: None,
        }],
        ..pb::RouteAction::default()
    };
    if to.targets.iter().any(|target| target.to.subset.is_some()) {
        beside.subsets = to.targets.iter().map(|target| subset(&target.to)).collect();
    }
    match path.as_ref().map(|path| rewritten(path, matched)) {
        None => {}
        Some(Rewritten::Prefix(prefix)) => out.prefix_rewrite = prefix,
        Some(Rewritten::Expression(expression)) => out.regex_rewrite = Some(expression),
    }
    if let Some(host) = host {
        let Ok(host) = host.to_str() else { return cx.fail("rewrite.host", "this is not text") };
        let literal = pb::route_action::HostRewriteSpecifier::HostRewriteLiteral(host.to_owned());
        (out.host_rewrite_specifier, out.append_x_forwarded_host) = (Some(literal), true);
    }
    again(cx, (retry.as_deref(), *hedge), (&mut out, beside))?;
    if let Some(mirror) = mirror {
        beside.mirror_subset = subset(&mirror.to);
        out.request_mirror_policies = vec![copy(mirror)];
    }
    out.hash_policy = hash.iter().map(|key| hash::key(cx, key)).collect::<Option<_>>()?;
    if let Some(fallback) = fallback {
        beside.fallback = Some(extension::fallback(cx, fallback)?);
    }
    Some(out)
}

/// Bytes that are kept of a body, where that is not what Envoy keeps.
pub(super) fn kept(forward: &Forward) -> Option<u64> {
    forward.retry.as_ref().map(|retry| retry.max_body).filter(|bytes| *bytes != MAX_BODY)
}

fn subset(to: &Destination) -> String {
    let Destination { cluster: _, subset } = to;
    subset.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// Changes of a share come before those of its route there, and here after them: where that is not the same, each share
/// says all.
fn split(
    cx: &mut Cx,
    split: &Split,
    request: &mut HeaderEdits,
) -> Option<pb::route_action::ClusterSpecifier> {
    let Split { targets } = split;
    if let [Target { to, weight: NonZeroU32::MIN, request_headers, response_headers }] = &**targets
        && request_headers.is_empty()
        && response_headers.is_empty()
    {
        return Some(pb::route_action::ClusterSpecifier::Cluster(to.cluster.to_string()));
    }
    let sum: u64 = targets.iter().map(|target| u64::from(target.weight.get())).sum();
    if sum > u64::from(u32::MAX) {
        return cx.fail("to", "the sum of the weights is above 4294967295");
    }
    let first = if targets.iter().any(|target| touch_alike(&target.request_headers, request)) {
        std::mem::take(request)
    } else {
        HeaderEdits::default()
    };
    let clusters = cx.each("to", targets.iter().collect(), |cx, target| {
        let Target { to, weight, request_headers, response_headers } = target;
        let (add, remove) = edits(cx, "request_headers", &then(&first, request_headers))?;
        let response = edits(cx, "response_headers", response_headers)?;
        Some(pb::weighted_cluster::ClusterWeight {
            name: to.cluster.to_string(),
            weight: Some(weight.get()),
            metadata_match: None,
            request_headers_to_add: add,
            request_headers_to_remove: remove,
            response_headers_to_add: response.0,
            response_headers_to_remove: response.1,
        })
    })?;
    Some(pb::route_action::ClusterSpecifier::WeightedClusters(pb::WeightedCluster { clusters }))
}

enum Rewritten {
    Prefix(String),
    Expression(matcher::RegexMatchAndSubstitute),
}

fn rewritten(path: &PathRewrite, matched: &PathMatch) -> Rewritten {
    let expression = |regex: String, substitution: String| {
        let pattern = Some(regex_of(regex));
        Rewritten::Expression(matcher::RegexMatchAndSubstitute { pattern, substitution })
    };
    match (path, matched) {
        // What matched is the whole.
        (PathRewrite::Whole(path), PathMatch::Exact(_)) => Rewritten::Prefix(path.to_string()),
        (PathRewrite::Whole(path), PathMatch::Any | PathMatch::Prefix(_) | PathMatch::Regex(_)) => {
            expression("^.*$".to_owned(), path.to_string())
        }
        // A prefix that ends anywhere, and what stands in its place.
        (PathRewrite::Found(replace), PathMatch::Regex(pattern))
            if replace.pattern() == pattern
                && prefix_of(pattern).is_some()
                && replace.text().is_some_and(|text| canonical_path(text).is_ok()) =>
        {
            Rewritten::Prefix(replace.with())
        }
        (
            PathRewrite::Found(replace),
            PathMatch::Regex(_) | PathMatch::Any | PathMatch::Prefix(_) | PathMatch::Exact(_),
        ) => expression(replace.pattern().as_str().to_owned(), replace.with()),
        // In place of nothing but a slash there is one at the end, too.
        (PathRewrite::Prefix(path), PathMatch::Prefix(prefix)) if prefix.is_empty() => {
            Rewritten::Prefix(format!("{path}/"))
        }
        (PathRewrite::Prefix(path), PathMatch::Prefix(prefix)) if path.is_empty() => {
            expression(format!("^{}/?", regex::escape(prefix)), "/".to_owned())
        }
        // Of another match nothing is a prefix that could be replaced.
        (
            PathRewrite::Prefix(path),
            PathMatch::Prefix(_) | PathMatch::Any | PathMatch::Exact(_) | PathMatch::Regex(_),
        ) => Rewritten::Prefix(path.to_string()),
    }
}

fn copy(mirror: &Mirror) -> pb::route_action::RequestMirrorPolicy {
    let Mirror { to: Destination { cluster, subset: _ }, percent } = mirror;
    let share = kind::FractionalPercent {
        numerator: percent.millionths(),
        denominator: kind::fractional_percent::DenominatorType::Million.into(),
    };
    pb::route_action::RequestMirrorPolicy {
        cluster: cluster.to_string(),
        runtime_fraction: (*percent != Percent::ALL).then(|| core::RuntimeFractionalPercent {
            default_value: Some(share),
            runtime_key: String::new(),
        }),
        disable_shadow_host_suffix_append: true,
    }
}

/// Further attempts, and those beside the first: there they are one policy.
fn again(
    cx: &mut Cx,
    (retry, hedge): (Option<&Retry>, Option<Hedge>),
    (out, beside): (&mut pb::RouteAction, &mut ours::Route),
) -> Option<()> {
    let mut policy = match retry {
        None => None,
        Some(retry) => Some(policy_of(cx, retry, beside)?),
    };
    match (hedge, retry, &mut policy) {
        (None, _, _) => {}
        // The time of an attempt is up, and it goes on.
        (Some(Hedge { after: HedgeAfter::Fixed(after) }), Some(retry), Some(policy))
            if retry.per_try_timeout.is_none() && retry.attempts > NonZeroU32::MIN =>
        {
            policy.per_try_timeout = Some(time(cx, "hedge.after", after)?);
            out.hedge_policy =
                Some(pb::HedgePolicy { initial_requests: None, hedge_on_per_try_timeout: true });
        }
        (Some(hedge), _, _) => beside.hedge = Some(extension::hedge(cx, hedge)?),
    }
    out.retry_policy = policy;
    Some(())
}

fn policy_of(cx: &mut Cx, retry: &Retry, beside: &mut ours::Route) -> Option<pb::RetryPolicy> {
    let Retry { attempts, conditions: wanted, per_try_timeout, backoff, non_idempotent, max_body: _ } = retry;
    let statuses: Vec<_> = wanted.iter().filter_map(|condition| status(*condition)).collect();
    let mut words: Vec<&str> = Vec::new();
    for word in wanted.iter().filter_map(|condition| word(*condition)) {
        if word != STATUSES || !words.contains(&STATUSES) {
            words.push(word);
        }
    }
    let retry_on = words.join(",");
    let is_said = conditions(&retry_on, &statuses).is_ok_and(|read| read == *wanted);
    let exactly = if is_said { Vec::new() } else { wanted.iter().map(|it| exact_word(*it)).collect() };
    let ours = ours::route::Retry { conditions: exactly, idempotent_only: !non_idempotent };
    beside.retry = (ours != ours::route::Retry::default()).then_some(ours);
    let per_try_timeout = match per_try_timeout {
        None => None,
        Some(limit) => Some(time(cx, "retry.per_try_timeout", *limit)?),
    };
    let Backoff { base, max } = *backoff;
    let waits = if *backoff == default_backoff() {
        None
    } else {
        Some(pb::retry_policy::RetryBackOff {
            base_interval: Some(time(cx, "retry.backoff.base", base)?),
            max_interval: Some(time(cx, "retry.backoff.max", max)?),
        })
    };
    let others = pb::retry_policy::RetryHostPredicate {
        name: PREVIOUS_HOSTS.to_owned(),
        config_type: Some(pb::retry_policy::retry_host_predicate::ConfigType::TypedConfig(packed(
            &PreviousHostsPredicate {},
        ))),
    };
    Some(pb::RetryPolicy {
        retry_on,
        num_retries: Some(attempts.get() - 1),
        per_try_timeout,
        retry_host_predicate: vec![others],
        host_selection_retry_max_attempts: HOST_SELECTIONS,
        retriable_status_codes: statuses.iter().map(|status| u32::from(status.as_u16())).collect(),
        retry_back_off: waits,
    })
}

fn status(condition: RetryCondition) -> Option<::http::StatusCode> {
    use RetryCondition as C;
    match condition {
        C::Status(status) => Some(status),
        C::ConnectFailure | C::Reset | C::RefusedStream | C::Grpc(_) => None,
        C::ServerError | C::GatewayError | C::Retriable4xx => None,
    }
}
