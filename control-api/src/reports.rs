//! What befalls nodes, as they tell it, written into the log of events: `proto/outrigger/events/v1/events.proto`.
//!
//! All of a mesh may have to tell of one failure at once, and the log keeps so many events and no more. What is more than it can
//! bear is refused, and told again later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use outrigger_proto::xds::events::{
    CertificateExpiring, EndpointEjected, EndpointReturned, Event, MOST, REPORT, ReportRequest,
    ReportResponse, What,
};
use tokio::time::Instant;
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::events::{Happened, OfEndpoint, rfc3339};
use crate::nodes::named;
use crate::plane::Plane;

/// Bytes of a report.
const LARGEST: usize = 256 << 10;
/// Bytes of a text that are kept.
const TEXT: usize = 256;
/// Events that are taken at once, and then in each second: of all nodes, and of one of them.
const ROOM: (f64, f64) = (1000.0, 10.0);
const SHARE: (f64, f64) = (192.0, 2.0);
/// Nodes whose shares are remembered, before those are forgotten that have used none of theirs of late.
const REMEMBERED: usize = 4096;

/// Where nodes tell what befalls them.
pub fn router(plane: Arc<Plane>) -> Router {
    let rooms = Rooms { all: Room::new(ROOM, Instant::now()), by_node: HashMap::new() };
    let reports = Reports { plane, rooms: Mutex::new(rooms) };
    Router::new().route(REPORT, post(answer)).with_state(Arc::new(reports))
}

#[derive(Debug)]
struct Reports {
    plane: Arc<Plane>,
    rooms: Mutex<Rooms>,
}

/// How many events may still come.
#[derive(Debug)]
struct Rooms {
    all: Room,
    by_node: HashMap<String, Room>,
}

impl Rooms {
    /// Whether so many of a node may come now.
    fn take(&mut self, node: &str, events: usize, now: Instant) -> bool {
        if self.by_node.len() >= REMEMBERED {
            self.by_node.retain(|_, room| !room.is_empty(SHARE, now));
        }
        if self.by_node.len() >= REMEMBERED && !self.by_node.contains_key(node) {
            return false;
        }
        let own = self.by_node.entry(node.to_owned()).or_insert_with(|| Room::new(SHARE, now));
        own.fits(SHARE, events, now) && self.all.fits(ROOM, events, now) && {
            own.left -= events as f64;
            self.all.left -= events as f64;
            true
        }
    }
}

/// A token bucket.
#[derive(Debug)]
struct Room {
    left: f64,
    at: Instant,
}

impl Room {
    fn new((most, _): (f64, f64), now: Instant) -> Self {
        Self { left: most, at: now }
    }

    fn fits(&mut self, (most, refill): (f64, f64), events: usize, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at);
        self.left = refill.mul_add(since.as_secs_f64(), self.left).min(most);
        self.at = now;
        self.left >= events as f64
    }

    /// Nothing is in it, and so nothing is to be remembered of it.
    fn is_empty(&mut self, size: (f64, f64), now: Instant) -> bool {
        self.fits(size, 0, now) && self.left >= size.0
    }
}

impl Reports {
    fn hear(&self, ReportRequest { node, events, forgotten }: ReportRequest) -> Result<(), Status> {
        let node = named(node)?.id;
        if events.len() > MOST {
            return Err(Status::invalid_argument(format!("there are more than {MOST} events")));
        }
        // Also of a report that says nothing.
        let written = (events.len() + usize::from(forgotten > 0)).max(1);
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: who asks next must see what this one takes.
        if !self.plane.has_room(written) || !rooms.take(&node, written, Instant::now()) {
            return Err(Status::resource_exhausted("more happens than is written; to be told again later"));
        }
        if forgotten > 0 {
            self.plane.note(Happened::Forgotten { node: cut(node.clone()), events: forgotten });
        }
        events.into_iter().filter_map(|event| told(&node, event)).for_each(|event| self.plane.note(event));
        Ok(())
    }
}

/// What a node tells; `None` of what is of a later version.
fn told(node: &str, Event { time, what }: Event) -> Option<Happened> {
    let moment = |time: Option<_>| time.and_then(|time| SystemTime::try_from(time).ok());
    let (node, at) = (cut(node.to_owned()), moment(time).map(rfc3339));
    Some(match what? {
        What::Ejected(EndpointEjected { cluster, endpoint, cause, length }) => {
            let length = length.and_then(|length| Duration::try_from(length).ok());
            let what = OfEndpoint::Ejected { cause: cut(cause), length };
            Happened::Endpoint { node, at, cluster: cut(cluster), endpoint: cut(endpoint), what }
        }
        What::Returned(EndpointReturned { cluster, endpoint, gone }) => {
            let what = OfEndpoint::Returned { gone };
            Happened::Endpoint { node, at, cluster: cut(cluster), endpoint: cut(endpoint), what }
        }
        What::Expiring(CertificateExpiring { spiffe_id, serial, not_after, why }) => Happened::Expiring {
            whose: cut(spiffe_id),
            serial: cut(serial),
            not_after: moment(not_after)?,
            node: Some((node, at)),
            why: cut(why),
        },
    })
}

