//! What a translation carries with it: where it is, and what was wrong.

use std::fmt::Display;
use std::time::Duration;

use crate::error::ConfigError;

/// See the module.
#[derive(Debug)]
pub(super) struct Cx {
    /// The resource, and the fields that lead to where we are.
    path: String,
    errors: Vec<ConfigError>,
}

impl Cx {
    pub(super) fn new(at: String) -> Self {
        Self { path: at, errors: Vec::new() }
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors
    }

    /// Goes on below a field.
    pub(super) fn within<T>(&mut self, step: impl Display, f: impl FnOnce(&mut Self) -> T) -> T {
        let above = self.path.len();
        self.path += &format!(".{step}");
        let out = f(self);
        self.path.truncate(above);
        out
    }

    /// Every item of a list; `None` when one of them was wrong.
    pub(super) fn each<T, U>(
        &mut self,
        field: &str,
        items: Vec<T>,
        mut f: impl FnMut(&mut Self, T) -> Option<U>,
    ) -> Option<Vec<U>> {
        let mut out = Some(Vec::with_capacity(items.len()));
        for (index, item) in items.into_iter().enumerate() {
            let read = self.within(format_args!("{field}[{index}]"), |cx| f(cx, item));
            out = out.zip(read).map(|(mut out, read)| {
                out.push(read);
                out
            });
        }
        out
    }

    /// Says what is wrong with a field; with the message itself, where that is empty.
    pub(super) fn fail<T>(&mut self, field: &str, problem: impl Into<String>) -> Option<T> {
        let separator = if field.is_empty() { "" } else { "." };
        let path = format!("{}{separator}{field}", self.path);
        self.errors.push(ConfigError { place: None, path, problem: problem.into(), hint: None });
        None
    }

    /// A value that must be there.
    pub(super) fn required<T>(&mut self, field: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            return self.fail(field, "this is missing");
        }
        value
    }

    /// A time; `None` inside where none is written, or it is zero, which there means no limit.
    pub(super) fn time(
        &mut self,
        field: &str,
        time: Option<prost_types::Duration>,
    ) -> Option<Option<Duration>> {
        let Some(time) = time else { return Some(None) };
        match Duration::try_from(time) {
            Ok(Duration::ZERO) => Some(None),
            Ok(time) => Some(Some(time)),
            Err(_) => self.fail(field, "this is not a time that could pass"),
        }
    }
}
