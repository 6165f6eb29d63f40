//! Which requests are held up or aborted on purpose, as a route's `fault` says.

use std::time::Duration;

use http::HeaderMap;
use outrigger_proto::model::{AbortWith, Fault, FaultAbort, FaultDelay, Percent};

/// What is done to a request: first it is held up, then it is aborted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injection {
    /// It is held up for so long.
    pub delay: Option<Duration>,
    /// It is answered with this.
    pub abort: Option<AbortWith>,
}

/// Decides about a request with these header fields. Delay and abort fall by chance, and not together: a request may
/// meet both.
pub fn decide(fault: &Fault, headers: &HeaderMap, mut random: impl FnMut() -> u64) -> Injection {
    let Fault { delay, abort, when } = fault;
    if when.as_ref().is_some_and(|name| !headers.contains_key(name)) {
        return Injection::default();
    }
    let mut falls = |percent: Percent| percent.takes(random());
    let delay = delay.and_then(|FaultDelay { fixed, percent }| falls(percent).then_some(fixed));
    let abort = abort.and_then(|FaultAbort { with, percent }| falls(percent).then_some(with));
    Injection { delay, abort }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, StatusCode};

    use super::*;

    const HELD: Duration = Duration::from_millis(100);
    const ABORT: AbortWith = AbortWith::Status(StatusCode::SERVICE_UNAVAILABLE);

    fn fault(delay: Option<Percent>, abort: Option<Percent>, when: Option<&'static str>) -> Fault {
        Fault {
            delay: delay.map(|percent| FaultDelay { fixed: HELD, percent }),
            abort: abort.map(|percent| FaultAbort { with: ABORT, percent }),
            when: when.map(HeaderName::from_static),
        }
    }

    #[track_caller]
    fn check(fault: &Fault, random: [u64; 2], delay: bool, abort: bool) {
        let mut random = random.into_iter();
        let injection = decide(fault, &HeaderMap::new(), || random.next().unwrap());
        let expected = Injection { delay: delay.then_some(HELD), abort: abort.then_some(ABORT) };
        assert_eq!(injection, expected, "{fault:?}");
    }

    #[test]
    fn each_falls_by_its_own_share() {
        let half = Some(Percent::whole(50));
        let (low, high) = (0, u64::MAX);
        check(&fault(half, half, None), [low, low], true, true);
        check(&fault(half, half, None), [low, high], true, false);
        check(&fault(half, half, None), [high, low], false, true);
        check(&fault(half, half, None), [high, high], false, false);
        check(&fault(Some(Percent::ALL), Some(Percent::ZERO), None), [high, low], true, false);
        check(&fault(None, half, None), [low, high], false, true);
        check(&fault(None, None, None), [low, low], false, false);
    }

    #[test]
    fn only_those_who_ask_for_it_where_that_is_meant() {
        let fault = fault(Some(Percent::ALL), Some(Percent::ALL), Some("x-chaos"));
        let mut headers = HeaderMap::new();
        assert_eq!(decide(&fault, &headers, || 0), Injection::default());
        headers.insert("x-chaos", HeaderValue::from_static(""));
        assert_eq!(decide(&fault, &headers, || 0), Injection { delay: Some(HELD), abort: Some(ABORT) });
    }

    #[test]
    fn shares_come_out() {
        let fault = fault(Some(Percent::whole(10)), Some(Percent::whole(1)), None);
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut delayed, mut aborted, mut both) = (0, 0, 0);
        for _ in 0..100_000 {
            let Injection { delay, abort } = decide(&fault, &HeaderMap::new(), || rng.u64(..));
            delayed += u32::from(delay.is_some());
            aborted += u32::from(abort.is_some());
            both += u32::from(delay.is_some() && abort.is_some());
        }
        // Five standard deviations.
        assert!((9_525..=10_475).contains(&delayed), "{delayed}");
        assert!((842..=1_158).contains(&aborted), "{aborted}");
        assert!((50..=150).contains(&both), "{both}: one does not depend on the other");
    }
}
