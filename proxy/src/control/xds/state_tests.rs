//! Held against what is rebuilt from all that was said, whatever is said in whatever order.

use std::path::Path;
use std::time::Duration;

use outrigger_proto::model::{
    self, Address, Certificate, Cluster, Endpoint, Listener, Revocation, Roots, San, ServerAuth, UpstreamTls,
};
use outrigger_proto::xds::RouteSource;
use outrigger_proto::yaml;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

/// What a control plane may say; numbers are names.
#[derive(Clone, Debug)]
enum Word {
    Cluster(u8, Source, u8),
    Endpoints(u8, u8),
    Listener(u8, Option<u8>),
    Routes(u8, u8),
    Removed(Kind, u8),
    /// None but those below.
    Keep(Kind, u8),
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Eds(u8),
    Stated(u8),
    Dns,
}

fn word() -> impl Strategy<Value = Word> {
    let name = || 0..4_u8;
    let source = prop_oneof![
        4 => name().prop_map(Source::Eds),
        1 => name().prop_map(Source::Stated),
        1 => Just(Source::Dns),
    ];
    let kind = prop::sample::select(Kind::ALL.to_vec());
    prop_oneof![
        4 => (name(), source, 0..2_u8).prop_map(|(name, source, more)| Word::Cluster(name, source, more)),
        4 => (name(), name()).prop_map(|(name, port)| Word::Endpoints(name, port)),
        2 => (name(), option::of(name())).prop_map(|(name, table)| Word::Listener(name, table)),
        2 => (name(), name()).prop_map(|(name, routes)| Word::Routes(name, routes)),
        3 => (kind, name()).prop_map(|(kind, name)| Word::Removed(kind, name)),
        1 => (prop::sample::select(vec![Kind::Cluster, Kind::Listener]), name())
            .prop_map(|(kind, below)| Word::Keep(kind, below)),
    ]
}

fn name(number: u8) -> Name {
    Name::new(&number.to_string()).unwrap()
}

fn assignment(port: u8) -> Assignment {
    Assignment { endpoints: vec![Endpoint::new(Address::Ip(([127, 0, 0, 1], port.into()).into()))] }
}

/// What a file says is good enough for what a control plane may.
struct Parts {
    cluster: Cluster,
    dns: Cluster,
    listener: Listener,
    table: RouteTable,
}

impl Parts {
    fn new() -> Self {
        let text = "
listeners: { a: { bind: 127.0.0.1:0, routes: [{ respond: {} }, { respond: {} }, { respond: {} }] } }
clusters: { a: { endpoints: [] }, b: { dns: 'b:1' } }
";
        let source = yaml::Source { name: "", text, base: Path::new(""), env: &|_| None };
        let mesh = yaml::parse(&source).unwrap().config.mesh;
        Self {
            cluster: (*mesh.clusters["a"]).clone(),
            dns: (*mesh.clusters["b"]).clone(),
            listener: mesh.listeners["a"].clone(),
            table: mesh.route_tables["a"].clone(),
        }
    }

    fn cluster(&self, source: Source, more: u8) -> ClusterResource {
        let mut cluster = if let Source::Dns = source { self.dns.clone() } else { self.cluster.clone() };
        cluster.connect_timeout = Duration::from_secs(1 + u64::from(more));
        let endpoints = match source {
            Source::Eds(set) => EndpointSource::Eds(name(set)),
            Source::Stated(port) => EndpointSource::Stated(Arc::new(assignment(port))),
            Source::Dns => EndpointSource::Dns,
        };
        ClusterResource { cluster: Arc::new(cluster), endpoints }
    }

    fn listener(&self, table: Option<u8>) -> ListenerResource {
        let routes = table.map_or(RouteSource::Stated(self.table(3)), |table| RouteSource::Rds(name(table)));
        ListenerResource { listener: self.listener.clone(), routes: [routes].into() }
    }

