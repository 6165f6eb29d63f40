//! The command line: `run` is the control plane, everything else asks one.

pub(crate) mod client;
mod identity;
mod run;
mod shadow;
mod token;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use serde_json::{Value, json};

use self::client::Client;
use self::identity::Identity;
use self::shadow::ShadowVerb;
use self::token::TokenVerb;
use crate::{demo, directory};

/// Tells proxies what to serve: documents in, xDS v3 out.
#[derive(Debug, Parser)]
#[command(name = "outrigger-control", version, about, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// Where a control plane is, and by which right it is asked.
#[derive(Debug, Args)]
pub(crate) struct Remote {
    /// The control plane's API
    #[arg(long, env = "OUTRIGGER_CONTROL", default_value = "http://127.0.0.1:18001", value_name = "URL")]
    server: String,
    /// File of the token
    #[arg(long, env = "OUTRIGGER_CONTROL_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of the roots that the server is checked against; the system's by default
    #[arg(long, env = "OUTRIGGER_CONTROL_TRUST", value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Remote {
    /// This one, by the right of this token.
    pub(crate) fn to(server: String, token_file: PathBuf) -> Self {
        Self { server, token_file: Some(token_file), trust: None, json: false }
    }
}

/// Why, and whether at all.
#[derive(Debug, Args)]
struct Reason {
    /// Why; shown in the history
    #[arg(short, long, default_value = "")]
    message: String,
    /// Only say what would be different
    #[arg(long)]
    dry_run: bool,
}

/// Whether at all, of what needs no reason.
#[derive(Debug, Args)]
struct DryRun {
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
}

