//! A configuration on trial: kept as a revision, told to proxies beside what is in force, acted on by nobody. Proxies hold it up
//! against what is in force and say what would change; that is added up here, for whoever is to decide whether it is to come
//! into force.
//!
//! [`server`] has the streams, [`findings`] what they say. What is on trial is the store's to know, and so survives all of it.

mod findings;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use outrigger_proto::model::{Fleet, Name};
use outrigger_proto::xds::Kind;
use outrigger_proto::xds::shadow::Shadow;
use prost::bytes::{BufMut as _, Bytes, BytesMut};
use prost::{Message as _, length_delimiter_len};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::findings::{DifferenceStatus, Findings, Following, Shadows};
pub use self::server::router;
use crate::nodes::Identity;
use crate::serving::{Asks, Serving, View};
use crate::store::Entry;

/// What is told where nothing is on trial: a message that says nothing, as gRPC frames it.
const NOTHING: [u8; 5] = [0; 5];

/// What a proxy is told of.
const KINDS: [Kind; 2] = [Kind::Listener, Kind::Routes];
/// Bytes of a message that a proxy takes, here as in ADS.
const MOST: usize = 32 << 20;

/// A revision on trial, ready to be told.
#[derive(Debug)]
pub struct Trial {
    /// Who wrote it, and when.
    pub entry: Entry,
    /// What it says.
    pub serving: Arc<Serving>,
    /// What each group is told, encoded once, as it goes over the wire.
    told: BTreeMap<Name, Bytes>,
    /// What of each those are told that ask for routes on demand: that there are some. They keep no whole tables.
    on_demand: BTreeMap<Name, Bytes>,
}

impl Trial {
    /// Encodes what nodes are told of it.
    pub fn new(entry: Entry, serving: Arc<Serving>) -> Self {
        let each = |asks| serving.views(asks).map(|view| (view.group.clone(), message(view))).collect();
        let [told, on_demand] = [Asks::All, Asks::OnDemand].map(each);
        Self { entry, serving, told, on_demand }
    }

    /// What this node is told; `None` where no group of it takes the node.
    fn of(&self, Identity { node, labels, agent: _, asks }: &Identity) -> Option<&Bytes> {
        let group = &self.serving.view(node, labels, *asks)?.group;
        match asks {
            Asks::All | Asks::Client => self.told.get(group),
            Asks::OnDemand => self.on_demand.get(group),
        }
    }
}

/// Why a group could not be told of it, if that is so: what a proxy does not take it would ask for again, for ever.
pub fn unsayable(serving: &Serving) -> Option<String> {
    let (view, length) =
        serving.views(Asks::All).map(|view| (view, length(view))).find(|(_, length)| *length > MOST)?;
    Some(format!(
        "on trial, proxies of the group `{}` would be told {length} bytes of listeners and routes at once, and they take {MOST} \
         at the most; name what they listen on (`listeners` of the group)",
        view.group
    ))
}

/// Bytes of what a group is told, at the most.
fn length(view: &View) -> usize {
    let all = KINDS.into_iter().flat_map(|kind| view.kind(kind).all());
    let each =
        all.map(|(_, item)| item.any.encoded_len()).map(|length| 1 + length_delimiter_len(length) + length);
    // Beside them stand the number and the interval.
    each.sum::<usize>() + 64
}

fn message(view: &View) -> Bytes {
    let all = |kind| view.kind(kind).all().map(|(_, item)| item.any.clone()).collect();
    let [listeners, routes] = KINDS.map(all);
    let shadow = Shadow {
        revision: view.revision,
        listeners,
        routes,
        interval: Some(server::INTERVAL.try_into().unwrap_or_default()),
    };
    framed(&shadow)
}

/// A message as gRPC frames it, without compression.
/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>
fn framed(message: &Shadow) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(NOTHING.len() + length);
    out.put_u8(0);
    out.put_u32(u32::try_from(length).expect("no longer than a proxy takes"));
    message.encode(&mut out).expect("there is room");
    out.freeze()
}

/// What is on trial, and what nodes say of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TrialStatus {
    /// Its number.
    pub revision: u64,
    /// Who wrote it.
    pub author: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// Why; may be empty.
    pub message: String,
    /// What was in force when it was written; 0 before anything was.
    pub before: u64,
    /// What that says is still in force, and so it can be promoted.
    pub current: bool,
    /// The revision that says the same and is on its way to all, if there is one: then there is nothing to be promoted.
    pub promoted: Option<u64>,
    /// Where nodes would listen otherwise than by what was accepted last: no request tells of that.
    pub listeners: Vec<ListenerChange>,
    /// Requests (of TCP: connections) that both were asked about.
    pub evaluated: u64,
    /// Those of them that would fare otherwise, by how, the most first.
    pub differences: Vec<DifferenceStatus>,
    /// Those of them that would fare otherwise in more ways than are kept apart.
    pub others: u64,
    /// Who is connected, and what it makes of it.
    pub nodes: Vec<TrialNode>,
}

