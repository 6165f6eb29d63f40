//! Who is connected, and what each made of what it was told.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use outrigger_proto::model::{self, Labels, Name};
use outrigger_proto::xds::discovery::{self, UserAgentVersionType, ValueKind};
use outrigger_proto::xds::{Kind, ON_DEMAND};
use serde::{Deserialize, Serialize};
use tonic::Status;
use utoipa::ToSchema;

use crate::events::rfc3339;
use crate::loads::LoadStatus;
use crate::serving::Asks;
use crate::xds::session::{Heard, Verdict, Way};

/// Bytes of a node's id.
const ID: usize = 512;

/// Who says something, where it is to be known.
///
/// # Errors
/// It is not said.
pub fn named(node: Option<discovery::Node>) -> Result<discovery::Node, Status> {
    let node = node.filter(|node| !node.id.is_empty());
    let node = node
        .ok_or_else(|| Status::invalid_argument("the first message says who speaks: `node.id` is missing"))?;
    if node.id.len() > ID {
        return Err(Status::invalid_argument(format!("`node.id` is longer than {ID} bytes")));
    }
    Ok(node)
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Id, cluster, locality.
    pub node: model::Node,
    /// What its metadata says below `labels`.
    pub labels: Labels,
    /// What it is.
    pub agent: String,
    /// How it asks.
    pub asks: Asks,
}

impl From<discovery::Node> for Identity {
    fn from(node: discovery::Node) -> Self {
        let locality = node.locality.unwrap_or_default();
        let version = match node.user_agent_version_type {
            Some(UserAgentVersionType::UserAgentVersion(version)) => version,
            _ => String::new(),
        };
        let agent = format!("{} {version}", node.user_agent_name).trim().to_owned();
        let asks = match &node.client_features {
            _ if agent.starts_with("gRPC") => Asks::Client,
            features if features.iter().any(|feature| feature == ON_DEMAND) => Asks::OnDemand,
            _ => Asks::All,
        };
        let labels = node.metadata.and_then(|metadata| metadata.fields.get("labels").cloned());
        let labels = match labels.and_then(|value| value.kind) {
            Some(ValueKind::StructValue(labels)) => labels.fields,
            _ => BTreeMap::new(),
        };
        let labels = labels.into_iter().filter_map(|(key, value)| match value.kind {
            Some(ValueKind::StringValue(value)) => Some((key.into(), value.into())),
            _ => None,
        });
        Self {
            node: model::Node {
                id: node.id.into(),
                cluster: node.cluster.into(),
                locality: model::Locality {
                    region: locality.region.into(),
                    zone: locality.zone.into(),
                    sub_zone: locality.sub_zone.into(),
                },
                // What is needed of it are the labels.
                ..model::Node::default()
            },
            labels: Labels(labels.collect()),
            agent,
            asks,
        }
    }
}

/// What is shown of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// Its id.
    pub id: String,
    /// Its cluster; may be empty.
    pub cluster: String,
    /// What it says it is.
    pub agent: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The group that takes it, if one does.
    pub group: Option<String>,
    /// `delta` or `sotw`.
    pub way: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// The revision that it is told of; 0 before it is told anything.
    pub revision: u64,
    /// Whether it has answered for all that it is to have.
    pub settled: bool,
    /// Whether it has all that it is to have, and refused none of it.
    pub in_sync: bool,
    /// By kind.
    pub kinds: BTreeMap<String, KindStatus>,
    /// What it answered in the last minute; `None` of one that does not say.
    pub load: Option<LoadStatus>,
}

/// What a node made of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KindStatus {
    /// The last revision of which something of it was told.
    pub told: u64,
    /// The last that it took.
    pub acked: u64,
    /// Why it refused something, if it did; until it takes something of a later revision.
    pub nack: Option<String>,
    /// The revision of which it refused something last.
    pub refused: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Nodes {
    streams: Mutex<BTreeMap<u64, NodeStatus>>,
    /// Rises with whatever is noted.
    version: AtomicU64,
}

impl Nodes {
    /// A stream has begun.
    pub fn connect(&self, stream: u64, identity: &Identity, way: Way) {
        let Identity { node, labels, agent, asks: _ } = identity;
        let status = NodeStatus {
            id: node.id.to_string(),
            cluster: node.cluster.to_string(),
            agent: agent.clone(),
            labels: labels.0.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            group: None,
            way: match way {
                Way::Delta => "delta".to_owned(),
                Way::Sotw => "sotw".to_owned(),
            },
            since: rfc3339(SystemTime::now()),
            revision: 0,
            settled: false,
            in_sync: false,
            kinds: BTreeMap::new(),
            load: None,
        };
        self.lock().insert(stream, status);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// It has ended.
    pub fn disconnect(&self, stream: u64) {
        self.lock().remove(&stream);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The node is of this group, and told of this revision.
    pub fn note_group(&self, stream: u64, group: &Name, revision: u64) {
        self.with(stream, |status| {
            status.group = Some(group.to_string());
            status.revision = revision;
        });
    }

    /// Something is on its way.
    pub fn note_told(&self, stream: u64, kind: Kind, revision: u64) {
        self.with(stream, |status| {
            status.kinds.entry(kind.to_string()).or_default().told = revision;
        });
    }

    /// The node has answered.
    pub fn note_heard(&self, stream: u64, heard: &Heard) {
        self.with(stream, |status| {
            let kind = status.kinds.entry(heard.kind.to_string()).or_default();
            match &heard.verdict {
                // Of one revision it may be told in several steps, and take some of them.
                Verdict::Ack if kind.nack.is_some() && kind.refused == heard.revision => {}
                Verdict::Ack => {
                    kind.acked = heard.revision;
                    kind.nack = None;
                }
                Verdict::Nack(why) => {
                    kind.refused = heard.revision;
                    kind.nack = Some(why.clone());
                }
            }
        });
    }

    /// Whether it has answered for all that it is to have.
    pub fn note_settled(&self, stream: u64, is_settled: bool) {
        if let Some(status) = self.lock().get_mut(&stream) {
            let in_sync = is_settled && status.kinds.values().all(|kind| kind.nack.is_none());
            // It is said whenever anything is heard, and seldom anything new.
            if (status.settled, status.in_sync) != (is_settled, in_sync) {
                (status.settled, status.in_sync) = (is_settled, in_sync);
                self.version.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// All of them, in the order in which they came.
    pub fn all(&self) -> Vec<NodeStatus> {
        self.lock().values().cloned().collect()
    }

    /// Another one, whenever anything was noted since.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// All of them, by stream.
    pub fn by_stream(&self) -> BTreeMap<u64, NodeStatus> {
        self.lock().clone()
    }

    fn with(&self, stream: u64, change: impl FnOnce(&mut NodeStatus)) {
        if let Some(status) = self.lock().get_mut(&stream) {
            change(status);
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, NodeStatus>> {
        self.streams.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