    fn table(&self, length: u8) -> RouteTable {
        RouteTable { routes: self.table.routes[..usize::from(length).min(3)].into(), on_demand: false }
    }
}

/// All that was said, in plain maps.
#[derive(Default)]
struct Naive {
    clusters: BTreeMap<Name, ClusterResource>,
    listeners: BTreeMap<Name, ListenerResource>,
    /// `None` is none, as it was said.
    sets: BTreeMap<Name, Option<Arc<Assignment>>>,
    tables: BTreeMap<Name, Option<RouteTable>>,
    /// What was asked for, or is about to be.
    known: [BTreeSet<Name>; 2],
}

impl Naive {
    fn referred(&self) -> [BTreeSet<Name>; 2] {
        let sets = self.clusters.values().filter_map(|cluster| match &cluster.endpoints {
            EndpointSource::Eds(name) => Some(name.clone()),
            EndpointSource::Stated(_) | EndpointSource::Dns | EndpointSource::Original => None,
        });
        let tables = self.listeners.values().filter_map(|listener| match &listener.routes[0] {
            RouteSource::Rds(name) => Some(name.clone()),
            RouteSource::Stated(_) | RouteSource::None => None,
        });
        [sets.collect(), tables.collect()]
    }

    fn take(&mut self, parts: &Parts, word: &Word) {
        let is_known = |kind: usize, name: &Name| self.known[kind].contains(name);
        match *word {
            Word::Cluster(at, source, more) => {
                drop(self.clusters.insert(name(at), parts.cluster(source, more)))
            }
            Word::Listener(at, table) => drop(self.listeners.insert(name(at), parts.listener(table))),
            Word::Endpoints(at, port) if is_known(0, &name(at)) => {
                self.sets.insert(name(at), Some(Arc::new(assignment(port))));
            }
            Word::Routes(at, length) if is_known(1, &name(at)) => {
                self.tables.insert(name(at), Some(parts.table(length)));
            }
            Word::Removed(Kind::Endpoints, at) if is_known(0, &name(at)) => {
                // What is there stays.
                self.sets.entry(name(at)).or_default();
            }
            Word::Removed(Kind::Routes, at) if is_known(1, &name(at)) => {
                self.tables.entry(name(at)).or_default();
            }
            Word::Removed(Kind::Cluster, at) => drop(self.clusters.remove(&name(at))),
            Word::Removed(Kind::Listener, at) => drop(self.listeners.remove(&name(at))),
            Word::Keep(Kind::Cluster, below) => self.clusters.retain(|at, _| *at < name(below)),
            Word::Keep(_, below) => self.listeners.retain(|at, _| *at < name(below)),
            Word::Endpoints(..) | Word::Routes(..) | Word::Removed(..) => {}
        }
        let referred = self.referred();
        for (known, referred) in self.known.iter_mut().zip(referred) {
            known.extend(referred);
        }
    }

    fn forget(&mut self) {
        self.known = Self::referred(self);
        self.sets.retain(|name, _| self.known[0].contains(name));
        self.tables.retain(|name, _| self.known[1].contains(name));
    }

    fn give_up(&mut self) {
        for name in &self.known[0] {
            self.sets.entry(name.clone()).or_default();
        }
        for name in &self.known[1] {
            self.tables.entry(name.clone()).or_default();
        }
    }

    fn is_whole(&self) -> bool {
        let [sets, tables] = self.referred();
        sets.iter().all(|name| self.sets.contains_key(name))
            && tables.iter().all(|name| self.tables.contains_key(name))
    }

