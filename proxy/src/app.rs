//! The process: builds everything, starts it, keeps its configuration fresh, and takes it down in good order. The only
//! file that sees all.

mod cpus;
mod remote;
mod signals;

use std::cell::{OnceCell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_proto::error::{ConfigError, ConfigErrors};
use outrigger_proto::model::{AccessLog, Address, Config, ControlPlane, Direction, Mesh, Name, Shutdown};
use outrigger_proto::xds::Refused;
use outrigger_proto::xds::events::{CertificateExpiring, What};
use outrigger_proto::yaml::Parsed;

pub use self::cpus::workers;
use self::cpus::workers_differ;
use self::remote::{Remote, unfit_listeners};
use self::signals::Leave;
pub use self::signals::Signals;
use crate::admin::{self, Admin, Status};
use crate::apply::Applier;
use crate::control::aside::Aside;
use crate::control::file::{Fingerprint, LOOK_EVERY, Origin};
use crate::control::xds::{self, Discovered, Ears, Inquiry, News, Taken, Told, merge};
use crate::csds::Csds;
use crate::demand::{Demand, Use};
use crate::identity::Lapse;
use crate::identity::alarm::Standing;
use crate::identity::offer::Taker;
use crate::identity::secrets::Secrets;
use crate::io::listen::Bound;
use crate::loads::{self, Figures};
use crate::observe::{ProcessStats, Registry, Writer, access_log, queue};
use crate::overload::{Guard, raise_descriptor_limit};
use crate::reports;
use crate::sys;
use crate::threads::{Command, Threads};
use crate::trials::{self, Of, Said, Trials};
use crate::upstream::Clusters;
use crate::watch::Leaving;
use crate::worker::Shared;

/// How often the way out is looked at.
const STEP: Duration = Duration::from_millis(50);
/// What connections that are ended get to write their last bytes.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// So many connections are worth releasing memory for, once no request has come for so long.
const WAVE: u32 = 64;
const CALM: Duration = Duration::from_secs(1);
/// How long the access log may take to be written at the end.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Why the process could not start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration is wrong.
    Config(ConfigErrors),
    /// The system refuses.
    System(&'static str, io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(errors) => errors.fmt(f),
            Self::System(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// The whole running process, as its management thread has it.
#[derive(Debug)]
pub struct App {
    origin: Origin,
    shared: Arc<Shared>,
    threads: Arc<Threads>,
    applier: Applier,
    admin: Rc<Admin>,
    admin_address: Option<Address>,
    stats: Arc<ProcessStats>,
    seen: Fingerprint,
    log: Option<(AccessLog, Writer)>,
    workers: usize,
    shutdown: Shutdown,
    freed: u32,
    /// How the identity stood when it was last looked at.
    standing: Standing,
    /// The control plane, if there is one.
    remote: Option<Remote>,
    /// What a file has on trial.
    shadow: Option<ShadowFile>,
}

/// A file that is held up against what is in force.
#[derive(Debug)]
struct ShadowFile {
    origin: Origin,
    seen: Fingerprint,
}

/// Ends ejections in time, and judges endpoints, for as long as the process lives.
async fn look_after(clusters: Arc<Clusters>) {
    let mut interval = tokio::time::interval(LOOK_EVERY);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        clusters.sweep(|| fastrand::u64(..));
    }
}

impl App {
    /// Starts the workers and brings the configuration into force; `shadow` is held up against it, and then nothing that a
    /// control plane has on trial.
    ///
    /// # Errors
    /// What is wrong with the configuration, or what the system refuses.
    pub async fn start(origin: Origin, parsed: Parsed, shadow: Option<Origin>) -> Result<Self, StartError> {
        let Parsed { config, warnings } = parsed;
        warn(&origin, &warnings);
        let registry = Registry::default();
        let stats = registry.process();
        let workers = workers(&config.mesh);
        let shared = Arc::new(Shared::new(workers, stats.clone()));
        raise_descriptor_limit();
        let threads =
            Threads::start(&shared).map_err(|error| StartError::System("cannot start workers", error))?;
        let threads = Arc::new(threads);
        stats.workers.set(workers as i64);
        let applier = Applier::new(shared.clone(), registry.clone(), threads.clone());
        tokio::task::spawn_local(look_after(applier.clusters().clone()));
        let status = Status { source: origin.name(), ..Status::default() };
        let trials = Rc::new(Trials::new(&threads, registry.clone()));
        let admin = Rc::new(Admin {
            shared: shared.clone(),
            registry,
            clusters: applier.clusters().clone(),
            status: RefCell::new(status),
            trials,
            csds: OnceCell::new(),
        });
        let shutdown = config.mesh.process.shutdown.clone();
        let seen = Fingerprint::of(&origin, &config.mesh);
        let mut app = Self {
            origin,
            shared,
            threads,
            applier,
            admin,
            admin_address: None,
            stats,
            seen,
            log: None,
            workers,
            shutdown,
            freed: 0,
            standing: Standing::Absent,
            remote: None,
            shadow: shadow.map(|origin| ShadowFile { origin, seen: Fingerprint::default() }),
        };
        if let Some(control) = config.mesh.process.control.as_deref() {
            app.applier.begin(&config.mesh);
            app.follow_control_plane(control, &config).await;
        }
        app.admin_address = app.open_admin(&config.mesh)?;
        app.applier.set_admin(app.admin_address.clone());
        app.bring_first_into_force(config).await.map_err(StartError::Config)?;
        app.read_shadow();
        // By the thresholds that are in force now.
        tokio::task::spawn_local(Guard::new(app.shared.clone()).watch());
        Ok(app)
    }

    async fn follow_control_plane(&mut self, control: &ControlPlane, own: &Config) {
        let ((demand, wanted), (inquiry, asked)) = (Demand::new(), Inquiry::new());
        // Nobody was there before.
        let _ = self.shared.demand.set(demand);
        let _ = self.admin.csds.set(Csds::new(xds::node(&control.node), inquiry));
        let clusters = self.applier.clusters().clone();
        let used = move |name: &Name| {
            let (requests, is_busy) = clusters.used(name)?;
            Some(Use { requests, is_busy })
        };
        let ears = Ears { wanted, asked, used: Box::new(used) };
        let identity = self.shared.identity.clone();
        let taker = Taker { identity: identity.clone(), stats: self.stats.clone() };
        self.remote = Some(Remote::follow(control.clone(), own.clone(), ears, taker).await);
        let aside = Aside::new(control.clone(), identity);
        if control.load_reports {
            let figures = Figures::new(self.applier.clusters().clone(), self.admin.registry.clone());
            tokio::task::spawn_local(loads::report(aside.clone(), figures));
        }
        if control.events {
            tokio::task::spawn_local(reports::tell(aside.clone(), self.admin.registry.clone()));
        }
        if control.trials && self.shadow.is_none() {
            self.admin.trials.set_own(&own.mesh);
            tokio::task::spawn_local(trials::follow(aside, self.admin.trials.clone()));
        }
    }

    /// Where each listener really listens.
    pub fn applier(&self) -> &Applier {
        &self.applier
    }

    /// Where the admin interface really listens, if it does.
    pub fn admin_address(&self) -> Option<&Address> {
        self.admin_address.as_ref()
    }

    /// What all workers see.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn open_admin(&self, mesh: &Mesh) -> Result<Option<Address>, StartError> {
        let wanted = &mesh.process.admin;
        let opened = Bound::new(&wanted.address)
            .and_then(|bound| Ok((bound.on_this_thread()?, bound.address.clone())));
        match opened {
            Ok((accepting, address)) => {
                tracing::info!(%address, "admin listening");
                tokio::task::spawn_local(admin::serve(self.admin.clone(), accepting));
                Ok(Some(address))
            }
            Err(error) if wanted.written => Err(StartError::System("cannot open the admin address", error)),
            Err(error) => {
                tracing::warn!(address = %wanted.address, %error, "going on without admin; set `admin:` to choose another address");
                Ok(None)
            }
        }
    }

    /// What keeps a start from serving what a control plane said before it keeps it from nothing else.
    async fn bring_first_into_force(&mut self, own: Config) -> Result<(), ConfigErrors> {
        let first = self.remote.as_mut().and_then(|remote| remote.first.take());
        let Some((cached, taken)) = first else { return self.bring_into_force(own).await };
        let found = self.remote.as_mut().map(|remote| std::mem::take(&mut remote.found)).unwrap_or_default();
        let (mut result, unfit) = self.bring_found_into_force(own.clone(), found).await;
        // Who waits may be gone.
        let _ = taken.send(Taken { in_force: result.is_ok(), unfit });
        if result.is_err() && cached {
            self.report("the control plane said so last", result);
            result = self.bring_into_force(own).await;
        }
        result
    }

    /// What the file says, with what has been found, as far as it can be: a listener that cannot be opened stays as it was and
    /// holds back nothing else. What that is comes with it; of what is refused whole, all.
    async fn bring_found_into_force(
        &mut self,
        own: Config,
        found: Discovered,
    ) -> (Result<(), ConfigErrors>, Vec<Refused>) {
        let Some(remote) = &mut self.remote else { return (self.bring_into_force(own).await, Vec::new()) };
        let before = std::mem::replace(&mut remote.found, found);
        let mut unfit = Vec::new();
        loop {
            let result = self.bring_into_force(own.clone()).await;
            let (Err(errors), Some(remote)) = (&result, &mut self.remote) else { return (result, unfit) };
            let bad = unfit_listeners(&errors.errors, &own, &remote.found);
            if bad.is_empty() {
                remote.found = before;
                unfit.push(Refused { name: None, errors: errors.errors.clone() });
                return (result, unfit);
            }
            for (name, errors) in bad {
                remote.found.keep_listener(&name, &before);
                unfit.push(Refused { name: Some(name), errors });
            }
        }
    }

    /// What the file says, with what the control plane does.
    async fn bring_into_force(&mut self, own: Config) -> Result<(), ConfigErrors> {
        let before = self.shared.live.load().mesh.clone();
        match &self.remote {
            Some(remote) => {
                let (config, secrets) = (merge(&own, &remote.found), remote.found.secrets.clone());
                self.applier.set_own(own.mesh.clusters.keys().cloned().collect());
                self.apply(config, &secrets).await?;
                if let Some(remote) = self.remote.as_mut().filter(|remote| remote.own != own) {
                    self.admin.trials.set_own(&own.mesh);
                    remote.own = own;
                }
            }
            None => self.apply(own, &Secrets::default()).await?,
        }
        // All of a large mesh is compared, and so only where somebody wants to know.
        if self.admin.trials.is_on() {
            let now = self.shared.live.load().mesh.clone();
            // What was found differs from what is in force no more, or from what else is.
            if (&now.listeners, &now.route_tables) != (&before.listeners, &before.route_tables) {
                self.admin.trials.begin_again();
            }
        }
        Ok(())
    }

    async fn apply(&mut self, config: Config, secrets: &Secrets) -> Result<(), ConfigErrors> {
        let process = config.mesh.process.clone();
        let refused = |errors: Vec<ConfigError>| ConfigErrors { source: self.origin.name(), errors };
        let writer = self.open_log(process.access_log.as_ref()).map_err(|error| refused(vec![error]))?;
        if let Err(errors) = self.applier.apply(config, secrets).await {
            return Err(refused(errors));
        }
        self.switch_log(process.access_log, writer);
        if workers_differ(process.workers, self.workers) {
            tracing::warn!(running = self.workers, "`workers` has changed; it takes a restart to follow");
        }
        self.shutdown = process.shutdown;
        // Reading a large file takes several times what is kept of it.
        sys::release_memory();
        let now = SystemTime::now();
        self.stats.config_loaded(self.applier.version(), now);
        let mut status = self.admin.status.borrow_mut();
        status.since = Some(now);
        status.refused = None;
        Ok(())
    }

    /// Opens the access log, unless the one that is open is the one that is wanted.
    fn open_log(
        &self,
        wanted: Option<&AccessLog>,
    ) -> Result<Option<(Writer, access_log::Queue)>, ConfigError> {
        let Some(wanted) = wanted else { return Ok(None) };
        if self.log.as_ref().is_some_and(|(open, _)| open == wanted) {
            return Ok(None);
        }
        let (queue, lines) = queue(access_log::QUEUE_BYTES, self.stats.access_log_dropped.clone());
        let writer = Writer::start(&wanted.to, lines).map_err(|error| ConfigError {
            place: None,
            path: "access_log.to".to_owned(),
            problem: format!("cannot write there: {error}"),
            hint: None,
        })?;
        Ok(Some((writer, queue)))
    }

    fn switch_log(&mut self, wanted: Option<AccessLog>, opened: Option<(Writer, access_log::Queue)>) {
        match (wanted, opened) {
            (Some(wanted), Some((writer, queue))) => {
                self.threads.all(|| Command::Log(Some((wanted.format, queue.clone()))));
                // The old writer ends when the last line of the workers has reached it.
                self.log = Some((wanted, writer));
            }
            (Some(_), None) => {}
            (None, _) if self.log.is_some() => {
                self.threads.all(|| Command::Log(None));
                self.log = None;
            }
            (None, _) => {}
        }
    }

    /// Runs until the process is told to end, and has.
    pub async fn run(mut self, signals: Signals) {
        let Signals { mut hangup, mut leave } = signals;
        // The start is over.
        sys::forget_code();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = leave.asked() => break,
                Some(()) = hangup.recv() => {
                    if let Some((_, writer)) = &self.log {
                        writer.reopen();
                    }
                    self.reload("SIGHUP").await;
                    self.read_shadow();
                }
                Some(Told { news, cached: _, taken }) = Remote::next(&mut self.remote) => {
                    let is_taken = self.hear(news).await;
                    // Who waits may be gone.
                    let _ = taken.send(is_taken);
                }
                _ = look.tick() => {
                    self.release_memory();
                    self.warn_of_lapse();
                    if self.seen.has_changed() {
                        self.reload("a file changed").await;
                    }
                    if self.shadow.as_ref().is_some_and(|shadow| shadow.seen.has_changed()) {
                        self.read_shadow();
                    }
                }
            }
        }
        self.leave(leave).await;
    }

    /// After a wave of connections has gone, or gone to rest, what they held goes back to the system.
    fn release_memory(&mut self) {
        self.freed += self.shared.take_freed();
        // While connections still come and go the allocator would only have to ask for it again.
        let calm = self.shared.quiet_for() >= CALM;
        if calm && self.freed >= WAVE {
            self.freed = 0;
            self.shared.release_memory();
        }
    }

    /// Says once when the identity should have been renewed, and once when it has lapsed.
    fn warn_of_lapse(&mut self) {
        if self.shared.live.load().mesh.identity.is_none() {
            return;
        }
        let now = SystemTime::now();
        let standing = self.shared.identity.standing(now);
        let before = std::mem::replace(&mut self.standing, standing);
        if std::mem::discriminant(&before) == std::mem::discriminant(&standing) {
            return;
        }
        match standing {
            Standing::Absent => return,
            Standing::Good => {
                // It was renewed before anybody was told.
                return self.admin.registry.journal().take_back(|what| matches!(what, What::Expiring(_)));
            }
            Standing::Late(_) => tracing::warn!("{standing}"),
            Standing::Lapsed => tracing::error!("{standing}: no peer believes it"),
        }
        if let Some(Lapse { id, serial, not_after, why }) = self.shared.identity.lapse() {
            let (spiffe_id, not_after) = (id.to_string(), Some(not_after.into()));
            let why = why.map(String::from).unwrap_or_default();
            let expiring = CertificateExpiring { spiffe_id, serial, not_after, why };
            self.admin.registry.journal().note(What::Expiring(expiring), now);
        }
    }

    /// Reads the configuration again. One that is wrong changes nothing.
    async fn reload(&mut self, why: &str) {
        let loaded = match self.origin {
            Origin::File(_) | Origin::Environment => self.origin.load(),
            // It cannot be read again, but what it names can: a certificate that is renewed must come into force.
            Origin::Stdin => {
                let own = self.remote.as_ref().map(|remote| remote.own.clone());
                let config = own.unwrap_or_else(|| self.admin.in_force());
                Ok(Parsed { config, warnings: Vec::new() })
            }
        };
        if let Ok(parsed) = &loaded {
            self.seen = Fingerprint::of(&self.origin, &parsed.config.mesh);
        } else {
            self.seen = Fingerprint::of(&self.origin, &self.shared.live.load().mesh);
        }
        let result = match loaded {
            Ok(Parsed { config, warnings }) => {
                warn(&self.origin, &warnings);
                self.bring_into_force(config).await
            }
            Err(errors) => Err(errors),
        };
        self.report(why, result);
    }

    /// Reads the file that is on trial, if one is. Whatever is wrong with it touches nothing that is in force.
    fn read_shadow(&mut self) {
        let Some(ShadowFile { origin, seen }) = &mut self.shadow else { return };
        let (trials, of) = (&self.admin.trials, Of::File(origin.name()));
        // Before it is read: what is written meanwhile is seen the next time.
        *seen = Fingerprint::of(origin, &Mesh::default());
        match origin.load() {
            Ok(Parsed { config, warnings: _ }) => trials.begin(of, Said::by_file(&config.mesh)),
            Err(errors) => trials.refuse(of, errors.to_string().lines().map(str::to_owned).collect()),
        }
    }

    /// The control plane says something new; what became of it.
    async fn hear(&mut self, news: News) -> Taken {
        let Some(remote) = &mut self.remote else { return Taken { in_force: false, unfit: Vec::new() } };
        match news {
            News::Endpoints(sets) => {
                for (name, set) in sets {
                    // Names of the file's are the file's.
                    if !remote.own.mesh.clusters.contains_key(&name) {
                        self.applier.assign_endpoints(&name, &set);
                    }
                    remote.found.endpoints.insert(name, set);
                }
                Taken { in_force: true, unfit: Vec::new() }
            }
            News::All(found) => {
                let own = remote.own.clone();
                let (result, unfit) = self.bring_found_into_force(own, *found).await;
                let in_force = result.is_ok();
                self.report("the control plane says so", result);
                Taken { in_force, unfit }
            }
        }
    }

    fn report(&self, why: &str, result: Result<(), ConfigErrors>) {
        match result {
            Ok(()) => tracing::info!(why, version = self.applier.version(), "configuration loaded"),
            Err(errors) => {
                self.stats.config_refused();
                self.admin.status.borrow_mut().refused = Some(errors.to_string());
                let version = self.applier.version();
                tracing::error!(why, version, "configuration refused, the last good one stays");
                // One event each: what reads logs reads lines.
                for error in errors.to_string().lines() {
                    tracing::error!("{error}");
                }
            }
        }
    }

    async fn leave(mut self, mut signals: Leave) {
        let Shutdown { lame_duck, quiet, deadline } = self.shutdown.clone();
        tracing::info!(
            ?lame_duck,
            ?quiet,
            ?deadline,
            connections = self.shared.connections(),
            "draining; a second signal ends at once"
        );
        self.stats.draining.set(1);
        self.shared.leave(Leaving::Draining);
        let end = tokio::time::Instant::now() + deadline;
        let drained = async {
            tokio::time::sleep(lame_duck).await;
            self.applier.close(Direction::Inbound);
            while self.shared.connections() > 0 && self.shared.quiet_for() < quiet {
                tokio::time::sleep(STEP).await;
            }
            self.shared.leave(Leaving::Quiet);
            while self.shared.connections() > 0 {
                tokio::time::sleep(STEP).await;
            }
        };
        tokio::select! {
            () = drained => tracing::info!("drained"),
            () = tokio::time::sleep_until(end) => {
                tracing::warn!(connections = self.shared.connections(), "shutdown.deadline has passed; what is open is cut");
            }
            () = signals.asked() => tracing::warn!(connections = self.shared.connections(), "ending at once"),
        }
        self.shared.leave(Leaving::Over);
        let cut = tokio::time::Instant::now() + LAST_WORDS;
        while self.shared.connections() > 0 && tokio::time::Instant::now() < cut {
            tokio::time::sleep(STEP).await;
        }
        self.end();
    }

    fn end(self) {
        let Self { threads, applier, admin, log, .. } = self;
        drop((applier, admin));
        if let Some(threads) = Arc::into_inner(threads) {
            threads.join();
        }
        if let Some((_, writer)) = log {
            writer.finish(LAST_LINES);
        }
    }
}

fn warn(origin: &Origin, warnings: &[ConfigError]) {
    for warning in warnings {
        tracing::warn!("{}:{warning}", origin.name());
    }
}
