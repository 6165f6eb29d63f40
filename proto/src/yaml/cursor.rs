//! Walking a document while every error is collected.
//!
//! A decoder takes the [`Cx`] and a node. `None` means that what was wrong is already among the errors, so a decoder
//! reads all its fields before it gives up. [`Fields`] notes which keys were asked for: what is left over is unknown.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::decode::Known;
use super::expand::{Env, Expanded, expand};
use super::fault::{Fault, show};
use super::place::{Step, render};
use super::scalar::{self, Core, core};
use super::tree::{Node, View};
use crate::error::{ConfigError, Place};
use crate::model::{Holds, Name};

/// What decoders share.
pub(super) struct Cx<'a> {
    env: Env<'a>,
    /// The directory that file paths are relative to.
    pub(super) base: &'a Path,
    /// The clusters of the document, and whether anything leads to them.
    pub(super) clusters: HashMap<Name, bool>,
    /// The subsets of each cluster that has any, and whether anything leads to them.
    pub(super) subsets: HashMap<Name, BTreeMap<Name, bool>>,
    /// Whether the clusters could be read; when not, references to them are not complained of as well.
    pub(super) clusters_known: bool,
    /// The route tables of the document, and whether a listener uses them.
    pub(super) tables: HashMap<Name, bool>,
    /// What the proxy can prove, and whose proofs it can check.
    pub(super) identity: Known,
    /// The control plane's secrets that may be named.
    pub(super) secrets: Secrets<'a>,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<ConfigError>,
    steps: Vec<Step<'a>>,
    suggestions: u32,
}

/// Secrets that a document may name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Secrets<'a> {
    /// None: it is a proxy's own, and names files.
    None,
    /// Any: which there are is not known here.
    Any,
    /// These.
    These(&'a BTreeMap<Name, Holds>),
}

/// The text of a scalar, and what its YAML type is known by.
pub(super) struct Scalar<'a> {
    pub(super) text: Cow<'a, str>,
    style: Style,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Quoted,
    /// It came out of a variable, and is whatever is wanted in its place.
    Substituted,
}

/// Looking for a near name among ten thousand takes time, and nobody reads that many hints.
const MAX_SUGGESTIONS: u32 = 32;

impl<'a> Cx<'a> {
    pub(super) fn new(base: &'a Path, env: Env<'a>) -> Self {
        Self {
            env,
            base,
            clusters: HashMap::new(),
            subsets: HashMap::new(),
            clusters_known: true,
            tables: HashMap::new(),
            identity: Known::Nobody,
            secrets: Secrets::None,
            errors: Vec::new(),
            warnings: Vec::new(),
            steps: Vec::new(),
            suggestions: MAX_SUGGESTIONS,
        }
    }

    /// Notes an error about a value. Always `None`, so that a decoder can end with it.
    pub(super) fn fail<T>(&mut self, node: Node<'a>, fault: Fault) -> Option<T> {
        self.fail_at(node.place(), fault)
    }

    pub(super) fn fail_at<T>(&mut self, place: Place, fault: Fault) -> Option<T> {
        let error = self.located(place, fault);
        self.errors.push(error);
        None
    }

    pub(super) fn warn_at(&mut self, place: Place, fault: Fault) {
        let warning = self.located(place, fault);
        self.warnings.push(warning);
    }

    fn located(&self, place: Place, Fault { problem, hint }: Fault) -> ConfigError {
        ConfigError { place: Some(place), path: render(self.steps.iter().copied()), problem, hint }
    }

    /// Runs `f` one step further down, so that its errors say where they are.
    pub(super) fn within<T>(&mut self, step: Step<'a>, f: impl FnOnce(&mut Self) -> T) -> T {
        self.steps.push(step);
        let out = f(self);
        self.steps.pop();
        out
    }

    /// Runs `f` several steps further down.
    pub(super) fn within_all<T>(&mut self, steps: &[Step<'a>], f: impl FnOnce(&mut Self) -> T) -> T {
        let above = self.steps.len();
        self.steps.extend_from_slice(steps);
        let out = f(self);
        self.steps.truncate(above);
        out
    }

    /// Whether another search for a near name may be paid for.
    pub(super) fn may_suggest(&mut self) -> bool {
        self.suggestions = self.suggestions.saturating_sub(1);
        self.suggestions > 0
    }

    /// An environment variable that says something.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        self.env.and_then(|env| env(name)).filter(|value| !value.is_empty())
    }

    /// Whether a text is this one, once its variables are replaced.
    pub(super) fn expands_to(&self, text: &str, wanted: &str) -> bool {
        match expand(text, self.env) {
            Ok(Expanded::Same) => text == wanted,
            Ok(Expanded::Unescaped(text) | Expanded::Substituted(text)) => text == wanted,
            Err(_) => false,
        }
    }

