//! All series of the process, and their text for Prometheus.
//!
//! The program's own series are blocks ([`stats`]); anything written for the `metrics` facade registers here too,
//! since a [`Registry`] is a [`metrics::Recorder`] (`metrics::set_global_recorder(registry.clone())` where a library
//! wants a global). The number of label sets of a name has a hard cap: what comes above it is counted together,
//! under `other`, so that a mistake in naming cannot become a leak.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::atomics::AtomicU64;
use metrics::{Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::cell::{Histogram, LATENCY};
use super::host;
use super::journal::Journal;
use super::render::{self, Float, Kind, Lines};
use super::stats::{self, ClusterStats, Family, ListenerStats, ProcessStats};

const CAP: usize = 10_000;
const OTHER: &str = "other";
const LISTENER: &str = "listener";
const CLUSTER: &str = "cluster";

/// All series of the process. Cheap to clone; every clone is the same registry.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    cap: usize,
    process: Arc<ProcessStats>,
    journal: Journal,
    // Held to register, to retire, and to list what there is: never to record, never while text is written.
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    /// Upper bounds by the histogram's name; fixed at its first use.
    bounds: BTreeMap<String, Arc<[f64]>>,
    listeners: Capped<Arc<str>, Arc<ListenerStats>>,
    clusters: Capped<Arc<str>, Arc<ClusterStats>>,
    /// What came through the facade, by name.
    foreign: BTreeMap<String, Foreign>,
    help: BTreeMap<String, SharedString>,
}

struct Foreign {
    kind: Kind,
    series: Capped<Labels, Cell>,
}

/// Label names and values, sorted.
type Labels = Box<[(String, String)]>;

#[derive(Clone)]
enum Cell {
    Counter(Arc<AtomicU64>),
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Histogram>),
}

impl Default for Registry {
    fn default() -> Self {
        Self::new(CAP)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("cap", &self.inner.cap).finish_non_exhaustive()
    }
}

impl Registry {
    /// The `content-type` of [`render`](Self::render)'s text.
    pub const CONTENT_TYPE: &str = render::CONTENT_TYPE;

