//! A control plane: what there is, what of it was said, and what it was asked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use outrigger_proto::xds::Kind;
use outrigger_proto::xds::discovery::{
    Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};

use super::super::delta::Delta;
use super::super::sotw::Sotw;
use super::super::speaks::Speaks;
use super::parts::{Id, One, World, below, called, number, written};
use super::{KINDS, MOST};

/// What is said at once.
#[derive(Debug)]
pub(super) struct Said {
    kind: Kind,
    put: Vec<(u8, u16, Any)>,
    gone: Vec<u8>,
}

/// What is asked of a kind.
#[derive(Debug)]
pub(super) struct Heard {
    /// Those that are asked for from now on.
    more: BTreeSet<u8>,
    /// Those that are asked for no longer.
    less: BTreeSet<u8>,
    /// What the proxy has from before.
    has: BTreeSet<u8>,
}

/// How it is said.
pub(super) trait Wire: Speaks {
    /// Whether what has changed is said, and not all there is.
    const INCREMENTAL: bool;

    /// As it goes over the stream.
    fn response(said: Said, nonce: u32) -> Self::Response;

    /// What is asked, by one who `asked` for these names before.
    fn heard(request: &Self::Request, asked: &BTreeSet<u8>) -> Heard;
}

fn numbers<'n>(names: impl IntoIterator<Item = &'n String>) -> BTreeSet<u8> {
    names.into_iter().map(|name| number(name)).collect()
}

impl Wire for Delta {
    const INCREMENTAL: bool = true;

    fn response(Said { kind, put, gone }: Said, nonce: u32) -> DeltaDiscoveryResponse {
        let resource = |(number, version, any): (u8, u16, Any)| Resource {
            name: called(number).to_string(),
            version: version.to_string(),
            resource: Some(any),
            ..Resource::default()
        };
        DeltaDiscoveryResponse {
            type_url: kind.url(),
            resources: put.into_iter().map(resource).collect(),
            removed_resources: gone.into_iter().map(|number| called(number).to_string()).collect(),
            nonce: nonce.to_string(),
            ..DeltaDiscoveryResponse::default()
        }
    }

    fn heard(request: &DeltaDiscoveryRequest, _: &BTreeSet<u8>) -> Heard {
        assert!(request.error_detail.is_none(), "{request:?}");
        Heard {
            more: numbers(&request.resource_names_subscribe),
            less: numbers(&request.resource_names_unsubscribe),
            has: numbers(request.initial_resource_versions.keys()),
        }
    }
}

impl Wire for Sotw {
    const INCREMENTAL: bool = false;

    fn response(Said { kind, put, gone: _ }: Said, nonce: u32) -> DiscoveryResponse {
        DiscoveryResponse {
            version_info: nonce.to_string(),
            resources: put.into_iter().map(|(_, _, any)| any).collect(),
            type_url: kind.url(),
            nonce: nonce.to_string(),
        }
    }

    fn heard(request: &DiscoveryRequest, asked: &BTreeSet<u8>) -> Heard {
        assert!(request.error_detail.is_none(), "{request:?}");
        let names = numbers(&request.resource_names);
        Heard { more: &names - asked, less: asked - &names, has: BTreeSet::new() }
    }
}

/// See the module.
pub(super) struct Server<P: Wire> {
    world: World,
    /// What of it was said, and is known: what was said of a name is forgotten with the last that refers to it.
    said: World,
    /// What is to be said, at some time.
    owed: BTreeSet<Id>,
    /// What is asked for by name.
    asked: BTreeMap<Kind, BTreeSet<u8>>,
    heard: VecDeque<P::Request>,
    version: u16,
    nonce: u32,
}

/// Leaves what listeners need.
fn keep_needed(world: &mut World) {
    for kind in KINDS {
        let Some(below) = below(kind) else { continue };
        let of_kind = world.iter().filter(|((of, _), _)| *of == kind);
        let needed: BTreeSet<u8> = of_kind.flat_map(|(_, one)| one.to.iter().copied()).collect();
        world.retain(|(of, number), _| *of != below || needed.contains(number));
    }
}

impl<P: Wire> Server<P> {
    pub(super) fn new() -> Self {
        let (world, said, owed, asked, heard) = Default::default();
        Self { world, said, owed, asked, heard, version: 0, nonce: 0 }
    }

    /// What there is.
    pub(super) fn world(&self) -> World {
        self.world.clone()
    }

    /// Whether something is under way.
    pub(super) fn is_busy(&self) -> bool {
        !(self.owed.is_empty() && self.heard.is_empty())
    }

    fn change(&mut self, change: impl FnOnce(&mut World)) {
        let before = self.world.clone();
        change(&mut self.world);
        keep_needed(&mut self.world);
        let all = before.keys().chain(self.world.keys());
        self.owed.extend(all.filter(|id| before.get(*id) != self.world.get(*id)));
    }

