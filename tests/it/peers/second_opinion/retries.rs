//! What is sent again and what is not, how often and where; and when there is no more waiting.

use outrigger_tests::Client;

use super::stage::{Seen, Stage};
use super::{Differences, Envoy, Meant, Three, closed};

/// The route, the method, what the origins do of a request and of those after it on the connection, other fields of the request, and its body.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

/// What is sent again.
pub(super) const RETRIES: &[Row] = &[
    ("/plain", "GET", "503 200", "", ""),
    ("/plain", "GET", "reset 200", "", ""),
    // On a connection that has been used before.
    ("/plain", "GET", "kept; reset 200", "", ""),
    ("/plain", "POST", "kept; reset 200", "", "body"),
    ("/plain", "GET", "kept; kept", "", ""),
    // Any 5xx, or no answer at all.
    ("/5xx", "GET", "200", "", ""),
    ("/5xx", "GET", "500 200", "", ""),
    ("/5xx", "GET", "503 500 200", "", ""),
    ("/5xx", "GET", "599 200", "", ""),
    ("/5xx", "GET", "500", "", ""),
    ("/5xx", "GET", "500 503 502 200", "", ""),
    ("/5xx", "GET", "404 200", "", ""),
    ("/5xx", "GET", "429 200", "", ""),
    ("/5xx", "GET", "500 404 200", "", ""),
    ("/5xx", "GET", "reset 200", "", ""),
    ("/5xx", "GET", "reset", "", ""),
    ("/5xx", "GET", "half 200", "", ""),
    ("/5xx", "HEAD", "500 200", "", ""),
    ("/5xx", "OPTIONS", "500 200", "", ""),
    ("/5xx", "DELETE", "500 200", "", ""),
    ("/5xx", "PUT", "500 200", "", "body"),
    ("/5xx", "PUT", "reset 200", "", "body"),
    ("/5xx", "POST", "500 200", "", "body"),
    ("/5xx", "POST", "reset 200", "", "body"),
    ("/5xx", "PATCH", "500 200", "", "body"),
    ("/posts", "POST", "500 200", "", "body"),
    ("/posts", "POST", "reset 200", "", "body"),
    ("/posts", "POST", "500", "", "body"),
    // Gateways.
    ("/gateway", "GET", "502 200", "", ""),
    ("/gateway", "GET", "503 200", "", ""),
    ("/gateway", "GET", "504 200", "", ""),
    ("/gateway", "GET", "500 200", "", ""),
    ("/gateway", "GET", "501 200", "", ""),
    ("/gateway", "GET", "505 200", "", ""),
    ("/gateway", "GET", "reset 200", "", ""),
    // 409, and statuses by number.
    ("/4xx", "GET", "409 200", "", ""),
    ("/4xx", "GET", "404 200", "", ""),
    ("/4xx", "GET", "408 200", "", ""),
    ("/4xx", "GET", "500 200", "", ""),
    ("/4xx", "GET", "409", "", ""),
    ("/status", "GET", "425 200", "", ""),
    ("/status", "GET", "500 200", "", ""),
    ("/status", "GET", "503 200", "", ""),
    ("/status", "GET", "reset 200", "", ""),
    ("/all", "GET", "429 503 500 200", "", ""),
    ("/all", "GET", "429 404 200", "", ""),
    // No answer.
    ("/reset", "GET", "reset 200", "", ""),
    ("/reset", "GET", "half 200", "", ""),
    ("/reset", "GET", "503 200", "", ""),
    ("/reset", "GET", "reset", "", ""),
    // What is begun is not done again.
    ("/5xx", "GET", "begun 200", "", ""),
    ("/reset", "GET", "begun 200", "", ""),
    // No connection.
    ("/connect", "GET", "503 200", "", ""),
    ("/connect", "GET", "reset 200", "", ""),
    ("/closed", "GET", "200", "", ""),
    ("/nobody", "GET", "200", "", ""),
    ("/half-closed", "GET", "200", "", ""),
    ("/half-closed", "GET", "200", "", ""),
    ("/half-closed", "POST", "200", "", "body"),
    ("/half-closed", "POST", "200", "", "body"),
    // As often as is said, and no more than there is room for.
    ("/once", "GET", "500 200", "", ""),
    ("/unbudgeted", "GET", "500 200", "", ""),
    ("/broken", "GET", "500 200", "", ""),
    // Elsewhere.
    ("/other", "GET", "500 200", "", ""),
    ("/other", "GET", "reset 200", "", ""),
    ("/other", "GET", "503", "", ""),
    // What servers ask for.
    ("/5xx", "GET", "503-0 200", "", ""),
    ("/5xx", "GET", "503-60 200", "", ""),
    // gRPC: only of calls, and only those statuses.
    ("/grpc", "POST", "grpc-14 grpc-0", "content-type: application/grpc", ""),
    ("/grpc", "POST", "grpc-8 grpc-0", "content-type: application/grpc", ""),
    ("/grpc", "POST", "grpc-13 grpc-0", "content-type: application/grpc", ""),
    ("/grpc", "POST", "grpc-0", "content-type: application/grpc", ""),
    ("/grpc", "POST", "grpc-14", "content-type: application/grpc", ""),
    ("/grpc", "GET", "503 200", "", ""),
    // What a client says of it.
    ("/plain", "GET", "503 200", "x-envoy-retry-on: 5xx", ""),
    ("/5xx", "GET", "500", "x-envoy-max-retries: 1", ""),
    (
        "/status",
        "GET",
        "410 200",
        "x-envoy-retry-on: retriable-status-codes|x-envoy-retriable-status-codes: 410",
        "",
    ),
    ("/5xx", "GET", "500", "x-outrigger-attempt: 3", ""),
    // What is said of it.
    ("/says", "GET", "200", "", ""),
    ("/says", "GET", "500 200", "", ""),
    ("/says", "GET", "500", "", ""),
];

