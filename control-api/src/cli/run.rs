//! Being a control plane.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use outrigger_proto::model::{
    Authority as AuthoritySettings, Name, Nodes, Plane as Settings, PlaneStore, Reads, Rollout,
};
use outrigger_proto::yaml;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::attest::Attestors;
use crate::ca::Authority;
use crate::plane::{self, Keys, Plane};
use crate::secrets::Secrets;
use crate::store::etcd::{self, Etcd};
use crate::store::file::File;
use crate::store::{Store, StoreError};
use crate::tls::{self, Listener, Peer};
use crate::watched::{self, Kept};
use crate::{api, attest, directory, loads, nats, overdue, reports, rollout, shadow, xds};

/// Where the first token stands, in the store.
const FIRST_TOKEN: &str = "admin.token";

pub(super) fn run(file: Option<&Path>) -> super::Done {
    let level = std::env::var("OUTRIGGER_LOG").ok().and_then(|level| level.parse().ok());
    let level = level.unwrap_or(LevelFilter::INFO);
    // Of its errors we make something, and say so.
    let of_client = if level > LevelFilter::INFO { level } else { LevelFilter::OFF };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .with_max_level(level)
        .finish()
        .with(Targets::new().with_default(level).with_target("async_nats", of_client))
        .init();
    let settings = file.map_or_else(|| Ok(Settings::default()), read)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| format!("cannot start: {error}"))?.block_on(serve(settings))
}

/// Says what would run, and what is wrong with it as far as that can be seen without changing anything: nothing is listened at,
/// made or opened for writing. What documents say is for `check`.
pub(super) fn try_out(file: Option<&Path>) -> super::Done {
    let settings = file.map_or_else(|| Ok(Settings::default()), read)?;
    let Settings { xds, api, tls, store, documents, authority, secrets, nodes, rollout, reads, events } =
        &settings;
    let mut tried = Tried::default();
    let how = if tls.is_some() { "over TLS" } else { "in the clear" };
    tried.look(tls.as_ref().map_or(Ok(()), |files| tls::Shown::open(files).map(drop)));
    let who = if *nodes == Nodes::Proven { ", to those who prove who they are" } else { "" };
    tried.say(format!("listens for nodes (xDS) at {xds}, {how}{who}"));
    let who = if *reads == Reads::Open { "reads are open" } else { "reads need a token" };
    tried.say(format!("listens for people (API) at {api}, {how}; {who}"));
    tried.store(store);
    if let Some(directory) = documents {
        let read = directory::read(directory).map_err(|error| format!("{}: {error}", directory.display()));
        tried.say(format!("takes over the documents in {}", directory.display()));
        tried.look(read.map(drop));
    }
    if let Some(AuthoritySettings { trust_domain, root, lifetime, attest }) = authority {
        let by = root
            .as_ref()
            .map_or("roots that it makes".to_owned(), |root| root.certificate.display().to_string());
        tried.say(format!("gives identities of {trust_domain} for {lifetime:?}, by {by}"));
        // Without files it would make a root.
        let opened = |_| Authority::open(authority.as_ref()?, &store.directory).err();
        tried.look(root.as_ref().and_then(opened).map_or(Ok(()), Err));
        tried.look(Attestors::check(attest));
    }
    if !secrets.is_empty() {
        let names: Vec<_> = secrets.keys().map(Name::as_str).collect();
        tried.say(format!("tells those who may have them the secrets {}", names.join(", ")));
        tried.look(Secrets::open(secrets).map(drop));
    }
    if let Some(rollout) = rollout {
        let steps: Vec<_> = rollout
            .steps
            .iter()
            .map(|step| format!("{} %", f64::from(step.millionths()) / 10_000.0))
            .collect();
        tried.say(format!("tells a revision to {} of each group before all", steps.join(", ")));
    }
    if let Some(events) = events {
        tried.say(format!("publishes events to {}", events.server));
    }
    tried.end()
}

/// What would run, and all that is wrong with it.
#[derive(Debug, Default)]
struct Tried {
    said: String,
    wrong: Vec<String>,
}

impl Tried {
    fn say(&mut self, what: String) {
        self.said += &what;
        self.said.push('\n');
    }

    fn look(&mut self, seen: super::Done) {
        self.wrong.extend(seen.err());
    }

    fn store(&mut self, PlaneStore { directory, etcd }: &PlaneStore) {
        let made = if directory.exists() { "" } else { ", which it makes" };
        self.say(format!("keeps what is its own in {}{made}", directory.display()));
        if let Some(etcd) = etcd {
            self.say(format!(
                "shares the rest in etcd at {}, below {}",
                etcd.endpoints.join(", "),
                etcd.prefix
            ));
            self.look(Etcd::open(etcd).map(drop).map_err(|error| error.to_string()));
        }
    }

    fn end(self) -> super::Done {
        if self.wrong.is_empty() {
            return super::print(&(self.said + "nothing is started: this was a dry run\n"));
        }
        Err(self.wrong.join("\n"))
    }
}

fn read(file: &Path) -> Result<Settings, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let base = file.parent().unwrap_or(Path::new(""));
    let env = |name: &str| std::env::var(name).ok();
    let source = yaml::Source { name: &file.display().to_string(), text: &text, base, env: &env };
    yaml::parse_plane(&source).map_err(|errors| errors.to_string())
}

