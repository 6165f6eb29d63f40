//! Events over HTTP: those that are kept, and then, for whoever listens, those that come (Server-Sent Events,
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::answers::{Misread, Refused};
use super::asked::Query;
use super::{Api, Failed, auth, blocking};
use crate::events::{Event, schema};
use crate::plane::Plane;

/// Read from the store at once.
const PAGE: usize = 500;
/// On their way to one listener; a slow one is told what the store has, later.
const QUEUE: usize = 16;
/// A comment, so that nobody between takes the connection for idle.
const ALIVE: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    after: Option<u64>,
    most: Option<usize>,
}

/// What happened after an event, the first first; with `accept: text/event-stream` also what happens from now on.
#[utoipa::path(get, path = "/v1/events", security((), ("token" = [])), params(
    ("after" = Option<u64>, Query, description = "The last event that is known; 0 by default. `last-event-id` says so too"),
    ("most" = Option<usize>, Query, description = "So many, where nobody listens; 500 at the most"),
    ("last-event-id" = Option<u64>, Header, description = "The last event that is known, by whoever comes back to listen")),
    responses(
        (status = 200, description = "Those that there are; or, as server-sent events, those and all that come, each as the `data` of one",
            content((Vec<Event> = "application/json"), (String = "text/event-stream"))),
        Misread, Refused))]
pub(super) async fn events(
    State(api): State<Api>,
    _: auth::Reader,
    headers: HeaderMap,
    Query(Asked { after, most }): Query<Asked>,
) -> Result<Response, Failed> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let last = text(http::HeaderName::from_static("last-event-id")).and_then(|id| id.parse().ok());
    let after = last.or(after).unwrap_or(0);
    if text(header::ACCEPT).is_some_and(|accept| accept.contains("text/event-stream")) {
        let (sender, queued) = mpsc::channel(QUEUE);
        tokio::spawn(follow(api.plane, after, sender));
        return Ok(Sse::new(ReceiverStream::new(queued))
            .keep_alive(KeepAlive::new().interval(ALIVE))
            .into_response());
    }
    let most = most.unwrap_or(PAGE).min(PAGE);
    blocking(move || Ok(Json(api.plane.store().events(after, most)?).into_response())).await
}

/// What events look like, as JSON Schema: all of them, and the `data` of each type.
#[utoipa::path(get, path = "/v1/events/schema", security((), ("token" = [])), responses(
    (status = 200, description = "The schema", body = Object), Refused))]
pub(super) async fn event_schema(_: auth::Reader) -> Json<serde_json::Value> {
    Json(schema())
}

/// Tells what is kept, and then what comes, until nobody listens.
async fn follow(
    plane: Arc<Plane>,
    mut after: u64,
    sender: mpsc::Sender<Result<axum::response::sse::Event, Infallible>>,
) {
    let mut last = plane.last_event();
    loop {
        last.borrow_and_update();
        loop {
            let reader = Arc::clone(&plane);
            let page = tokio::task::spawn_blocking(move || reader.store().events(after, PAGE)).await;
            let Ok(Ok(page)) = page else { return };
            if page.is_empty() {
                break;
            }
            for event in page {
                after = event.id.parse().unwrap_or(after + 1);
                if sender.send(Ok(framed(&event))).await.is_err() {
                    return;
                }
            }
        }
        tokio::select! {
            changed = last.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
        }
    }
}

fn framed(event: &Event) -> axum::response::sse::Event {
    let text = serde_json::to_string(event).unwrap_or_default();
    axum::response::sse::Event::default().id(&event.id).event(&event.kind).data(text)
}
