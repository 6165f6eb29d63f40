//! Events, published to a stream of NATS JetStream (<https://docs.nats.io/nats-concepts/jetstream>), each at least once and in
//! their order, whoever of the two was away meanwhile.
//!
//! The store's log is the queue: what is published next is what stands there after the last event that the stream has
//! acknowledged. An event whose acknowledgement got lost is published again under the same `Nats-Msg-Id`, and the stream drops
//! it if it has it.

use std::convert::Infallible;
use std::error::Error as _;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context, ErrorCode, stream};
use async_nats::{Client, ConnectOptions};
use outrigger_proto::model::{Nats, NatsLogin};
use rustls::RootCertStore;
use serde_json::json;
use tokio::sync::Notify;

use crate::events::{Event, Happened, OURS};
use crate::plane::Plane;
use crate::store::{Store, StoreError};
use crate::tls;

/// Events read at once, after which it is noted how far it has come: so many are published again, at the most, after a crash.
const PAGE: usize = 64;
/// The first bound of what is waited between two tries, and the last.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// How often a silent server is asked whether it is there; it is not after two that are unanswered.
const ALIVE: Duration = Duration::from_secs(10);
/// The media type of an event that is the whole message.
const CLOUD_EVENT: &str = "application/cloudevents+json";

/// How publishing goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// To whom.
    pub server: String,
    /// Into what.
    pub stream: String,
    /// Whether it takes them now.
    pub connected: bool,
    /// The number of the last event that it has acknowledged; 0 before any.
    pub published: u64,
    /// Why it takes none.
    pub why: Option<String>,
}

/// Publishes what the store has, and then what comes, for ever.
pub async fn publish(plane: Arc<Plane>, settings: Nats) {
    let (server, stream) = (settings.server.to_string(), settings.stream.to_string());
    let standing = Standing { server, stream, connected: false, published: 0, why: None };
    plane.publishing.send_replace(Some(standing));
    let _shown = Shown(Arc::clone(&plane));
    let mut sink = Sink { plane, settings, tries: 0 };
    loop {
        let Err(why) = sink.session().await;
        sink.stand(|standing| {
            // Once for each reason, however long it lasts.
            if standing.why.as_ref() != Some(&why) {
                tracing::warn!(server = standing.server, why, "events are kept, and published later");
            }
            standing.connected = false;
            standing.why = Some(why);
        });
        let mut random = [0; 4];
        let _ = aws_lc_rs::rand::fill(&mut random);
        tokio::time::sleep(pause(sink.tries, u32::from_ne_bytes(random))).await;
        sink.tries = sink.tries.saturating_add(1);
    }
}

/// How it goes is shown by whoever publishes.
struct Shown(Arc<Plane>);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.publishing.send_replace(None);
    }
}

struct Sink {
    plane: Arc<Plane>,
    settings: Nats,
    /// Since it last went well.
    tries: u32,
}

impl Sink {
    /// One connection, as long as it lasts.
    async fn session(&mut self) -> Result<Infallible, String> {
        let lost = Arc::new(Notify::new());
        let stream = jetstream::new(self.connect(Arc::clone(&lost)).await?);
        self.find_or_make(&stream).await?;
        let mut last = self.plane.last_event();
        loop {
            last.borrow_and_update();
            while self.page(&stream).await? {
                self.goes_well();
            }
            self.goes_well();
            // Between two pages only, so that it is always known how far it has come.
            tokio::select! {
                // Whoever tells of events is held here.
                _ = last.changed() => {}
                () = lost.notified() => return Err("the connection is lost".to_owned()),
            }
        }
    }

    fn goes_well(&mut self) {
        self.tries = 0;
        self.stand(|standing| {
            if !standing.connected {
                tracing::info!(server = standing.server, stream = standing.stream, "events are published");
            }
            standing.connected = true;
            standing.why = None;
        });
    }