    /// A resource is another. Nobody makes what nothing needs.
    pub(super) fn put(&mut self, kind: Kind, number: u8, to: [u8; 2]) {
        if kind != Kind::Listener && !self.world.contains_key(&(kind, number)) {
            return;
        }
        self.version += 1;
        let version = self.version;
        self.change(|world| put(world, (kind, number), version, &to));
    }

    /// A listener is gone.
    pub(super) fn drop_listener(&mut self, number: u8) {
        self.change(|world| drop(world.remove(&(Kind::Listener, number))));
    }

    /// A stream begins, with these requests.
    pub(super) fn begin(&mut self, requests: Vec<P::Request>) {
        self.asked.clear();
        self.owed.clear();
        self.heard = requests.into();
    }

    /// The proxy says something.
    pub(super) fn told(&mut self, requests: Vec<P::Request>) {
        self.heard.extend(requests);
    }

    /// Hears the next of it.
    pub(super) fn hear(&mut self) {
        let Some(request) = self.heard.pop_front() else { return };
        let kind = P::kind(&request).unwrap();
        let is_first = !self.asked.contains_key(&kind);
        let asked = self.asked.entry(kind).or_default();
        let Heard { more, less, has } = P::heard(&request, asked);
        asked.retain(|number| !less.contains(number));
        asked.extend(&more);
        self.owed.extend(more.iter().map(|number| (kind, *number)));
        if is_first && is_whole(kind) {
            let has = has.into_iter().map(|number| (kind, number));
            self.owed.extend(self.world.keys().filter(|(of, _)| *of == kind).copied().chain(has));
            // Even if there is none, that is said.
            self.owed.extend((!P::INCREMENTAL).then_some((kind, 0)));
        }
    }

    /// Says one thing of all that is to be said, or nothing: nobody has asked for it.
    pub(super) fn say(&mut self, which: usize) -> Option<P::Response> {
        let id = *self.owed.iter().nth(which % self.owed.len().max(1))?;
        self.owed.remove(&id);
        let (kind, number) = id;
        if is_whole(kind) && !P::INCREMENTAL {
            return Some(self.say_all(kind));
        }
        if !is_whole(kind) && !self.asked.get(&kind).is_some_and(|asked| asked.contains(&number)) {
            return None;
        }
        let Some(one) = self.world.get(&id).cloned() else {
            // There is none: of what was asked for and not told, a server that means well says that when nothing needs it.
            return (P::INCREMENTAL && self.said.contains_key(&id)).then(|| self.say_gone(id));
        };
        let said = Said { kind, put: vec![(number, one.version, written(id, &one))], gone: Vec::new() };
        self.said.insert(id, one);
        Some(self.response(said))
    }

    fn say_gone(&mut self, id: Id) -> P::Response {
        let (kind, number) = id;
        // What something leads to stays as it was said last, and what does is said to be another later.
        if is_whole(kind) {
            self.said.remove(&id);
        }
        self.response(Said { kind, put: Vec::new(), gone: vec![number] })
    }

    /// Says all there is of a kind.
    pub(super) fn say_all(&mut self, kind: Kind) -> P::Response {
        self.owed.retain(|(of, _)| *of != kind);
        self.said.retain(|(of, _), _| *of != kind);
        let all = self.world.iter().filter(|((of, _), _)| *of == kind);
        self.said.extend(all.clone().map(|(id, one)| (*id, one.clone())));
        let put = all.map(|(id, one)| (id.1, one.version, written(*id, one))).collect();
        self.response(Said { kind, put, gone: Vec::new() })
    }

    fn response(&mut self, said: Said) -> P::Response {
        self.forget();
        self.nonce += 1;
        P::response(said, self.nonce)
    }

    /// What was said by name and what nothing needs that was said, the proxy has forgotten.
    fn forget(&mut self) {
        for (above, kind) in [(Kind::Listener, Kind::Routes), (Kind::Cluster, Kind::Endpoints)] {
            let of_above = self.said.iter().filter(|((of, _), _)| *of == above);
            let needed: BTreeSet<u8> = of_above.flat_map(|(_, one)| one.to.iter().copied()).collect();
            self.said.retain(|(of, number), _| *of != kind || needed.contains(number));
        }
    }
}

/// Whether all there are of it are asked for, and none by name.
fn is_whole(kind: Kind) -> bool {
    matches!(kind, Kind::Listener | Kind::Cluster)
}

/// Puts a resource, and what it needs that is not there.
fn put(world: &mut World, (kind, number): Id, version: u16, to: &[u8; 2]) {
    let to = match kind {
        Kind::Routes => to.to_vec(),
        Kind::Listener | Kind::Cluster => to[..1].to_vec(),
        Kind::Endpoints | Kind::Secret | Kind::Host => Vec::new(),
    };
    for needed in &to {
        let needed = (below(kind).unwrap(), *needed);
        if !world.contains_key(&needed) {
            put(world, needed, version, &[needed.1, (needed.1 + 1) % MOST]);
        }
    }
    world.insert((kind, number), One { version, to });
}
