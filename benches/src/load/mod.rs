//! The generators of HTTP load: `wrk` for HTTP/1.1, `h2load` for HTTP/2, and our own for handshakes.
//!
//! TLS is made equal here, on the client's side, because not every proxy lets its group and cipher be chosen.

pub(crate) mod h2load;
pub(crate) mod handshakes;
pub(crate) mod wrk;

/// What a generator saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Load {
    /// Answers that were good.
    pub(crate) requests: u64,
    /// How long it took, seconds.
    pub(crate) seconds: f64,
    /// Median latency, microseconds.
    pub(crate) p50_us: f64,
    /// 99th percentile, microseconds.
    pub(crate) p99_us: f64,
    /// Everything that was not a good answer, in words; empty when all was well.
    pub(crate) errors: Vec<String>,
}

/// A duration as the generators print it (`635.91us`, `12.92ms`, `1.02s`, `1.10m`), in microseconds.
fn microseconds(text: &str) -> Option<f64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        #[track_caller]
        fn check(text: &str, expected: Option<f64>) {
            assert_eq!(microseconds(text), expected);
        }
        check("635.91us", Some(635.91));
        check("12.50ms", Some(12_500.0));
        check("1.02s", Some(1_020_000.0));
        check("1.50m", Some(90_000_000.0));
        check("12", None);
        check("fastms", None);
    }
}
