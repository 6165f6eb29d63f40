//! The two shapes of an access log line: JSON for machines, text for people. The shapes are fixed and compiled.
//!
//! JSON keys are short; `@timestamp` and the flat names suit the Elastic Common Schema's ingest without a parser.
//! Times are RFC 3339, UTC, with milliseconds. Nothing here allocates but the buffer itself.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outrigger_proto::model::{Address, LogFormat};

use super::access_log::{Peer, Record};
use super::escape::{Escaped, Style, escape, put};

/// Appends a line, with its end.
pub(super) fn line(format: LogFormat, clock: &mut Clock, record: &Record<'_>, out: &mut Vec<u8>) {
    match format {
        LogFormat::Json => json(clock, record, out),
        LogFormat::Text => text(clock, record, out),
    }
}

/// Taken apart whole, so that a new field stops the build here; the other shape stands below.
fn json(clock: &mut Clock, record: &Record<'_>, out: &mut Vec<u8>) {
    let Record {
        start,
        duration,
        protocol,
        client,
        listener,
        route,
        method,
        host,
        path,
        query,
        user_agent,
        status,
        flag,
        reason,
        bytes_received,
        bytes_sent,
        cluster,
        endpoint,
        attempts,
        identity,
        authorization,
        fallback,
        connect,
        first_byte,
    } = *record;
    out.extend_from_slice(b"{\"@timestamp\":\"");
    clock.write(start, out);
    out.push(b'"');
    string("listener", listener.as_bytes(), out);
    key("client", out);
    out.push(b'"');
    peer(client, out);
    out.push(b'"');
    string("protocol", protocol.as_bytes(), out);
    string("method", method.as_bytes(), out);
    string("host", host, out);
    target("path", path, query, out);
    string("route", route.as_bytes(), out);
    integer("status", (status != 0).then_some(status.into()), out);
    string("flag", if flag == "-" { b"" } else { flag.as_bytes() }, out);
    string("reason", reason.as_bytes(), out);
    integer("bytes_in", Some(bytes_received), out);
    integer("bytes_out", Some(bytes_sent), out);
    time("duration_ms", Some(duration), out);
    string("cluster", cluster.as_bytes(), out);
    if let Some(endpoint) = endpoint {
        key("endpoint", out);
        out.push(b'"');
        address(Style::Json, endpoint, out);
        out.push(b'"');
    }
    integer("attempts", (attempts != 0).then_some(attempts.into()), out);
    string("identity", identity.as_bytes(), out);
    string("authorization", authorization.as_bytes(), out);
    string("fallback", fallback.as_bytes(), out);
    time("connect_ms", connect, out);
    time("first_byte_ms", first_byte, out);
    string("user_agent", user_agent, out);
    out.extend_from_slice(b"}\n");
}

fn key(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// An empty string is left out.
fn string(name: &str, value: &[u8], out: &mut Vec<u8>) {
    if !value.is_empty() {
        key(name, out);
        out.push(b'"');
        escape(Style::Json, value, out);
        out.push(b'"');
    }
}

fn target(name: &str, path: &[u8], query: Option<&[u8]>, out: &mut Vec<u8>) {
    if path.is_empty() && query.is_none() {
        return;
    }
    key(name, out);
    out.push(b'"');
    escape(Style::Json, path, out);
    if let Some(query) = query {
        out.push(b'?');
        escape(Style::Json, query, out);
    }
    out.push(b'"');
}

fn integer(name: &str, value: Option<u64>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        key(name, out);
        number(value, out);
    }
}

fn time(name: &str, took: Option<Duration>, out: &mut Vec<u8>) {
    if let Some(took) = took {
        key(name, out);
        millis(took, out);
    }
}

/// Fields in fixed places (`-` stands for what is not known), then what else is known as `key=value`.
fn text(clock: &mut Clock, record: &Record<'_>, out: &mut Vec<u8>) {
    let Record { start, duration, client, listener, status, flag, bytes_received, bytes_sent, .. } = *record;
    let Record { cluster, endpoint, .. } = *record;
    clock.write(start, out);
    bare(listener, out);
    out.push(b' ');
    peer(client, out);
    text_request(record, out);
    if status == 0 {
        out.push(b'-')
    } else {
        number(status.into(), out)
    }
    bare(flag, out);
    out.push(b' ');
    number(bytes_received, out);
    out.push(b'/');
    number(bytes_sent, out);
    out.extend_from_slice(b"B ");
    millis(duration, out);
    out.extend_from_slice(b"ms");
    bare(cluster, out);
    out.push(b' ');
    match endpoint {
        Some(endpoint) => address(Style::Bare, endpoint, out),
        None => out.push(b'-'),
    }
    text_rest(record, out);
}