/// When it is enough.
pub(super) const TIMEOUTS: &[Row] = &[
    ("/timeout", "GET", "200", "", ""),
    ("/timeout", "GET", "silent", "", ""),
    ("/timeout", "POST", "silent", "", "body"),
    ("/timeout", "GET", "stalled", "", ""),
    ("/timeout", "POST", "silent", "content-type: application/grpc", ""),
    ("/timeout-retried", "GET", "silent 200", "", ""),
    ("/timeout-retried", "GET", "500 silent 200", "", ""),
    ("/timeout-long", "POST", "silent", "content-type: application/grpc|grpc-timeout: 700m", ""),
    ("/plain", "POST", "silent", "content-type: application/grpc|grpc-timeout: 700m", ""),
    ("/timeout", "POST", "silent", "content-type: application/grpc|grpc-timeout: 1H", ""),
    ("/timeout-long", "POST", "grpc-0", "content-type: application/grpc|grpc-timeout: 20S", ""),
    ("/timeout-long", "GET", "late", "grpc-timeout: 300m", ""),
    ("/per-try", "GET", "silent 200", "", ""),
    ("/per-try", "GET", "silent", "", ""),
    ("/per-try", "POST", "silent 200", "", "body"),
    ("/per-try-gateway", "GET", "silent 200", "", ""),
    ("/per-try-reset", "GET", "silent 200", "", ""),
    ("/per-try-connect", "GET", "silent 200", "", ""),
    ("/timeout-long", "GET", "late", "x-envoy-upstream-rq-timeout-ms: 300", ""),
    ("/timeout", "GET", "late", "x-envoy-upstream-rq-timeout-ms: 10000", ""),
    ("/per-try", "GET", "late 200", "x-envoy-upstream-rq-per-try-timeout-ms: 10000", ""),
];

