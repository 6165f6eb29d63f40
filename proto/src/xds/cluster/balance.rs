//! How an endpoint is chosen: `lb_policy` with its configuration, or a list of policies ([`super::policies`]).
//!
//! Where a request is hashed, what of it is hashed stands elsewhere: [`super::protocol`].

use std::time::Duration;

use super::super::cx::Cx;
use super::super::generated::envoy::config::cluster::v3 as pb;
use super::super::generated::envoy::config::cluster::v3::cluster::{LbConfig, LbPolicy};
use super::super::generated::envoy::config::core::v3 as core;
use super::super::generated::envoy::r#type::v3 as kinds;
use super::{percent, policies};
use crate::model::{Balance, HashKey, Percent};

/// What is written of it.
pub(super) struct Written {
    pub(super) policy: i32,
    pub(super) config: Option<LbConfig>,
    pub(super) list: Option<pb::LoadBalancingPolicy>,
}

/// What it means.
pub(super) struct Read {
    /// Of a balancer by hash, without what is hashed.
    pub(super) balance: Balance,
    pub(super) slow_start: Duration,
    /// Whether zones share the load by weights.
    pub(super) weighs_zones: bool,
}

impl Read {
    pub(super) fn new(balance: Balance, slow_start: Duration, weighs_zones: bool) -> Self {
        Self { balance, slow_start, weighs_zones }
    }

    pub(super) fn hashes(&self) -> bool {
        match self.balance {
            Balance::RingHash(_) | Balance::Maglev(_) => true,
            Balance::PeakEwma | Balance::LeastRequest | Balance::RoundRobin | Balance::Random => false,
        }
    }

    /// The balancer, where this of a request is hashed.
    pub(super) fn by(&self, hash: Box<[HashKey]>) -> Balance {
        match &self.balance {
            Balance::RingHash(_) => Balance::RingHash(hash),
            Balance::Maglev(_) => Balance::Maglev(hash),
            other @ (Balance::PeakEwma | Balance::LeastRequest | Balance::RoundRobin | Balance::Random) => {
                other.clone()
            }
        }
    }
}

/// Half of them, where nothing is said.
pub(super) fn panic_threshold(cx: &mut Cx, common: Option<&pb::cluster::CommonLbConfig>) -> Option<Percent> {
    let share = common.and_then(|common| common.healthy_panic_threshold);
    cx.within("common_lb_config", |cx| percent(cx, "healthy_panic_threshold", share, Percent::whole(50)))
}

/// Whatever is written; `in_subsets` is whether there is a `lb_subset_config`.
pub(super) fn read(
    cx: &mut Cx,
    written: Written,
    common: Option<pb::cluster::CommonLbConfig>,
    in_subsets: bool,
) -> Option<Read> {
    let pb::cluster::CommonLbConfig { healthy_panic_threshold: _, locality_config_specifier } =
        common.unwrap_or_default();
    let weighs_zones = locality_config_specifier.is_some();
    let Written { policy, config, list } = written;
    let policy = LbPolicy::try_from(policy).unwrap_or_default();
    let list = match policy {
        LbPolicy::LoadBalancingPolicyConfig => Some(cx.required("load_balancing_policy", list)?),
        _ => list,
    };
    let Some(list) = list else { return by_policy(cx, policy, config, weighs_zones) };
    // As in Envoy.
    if weighs_zones {
        let problem = "the policies of `load_balancing_policy` say themselves whether zones are weighed";
        return cx.fail("common_lb_config.locality_weighted_lb_config", problem);
    }
    if in_subsets {
        return cx.fail("lb_subset_config", "beside `load_balancing_policy` it is not supported");
    }
    cx.within("load_balancing_policy", |cx| policies::first(cx, list, false))
}

/// What of ours stands beside it.
pub(super) fn with_ours(
    cx: &mut Cx,
    read: Read,
    peak_ewma: bool,
    slow_start: Option<prost_types::Duration>,
) -> Option<Read> {
    let at = |field| format!("metadata.typed_filter_metadata[outrigger].{field}");
    let slow_start = cx.time(&at("slow_start"), slow_start)?;
    if peak_ewma && read.balance != Balance::LeastRequest {
        return cx.fail(&at("peak_ewma"), "the cluster does not balance by LEAST_REQUEST");
    }
    if slow_start.is_some() && !read.slow_start.is_zero() {
        return cx.fail(&at("slow_start"), "the configuration of the balancer says it already");
    }
    let balance = if peak_ewma { Balance::PeakEwma } else { read.balance };
    Some(Read { balance, slow_start: slow_start.unwrap_or(read.slow_start), ..read })
}

