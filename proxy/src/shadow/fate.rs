//! What becomes of a request or a connection, and whether two of these are the same to who asks. Compared as what it is; put
//! into words only where it differs, as that is rare.

use std::fmt::{self, Write as _};

use outrigger_proto::model::{
    Action, Destination, Forward, Name, PathMatch, PathRewrite, Redirect, Rewrite, Route, Split,
};

use crate::policy::authz::{Denial, Rules};
use crate::policy::jwt::JwtError;
use crate::routing::rewritten;

/// What becomes of a request, or of a connection whose bytes are passed on.
#[derive(Clone, Copy, Debug)]
pub enum Fate<'a> {
    /// No chain of the listener takes its connection.
    Closed,
    /// No route takes it.
    NoRoute,
    /// It has not shown whose it is.
    Unproven(Unproven),
    /// The rules refuse it.
    Denied(&'a Rules, Denial),
    /// Its connection's bytes are passed on.
    Bytes(&'a Split),
    /// Its connection is read as HTTP.
    Read,
    /// It goes where a route says.
    Follows(Follows<'a>),
}

/// Why a token, or its absence, keeps a request out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unproven {
    /// This is wrong.
    Error(JwtError),
    /// Perhaps nothing is: nobody looks at it in force.
    Unlooked,
}

/// A request that a route takes.
#[derive(Clone, Copy, Debug)]
pub struct Follows<'a> {
    /// The route.
    pub route: &'a Route,
    /// The service that is asked before, if one is.
    pub asks: Option<&'a Name>,
}

impl Fate<'_> {
    /// Whether who asks for `path` notices no difference. By which rule something is refused makes none, and neither does what
    /// a token lacks.
    pub fn is_like(&self, other: &Fate<'_>, path: &str) -> bool {
        match (self, other) {
            (Fate::Closed, Fate::Closed)
            | (Fate::NoRoute, Fate::NoRoute)
            | (Fate::Read, Fate::Read)
            | (Fate::Unproven(_), Fate::Unproven(_))
            | (Fate::Denied(..), Fate::Denied(..)) => true,
            (Fate::Bytes(one), Fate::Bytes(other)) => is_same_split(one, other),
            (Fate::Follows(one), Fate::Follows(other)) => {
                one.asks == other.asks && is_same_action(one.route, other.route, path)
            }
            (
                Fate::Closed
                | Fate::NoRoute
                | Fate::Read
                | Fate::Unproven(_)
                | Fate::Denied(..)
                | Fate::Bytes(_)
                | Fate::Follows(_),
                _,
            ) => false,
        }
    }

    /// Words for it, that tell it from what it is not like.
    pub fn words(&self, beside: &Fate<'_>) -> String {
        let mut out = String::new();
        // A String takes every write.
        let _ = self.write(beside, &mut out);
        out
    }

    fn write(&self, beside: &Fate<'_>, out: &mut String) -> fmt::Result {
        match self {
            Fate::Closed => out.write_str("closed: no chain takes it"),
            Fate::NoRoute => out.write_str("no route"),
            Fate::Unproven(Unproven::Error(JwtError::Missing)) => out.write_str("denied without a token"),
            Fate::Unproven(Unproven::Error(error)) => write!(out, "denied by its token: {}", error.reason()),
            Fate::Unproven(Unproven::Unlooked) => {
                out.write_str("up to its token, which nobody looks at in force")
            }
            Fate::Denied(rules, Denial::Rule(rule)) => write!(out, "denied by {}", rules.name(*rule)),
            Fate::Denied(_, Denial::Default) => out.write_str("denied: no rule allows it"),
            Fate::Bytes(split) => {
                out.write_str(if matches!(beside, Fate::Follows(_)) { "passed on as bytes " } else { "" })?;
                write_split(split, out)
            }
            Fate::Read => out.write_str("read as HTTP"),
            Fate::Follows(Follows { route, asks }) => {
                let other = match beside {
                    Fate::Follows(other) => Some(other),
                    Fate::Closed
                    | Fate::NoRoute
                    | Fate::Unproven(_)
                    | Fate::Denied(..)
                    | Fate::Bytes(_)
                    | Fate::Read => None,
                };
                write_action(route, other.map(|other| other.route), out)?;
                match asks {
                    Some(service) if other.is_some_and(|other| other.asks != *asks) => {
                        write!(out, ", if {service} lets it in")
                    }
                    Some(_) | None => Ok(()),
                }
            }
        }
    }
}

fn is_same_action(one: &Route, other: &Route, path: &str) -> bool {
    match (&one.action, &other.action) {
        (Action::Forward(to), Action::Forward(other_to)) => {
            is_same_split(&to.to, &other_to.to) && is_sent_alike((one, to), (other, other_to), path)
        }
        (Action::Redirect(one), Action::Redirect(other)) => one == other,
        (Action::Respond(one), Action::Respond(other)) => one == other,
        (Action::Forward(_) | Action::Redirect(_) | Action::Respond(_), _) => false,
    }
}

