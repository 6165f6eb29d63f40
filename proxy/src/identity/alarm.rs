//! When somebody should know that an identity is about to lapse. Pure: time is an argument.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::verify::Validity;

/// How an identity stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is none yet.
    Absent,
    /// It is good, and will be for long.
    Good,
    /// It should have been renewed: less than a quarter of its life is left.
    Late(Duration),
    /// It is over, or has not begun: nobody believes it.
    Lapsed,
}

/// How it stands at this time, by when it is good, and for how long since it was signed.
pub fn standing(known: Option<(Validity, Duration)>, now: SystemTime) -> Standing {
    let Some((Validity { not_before, not_after }, life)) = known else { return Standing::Absent };
    match not_after.duration_since(now) {
        Err(_) => Standing::Lapsed,
        Ok(_) if now < not_before => Standing::Lapsed,
        Ok(left) if left < life / 4 => Standing::Late(left),
        Ok(_) => Standing::Good,
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(f, "there is no identity yet"),
            Self::Good => write!(f, "the identity is good"),
            Self::Late(left) => {
                write!(f, "the identity expires in {}s and has not been renewed", left.as_secs())
            }
            Self::Lapsed => {
                write!(f, "the identity has expired, or is not valid yet by this machine's clock")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_late_in_the_last_quarter() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let validity = Validity { not_before: at(1000), not_after: at(2000) };
        let rows = [
            (999, Standing::Lapsed),
            (1000, Standing::Good),
            (1750, Standing::Good),
            (1751, Standing::Late(Duration::from_secs(249))),
            (2000, Standing::Late(Duration::ZERO)),
            (2001, Standing::Lapsed),
        ];
        for (now, expected) in rows {
            assert_eq!(standing(Some((validity, Duration::from_secs(1000))), at(now)), expected, "{now}");
        }
        // Its beginning was put into the past.
        let short = Some((validity, Duration::from_secs(100)));
        assert_eq!(standing(short, at(1975)), Standing::Good);
        assert_eq!(standing(short, at(1976)), Standing::Late(Duration::from_secs(24)));
        assert_eq!(standing(None, at(0)), Standing::Absent);
    }
}
