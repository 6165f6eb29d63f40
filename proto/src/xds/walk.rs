//! A look at a message's raw bytes, before it is decoded: what decoding drops without a word (fields that are not honoured,
//! numbers that nobody knows, values without a name, messages of other types) is found here, each with its path; and what is
//! accepted without effect, each by its name.

use std::fmt;

use super::schema::{Kind, MESSAGES, Message};
use crate::error::ConfigError;

/// Messages within messages; deeper ones are not looked at, and refused.
const DEEPEST: usize = 48;
/// Errors of one resource; more say nothing new.
const MOST: usize = 50;

const OPTIONAL_FILTERS: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter";
/// What a route says of one.
const OPTIONAL_CONFIGS: &str = "envoy.config.route.v3.FilterConfig";
/// What travels beside a resource, by whose it is.
const NOTES: &str = "envoy.config.core.v3.Metadata.TypedFilterMetadataEntry";

/// Where it is one of several ways, of which the first that is known is taken.
const WAYS: (&str, &str) = ("envoy.config.core.v3.TypedExtensionConfig", "typed_extension_config");

/// The same, of no type of its own: labels, which endpoints are told apart by, and nothing else is.
const LABELS: &str = "envoy.config.core.v3.Metadata.FilterMetadataEntry";

/// Where something stands, from the inside out.
#[derive(Clone, Copy)]
struct Path<'a> {
    above: Option<&'a Self>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    /// The resource, as `Cluster[cart]`.
    Resource(&'a str),
    /// A field.
    Field(&'a str),
    /// A field, and which of several.
    Item(&'a str, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above {
            write!(f, "{above}.")?;
        }
        match self.step {
            Step::Resource(name) | Step::Field(name) => f.write_str(name),
            Step::Item(name, index) => write!(f, "{name}[{index}]"),
        }
    }
}

/// A field as it stands in the bytes.
struct Raw<'b> {
    number: u32,
    value: Value<'b>,
}

#[derive(Clone, Copy)]
enum Value<'b> {
    Varint(u64),
    Fixed32,
    Fixed64,
    Bytes(&'b [u8]),
}

/// All that is not to be there in a message of this type, which is the resource `at`; and the names of what may be there and
/// has no effect, each once.
pub(super) fn check(type_name: &str, bytes: &[u8], at: &str) -> (Vec<ConfigError>, Vec<&'static str>) {
    let mut walk = Walk { errors: Vec::new(), ignored: Vec::new() };
    let path = Path { above: None, step: Step::Resource(at) };
    match Message::named(type_name) {
        Some(message) => walk.message(message, bytes, &path, 0),
        None => walk.fail(&path, format!("`{type_name}` is not supported")),
    }
    (walk.errors, walk.ignored)
}

/// The name of a resource that cannot be decoded: of all kinds it is the first field.
pub(super) fn name(bytes: &[u8]) -> Option<&str> {
    let mut rest = bytes;
    loop {
        if let Raw { number: 1, value: Value::Bytes(name) } = next(&mut rest)? {
            return std::str::from_utf8(name).ok();
        }
    }
}

/// A message without the messages below this field, and those. What is no message of protobuf stays with the rest.
pub(super) fn apart(bytes: &[u8], number: u32) -> (Vec<u8>, Vec<&[u8]>) {
    let (mut beside, mut below) = (Vec::new(), Vec::new());
    let mut rest = bytes;
    while !rest.is_empty() {
        let before = rest;
        match next(&mut rest) {
            Some(Raw { number: known, value: Value::Bytes(message) }) if known == number => {
                below.push(message)
            }
            Some(_) => beside.extend_from_slice(&before[..before.len() - rest.len()]),
            None => {
                beside.extend_from_slice(before);
                break;
            }
        }
    }
    (beside, below)
}

struct Walk {
    errors: Vec<ConfigError>,
    ignored: Vec<&'static str>,
}

impl Walk {
    fn fail(&mut self, path: &Path<'_>, problem: impl Into<String>) {
        if self.errors.len() < MOST {
            let (path, problem) = (path.to_string(), problem.into());
            self.errors.push(ConfigError { place: None, path, problem, hint: None });
        }
    }

    fn ignore(&mut self, name: Option<&'static str>) {
        if let Some(name) = name.filter(|name| !self.ignored.contains(name)) {
            self.ignored.push(name);
        }
    }

