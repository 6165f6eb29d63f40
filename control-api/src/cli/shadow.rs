//! What is on trial, for whoever is to decide whether it is to come into force.

use std::fmt::Write as _;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::Client;
use super::{Done, DryRun, Reason, Remote, changed, ended, print, warn};

/// Nodes that are named; of more, how many there are.
const NAMED: usize = 10;

/// What is to become of what is on trial.
#[derive(Debug, Subcommand)]
pub(super) enum ShadowVerb {
    /// End it; nothing else changes
    End {
        #[command(flatten)]
        dry: DryRun,
        #[command(flatten)]
        remote: Remote,
    },
    /// Put it into force, as a new revision; refused if it would take back what was changed since it was written
    Promote {
        /// The number of the revision that is meant: refused if another is on trial
        revision: Option<u64>,
        /// Even if it takes back what was changed since it was written
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        remote: Remote,
    },
}

pub(super) fn run(verb: ShadowVerb) -> Done {
    match verb {
        ShadowVerb::End { dry, remote } => match Client::new(&remote)?.delete(&dry.of("/v1/shadow"))? {
            None => print("nothing is on trial any more\n"),
            would => ended(would, &remote),
        },
        ShadowVerb::Promote { revision, force, reason: Reason { message, dry_run }, remote } => {
            let body =
                json!({ "revision": revision, "message": message, "force": force, "dry_run": dry_run });
            changed(&Client::new(&remote)?.post("/v1/shadow/promote", &body)?, dry_run, &remote)
        }
    }
}

/// Says what became of what is to be tried.
pub(super) fn begun(answer: &Value, dry_run: bool, remote: &Remote) -> Done {
    let diff = answer["diff"].as_str().unwrap_or_default();
    if remote.json || dry_run || diff.is_empty() {
        return changed(answer, dry_run, remote);
    }
    warn(answer);
    let number = &answer["revision"];
    print(&format!("{diff}revision {number} is on trial: nothing changes, and `shadow` shows what would\n"))
}

/// Says of a revision that is shown whether it is one that never was in force.
pub(super) fn say_so(revision: &Value) {
    if revision["shadow"] == true {
        eprintln!("revision {} is a shadow: it is not in force by that", revision["number"]);
    }
}

/// What is on trial, and what would change.
pub(super) fn show(remote: &Remote) -> Done {
    let answer = Client::new(remote)?.get("/v1/shadow")?;
    if remote.json {
        return print(&format!("{answer:#}\n"));
    }
    let trial = &answer["on_trial"];
    if trial.is_null() {
        return print("nothing is on trial; `apply --shadow` puts something\n");
    }
    let (number, text) = (&trial["revision"], |key: &str| trial[key].as_str().unwrap_or_default());
    let mut out = format!(
        "revision {number} is on trial  {}  {}  {}\n",
        text("since"),
        text("author"),
        text("message")
    );
    nodes(trial, &mut out);
    listeners(trial, &mut out);
    differences(trial, &mut out);
    let promote = if let Some(revision) = trial["promoted"].as_u64() {
        format!("revision {revision} says the same and is being rolled out")
    } else if trial["current"] == true {
        format!("`shadow promote {number}` puts it into force")
    } else {
        format!(
            "revision {} was in force when it was written and is not any more: put it on trial anew before it is promoted",
            trial["before"]
        )
    };
    let _ = writeln!(out, "`diff {number}` shows what it says; {promote}; `shadow end` ends it");
    print(&out)
}

fn nodes(trial: &Value, out: &mut String) {
    let all = trial["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |state: &str| all.iter().filter(|node| node["state"] == state).collect::<Vec<_>>();
    let _ = writeln!(out, "nodes that say what would change: {}", of("follows").len());
    let why = [
        ("in-part", "that ask for routes on demand, and say it of connections alone (tcp)"),
        ("told", "that were told what is on trial, and have said nothing of it yet"),
        ("refuses", "that would refuse it, and say nothing more"),
        ("no-group", "that no group of it takes"),
        ("cannot", "that do not ask what is on trial"),
    ];
    for (state, why) in why {
        let nodes = of(state);
        if nodes.is_empty() {
            continue;
        }
        let names: Vec<_> = nodes.iter().take(NAMED).filter_map(|node| node["id"].as_str()).collect();
        let more = if nodes.len() > NAMED { ", ..." } else { "" };
        let _ = writeln!(out, "nodes {why}: {}: {}{more}", nodes.len(), names.join(", "));
        for node in nodes.iter().take(NAMED) {
            for line in node["refused"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                let _ = writeln!(out, "    {}: {line}", node["id"].as_str().unwrap_or_default());
            }
        }
    }
}

fn listeners(trial: &Value, out: &mut String) {
    let all = trial["listeners"].as_array().map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        return;
    }
    let _ = writeln!(out, "listeners that come, go or move, which no request tells of: {}", all.len());
    for row in all {
        let of = |key: &str| row[key].as_str().unwrap_or("nowhere");
        let _ = writeln!(
            out,
            "    {} of {}: {}, then {}",
            of("listener"),
            of("group"),
            of("in_force"),
            of("shadow")
        );
    }
}

fn differences(trial: &Value, out: &mut String) {
    let all = trial["differences"].as_array().map(Vec::as_slice).unwrap_or_default();
    let _ = writeln!(out, "requests that were held up against it: {}", trial["evaluated"]);
    if all.is_empty() && trial["others"] == 0 {
        out.push_str(if trial["evaluated"] == 0 { "" } else { "none of them would fare otherwise\n" });
        return;
    }
    let heads = ["REQUESTS", "NODES", "LISTENER", "NOW", "THEN", "FOR EXAMPLE"];
    let cell = |of: &Value| of.as_str().map_or_else(|| of.to_string(), str::to_owned);
    let keys = ["requests", "nodes", "listener", "in_force", "shadow", "example"];
    let rows = all.iter().map(|row| keys.map(|key| cell(&row[key])));
    let rows: Vec<_> = std::iter::once(heads.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let [requests, nodes, listener, now, then] = [0, 1, 2, 3, 4].map(width);
    for [a, b, c, d, e, f] in &rows {
        let _ = writeln!(out, "  {a:>requests$}  {b:>nodes$}  {c:listener$}  {d:now$}  {e:then$}  {f}");
    }
    if trial["others"] != 0 {
        let _ = writeln!(out, "and {} in other ways, which are not kept apart", trial["others"]);
    }
}
