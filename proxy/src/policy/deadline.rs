//! gRPC's deadline on the wire: `grpc-timeout`, up to eight digits and a unit (gRPC over HTTP/2, "Requests").

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::line::Line;

/// The field.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// What the protocol's eight digits can say.
const MOST: u32 = 99_999_999;

/// Reads it; `None` when it is not there, or not what the protocol says: a caller that cannot be understood has not
/// asked for anything.
pub fn asked(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Writes it, in the finest unit that it fits into: never more than is left.
pub fn grpc_timeout(left: Duration) -> HeaderValue {
    let units = [(left.as_micros(), "u"), (left.as_millis(), "m"), (u128::from(left.as_secs()), "S")];
    let fits = |(count, unit)| Some((u32::try_from(count).ok().filter(|count| *count <= MOST)?, unit));
    let (count, unit) = units.into_iter().find_map(fits).unwrap_or((MOST, "S"));
    Line::new().number(count).text(unit).value()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(value: &str) -> Option<Duration> {
        asked(&HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_str(value).ok()?)]))
    }

    #[test]
    fn what_callers_write() {
        let ms = Duration::from_millis;
        let rows = [
            ("250m", Some(ms(250))),
            ("1S", Some(ms(1000))),
            ("2M", Some(ms(120_000))),
            ("1H", Some(ms(3_600_000))),
            ("1500u", Some(Duration::from_micros(1500))),
            ("7n", Some(Duration::from_nanos(7))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("100000000S", None),
            ("S", None),
            ("5", None),
            ("-5S", None),
            ("5 S", None),
            ("5s", None),
            ("", None),
            ("5é", None),
        ];
        for (value, expected) in rows {
            assert_eq!(read(value), expected, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_never_more(nanos in 0..99_999_999_000_000_000_u64) {
            let left = Duration::from_nanos(nanos);
            let value = grpc_timeout(left);
            let said = read(value.to_str().unwrap()).unwrap();
            prop_assert!(said <= left && left - said < Duration::from_secs(1));
        }
    }
}
