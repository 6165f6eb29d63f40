use outrigger_proto::model::Address;
use proptest::prelude::*;

use super::*;
use crate::observe::access_log::Peer;

static ENDPOINT: std::sync::LazyLock<Address> =
    std::sync::LazyLock::new(|| Address::Ip(([127, 0, 0, 1], 9001).into()));

/// A request like many.
pub(in crate::observe) fn request() -> Record<'static> {
    Record {
        start: UNIX_EPOCH + Duration::from_millis(1_795_441_260_123),
        duration: Duration::from_micros(1234),
        protocol: "HTTP/1.1",
        client: Peer::Ip(([10, 0, 0, 1], 5555).into()),
        listener: "web",
        route: "web.routes[2]",
        method: "GET",
        host: b"shop",
        path: b"/cart",
        query: Some(b"x=1"),
        user_agent: b"curl/8.0",
        status: 200,
        flag: "-",
        reason: "",
        bytes_received: 0,
        bytes_sent: 1234,
        cluster: "cart",
        endpoint: Some(&ENDPOINT),
        attempts: 1,
        identity: "",
        authorization: "",
        fallback: "",
        connect: None,
        first_byte: Some(Duration::from_micros(980)),
    }
}

fn refused() -> Record<'static> {
    Record {
        client: Peer::Unix,
        method: "POST",
        host: b"a\" b",
        path: b"/x\r\n2026-01-01",
        query: None,
        user_agent: b"\x1b[31m \"\xff",
        status: 503,
        flag: "UF",
        reason: "connect_refused",
        route: "",
        attempts: 2,
        identity: "",
        authorization: "",
        fallback: "",
        connect: Some(Duration::from_millis(5)),
        first_byte: None,
        ..request()
    }
}

fn tcp() -> Record<'static> {
    Record {
        duration: Duration::from_secs(61),
        protocol: "TCP",
        listener: "database",
        route: "",
        method: "",
        host: b"",
        path: b"",
        query: None,
        user_agent: b"",
        status: 0,
        bytes_received: u64::MAX,
        cluster: "",
        endpoint: None,
        attempts: 0,
        identity: "",
        authorization: "",
        fallback: "",
        first_byte: None,
        ..request()
    }
}