    async fn connect(&self, lost: Arc<Notify>) -> Result<Client, String> {
        let settings = self.settings.clone();
        // Files.
        let options = tokio::task::spawn_blocking(move || options(&settings)).await;
        let options = options.map_err(|error| error.to_string())??.event_callback(move |event| {
            let lost = Arc::clone(&lost);
            async move {
                if matches!(event, async_nats::Event::Disconnected | async_nats::Event::Closed) {
                    lost.notify_one();
                }
            }
        });
        options.connect(&*self.settings.server).await.map_err(|error| error.to_string())
    }

    /// A stream that is there is the operator's, whatever it is like.
    async fn find_or_make(&self, context: &Context) -> Result<(), String> {
        let Nats { stream, subject, server: _, trust: _, login: _ } = &self.settings;
        match context.get_stream(&**stream).await {
            Ok(_) => return Ok(()),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error.to_string()),
        }
        // Nothing is in it: all that is kept goes there. First, because after a crash it would be found.
        self.on_store(|store| store.note_published(None)).await?;
        let config = stream::Config {
            name: stream.to_string(),
            subjects: vec![format!("{subject}.>")],
            storage: stream::StorageType::File,
            description: Some("Events of outrigger-control".to_owned()),
            ..stream::Config::default()
        };
        context.create_stream(config).await.map_err(|error| error.to_string())?;
        tracing::info!(stream = &**stream, "made the stream");
        Ok(())
    }

    /// Publishes some of what is kept; whether there was anything.
    async fn page(&self, context: &Context) -> Result<bool, String> {
        let read = self.on_store(|store| {
            let published = store.published()?;
            Ok((published, store.events(published.unwrap_or(0), PAGE)?))
        });
        let (published, events) = read.await?;
        if let Some((first, last)) = events.first().and_then(|event| forgotten(published, number(event))) {
            tracing::error!(first, last, "events were forgotten before they could be published");
            self.plane.note(Happened::Unpublished { first, last });
            self.on_store(move |store| store.note_published(Some(last))).await?;
        }
        let (mut acknowledged, mut outcome) = (published, Ok(!events.is_empty()));
        for event in &events {
            if let Err(why) = self.tell(context, event).await {
                outcome = Err(why);
                break;
            }
            acknowledged = Some(number(event));
        }
        if acknowledged != published {
            self.on_store(move |store| store.note_published(acknowledged)).await?;
        }
        self.stand(|standing| standing.published = acknowledged.unwrap_or(0));
        outcome
    }

    /// Publishes an event. One that the server finds too large goes without its data, so that it holds nobody up.
    async fn tell(&self, context: &Context, event: &Event) -> Result<(), String> {
        let told = match self.send(context, event).await {
            Err(error) if is_too_large(&error) => {
                tracing::error!(id = event.id, %error, "an event is published without its data");
                let data = json!({ "left_out": "the server takes no message of this size" });
                self.send(context, &Event { data, ..event.clone() }).await
            }
            told => told,
        };
        told.map_err(|error| error.to_string())
    }

    /// Its acknowledgement is waited for before the next one goes: the next may not arrive where this one did not.
    async fn send(&self, context: &Context, event: &Event) -> Result<(), PublishError> {
        let message = PublishMessage::build()
            .payload(serde_json::to_vec(event).unwrap_or_default().into())
            .message_id(message_id(event))
            .expected_stream(&self.settings.stream)
            .header("content-type", CLOUD_EVENT);
        context.send_publish(subject(&self.settings.subject, event), message).await?.await?;
        Ok(())
    }

    async fn on_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, String> {
        let plane = Arc::clone(&self.plane);
        let done = tokio::task::spawn_blocking(move || work(plane.store())).await;
        done.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    fn stand(&self, change: impl FnOnce(&mut Standing)) {
        self.plane.publishing.send_modify(|standing| {
            if let Some(standing) = standing {
                change(standing);
            }
        });
    }
}

