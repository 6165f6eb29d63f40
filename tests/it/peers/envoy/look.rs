//! Sends a case, and writes down what came of it at both ends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use outrigger_tests::h2client::H2;
use outrigger_tests::wire::{Fields, Message};
use outrigger_tests::{Client, Conn, Echo, Origin, Reply, Report};

use super::cases::{Case, Sent};

/// What came of a case, by the part of it.
pub(super) type View = BTreeMap<String, String>;

/// The part of a view that is there when the origin has seen the request.
pub(super) const TARGET: &str = "origin target";
/// No answer within this is none.
const PATIENCE: Duration = Duration::from_secs(10);
/// Fields of a response that count; others are the proxies' own.
const SHOWN: [&str; 12] = [
    "location",
    "content-type",
    "content-length",
    "transfer-encoding",
    "trailer",
    "set-cookie",
    "x-back",
    "keep-alive",
    "upgrade",
    "etag",
    "allow",
    "link",
];

/// What stands behind the proxies.
pub(super) enum Behind {
    /// HTTP/1.1: gives each case its answer.
    Http1(Origin),
    /// HTTP/2: answers with what it has seen.
    Http2(Echo),
}

/// What the origin has seen of a case.
struct Seen {
    start: [String; 3],
    fields: Fields,
    body: String,
    trailers: Fields,
}

impl Behind {
    pub(super) async fn http1(cases: &[Case]) -> Self {
        let replies: Arc<[&'static str]> = cases.iter().map(|case| case.reply).collect();
        let script = move |mut conn: Conn| {
            let replies = replies.clone();
            async move {
                while let Some(request) = conn.request().await {
                    let case: Option<usize> = request.field("x-case").and_then(|number| number.parse().ok());
                    let reply = replies[case.expect("the case's number passes through")];
                    conn.send(reply).await;
                    if reply.contains("Connection: close") {
                        return;
                    }
                }
            }
        };
        Self::Http1(Origin::start(script).await)
    }

    pub(super) async fn http2() -> Self {
        Self::Http2(Echo::start("origin").await)
    }

    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Http1(origin) => origin.socket(),
            Self::Http2(echo) => echo.address(),
        }
    }

    /// How a configuration calls what it speaks.
    pub(super) fn protocol(&self) -> &'static str {
        match self {
            Self::Http1(_) => "http1",
            Self::Http2(_) => "http2",
        }
    }

    /// What it has seen of a case; what it says of that is taken out of the answer.
    fn seen(&self, number: usize, answer: &mut Answer) -> Option<Seen> {
        let number = number.to_string();
        match self {
            Self::Http1(origin) => {
                let seen =
                    origin.requests().into_iter().find(|seen| seen.field("x-case") == Some(&number))?;
                let Message { start, fields, body, trailers, .. } = seen.message;
                let mut start = start.split(' ').map(str::to_owned);
                let start = std::array::from_fn(|_| start.next().unwrap_or_default());
                Some(Seen { start, fields, body: String::from_utf8_lossy(&body).into_owned(), trailers })
            }
            Self::Http2(_) => {
                answer.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-origin"))?;
                let Report { protocol, method, path, host, mut fields, length, trailers, .. } =
                    Report::parse(&std::mem::take(&mut answer.body));
                fields.push((":authority".to_owned(), host));
                Some(Seen {
                    start: [method, path, protocol],
                    fields,
                    body: format!("{length} bytes"),
                    trailers,
                })
            }
        }
    }
}

/// Sends a case through the proxy at `to`.
pub(super) async fn view(case: &Case, number: usize, to: SocketAddr, behind: &Behind) -> View {
    let sent = tokio::time::timeout(PATIENCE, send(case, number, to)).await;
    let mut answer =
        sent.unwrap_or_else(|_| Answer { status: "no answer in time".to_owned(), ..Answer::default() });
    let seen = behind.seen(number, &mut answer);
    let mut view = View::from([("status".to_owned(), answer.status.clone())]);
    if !answer.interim.is_empty() {
        view.insert("interim".to_owned(), answer.interim.join(" "));
    }
    // Of what a proxy answers by itself, only what it was told to say counts.
    let told = seen.is_some() || ["418", "301"].contains(&&*answer.status);
    let own =
        ["outrigger: ", "upstream connect error"].iter().any(|own| answer.body.starts_with(own.as_bytes()));
    if told && !own {
        view.insert("body".to_owned(), String::from_utf8_lossy(&answer.body).into_owned());
        let shown =
            answer.fields.iter().filter(|(name, _)| SHOWN.contains(&name.to_ascii_lowercase().as_str()));
        gather(&mut view, "response", shown);
        gather(&mut view, "response trailer", answer.trailers.iter());
    }
    if let Some(seen) = seen {
        add_seen(&mut view, seen);
    }
    view
}