    /// A registry without series. `cap` is the number of label sets that one name may have, the program's own fixed
    /// labels (code class, reason) not counted; [`default`](Self::default) has 10,000.
    pub fn new(cap: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                cap,
                process: Arc::default(),
                journal: Journal::default(),
                tables: Mutex::default(),
            }),
        }
    }

    /// The block of a listener; the same one for the same name until it is retired. Takes a lock: ask once, keep it.
    pub fn listener(&self, name: &str) -> Arc<ListenerStats> {
        let mut tables = self.lock();
        let bounds = tables.bounds(stats::DOWNSTREAM_DURATION);
        let new = || Arc::new(ListenerStats::new(bounds));
        self.count(tables.listeners.get(name.into(), OTHER.into(), self.inner.cap, new))
    }

    /// The block of a cluster; the same one for the same name until it is retired. Takes a lock: ask once, keep it.
    pub fn cluster(&self, name: &str) -> Arc<ClusterStats> {
        let mut tables = self.lock();
        let bounds = tables.bounds(stats::UPSTREAM_DURATION);
        let new = || Arc::new(ClusterStats::new(bounds));
        self.count(tables.clusters.get(name.into(), OTHER.into(), self.inner.cap, new))
    }

    /// All listeners, by name.
    pub fn listeners(&self) -> Vec<(Arc<str>, Arc<ListenerStats>)> {
        let tables = self.lock();
        tables.listeners.entries.iter().map(|(name, stats)| (name.clone(), stats.clone())).collect()
    }

    /// The block of the process.
    pub fn process(&self) -> Arc<ProcessStats> {
        Arc::clone(&self.inner.process)
    }

    /// What happened and is to be told.
    pub fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    /// A counter by name, through the facade's own types.
    pub fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> metrics::Counter {
        self.counter_of(&key(name, labels))
    }

    /// A gauge by name.
    pub fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)]) -> metrics::Gauge {
        self.gauge_of(&key(name, labels))
    }

    /// A histogram by name.
    pub fn histogram(&self, name: &'static str, labels: &[(&'static str, &str)]) -> metrics::Histogram {
        self.histogram_of(&key(name, labels))
    }

    /// Sets the upper bounds of a histogram's buckets; [`LATENCY`] otherwise. False, and nothing is changed, once the
    /// name is in use or its bounds are set: buckets of one name must not differ.
    pub fn set_buckets(&self, name: &str, bounds: &[f64]) -> bool {
        let mut tables = self.lock();
        let name = render::metric_name(name);
        let free = !tables.bounds.contains_key(&name);
        if free {
            let mut bounds: Vec<f64> = bounds.iter().copied().filter(|bound| bound.is_finite()).collect();
            bounds.sort_by(f64::total_cmp);
            bounds.dedup();
            tables.bounds.insert(name, bounds.into());
        }
        free
    }

    /// Forgets the series whose `label` has this value: those of a listener or cluster that is gone. Who still holds a
    /// block of it goes on recording, unseen. `other` is never retired.
    pub fn retire(&self, label: &str, value: &str) {
        if value == OTHER {
            return;
        }
        let mut tables = self.lock();
        match label {
            LISTENER => tables.listeners.remove(value),
            CLUSTER => tables.clusters.remove(value),
            _ => {}
        }
        for family in tables.foreign.values_mut() {
            family.series.entries.retain(|labels, _| !labels.iter().any(|(k, v)| k == label && v == value));
        }
    }

    /// Forgets all series of a name that came through the facade, to be written anew.
    pub fn clear(&self, name: &str) {
        self.lock().foreign.remove(name);
    }

    /// Everything, as text for Prometheus; in a fixed order.
    pub fn render(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("a String takes every write");
        out
    }

    /// The same, piece by piece: with thousands of clusters the whole text is many megabytes.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let Listing { listeners, clusters, foreign } = self.list()?;
        let process = [(String::new(), self.process())];
        let mut sections: Vec<(&str, Section<'_>)> = Vec::new();
        sections.extend(stats::LISTENER.iter().map(|family| section(family, &listeners)));
        sections.extend(stats::CLUSTER.iter().map(|family| section(family, &clusters)));
        sections.extend(stats::PROCESS.iter().map(|family| section(family, &process)));
        sections.extend(foreign.iter().map(|family| (family.name.as_str(), family.section())));
        let host = host::read();
        sections.extend(host.iter().map(|sample| {
            let host::Sample { name, kind, help, value } = *sample;
            let write: Section<'_> =
                Box::new(move |out| Lines::new(out, name, kind, help).sample("", None, Float(value)));
            (name, write)
        }));
        sections.sort_by_key(|(name, _)| *name);
        sections.iter().try_for_each(|(_, write)| write(out))
    }

    /// What there is now. The lock is held for this alone, so that a scrape never holds up a worker for long.
    fn list(&self) -> Result<Listing, fmt::Error> {
        let tables = self.lock();
        let listeners = tables.listeners.list(LISTENER)?;
        let clusters = tables.clusters.list(CLUSTER)?;
        let foreign = tables.foreign.iter().map(|(name, family)| {
            let series = family.series.entries.iter();
            let series = series.map(|(labels, cell)| Ok((rendered(labels)?, cell.clone())));
            let help = tables.help.get(name).map_or_else(String::new, ToString::to_string);
            Ok(Listed {
                name: name.clone(),
                kind: family.kind,
                help,
                series: series.collect::<Result<_, _>>()?,
            })
        });
        Ok(Listing { listeners, clusters, foreign: foreign.collect::<Result<_, _>>()? })
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.inner.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count<T>(&self, (value, folded): (T, bool)) -> T {
        if folded {
            self.inner.process.folded.increment(1);
        }
        value
    }

    /// The cell of `key`, unless its name is one of ours or is in use for another kind: a name has one kind.
    fn cell(&self, key: &Key, kind: Kind) -> Option<Cell> {
        let name = render::metric_name(key.name());
        if ours(&name) {
            return None;
        }
        let mut tables = self.lock();
        let tables = &mut *tables;
        let bounds = if kind == Kind::Histogram { tables.bounds(&name) } else { Arc::default() };
        let family =
            tables.foreign.entry(name).or_insert_with(|| Foreign { kind, series: Capped::default() });
        if family.kind != kind {
            return None;
        }
        let labels = labels(key);
        let folded = labels.iter().map(|(key, _)| (key.clone(), OTHER.to_owned())).collect();
        let new = || match kind {
            Kind::Counter => Cell::Counter(Arc::default()),
            Kind::Gauge => Cell::Gauge(Arc::default()),
            Kind::Histogram => Cell::Histogram(Arc::new(Histogram::new(bounds))),
        };
        Some(self.count(family.series.get(labels, folded, self.inner.cap, new)))
    }

    fn counter_of(&self, key: &Key) -> metrics::Counter {
        match self.cell(key, Kind::Counter) {
            Some(Cell::Counter(cell)) => metrics::Counter::from_arc(cell),
            Some(Cell::Gauge(_) | Cell::Histogram(_)) | None => metrics::Counter::noop(),
        }
    }

    fn gauge_of(&self, key: &Key) -> metrics::Gauge {
        match self.cell(key, Kind::Gauge) {
            Some(Cell::Gauge(cell)) => metrics::Gauge::from_arc(cell),
            Some(Cell::Counter(_) | Cell::Histogram(_)) | None => metrics::Gauge::noop(),
        }
    }

    fn histogram_of(&self, key: &Key) -> metrics::Histogram {
        match self.cell(key, Kind::Histogram) {
            Some(Cell::Histogram(cell)) => metrics::Histogram::from_arc(cell),
            Some(Cell::Counter(_) | Cell::Gauge(_)) | None => metrics::Histogram::noop(),
        }
    }

    fn describe(&self, name: &KeyName, help: SharedString) {
        self.lock().help.insert(render::metric_name(name.as_str()), help);
    }
}