/// How it is connected, with what its files say now.
fn options(settings: &Nats) -> Result<ConnectOptions, String> {
    let Nats { trust, login, server: _, stream: _, subject: _ } = settings;
    let secret = |file: &std::path::Path| match fs::read_to_string(file) {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => Err(format!("{}: {error}", file.display())),
    };
    let options = match login {
        None => ConnectOptions::new(),
        Some(NatsLogin::Token(file)) => ConnectOptions::with_token(secret(file)?),
        Some(NatsLogin::User(user, file)) => {
            ConnectOptions::with_user_and_password(user.to_string(), secret(file)?)
        }
    };
    // Once, which it cannot be talked out of: when to try again is decided here. Servers that are told of by others may be
    // spoken to in the clear.
    let options = options
        .name("outrigger-control")
        .ping_interval(ALIVE)
        .max_reconnects(1)
        .ignore_discovered_servers()
        .require_tls(settings.is_tls());
    if !settings.is_tls() {
        return Ok(options);
    }
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(tls::roots(trust.as_deref())?);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    Ok(options.tls_client_config(config.with_root_certificates(store).with_no_client_auth()))
}

fn is_missing(error: &GetStreamError) -> bool {
    let code = match error.kind() {
        GetStreamErrorKind::JetStream(error) => Some(error.error_code()),
        GetStreamErrorKind::EmptyName
        | GetStreamErrorKind::Request
        | GetStreamErrorKind::InvalidStreamName => None,
    };
    code == Some(ErrorCode::STREAM_NOT_FOUND)
}

/// For the server, or for the stream.
fn is_too_large(error: &PublishError) -> bool {
    let refused = error.source().and_then(|error| error.downcast_ref::<jetstream::Error>());
    error.kind() == PublishErrorKind::MaxPayloadExceeded
        || refused.is_some_and(|error| error.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)
}

/// The events between the last that was published and the first that is kept. Where none was published none was promised.
fn forgotten(published: Option<u64>, first: u64) -> Option<(u64, u64)> {
    let next = published? + 1;
    (next < first).then(|| (next, first - 1))
}

/// Another event of this number, of another store or of one that was brought back from a copy, is of another time.
fn message_id(event: &Event) -> String {
    format!("{}@{}", event.id, event.time)
}

fn subject(prefix: &str, event: &Event) -> String {
    format!("{prefix}.{}", event.kind.strip_prefix(OURS).unwrap_or(&event.kind))
}

fn number(event: &Event) -> u64 {
    event.id.parse().unwrap_or(0)
}

/// How long to wait after so many tries: at random up to a bound that doubles, so that many who lost the same server do not
/// come back at once.
fn pause(tries: u32, random: u32) -> Duration {
    let (first, longest) = WAITS;
    let bound = first.saturating_mul(1 << tries.min(16)).min(longest);
    bound.mul_f64(f64::from(random) / f64::from(u32::MAX)).max(first / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_forgotten_is_what_was_promised_and_is_not_kept() {
        let table = [
            (None, 1, None),
            (None, 500, None),
            (Some(7), 8, None),
            (Some(7), 9, Some((8, 8))),
            (Some(7), 100, Some((8, 99))),
        ];
        for (published, first, expected) in table {
            assert_eq!(forgotten(published, first), expected, "{published:?} {first}");
        }
    }

    #[test]
    fn an_event_has_a_subject_of_its_type_and_an_id_of_its_own() {
        let event = Happened::NodeDown { node: "a".to_owned() }.numbered(7, std::time::SystemTime::now());
        assert_eq!(subject("outrigger.events", &event), "outrigger.events.node.down.v1");
        let again = Event { time: "2026-01-01T00:00:00.1Z".to_owned(), ..event.clone() };
        assert_eq!(message_id(&again), "7@2026-01-01T00:00:00.1Z");
        assert_ne!(message_id(&event), message_id(&again));
    }

    #[test]
    fn waits_double_up_to_a_bound_and_are_never_none() {
        let most: Vec<_> = [0, 1, 2, 6, 7, u32::MAX].map(|tries| pause(tries, u32::MAX).as_millis()).into();
        assert_eq!(most, [100, 200, 400, 6400, 10_000, 10_000]);
        assert_eq!(pause(9, 0), WAITS.0 / 2);
    }
}