/// A listener that would come, go or move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListenerChange {
    /// Whose: the name of a group.
    pub group: String,
    /// Its name.
    pub listener: String,
    /// Where it listens; nothing where it is new.
    pub in_force: Option<String>,
    /// Where it would; nothing where it would be gone.
    pub shadow: Option<String>,
}

impl ListenerChange {
    /// All of them, by group and name.
    pub fn between(in_force: &Fleet, shadow: &Fleet) -> Vec<Self> {
        let [now, then] = [in_force, shadow].map(|fleet| {
            let of = |group| {
                fleet.listeners(group).map(move |(name, listener)| ((&group.name, name), &listener.bind))
            };
            fleet.groups.iter().flat_map(of).collect::<BTreeMap<_, _>>()
        });
        let all: BTreeSet<_> = now.keys().chain(then.keys()).copied().collect();
        let others = all.into_iter().filter(|key| now.get(key) != then.get(key));
        let said = others.map(|key| {
            let [in_force, shadow] = [&now, &then].map(|of| of.get(&key).map(ToString::to_string));
            let (group, listener) = (key.0.to_string(), key.1.to_string());
            Self { group, listener, in_force, shadow }
        });
        said.collect()
    }
}

/// What a node makes of what is on trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrialNode {
    /// Its id.
    pub id: String,
    /// What it says it is.
    pub agent: String,
    /// Whether it holds its requests up against it.
    pub state: TrialState,
    /// Why it would refuse it, line by line.
    pub refused: Vec<String>,
}

/// Whether a node holds its requests up against what is on trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TrialState {
    /// It does.
    Follows,
    /// It does for connections, whose bytes are passed on. Of requests it says nothing, as it asks for routes on demand.
    InPart,
    /// It was told what that is, and has not said yet what it makes of it.
    Told,
    /// It would refuse it.
    Refuses,
    /// No group of what is on trial takes it.
    NoGroup,
    /// It does not ask what is on trial.
    Cannot,
}

impl TrialNode {
    /// It asks for what is on trial, which is of this revision.
    pub fn following(
        trial: u64,
        id: String,
        Following { agent, on_demand, revision, heard, refused }: Following,
    ) -> Self {
        let state = match refused.is_empty() {
            _ if revision != trial => TrialState::NoGroup,
            false => TrialState::Refuses,
            true if heard != trial => TrialState::Told,
            true if on_demand => TrialState::InPart,
            true => TrialState::Follows,
        };
        Self { id, agent, state, refused }
    }

