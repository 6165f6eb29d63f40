//! All that happens, in the order in which it did: CloudEvents (<https://cloudevents.io>, 1.0, JSON), kept in the store, so
//! that whoever comes back reads on from where it was.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

/// What stands before the type of each of ours.
pub const OURS: &str = "dev.outrigger.";

/// From 1970 to the end of the year 9999, after which RFC 3339 has no year.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// A certificate was signed.
pub(crate) const ISSUED: &str = "certificate.issued.v1";
/// A certificate lapses, and there is no other.
pub(crate) const EXPIRING: &str = "certificate.expiring.v1";
/// It has lapsed.
pub(crate) const EXPIRED: &str = "certificate.expired.v1";

/// An event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// `1.0`, of CloudEvents.
    pub specversion: String,
    /// A number, one more than that of the event before.
    pub id: String,
    /// Who says so.
    pub source: String,
    /// What happened, with the version of what `data` looks like.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it happened to.
    pub subject: String,
    /// When, RFC 3339.
    pub time: String,
    /// `application/json`.
    pub datacontenttype: String,
    /// More about it.
    #[schema(value_type = Object)]
    pub data: Value,
}

/// What happened, before it is numbered.
#[derive(Clone, Debug, PartialEq)]
pub enum Happened {
    /// A configuration was accepted.
    Revision {
        /// Its number.
        number: u64,
        /// Who wrote it.
        author: String,
        /// Why, in the author's words.
        message: String,
        /// Whether it brings back an earlier one, and which.
        rollback_to: Option<u64>,
    },
    /// A configuration of the directory was refused.
    Refused {
        /// Who wrote it.
        author: String,
        /// All that is wrong with it.
        why: String,
    },
    /// A node has come.
    NodeUp {
        /// Its id.
        node: String,
        /// What it says it is.
        agent: String,
        /// Its group; `None` where none takes it.
        group: Option<String>,
    },
    /// A revision is told to some.
    RolloutStep {
        /// The revision.
        revision: u64,
        /// So many of each group.
        percent: f64,
        /// Whom.
        nodes: Vec<String>,
    },
    /// A revision is told to all.
    RolloutDone {
        /// The revision.
        revision: u64,
    },
    /// A revision was taken back.
    RolledBack {
        /// The revision.
        revision: u64,
        /// Why.
        why: String,
    },
    /// Something of a configuration on trial.
    Shadow {
        /// Its number.
        revision: u64,
        /// What.
        what: OfShadow,
    },
    /// A certificate was signed.
    Issued {
        /// For whom.
        spiffe_id: String,
        /// Its number, in hexadecimal.
        serial: String,
        /// When it lapses, RFC 3339.
        not_after: String,
        /// With what he has proven who he is.
        by: String,
    },
    /// A certificate is about to lapse, or has, and there is no other.
    Expiring {
        /// Who whoever shows it is: a SPIFFE ID, or a name of the control plane's own.
        whose: String,
        /// Its number, in hexadecimal.
        serial: String,
        /// When it lapses.
        not_after: SystemTime,
        /// Who says so of his own, and when by his clock, RFC 3339.
        node: Option<(String, Option<String>)>,
        /// Why there is no other, as far as that is known.
        why: String,
    },
    /// Something of an endpoint, as a node sees it.
    Endpoint {
        /// The node.
        node: String,
        /// When, by its clock, RFC 3339.
        at: Option<String>,
        /// Of this cluster.
        cluster: String,
        /// Its address.
        endpoint: String,
        /// What.
        what: OfEndpoint,
    },
    /// More befell a node than it could tell.
    Forgotten {
        /// The node.
        node: String,
        /// So much.
        events: u64,
    },
    /// A join token was made.
    JoinCreated {
        /// Its id.
        id: String,
        /// For whom.
        spiffe_id: String,
        /// By whom.
        author: String,
    },
    /// A join token was taken back, and with it all that goes back to it.
    JoinRevoked {
        /// Its id.
        id: String,
        /// For whom it was.
        spiffe_id: String,
        /// By whom.
        author: String,
    },
    /// There is a new root, which signs when everybody knows it.
    Rotated {
        /// Whose.
        trust_domain: String,
        /// So many are believed now.
        roots: usize,
    },
    /// Events were forgotten before they could be published.
    Unpublished {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
    /// A node has gone.
    NodeDown {
        /// Its id.
        node: String,
    },
    /// A node has taken a revision, of all kinds that it asks for.
    Ack {
        /// Its id.
        node: String,
        /// The revision.
        revision: u64,
    },
    /// A node has refused something.
    Nack {
        /// Its id.
        node: String,
        /// The revision.
        revision: u64,
        /// Of which kind.
        kind: String,
        /// Why.
        why: String,
    },
}

/// What happened to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfEndpoint {
    /// Outlier detection leaves it out.
    Ejected {
        /// Why.
        cause: String,
        /// For how long, at first.
        length: Option<Duration>,
    },
    /// It takes requests again, or has left its cluster.
    Returned {
        /// It has left.
        gone: bool,
    },
}