    /// A scalar with its variables replaced, whatever its type; null is none.
    pub(super) fn scalar(&mut self, node: Node<'a>, expected: &str) -> Option<Scalar<'a>> {
        let (text, style) = match node.view() {
            View::Plain(text) if core(text) == Core::Null => return self.unlike(node, expected),
            View::Plain(text) => (text, Style::Plain),
            View::Quoted(text) => (text, Style::Quoted),
            View::List | View::Map => return self.unlike(node, expected),
            View::Broken => return None,
        };
        match expand(text, self.env) {
            Ok(Expanded::Same) => Some(Scalar { text: text.into(), style }),
            Ok(Expanded::Unescaped(text)) => Some(Scalar { text: text.into(), style }),
            Ok(Expanded::Substituted(text)) => Some(Scalar { text: text.into(), style: Style::Substituted }),
            Err(fault) => self.fail(node, fault),
        }
    }

    /// A string. What YAML reads as a number or a boolean is refused: tools would not agree about its text.
    pub(super) fn string(&mut self, node: Node<'a>, expected: &str) -> Option<Cow<'a, str>> {
        let Scalar { text, style } = self.scalar(node, expected)?;
        let kind = match core(&text) {
            _ if style != Style::Plain => return Some(text),
            Core::Str => return Some(text),
            Core::Bool => "boolean",
            Core::Int | Core::Float => "number",
            Core::Null => "null",
        };
        let problem = format!("found the {kind} {}, expected {expected}", show(&text));
        self.fail(node, Fault::new(problem).hint(format!("write it in quotes: `\"{text}\"`")))
    }

    /// A scalar whose text `parse` understands, whether YAML calls it a number or a string.
    pub(super) fn parsed<T>(
        &mut self,
        node: Node<'a>,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        let scalar = self.scalar(node, expected)?;
        match parse(&scalar.text) {
            Ok(value) => Some(value),
            Err(fault) => self.fail(node, fault),
        }
    }

    /// A number from `least` to `most`.
    pub(super) fn whole(&mut self, node: Node<'a>, least: u64, most: u64) -> Option<u64> {
        let expected = format!("a whole number from {least} to {most}");
        let Scalar { text, style } = self.scalar(node, &expected)?;
        if style == Style::Quoted {
            let fault = Fault::new(format!("found the text {}, expected {expected}", show(&text)));
            return self.fail(node, fault.hint("write it without quotes"));
        }
        match scalar::whole(&text) {
            Ok(n) if (least..=most).contains(&n) => Some(n),
            Ok(n) => self.fail(
                node,
                Fault::new(format!("`{n}` is out of range")).hint(format!("expected {expected}")),
            ),
            Err(fault) => self.fail(node, fault.hint(format!("expected {expected}"))),
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, node: Node<'a>) -> Option<bool> {
        let Scalar { text, style } = self.scalar(node, "`true` or `false`")?;
        match scalar::boolean(&text) {
            Some(value) if style != Style::Quoted => Some(value),
            _ => {
                let meant = match text.to_ascii_lowercase().as_str() {
                    "true" | "on" | "yes" | "y" | "1" => "did you mean `true`?",
                    "false" | "off" | "no" | "n" | "0" => "did you mean `false`?",
                    _ => "expected `true` or `false`",
                };
                let fault = Fault::new(format!("the text {} is not a boolean", show(&text)));
                self.fail(node, fault.hint(meant))
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Clone>(&mut self, node: Node<'a>, words: &[(&'static str, T)]) -> Option<T> {
        let expected = words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let text = self.scalar(node, &format!("one of {expected}"))?.text;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(value.clone());
        }
        let fault = Fault::new(format!("{} is not known here", show(&text)));
        self.fail(node, fault.choice(&text, words.iter().map(|(word, _)| *word), "expected one of"))
    }

    /// Every value of a list.
    pub(super) fn list<T>(
        &mut self,
        node: Node<'a>,
        expected: &str,
        mut f: impl FnMut(&mut Self, Node<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        match node.view() {
            View::List => {}
            View::Plain(_) | View::Quoted(_) | View::Map => return self.unlike(node, expected),
            View::Broken => return None,
        }
        let mut out = Vec::with_capacity(node.len());
        for (index, item) in node.items().enumerate() {
            out.extend(self.within(Step::Item(index), |cx| f(cx, item)));
        }
        (out.len() == node.len()).then_some(out)
    }

    /// One value, or a list of at least one.
    pub(super) fn one_or_more<T>(
        &mut self,
        node: Node<'a>,
        expected: &str,
        mut f: impl FnMut(&mut Self, Node<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        match node.view() {
            View::List if node.len() == 0 => {
                self.fail(node, Fault::new("the list is empty").hint("leave the key out"))
            }
            View::List => self.list(node, expected, f),
            View::Map => self.unlike(node, expected),
            View::Plain(_) | View::Quoted(_) => Some(vec![f(self, node)?]),
            View::Broken => None,
        }
    }

    /// Every entry of a mapping whose keys are names of the writer's own.
    pub(super) fn entries<T>(
        &mut self,
        node: Node<'a>,
        expected: &str,
        mut f: impl FnMut(&mut Self, &'a str, Place, Node<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        match node.view() {
            View::Map => {}
            View::Plain(_) | View::Quoted(_) | View::List => return self.unlike(node, expected),
            View::Broken => return None,
        }
        let mut out = Vec::with_capacity(node.len());
        for entry in node.entries() {
            out.extend(self.within(Step::Key(entry.key), |cx| f(cx, entry.key, entry.place, entry.value)));
        }
        (out.len() == node.len()).then_some(out)
    }

    /// The fields of a mapping whose keys are ours. `kind` is its name in the schema.
    pub(super) fn fields<'c>(&'c mut self, node: Node<'a>, kind: &'static str) -> Option<Fields<'c, 'a>> {
        match node.view() {
            View::Map => Some(Fields { cx: self, node, kind, asked: Vec::with_capacity(8) }),
            View::Plain(_) | View::Quoted(_) | View::List => self.unlike(node, "a mapping, as `key: value`"),
            View::Broken => None,
        }
    }

    /// Says that a value is of another kind than it should be.
    pub(super) fn unlike<T>(&mut self, node: Node<'a>, expected: &str) -> Option<T> {
        let found = match node.view() {
            View::Broken => return None,
            View::List => "a list".to_owned(),
            View::Map => "a mapping".to_owned(),
            View::Quoted(text) => format!("the text {}", show(text)),
            View::Plain(text) => match core(text) {
                Core::Null if text.is_empty() => "nothing".to_owned(),
                Core::Null => "null".to_owned(),
                Core::Bool => format!("the boolean {}", show(text)),
                Core::Int | Core::Float => format!("the number {}", show(text)),
                Core::Str => format!("the text {}", show(text)),
            },
        };
        self.fail(node, Fault::new(format!("found {found}")).hint(format!("expected {expected}")))
    }
}

/// A mapping while its fields are read.
pub(super) struct Fields<'c, 'a> {
    pub(super) cx: &'c mut Cx<'a>,
    node: Node<'a>,
    kind: &'static str,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'_, 'a> {
    /// Whether a key was written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.node.get(key).is_some()
    }

    /// A field that may be left out: `None` when it was, or when it was wrong.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        decode: impl FnOnce(&mut Cx<'a>, Node<'a>) -> Option<T>,
    ) -> Option<T> {
        self.ask(key);
        let entry = self.node.get(key)?;
        self.cx.within(Step::Key(entry.key), |cx| decode(cx, entry.value))
    }

    /// A field that must be written.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        decode: impl FnOnce(&mut Cx<'a>, Node<'a>) -> Option<T>,
    ) -> Option<T> {
        if !self.has(key) {
            self.ask(key);
            return self.cx.fail(self.node, Fault::new(format!("`{key}` is missing")));
        }
        self.optional(key, decode)
    }

    /// Requires exactly one of these keys.
    pub(super) fn exactly_one(&mut self, keys: &[&'static str]) {
        let written = self.node.entries().filter(|entry| keys.contains(&entry.key));
        let mut written = written.map(|entry| (entry.key, entry.place));
        let all = || keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        match (written.next(), written.next()) {
            (None, _) => {
                self.cx.fail::<()>(self.node, Fault::new(format!("one of {} is missing", all())));
            }
            (Some((first, _)), Some((second, place))) => {
                let fault = Fault::new(format!("`{first}` and `{second}` exclude each other"));
                self.cx.fail_at::<()>(place, fault.hint(format!("expected exactly one of {}", all())));
            }
            (Some(_), None) => {}
        }
    }

    /// Refuses a key that means nothing here, when it was written.
    pub(super) fn refuse(&mut self, key: &'static str, fault: impl FnOnce() -> Fault) {
        if let Some(entry) = self.node.get(key) {
            self.cx.within(Step::Key(entry.key), |cx| cx.fail_at::<()>(entry.place, fault()));
        }
    }

    /// Reports every key that was not asked for.
    pub(super) fn finish(self) {
        let Self { cx, node, kind, asked } = self;
        for entry in node.entries().filter(|entry| !asked.contains(&entry.key)) {
            let fault = Fault::new(format!("there is no such key in `{kind}`"));
            let fault = fault.choice(entry.key, asked.iter().copied(), "expected one of");
            cx.within(Step::Key(entry.key), |cx| cx.fail_at::<()>(entry.place, fault));
        }
    }

    /// Makes it a key that may be written, which nothing may come of.
    pub(super) fn ask(&mut self, key: &'static str) {
        #[cfg(test)]
        asked::note(self.kind, key);
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
    }
}

/// Which keys the decoders of this thread asked for, by kind: what the schema is held against.
#[cfg(test)]
pub(super) mod asked {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    thread_local! {
        static ASKED: RefCell<BTreeSet<(&'static str, &'static str)>> = const { RefCell::new(BTreeSet::new()) };
    }

    pub(super) fn note(kind: &'static str, key: &'static str) {
        ASKED.with_borrow_mut(|asked| asked.insert((kind, key)));
    }

    pub(in crate::yaml) fn take() -> BTreeSet<(&'static str, &'static str)> {
        ASKED.take()
    }
}
