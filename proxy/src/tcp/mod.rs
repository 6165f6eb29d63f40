//! Bytes of a connection, passed on to an endpoint of a cluster.

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use outrigger_proto::model::{Filter, Source};
use tokio::time::Instant;

use crate::conn::Conn;
use crate::error::ProxyError;
use crate::io::copy::pump;
use crate::io::stream::Stream;
use crate::live::{FilterView, ListenerView};
use crate::observe::{Peer, Record};
use crate::policy::authz::{Denial, Rules};
use crate::routing::pick_target;
use crate::shadow::{Bench, Fate, Held};
use crate::upstream::{ClusterView, Trip, UpstreamError};
use crate::watch::Stage;

/// Serves a connection until both sides have ended.
pub async fn serve(conn: &Rc<Conn>, view: &ListenerView, mut client: Stream) {
    let (Filter::Tcp(filter), FilterView::Tcp(clusters)) = (&view.chain.filter, &view.filter) else {
        unreachable!("called for TCP listeners")
    };
    conn.watch().enter(Stage::Tunnel);
    let at = SystemTime::now();
    let upstream = conn.worker().upstream();
    let chosen = pick_target(&filter.to, upstream.random());
    let cluster = &clusters[chosen];
    let trip = conn.trip(Instant::now());
    let Decided { denied, told: authorization } = authorize(conn, view);
    if let Some(on_trial) = conn.on_trial() {
        let denied = denied.as_ref().map(|(rules, denial)| Fate::Denied(rules, *denial));
        hold_up(conn, on_trial, &denied.unwrap_or(Fate::Bytes(&filter.to)));
    }
    if denied.is_some() {
        view.state.stats.error(ProxyError::Denied.answer().reason);
        let result = Err(ProxyError::Denied);
        return log(
            conn,
            view,
            &Done { at, trip: &trip, cluster: "", result, authorization: &authorization },
        );
    }
    let connected = match upstream.connect(cluster, &trip).await {
        // Here nothing is waited for before: its other end may only now have been made known.
        Ok(_) if is_named(cluster) && conn.comes_back() => Err(UpstreamError::OwnAddress),
        connected => connected,
    };
    let result: Result<(), ProxyError> = match connected {
        Ok((mut stream, _lease, _open)) => {
            conn.until_ended(pump(&mut client, &mut stream)).await;
            // Before what counts it, or one more could be open than may be.
            drop(stream);
            Ok(())
        }
        Err(error) => Err(error.into()),
    };
    let activity = conn.watch().activity();
    let (received, sent) = (activity.received(), activity.sent());
    view.state.stats.bytes(received, sent);
    // Seen from there, what the client sent is what the endpoint was sent.
    cluster.live.stats().bytes(sent, received);
    if let Err(error) = result {
        view.state.stats.error(error.answer().reason);
        tracing::debug!(listener = %view.name, cluster = %cluster.live.name(), %error, "connection not passed on");
    }
    let cluster = cluster.live.name().as_str();
    log(conn, view, &Done { at, trip: &trip, cluster, result, authorization: &authorization });
}

/// Whether it would be sent on to where it was going.
fn is_named(cluster: &ClusterView) -> bool {
    matches!(cluster.config.source, Source::Original(_))
}

/// What the listener's rules say of a connection.
#[derive(Default)]
struct Decided {
    denied: Option<(Arc<Rules>, Denial)>,
    /// What is to be told of it.
    told: String,
}

fn authorize(conn: &Conn, view: &ListenerView) -> Decided {
    // Those of now: a handshake may have taken its time.
    let current = conn.view();
    let Some(rules) = &current.authorization else { return Decided::default() };
    let decision = conn.with_fitting(rules, |fitting| rules.decide(fitting, None));
    decision.words().for_each(|word| view.state.stats.authorization(word));
    let told = rules.tell(decision).to_string();
    let denied = decision.denied.map(|denial| (rules.clone(), denial));
    if denied.is_some() {
        tracing::debug!(listener = %view.name, peer = ?conn.peer(), "connection {told}");
    }
    Decided { denied, told }
}

/// Counts what becomes of a connection beside what would.
fn hold_up(conn: &Conn, (bench, held): (Rc<Bench>, Rc<Held>), in_force: &Fate<'_>) {
    let chain = bench.chain(&held);
    let shadow = chain.map_or(Fate::Closed, |chain| chain.fate_of_connection(&conn.caller()));
    let example = || match conn.peer() {
        Some(peer) if conn.identity().is_empty() => peer.to_string(),
        Some(peer) => format!("{peer} {}", conn.identity()),
        None => "unix".to_owned(),
    };
    bench.note(&held, (in_force, &shadow), "", example);
}

struct Done<'a> {
    at: SystemTime,
    trip: &'a Trip,
    cluster: &'a str,
    result: Result<(), ProxyError>,
    authorization: &'a str,
}

fn log(conn: &Conn, view: &ListenerView, done: &Done<'_>) {
    let Done { at: start, trip, cluster, result, authorization } = done;
    let endpoint = trip.endpoint();
    let at = endpoint.as_ref().map(|endpoint| endpoint.at());
    let answer = result.err().map(ProxyError::answer);
    let activity = conn.watch().activity();
    let record = Record {
        start: *start,
        duration: trip.started().elapsed(),
        protocol: "TCP",
        client: conn.peer().map_or(Peer::Unix, Peer::Ip),
        listener: view.name.as_str(),
        route: "",
        method: "",
        host: b"",
        path: b"",
        query: None,
        user_agent: b"",
        status: 0,
        flag: answer.map_or("-", |a| a.flag),
        reason: answer.map_or("", |a| a.reason),
        bytes_received: activity.received(),
        bytes_sent: activity.sent(),
        cluster,
        endpoint: at.as_ref().map(|at| &at.address),
        attempts: 1,
        identity: conn.identity(),
        authorization,
        fallback: "",
        connect: trip.connect(),
        first_byte: None,
    };
    conn.worker().log(|logger| logger.log(&record));
}