/// What can be shown, and kept, of what somebody says.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT));
    if text.contains(char::is_control) { text.replace(char::is_control, " ") } else { text }
}

async fn answer(State(reports): State<Arc<Reports>>, request: axum::extract::Request) -> Response {
    let codec = ProstCodec::<ReportResponse, ReportRequest>::default();
    let mut grpc = Grpc::new(codec).max_decoding_message_size(LARGEST);
    grpc.unary(Report(reports), request).await.map(axum::body::Body::new)
}

struct Report(Arc<Reports>);

impl UnaryService<ReportRequest> for Report {
    type Response = ReportResponse;
    type Future = std::future::Ready<Result<tonic::Response<ReportResponse>, Status>>;

    fn call(&mut self, request: Request<ReportRequest>) -> Self::Future {
        let heard = self.0.hear(request.into_inner());
        std::future::ready(heard.map(|()| tonic::Response::new(ReportResponse {})))
    }
}

#[cfg(test)]
mod tests {
    use outrigger_proto::xds::events::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        (SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).into()
    }

    fn said(what: What) -> (String, String, Value) {
        let told = told("a", Event { time: Some(at(1)), what: Some(what) }).unwrap();
        let event = told.numbered(7, SystemTime::UNIX_EPOCH);
        (event.kind, event.subject, event.data)
    }

    #[test]
    fn what_is_told_becomes_an_event() {
        let (cluster, endpoint) = ("cart".to_owned(), "127.0.0.1:9001".to_owned());
        let length = Some(outrigger_proto::xds::events::Duration { seconds: 30, nanos: 0 });
        let ejected = EndpointEjected {
            cluster: cluster.clone(),
            endpoint: endpoint.clone(),
            cause: "latency".to_owned(),
            length,
        };
        let of = "cluster/cart/127.0.0.1:9001".to_owned();
        let mut data = json!({
            "node": "a", "cluster": "cart", "endpoint": "127.0.0.1:9001", "at": "1970-01-01T00:00:01Z",
            "cause": "latency", "length_ms": 30_000,
        });
        let kind = |name: &str| format!("dev.outrigger.{name}");
        assert_eq!(said(What::Ejected(ejected)), (kind("endpoint.ejected.v1"), of.clone(), data.clone()));
        for gone in ["cause", "length_ms"] {
            data.as_object_mut().unwrap().remove(gone);
        }
        data["gone"] = true.into();
        let returned = EndpointReturned { cluster, endpoint, gone: true };
        assert_eq!(said(What::Returned(returned)), (kind("endpoint.returned.v1"), of, data));
        let expiring = |not_after| CertificateExpiring {
            spiffe_id: "spiffe://mesh.test/a".to_owned(),
            serial: "40".to_owned(),
            not_after: Some(at(not_after)),
            why: "refused".to_owned(),
        };
        let (found, subject, data) = said(What::Expiring(expiring(9)));
        assert_eq!((found, &*subject), (kind("certificate.expiring.v1"), "spiffe://mesh.test/a"));
        let expected = json!({
            "spiffe_id": subject, "serial": "40", "not_after": "1970-01-01T00:00:09Z", "node": "a", "at": "1970-01-01T00:00:01Z", "why": "refused",
        });
        assert_eq!(data, expected);
    }

    #[test]
    fn what_is_long_is_cut_and_what_is_unknown_is_passed_over() {
        let returned =
            EndpointReturned { cluster: "ä\n".repeat(TEXT), endpoint: String::new(), gone: false };
        let (_, _, data) = said(What::Returned(returned));
        let cluster = data["cluster"].as_str().unwrap();
        assert!(cluster.len() <= TEXT && cluster.starts_with("ä ä ") && !cluster.contains('\n'));
        assert_eq!(told("a", Event::default()), None);
        // Until when is what it is about.
        let expiring = CertificateExpiring::default();
        assert_eq!(told("a", Event { time: None, what: Some(What::Expiring(expiring)) }), None);
    }

    #[test]
    fn there_is_room_for_a_burst_and_then_for_so_many_a_second() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut rooms = Rooms { all: Room::new(ROOM, start), by_node: HashMap::new() };
        let taken = (0..100).take_while(|_| rooms.take("a", MOST, start)).count();
        assert_eq!(taken, 3, "no node takes all of it");
        let others = (0..100).take_while(|node| rooms.take(&node.to_string(), 100, start)).count();
        assert_eq!(others, 8);
        // What is refused takes no room.
        assert!(!rooms.take("b", 9, start) && rooms.take("b", 8, start) && !rooms.take("b", 1, start));
        assert!(!rooms.take("b", 11, at(1)) && rooms.take("b", 10, at(1)));
        assert!(!rooms.take("a", 193, at(1000)) && rooms.take("a", 192, at(1000)));
        // Who has told nothing for long is forgotten, and nobody else.
        for node in 0..REMEMBERED {
            rooms.by_node.insert(format!("n{node}"), Room::new(SHARE, start));
        }
        assert!(rooms.take("c", 1, at(1000)));
        assert_eq!(rooms.by_node.len(), 2);
    }
}
