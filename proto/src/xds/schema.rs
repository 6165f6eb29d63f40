//! What there is of each message, by field number: made at build time of `proto/*.proto`, and of `proto/upstream.txt`.

/// A message of the subset.
#[derive(Debug)]
pub(super) struct Message {
    /// Its full name.
    pub(super) name: &'static str,
    /// That again, where it is accepted and has no effect.
    pub(super) ignored: Option<&'static str>,
    /// What is honoured.
    pub(super) fields: &'static [Field],
    /// What upstream has beside that.
    pub(super) absent: &'static [Absent],
}

/// A field that is honoured.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) many: bool,
    pub(super) kind: Kind,
    /// Its full name, where it is accepted and has no effect.
    pub(super) ignored: Option<&'static str>,
}

/// A field that is not.
#[derive(Debug)]
pub(super) struct Absent {
    pub(super) number: u32,
    pub(super) name: &'static str,
    /// Its full name, where it may be there: no request is treated otherwise for it.
    pub(super) ignored: Option<&'static str>,
}

/// What a field holds.
#[derive(Debug)]
pub(super) enum Kind {
    /// A number or a truth value.
    Varint,
    /// One of these numbers.
    Enum(&'static [i32]),
    /// Four bytes.
    Fixed32,
    /// Eight bytes.
    Fixed64,
    /// A text, or bytes.
    Bytes,
    /// A message, by its place among all.
    Message(usize),
    /// A message of any type.
    Any,
}

include!(concat!(env!("OUT_DIR"), "/schema.rs"));

impl Message {
    /// By its full name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        MESSAGES.iter().find(|message| message.name == name)
    }
}
