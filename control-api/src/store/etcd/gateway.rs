//! etcd over HTTP: the JSON form of its gRPC services that every member answers with beside them
//! (<https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/>). The store blocks, as the file does; this way it needs no client of
//! gRPC that waits.

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrigger_proto::model::{Etcd as Settings, PlaneTls};
use serde_json::{Value, json};
use tokio::time::Instant;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::typestate::WithBody;
use ureq::{Agent, RequestBuilder};

use crate::pem;
use crate::store::StoreError;

/// For a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// For an answer: an etcd that elects somebody takes about a second.
const PATIENCE: Duration = Duration::from_secs(5);
/// A watch that hears nothing for so long begins anew: its connection may be a dead one.
const SILENCE: Duration = Duration::from_secs(10);
/// Keys read at once.
const PAGE: usize = 500;
/// Bytes of an answer.
const LARGEST: u64 = 256 << 20;
/// What etcd takes at once, less than it does by default.
pub(super) const MOST_OPERATIONS: usize = 100;
/// The same, in bytes.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// Codes of gRPC.
const DEADLINE_EXCEEDED: u64 = 4;
const UNAVAILABLE: u64 = 14;
const UNAUTHENTICATED: u64 = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Gateway {
    settings: Settings,
    /// The endpoint that answered last.
    at: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Its idle connections are of a time when all went well.
    agent: Agent,
    /// By which it is known who asks; empty where it is nobody.
    token: String,
    /// Why it does not answer.
    away: Option<String>,
}

/// A key and what it says, as it was at a revision of etcd's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// `None` where it was taken away.
    pub(super) value: Option<String>,
    pub(super) at: u64,
}

/// What became of a transaction.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) succeeded: bool,
    /// What was read, in order.
    pub(super) ranges: Vec<Vec<Entry>>,
    pub(super) at: u64,
}

/// Why a watch has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It goes on from where it was.
    Cut,
    /// What it would tell is forgotten.
    Compacted,
}

/// Why there is no answer.
enum Failure {
    /// Nothing was asked.
    Unheard(String),
    /// It may have been done.
    Cut(String),
    /// What shows who asks has lapsed.
    Stranger(String),
    /// It is refused.
    Refused(String),
}

