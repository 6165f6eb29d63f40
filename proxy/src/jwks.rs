//! Keys of issuers that are published at an address: asked for again and again, on the management thread, so that no
//! request ever waits for them. What cannot be had or read changes nothing; the last good keys stay.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body::Body as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use outrigger_proto::model::{JwksSource, KeySet, KeySetError};
use tokio::sync::oneshot;

use crate::identity::backoff::Backoff;
use crate::identity::dial::Server;
use crate::observe::ProcessStats;
use crate::policy::jwt::Keys;
use crate::task::AbortOnDrop;

/// For a whole answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of an answer.
const LARGEST: usize = KeySet::LARGEST;

/// Between two answers, give or take a tenth.
const REFRESH: Duration = Duration::from_secs(300);

/// Between two tries when there was none.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// All sources of keys that are followed.
#[derive(Debug)]
pub struct Jwks {
    followed: BTreeMap<JwksSource, Followed>,
    stats: Arc<ProcessStats>,
}

#[derive(Debug, Default)]
struct Followed {
    keys: Arc<Keys>,
    /// Told when somebody has asked for them once.
    asked: Option<oneshot::Sender<()>>,
    task: Option<AbortOnDrop>,
}

impl Jwks {
    /// None yet.
    pub fn new(stats: Arc<ProcessStats>) -> Self {
        Self { followed: BTreeMap::new(), stats }
    }

    /// The keys at an address, which [`start`](Self::start) begins to follow. Whoever is first is told when they were asked
    /// for once.
    pub fn at(&mut self, source: &JwksSource) -> (Arc<Keys>, Option<oneshot::Receiver<()>>) {
        let followed = self.followed.entry(source.clone()).or_default();
        // Whoever was waiting before belongs to a configuration that came to nothing.
        let waiting = followed.task.is_none().then(|| {
            let (asked, answered) = oneshot::channel();
            followed.asked = Some(asked);
            answered
        });
        (followed.keys.clone(), waiting)
    }

    /// Follows those that are new.
    pub fn start(&mut self) {
        for (source, followed) in &mut self.followed {
            if let Some(asked) = followed.asked.take() {
                let following = follow(source.clone(), followed.keys.clone(), (self.stats.clone(), asked));
                followed.task = Some(AbortOnDrop::spawn(following));
            }
        }
    }

    /// Follows no others than these.
    pub fn retain(&mut self, keep: impl Fn(&JwksSource) -> bool) {
        self.followed.retain(|source, _| keep(source));
    }
}

async fn follow(
    source: JwksSource,
    keys: Arc<Keys>,
    (stats, asked): (Arc<ProcessStats>, oneshot::Sender<()>),
) {
    let JwksSource::Url { url, trust } = source else { return };
    let mut following = Following { keys, stats, backoff: Backoff::new(WAITS), told: Vec::new() };
    let mut asked = Some(asked);
    loop {
        let wait = following.take(&url, fetch(&url, trust.as_deref()).await);
        if let Some(asked) = asked.take() {
            // Nobody may be waiting any more.
            let _ = asked.send(());
        }
        tokio::time::sleep(wait).await;
    }
}

/// What was fetched, and what could not be used of it.
type Fetched = Result<(KeySet, Vec<KeySetError>), String>;

/// What is known of an address that is asked again and again.
struct Following {
    keys: Arc<Keys>,
    stats: Arc<ProcessStats>,
    backoff: Backoff,
    /// What somebody was told of already.
    told: Vec<KeySetError>,
}

impl Following {
    /// Takes an answer; how long to wait for the next one.
    fn take(&mut self, url: &str, fetched: Fetched) -> Duration {
        match fetched {
            Ok((set, unusable)) => {
                self.keys.set(set);
                // Once, not at each refresh.
                if unusable != self.told {
                    for error in &unusable {
                        tracing::warn!(%url, %error, "a key is left out, the others are used");
                    }
                    self.told = unusable;
                }
                self.backoff.reset();
                REFRESH.mul_f64(0.9 + 0.2 * fastrand::f64())
            }
            Err(error) => {
                self.stats.jwks_failures.increment(1);
                let stay =
                    if self.keys.are_there() { "the last good ones stay" } else { "there are none yet" };
                tracing::warn!(%url, error, "keys could not be fetched; {stay}");
                self.backoff.next(fastrand::u64(..))
            }
        }
    }
}