impl DryRun {
    /// What is to be asked of this path. One that knows no dry run of it refuses what it does not know.
    fn of(&self, path: &str) -> String {
        if self.dry_run { format!("{path}?dry_run=true") } else { path.to_owned() }
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Be a control plane, until SIGTERM
    Run {
        /// How it runs; all by default
        file: Option<PathBuf>,
        /// Only say what would run, or what is wrong with it
        #[arg(long)]
        dry_run: bool,
    },
    /// Show a mesh at work: a control plane, three services with proxies, and what happens when something goes wrong
    Demo {
        /// Play it fast and end, with success only if all went as it should
        #[arg(long)]
        check: bool,
        /// The program of the proxy, `outrigger`; found beside this one or on the PATH
        #[arg(long, env = "OUTRIGGER_BIN", value_name = "PATH")]
        proxy: Option<PathBuf>,
    },
    /// Say what is wrong with documents, without a control plane
    Check {
        /// Files, or one directory
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Put documents into force, each under its file's name
    Apply {
        /// Files
        #[arg(required_unless_present = "remove")]
        files: Vec<PathBuf>,
        /// Take a document away
        #[arg(long, value_name = "NAME")]
        remove: Vec<String>,
        /// Put them on trial instead: proxies say what would change, and nothing does
        #[arg(long)]
        shadow: bool,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        remote: Remote,
    },
    /// What a revision changed, or in what files differ from what is in force
    Diff {
        /// The number of a revision, or files
        #[arg(required = true)]
        what: Vec<String>,
        /// In what a revision differs from this one, instead of what was in force when it was written; 0 for nothing
        #[arg(long, value_name = "NUMBER")]
        from: Option<u64>,
        #[command(flatten)]
        remote: Remote,
    },
    /// What is in force, or was in a revision: one document, or the names of all
    Get {
        /// A document
        document: Option<String>,
        /// The number of a revision
        #[arg(long)]
        revision: Option<u64>,
        #[command(flatten)]
        remote: Remote,
    },
    /// What was accepted, or put on trial, the last first
    History {
        #[command(flatten)]
        remote: Remote,
    },
    /// Bring an earlier revision back, as a new one
    Rollback {
        /// The number of the revision
        to: u64,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        remote: Remote,
    },
    /// What is on trial (`apply --shadow`), and what it would change
    #[command(args_conflicts_with_subcommands = true)]
    Shadow {
        #[command(subcommand)]
        verb: Option<ShadowVerb>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Who is connected, what each has taken, and what it refused
    Status {
        #[command(flatten)]
        remote: Remote,
    },
    /// What happened, as JSON lines
    Events {
        /// The last event that is known
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// Go on with what comes
        #[arg(short, long)]
        follow: bool,
        /// Print what they look like instead, as JSON Schema
        #[arg(long, conflicts_with_all = ["after", "follow"])]
        schema: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Who may change things
    Token {
        #[command(subcommand)]
        verb: TokenVerb,
    },
    /// The authority that nodes get their identities from
    Ca {
        #[command(subcommand)]
        verb: CaVerb,
    },
    /// Get an identity as files, for a program that cannot ask for one; again, to renew it
    Identity(Identity),
    /// Print completions for a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum CaVerb {
    /// Print the roots to be believed, as PEM
    Bundle {
        #[command(flatten)]
        remote: Remote,
    },
    /// Make a new root: it is believed from now on, and signs once everybody knows it
    Rotate {
        #[command(flatten)]
        dry: DryRun,
        #[command(flatten)]
        remote: Remote,
    },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Run { file, dry_run: false } => run::run(file.as_deref()),
        Verb::Run { file, dry_run: true } => run::try_out(file.as_deref()),
        Verb::Demo { check, proxy } => demo::run(check, proxy.as_deref()),
        Verb::Check { paths } => check(&paths),
        Verb::Apply { files, remove, shadow, reason, remote } => {
            apply((&files, remove), shadow, reason, &remote)
        }
        Verb::Diff { what, from, remote } => diff(&what, from, &remote),
        Verb::Get { document, revision, remote } => get(document, revision, &remote),
        Verb::History { remote } => history(&remote),
        Verb::Rollback { to, reason: Reason { message, dry_run }, remote } => {
            let body = json!({ "to": to, "message": message, "dry_run": dry_run });
            Client::new(&remote)
                .and_then(|client| changed(&client.post("/v1/rollback", &body)?, dry_run, &remote))
        }
        Verb::Shadow { verb: None, remote } => shadow::show(&remote),
        Verb::Shadow { verb: Some(verb), remote: _ } => shadow::run(verb),
        Verb::Status { remote } => status(&remote),
        Verb::Events { schema: true, remote, after: _, follow: _ } => Client::new(&remote)
            .and_then(|client| print(&format!("{:#}\n", client.get("/v1/events/schema")?))),
        Verb::Events { after, follow, schema: false, remote } => events(after, follow, &remote),
        Verb::Token { verb } => token::run(verb),
        Verb::Ca { verb: CaVerb::Bundle { remote } } => {
            Client::new(&remote).and_then(|client| print(&client.get_text("/v1/ca/bundle")?))
        }
        Verb::Ca { verb: CaVerb::Rotate { dry, remote } } => Client::new(&remote)
            .and_then(|client| ended(client.post_empty(&dry.of("/v1/ca/rotate"))?, &remote)),
        Verb::Identity(args) => identity::get(&args),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "outrigger-control", &mut std::io::stdout());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What is wrong, in words.
type Done = Result<(), String>;

fn documents(paths: &[PathBuf]) -> Result<BTreeMap<String, String>, String> {
    let unreadable = |path: &Path, error: &std::io::Error| format!("{}: {error}", path.display());
    if let [directory] = paths
        && directory.is_dir()
    {
        return directory::read(directory).map_err(|error| unreadable(directory, &error));
    }
    let read = paths.iter().map(|path| {
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
        let name = path.file_name().and_then(|name| name.to_str());
        Ok((name.ok_or_else(|| format!("{}: not the name of a file", path.display()))?.to_owned(), text))
    });
    read.collect()
}

fn check(paths: &[PathBuf]) -> Done {
    let (serving, warnings) = crate::documents::checked(0, &documents(paths)?, None)?;
    warn_of(warnings.iter().map(String::as_str));
    let fleet = serving.fleet();
    let mut out = String::new();
    for group in &fleet.groups {
        let listeners: Vec<_> = fleet.listeners(group).map(|(name, _)| name.as_str()).collect();
        let clusters: Vec<_> = fleet.clusters(group).into_iter().map(|name| name.as_str()).collect();
        let _ = writeln!(
            out,
            "group {}  listeners: {}  clusters: {}",
            group.name,
            listeners.join(" "),
            clusters.join(" ")
        );
    }
    print(&(out + "ok\n"))
}

fn apply(
    (files, remove): (&[PathBuf], Vec<String>),
    shadow: bool,
    Reason { message, dry_run }: Reason,
    remote: &Remote,
) -> Done {
    let put = documents(files)?.into_iter().map(|(name, text)| (name, Value::from(text)));
    let all: serde_json::Map<_, _> = put.chain(remove.into_iter().map(|name| (name, Value::Null))).collect();
    let mut body = json!({ "documents": all, "message": message, "dry_run": dry_run });
    // One that knows no trials refuses what it does not know.
    if shadow {
        body["shadow"] = true.into();
    }
    let answer = Client::new(remote)?.post("/v1/revisions", &body)?;
    if shadow { shadow::begun(&answer, dry_run, remote) } else { changed(&answer, dry_run, remote) }
}

/// Says what became of a change.
fn changed(answer: &Value, dry_run: bool, remote: &Remote) -> Done {
    if remote.json {
        return print(&format!("{answer:#}\n"));
    }
    warn(answer);
    let diff = answer["diff"].as_str().unwrap_or_default();
    let said = match (diff.is_empty(), dry_run) {
        (true, _) => format!("nothing is different from revision {}\n", answer["revision"]),
        (false, true) => format!("{diff}revision {} stays: this was a dry run\n", answer["revision"]),
        (false, false) => format!("{diff}revision {} is accepted\n", answer["revision"]),
    };
    print(&said)
}

/// Says what would have been done; of what is done there is nothing to be said.
fn ended(answer: Option<Value>, remote: &Remote) -> Done {
    match answer {
        None => Ok(()),
        Some(answer) if remote.json => print(&format!("{answer:#}\n")),
        Some(answer) => {
            let would = answer["would"].as_str().unwrap_or_default();
            print(&format!("this would {would}; nothing is changed: this was a dry run\n"))
        }
    }
}

fn warn(answer: &Value) {
    warn_of(answer["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str));
}

/// Says the first of them: what is wrong ten thousand times is no news after the twentieth.
fn warn_of<'w>(warnings: impl Iterator<Item = &'w str>) {
    const MOST: usize = 20;
    let mut warnings = warnings.peekable();
    warnings.by_ref().take(MOST).for_each(|warning| eprintln!("warning: {warning}"));
    if warnings.peek().is_some() {
        eprintln!("warning: and {} more like these", warnings.count());
    }
}

fn diff(what: &[String], from: Option<u64>, remote: &Remote) -> Done {
    let client = Client::new(remote)?;
    if let [number] = what
        && let Ok(number) = number.parse::<u64>()
    {
        shadow::say_so(&client.get(&format!("/v1/revisions/{number}"))?);
        let from = from.map(|from| format!("?from={from}")).unwrap_or_default();
        return print(&client.get_text(&format!("/v1/revisions/{number}/diff{from}"))?);
    }
    if from.is_some() {
        return Err(
            "`--from` goes with the number of a revision; files are held up against what is in force"
                .to_owned(),
        );
    }
    let files: Vec<_> = what.iter().map(PathBuf::from).collect();
    let body = json!({ "documents": documents(&files)?, "dry_run": true });
    let answer = client.post("/v1/revisions", &body)?;
    print(answer["diff"].as_str().unwrap_or_default())
}

fn get(document: Option<String>, revision: Option<u64>, remote: &Remote) -> Done {
    let client = Client::new(remote)?;
    let documents = match revision {
        None => client.get("/v1/documents")?,
        Some(number) => {
            let mut revision = client.get(&format!("/v1/revisions/{number}"))?;
            shadow::say_so(&revision);
            revision["documents"].take()
        }
    };
    let Some(document) = document else {
        let names = documents.as_object().into_iter().flat_map(|documents| documents.keys());
        return print(&names.map(|name| format!("{name}\n")).collect::<String>());
    };
    match documents[&document].as_str() {
        Some(text) => print(text),
        None => Err(format!("there is no document `{document}`; `get` without a name lists them")),
    }
}

fn history(remote: &Remote) -> Done {
    let answer = Client::new(remote)?.get("/v1/revisions")?;
    if remote.json {
        return print(&format!("{answer:#}\n"));
    }
    let mut out = String::new();
    for entry in answer.as_array().into_iter().flatten() {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let back = entry["rollback_to"].as_u64().map(|to| format!(" (brings back {to})")).unwrap_or_default();
        let back = if entry["shadow"] == true { " (shadow)" } else { &back };
        let _ = writeln!(
            out,
            "{:>5}  {}  {}  {}{back}",
            entry["number"],
            text("time"),
            text("author"),
            text("message")
        );
    }
    print(&out)
}

fn status(remote: &Remote) -> Done {
    let answer = Client::new(remote)?.get("/v1/status")?;
    if remote.json {
        return print(&format!("{answer:#}\n"));
    }
    let mut out = format!("revision {}\n", answer["revision"]);
    if let Some(candidate) = answer["candidate"].as_u64() {
        let _ = writeln!(out, "revision {candidate} is told to some so far");
    }
    if let Some(shadow) = answer["shadow"].as_u64() {
        let _ = writeln!(out, "revision {shadow} is on trial");
    }
    let publishing = &answer["publishing"];
    if let Some(server) = publishing["server"].as_str() {
        let (published, behind) = (&publishing["published"], &publishing["behind"]);
        let _ = writeln!(out, "events published to {server} up to {published}, {behind} behind");
        if let Some(why) = publishing["why"].as_str() {
            let _ = writeln!(out, "    not now: {why}");
        }
    }
    answer["nodes"].as_array().into_iter().flatten().for_each(|node| show_node(node, &mut out));
    print(&out)
}

fn show_node(node: &Value, out: &mut String) {
    let text = |key: &str| node[key].as_str().unwrap_or("-").to_owned();
    let state = if node["in_sync"] == true { "in sync" } else { "behind" };
    let _ = writeln!(
        out,
        "{}  group {}  {}  {}  {state}  since {}",
        text("id"),
        text("group"),
        text("agent"),
        text("way"),
        text("since")
    );
    if let Some(load) = node["load"].as_object() {
        let number = |key: &str| load[key].as_f64().unwrap_or_default();
        let slow = load["p99_ms"].as_f64().map_or(String::new(), |ms| format!("  99 % within {ms:.0} ms"));
        let (rate, failed) = (number("requests_per_second"), number("failed_percent"));
        let _ = writeln!(out, "    {rate:.1} requests/s  {failed:.1} % failed{slow}");
    }
    for (kind, of) in node["kinds"].as_object().into_iter().flatten() {
        let _ = writeln!(out, "    {kind}  told {}  acked {}", of["told"], of["acked"]);
        for line in of["nack"].as_str().into_iter().flat_map(str::lines) {
            let _ = writeln!(out, "      refused: {line}");
        }
    }
}

fn events(mut after: u64, follow: bool, remote: &Remote) -> Done {
    let client = Client::new(remote)?;
    if !follow {
        loop {
            let page = client.get(&format!("/v1/events?after={after}"))?;
            let Some(page) = page.as_array().filter(|page| !page.is_empty()) else { return Ok(()) };
            for event in page {
                after = event["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or(after + 1);
                print(&format!("{event}\n"))?;
            }
        }
    }
    for line in client.follow(&format!("/v1/events?after={after}"))?.lines() {
        let line = line.map_err(|error| format!("the control plane is away: {error}"))?;
        if let Some(event) = line.strip_prefix("data: ") {
            print(&format!("{event}\n"))?;
        }
    }
    Ok(())
}

fn print(text: &str) -> Done {
    // A reader that has seen enough (`| head`) is no failure.
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Ok(())
}
