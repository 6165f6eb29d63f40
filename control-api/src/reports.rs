//! What befalls nodes, as they tell it, written into the log of events: `proto/outrigger/events/v1/events.proto`.
//!
//! All of a mesh may have to tell of one failure at once. What is more than the log can bear is refused and told again later, so
//! that it neither fills the log nor gets lost.

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
const TEXT: usize = 512;
/// Events of all nodes that are taken at once, and then in each second.
const ROOM: (f64, f64) = (1000.0, 50.0);

/// Where nodes tell what befalls them.
pub fn router(plane: Arc<Plane>) -> Router {
    let reports = Reports { plane, room: Mutex::new(Room { left: ROOM.0, at: Instant::now() }) };
    Router::new().route(REPORT, post(answer)).with_state(Arc::new(reports))
}

#[derive(Debug)]
struct Reports {
    plane: Arc<Plane>,
    room: Mutex<Room>,
}

/// How many events may still come: a token bucket.
#[derive(Debug)]
struct Room {
    left: f64,
    at: Instant,
}

impl Room {
    /// Whether so many may come now.
    fn take(&mut self, events: usize, now: Instant) -> bool {
        let (most, refill) = ROOM;
        let since = now.saturating_duration_since(self.at);
        self.left = refill.mul_add(since.as_secs_f64(), self.left).min(most);
        self.at = now;
        let left = self.left - events as f64;
        let is_enough = left >= 0.0;
        if is_enough {
            self.left = left;
        }
        is_enough
    }
}

impl Reports {
    fn hear(&self, ReportRequest { node, events, forgotten }: ReportRequest) -> Result<(), Status> {
        let node = named(node)?.id;
        if events.len() > MOST {
            return Err(Status::invalid_argument(format!("there are more than {MOST} events")));
        }
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        if !room.take(events.len(), Instant::now()) {
            return Err(Status::resource_exhausted("more happens than is written; to be told again later"));
        }
        drop(room);
        if forgotten > 0 {
            self.plane.note(Happened::Forgotten { node: node.clone(), events: forgotten });
        }
        events.into_iter().filter_map(|event| told(&node, event)).for_each(|event| self.plane.note(event));
        Ok(())
    }
}

/// What a node tells; `None` of what is of a later version.
fn told(node: &str, Event { time, what }: Event) -> Option<Happened> {
    let moment = |time: Option<_>| time.and_then(|time| SystemTime::try_from(time).ok());
    let (node, at) = (node.to_owned(), moment(time).map(rfc3339));
    Some(match what? {
        What::Ejected(EndpointEjected { cluster, endpoint, cause, length }) => {
            let length = length.and_then(|length| Duration::try_from(length).ok());
            let what = OfEndpoint::Ejected { cause: cut(cause), length };
            Happened::Endpoint { node, at, cluster: cut(cluster), endpoint: cut(endpoint), what }
        }
        What::Returned(EndpointReturned { cluster, endpoint }) => {
            let what = OfEndpoint::Returned;
            Happened::Endpoint { node, at, cluster: cut(cluster), endpoint: cut(endpoint), what }
        }
        What::Expiring(CertificateExpiring { spiffe_id, serial, not_after, why }) => Happened::Expiring {
            whose: cut(spiffe_id),
            serial: cut(serial),
            not_after: moment(not_after)?,
            node: Some(node),
            why: cut(why),
        },
    })
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT));
    text
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
        let returned = EndpointReturned { cluster, endpoint };
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
            "spiffe_id": subject, "serial": "40", "not_after": "1970-01-01T00:00:09Z", "node": "a", "why": "refused",
        });
        assert_eq!(data, expected);
    }

    #[test]
    fn what_is_long_is_cut_and_what_is_unknown_is_passed_over() {
        let returned = EndpointReturned { cluster: "ä".repeat(TEXT), endpoint: String::new() };
        let (_, _, data) = said(What::Returned(returned));
        assert_eq!(data["cluster"].as_str().map(str::len), Some(TEXT));
        assert_eq!(told("a", Event::default()), None);
        // Until when is what it is about.
        let expiring = CertificateExpiring::default();
        assert_eq!(told("a", Event { time: None, what: Some(What::Expiring(expiring)) }), None);
    }

    #[test]
    fn there_is_room_for_a_burst_and_then_for_so_many_a_second() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut room = Room { left: ROOM.0, at: start };
        let taken = (0..100).take_while(|_| room.take(MOST, start)).count();
        assert_eq!(taken, 1000 / MOST);
        // What is refused takes no room.
        assert!(!room.take(MOST, start) && room.take(40, start) && !room.take(1, start));
        assert!(!room.take(51, at(1)) && room.take(50, at(1)));
        assert!(room.take(1000, at(100)) && !room.take(1, at(100)));
    }
}