impl OfEndpoint {
    /// The type of its event, the subject and the data.
    fn said(
        self,
        node: String,
        at: Option<String>,
        (cluster, endpoint): (String, String),
    ) -> (&'static str, String, Value) {
        let subject = format!("cluster/{cluster}/{endpoint}");
        let mut data = json!({ "node": node, "at": at, "cluster": cluster, "endpoint": endpoint });
        match self {
            Self::Ejected { cause, length } => {
                data["cause"] = cause.into();
                data["length_ms"] = length.map(|length| length.as_millis() as u64).into();
                ("endpoint.ejected.v1", subject, data)
            }
            Self::Returned { gone } => {
                data["gone"] = gone.into();
                ("endpoint.returned.v1", subject, data)
            }
        }
    }
}

/// What happened to a configuration on trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfShadow {
    /// It is on trial.
    Begun {
        /// Who wrote it.
        author: String,
        /// Why, in the author's words.
        message: String,
    },
    /// This revision says the same and was told to all: it is not on trial any more.
    Promoted(u64),
    /// This one is on trial in its place.
    Replaced(u64),
    /// Somebody has ended it.
    Ended(String),
    /// Requests would fare otherwise, in a way that was not heard of before.
    Difference {
        /// Who was the first to say so.
        node: String,
        /// Where they come in.
        listener: String,
        /// What becomes of them.
        in_force: String,
        /// What would.
        shadow: String,
    },
    /// A node would refuse it.
    Refused {
        /// Its id.
        node: String,
        /// The first of the lines that say why.
        why: String,
    },
}

impl OfShadow {
    /// The type of its event, the subject and the data.
    fn said(self, revision: u64) -> (&'static str, String, Value) {
        let ended = |how: &str, by: Option<u64>, author: Option<String>| {
            ("shadow.ended.v1", json!({ "revision": revision, "how": how, "by": by, "author": author }))
        };
        let (kind, data) = match self {
            Self::Begun { author, message } => {
                ("shadow.begun.v1", json!({ "revision": revision, "author": author, "message": message }))
            }
            Self::Promoted(by) => ended("promoted", Some(by), None),
            Self::Replaced(by) => ended("replaced", Some(by), None),
            Self::Ended(author) => ended("ended", None, Some(author)),
            // Without an example: hosts and paths of live requests are not for all who hear of events.
            Self::Difference { node, listener, in_force, shadow } => {
                let data = json!({
                    "revision": revision, "node": node, "listener": listener, "in_force": in_force, "shadow": shadow,
                });
                ("shadow.difference.v1", data)
            }
            Self::Refused { node, why } => {
                ("shadow.refused.v1", json!({ "revision": revision, "node": node, "why": why }))
            }
        };
        (kind, format!("revision/{revision}"), data)
    }
}

impl Happened {
    /// As the event of this number, of this time.
    pub fn numbered(self, id: u64, time: SystemTime) -> Event {
        let (kind, subject, data) = self.said(time);
        Event {
            specversion: "1.0".to_owned(),
            id: id.to_string(),
            source: "/outrigger-control".to_owned(),
            kind: format!("{OURS}{kind}"),
            subject,
            time: rfc3339(time),
            datacontenttype: "application/json".to_owned(),
            data,
        }
    }

