//! What a cluster may be burdened with at once, and what of its requests may be further attempts.
//!
//! Envoy counts further attempts at once, by `max_retries` or, where there is one, by a `retry_budget` in its place. Ours is a
//! budget over time, and `max_retries` beside it: so the share is the share, and the least number is one a second.

use std::num::NonZeroU32;

use super::super::cx::Cx;
use super::super::generated::envoy::config::cluster::v3 as pb;
use super::super::generated::envoy::config::core::v3::RoutingPriority;
use super::percent;
use crate::model::{BreakerLimits, CircuitBreaker, Percent, RetryBudget};

/// Where Envoy has no budget: more than anybody asks for.
pub(in super::super) const NO_BUDGET: RetryBudget = RetryBudget { percent: Percent::ALL, min: 1_000_000 };

/// So many, where nothing is said.
const MAX_RETRIES: u32 = 3;

/// The first that is said of a priority, with its place.
type Said = Option<(usize, BreakerLimits, RetryBudget)>;

/// With what of ours is said beside them: whether `max_retries` holds beside a budget, and whether HIGH has limits of its
/// own that are those of DEFAULT.
pub(super) fn circuit_breakers(
    cx: &mut Cx,
    breakers: Option<pb::CircuitBreakers>,
    (keep_max_retries, high_stated): (bool, bool),
) -> Option<(CircuitBreaker, RetryBudget)> {
    let pb::CircuitBreakers { thresholds } = breakers.unwrap_or_default();
    let (mut default, mut high): (Said, Said) = (None, None);
    let mut index = 0;
    cx.within("circuit_breakers", |cx| {
        cx.each("thresholds", thresholds, |cx, said| {
            let priority = RoutingPriority::try_from(said.priority).unwrap_or_default();
            let (limits, budget) = thresholds_of(cx, said, keep_max_retries)?;
            let of = match priority {
                RoutingPriority::Default => &mut default,
                RoutingPriority::High => &mut high,
            };
            of.get_or_insert((index, limits, budget));
            index += 1;
            Some(())
        })
    })?;
    let none_said = BreakerLimits { max_retries: MAX_RETRIES, ..BreakerLimits::default() };
    let (_, limits, budget) = default.unwrap_or((0, none_said, NO_BUDGET));
    let high = match high {
        Some((index, _, other)) if other != budget => {
            let field = format!("circuit_breakers.thresholds[{index}].retry_budget");
            return cx.fail(&field, "there is one budget for all priorities: write the same for each");
        }
        Some((_, high, _)) => high,
        None => none_said,
    };
    let high = (high_stated || high != limits).then_some(high);
    Some((CircuitBreaker { default: limits, high }, budget))
}

fn thresholds_of(
    cx: &mut Cx,
    thresholds: pb::circuit_breakers::Thresholds,
    keep_max_retries: bool,
) -> Option<(BreakerLimits, RetryBudget)> {
    let pb::circuit_breakers::Thresholds {
        priority: _,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
    } = thresholds;
    let some = |cx: &mut Cx, field, number: Option<u32>, default| match number {
        None => Some(default),
        Some(number) => NonZeroU32::new(number).or_else(|| cx.fail(field, "nothing could go on with 0")),
    };
    let default = BreakerLimits::default();
    let budgeted = retry_budget.is_some();
    let budget = match retry_budget {
        None => Some(NO_BUDGET),
        Some(said) => cx.within("retry_budget", |cx| budget(cx, said)),
    };
    let limits = BreakerLimits {
        max_connections: some(cx, "max_connections", max_connections, default.max_connections)?,
        max_pending: max_pending_requests.unwrap_or(default.max_pending),
        max_requests: some(cx, "max_requests", max_requests, default.max_requests)?,
        max_retries: match max_retries {
            _ if budgeted && !keep_max_retries => u32::MAX,
            written => written.unwrap_or(MAX_RETRIES),
        },
    };
    Some((limits, budget?))
}

fn budget(cx: &mut Cx, said: pb::circuit_breakers::thresholds::RetryBudget) -> Option<RetryBudget> {
    let pb::circuit_breakers::thresholds::RetryBudget { budget_percent, min_retry_concurrency } = said;
    let percent = percent(cx, "budget_percent", budget_percent, Percent::whole(20))?;
    Some(RetryBudget { percent, min: min_retry_concurrency.unwrap_or(3) })
}