/// Whether the same share goes to each cluster, whatever the weights are relative to.
fn is_same_split(one: &Split, other: &Split) -> bool {
    let total = |split: &Split| split.targets.iter().map(|target| u64::from(target.weight.get())).sum();
    let (whole, other_whole): (u64, u64) = (total(one), total(other));
    let share = |split: &Split, to: &Destination| -> u64 {
        let all = split.targets.iter().filter(|target| target.to == *to);
        all.map(|target| u64::from(target.weight.get())).sum()
    };
    let is_same = |to: &Destination| {
        u128::from(share(one, to)) * u128::from(other_whole)
            == u128::from(share(other, to)) * u128::from(whole)
    };
    one.targets.iter().chain(&other.targets).all(|target| is_same(&target.to))
}

/// Whether the same path and the same host are sent on.
fn is_sent_alike((one, to): (&Route, &Forward), (other, other_to): (&Route, &Forward), path: &str) -> bool {
    let sent = |route| rewritten(route, path).ok().map(|sent| sent.unwrap_or(path.into()));
    let is_same_host = || to.rewrite.host == other_to.rewrite.host;
    is_rewritten_alike((one, to), (other, other_to)) || (is_same_host() && sent(one) == sent(other))
}

/// Whether both say the same of what is sent on, whatever the path.
fn is_rewritten_alike((one, to): (&Route, &Forward), (other, other_to): (&Route, &Forward)) -> bool {
    let cuts_as_much = || match (&one.matches.path, &other.matches.path) {
        (PathMatch::Prefix(one), PathMatch::Prefix(other)) => one.len() == other.len(),
        (PathMatch::Any | PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::Regex(_), _) => false,
    };
    let Rewrite { path, host: _ } = &to.rewrite;
    to.rewrite == other_to.rewrite
        && match path {
            None | Some(PathRewrite::Whole(_) | PathRewrite::Found(_)) => true,
            Some(PathRewrite::Prefix(_)) => cuts_as_much(),
        }
}

fn write_action(route: &Route, beside: Option<&Route>, out: &mut String) -> fmt::Result {
    match &route.action {
        Action::Forward(forward) => {
            write_split(&forward.to, out)?;
            match beside.map(|beside| &beside.action) {
                Some(Action::Forward(other))
                    if is_same_split(&forward.to, &other.to)
                        && beside.is_some_and(|b| !is_rewritten_alike((route, forward), (b, other))) =>
                {
                    write_rewrite(route, &forward.rewrite, out)
                }
                Some(Action::Forward(_) | Action::Redirect(_) | Action::Respond(_)) | None => Ok(()),
            }
        }
        Action::Redirect(Redirect { to, status }) => {
            write!(out, "redirect to {} ({})", String::from_utf8_lossy(to.as_bytes()), status.as_u16())
        }
        Action::Respond(respond) => {
            write!(out, "responds {}", respond.status.as_u16())?;
            match beside.map(|beside| &beside.action) {
                Some(Action::Respond(other)) if other.status == respond.status => {
                    write!(out, " with {:?}", Excerpt(&respond.body))
                }
                Some(Action::Forward(_) | Action::Redirect(_) | Action::Respond(_)) | None => Ok(()),
            }
        }
    }
}

/// Names what the configuration says, and not what a request makes of it: words must not be as many as there are paths.
fn write_rewrite(route: &Route, rewrite: &Rewrite, out: &mut String) -> fmt::Result {
    let Rewrite { path, host } = rewrite;
    let host = host.as_ref().map(|host| String::from_utf8_lossy(host.as_bytes()));
    let host = host.as_deref().unwrap_or_default();
    match (path, &route.matches.path) {
        (None, _) if host.is_empty() => out.write_str(" as it is"),
        (None, _) => write!(out, " as {host}"),
        (Some(PathRewrite::Whole(whole)), _) => write!(out, " as {host}{whole}"),
        (Some(PathRewrite::Found(replace)), _) => {
            write!(out, " as {host} with {:?} for {:?}", replace.with(), replace.pattern().as_str())
        }
        (Some(PathRewrite::Prefix(new)), PathMatch::Prefix(old)) => {
            write!(out, " as {host}{new}/* for {old}/*")
        }
        (Some(PathRewrite::Prefix(new)), PathMatch::Any | PathMatch::Exact(_) | PathMatch::Regex(_)) => {
            write!(out, " as {host}{new}/*")
        }
    }
}

fn write_split(split: &Split, out: &mut String) -> fmt::Result {
    match &*split.targets {
        [only] => write!(out, "to {}", only.to),
        several => {
            out.write_str("to a split of ")?;
            for (place, target) in several.iter().enumerate() {
                let separator = if place == 0 { "" } else { ", " };
                write!(out, "{separator}{} {}", target.to, target.weight)?;
            }
            Ok(())
        }
    }
}

/// As much of a text as is worth a line.
struct Excerpt<'a>(&'a str);

impl fmt::Debug for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 40;
        let shown: String = self.0.chars().take(MOST).collect();
        let more = if shown.len() < self.0.len() { "..." } else { "" };
        write!(f, "{shown:?}{more}")
    }
}
