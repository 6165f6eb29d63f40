//! What `data` of an event looks like, by its type: what is sent and what is described are one thing.

use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::{PartialSchema, ToSchema};

use super::{EXPIRED, EXPIRING, Event, ISSUED, NODE_DOWN, NODE_UP, OURS};

/// The one table of all types: what each says, what its data is, and what it is called after [`OURS`].
macro_rules! told {
    ($($(#[doc = $what:literal])+ $name:ident($data:ident) = $kind:expr,)+) => {
        /// What happened, as it is told.
        #[derive(Clone, Debug, PartialEq)]
        pub(super) enum Told {
            $($(#[doc = $what])+ $name($data),)+
        }

        impl Told {
            /// What its type is called.
            pub(super) fn kind(&self) -> &'static str {
                match self { $(Self::$name(_) => $kind,)+ }
            }

            /// What is said of it.
            pub(super) fn data(&self) -> Value {
                let data = match self { $(Self::$name(data) => serde_json::to_value(data),)+ };
                data.expect("it has text for keys")
            }
        }

        /// What each type is called, and its data.
        fn types() -> Vec<(String, Value)> {
            vec![$((format!("{OURS}{}", $kind), described::<$data>(concat!($($what),+)))),+]
        }
    };
}

told! {
    /// A configuration was accepted.
    RevisionAccepted(RevisionAccepted) = "revision.accepted.v1",
    /// A configuration of the directory was refused.
    RevisionRefused(RevisionRefused) = "revision.refused.v1",
    /// A revision is told to some.
    RolloutStep(RolloutStep) = "rollout.step.v1",
    /// A revision is told to all.
    RolloutDone(RolloutDone) = "rollout.done.v1",
    /// A revision was taken back.
    RolledBack(RolledBack) = "rollout.back.v1",
    /// A revision is on trial.
    ShadowBegun(ShadowBegun) = "shadow.begun.v1",
    /// Requests would fare otherwise by what is on trial, in a way that was not heard of before.
    ShadowDifference(ShadowDifference) = "shadow.difference.v1",
    /// A node would refuse what is on trial.
    ShadowRefused(ShadowRefused) = "shadow.refused.v1",
    /// A revision is not on trial any more.
    ShadowEnded(ShadowEnded) = "shadow.ended.v1",
    /// A node has come.
    NodeUp(NodeUp) = NODE_UP,
    /// A node has gone.
    NodeDown(NodeDown) = NODE_DOWN,
    /// A node has taken a revision, of all kinds that it asks for.
    Ack(Ack) = "node.ack.v1",
    /// A node has refused something.
    Nack(Nack) = "node.nack.v1",
    /// More befell a node than it could tell.
    Forgotten(Forgotten) = "node.forgot.v1",
    /// Outlier detection of a node leaves an endpoint out.
    Ejected(Ejected) = "endpoint.ejected.v1",
    /// An endpoint that was left out takes requests again, or has left its cluster.
    Returned(Returned) = "endpoint.returned.v1",
    /// A certificate was signed.
    Issued(Issued) = ISSUED,
    /// A certificate is about to lapse, and there is no other.
    Expiring(Lapse) = EXPIRING,
    /// A certificate has lapsed, and there is no other.
    Expired(Lapse) = EXPIRED,
    /// A join token was made.
    JoinCreated(Join) = "join.created.v1",
    /// A join token was taken back, and with it all that goes back to it.
    JoinRevoked(Join) = "join.revoked.v1",
    /// There is a new root, which signs when everybody knows it.
    Rotated(Rotated) = "ca.rotated.v1",
    /// Events were forgotten before they could be published.
    Unpublished(Unpublished) = "events.unpublished.v1",
}

/// Structures of which events are made.
macro_rules! data {
    ($($(#[$what:meta])+ $name:ident { $($(#[$of:meta])+ $field:ident: $type:ty,)+ })+) => {
        $(
            $(#[$what])+
            #[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
            pub(super) struct $name {
                $($(#[$of])+ pub(super) $field: $type,)+
            }
        )+
    };
}

data! {
    /// See [`Told::RevisionAccepted`].
    RevisionAccepted {
        /// Its number.
        number: u64,
        /// Who wrote it.
        author: String,
        /// Why, in the author's words; may be empty.
        message: String,
        /// The earlier one that it brings back, if it does.
        rollback_to: Option<u64>,
    }
    /// See [`Told::RevisionRefused`].
    RevisionRefused {
        /// Who wrote it.
        author: String,
        /// All that is wrong with it, line by line.
        why: String,
    }
    /// See [`Told::RolloutStep`].
    RolloutStep {
        /// The revision.
        revision: u64,
        /// So many of each group, of 100.
        percent: f64,
        /// Whom, by their ids.
        nodes: Vec<String>,
    }
    /// See [`Told::RolloutDone`].
    RolloutDone {
        /// The revision.
        revision: u64,
    }
    /// See [`Told::RolledBack`].
    RolledBack {
        /// The revision.
        revision: u64,
        /// Why.
        why: String,
    }
    /// See [`Told::ShadowBegun`].
    ShadowBegun {
        /// The revision.
        revision: u64,
        /// Who wrote it.
        author: String,
        /// Why, in the author's words; may be empty.
        message: String,
    }
    /// See [`Told::ShadowDifference`]. Without an example: hosts and paths of live requests are not for all who hear of events.
    ShadowDifference {
        /// The revision.
        revision: u64,
        /// The node that was the first to say so.
        node: String,
        /// Where they come in.
        listener: String,
        /// What becomes of them.
        in_force: String,
        /// What would.
        shadow: String,
    }
    /// See [`Told::ShadowRefused`].
    ShadowRefused {
        /// The revision.
        revision: u64,
        /// The node.
        node: String,
        /// The first of the lines that say why.
        why: String,
    }
    /// See [`Told::ShadowEnded`].
    ShadowEnded {
        /// The revision.
        revision: u64,
        #[schema(inline)]
        how: How,
        /// The revision that says the same and was told to all, or that is on trial in its place.
        by: Option<u64>,
        /// Who has ended it.
        author: Option<String>,
    }
    /// See [`Told::NodeUp`].
    NodeUp {
        /// Its id.
        node: String,
        /// What it says it is.
        agent: String,
        /// Its group; nothing where none takes it.
        group: Option<String>,
    }
    /// See [`Told::NodeDown`].
    NodeDown {
        /// Its id.
        node: String,
    }
    /// See [`Told::Ack`].
    Ack {
        /// Its id.
        node: String,
        /// The revision.
        revision: u64,
    }
    /// See [`Told::Nack`].
    Nack {
        /// Its id.
        node: String,
        /// The revision.
        revision: u64,
        /// Of which kind what it refused is.
        kind: String,
        /// Why.
        why: String,
    }
    /// See [`Told::Forgotten`].
    Forgotten {
        /// Its id.
        node: String,
        /// So many events.
        events: u64,
    }
    /// See [`Told::Ejected`].
    Ejected {
        /// The node.
        node: String,
        /// When, by its clock, RFC 3339.
        at: Option<String>,
        /// Of this cluster.
        cluster: String,
        /// Its address.
        endpoint: String,
        /// Why.
        cause: String,
        /// For how long, at first, in milliseconds.
        length_ms: Option<u64>,
    }
    /// See [`Told::Returned`].
    Returned {
        /// The node.
        node: String,
        /// When, by its clock, RFC 3339.
        at: Option<String>,
        /// Of this cluster.
        cluster: String,
        /// Its address.
        endpoint: String,
        /// It has left its cluster.
        gone: bool,
    }
    /// See [`Told::Issued`].
    Issued {
        /// For whom.
        spiffe_id: String,
        /// Its number, in hexadecimal.
        serial: String,
        /// When it lapses, RFC 3339.
        not_after: String,
        /// With what he has proven who he is.
        by: String,
    }
    /// See [`Told::Expiring`] and [`Told::Expired`].
    Lapse {
        /// Who whoever shows it is; nothing for one of the control plane's own.
        spiffe_id: Option<String>,
        /// Its number, in hexadecimal.
        serial: String,
        /// When it lapses, RFC 3339.
        not_after: String,
        /// The node that says so of its own.
        node: Option<String>,
        /// When, by its clock, RFC 3339.
        at: Option<String>,
        /// Why there is no other, as far as that is known.
        why: String,
    }
    /// See [`Told::JoinCreated`] and [`Told::JoinRevoked`].
    Join {
        /// By which it is taken back.
        id: String,
        /// Who whoever shows it is.
        spiffe_id: String,
        /// By whom.
        author: String,
    }
    /// See [`Told::Rotated`].
    Rotated {
        /// Whose.
        trust_domain: String,
        /// So many are believed now.
        roots: usize,
    }
    /// See [`Told::Unpublished`].
    Unpublished {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    }
}

/// How a trial has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum How {
    /// Another revision says the same and was told to all.
    Promoted,
    /// Another is on trial in its place.
    Replaced,
    /// Somebody has ended it.
    Ended,
}

fn described<D: PartialSchema>(what: &str) -> Value {
    let mut schema = written(&D::schema());
    schema["description"] = what.trim().into();
    require_all(&mut schema);
    schema
}

/// All keys are always there, be there nothing to be said.
fn require_all(schema: &mut Value) {
    let keys: Vec<_> = schema["properties"].as_object().into_iter().flat_map(Map::keys).cloned().collect();
    schema["required"] = keys.into();
}

fn written(schema: &impl Serialize) -> Value {
    serde_json::to_value(schema).expect("a schema has text for keys")
}

/// What events look like, as JSON Schema (2020-12): all of them, and the `data` of each type.
pub fn schema() -> Value {
    let mut schema = written(&Event::schema());
    require_all(&mut schema);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "What happens in a mesh".into();
    let types = types();
    let of = |kind: &str| json!({ "properties": { "type": { "const": kind }, "data": { "$ref": format!("#/$defs/{kind}") } } });
    schema["oneOf"] = types.iter().map(|(kind, _)| of(kind)).collect();
    schema["$defs"] = Value::Object(types.into_iter().collect());
    schema
}