    fn discovered(&self) -> Discovered {
        let mut out = Discovered::default();
        for (name, ClusterResource { cluster, endpoints }) in &self.clusters {
            out.clusters.insert(name.clone(), cluster.clone());
            let set = match endpoints {
                EndpointSource::Stated(set) => Some(set.clone()),
                EndpointSource::Eds(set) => Some(self.sets.get(set).cloned().flatten().unwrap_or_default()),
                EndpointSource::Dns | EndpointSource::Original => None,
            };
            out.endpoints.extend(set.map(|set| (name.clone(), set)));
        }
        for (name, ListenerResource { listener, routes }) in &self.listeners {
            let (table, routes) = match &routes[0] {
                RouteSource::Stated(table) => (name, table.clone()),
                RouteSource::Rds(table) => {
                    (table, self.tables.get(table).cloned().flatten().unwrap_or_default())
                }
                RouteSource::None => continue,
            };
            out.route_tables.insert(table.clone(), routes);
            out.listeners.insert(name.clone(), listener.clone());
        }
        out
    }
}

fn say(state: &mut State, parts: &Parts, word: &Word) {
    let said = Said::default();
    match *word {
        Word::Cluster(at, source, more) => {
            state.put(name(at), Resource::Cluster(Box::new(parts.cluster(source, more))), said);
        }
        Word::Endpoints(at, port) => state.put(name(at), Resource::Endpoints(assignment(port)), said),
        Word::Listener(at, table) => {
            state.put(name(at), Resource::Listener(Box::new(parts.listener(table))), said);
        }
        Word::Routes(at, length) => state.put(name(at), Resource::Routes(parts.table(length)), said),
        Word::Removed(kind, at) => state.withdraw(kind, &name(at)),
        Word::Keep(kind, below) => state.keep(kind, |at| *at < name(below)),
    }
}

fn both_said() -> State {
    let mut state = State::default();
    state.note_answer(Kind::Cluster);
    state.note_answer(Kind::Listener);
    state
}

