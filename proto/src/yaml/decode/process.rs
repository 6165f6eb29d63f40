//! Settings of the process: `workers`, `admin`, `shutdown`, `access_log`, `overload`, `privileges`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;

use super::super::cursor::{Cx, Fields};
use super::super::fault::{Fault, nearest, show};
use super::super::ratio;
use super::super::tree::{Node, View};
use super::{address, control, count, duration};
use crate::model::{
    AccessLog, Admin, LogFormat, LogTarget, Overload, Percent, Privileges, Process, Root, Shutdown, User,
};

/// More threads than any machine has CPUs is a slip of the pen.
pub(in super::super) const MAX_WORKERS: u64 = 1024;

pub(super) fn process(m: &mut Fields<'_, '_>) -> Process {
    Process {
        workers: m.optional("workers", workers),
        admin: m.optional("admin", admin).unwrap_or_default(),
        shutdown: m.optional("shutdown", shutdown).unwrap_or_default(),
        access_log: m.optional("access_log", access_log).flatten(),
        overload: m.optional("overload", overload).unwrap_or_default(),
        privileges: m.optional("privileges", privileges).unwrap_or_default(),
        control: control::control(m).map(Box::new),
    }
}

fn workers<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<NonZeroUsize> {
    let n = cx.whole(node, 1, MAX_WORKERS)?;
    NonZeroUsize::new(usize::try_from(n).ok()?)
}

fn admin<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Admin> {
    if let View::Plain(text @ ("off" | "none" | "false" | "disabled")) = node.view() {
        let fault = Fault::new(format!("the admin interface cannot be turned off, found {}", show(text)));
        return cx
            .fail(node, fault.hint("bind it to `unix:/path`, which only those reach who may open the file"));
    }
    Some(Admin { address: address(cx, node)?, written: true })
}

fn shutdown<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Shutdown> {
    let default = Shutdown::default();
    let mut m = cx.fields(node, "shutdown")?;
    let lame_duck = m.optional("lame_duck", duration).unwrap_or(default.lame_duck);
    let quiet = m.optional("quiet", duration).unwrap_or(default.quiet);
    let deadline = m.optional("deadline", duration).unwrap_or(default.deadline);
    m.finish();
    Some(Shutdown { lame_duck, quiet, deadline })
}

fn privileges<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Privileges> {
    let mut m = cx.fields(node, "privileges")?;
    let user =
        m.optional("user", |cx, node| cx.parsed(node, "a user's name, or `uid:gid`, as `65532:65532`", user));
    let roots = [("warn", Root::Warn), ("refuse", Root::Refuse), ("allow", Root::Allow)];
    let root = m.optional("root", |cx, node| cx.word(node, &roots)).unwrap_or_default();
    // What was to be given up would be kept.
    let wrong = m.has("user") && user.is_none();
    m.finish();
    (!wrong).then_some(Privileges { user, root })
}

fn user(text: &str) -> Result<User, Fault> {
    let expected = "expected a user's name, or `uid:gid`, as `65532:65532`";
    let root = || {
        Fault::new("root gives up nothing by becoming root").hint("to stay root, write `root: allow` instead")
    };
    if let Some((uid, gid)) = text.split_once(':') {
        let number = |text: &str| {
            // The highest means nobody to the kernel, and changes nothing.
            let number = text.parse::<u32>().ok().filter(|number| *number != u32::MAX);
            let number = number.ok_or_else(|| {
                Fault::new(format!("{} is not the number of a user or a group", show(text))).hint(expected)
            })?;
            NonZeroU32::new(number).ok_or_else(root)
        };
        return Ok(User::Ids { uid: number(uid)?, gid: number(gid)? });
    }
    match text {
        "root" => Err(root()),
        number if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(Fault::new("the group is missing").hint(expected))
        }
        name if name.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            Err(Fault::new(format!("{} is not a user's name", show(name))).hint(expected))
        }
        name => Ok(User::Name(name.into())),
    }
}

/// `None` for an error, `Some(None)` for no log.
#[expect(clippy::option_option, reason = "the outer one is the decoders' way to say that an error was noted")]
fn access_log<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Option<AccessLog>> {
    if matches!(node.view(), View::Plain(_) | View::Quoted(_)) {
        let text = cx.scalar(node, "`none`, or a mapping, as `{ format: json, to: stdout }`")?.text;
        if text == "none" {
            return Some(None);
        }
        let fault = Fault::new(format!("{} does not say how to log", show(&text)));
        return cx.fail(node, fault.hint("expected `none`, or a mapping, as `{ format: json, to: stdout }`"));
    }
    let mut m = cx.fields(node, "access_log")?;
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = m.optional("format", |cx, node| cx.word(node, &formats));
    let to = m.optional("to", log_target);
    m.finish();
    Some(Some(AccessLog { format: format.unwrap_or(LogFormat::Text), to: to.unwrap_or(LogTarget::Stdout) }))
}

/// A file is written with a `/`, so that `stdot` is an error and not the name of a file.
fn log_target<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<LogTarget> {
    let text = cx.string(node, "`stdout`, `stderr` or a file's path")?;
    match &*text {
        "stdout" => Some(LogTarget::Stdout),
        "stderr" => Some(LogTarget::Stderr),
        path if path.contains('/') && !path.ends_with('/') => {
            let inside = path.strip_prefix("./").map_or(Path::new(path), Path::new);
            Some(LogTarget::File(cx.base.join(inside)))
        }
        other => {
            let fault =
                Fault::new(format!("{} is neither `stdout`, `stderr` nor a file's path", show(other)));
            let hint = match nearest(other, ["stdout", "stderr"].into_iter()) {
                Some(near) => format!("did you mean `{near}`? A file beside this one is written `./{other}`"),
                None => format!("a file beside this one is written `./{other}`"),
            };
            cx.fail(node, fault.hint(hint))
        }
    }
}

fn overload<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Overload> {
    let default = Overload::default();
    let mut m = cx.fields(node, "overload")?;
    let memory = m.optional("memory", or_none(share)).unwrap_or(default.memory);
    let descriptors = m.optional("descriptors", or_none(share)).unwrap_or(default.descriptors);
    let connections = m.optional("connections", or_none(connections)).unwrap_or(default.connections);
    m.finish();
    Some(Overload { memory, descriptors, connections })
}

/// `none`, or what `decode` reads.
fn or_none<'a, T>(
    decode: impl FnOnce(&mut Cx<'a>, Node<'a>) -> Option<T>,
) -> impl FnOnce(&mut Cx<'a>, Node<'a>) -> Option<Option<T>> {
    |cx, node| match is_none(cx, node) {
        true => Some(None),
        false => decode(cx, node).map(Some),
    }
}

/// A variable may say it too; what is wrong with one is said when it is read as a value.
fn is_none(cx: &Cx<'_>, node: Node<'_>) -> bool {
    match node.view() {
        View::Plain(text) | View::Quoted(text) => cx.expands_to(text, "none"),
        View::List | View::Map | View::Broken => false,
    }
}

fn share<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Percent> {
    cx.parsed(node, "a percentage, as `90%`, or `none`", |text| match ratio::percent(text)? {
        Percent::ZERO => {
            Err(Fault::new("of nothing, all would be shed").hint("write `none` to watch nothing"))
        }
        share => Ok(share),
    })
}

fn connections<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<NonZeroU32> {
    count(cx, node, u32::MAX)
}