/// What came of it: the status, and who was asked. Where that counts, what was said of it, too.
fn shown(seen: &Seen, route: &str) -> String {
    let came = format!("{} of {}", seen.status(), seen.tried());
    if route != "/says" {
        return came;
    }
    let asked = seen.attempts.iter().map(|(_, request)| request.field("x-outrigger-attempt").unwrap_or("-"));
    let asked: Vec<_> = asked.collect();
    let told = seen.reply.as_ref().and_then(|reply| reply.field("x-outrigger-retried")).unwrap_or("-");
    format!("{came}, asked as {}, told {told}", asked.join(", "))
}

/// What is meant to differ.
const RETRIES_MEANT: Meant = &[
    ("/plain GET reset 200", NO_ANSWER),
    ("/plain POST kept; reset 200", NO_ANSWER),
    ("/5xx GET reset ", NO_ANSWER),
    ("/status GET reset 200", NO_ANSWER),
    ("/reset GET reset ", NO_ANSWER),
    ("/connect GET reset 200", NO_ANSWER),
    (
        "/plain GET kept; reset 200",
        "an idle connection that ends as it is used again has most likely been given up before: what may be repeated is \
         (RFC 9112 section 9.3.1); Envoy leaves that to clients",
    ),
    ("/5xx POST", NOT_IDEMPOTENT),
    ("/5xx PATCH", NOT_IDEMPOTENT),
    (
        "/gateway GET reset 200",
        "a gateway's error is what a gateway has said; who wants more writes `reset`; to Envoy no answer is one",
    ),
    (
        "/broken GET 500 200",
        "a limit is kept whatever else is said; in Envoy a budget takes the place of `max_retries`, which travels beside",
    ),
    (
        "/5xx GET 503-60 200",
        "a server that asks to be left alone for a minute is; Envoy looks at `retry-after` only where it is told to, and at \
         no more than that",
    ),
    (
        "/says",
        "an origin is told which attempt it sees, and whoever asked us that more would be in vain, so that retries of retries \
         do not multiply; Envoy has fields of its own for the first, when told to, and none for the second",
    ),
];
const TIMEOUTS_MEANT: Meant = &[
    ("/per-try POST silent 200", NOT_IDEMPOTENT),
    (
        "/timeout-long GET late grpc-timeout: 300m",
        "what a call grants is a matter of calls; Envoy holds whatever bears the field to it",
    ),
];
const NO_ANSWER: &str =
    "502 is an upstream that ends a connection without an answer; to Envoy all is 503 that fails there";
const NOT_IDEMPOTENT: &str = "what is not idempotent, and may have been carried out, is not sent again unless the route says \
     `non_idempotent` (RFC 9110 section 9.2.2); Envoy's policies know no methods";

async fn compare(rows: &[Row], meant: Meant) {
    let Some(envoy) = Envoy::find().await else { return };
    let stage = Stage::start(&["a", "b"]).await;
    let document = stage.placed(include_str!("retries.yaml")).replace("@closed", &closed().await);
    let three = Three::start(&envoy, &document).await;
    let mut differences = Differences::new(meant);
    for (route, method, plays, fields, body) in rows {
        let fields: String =
            fields.split('|').filter(|field| !field.is_empty()).map(|field| format!("{field}\r\n")).collect();
        let request = |play: &str| {
            let length = body.len();
            format!(
                "{method} {route} HTTP/1.1\r\nHost: test\r\nx-play: {play}\r\nContent-Length: {length}\r\n{fields}"
            )
        };
        let came = three.each("web", async |address| {
            let (mut client, mut all) = (Client::connect(address).await, Vec::new());
            for play in plays.split("; ") {
                all.push(shown(&stage.ask(&mut client, &request(play), body).await, route));
            }
            all.join("; ")
        });
        let name = format!("{route} {method} {plays} {}", fields.trim_end().replace("\r\n", " "));
        differences.note(&name, came.await);
    }
    differences.end(rows.len());
}

#[tokio::test]
async fn of_what_is_sent_again_all_three_mean_the_same() {
    compare(RETRIES, RETRIES_MEANT).await;
}

#[tokio::test]
async fn of_when_it_is_enough_all_three_mean_the_same() {
    compare(TIMEOUTS, TIMEOUTS_MEANT).await;
}