    /// The type of its event, the subject and the data.
    fn said(self, time: SystemTime) -> (&'static str, String, Value) {
        match self {
            Self::Revision { number, author, message, rollback_to } => {
                let data = json!({ "number": number, "author": author, "message": message, "rollback_to": rollback_to });
                ("revision.accepted.v1", format!("revision/{number}"), data)
            }
            Self::Refused { author, why } => {
                ("revision.refused.v1", "revision".to_owned(), json!({ "author": author, "why": why }))
            }
            Self::NodeUp { node, agent, group } => {
                let data = json!({ "node": node, "agent": agent, "group": group });
                ("node.up.v1", format!("node/{node}"), data)
            }
            Self::RolloutStep { revision, percent, nodes } => {
                let data = json!({ "revision": revision, "percent": percent, "nodes": nodes });
                ("rollout.step.v1", format!("revision/{revision}"), data)
            }
            Self::RolloutDone { revision } => {
                ("rollout.done.v1", format!("revision/{revision}"), json!({ "revision": revision }))
            }
            Self::RolledBack { revision, why } => {
                let data = json!({ "revision": revision, "why": why });
                ("rollout.back.v1", format!("revision/{revision}"), data)
            }
            Self::Shadow { revision, what } => what.said(revision),
            Self::JoinCreated { id, spiffe_id, author } => join("join.created.v1", [id, spiffe_id, author]),
            Self::JoinRevoked { id, spiffe_id, author } => join("join.revoked.v1", [id, spiffe_id, author]),
            Self::Issued { spiffe_id, serial, not_after, by } => {
                let data =
                    json!({ "spiffe_id": spiffe_id, "serial": serial, "not_after": not_after, "by": by });
                (ISSUED, spiffe_id, data)
            }
            Self::Expiring { whose, serial, not_after, node, why } => {
                let kind = if not_after <= time { EXPIRED } else { EXPIRING };
                (kind, whose.clone(), expiring(&whose, [serial, rfc3339(not_after), why], node))
            }
            Self::Endpoint { node, at, cluster, endpoint, what } => what.said(node, at, (cluster, endpoint)),
            Self::Forgotten { node, events } => {
                let data = json!({ "node": node, "events": events });
                ("node.forgot.v1", format!("node/{node}"), data)
            }
            Self::Rotated { trust_domain, roots } => {
                let data = json!({ "trust_domain": trust_domain, "roots": roots });
                ("ca.rotated.v1", trust_domain, data)
            }
            Self::Unpublished { first, last } => {
                ("events.unpublished.v1", "events".to_owned(), json!({ "first": first, "last": last }))
            }
            Self::NodeDown { node } => ("node.down.v1", format!("node/{node}"), json!({ "node": node })),
            Self::Ack { node, revision } => {
                let data = json!({ "node": node, "revision": revision });
                ("node.ack.v1", format!("node/{node}"), data)
            }
            Self::Nack { node, revision, kind, why } => {
                let data = json!({ "node": node, "revision": revision, "kind": kind, "why": why });
                ("node.nack.v1", format!("node/{node}"), data)
            }
        }
    }
}

fn expiring(
    whose: &str,
    [serial, not_after, why]: [String; 3],
    node: Option<(String, Option<String>)>,
) -> Value {
    let id = Some(whose).filter(|whose| whose.starts_with("spiffe://"));
    let (node, at) = node.unzip();
    json!({
        "spiffe_id": id, "serial": serial, "not_after": not_after, "node": node, "at": at.flatten(), "why": why,
    })
}

fn join(kind: &'static str, [id, spiffe_id, author]: [String; 3]) -> (&'static str, String, Value) {
    (kind, format!("join/{id}"), json!({ "id": id, "spiffe_id": spiffe_id, "author": author }))
}

/// A time as RFC 3339, in UTC. What lies beyond the years that it can write is the first or the last of them: others say
/// times, too.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + LAST;
    OffsetDateTime::from(time.clamp(SystemTime::UNIX_EPOCH, last)).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_can_be_written() {
        let epoch = SystemTime::UNIX_EPOCH;
        let seconds = Duration::from_secs;
        assert_eq!(rfc3339(epoch + seconds(86_400)), "1970-01-02T00:00:00Z");
        assert_eq!(rfc3339(epoch + seconds(1_000_000_000_000_000)), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(epoch - seconds(1_000_000_000_000_000)), "1970-01-01T00:00:00Z");
    }
}