/// A configuration that is another policy's has no effect, as in Envoy.
fn by_policy(cx: &mut Cx, policy: LbPolicy, config: Option<LbConfig>, weighs_zones: bool) -> Option<Read> {
    use pb::cluster::{LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, RoundRobinLbConfig};
    let (balance, slow_start) = match (policy, config) {
        (LbPolicy::RoundRobin, Some(LbConfig::RoundRobinLbConfig(config))) => {
            let RoundRobinLbConfig { slow_start_config } = config;
            let slow =
                cx.within("round_robin_lb_config", |cx| slow_start(cx, slow_start_config.map(parts)))?;
            (Balance::RoundRobin, slow)
        }
        (LbPolicy::LeastRequest, Some(LbConfig::LeastRequestLbConfig(config))) => {
            let LeastRequestLbConfig { choice_count, active_request_bias, slow_start_config } = config;
            let slow = cx.within("least_request_lb_config", |cx| {
                least_request(cx, choice_count, active_request_bias)?;
                slow_start(cx, slow_start_config.map(parts))
            })?;
            (Balance::LeastRequest, slow)
        }
        (LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(config))) => {
            let RingHashLbConfig { minimum_ring_size, hash_function, maximum_ring_size } = config;
            let xx_hash = pb::cluster::ring_hash_lb_config::HashFunction::XxHash as i32 == hash_function;
            cx.within("ring_hash_lb_config", |cx| ring(cx, (minimum_ring_size, maximum_ring_size), xx_hash))?;
            (Balance::RingHash(Box::default()), Duration::ZERO)
        }
        (LbPolicy::Maglev, Some(LbConfig::MaglevLbConfig(config))) => {
            let MaglevLbConfig { table_size } = config;
            cx.within("maglev_lb_config", |cx| table(cx, table_size))?;
            (Balance::Maglev(Box::default()), Duration::ZERO)
        }
        (LbPolicy::RoundRobin, _) => (Balance::RoundRobin, Duration::ZERO),
        (LbPolicy::LeastRequest, _) => (Balance::LeastRequest, Duration::ZERO),
        (LbPolicy::Random, _) => (Balance::Random, Duration::ZERO),
        (LbPolicy::RingHash, _) => (Balance::RingHash(Box::default()), Duration::ZERO),
        (LbPolicy::Maglev, _) => (Balance::Maglev(Box::default()), Duration::ZERO),
        (LbPolicy::ClusterProvided | LbPolicy::LoadBalancingPolicyConfig, _) => {
            return cx.fail("lb_policy", format!("{} is not supported", policy.as_str_name()));
        }
    };
    Some(Read::new(balance, slow_start, weighs_zones))
}

/// A slow start's window, aggression and least share.
pub(super) type SlowStart =
    (Option<prost_types::Duration>, Option<core::RuntimeDouble>, Option<kinds::Percent>);

fn parts(config: pb::cluster::SlowStartConfig) -> SlowStart {
    let pb::cluster::SlowStartConfig { slow_start_window, aggression, min_weight_percent } = config;
    (slow_start_window, aggression, min_weight_percent)
}

pub(super) fn slow_start(cx: &mut Cx, config: Option<SlowStart>) -> Option<Duration> {
    let Some((window, aggression, least)) = config else { return Some(Duration::ZERO) };
    cx.within("slow_start_config", |cx| {
        one(cx, "aggression", aggression)?;
        let tenth = Percent::whole(10);
        if percent(cx, "min_weight_percent", least, tenth)? != tenth {
            return cx.fail("min_weight_percent", "10 alone is supported");
        }
        Some(cx.time("slow_start_window", window)?.unwrap_or(Duration::ZERO))
    })
}

pub(super) fn least_request(
    cx: &mut Cx,
    choices: Option<u32>,
    bias: Option<core::RuntimeDouble>,
) -> Option<()> {
    if choices.is_some_and(|choices| choices != 2) {
        return cx.fail("choice_count", "2 alone is supported");
    }
    one(cx, "active_request_bias", bias)
}

/// A number that is 1 where nothing is said, and cannot be another.
fn one(cx: &mut Cx, field: &str, number: Option<core::RuntimeDouble>) -> Option<()> {
    match number {
        // There is no runtime that could say another.
        Some(core::RuntimeDouble { default_value, runtime_key: _ }) if default_value != 1.0 => {
            cx.fail(field, "1 alone is supported")
        }
        Some(_) | None => Some(()),
    }
}

/// The ring is as large as its endpoints need: no other size can be asked for.
pub(super) fn ring(cx: &mut Cx, (least, most): (Option<u64>, Option<u64>), xx_hash: bool) -> Option<()> {
    if least.is_some_and(|least| least != 1024) {
        return cx.fail("minimum_ring_size", "the default, 1024, alone is supported");
    }
    if most.is_some_and(|most| most != 8 << 20) {
        return cx.fail("maximum_ring_size", "the default, 8388608, alone is supported");
    }
    if !xx_hash {
        return cx.fail("hash_function", "XX_HASH alone is supported");
    }
    Some(())
}

/// So is the table.
pub(super) fn table(cx: &mut Cx, size: Option<u64>) -> Option<()> {
    if size.is_some_and(|size| size != 65_537) {
        return cx.fail("table_size", "the default, 65537, alone is supported");
    }
    Some(())
}
