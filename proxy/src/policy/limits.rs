//! What limits count with outlives configurations: a reload that leaves a route's limit as it is must not fill its
//! buckets again. Here it is found again, by the route and the limit it was made for, for as long as a snapshot names
//! it. So are the answers that a route keeps to fall back to.

use std::collections::hash_map::RandomState;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use outrigger_proto::model::{
    self, Action, ChainMatch, Destination, Forward, HeaderEdits, Match, Name, RateLimit, RateLimitService,
    Rewrite, Route, Target,
};

use super::bulkhead::Bulkhead;
use super::kept::Kept;
use super::limiter::RateLimiter;
use super::refusals::Refusals;
use super::stale::Stale;

/// What the limits of one route count with, and what it has to fall back to; shared by all workers.
#[derive(Clone, Debug, Default)]
pub struct RouteLimits {
    /// Its rate limit.
    pub rate: Option<Arc<RateLimiter>>,
    /// Its concurrency limit.
    pub concurrency: Option<Arc<Bulkhead>>,
    /// What the service of its global limit refused lately, where that is remembered.
    pub refusals: Option<Arc<Refusals>>,
    /// What its cluster answered before, where that is kept.
    pub stale: Option<Arc<Stale>>,
}

impl RouteLimits {
    /// Whether a route has any of it.
    pub fn has(route: &Route) -> bool {
        let limited = route.rate_limit.is_some() || route.concurrency.is_some() || service(route).is_some();
        limited || stale(route).is_some()
    }
}

/// All limits that live. Management has it; workers hold the limits themselves.
#[derive(Debug)]
pub struct Limits {
    secret: RandomState,
    rates: Kept<(Name, Match, RateLimit), RateLimiter>,
    bulkheads: Kept<(Name, Match), Bulkhead>,
    refusals: Kept<(Whose, RateLimitService), Refusals>,
    stale: Kept<Asked, Stale>,
    /// Bytes of answers that all routes keep.
    stale_bytes: Arc<AtomicU64>,
}

/// Whatever decides how a request is answered. Shares are left out: their shift must not cost the answers of all.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Asked {
    table: Name,
    matches: Match,
    config: model::Stale,
    /// Each with what is changed of requests to it, and of its answers.
    clusters: Box<[(Destination, HeaderEdits, HeaderEdits)]>,
    rewrite: Rewrite,
    request_headers: HeaderEdits,
}

/// Who has asked a service.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Whose {
    /// A route of a table.
    Route(Name, Match),
    /// All routes of a chain that name none.
    Chain(ChainKey),
}

/// A listener, and which of its chains it is.
type ChainKey = (Name, Option<ChainMatch>);

/// Who is asked about a route's requests, where it says so itself.
fn service(route: &Route) -> Option<&RateLimitService> {
    route.global_rate_limit.as_ref()?.service.as_ref()
}

/// What a route keeps of answers, and how it asks for them.
fn stale(route: &Route) -> Option<(&model::Stale, &Forward)> {
    match &route.action {
        Action::Forward(forward) => Some((forward.fallback.as_ref()?.stale()?, forward)),
        Action::Redirect(_) | Action::Respond(_) => None,
    }
}

fn asked_of(target: &Target) -> (Destination, HeaderEdits, HeaderEdits) {
    let Target { to, weight: _, request_headers, response_headers } = target;
    (to.clone(), request_headers.clone(), response_headers.clone())
}

impl Limits {
    /// None yet. The secret must be random: keys of callers are hashed with it.
    /// In `stale_bytes` is counted what the answers take that are kept.
    pub fn new(secret: RandomState, stale_bytes: Arc<AtomicU64>) -> Self {
        Self {
            secret,
            rates: Kept::default(),
            bulkheads: Kept::default(),
            refusals: Kept::default(),
            stale: Kept::default(),
            stale_bytes,
        }
    }

    /// The limits of a route of this table. A route is known by what it matches, so that others may come and go before
    /// it. A rate limit that was changed begins anew; a concurrency limit knows who is under way, and what it has learned.
    pub fn of(&mut self, table: &Name, route: &Route) -> RouteLimits {
        let rate = route.rate_limit.as_deref().map(|config| {
            let key = (table.clone(), route.matches.clone(), config.clone());
            self.rates.get_or_make(key, || Arc::new(RateLimiter::new(config.clone(), self.secret.clone())))
        });
        let concurrency = route.concurrency.as_deref().map(|config| {
            let key = (table.clone(), route.matches.clone());
            let before = self.bulkheads.get(&key);
            if let Some(same) = before.as_ref().filter(|before| before.config() == config) {
                return same.clone();
            }
            // Who is under way stays counted.
            let made = Arc::new(Bulkhead::new(config.clone(), self.secret.clone(), before.as_deref()));
            self.bulkheads.put(key, &made);
            made
        });
        let whose = || Whose::Route(table.clone(), route.matches.clone());
        let refusals = service(route).and_then(|config| self.refusals(whose(), config));
        let stale = stale(route).map(|(config, forward)| {
            let key = Asked {
                table: table.clone(),
                matches: route.matches.clone(),
                config: config.clone(),
                clusters: forward.to.targets.iter().map(asked_of).collect(),
                rewrite: forward.rewrite.clone(),
                request_headers: route.request_headers.clone(),
            };
            self.stale.get_or_make(key, || Arc::new(Stale::new(config.clone(), self.stale_bytes.clone())))
        });
        RouteLimits { rate, concurrency, refusals, stale }
    }