fn add_seen(view: &mut View, seen: Seen) {
    let Seen { start, fields, body, trailers } = seen;
    view.extend(["origin method", TARGET, "origin version"].map(str::to_owned).into_iter().zip(start));
    view.insert("origin body".to_owned(), body);
    // What Envoy says to its own kind has no place with us.
    let foreign =
        |name: &str| name.eq_ignore_ascii_case("x-case") || name.to_ascii_lowercase().starts_with("x-envoy-");
    gather(view, "origin", fields.iter().filter(|(name, _)| !foreign(name)));
    gather(view, "origin trailer", trailers.iter());
    if let Some(chain) = view.get_mut("origin x-forwarded-for") {
        // A client on the same machine, Envoy calls by the machine's address on the network.
        let before = chain.rsplit_once(',').map_or("", |(before, _)| before);
        *chain = format!("{before}, client").trim_start_matches(", ").to_owned();
    }
}

/// Fields by name, whose case does not count; the order of the values of one name does.
fn gather<'a>(view: &mut View, part: &str, fields: impl Iterator<Item = &'a (String, String)>) {
    for (name, value) in fields {
        let key = format!("{part} {}", name.to_ascii_lowercase());
        view.entry(key)
            .and_modify(|values| *values += &format!(" | {value}"))
            .or_insert_with(|| value.clone());
    }
}

#[derive(Default)]
struct Answer {
    interim: Vec<String>,
    status: String,
    fields: Fields,
    body: Vec<u8>,
    trailers: Fields,
}

async fn send(case: &Case, number: usize, to: SocketAddr) -> Answer {
    match &case.sent {
        Sent::Raw { start, fields, body } => {
            let mut client = Client::connect(to).await;
            let fields = if fields.is_empty() { String::new() } else { format!("{fields}\r\n") };
            client.send(format!("{start}\r\n{fields}X-Case: {number}\r\n\r\n{body}")).await;
            raw_answer(&mut client, start.split(' ').next().unwrap_or_default()).await
        }
        Sent::H2 { method, uri, fields, body, trailers } => {
            let mut request = Request::builder().method(*method).uri(*uri).header("x-case", number);
            for (name, value) in *fields {
                request = request.header(*name, *value);
            }
            let trailers = (!trailers.is_empty()).then(|| {
                let field = |(name, value): &(&'static str, &'static str)| {
                    (HeaderName::from_static(name), HeaderValue::from_static(value))
                };
                trailers.iter().map(field).collect()
            });
            let client = H2::connect(to).await;
            match client.send(request.body(()).unwrap(), body.as_bytes().to_vec(), trailers).await {
                Ok(reply) => Answer {
                    interim: Vec::new(),
                    status: reply.status.to_string(),
                    fields: plain(&reply.headers),
                    body: reply.body,
                    trailers: plain(&reply.trailers.unwrap_or_default()),
                },
                Err(error) => Answer { status: format!("{:?}", error.reason()), ..Answer::default() },
            }
        }
    }
}

async fn raw_answer(client: &mut Client, method: &str) -> Answer {
    let mut interim = Vec::new();
    loop {
        let Some(reply) = client.try_reply_to(method).await else {
            return Answer { interim, status: "closed".to_owned(), ..Answer::default() };
        };
        let Reply { status, fields, body, trailers, .. } = reply;
        if (100..200).contains(&status) && status != 101 {
            interim.push(status.to_string());
            continue;
        }
        return Answer { interim, status: status.to_string(), fields, body, trailers };
    }
}

fn plain(headers: &HeaderMap) -> Fields {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}
