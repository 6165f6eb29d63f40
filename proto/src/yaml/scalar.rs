//! What the text of a scalar says: the YAML 1.2 core schema, durations, sizes, addresses and networks.
//!
//! Pure functions from text to value and back. What is printed is the shortest exact form and reads back to the same
//! value.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::fault::{Fault, show};
use crate::model::{Address, is_host_name};

/// What the core schema makes of a plain scalar (YAML 1.2.2 section 10.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Core {
    Null,
    Bool,
    Int,
    Float,
    Str,
}

pub(super) fn core(text: &str) -> Core {
    let Some(first) = text.bytes().next() else { return Core::Null };
    // Nearly everything in a configuration begins with another character.
    if !matches!(first, b'0'..=b'9' | b'-' | b'+' | b'.' | b'~' | b'n' | b'N' | b't' | b'T' | b'f' | b'F') {
        return Core::Str;
    }
    match text {
        "~" | "null" | "Null" | "NULL" => return Core::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => return Core::Bool,
        ".nan" | ".NaN" | ".NAN" => return Core::Float,
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let all = |text: &str, fits: fn(&u8) -> bool| !text.is_empty() && text.bytes().all(|b| fits(&b));
    if all(unsigned, u8::is_ascii_digit)
        || text.strip_prefix("0o").is_some_and(|t| all(t, |b| matches!(b, b'0'..=b'7')))
        || text.strip_prefix("0x").is_some_and(|t| all(t, u8::is_ascii_hexdigit))
    {
        return Core::Int;
    }
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || is_float(unsigned) {
        return Core::Float;
    }
    Core::Str
}

/// `(\.[0-9]+ | [0-9]+(\.[0-9]*)?) ([eE][-+]?[0-9]+)?`
fn is_float(unsigned: &str) -> bool {
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|e| !e.is_empty() && digits(e))
}

/// `true` or `false`.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// A decimal number without a sign. A leading zero is refused: YAML 1.1 tools read an octal number there.
pub(super) fn whole(text: &str) -> Result<u64, Fault> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::new(format!("{} is not a whole number", show(text))));
    }
    if text.starts_with('0') && text != "0" {
        return Err(Fault::new(format!("{} begins with a zero", show(text))));
    }
    text.parse().map_err(|_| Fault::new(format!("{} is too large", show(text))))
}

/// Units of a duration with their nanoseconds, largest first.
const DURATION_UNITS: [(&str, u128); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Timers count from now: a bound keeps them from overflowing, and finds a unit that was mistaken.
const MAX_DURATION: Duration = Duration::from_secs(8760 * 3600);

/// Reads a duration such as `250ms` or `1m30s`: whole numbers with units, the largest first.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    let wrong = || {
        Fault::new(format!("{} is not a duration", show(text)))
            .hint("expected whole numbers with the units h, m, s, ms, us, ns, as `250ms` or `1m30s`")
    };
    let mut nanos = 0_u128;
    let mut units = DURATION_UNITS.as_slice();
    let mut rest = text;
    while !rest.is_empty() || nanos == 0 && rest.len() == text.len() {
        let (number, after) = split_number(rest);
        if number.is_empty() || after.starts_with(['.', ',']) {
            return Err(wrong());
        }
        let unit_ends = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_ends);
        if unit.is_empty() && after.is_empty() {
            return Err(Fault::new(format!("{} has no unit", show(text)))
                .hint(format!("add a unit: `{text}s` or `{text}ms`")));
        }
        let at = units.iter().position(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let number: u128 = number.parse().map_err(|_| too_long(text))?;
        nanos = number
            .checked_mul(units[at].1)
            .and_then(|n| n.checked_add(nanos))
            .ok_or_else(|| too_long(text))?;
        units = &units[at + 1..];
        rest = after;
    }
    if nanos > MAX_DURATION.as_nanos() {
        return Err(too_long(text));
    }
    let whole = u64::try_from(nanos).map_err(|_| too_long(text))?;
    Ok(Duration::from_nanos(whole))
}

