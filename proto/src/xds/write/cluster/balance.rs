//! How an endpoint is chosen.

use std::time::Duration;

use super::super::super::generated::envoy::config::cluster::v3::cluster as pb;
use super::super::super::generated::envoy::config::cluster::v3::cluster::{LbConfig, LbPolicy};
use super::super::Cx;
use super::{percent, time};
use crate::model::{Balance, Percent};

/// The policy, its configuration where it needs one, and the slow start that has no place in it.
pub(super) fn balance(
    cx: &mut Cx,
    balance: &Balance,
    slow_start: Duration,
) -> Option<(LbPolicy, Option<LbConfig>, Option<prost_types::Duration>)> {
    let window = match slow_start {
        Duration::ZERO => None,
        window => Some(time(cx, "slow_start", window)?),
    };
    let config =
        window.map(|window| pb::SlowStartConfig { slow_start_window: Some(window), ..Default::default() });
    Some(match balance {
        // The nearest that Envoy has.
        Balance::PeakEwma | Balance::LeastRequest => {
            let config = config.map(|slow_start| pb::LeastRequestLbConfig {
                slow_start_config: Some(slow_start),
                ..Default::default()
            });
            (LbPolicy::LeastRequest, config.map(LbConfig::LeastRequestLbConfig), None)
        }
        Balance::RoundRobin => {
            let config = config
                .map(|slow_start| pb::RoundRobinLbConfig { slow_start_config: Some(slow_start) })
                .map(LbConfig::RoundRobinLbConfig);
            (LbPolicy::RoundRobin, config, None)
        }
        Balance::Random => (LbPolicy::Random, None, window),
        Balance::RingHash(_) => (LbPolicy::RingHash, None, window),
        Balance::Maglev(_) => (LbPolicy::Maglev, None, window),
    })
}

/// `weighs_zones` is whether the zones' weights stand beside the endpoints: without them Envoy would use none.
pub(super) fn common(panic_threshold: Percent, weighs_zones: bool) -> pb::CommonLbConfig {
    use pb::common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig};
    let weighted = LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {});
    pb::CommonLbConfig {
        healthy_panic_threshold: Some(percent(panic_threshold)),
        locality_config_specifier: weighs_zones.then_some(weighted),
    }
}
