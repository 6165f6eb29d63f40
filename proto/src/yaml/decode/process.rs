//! Settings of the process: `workers`, `admin`, `overload`, `shutdown`, `access_log`.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::Path;

use super::super::cursor::{Cx, Fields};
use super::super::fault::{Fault, nearest, show};
use super::super::scalar;
use super::super::tree::{Node, View};
use super::{SIZE, address, duration};
use crate::model::{AccessLog, Admin, LogFormat, LogTarget, Overload, Process, Shutdown};

/// More threads than any machine has CPUs is a slip of the pen.
pub(in super::super) const MAX_WORKERS: u64 = 1024;
/// With less no process runs; what is smaller lacks its unit.
const MIN_MEMORY: u64 = 1 << 20;

pub(super) fn process(m: &mut Fields<'_, '_>) -> Process {
    Process {
        workers: m.optional("workers", workers),
        admin: m.optional("admin", admin).unwrap_or_default(),
        overload: m.optional("overload", overload).unwrap_or_default(),
        shutdown: m.optional("shutdown", shutdown).unwrap_or_default(),
        access_log: m.optional("access_log", access_log).flatten(),
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

fn overload<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<Overload> {
    let mut m = cx.fields(node, "overload")?;
    let memory = m.optional("memory", memory);
    m.finish();
    Some(Overload { memory })
}

fn memory<'a>(cx: &mut Cx<'a>, node: Node<'a>) -> Option<NonZeroU64> {
    cx.parsed(node, SIZE, |text| {
        NonZeroU64::new(scalar::size(text)?).filter(|bytes| bytes.get() >= MIN_MEMORY).ok_or_else(|| {
            Fault::new(format!("{} is out of range", show(text))).hint("expected at least `1MiB`")
        })
    })
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