    fn message(&mut self, message: &'static Message, bytes: &[u8], path: &Path<'_>, depth: usize) {
        if depth > DEEPEST {
            return self.fail(path, "this is nested too deeply");
        }
        self.ignore(message.ignored);
        if message.name == LABELS && !is_chosen_by(bytes, path) {
            self.ignore(Some("envoy.config.core.v3.Metadata.filter_metadata"));
        }
        let passes_over = passed_over_as(message, bytes, path);
        let mut counts: Vec<(u32, usize)> = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(Raw { number, value }) = next(&mut rest) else {
                return self.fail(path, "this is not a message of protobuf");
            };
            let Some(field) = message.fields.iter().find(|field| field.number == number) else {
                self.absent(message, number, path);
                continue;
            };
            self.ignore(field.ignored);
            let step = if field.many {
                let place = counts.iter().position(|(known, _)| *known == number).unwrap_or_else(|| {
                    counts.push((number, 0));
                    counts.len() - 1
                });
                let (_, count) = &mut counts[place];
                *count += 1;
                Step::Item(field.name, *count - 1)
            } else {
                Step::Field(field.name)
            };
            let path = Path { above: Some(path), step };
            match (&field.kind, value) {
                (Kind::Varint, Value::Varint(_)) => {}
                (Kind::Enum(known), Value::Varint(number)) => {
                    // As protobuf has it: of a number that is too long the low 32 bits count.
                    let number = number as u32 as i32;
                    if !known.contains(&number) {
                        self.fail(&path, format!("the value {number} is not known"));
                    }
                }
                (Kind::Fixed32, Value::Fixed32) | (Kind::Fixed64, Value::Fixed64) => {}
                (Kind::Bytes, Value::Bytes(_)) => {}
                // Of numbers several may stand together.
                (Kind::Varint | Kind::Enum(_) | Kind::Fixed32 | Kind::Fixed64, Value::Bytes(_))
                    if field.many => {}
                (Kind::Message(index), Value::Bytes(bytes)) => {
                    self.message(&MESSAGES[*index], bytes, &path, depth + 1);
                }
                (Kind::Any, Value::Bytes(bytes)) => self.any(bytes, &path, (depth + 1, passes_over)),
                (_, _) => self.fail(&path, "this is of another type than the field"),
            }
        }
    }

    fn absent(&mut self, message: &Message, number: u32, path: &Path<'_>) {
        match message.absent.iter().find(|absent| absent.number == number) {
            Some(absent) if absent.ignored.is_some() => self.ignore(absent.ignored),
            Some(absent) => {
                self.fail(&Path { above: Some(path), step: Step::Field(absent.name) }, "not supported")
            }
            None => {
                let step = format!("#{number}");
                self.fail(&Path { above: Some(path), step: Step::Field(&step) }, "a field that is not known");
            }
        }
    }

    /// A `google.protobuf.Any`: a type, and a message of it. One that is not known may be passed over under this name.
    fn any(&mut self, bytes: &[u8], path: &Path<'_>, (depth, passes_over): (usize, Option<&'static str>)) {
        let (mut url, mut value) = (&b""[..], &b""[..]);
        let mut rest = bytes;
        while !rest.is_empty() {
            match next(&mut rest) {
                Some(Raw { number: 1, value: Value::Bytes(bytes) }) => url = bytes,
                Some(Raw { number: 2, value: Value::Bytes(bytes) }) => value = bytes,
                Some(_) | None => return self.fail(path, "this is not a message of protobuf"),
            }
        }
        let url = String::from_utf8_lossy(url);
        let name = url.rsplit('/').next().unwrap_or_default();
        match Message::named(name) {
            Some(message) => self.message(message, value, path, depth),
            None if passes_over.is_some() => self.ignore(passes_over),
            None if name.is_empty() => self.fail(path, "the type is missing"),
            None => self.fail(path, format!("`{name}` is not supported")),
        }
    }
}

/// What a message of a type that is not known is passed over as, where one may be below this.
fn passed_over_as(message: &Message, bytes: &[u8], path: &Path<'_>) -> Option<&'static str> {
    let (is_passed_over, name) = match message.name {
        OPTIONAL_FILTERS => (
            is_passed_over(bytes, &[6, 7]),
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter.typed_config",
        ),
        OPTIONAL_CONFIGS => (is_passed_over(bytes, &[2]), "envoy.config.route.v3.FilterConfig.config"),
        NOTES => {
            (name(bytes) != Some(super::any::OURS), "envoy.config.core.v3.Metadata.typed_filter_metadata")
        }
        name if name == WAYS.0 => (
            matches!(path.step, Step::Field(field) if field == WAYS.1),
            "envoy.config.core.v3.TypedExtensionConfig.typed_config",
        ),
        _ => return None,
    };
    is_passed_over.then_some(name)
}

/// Whether endpoints are chosen by these labels: they are those of one, or of what leads to some.
fn is_chosen_by(bytes: &[u8], path: &Path<'_>) -> bool {
    let Some(beside) = path.above else { return false };
    match (beside.step, beside.above.map(|above| above.step)) {
        (Step::Field("metadata_match"), _) => true,
        (_, Some(Step::Item("lb_endpoints", _))) => name(bytes) == Some(super::cluster::LABELS),
        (Step::Resource(_) | Step::Field(_) | Step::Item(..), _) => false,
    }
}

/// Whether a filter of HTTP, or what is said of one, may be passed over where it is not known: by `is_optional`, or `disabled`.
fn is_passed_over(bytes: &[u8], fields: &[u32]) -> bool {
    let mut rest = bytes;
    let mut passed_over = false;
    while let Some(Raw { number, value }) = next(&mut rest) {
        if let Value::Varint(set) = value {
            passed_over |= set != 0 && fields.contains(&number);
        }
    }
    passed_over
}

/// Takes a field off the front; `None` where there is none.
fn next<'b>(bytes: &mut &'b [u8]) -> Option<Raw<'b>> {
    let tag = varint(bytes)?;
    let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0)?;
    let value = match tag & 7 {
        0 => Value::Varint(varint(bytes)?),
        1 => take(bytes, 8).map(|_| Value::Fixed64)?,
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            Value::Bytes(take(bytes, length)?)
        }
        5 => take(bytes, 4).map(|_| Value::Fixed32)?,
        // Groups, which proto3 has not.
        _ => return None,
    };
    Some(Raw { number, value })
}

fn take<'b>(bytes: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