async fn serve(settings: Settings) -> super::Done {
    let Settings { xds, api, tls, store, documents, authority, secrets, nodes: who, rollout, reads, events } =
        settings;
    let shown = tls.as_ref().map(tls::Shown::open).transpose()?;
    let acceptor = |asks: bool| shown.clone().map(|shown| tls::acceptor(shown, asks)).transpose();
    let attest = authority.as_ref().map(|settings| settings.attest.clone()).unwrap_or_default();
    let secrets = Secrets::open(&secrets)?;
    let mut kept: Vec<_> = secrets.kept().collect();
    kept.extend(shown.clone().map(|shown| shown as Arc<dyn Kept>));
    let plane = open(store, (authority, secrets), rollout.as_ref())?;
    let attestors = Arc::new(Attestors::open(plane.clone(), &attest)?);
    let (nodes, people) =
        (Listener::bind(&xds, acceptor(true)?).await?, Listener::bind(&api, acceptor(false)?).await?);
    tracing::info!(address = nodes.address(), "listening for nodes (xDS)");
    tracing::info!(address = people.address(), "listening for people (API)");
    tokio::spawn(watched::keep(kept, plane.clone()));
    if let Some(documents) = documents {
        tokio::spawn(directory::watch(documents, plane.clone()));
    }
    share(&plane)?;
    let (leader, of) = (plane.clone(), plane.clone());
    tokio::spawn(rollout::while_leading(of, move || rollout::lead(leader.clone(), rollout.clone())));
    let (watcher, of) = (plane.clone(), plane.clone());
    tokio::spawn(rollout::while_leading(of, move || overdue::watch(watcher.clone())));
    if let Some(events) = events {
        let (publisher, of) = (plane.clone(), plane.clone());
        tokio::spawn(rollout::while_leading(of, move || nats::publish(publisher.clone(), events.clone())));
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let for_nodes = nodes_router(&plane, &attestors, who).into_make_service_with_connect_info::<Peer>();
    let served = async {
        tokio::try_join!(
            axum::serve(nodes, for_nodes),
            axum::serve(people, api::router(plane.clone(), reads)),
        )
    };
    // Streams never end by themselves, and nodes come back by themselves.
    let done = tokio::select! {
        served = served => served.map(drop).map_err(|error| error.to_string()),
        _ = terminate.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    plane.close().await;
    let left = tokio::task::spawn_blocking(move || plane.store().shared().map(Etcd::leave).is_some()).await;
    done.and(left.map(drop).map_err(|error| error.to_string()))
}

fn open(
    PlaneStore { directory, etcd }: PlaneStore,
    (authority, secrets): (Option<AuthoritySettings>, Secrets),
    rollout: Option<&Rollout>,
) -> Result<Arc<Plane>, String> {
    // What is in it is nobody else's to read.
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    made.map_err(|error| format!("{}: {error}", directory.display()))?;
    let open = || -> Result<Arc<dyn Store>, StoreError> {
        Ok(match etcd {
            None => Arc::new(File::open(&directory.join("store.redb"))?),
            Some(etcd) => Arc::new(Etcd::open(&etcd)?),
        })
    };
    let store = open().map_err(|error| error.to_string())?;
    first_token(&*store, &directory)?;
    let authority = authority.map(|settings| Authority::open(&settings, &directory)).transpose()?;
    Plane::open(store, Keys { authority, secrets }, rollout).map_err(|error| error.to_string())
}

/// Hears of others who have the same store, and tells them.
fn share(plane: &Arc<Plane>) -> super::Done {
    if plane.store().shared().is_none() {
        return Ok(());
    }
    tokio::spawn(plane::follow(plane.clone()));
    tokio::spawn(rollout::witness(plane.clone()));
    thread(plane, "follow", |etcd, _| etcd::follow(etcd))?;
    thread(plane, "keep", etcd::keep)
}

/// A thread that waits for the network all the time, and ends with the process.
fn thread(plane: &Arc<Plane>, name: &str, work: fn(&Etcd, &Plane)) -> super::Done {
    let plane = Arc::clone(plane);
    let thread = std::thread::Builder::new().name(name.to_owned());
    let spawned = thread.spawn(move || plane.store().shared().map(|etcd| work(etcd, &plane)));
    spawned.map(drop).map_err(|error| format!("cannot start: {error}"))
}

/// All that nodes ask.
fn nodes_router(plane: &Arc<Plane>, attestors: &Arc<Attestors>, who: Nodes) -> axum::Router {
    let (xds, loads) = (xds::server::router(plane.clone(), attestors.clone()), loads::router(plane.clone()));
    let told = xds.merge(loads).merge(shadow::router(plane.clone())).merge(reports::router(plane.clone()));
    let told = match who {
        Nodes::Any => told,
        Nodes::Proven => told.layer(from_fn_with_state(attestors.clone(), attest::proven_alone)),
    };
    told.merge(attest::router(attestors.clone()))
}

/// Somebody must be the first to change something.
fn first_token(store: &dyn Store, directory: &Path) -> super::Done {
    if !store.tokens().map_err(|error| error.to_string())?.is_empty() {
        return Ok(());
    }
    let path = directory.join(FIRST_TOKEN);
    let token = api::make_token();
    // First where it can be found: without it nobody could ever change anything.
    let written = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    written
        .and_then(|mut file| writeln!(file, "{token}"))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    api::keep_token(store, "admin", &token).map_err(|error| error.to_string())?;
    tracing::info!(file = %path.display(), "made the first token");
    Ok(())
}