    /// It asks for what is in force alone.
    pub fn other(id: String, agent: String) -> Self {
        Self { id, agent, state: TrialState::Cannot, refused: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use outrigger_proto::model::RouteTable;
    use outrigger_proto::xds::discovery::Node;
    use outrigger_proto::xds::{ON_DEMAND, Resource, read};

    use super::*;
    use crate::documents::{Documents, checked};

    #[test]
    fn each_group_is_told_its_listeners_and_where_they_lead() {
        let text = "listeners:\n  web: { bind: 127.0.0.1:1, routes: [{ to: app }] }\n  other: { bind: 127.0.0.1:2, routes: [{ to: app }] }\n\
                    clusters:\n  app: { endpoints: [127.0.0.1:3] }\n\
                    proxies:\n  front: { select: { id: a }, listeners: [web] }\n  back: { select: { id: b }, listeners: [other] }\n";
        let documents: Documents = [("a.yaml".to_owned(), text.to_owned())].into();
        let (serving, _) = checked(7, &documents, None).unwrap();
        let entry = Entry {
            number: 7,
            time: String::new(),
            author: String::new(),
            message: String::new(),
            rollback_to: None,
            shadow: true,
            before: Some(6),
        };
        let trial = Trial::new(entry, Arc::new(serving));
        let asking = |id: &str, features: &[&str]| {
            let client_features = features.iter().map(|feature| (*feature).to_owned()).collect();
            let node = Node { id: id.to_owned(), client_features, ..Node::default() };
            Some(Shadow::decode(trial.of(&node.into())?.slice(NOTHING.len()..)).unwrap())
        };
        let of = |id: &str| asking(id, &[]);
        let (a, b) = (of("a").unwrap(), of("b").unwrap());
        for told in [&a, &b] {
            assert_eq!((told.revision, told.listeners.len(), told.routes.len()), (7, 1, 1));
            assert_eq!(told.listeners[0].type_url, Kind::Listener.url());
            assert!(told.interval.is_some());
        }
        assert_ne!(a.listeners, b.listeners);
        assert!(of("c").is_none());
        // Who asks for routes one by one is told that there are some.
        let by_need = asking("a", &[ON_DEMAND]).unwrap();
        assert_eq!((&by_need.listeners, by_need.routes.len()), (&a.listeners, 1));
        let (_, table) = read(Kind::Routes, &by_need.routes[0]).unwrap();
        let empty = RouteTable { on_demand: true, ..RouteTable::default() };
        assert_eq!(table, Resource::Routes(empty));
    }

    #[test]
    fn what_a_proxy_would_not_take_is_known_before() {
        let of = |tables: usize| {
            let names: Vec<_> = (0..tables).map(|n| n.to_string()).collect();
            let tables: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
            View::of(
                7,
                &[
                    (Kind::Listener, &[("web", "1")]),
                    (Kind::Routes, &tables),
                    (Kind::Cluster, &[("app", "1")]),
                ],
            )
        };
        for tables in [0, 3] {
            let (view, told) = (of(tables), message(&of(tables)));
            assert!((told.len()..told.len() + 80).contains(&length(&view)), "{tables}");
        }
        assert!(length(&of(160)) < MOST && length(&of(170)) > MOST);
    }

    #[test]
    fn where_would_be_listened_otherwise_is_told() {
        let of = |front: &str, back: &str, groups: &str| {
            let text = format!(
                "listeners:\n  front: {{ bind: 127.0.0.1:{front}, routes: [{{ to: app }}] }}\n  {back}: {{ bind: 127.0.0.1:9, routes: [{{ to: app }}] }}\n\
                 clusters:\n  app: {{ endpoints: [127.0.0.1:3] }}\n{groups}"
            );
            checked(1, &[("a.yaml".to_owned(), text)].into(), None).unwrap().0
        };
        let told = |now: &Serving, then: &Serving| {
            let all = ListenerChange::between(now.fleet(), then.fleet()).into_iter();
            let words = all.map(|ListenerChange { group, listener, in_force, shadow }| {
                let of = |bind: Option<String>| bind.unwrap_or_default();
                format!("{group} {listener} {} {}", of(in_force), of(shadow))
            });
            words.collect::<Vec<_>>()
        };
        let groups = "proxies:\n  a: { select: { id: a }, listeners: [front] }\n  b: { select: { id: b } }\n";
        let now = of("1", "back", groups);
        assert!(told(&now, &now).is_empty());
        let moved = ["a front 127.0.0.1:1 127.0.0.1:2", "b front 127.0.0.1:1 127.0.0.1:2"];
        assert_eq!(told(&now, &of("2", "back", groups)), moved);
        assert_eq!(told(&now, &of("1", "side", groups)), ["b back 127.0.0.1:9 ", "b side  127.0.0.1:9"]);
        // Of a group that is gone all is.
        let one = "proxies:\n  b: {}\n";
        assert_eq!(told(&now, &of("1", "back", one)), ["a front 127.0.0.1:1 "]);
        assert_eq!(told(&Serving::nothing(), &of("1", "back", one)).len(), 2);
    }

    #[test]
    fn what_a_node_makes_of_it_is_told_apart() {
        let rows: [([u64; 2], &[&str], _); 6] = [
            ([7, 7], &[], TrialState::Follows),
            ([7, 0], &[], TrialState::Told),
            ([7, 6], &[], TrialState::Told),
            ([7, 0], &["no"], TrialState::Refuses),
            ([7, 7], &["no"], TrialState::Refuses),
            ([0, 0], &[], TrialState::NoGroup),
        ];
        for ([revision, heard], refused, expected) in rows {
            let refused = refused.iter().map(|line| (*line).to_owned()).collect();
            let mut following =
                Following { agent: String::new(), on_demand: false, revision, heard, refused };
            let state =
                |following: &Following| TrialNode::following(7, "a".to_owned(), following.clone()).state;
            assert_eq!(state(&following), expected);
            following.on_demand = true;
            let expected = if expected == TrialState::Follows { TrialState::InPart } else { expected };
            assert_eq!(state(&following), expected);
        }
    }
}