fn too_long(text: &str) -> Fault {
    Fault::new(format!("{} is too long", show(text))).hint("expected at most `8760h`")
}

fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// A duration in its largest exact unit.
pub(super) fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    let exact = DURATION_UNITS.iter().find(|(_, unit)| nanos.is_multiple_of(*unit));
    let (name, unit) = exact.expect("everything is a multiple of a nanosecond");
    format!("{}{name}", nanos / unit)
}

/// Units of a size with their bytes, largest first.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads a size in bytes, such as `64KiB`, `10KB` or `512`.
pub(super) fn size(text: &str) -> Result<u64, Fault> {
    let fault = || Fault::new(format!("{} is not a size", show(text)));
    let (number, unit) = split_number(text);
    if number.is_empty() {
        return Err(fault().hint("expected a whole number with a unit, as `64KiB` or `100MB`"));
    }
    let unit = if unit.is_empty() { "B" } else { unit };
    let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        let near = SIZE_UNITS.iter().map(|(name, _)| *name);
        let mut near = near.filter(|name| {
            let short = |text: &str| text.trim_end_matches(['b', 'B']).to_ascii_lowercase();
            !unit.is_empty() && short(name) == short(unit)
        });
        let hint = match near.next_back() {
            Some(near) => format!("did you mean `{number}{near}`?"),
            None => "expected one of the units B, KB, MB, GB, TB, KiB, MiB, GiB, TiB".into(),
        };
        return Err(fault().hint(hint));
    };
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*factor));
    bytes.ok_or_else(|| Fault::new(format!("{} is too large", show(text))))
}

/// A size in its largest exact unit.
pub(super) fn show_size(bytes: u64) -> String {
    let exact = SIZE_UNITS.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    let (name, unit) = exact.copied().unwrap_or(("B", 1));
    format!("{}{name}", bytes / unit)
}

/// What the kernel takes for a socket's path (`sun_path` of unix(7), with its NUL).
const MAX_SOCKET_PATH: usize = 107;

/// Reads `ip:port`, `[v6]:port` or `unix:/path`.
pub(super) fn address(text: &str) -> Result<Address, Fault> {
    if let Some(path) = text.strip_prefix("unix:") {
        if !Path::new(path).is_absolute() {
            return Err(Fault::new(format!("{} is not an absolute path", show(path)))
                .hint("expected `unix:/path/to/socket`"));
        }
        if path.len() > MAX_SOCKET_PATH {
            return Err(Fault::new(format!("a socket's path of {} bytes", path.len()))
                .hint(format!("the system takes at most {MAX_SOCKET_PATH}")));
        }
        return Ok(Address::Unix(PathBuf::from(path)));
    }
    text.parse::<SocketAddr>().map(Address::Ip).map_err(|_| {
        Fault::new(format!("{} is not an address", show(text))).hint(match address_meant(text) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "expected `ip:port`, `[v6]:port` or `unix:/path`".into(),
        })
    })
}

fn address_meant(text: &str) -> Option<String> {
    let port = |text: &str| text.parse::<u16>().ok();
    if let Some(port) = port(text) {
        return Some(format!("127.0.0.1:{port}"));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Some(format!("[{text}]:8080"));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Some(format!("{text}:8080"));
    }
    if text.starts_with('/') {
        return Some(format!("unix:{text}"));
    }
    let (host, port) = text.rsplit_once(':').and_then(|(host, p)| port(p).map(|p| (host, p)))?;
    match host {
        "" | "*" => Some(format!("0.0.0.0:{port}")),
        "localhost" => Some(format!("127.0.0.1:{port}")),
        _ => None,
    }
}