/// Whoever follows the news serves what was said.
fn follows(answers: &[(Vec<Word>, bool)]) {
    let parts = Parts::new();
    let (mut state, mut naive, mut served) = (both_said(), Naive::default(), None::<Discovered>);
    for (words, waited) in answers {
        for word in words {
            naive.take(&parts, word);
            say(&mut state, &parts, word);
        }
        naive.forget();
        let asked = [Kind::Endpoints, Kind::Routes].map(|kind| {
            state.change(kind);
            state.names(kind)
        });
        assert_eq!(
            asked,
            naive.referred().map(|names| names.iter().map(Name::to_string).collect::<Vec<_>>())
        );
        assert_eq!(state.is_missing(), !naive.is_whole());
        if *waited {
            naive.give_up();
        }
        match state.news(*waited) {
            None => {}
            Some(News::All(all)) => served = Some(*all),
            Some(News::Endpoints(sets)) => {
                let served = served.as_mut().expect("all of it comes first");
                for (name, set) in sets {
                    assert!(served.endpoints.insert(name, set).is_some(), "of what is served");
                }
            }
        }
        if naive.is_whole() {
            assert_eq!(served.as_ref(), Some(&naive.discovered()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_changes_by_name_comes_to_what_is_rebuilt(
        answers in vec((vec(word(), 0..4), prop::bool::weighted(0.2)), 1..12)
    ) {
        follows(&answers);
    }
}

#[test]
fn endpoints_of_what_is_served_wait_for_nothing() {
    let parts = Parts::new();
    let mut state = both_said();
    let all = |state: &mut State, words: &[Word]| {
        words.iter().for_each(|word| say(state, &parts, word));
        state.news(false)
    };
    let first = [Word::Cluster(0, Source::Eds(0), 0), Word::Endpoints(0, 1)];
    assert!(matches!(all(&mut state, &first), Some(News::All(_))));
    // A cluster that is cold yet holds back itself, and what has changed beside endpoints.
    assert_eq!(all(&mut state, &[Word::Cluster(1, Source::Eds(1), 0)]), None);
    let Some(News::Endpoints(sets)) = all(&mut state, &[Word::Endpoints(0, 2)]) else {
        panic!("no endpoints")
    };
    assert_eq!(sets.keys().map(Name::as_str).collect::<Vec<_>>(), ["0"]);
    // One whose endpoints are to come from elsewhere keeps those that it has until then.
    assert_eq!(all(&mut state, &[Word::Cluster(0, Source::Eds(2), 0)]), None);
    let Some(News::Endpoints(sets)) = all(&mut state, &[Word::Endpoints(2, 3)]) else {
        panic!("no endpoints")
    };
    assert_eq!(sets[&name(0)], Arc::new(assignment(3)));
    // That there are none is an answer.
    assert!(matches!(all(&mut state, &[Word::Removed(Kind::Endpoints, 1)]), Some(News::All(_))));
    assert_eq!(all(&mut state, &[Word::Endpoints(0, 2), Word::Cluster(0, Source::Eds(2), 0)]), None);
}

#[test]
fn what_was_waited_for_in_vain_holds_back_nothing_any_more() {
    let parts = Parts::new();
    let mut state = both_said();
    say(&mut state, &parts, &Word::Cluster(0, Source::Eds(0), 0));
    assert_eq!((state.news(false), state.missing().as_str()), (None, "ClusterLoadAssignment[0]"));
    assert!(matches!(state.news(true), Some(News::All(_))));
    say(&mut state, &parts, &Word::Cluster(1, Source::Stated(1), 0));
    assert!(matches!(state.news(false), Some(News::All(_))));
    say(&mut state, &parts, &Word::Endpoints(0, 1));
    assert!(matches!(state.news(false), Some(News::Endpoints(_))));
}

#[test]
fn what_is_missing_is_told_up_to_a_number() {
    let parts = Parts::new();
    let mut state = both_said();
    for number in 0..22 {
        say(&mut state, &parts, &Word::Cluster(number, Source::Eds(number), 0));
    }
    let words = state.missing();
    assert!(words.ends_with(", and 2 more") && words.matches(", ").count() == NAMED, "{words}");
}

fn called(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn secret(key: &str) -> Resource {
    let text = |text: &str| text.as_bytes().to_vec().into();
    Resource::Secret(Secret::Certificate { chain: text("chain"), key: text(key) })
}

#[test]
fn what_names_a_secret_waits_for_it_and_another_one_is_news() {
    let mut state = State::default();
    let server = ServerAuth {
        roots: Roots::System,
        sni: None,
        sans: Box::new([San::Dns("app.test".into())]),
        certificate: Some(Certificate::Secret(called("own"))),
        revocation: Revocation::default(),
    };
    let tls = Some(UpstreamTls::Server(Box::new(server)));
    let cluster = Cluster { tls, ..Cluster::new(model::Source::Static) };
    let endpoints = EndpointSource::Stated(Arc::default());
    let cluster = ClusterResource { cluster: Arc::new(cluster), endpoints };
    state.put(called("app"), Resource::Cluster(Box::new(cluster)), Said::default());
    [Kind::Cluster, Kind::Listener].into_iter().for_each(|kind| state.note_answer(kind));
    let change = Change { more: vec!["own".to_owned()], less: Vec::new() };
    assert_eq!(state.change(Kind::Secret), change);
    assert_eq!(state.missing(), "Secret[own]");
    assert_eq!(state.news(false), None);
    state.put(called("own"), secret("one"), Said::default());
    assert!(matches!(state.news(false), Some(News::All(found)) if found.secrets.0.len() == 1));
    assert_eq!(state.news(false), None);
    state.put(called("own"), secret("two"), Said::default());
    let Some(News::All(found)) = state.news(false) else { panic!("it is another one") };
    assert!(!format!("{found:?}").contains("two"));
    // Taken back while something names it, it stays: what names it may be on its way out.
    state.withdraw(Kind::Secret, &called("own"));
    assert_eq!(state.news(false), None);
    // Who named it is gone, and it is asked for no longer.
    state.withdraw(Kind::Cluster, &called("app"));
    let change = Change { more: Vec::new(), less: vec!["own".to_owned()] };
    assert_eq!(state.change(Kind::Secret), change);
}
