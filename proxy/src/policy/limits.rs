//! What limits count with outlives configurations: a reload that leaves a route's limit as it is must not fill its
//! buckets again. Here it is found again, by the route and the limit it was made for, for as long as a snapshot names
//! it.

use std::collections::hash_map::RandomState;
use std::num::NonZeroU32;
use std::sync::Arc;

use outrigger_proto::model::{Concurrency, GlobalRateLimit, Match, Name, RateLimit, Route};

use super::bulkhead::Bulkhead;
use super::kept::Kept;
use super::limiter::RateLimiter;
use super::refusals::Refusals;

/// What the limits of one route count with; shared by all workers.
#[derive(Clone, Debug, Default)]
pub struct RouteLimits {
    /// Its rate limit.
    pub rate: Option<Arc<RateLimiter>>,
    /// Its concurrency limit.
    pub concurrency: Option<Arc<Bulkhead>>,
    /// What the service of its global limit refused lately, where that is remembered.
    pub refusals: Option<Arc<Refusals>>,
}

impl RouteLimits {
    /// Whether a route has any limit.
    pub fn has(route: &Route) -> bool {
        route.rate_limit.is_some() || route.concurrency.is_some() || route.global_rate_limit.is_some()
    }
}

/// All limits that live. Management has it; workers hold the limits themselves.
#[derive(Debug)]
pub struct Limits {
    secret: RandomState,
    rates: Kept<(Name, Match, RateLimit), RateLimiter>,
    bulkheads: Kept<(Name, Match, Concurrency), Bulkhead>,
    refusals: Kept<(Name, Match, GlobalRateLimit), Refusals>,
}

impl Limits {
    /// None yet. The secret must be random: keys of callers are hashed with it.
    pub fn new(secret: RandomState) -> Self {
        Self { secret, rates: Kept::default(), bulkheads: Kept::default(), refusals: Kept::default() }
    }

    /// The limits of a route of this table. A route is known by what it matches, so that others may come and go before
    /// it; a limit that was changed begins anew.
    pub fn of(&mut self, table: &Name, route: &Route) -> RouteLimits {
        let rate = route.rate_limit.as_deref().map(|config| {
            let key = (table.clone(), route.matches.clone(), config.clone());
            self.rates.get_or_make(key, || Arc::new(RateLimiter::new(config.clone(), self.secret.clone())))
        });
        let concurrency = route.concurrency.as_deref().map(|config| {
            let key = (table.clone(), route.matches.clone(), config.clone());
            self.bulkheads.get_or_make(key, || Arc::new(Bulkhead::new(config.clone(), self.secret.clone())))
        });
        let refusals = route.global_rate_limit.as_deref().and_then(|config| {
            let most = NonZeroU32::new(config.cache)?;
            let key = (table.clone(), route.matches.clone(), config.clone());
            Some(self.refusals.get_or_make(key, || Arc::new(Refusals::new(most, self.secret.clone()))))
        });
        RouteLimits { rate, concurrency, refusals }
    }

    /// Forgets what no snapshot names any more.
    pub fn forget(&mut self) {
        self.rates.forget();
        self.bulkheads.forget();
        self.refusals.forget();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outrigger_proto::model::{Action, DescriptorEntry, Forward, LimitKey, OnFailure, PathMatch};

    use super::*;

    fn name(name: &str) -> Name {
        Name::new(name).unwrap()
    }

    fn route(path: &str, tokens: u32) -> Route {
        let matches = Match { path: PathMatch::Exact(path.into()), ..Match::default() };
        let tokens = NonZeroU32::new(tokens).unwrap();
        let config = RateLimit {
            tokens,
            every: Duration::from_secs(1),
            burst: tokens,
            per: LimitKey::All,
            keys: RateLimit::KEYS,
        };
        let action = Action::Forward(Forward::to(name("app")));
        Route { rate_limit: Some(Box::new(config)), ..Route::new(matches, action) }
    }

    #[test]
    fn a_limit_is_found_again_by_its_route_and_its_settings() {
        let mut limits = Limits::new(RandomState::new());
        let mut of = |table: &str, route: &Route| limits.of(&name(table), route).rate.unwrap();
        let first = of("web", &route("/a", 5));
        assert!(Arc::ptr_eq(&first, &of("web", &route("/a", 5))));
        for (table, other) in [("web", route("/b", 5)), ("web", route("/a", 6)), ("other", route("/a", 5))] {
            assert!(!Arc::ptr_eq(&first, &of(table, &other)));
        }
        let mut edited = route("/a", 5);
        edited.response_headers.remove.push(http::header::SERVER);
        assert!(Arc::ptr_eq(&first, &of("web", &edited)), "the rest of the route does not matter");
    }

    #[test]
    fn a_limit_that_nobody_names_is_gone() {
        let mut limits = Limits::new(RandomState::new());
        let held = limits.of(&name("web"), &route("/a", 1));
        drop(limits.of(&name("web"), &route("/b", 1)));
        assert_eq!(limits.rates.len(), 2);
        limits.forget();
        assert_eq!(limits.rates.len(), 1);
        assert!(held.rate.unwrap().take(None, Duration::ZERO).granted);
    }

    #[test]
    fn refusals_are_kept_where_they_are_to_be_remembered() {
        let mut limits = Limits::new(RandomState::new());
        let mut of = |cache| {
            let config = GlobalRateLimit {
                cluster: name("rls"),
                domain: "shop".into(),
                descriptors: vec![vec![DescriptorEntry::Source]],
                timeout: GlobalRateLimit::TIMEOUT,
                on_failure: OnFailure::Allow,
                hits: NonZeroU32::MIN,
                cache,
            };
            let route =
                Route { rate_limit: None, global_rate_limit: Some(Box::new(config)), ..route("/a", 1) };
            assert!(RouteLimits::has(&route));
            limits.of(&name("web"), &route).refusals
        };
        let first = of(5).unwrap();
        assert!(Arc::ptr_eq(&first, &of(5).unwrap()));
        assert!(!Arc::ptr_eq(&first, &of(6).unwrap()));
        assert!(of(0).is_none());
    }

    #[test]
    fn a_route_without_a_limit_has_none() {
        let mut limits = Limits::new(RandomState::new());
        let plain = Route { rate_limit: None, ..route("/a", 1) };
        assert!(limits.of(&name("web"), &plain).rate.is_none());
        assert!(!RouteLimits::has(&plain));
    }
}
