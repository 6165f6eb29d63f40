//! Numbers that are no counts: percentages, tenths, rates.
//!
//! Pure functions from text to value and back, exact both ways: nothing here is a floating-point number.

use std::num::NonZeroU32;
use std::time::Duration;

use super::fault::{Fault, show};
use super::scalar::whole;
use crate::model::Percent;

/// Reads a percentage: `10%`, `0.5%`, or a bare number.
pub(super) fn percent(text: &str) -> Result<Percent, Fault> {
    let digits = text.strip_suffix('%').unwrap_or(text);
    let wrong = || {
        Fault::new(format!("{} is not a percentage", show(text)))
            .hint("expected `0%` to `100%`, with up to four digits after the point, as `0.5%`")
    };
    let shifted = fixed_point(digits, 4).ok_or_else(wrong)?;
    u32::try_from(shifted)
        .ok()
        .and_then(Percent::from_millionths)
        .ok_or_else(|| Fault::new(format!("{} is out of range", show(text))).hint("expected `0%` to `100%`"))
}

/// A percentage in its shortest exact form.
pub(super) fn show_percent(percent: Percent) -> String {
    format!("{}%", show_fixed_point(percent.millionths(), 4))
}

/// Reads a number with at most one digit after the point, as tenths.
pub(super) fn tenths(text: &str) -> Result<u32, Fault> {
    let wrong =
        || Fault::new(format!("{} is not a number with at most one digit after the point", show(text)));
    let tenths = fixed_point(text, 1).ok_or_else(wrong)?;
    u32::try_from(tenths).map_err(|_| Fault::new(format!("{} is too large", show(text))))
}

/// Tenths in their shortest exact form.
pub(super) fn show_tenths(tenths: u32) -> String {
    show_fixed_point(tenths, 1)
}

/// A number without sign or exponent, times ten to the power of `places`.
fn fixed_point(text: &str, places: usize) -> Option<u64> {
    let (before, after) = match text.split_once('.') {
        Some((before, after)) if !after.is_empty() => (before, after),
        Some(_) => return None,
        None => (text, ""),
    };
    if after.len() > places || !after.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let before = whole(before).ok()?;
    let after = format!("{after:0<places$}").parse::<u64>().ok()?;
    before.checked_mul(10_u64.pow(u32::try_from(places).ok()?))?.checked_add(after)
}

fn show_fixed_point(shifted: u32, places: usize) -> String {
    let digits = format!("{shifted:0>width$}", width = places + 1);
    let (before, after) = digits.split_at(digits.len() - places);
    match after.trim_end_matches('0') {
        "" => before.to_owned(),
        after => format!("{before}.{after}"),
    }
}

/// Units of a rate.
const RATE_UNITS: [(&str, Duration); 3] =
    [("s", Duration::from_secs(1)), ("m", Duration::from_secs(60)), ("h", Duration::from_secs(3600))];

/// A billion a second is faster than any network; below it no arithmetic of a bucket overflows.
pub(super) const MAX_TOKENS: u32 = 1_000_000_000;

/// Reads a rate: so many in a second, minute or hour, as `100/s`.
pub(super) fn rate(text: &str) -> Result<(NonZeroU32, Duration), Fault> {
    let wrong = || {
        Fault::new(format!("{} is not a rate", show(text)))
            .hint("expected a whole number in a second, minute or hour, as `100/s`, `100/m` or `100/h`")
    };
    let (number, unit) = match text.split_once('/') {
        Some((number, unit)) => (number, unit),
        None if whole(text).is_ok() => {
            return Err(Fault::new(format!("{} has no unit", show(text)))
                .hint(format!("add a unit: `{text}/s`, `{text}/m` or `{text}/h`")));
        }
        None => return Err(wrong()),
    };
    let (_, every) = RATE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let number = whole(number).map_err(|_| wrong())?;
    let tokens = u32::try_from(number).ok().filter(|n| *n <= MAX_TOKENS).and_then(NonZeroU32::new);
    let tokens = tokens.ok_or_else(|| {
        Fault::new(format!("{} is out of range", show(text)))
            .hint(format!("expected `1/{unit}` to `{MAX_TOKENS}/{unit}`"))
    })?;
    Ok((tokens, *every))
}

