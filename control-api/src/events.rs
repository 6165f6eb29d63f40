//! All that happens, in the order in which it did: CloudEvents (<https://cloudevents.io>, 1.0, JSON), kept in the store, so
//! that whoever comes back reads on from where it was.

mod data;

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

pub use self::data::schema;
use self::data::{How, Told};

/// What stands before the type of each of ours.
pub const OURS: &str = "dev.outrigger.";

/// From 1970 to the end of the year 9999, after which RFC 3339 has no year.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// A node has come.
pub(crate) const NODE_UP: &str = "node.up.v1";
/// A node has gone.
pub(crate) const NODE_DOWN: &str = "node.down.v1";
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
    fn told(self, node: String, at: Option<String>, (cluster, endpoint): (String, String)) -> (String, Told) {
        let subject = format!("cluster/{cluster}/{endpoint}");
        let told = match self {
            Self::Ejected { cause, length } => {
                let length_ms = length.map(|length| length.as_millis() as u64);
                Told::Ejected(data::Ejected { node, at, cluster, endpoint, cause, length_ms })
            }
            Self::Returned { gone } => Told::Returned(data::Returned { node, at, cluster, endpoint, gone }),
        };
        (subject, told)
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
    fn told(self, revision: u64) -> Told {
        let ended = |how, by, author| Told::ShadowEnded(data::ShadowEnded { revision, how, by, author });
        match self {
            Self::Begun { author, message } => {
                Told::ShadowBegun(data::ShadowBegun { revision, author, message })
            }
            Self::Promoted(by) => ended(How::Promoted, Some(by), None),
            Self::Replaced(by) => ended(How::Replaced, Some(by), None),
            Self::Ended(author) => ended(How::Ended, None, Some(author)),
            Self::Difference { node, listener, in_force, shadow } => {
                Told::ShadowDifference(data::ShadowDifference { revision, node, listener, in_force, shadow })
            }
            Self::Refused { node, why } => Told::ShadowRefused(data::ShadowRefused { revision, node, why }),
        }
    }
}

impl Happened {
    /// As the event of this number, of this time.
    pub fn numbered(self, id: u64, time: SystemTime) -> Event {
        let (subject, told) = self.told(time);
        Event {
            specversion: "1.0".to_owned(),
            id: id.to_string(),
            source: "/outrigger-control".to_owned(),
            kind: format!("{OURS}{}", told.kind()),
            subject,
            time: rfc3339(time),
            datacontenttype: "application/json".to_owned(),
            data: told.data(),
        }
    }

    /// The subject, and what is said of it.
    fn told(self, time: SystemTime) -> (String, Told) {
        match self {
            Self::Revision { number, author, message, rollback_to } => (
                format!("revision/{number}"),
                Told::RevisionAccepted(data::RevisionAccepted { number, author, message, rollback_to }),
            ),
            Self::Refused { author, why } => {
                ("revision".to_owned(), Told::RevisionRefused(data::RevisionRefused { author, why }))
            }
            Self::RolloutStep { revision, percent, nodes } => {
                let step = data::RolloutStep { revision, percent, nodes };
                (format!("revision/{revision}"), Told::RolloutStep(step))
            }
            Self::RolloutDone { revision } => {
                (format!("revision/{revision}"), Told::RolloutDone(data::RolloutDone { revision }))
            }
            Self::RolledBack { revision, why } => {
                (format!("revision/{revision}"), Told::RolledBack(data::RolledBack { revision, why }))
            }
            Self::Shadow { revision, what } => (format!("revision/{revision}"), what.told(revision)),
            Self::JoinCreated { id, spiffe_id, author } => {
                (format!("join/{id}"), Told::JoinCreated(data::Join { id, spiffe_id, author }))
            }
            Self::JoinRevoked { id, spiffe_id, author } => {
                (format!("join/{id}"), Told::JoinRevoked(data::Join { id, spiffe_id, author }))
            }
            Self::Issued { spiffe_id, serial, not_after, by } => {
                (spiffe_id.clone(), Told::Issued(data::Issued { spiffe_id, serial, not_after, by }))
            }
            Self::Expiring { whose, serial, not_after, node, why } => {
                let spiffe_id = Some(whose.clone()).filter(|whose| whose.starts_with("spiffe://"));
                let ((node, at), over) = (node.unzip(), not_after <= time);
                let (not_after, at) = (rfc3339(not_after), at.flatten());
                let lapse = data::Lapse { spiffe_id, serial, not_after, node, at, why };
                (whose, if over { Told::Expired(lapse) } else { Told::Expiring(lapse) })
            }
            Self::Endpoint { node, at, cluster, endpoint, what } => what.told(node, at, (cluster, endpoint)),
            Self::Rotated { trust_domain, roots } => {
                (trust_domain.clone(), Told::Rotated(data::Rotated { trust_domain, roots }))
            }
            Self::Unpublished { first, last } => {
                ("events".to_owned(), Told::Unpublished(data::Unpublished { first, last }))
            }
            Self::NodeUp { node, agent, group } => {
                (format!("node/{node}"), Told::NodeUp(data::NodeUp { node, agent, group }))
            }
            Self::NodeDown { node } => (format!("node/{node}"), Told::NodeDown(data::NodeDown { node })),
            Self::Ack { node, revision } => (format!("node/{node}"), Told::Ack(data::Ack { node, revision })),
            Self::Nack { node, revision, kind, why } => {
                (format!("node/{node}"), Told::Nack(data::Nack { node, revision, kind, why }))
            }
            Self::Forgotten { node, events } => {
                (format!("node/{node}"), Told::Forgotten(data::Forgotten { node, events }))
            }
        }
    }
}

/// A time as RFC 3339, in UTC. What lies beyond the years that it can write is the first or the last of them: others say
/// times, too.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + LAST;
    OffsetDateTime::from(time.clamp(SystemTime::UNIX_EPOCH, last)).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests;