/// Reads a network in CIDR form; an address alone is a network of one.
pub(super) fn network(text: &str) -> Result<IpNet, Fault> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let network: IpNet = text.parse().map_err(|_| {
        Fault::new(format!("{} is not a network", show(text)))
            .hint("expected `10.0.0.0/8`, `fd00::/8` or an address")
    })?;
    if network.trunc() != network {
        return Err(Fault::new(format!("{} has bits set beyond its prefix", show(text)))
            .hint(format!("did you mean `{}`?", network.trunc())));
    }
    Ok(network)
}

/// Reads `name:port`, as a resolver takes it. The name comes back in lower case.
pub(super) fn host_and_port(text: &str) -> Result<(Box<str>, NonZeroU16), Fault> {
    let expected = "expected `name:port`, as `db.internal:5432`";
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(Fault::new(format!("{} has no port", show(text))).hint(expected));
    };
    let port: NonZeroU16 =
        port.parse().map_err(|_| Fault::new(format!("{} is not a port", show(port))).hint(expected))?;
    if text.parse::<SocketAddr>().is_ok() {
        return Err(Fault::new(format!("{} is an address, not a name", show(text)))
            .hint(format!("write `endpoints: [\"{text}\"]`")));
    }
    let host = host.to_ascii_lowercase();
    host_name(host.strip_suffix('.').unwrap_or(&host))?;
    Ok((host.into(), port))
}

