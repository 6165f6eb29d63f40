//! The command line.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use outrigger_proto::model::{Action, DnsUse, Filter, Mesh, Source};
use outrigger_proto::yaml::{self, Parsed};

use crate::app::{self, App, Signals, StartError};
use crate::control::file::Origin;
use crate::demo::{self, Mode};
use crate::identity;
use crate::identity::secrets::Secrets;
use crate::material::{self, Keeper};
use crate::privileges;

/// Told apart, as they are not the same.
const VERSION: &str = if cfg!(feature = "fips") {
    concat!(env!("CARGO_PKG_VERSION"), " (FIPS)")
} else {
    env!("CARGO_PKG_VERSION")
};

/// A sidecar proxy: one process beside a service, that takes over its calls.
#[derive(Debug, Parser)]
#[command(name = "outrigger", version = VERSION, about, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve what the file says, until SIGTERM
    Run {
        /// The configuration; `-` reads standard input. Not needed where OUTRIGGER_XDS_SERVER names a control plane
        file: Option<String>,
        /// Hold a configuration up against the one in force, request by request, and act on none of it: what would go another
        /// way, or be refused or let in, is shown by `/shadow` of admin. The file is read again when it changes. Where a control
        /// plane has something on trial, this is held up instead
        #[arg(long, value_name = "NEXT")]
        shadow: Option<PathBuf>,
    },
    /// Say what the file would do, or everything that is wrong with it
    Check {
        /// The configuration; `-` reads standard input. Not needed where OUTRIGGER_XDS_SERVER names a control plane
        file: Option<String>,
        /// Print it with every default written out
        #[arg(long)]
        effective: bool,
    },
    /// Show it at work: three small services on free ports, and the proxy in front of them
    Demo {
        /// Send 300 requests through, print what came of them, and exit: 0 if all were answered rightly
        #[arg(long, conflicts_with = "traffic")]
        check: bool,
        /// Requests per second to send to itself; 0 for none
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=1000))]
        traffic: u32,
    },
    /// Print the JSON Schema of the file, for editors
    Schema,
    /// Print completions for a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// What a configuration error ends the process with.
const INVALID: u8 = 1;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Verb::Run { file, shadow } => run(&origin(file.as_deref()), shadow),
        Verb::Check { file, effective } => check(&origin(file.as_deref()), effective),
        Verb::Demo { check: true, traffic: _ } => demo(Mode::Check),
        Verb::Demo { check: false, traffic } => demo(Mode::Show { traffic }),
        Verb::Schema => print(&format!("{:#}\n", yaml::schema())),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "outrigger", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}

/// Where the configuration comes from; ends the process where nothing says so.
fn origin(file: Option<&str>) -> Origin {
    Origin::new(file).unwrap_or_else(|| {
        let problem = "no FILE is given, and OUTRIGGER_XDS_SERVER names no control plane";
        Cli::command().error(ErrorKind::MissingRequiredArgument, problem).exit()
    })
}

fn run(origin: &Origin, shadow: Option<PathBuf>) -> ExitCode {
    init_logging(tracing::Level::INFO, std::io::stderr);
    let parsed = match origin.load() {
        Ok(parsed) => parsed,
        Err(errors) => return fail(&errors),
    };
    if let Err(error) = settle(origin, &parsed) {
        return fail(&error);
    }
    if !identity::is_as_built() {
        return fail(&"the validated module of cryptography (FIPS) does not work as it must on this machine");
    }
    let runtime =
        match tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()) {
            Ok(runtime) => runtime,
            Err(error) => return fail(&format!("cannot start: {error}")),
        };
    let result = runtime.block_on(async {
        let signals = Signals::listen()?;
        App::start(origin.clone(), parsed, shadow.map(Origin::File)).await?.run(signals).await;
        Ok::<_, StartError>(())
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Becomes whom the file says, who must be able to read it again: a reload would fail, some day.
fn settle(origin: &Origin, parsed: &Parsed) -> Result<(), Box<dyn std::error::Error>> {
    let privileges = &parsed.config.mesh.process.privileges;
    privileges::settle(privileges)?;
    if privileges.user.is_some() && matches!(origin, Origin::File(_)) {
        origin.load().map_err(|errors| format!("no longer root, and so a reload would fail: {errors}"))?;
    }
    Ok(())
}

fn demo(mode: Mode) -> ExitCode {
    // What is worth knowing every time would spoil the table.
    init_logging(tracing::Level::WARN, demo::log_writer);
    demo::run(mode).map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS)
}

fn check(origin: &Origin, effective: bool) -> ExitCode {
    let Parsed { config, warnings } = match origin.load() {
        Ok(parsed) => parsed,
        Err(errors) => return fail(&errors),
    };
    for warning in warnings {
        eprintln!("warning: {}:{warning}", origin.name());
    }
    for (_, warning) in material::exposed(&config.mesh) {
        eprintln!("warning: {warning}");
    }
    if let Err(errors) = Keeper::new(Arc::default(), Arc::default()).load(&config.mesh, &Secrets::default()) {
        errors.iter().for_each(|error| eprintln!("{}: {error}", origin.name()));
        return ExitCode::from(INVALID);
    }
    if effective {
        return print(&yaml::print(&config));
    }
    let endpoints = |name: &_| config.endpoints.get(name).map_or(0, |assignment| assignment.endpoints.len());
    print(&summary(&config.mesh, endpoints))
}

fn summary(mesh: &Mesh, endpoints: impl Fn(&outrigger_proto::model::Name) -> usize) -> String {
    let mut out = format!("workers  {}\nadmin    {}\n", app::workers(mesh), mesh.process.admin.address);
    for (name, listener) in &mesh.listeners {
        for (place, _, chain) in listener.chains.places() {
            let tls = if chain.tls.is_some() { " (TLS)" } else { "" };
            let what = match &chain.filter {
                Filter::Http(http) => {
                    let routes = mesh.route_tables.get(&http.routes).map_or(&[][..], |table| &table.routes);
                    let forwarding =
                        routes.iter().filter(|route| matches!(route.action, Action::Forward(_))).count();
                    format!("HTTP{tls}, {} routes, {forwarding} of them to clusters", routes.len())
                }
                Filter::Tcp(tcp) => {
                    let targets: Vec<_> = tcp.to.targets.iter().map(|target| target.to.to_string()).collect();
                    format!("TCP{tls} to {}", targets.join(", "))
                }
            };
            out.push_str(&format!("listener {name}{place}  {}  {what}\n", listener.bind));
        }
    }
    for (name, cluster) in &mesh.clusters {
        let what = match &cluster.source {
            Source::Static => format!("{} endpoints", endpoints(name)),
            Source::Dns { host, port, uses: DnsUse::All } => {
                format!("whatever {host} resolves to, port {port}")
            }
            Source::Dns { host, port, uses: DnsUse::First } => {
                format!("the first address that {host} resolves to, port {port}")
            }
            Source::Original(original) => match &original.header {
                None => "wherever connections were going".to_owned(),
                Some(header) => format!("what {header} names, or wherever connections were going"),
            },
        };
        out.push_str(&format!("cluster  {name}  {what}\n"));
    }
    out.push_str("ok\n");
    out
}

fn init_logging(default: tracing::Level, writer: fn() -> std::io::Stderr) {
    // Standard output is the access log's.
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let level = std::env::var("OUTRIGGER_LOG").ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_writer(writer)
        .with_ansi(colour)
        .with_target(false)
        .with_max_level(level.unwrap_or(default))
        .init();
}

fn print(text: &str) -> ExitCode {
    // A reader that has seen enough (`| head`) is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(INVALID)
}