    /// What the service of a listener's chain refused lately, where that is remembered.
    pub fn of_chain(&mut self, chain: &ChainKey, config: &RateLimitService) -> Option<Arc<Refusals>> {
        self.refusals(Whose::Chain(chain.clone()), config)
    }

    fn refusals(&mut self, whose: Whose, config: &RateLimitService) -> Option<Arc<Refusals>> {
        let most = NonZeroU32::new(config.cache)?;
        let key = (whose, config.clone());
        Some(self.refusals.get_or_make(key, || Arc::new(Refusals::new(most, self.secret.clone()))))
    }

    /// Forgets what no snapshot names any more.
    pub fn forget(&mut self) {
        self.rates.forget();
        self.bulkheads.forget();
        self.refusals.forget();
        self.stale.forget();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;
    use outrigger_proto::model::{
        DescriptorEntry, Fallback, GlobalRateLimit, LimitKey, OnFailure, PathMatch, Split, Target,
    };

    use super::*;

    fn limits() -> Limits {
        Limits::new(RandomState::new(), Arc::default())
    }

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
        let mut limits = limits();
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
        let mut limits = limits();
        let held = limits.of(&name("web"), &route("/a", 1));
        drop(limits.of(&name("web"), &route("/b", 1)));
        assert_eq!(limits.rates.len(), 2);
        limits.forget();
        assert_eq!(limits.rates.len(), 1);
        assert!(held.rate.unwrap().take(None, Duration::ZERO).granted);
    }

    #[test]
    fn refusals_are_kept_where_they_are_to_be_remembered() {
        let mut limits = limits();
        let mut of = |cache| {
            let service = RateLimitService {
                cluster: name("rls"),
                domain: "shop".into(),
                timeout: RateLimitService::TIMEOUT,
                on_failure: OnFailure::Allow,
                cache,
            };
            let config = GlobalRateLimit {
                service: Some(service),
                descriptors: vec![vec![DescriptorEntry::Source]],
                hits: NonZeroU32::MIN,
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
    fn answers_are_kept_until_something_is_asked_otherwise() {
        let mut limits = limits();
        let mut of = |seconds, change: fn(&mut Forward)| {
            let stale = model::Stale::new(Duration::from_secs(seconds));
            let fallback = Some(Box::new(Fallback::Stale(stale, None)));
            let mut forward = Forward { fallback, ..Forward::to(name("app")) };
            change(&mut forward);
            let route = Route { rate_limit: None, action: Action::Forward(forward), ..route("/a", 1) };
            assert!(RouteLimits::has(&route));
            limits.of(&name("web"), &route).stale.unwrap()
        };
        let first = of(5, |_| {});
        assert!(Arc::ptr_eq(&first, &of(5, |forward| forward.timeout = Some(Duration::from_secs(1)))));
        assert!(!Arc::ptr_eq(&first, &of(6, |_| {})));
        assert!(!Arc::ptr_eq(&first, &of(5, |forward| forward.to = Split::one(name("other")))));
        let host = |forward: &mut Forward| forward.rewrite.host = Some(HeaderValue::from_static("b"));
        assert!(!Arc::ptr_eq(&first, &of(5, host)));
        fn two(forward: &mut Forward, weight: u32) {
            let weight = NonZeroU32::new(weight).unwrap();
            forward.to.targets.push(Target::new(name("next"), weight));
        }
        let split = of(5, |forward| two(forward, 1));
        assert!(!Arc::ptr_eq(&first, &split));
        assert!(Arc::ptr_eq(&split, &of(5, |forward| two(forward, 9))), "shares may shift");
    }

    #[test]
    fn a_route_without_a_limit_has_none() {
        let mut limits = limits();
        let plain = Route { rate_limit: None, ..route("/a", 1) };
        assert!(limits.of(&name("web"), &plain).rate.is_none());
        assert!(!RouteLimits::has(&plain));
    }
}