/// Checks a host's name: labels of letters, digits, `-` and `_`. Lower case, without a dot at its end.
pub(super) fn host_name(text: &str) -> Result<(), Fault> {
    let fault = || Fault::new(format!("{} is not a host name", show(text)));
    if !text.is_ascii() {
        return Err(fault().hint("write it in its ASCII form, as `xn--...`"));
    }
    if let Some(short) = text.strip_suffix('.') {
        return Err(fault().hint(format!("write it without the last dot: `{short}`")));
    }
    if !is_host_name(text) {
        return Err(fault().hint("expected labels of letters, digits and `-` with dots between them"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_core_schema() {
        let rows = [
            (Core::Null, "|~|null|Null|NULL"),
            (Core::Bool, "true|True|TRUE|false|False|FALSE"),
            (Core::Int, "0|12|-7|+7|0o17|0xfF|007"),
            (Core::Float, "1.0|-.5|1.|1e3|+1.5E-7|.inf|-.INF|.nan"),
            (Core::Str, "on|off|yes|no|y|tRue|nUll|1_000|0b1|0x|.|-|+|1.2.3|1e|127.0.0.1:80|5s|e3|-.nan"),
        ];
        for (expected, texts) in rows {
            for text in texts.split('|') {
                assert_eq!(core(text), expected, "{text:?}");
            }
        }
    }

    #[track_caller]
    fn check_duration(text: &str, expected: Result<Duration, &str>) {
        assert_eq!(duration(text).map_err(|f| f.hint.unwrap()), expected.map_err(str::to_owned), "{text:?}");
    }

    #[test]
    fn durations() {
        check_duration("250ms", Ok(Duration::from_millis(250)));
        check_duration("1m30s", Ok(Duration::from_secs(90)));
        check_duration("1h", Ok(Duration::from_secs(3600)));
        check_duration("0s", Ok(Duration::ZERO));
        check_duration("1h0m1s1ms1us1ns", Ok(Duration::new(3601, 1_001_001)));
        check_duration("8760h", Ok(MAX_DURATION));
        let units = "expected whole numbers with the units h, m, s, ms, us, ns, as `250ms` or `1m30s`";
        check_duration("5", Err("add a unit: `5s` or `5ms`"));
        check_duration("0", Err("add a unit: `0s` or `0ms`"));
        for text in ["", "s", "-5s", "1.5s", "1d", "5 s", "30s1m", "1s1s", "5S", "1m30", "5s "] {
            let hint = if text == "1m30" { "add a unit: `1m30s` or `1m30ms`" } else { units };
            check_duration(text, Err(hint));
        }
        for text in
            ["8761h", "99999999999999999999999999999999999999999h", "9999999999999999999999999999999999h"]
        {
            check_duration(text, Err("expected at most `8760h`"));
        }
    }

    #[track_caller]
    fn check_size(text: &str, expected: Result<u64, Option<&str>>) {
        assert_eq!(size(text).map_err(|f| f.hint), expected.map_err(|e| e.map(str::to_owned)), "{text:?}");
    }

    #[test]
    fn sizes() {
        check_size("64KiB", Ok(65_536));
        check_size("100MiB", Ok(104_857_600));
        check_size("10KB", Ok(10_000));
        check_size("512B", Ok(512));
        check_size("512", Ok(512));
        check_size("0", Ok(0));
        check_size("64k", Err(Some("did you mean `64KB`?")));
        check_size("64kib", Err(Some("did you mean `64KiB`?")));
        check_size("64Mi", Err(Some("did you mean `64MiB`?")));
        check_size("64mb", Err(Some("did you mean `64MB`?")));
        check_size("64 KiB", Err(Some("expected one of the units B, KB, MB, GB, TB, KiB, MiB, GiB, TiB")));
        check_size("-1", Err(Some("expected a whole number with a unit, as `64KiB` or `100MB`")));
        check_size("99999999TiB", Err(None));
        check_size("99999999999999999999", Err(None));
    }

    #[test]
    fn addresses_say_what_was_meant() {
        for text in ["127.0.0.1:80", "[::1]:80", "[fe80::1%2]:80", "unix:/run/x.sock", "0.0.0.0:0"] {
            assert_eq!(address(text).unwrap().to_string(), text);
        }
        let rows = [
            ("8080", "did you mean `127.0.0.1:8080`?"),
            (":8080", "did you mean `0.0.0.0:8080`?"),
            ("*:8080", "did you mean `0.0.0.0:8080`?"),
            ("localhost:8080", "did you mean `127.0.0.1:8080`?"),
            ("10.0.0.1", "did you mean `10.0.0.1:8080`?"),
            ("::1", "did you mean `[::1]:8080`?"),
            ("/run/x", "did you mean `unix:/run/x`?"),
            ("unix:x", "expected `unix:/path/to/socket`"),
            ("app:80", "expected `ip:port`, `[v6]:port` or `unix:/path`"),
        ];
        for (text, hint) in rows {
            assert_eq!(address(text).unwrap_err().hint.as_deref(), Some(hint), "{text}");
        }
        assert!(address(&format!("unix:/{}", "x".repeat(107))).is_err());
    }

    #[test]
    fn networks() {
        for (text, expected) in
            [("10.0.0.0/8", "10.0.0.0/8"), ("10.1.2.3", "10.1.2.3/32"), ("fd00::1", "fd00::1/128")]
        {
            assert_eq!(network(text).unwrap().to_string(), expected);
        }
        assert_eq!(network("10.0.0.1/8").unwrap_err().hint.unwrap(), "did you mean `10.0.0.0/8`?");
        assert!(network("10.0.0.0/33").is_err());
    }

    proptest! {
        #[test]
        fn a_printed_duration_reads_back(nanos in 0..=8760_u64 * 3_600_000_000_000, unit in 0..6_usize) {
            let unit = u64::try_from(DURATION_UNITS[unit].1).unwrap();
            let expected = Duration::from_nanos(nanos / unit * unit);
            prop_assert_eq!(duration(&show_duration(expected)), Ok(expected));
        }

        #[test]
        fn a_printed_size_reads_back(bytes: u64, unit in 0..9_usize) {
            let expected = bytes / SIZE_UNITS[unit].1 * SIZE_UNITS[unit].1;
            prop_assert_eq!(size(&show_size(expected)), Ok(expected));
        }

        #[test]
        fn no_text_is_too_odd(text in "\\PC{0,12}") {
            let _ = (core(&text), whole(&text), duration(&text), size(&text), address(&text));
            let _ = (network(&text), host_and_port(&text));
        }
    }
}
