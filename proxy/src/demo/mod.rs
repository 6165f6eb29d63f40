//! `outrigger demo`: the proxy at work, for someone who has just met it. Three services and a configuration are
//! brought along; what runs between them is what `outrigger run` runs, file, workers, reload and drain included.

mod check;
mod client;
mod echo;
mod script;
mod table;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::model::Address;
use tokio::time::{Instant, MissedTickBehavior};

use self::check::Report;
use self::client::Traffic;
use self::echo::{Service, Services};
use self::script::Script;
use self::table::{Row, Window};
use crate::app::{App, Signals, StartError};
use crate::control::file::Origin;
use crate::upstream::{Clusters, Endpoint};
use crate::watch::Leaving;
use crate::worker::Shared;

/// How often the table is drawn on a terminal.
const REDRAW: Duration = Duration::from_millis(250);
/// How often a line is written elsewhere.
const LINE: Duration = Duration::from_secs(2);
/// From here to the end of the screen, nothing.
const CLEAR: &str = "\r\x1b[J";

/// What the demonstration is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Send requests through, say what came of them, and end.
    Check,
    /// Show what goes on, until told to end, with so many requests a second of its own.
    Show {
        /// Requests per second; 0 for none.
        traffic: u32,
    },
}

/// Why the demonstration failed.
#[derive(Debug)]
pub enum DemoError {
    /// It could not start.
    Start(StartError),
    /// What it found wrong, line by line.
    Check(Vec<String>),
    /// It was told to end before it was done.
    Interrupted,
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
            Self::Check(problems) => f.write_str(&problems.join("\n")),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for DemoError {}

impl From<StartError> for DemoError {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

/// Runs the demonstration, on the management thread's own runtime, to its end.
///
/// # Errors
/// It cannot start, or what [`Mode::Check`] found.
pub fn run(mode: Mode) -> Result<(), DemoError> {
    let system = |what| move |error| StartError::System(what, error);
    let services = Services::start().map_err(system("cannot start the services"))?;
    let script = Script::write(services.all()).map_err(system("cannot write the configuration"))?;
    let origin = Origin::File(script.path().to_owned());
    let parsed = origin.load().map_err(StartError::Config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .map_err(system("cannot start"))?;
    runtime.block_on(async {
        let signals = Signals::listen()?;
        let app = App::start(origin, parsed, None).await?;
        let stage = Stage::new(&app, services.all());
        let about = stage.about(&app, &script);
        match mode {
            Mode::Check => check((app, signals), &stage).await,
            Mode::Show { traffic } => show((app, signals), stage, traffic, &about).await,
        }
    })
}

/// Where log lines go: to standard error, over the table if that is on the same screen. It is drawn again below them.
pub fn log_writer() -> io::Stderr {
    if is_screen() && io::stderr().is_terminal() {
        // Without the table, the line is still written.
        let _ = io::stdout().lock().write_all(CLEAR.as_bytes());
        let _ = io::stdout().flush();
    }
    io::stderr()
}

async fn check(app: (App, Signals), stage: &Stage) -> Result<(), DemoError> {
    say(&format!("sending {} requests to http://{}\n\n", check::REQUESTS, stage.to));
    let report = until(app, stage.check()).await.ok_or(DemoError::Interrupted)?;
    say(&report.to_string());
    let line = report.verdict().map_err(DemoError::Check)?;
    say(&format!("{line}\n"));
    Ok(())
}

async fn show(app: (App, Signals), stage: Stage, traffic: u32, about: &str) -> Result<(), DemoError> {
    say(about);
    let traffic = Traffic::start(stage.to, stage.shared.clone(), traffic);
    let window = Window::new(stage.shared.epoch.elapsed());
    let mut screen = Screen { stage, traffic, window, terminal: is_screen() };
    // Whoever listened has gone: so do we.
    let _gone = until(app, screen.draw_on()).await;
    // The table that was drawn last stays, above what the shell writes next.
    let _ = screen.draw(true);
    Ok(())
}

/// Runs the proxy until it is told to end, or `play` is over; then it drains, as always. `None` if it was told.
async fn until<T>((app, signals): (App, Signals), play: impl Future<Output = T>) -> Option<T> {
    let shared = app.shared().clone();
    let (mut running, mut play) = (pin!(app.run(signals)), pin!(play));
    let result = tokio::select! {
        () = &mut running => return None,
        result = &mut play => result,
    };
    if shared.leaving() != Leaving::No {
        // Told to end while it played: what came of that says nothing, and a second signal would cut the drain short.
        running.await;
        return None;
    }
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
    running.await;
    Some(result)
}

/// What the play needs of the running proxy.
#[derive(Debug)]
struct Stage {
    to: SocketAddr,
    services: Vec<Service>,
    shared: Arc<Shared>,
    clusters: Arc<Clusters>,
}

impl Stage {
    fn new(app: &App, services: &[Service]) -> Self {
        let ip = |address: &Address| match address {
            Address::Ip(address) => Some(*address),
            Address::Unix(_) => None,
        };
        let to = app.applier().bound().find_map(|(_, address)| ip(address));
        Self {
            to: to.expect("the configuration that we wrote has a TCP listener"),
            services: services.to_vec(),
            shared: app.shared().clone(),
            clusters: app.applier().clusters().clone(),
        }
    }

    fn about(&self, app: &App, script: &Script) -> String {
        let admin =
            app.admin_address().map_or_else(|| "none".to_owned(), |address| format!("http://{address}/"));
        format!(
            "Three echo services, and Outrigger in front of them.\n\n  \
             try            curl http://{to}/hello\n  \
             admin          curl {admin}\n  \
             configuration  {file}\n                 \
             change it and save: it takes effect at once, and no request is lost\n  \
             end            Ctrl-C\n\n",
            to = self.to,
            file = script.path().display(),
        )
    }

    async fn check(&self) -> Report {
        let sent =
            |address| self.rows().iter().filter(|row| row.address == address).map(|row| row.requests).sum();
        let sent = |address: SocketAddr| -> u64 { sent(address.to_string()) };
        check::run(self.to, &self.services, sent).await
    }

    fn rows(&self) -> Vec<Row> {
        let now = self.shared.epoch.elapsed();
        let mut clusters = self.clusters.all();
        clusters.sort_by(|one, other| one.name().cmp(other.name()));
        let row = |endpoint: &Arc<Endpoint>| Row {
            id: endpoint.id(),
            address: endpoint.at().label.to_string(),
            name: self.name(&endpoint.at().address),
            requests: endpoint.requests(),
            active: endpoint.active(),
            failures: endpoint.failures(),
            latency: endpoint.latency(now),
        };
        clusters
            .iter()
            .flat_map(|cluster| cluster.endpoints().endpoints().iter().map(row).collect::<Vec<_>>())
            .collect()
    }

    fn name(&self, of: &Address) -> Option<&'static str> {
        self.services.iter().find(|service| *of == Address::Ip(service.address)).map(|service| service.name)
    }
}

/// Where the figures are shown.
#[derive(Debug)]
struct Screen {
    stage: Stage,
    traffic: Rc<Traffic>,
    window: Window,
    terminal: bool,
}

impl Screen {
    /// Goes on until nobody can read it any more.
    async fn draw_on(&mut self) -> io::Error {
        let (first, every) = if self.terminal { (Duration::ZERO, REDRAW) } else { (LINE, LINE) };
        let mut turns = tokio::time::interval_at(Instant::now() + first, every);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            if let Err(error) = self.draw(false) {
                return error;
            }
        }
    }

