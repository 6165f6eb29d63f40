//! Tokens: of whoever may change something, and by which nodes say who they are.

use std::fmt::Write as _;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::Client;
use super::{Done, DryRun, Remote, ended, print};

#[derive(Debug, Subcommand)]
pub(super) enum TokenVerb {
    /// Make a token, and print it, once
    Create {
        /// Whose it is
        name: String,
        #[command(flatten)]
        dry: DryRun,
        #[command(flatten)]
        remote: Remote,
    },
    /// Make a token by which a node says who it is, and print it, once
    Join {
        /// Who it is, as `spiffe://example.org/ns/default/sa/web`
        spiffe_id: String,
        /// Hours for which it can be shown
        #[arg(long, default_value_t = 720, value_parser = clap::value_parser!(u64).range(1..=87_600))]
        hours: u64,
        /// It is good for one certificate; later ones are asked for with that one, over TLS
        #[arg(long)]
        once: bool,
        #[command(flatten)]
        dry: DryRun,
        #[command(flatten)]
        remote: Remote,
    },
    /// Which join tokens there are
    Joins {
        #[command(flatten)]
        remote: Remote,
    },
    /// Take a join token back: neither it nor a certificate that goes back to it leads to another one
    Unjoin {
        /// Its id, as `joins` shows it
        id: String,
        #[command(flatten)]
        dry: DryRun,
        #[command(flatten)]
        remote: Remote,
    },
    /// Whose tokens there are
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Forget the tokens of a name
    Revoke {
        /// Whose
        name: String,
        #[command(flatten)]
        dry: DryRun,
        #[command(flatten)]
        remote: Remote,
    },
}

pub(super) fn run(verb: TokenVerb) -> Done {
    match verb {
        TokenVerb::Create { name, dry, remote } => {
            let body = json!({ "name": name });
            made(Client::new(&remote)?.post(&dry.of("/v1/tokens"), &body)?, &remote)
        }
        TokenVerb::Join { spiffe_id, hours, once, dry, remote } => {
            let body = json!({ "spiffe_id": spiffe_id, "lifetime_seconds": hours * 3600, "once": once });
            made(Client::new(&remote)?.post(&dry.of("/v1/join-tokens"), &body)?, &remote)
        }
        TokenVerb::List { remote } => list(&remote),
        TokenVerb::Joins { remote } => joins(&remote),
        TokenVerb::Unjoin { id, dry, remote } => {
            ended(Client::new(&remote)?.delete(&dry.of(&format!("/v1/join-tokens/{id}")))?, &remote)
        }
        TokenVerb::Revoke { name, dry, remote } => {
            ended(Client::new(&remote)?.delete(&dry.of(&format!("/v1/tokens/{name}")))?, &remote)
        }
    }
}

/// Prints a token, or what was only said of it.
fn made(answer: Value, remote: &Remote) -> Done {
    match answer["token"].as_str() {
        Some(token) => print(&format!("{token}\n")),
        None => ended(Some(answer), remote),
    }
}

fn list(remote: &Remote) -> Done {
    let answer = Client::new(remote)?.get("/v1/tokens")?;
    let lines = answer.as_array().into_iter().flatten().map(|token| {
        let text = |key: &str| token[key].as_str().unwrap_or_default();
        format!("{}  since {}\n", text("name"), text("created"))
    });
    print(&lines.collect::<String>())
}

fn joins(remote: &Remote) -> Done {
    let answer = Client::new(remote)?.get("/v1/join-tokens")?;
    if remote.json {
        return print(&format!("{answer:#}\n"));
    }
    let mut out = String::new();
    for join in answer.as_array().into_iter().flatten() {
        let text = |key: &str| join[key].as_str();
        let once = if join["once"] == true { "  once" } else { "" };
        let used = text("lives_until").map(|until| format!("  in use until {until}")).unwrap_or_default();
        let revoked = text("revoked").map(|since| format!("  taken back {since}")).unwrap_or_default();
        let _ = writeln!(
            out,
            "{}  {}  since {}  until {}{once}{used}{revoked}",
            text("id").unwrap_or_default(),
            text("spiffe_id").unwrap_or_default(),
            text("created").unwrap_or("-"),
            text("expires").unwrap_or_default(),
        );
    }
    print(&out)
}