async fn fetch(url: &str, trust: Option<&Path>) -> Fetched {
    let body = tokio::time::timeout(PATIENCE, get(url, trust)).await;
    let body = body.map_err(|_| format!("no whole answer within {PATIENCE:?}"))??;
    KeySet::published(&body).map_err(|error| error.to_string())
}

async fn get(url: &str, trust: Option<&Path>) -> Result<Vec<u8>, String> {
    let uri: Uri = url.parse().map_err(|_| "no address")?;
    let server = Server::new(&uri, trust, &[], None).map_err(|error| error.to_string())?;
    let stream = server.connect().await.map_err(|error| error.to_string())?;
    let (mut requests, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let mut connection = pin!(connection);
    let mut exchange = pin!(async {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let request = Request::get(path)
            .header(header::HOST, authority)
            .header(
                header::USER_AGENT,
                HeaderValue::from_static(concat!("outrigger/", env!("CARGO_PKG_VERSION"))),
            )
            .header(header::CONNECTION, "close")
            .body(String::new())
            .map_err(|error| error.to_string())?;
        let response = requests.send_request(request).await.map_err(|error| error.to_string())?;
        // Not followed: whoever answers for the address that is configured may not send us elsewhere.
        if response.status() != StatusCode::OK {
            return Err(format!("status {}", response.status()));
        }
        let mut body = response.into_body();
        let mut read = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|error| error.to_string())?;
            read.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
            if read.len() > LARGEST {
                return Err(format!("the answer is longer than {LARGEST} bytes"));
            }
        }
        Ok(read)
    });
    tokio::select! {
        biased;
        read = &mut exchange => read,
        // What came before the end is still there to be read.
        _ = &mut connection => exchange.await,
    }
}

/// The keys in a file.
///
/// # Errors
/// What is wrong.
pub fn read(path: &Path) -> Result<KeySet, String> {
    let shown = path.display();
    let file =
        std::fs::File::open(path).map_err(|error: io::Error| format!("cannot read {shown}: {error}"))?;
    let mut text = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, LARGEST as u64 + 1), &mut text)
        .map_err(|error| format!("cannot read {shown}: {error}"))?;
    if text.len() > LARGEST {
        return Err(format!("{shown} is longer than {LARGEST} bytes"));
    }
    KeySet::parse(&text).map_err(|error| format!("{shown}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_after_a_configuration_that_came_to_nothing_waits_too() {
        let mut jwks = Jwks::new(Arc::default());
        let source = JwksSource::Url { url: "https://id.test/".into(), trust: None };
        let (first, waiting) = jwks.at(&source);
        drop(waiting);
        let (second, waiting) = jwks.at(&source);
        assert!(Arc::ptr_eq(&first, &second) && waiting.is_some());
    }

    /// A server that fails or lies after a good answer takes nothing away, and is asked again soon.
    #[test]
    fn the_last_good_keys_stay_whatever_comes_after_them() {
        let key =
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}"#;
        let read = |text: &str| KeySet::published(text.as_bytes()).map_err(|error| error.to_string());
        let keys = Arc::<Keys>::default();
        let (stats, told) = (Arc::default(), Vec::new());
        let mut following = Following { keys: keys.clone(), stats, backoff: Backoff::new(WAITS), told };
        let refresh = REFRESH.mul_f64(0.9)..=REFRESH.mul_f64(1.1);
        let mut take = |fetched| following.take("https://id.test/", fetched);
        assert!(take(Err("refused".to_owned())) <= WAITS.1 && !keys.are_there());
        assert!(refresh.contains(&take(read(key))) && keys.are_there());
        for bad in ["", "[]", r#"{"keys":[]}"#, "<html>", r#"{"keys":{}}"#] {
            assert!(take(read(bad)) <= WAITS.1, "{bad}");
            assert!(keys.are_there(), "{bad}");
        }
        assert!(take(Err("status 500".to_owned())) <= WAITS.1 && keys.are_there());
        assert!(refresh.contains(&take(read(key))));
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read_in_part() {
        let path = std::env::temp_dir().join(format!("outrigger-jwks-{}", std::process::id()));
        let key =
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}"#;
        let mut text = key.to_owned() + &" ".repeat(LARGEST - key.len());
        std::fs::write(&path, &text).unwrap();
        assert!(read(&path).is_ok());
        text.push('x');
        std::fs::write(&path, &text).unwrap();
        let refused = read(&path);
        std::fs::remove_file(&path).unwrap();
        assert!(refused.unwrap_err().contains("longer than"));
    }
}