    fn draw(&mut self, last: bool) -> io::Result<()> {
        let rows = self.stage.rows();
        let recent = self.window.note(self.stage.shared.epoch.elapsed(), &rows);
        let text = if self.terminal {
            framed(&format!("\n{}\n{}", table::table(&rows, &recent), self.remark(last)), last)
        } else {
            table::line(&rows, &recent)
        };
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    fn remark(&self, last: bool) -> String {
        if last {
            return "ended, and the configuration is removed\n".to_owned();
        }
        if self.stage.shared.leaving() != Leaving::No {
            return "draining: requests in flight are finished\n".to_owned();
        }
        match self.traffic.failures() {
            Some((count, why)) => format!("{count} requests of our own failed, the last: {why}\n"),
            None => "share and rate: of the last 5 s\n".to_owned(),
        }
    }
}

/// What draws this text over the one before. The cursor is left at its top, on an empty line, where log lines and
/// what is typed do least harm; long lines are cut, as those that wrap could not be drawn over.
fn framed(text: &str, last: bool) -> String {
    let back = if last { String::new() } else { format!("\x1b[{}A", text.matches('\n').count()) };
    format!("{CLEAR}\x1b[?7l{text}\x1b[?7h{back}")
}

/// Whether standard output is a terminal that can move its cursor.
fn is_screen() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn say(text: &str) {
    // A reader that has seen enough (`| head`) is no failure.
    let _ = io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_drawn_over_the_one_before() {
        assert_eq!(framed("\na\nb\n", false), "\r\x1b[J\x1b[?7l\na\nb\n\x1b[?7h\x1b[3A");
        assert_eq!(framed("\na\n", true), "\r\x1b[J\x1b[?7l\na\n\x1b[?7h");
    }
}