impl Recorder for Registry {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(&key, description);
    }

    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(&key, description);
    }

    fn describe_histogram(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(&key, description);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> metrics::Counter {
        self.counter_of(key)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> metrics::Gauge {
        self.gauge_of(key)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> metrics::Histogram {
        self.histogram_of(key)
    }
}

impl Tables {
    fn bounds(&mut self, name: &str) -> Arc<[f64]> {
        if let Some(bounds) = self.bounds.get(name) {
            return Arc::clone(bounds);
        }
        let bounds: Arc<[f64]> = LATENCY.into();
        self.bounds.insert(name.to_owned(), Arc::clone(&bounds));
        bounds
    }
}

/// A map that stops growing: above the cap there is one entry more, which all newcomers share.
struct Capped<K, V> {
    entries: BTreeMap<K, V>,
}

impl<K, V> Default for Capped<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new() }
    }
}

impl<K: Ord, V: Clone> Capped<K, V> {
    /// The value of `key`, or that of `other` once there are `cap` without it; and whether it was folded.
    fn get(&mut self, key: K, other: K, cap: usize, new: impl FnOnce() -> V) -> (V, bool) {
        if let Some(value) = self.entries.get(&key) {
            return (value.clone(), false);
        }
        let full = self.entries.len() - usize::from(self.entries.contains_key(&other)) >= cap;
        let folded = full && key != other;
        (self.entries.entry(if folded { other } else { key }).or_insert_with(new).clone(), folded)
    }
}

impl<S> Capped<Arc<str>, Arc<S>> {
    fn remove(&mut self, name: &str) {
        self.entries.remove(name);
    }

    fn list(&self, label: &str) -> Result<Blocks<S>, fmt::Error> {
        let block = |(name, block): (&Arc<str>, &Arc<S>)| {
            let mut labels = String::with_capacity(label.len() + name.len() + 3);
            render::label(&mut labels, label, name)?;
            Ok((labels, Arc::clone(block)))
        };
        self.entries.iter().map(block).collect()
    }
}

/// Rendered labels, and the block that they name.
type Blocks<S> = Vec<(String, Arc<S>)>;

/// Writes one family.
type Section<'a> = Box<dyn Fn(&mut dyn fmt::Write) -> fmt::Result + 'a>;

fn section<'a, S>(family: &'static Family<S>, blocks: &'a [(String, Arc<S>)]) -> (&'a str, Section<'a>) {
    let Family { name, kind, help, write } = family;
    let section = move |out: &mut dyn fmt::Write| {
        let mut lines = Lines::new(out, name, *kind, help);
        blocks.iter().try_for_each(|(labels, block)| write(block, labels, &mut lines))
    };
    (name, Box::new(section))
}

/// What there is, at one moment.
struct Listing {
    listeners: Blocks<ListenerStats>,
    clusters: Blocks<ClusterStats>,
    foreign: Vec<Listed>,
}

/// A family of the facade's.
struct Listed {
    name: String,
    kind: Kind,
    help: String,
    series: Vec<(String, Cell)>,
}

impl Listed {
    fn section(&self) -> Section<'_> {
        Box::new(|out| {
            let mut lines = Lines::new(out, &self.name, self.kind, &self.help);
            self.series.iter().try_for_each(|(labels, cell)| match cell {
                Cell::Counter(cell) => lines.sample(labels, None, cell.load(Ordering::Relaxed)),
                // The facade keeps a float's bits in a gauge.
                Cell::Gauge(cell) => {
                    lines.sample(labels, None, Float(f64::from_bits(cell.load(Ordering::Relaxed))))
                }
                Cell::Histogram(cell) => lines.histogram(labels, cell),
            })
        })
    }
}

fn ours(name: &str) -> bool {
    let mut all = stats::LISTENER
        .iter()
        .map(|family| family.name)
        .chain(stats::CLUSTER.iter().map(|family| family.name))
        .chain(stats::PROCESS.iter().map(|family| family.name));
    name.starts_with("process_") || all.any(|ours| ours == name)
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let label = |(key, value): &(&'static str, &str)| metrics::Label::new(*key, (*value).to_owned());
    Key::from_parts(name, labels.iter().map(label).collect::<Vec<_>>())
}

fn labels(key: &Key) -> Labels {
    let pair = |label: &metrics::Label| (render::label_name(label.key()), label.value().to_owned());
    let mut all: Vec<_> = key.labels().map(pair).collect();
    all.sort();
    all.dedup_by(|next, first| next.0 == first.0);
    all.into()
}

fn rendered(labels: &Labels) -> Result<String, fmt::Error> {
    let mut out = String::new();
    for (key, value) in labels {
        out.push_str(if out.is_empty() { "" } else { "," });
        render::label(&mut out, key, value)?;
    }
    Ok(out)
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