/// What is known beside.
fn text_rest(record: &Record<'_>, out: &mut Vec<u8>) {
    let Record {
        route,
        reason,
        attempts,
        identity,
        fallback,
        connect,
        first_byte,
        user_agent,
        authorization,
        ..
    } = *record;
    let words =
        [(" route=", route), (" reason=", reason), (" identity=", identity), (" fallback=", fallback)];
    for (name, value) in words {
        if !value.is_empty() {
            out.extend_from_slice(name.as_bytes());
            escape(Style::Bare, value.as_bytes(), out);
        }
    }
    if attempts > 1 {
        put(out, format_args!(" attempts={attempts}"));
    }
    for (name, took) in [(" connect=", connect), (" first_byte=", first_byte)] {
        if let Some(took) = took {
            out.extend_from_slice(name.as_bytes());
            millis(took, out);
            out.extend_from_slice(b"ms");
        }
    }
    for (name, value) in [(" authorization=", authorization.as_bytes()), (" user_agent=", user_agent)] {
        if !value.is_empty() {
            out.extend_from_slice(name.as_bytes());
            out.push(b'"');
            escape(Style::Quoted, value, out);
            out.push(b'"');
        }
    }
    out.push(b'\n');
}

/// ` "GET shop/cart?x=1 HTTP/1.1" `, or ` "TCP" `.
fn text_request(record: &Record<'_>, out: &mut Vec<u8>) {
    let Record { protocol, method, host, path, query, .. } = *record;
    out.extend_from_slice(b" \"");
    if !method.is_empty() {
        escape(Style::Bare, method.as_bytes(), out);
        out.push(b' ');
        // A space within would make one request look like another.
        escape(Style::Bare, host, out);
        escape(Style::Bare, path, out);
        if let Some(query) = query {
            out.push(b'?');
            escape(Style::Bare, query, out);
        }
        out.push(b' ');
    }
    escape(Style::Bare, protocol.as_bytes(), out);
    out.extend_from_slice(b"\" ");
}

/// A space and a field; `-` stands for an empty one.
fn bare(value: &str, out: &mut Vec<u8>) {
    out.push(b' ');
    escape(Style::Bare, if value.is_empty() { b"-" } else { value.as_bytes() }, out);
}

fn peer(client: Peer, out: &mut Vec<u8>) {
    match client {
        Peer::Ip(address) => socket(address, out),
        Peer::Unix => out.extend_from_slice(b"unix"),
    }
}

fn address(style: Style, address: &Address, out: &mut Vec<u8>) {
    match address {
        Address::Ip(address) => socket(*address, out),
        Address::Unix(_) => write!(Escaped(style, out), "{address}").expect("a Vec takes every write"),
    }
}

/// Most addresses are IPv4, and there are two in each line: worth not going through `Display`.
fn socket(address: SocketAddr, out: &mut Vec<u8>) {
    let SocketAddr::V4(address) = address else { return put(out, format_args!("{address}")) };
    for (octet, mark) in address.ip().octets().into_iter().zip(*b"...:") {
        number(octet.into(), out);
        out.push(mark);
    }
    number(address.port().into(), out);
}

/// Milliseconds, with microseconds behind the point.
fn millis(took: Duration, out: &mut Vec<u8>) {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    number(micros / 1000, out);
    out.push(b'.');
    digits::<3>(micros % 1000, out);
}

fn number(mut value: u64, out: &mut Vec<u8>) {
    let mut text = [0; 20];
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break out.extend_from_slice(&text[at..]);
        }
    }
}

/// The last `N` digits.
fn digits<const N: usize>(mut value: u64, out: &mut Vec<u8>) {
    let mut text = [b'0'; N];
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&text);
}

const DAY: u64 = 24 * 60 * 60;
/// The last second of the year 9999: RFC 3339 has four digits.
const LAST: u64 = 253_402_300_799;

/// Writes times of day. What does not change within a second is kept from one line to the next.
#[derive(Debug, Default)]
pub(super) struct Clock {
    second: Option<u64>,
    text: Vec<u8>,
}

impl Clock {
    fn write(&mut self, at: SystemTime, out: &mut Vec<u8>) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since.as_secs().min(LAST);
        if self.second != Some(second) {
            self.second = Some(second);
            self.text.clear();
            date(second, &mut self.text);
        }
        out.extend_from_slice(&self.text);
        digits::<3>(since.subsec_millis().into(), out);
        out.push(b'Z');
    }
}

/// `2026-11-23T13:41:00.`
fn date(second: u64, out: &mut Vec<u8>) {
    let (year, month, day) = civil(second / DAY);
    let time = second % DAY;
    digits::<4>(year, out);
    for (mark, value) in
        [(b'-', month), (b'-', day), (b'T', time / 3600), (b':', time / 60 % 60), (b':', time % 60)]
    {
        out.push(mark);
        digits::<2>(value, out);
    }
    out.push(b'.');
}

/// Year, month and day of the Gregorian calendar, from the days since 1970-01-01.
///
/// Years are counted from March, so that the day that is sometimes missing comes last. 400 years have 146,097 days,
/// 100 years 36,524 (the fourth hundred one more), 4 years 1,461; five months from March on have 153.
fn civil(days: u64) -> (u64, u64, u64) {
    // From 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (year * 365 + year / 4 - year / 100);
    let month = (day * 5 + 2) / 153;
    let day = day - (month * 153 + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
#[path = "format_tests.rs"]
pub(super) mod tests;
