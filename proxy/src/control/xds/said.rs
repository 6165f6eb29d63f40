//! A resource as it was said, beside what it means: what is asked for again, and what is written to disk.

use std::time::Duration;

use outrigger_proto::xds::Kind;
use outrigger_proto::xds::discovery::{Any, Resource};

/// The words for a resource.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said<'a> {
    /// Its own; empty where only all of its kind have one.
    pub(super) version: &'a str,
    /// Its message, in bytes.
    pub(super) value: &'a [u8],
    /// Names that it was asked for by, beside its own.
    pub(super) aliases: &'a [String],
}

impl<'a> Said<'a> {
    /// How it was said incrementally.
    pub(super) fn of(resource: &'a Resource) -> Self {
        let value = resource.resource.as_ref().map_or(&[][..], |any| &any.value);
        Self { version: &resource.version, value, aliases: &resource.aliases }
    }
}

/// A resource, and how it was said.
#[derive(Debug)]
pub(super) struct Held<T> {
    pub(super) means: T,
    version: Box<str>,
    /// Empty where nobody will ask for it.
    value: Box<[u8]>,
}

impl<T: PartialEq> Held<T> {
    /// Without the value, unless somebody `keeps` it.
    pub(super) fn new(means: T, said: Said<'_>, keeps: bool) -> Self {
        let value = if keeps { said.value.into() } else { Box::default() };
        Self { means, version: said.version.into(), value }
    }

    /// Takes the place of another; whether it means something else. What means the same stays where it is.
    pub(super) fn replace(&mut self, new: Self) -> bool {
        let Self { means, version, value } = new;
        (self.version, self.value) = (version, value);
        let differs = self.means != means;
        if differs {
            self.means = means;
        }
        differs
    }
}

impl<T> Held<T> {
    /// Empty where it has none of its own.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// As it was said.
    pub(super) fn said(&self, kind: Kind, name: &str, ttl: Option<Duration>) -> Resource {
        let resource = Any { type_url: kind.url(), value: self.value.to_vec() };
        Resource {
            version: self.version.to_string(),
            resource: Some(resource),
            name: name.to_owned(),
            ttl: ttl.and_then(|ttl| ttl.try_into().ok()),
            aliases: Vec::new(),
        }
    }
}