/// A rate as it is read. A time that is no second, minute or hour is shown as a second.
pub(super) fn show_rate(tokens: NonZeroU32, every: Duration) -> String {
    let unit = RATE_UNITS.iter().find(|(_, time)| *time == every).map_or("s", |(name, _)| name);
    format!("{tokens}/{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percentages() {
        for (text, millionths, shown) in [
            ("0%", 0, "0%"),
            ("10%", 100_000, "10%"),
            ("10", 100_000, "10%"),
            ("0.5%", 5_000, "0.5%"),
            ("0.0001%", 1, "0.0001%"),
            ("99.9900", 999_900, "99.99%"),
            ("100.0%", 1_000_000, "100%"),
        ] {
            let percent = percent(text).unwrap();
            assert_eq!((percent.millionths(), show_percent(percent).as_str()), (millionths, shown), "{text}");
        }
        for text in ["", "%", "-1%", "1e1%", ".5%", "5.%", "0.00001%", "10 %", "10%%", "05%", "1,5%"] {
            assert!(percent(text).unwrap_err().problem.ends_with("is not a percentage"), "{text}");
        }
        for text in ["100.0001%", "101", "99999999999999%"] {
            assert!(percent(text).unwrap_err().problem.ends_with("is out of range"), "{text}");
        }
    }

    #[test]
    fn numbers_with_tenths() {
        for (text, expected) in [("0", 0), ("1.9", 19), ("2", 20), ("2.0", 20), ("0.1", 1)] {
            assert_eq!(tenths(text).unwrap(), expected, "{text}");
        }
        for text in ["", "1.", ".1", "1.25", "-1", "x", "1e1", "99999999999"] {
            assert!(tenths(text).is_err(), "{text}");
        }
    }

    #[track_caller]
    fn check_rate(text: &str, expected: Result<(u32, u64), &str>) {
        let found = rate(text).map(|(tokens, every)| (tokens.get(), every.as_secs()));
        assert_eq!(found.map_err(|f| f.hint.unwrap()), expected.map_err(str::to_owned), "{text}");
    }

    #[test]
    fn rates() {
        check_rate("100/s", Ok((100, 1)));
        check_rate("1/m", Ok((1, 60)));
        check_rate("1000000000/h", Ok((1_000_000_000, 3600)));
        check_rate("100", Err("add a unit: `100/s`, `100/m` or `100/h`"));
        check_rate("0/s", Err("expected `1/s` to `1000000000/s`"));
        check_rate("1000000001/m", Err("expected `1/m` to `1000000000/m`"));
        for text in ["", "s", "/s", "100/", "100/d", "1.5/s", "100 / s", "-1/s", "100/s/s"] {
            let hint = "expected a whole number in a second, minute or hour, as `100/s`, `100/m` or `100/h`";
            check_rate(text, Err(hint));
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(millionths in 0..=1_000_000_u32, number in 0..=u32::MAX, unit in 0..3_usize) {
            let shown = Percent::from_millionths(millionths).unwrap();
            prop_assert_eq!(percent(&show_percent(shown)), Ok(shown));
            prop_assert_eq!(tenths(&show_tenths(number)), Ok(number));
            let tokens = NonZeroU32::new(number % MAX_TOKENS + 1).unwrap();
            let expected = (tokens, RATE_UNITS[unit].1);
            prop_assert_eq!(rate(&show_rate(expected.0, expected.1)), Ok(expected));
        }

        #[test]
        fn no_text_is_too_odd(text in "\\PC{0,12}") {
            let _ = (percent(&text), tenths(&text), rate(&text));
        }
    }
}