fn written(format: LogFormat, record: &Record<'_>) -> String {
    let mut out = Vec::new();
    line(format, &mut Clock::default(), record, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn golden() {
    #[track_caller]
    fn check(record: &Record<'_>, text: &str, json: &str) {
        assert_eq!(written(LogFormat::Text, record), format!("{text}\n"));
        assert_eq!(written(LogFormat::Json, record), format!("{json}\n"));
    }
    check(
        &request(),
        r#"2026-11-23T13:41:00.123Z web 10.0.0.1:5555 "GET shop/cart?x=1 HTTP/1.1" 200 - 0/1234B 1.234ms cart 127.0.0.1:9001 route=web.routes[2] first_byte=0.980ms user_agent="curl/8.0""#,
        r#"{"@timestamp":"2026-11-23T13:41:00.123Z","listener":"web","client":"10.0.0.1:5555","protocol":"HTTP/1.1","method":"GET","host":"shop","path":"/cart?x=1","route":"web.routes[2]","status":200,"bytes_in":0,"bytes_out":1234,"duration_ms":1.234,"cluster":"cart","endpoint":"127.0.0.1:9001","attempts":1,"first_byte_ms":0.980,"user_agent":"curl/8.0"}"#,
    );
    check(
        &refused(),
        r#"2026-11-23T13:41:00.123Z web unix "POST a\"\x20b/x\r\n2026-01-01 HTTP/1.1" 503 UF 0/1234B 1.234ms cart 127.0.0.1:9001 reason=connect_refused attempts=2 connect=5.000ms user_agent="\x1b[31m \"\xff""#,
        r#"{"@timestamp":"2026-11-23T13:41:00.123Z","listener":"web","client":"unix","protocol":"HTTP/1.1","method":"POST","host":"a\" b","path":"/x\r\n2026-01-01","status":503,"flag":"UF","reason":"connect_refused","bytes_in":0,"bytes_out":1234,"duration_ms":1.234,"cluster":"cart","endpoint":"127.0.0.1:9001","attempts":2,"connect_ms":5.000,"user_agent":"\u001b[31m \"�"}"#,
    );
    check(
        &tcp(),
        r#"2026-11-23T13:41:00.123Z database 10.0.0.1:5555 "TCP" - - 18446744073709551615/1234B 61000.000ms - -"#,
        r#"{"@timestamp":"2026-11-23T13:41:00.123Z","listener":"database","client":"10.0.0.1:5555","protocol":"TCP","bytes_in":18446744073709551615,"bytes_out":1234,"duration_ms":61000.000}"#,
    );
}

#[test]
fn addresses() {
    #[track_caller]
    fn check(address: &str, json: &str, bare: &str) {
        let address = match address.strip_prefix("unix:") {
            Some(path) => Address::Unix(path.into()),
            None => Address::Ip(address.parse().unwrap()),
        };
        let write = |style| {
            let mut out = Vec::new();
            super::address(style, &address, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!([write(Style::Json), write(Style::Bare)], [json, bare]);
    }
    check("0.0.0.0:0", "0.0.0.0:0", "0.0.0.0:0");
    check("255.10.0.1:65535", "255.10.0.1:65535", "255.10.0.1:65535");
    check("[2001:db8::1]:80", "[2001:db8::1]:80", "[2001:db8::1]:80");
    check("unix:/run/a \"b\"", "unix:/run/a \\\"b\\\"", "unix:/run/a\\x20\\\"b\\\"");
}

#[test]
fn times() {
    #[track_caller]
    fn check(clock: &mut Clock, at: SystemTime, expected: &str) {
        let mut out = Vec::new();
        clock.write(at, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
    let at = |seconds, millis: u32| UNIX_EPOCH + Duration::new(seconds, millis * 1_000_000);
    let mut clock = Clock::default();
    check(&mut clock, at(0, 0), "1970-01-01T00:00:00.000Z");
    check(&mut clock, at(0, 999), "1970-01-01T00:00:00.999Z");
    check(&mut clock, at(68_169_600, 1), "1972-02-29T00:00:00.001Z");
    check(&mut clock, at(951_782_399, 20), "2000-02-28T23:59:59.020Z");
    check(&mut clock, at(951_782_400, 0), "2000-02-29T00:00:00.000Z");
    check(&mut clock, at(951_868_800, 0), "2000-03-01T00:00:00.000Z");
    check(&mut clock, at(1_735_689_599, 0), "2024-12-31T23:59:59.000Z");
    check(&mut clock, at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    check(&mut clock, at(LAST, 5), "9999-12-31T23:59:59.005Z");
    check(&mut clock, at(LAST + 1, 5), "9999-12-31T23:59:59.005Z");
    check(&mut clock, UNIX_EPOCH - Duration::from_secs(1), "1970-01-01T00:00:00.000Z");
}

/// Day after day for a whole era, against a calendar that is counted on the fingers.
#[test]
fn the_calendar_has_no_gaps() {
    let (mut year, mut month, mut day) = (1970, 1, 1);
    for days in 0..146_097 {
        assert_eq!(civil(days), (year, month, day));
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = match month {
            2 => 28 + u64::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        day += 1;
        if day > length {
            (month, day) = (month + 1, 1);
        }
        if month > 12 {
            (year, month) = (year + 1, 1);
        }
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..40)
}

proptest! {
    #[test]
    fn json_reads_back(
        (host, path, query) in (bytes(), bytes(), prop::option::of(bytes())),
        (agent, method) in (bytes(), ".*"),
        (sent, micros) in (any::<u64>(), 0..u64::from(u32::MAX)),
    ) {
        let record = Record {
            host: &host,
            path: &path,
            query: query.as_deref(),
            user_agent: &agent,
            method: &method,
            bytes_sent: sent,
            duration: Duration::from_micros(micros),
            ..request()
        };
        let json = written(LogFormat::Json, &record);
        let body = json.strip_suffix('\n').unwrap();
        prop_assert!(!body.chars().any(char::is_control));
        let value: serde_json::Value = serde_json::from_str(body).unwrap();
        let read = |key: &str| value.get(key).map_or("", |value| value.as_str().unwrap()).to_owned();
        prop_assert_eq!(read("host"), String::from_utf8_lossy(&host));
        prop_assert_eq!(read("user_agent"), String::from_utf8_lossy(&agent));
        prop_assert_eq!(read("method"), method);
        let target = match &query {
            Some(query) => format!("{}?{}", String::from_utf8_lossy(&path), String::from_utf8_lossy(query)),
            None => String::from_utf8_lossy(&path).into_owned(),
        };
        prop_assert_eq!(read("path"), target);
        prop_assert_eq!(value["bytes_out"].as_u64(), Some(sent));
        prop_assert!((value["duration_ms"].as_f64().unwrap() * 1000.0 - micros as f64).abs() < 0.001);
    }

    #[test]
    fn text_is_one_line_of_ten_fields(host in bytes(), path in bytes(), agent in bytes()) {
        let record = Record { host: &host, path: &path, user_agent: &agent, ..request() };
        let text = written(LogFormat::Text, &record);
        let body = text.strip_suffix('\n').unwrap();
        prop_assert!(!body.chars().any(char::is_control));
        let fields: Vec<_> = body.split(' ').collect();
        prop_assert_eq!((fields[3], fields[5], fields[6]), ("\"GET", "HTTP/1.1\"", "200"));
        prop_assert_eq!(fields[11], "127.0.0.1:9001");
    }
}