impl Gateway {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let state = State { agent: agent(settings)?, token: String::new(), away: None };
        Ok(Self { settings: settings.clone(), at: AtomicUsize::new(0), state: Mutex::new(state) })
    }

    /// Why it does not answer, if it does not.
    pub(super) fn away(&self) -> Option<String> {
        self.state().away.clone()
    }

    /// Does these things (`put`, `delete`, `range`) if all of that holds (`is`, `absent`).
    ///
    /// # Errors
    /// It is not done, or where etcd went away meanwhile, it may be.
    pub(super) fn transact(&self, compare: &[Value], operations: &[Value]) -> Result<Answer, StoreError> {
        let body = json!({ "compare": compare, "success": operations });
        let answer = self.ask("kv/txn", &body)?;
        let responses = answer["responses"].as_array().into_iter().flatten();
        let ranges = responses.filter_map(|response| {
            let range = response.get("response_range")?;
            Some(entries(&range["kvs"]))
        });
        let ranges = ranges.collect::<Result<_, _>>()?;
        let succeeded = answer["succeeded"] == true;
        Ok(Answer { succeeded, ranges, at: number(&answer["header"]["revision"]) })
    }

    /// The keys from one up to another, so many at the most, in their order; and at which revision of etcd's.
    pub(super) fn range(
        &self,
        (from, to): (&str, &str),
        most: usize,
    ) -> Result<(Vec<Entry>, u64), StoreError> {
        let (mut all, mut from, mut at) = (Vec::new(), from.to_owned(), 0);
        loop {
            let page = PAGE.min(most - all.len());
            // To etcd none at the most is all.
            if page == 0 {
                return Ok((all, at));
            }
            let body = json!({ "key": coded(&from), "range_end": coded(to), "limit": page, "revision": at });
            let answer = self.ask("kv/range", &body)?;
            let more = entries(&answer["kvs"])?;
            // All of it is of one moment.
            at = if at == 0 { number(&answer["header"]["revision"]) } else { at };
            let is_last = more.len() < page;
            if let Some(last) = more.last() {
                from = format!("{}\0", last.key);
            }
            all.extend(more);
            if is_last {
                return Ok((all, at));
            }
        }
    }

    /// What a key says.
    pub(super) fn get(&self, key: &str) -> Result<Option<String>, StoreError> {
        let answer = self.ask("kv/range", &json!({ "key": coded(key) }))?;
        Ok(entries(&answer["kvs"])?.pop().and_then(|entry| entry.value))
    }

    /// A lease that ends in so many seconds, unless it is kept.
    pub(super) fn grant(&self, seconds: u64) -> Result<String, StoreError> {
        let answer = self.ask("lease/grant", &json!({ "TTL": seconds.to_string() }))?;
        let id = answer["ID"].as_str().map(str::to_owned);
        id.ok_or_else(|| StoreError::Broken(format!("etcd grants no lease: {answer}")))
    }

    /// Keeps a lease; whether there is one to be kept.
    pub(super) fn keep(&self, lease: &str) -> Result<bool, StoreError> {
        let answer = self.ask("lease/keepalive", &json!({ "ID": lease }))?;
        Ok(number(&answer["result"]["TTL"]) > 0)
    }

    /// Ends a lease, and what was written under it.
    pub(super) fn revoke(&self, lease: &str) -> Result<(), StoreError> {
        self.ask("lease/revoke", &json!({ "ID": lease })).map(drop)
    }

    /// Tells of what happens to these keys from a revision of etcd's on, all that happened at one together.
    pub(super) fn watch(
        &self,
        (from, to): (&str, &str),
        since: u64,
        mut tell: impl FnMut(Vec<Entry>),
    ) -> Result<Ended, StoreError> {
        let create =
            json!({ "key": coded(from), "range_end": coded(to), "start_revision": since.to_string() });
        let body = json!({ "create_request": create });
        let request = self.request(self.endpoint().1, "watch");
        let config = request.config().timeout_global(None).timeout_per_read(Some(SILENCE));
        let answer = config.build().send_json(&body);
        let answer = answer.map_err(|error| self.lost(&error.to_string()))?;
        if !answer.status().is_success() {
            return Err(StoreError::Away(format!("it answers {} to a watch", answer.status())));
        }
        for line in BufReader::new(answer.into_body().into_reader()).lines() {
            let line = match line {
                Ok(line) => line,
                Err(error) if is_silence(&error) => return Ok(Ended::Cut),
                Err(error) => return Err(self.lost(&error.to_string())),
            };
            let said: Value = serde_json::from_str(&line).map_err(|error| self.lost(&error.to_string()))?;
            let result = &said["result"];
            if result["canceled"] == true && number(&result["compact_revision"]) > 0 {
                return Ok(Ended::Compacted);
            }
            if result["canceled"] == true || result.is_null() {
                return Err(StoreError::Away(format!("it ends a watch: {said}")));
            }
            let events = result["events"].as_array().into_iter().flatten();
            tell(events.map(event).collect::<Result<_, _>>()?);
        }
        Ok(Ended::Cut)
    }

    /// Asks whoever answers.
    fn ask(&self, path: &str, body: &Value) -> Result<Value, StoreError> {
        // To write twice is not to write once.
        let is_safe = path != "kv/txn";
        let mut is_known = false;
        let (mut last, begun) = (String::new(), Instant::now());
        // Of one member too a connection may have been a dead one.
        for _ in 0..=self.settings.endpoints.len() {
            if begun.elapsed() >= PATIENCE {
                break;
            }
            let (index, endpoint) = self.endpoint();
            match self.post(endpoint, path, body) {
                Ok(answer) => {
                    self.back();
                    return Ok(answer);
                }
                Err(Failure::Refused(why)) => {
                    self.back();
                    return Err(StoreError::Broken(format!("etcd refuses: {why}")));
                }
                Err(Failure::Stranger(why)) if self.settings.login.is_none() || is_known => {
                    return Err(StoreError::Broken(format!("etcd refuses: {why}")));
                }
                Err(Failure::Stranger(_)) => {
                    self.log_in(endpoint)?;
                    is_known = true;
                    continue;
                }
                Err(Failure::Unheard(why)) => last = format!("{endpoint}: {why}"),
                Err(Failure::Cut(why)) => {
                    last = format!("{endpoint}: {why}");
                    if !is_safe {
                        self.at.store(index + 1, Ordering::Relaxed);
                        break;
                    }
                }
            }
            self.at.store(index + 1, Ordering::Relaxed);
        }
        Err(self.lost(&last))
    }

    fn post(&self, endpoint: &str, path: &str, body: &Value) -> Result<Value, Failure> {
        let mut answer = self.request(endpoint, path).send_json(body).map_err(failure)?;
        let status = answer.status();
        let text = answer.body_mut().with_config().limit(LARGEST).read_to_string().map_err(failure)?;
        let said: Value = serde_json::from_str(&text).unwrap_or_default();
        if status.is_success() {
            return Ok(said);
        }
        let why = said["error"].as_str().or_else(|| said["message"].as_str()).unwrap_or(&text).to_owned();
        Err(match number(&said["code"]) {
            UNAVAILABLE | DEADLINE_EXCEEDED => Failure::Cut(why),
            UNAUTHENTICATED => Failure::Stranger(why),
            // Of a member's that wants to know who asks, and was told nothing.
            _ if why.contains("user name is empty") => Failure::Stranger(why),
            _ => Failure::Refused(why),
        })
    }

    fn log_in(&self, endpoint: &str) -> Result<(), StoreError> {
        let Some((name, file)) = &self.settings.login else { return Ok(()) };
        let password = fs::read_to_string(file)
            .map_err(|error| StoreError::Broken(format!("{}: {error}", file.display())))?;
        let body = json!({ "name": name, "password": password.trim_end_matches(['\r', '\n']) });
        self.state().token.clear();
        let answer = self.post(endpoint, "auth/authenticate", &body).map_err(|failure| match failure {
            Failure::Unheard(why) | Failure::Cut(why) => self.lost(&why),
            Failure::Stranger(why) | Failure::Refused(why) => {
                StoreError::Broken(format!("etcd refuses: {why}"))
            }
        })?;
        answer["token"].as_str().unwrap_or_default().clone_into(&mut self.state().token);
        Ok(())
    }

    fn endpoint(&self) -> (usize, &str) {
        let index = self.at.load(Ordering::Relaxed) % self.settings.endpoints.len();
        (index, &self.settings.endpoints[index])
    }

    fn request(&self, endpoint: &str, path: &str) -> RequestBuilder<WithBody> {
        let state = self.state();
        let request = state.agent.post(format!("{endpoint}/v3/{path}"));
        if state.token.is_empty() { request } else { request.header("authorization", &state.token) }
    }

    /// Connections that are idle are as dead as the one that was found to be, and what was shown may have lapsed.
    fn lost(&self, why: &str) -> StoreError {
        let agent = agent(&self.settings);
        let mut state = self.state();
        match agent {
            Ok(agent) => state.agent = agent,
            Err(error) => tracing::error!(error, "what is shown to etcd is as before"),
        }
        if state.away.is_none() {
            tracing::error!(why, "etcd is away: what is served stays, and nothing can be changed");
        }
        state.away = Some(why.to_owned());
        StoreError::Away(why.to_owned())
    }

    fn back(&self) {
        if self.state().away.take().is_some() {
            tracing::info!("etcd is back");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections, with what files say now.
fn agent(settings: &Settings) -> Result<Agent, String> {
    let Settings { endpoints, prefix: _, trust, certificate, login: _ } = settings;
    let roots = match trust {
        Some(file) => certificates(file)?,
        None if endpoints.iter().any(|member| member.starts_with("https://")) => {
            // Some of them may be of no use; without any, nobody is believed.
            let roots = rustls_native_certs::load_native_certs().certs;
            roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect()
        }
        None => Vec::new(),
    };
    let shown = certificate.as_ref().map(|PlaneTls { certificate, private_key }| {
        let at = |error: &dyn std::fmt::Display| format!("{}: {error}", private_key.display());
        let key = fs::read(private_key).map_err(|error| at(&error))?;
        let key = PrivateKey::from_pem(&key).map_err(|error| at(&error))?;
        Ok::<_, String>(ClientCert::new_with_certs(&certificates(certificate)?, key))
    });
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .root_certs(RootCerts::from(roots))
        .client_cert(shown.transpose()?);
    let config = Agent::config_builder().http_status_as_error(false).proxy(None).tls_config(tls.build());
    Ok(config.timeout_connect(Some(CONNECT)).timeout_global(Some(PATIENCE)).build().into())
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>, String> {
    Ok(pem::certificates(file)?.iter().map(|der| Certificate::from_der(der).to_owned()).collect())
}

fn failure(error: ureq::Error) -> Failure {
    let why = error.to_string();
    match error {
        ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => Failure::Unheard(why),
        ureq::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => Failure::Unheard(why),
        _ => Failure::Cut(why),
    }
}

/// Whether nothing was said for too long, which is no error of a watch's.
fn is_silence(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    error.kind() == ErrorKind::TimedOut || matches!(inner, Some(ureq::Error::Timeout(_)))
}

/// Whole numbers are texts there.
fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

fn coded(text: &str) -> String {
    STANDARD.encode(text)
}

fn decoded(value: &Value) -> Result<String, StoreError> {
    let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.ok_or_else(|| StoreError::Broken("etcd holds what is not ours below our prefix".to_owned()))
}

fn entry(kv: &Value) -> Result<Entry, StoreError> {
    let (key, value) = (decoded(&kv["key"])?, decoded(&kv["value"])?);
    Ok(Entry { key, value: Some(value), at: number(&kv["mod_revision"]) })
}

fn entries(kvs: &Value) -> Result<Vec<Entry>, StoreError> {
    kvs.as_array().into_iter().flatten().map(entry).collect()
}

fn event(event: &Value) -> Result<Entry, StoreError> {
    let entry = entry(&event["kv"])?;
    Ok(if event["type"] == "DELETE" { Entry { value: None, ..entry } } else { entry })
}

/// Writes a key.
pub(super) fn put(key: &str, value: &str) -> Value {
    json!({ "request_put": { "key": coded(key), "value": coded(value) } })
}

/// Writes a key, which is gone when the lease is.
pub(super) fn put_under(lease: &str, key: &str, value: &str) -> Value {
    json!({ "request_put": { "key": coded(key), "value": coded(value), "lease": lease } })
}

/// Writes a key that is there, which is gone when it would have been.
pub(super) fn put_as_before(key: &str, value: &str) -> Value {
    json!({ "request_put": { "key": coded(key), "value": coded(value), "ignore_lease": true } })
}

/// Takes a key away.
pub(super) fn delete(key: &str) -> Value {
    json!({ "request_delete_range": { "key": coded(key) } })
}

/// Takes the keys from one up to another away.
pub(super) fn delete_range(from: &str, to: &str) -> Value {
    json!({ "request_delete_range": { "key": coded(from), "range_end": coded(to) } })
}

/// Reads a key.
pub(super) fn read(key: &str) -> Value {
    json!({ "request_range": { "key": coded(key) } })
}

/// A key says this.
pub(super) fn is(key: &str, value: &str) -> Value {
    json!({ "key": coded(key), "target": "VALUE", "result": "EQUAL", "value": coded(value) })
}

/// There is no such key.
pub(super) fn absent(key: &str) -> Value {
    json!({ "key": coded(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_is_silent_is_not_one_that_is_lost() {
        assert!(is_silence(&ureq::Error::Timeout(ureq::Timeout::PerRead).into_io()));
        assert!(!is_silence(&ureq::Error::ConnectionFailed.into_io()));
        assert!(!is_silence(&io::ErrorKind::UnexpectedEof.into()));
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let (key, value) = (coded("/mesh/now/stable"), coded("7"));
        let kv = json!({ "key": key, "value": value, "mod_revision": "12" });
        let expected = Entry { key: "/mesh/now/stable".to_owned(), value: Some("7".to_owned()), at: 12 };
        assert_eq!(entry(&kv).unwrap(), expected);
        assert_eq!(event(&json!({ "kv": kv })).unwrap(), expected);
        // An empty value is left out there.
        let gone = json!({ "type": "DELETE", "kv": { "key": key, "mod_revision": "13" } });
        assert_eq!(event(&gone).unwrap(), Entry { value: None, at: 13, ..expected });
        assert_eq!(entries(&Value::Null).unwrap(), []);
        assert!(entries(&json!([{ "key": "not of ours" }])).is_err());
        assert_eq!([number(&json!("5")), number(&json!(5)), number(&Value::Null)], [5, 5, 0]);
    }
}
