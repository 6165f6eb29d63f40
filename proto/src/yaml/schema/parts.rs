//! What definitions are put together from.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::ratio::{show_percent, show_tenths};
use super::super::scalar::show_duration;
use crate::model::Percent;

pub(super) fn object(description: &str, required: &[&str], properties: Value) -> Value {
    json!({
        "type": "object",
        "description": description,
        "additionalProperties": false,
        "required": required,
        "properties": properties,
    })
}

/// An object of which exactly one of these keys is written.
pub(super) fn one_of(keys: &[&str], mut object: Value) -> Value {
    object["oneOf"] = keys.iter().map(|key| json!({ "required": [key] })).collect();
    object
}

pub(super) fn by_name(description: &str, value: Value) -> Value {
    json!({ "type": "object", "description": description, "additionalProperties": value })
}

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

pub(super) fn described(description: &str, mut schema: Value) -> Value {
    schema["description"] = description.into();
    schema
}

pub(super) fn with_default(description: &str, schema: Value, default: impl Into<Value>) -> Value {
    let mut schema = described(description, schema);
    schema["default"] = default.into();
    schema
}

pub(super) fn duration(description: &str, default: Duration) -> Value {
    with_default(description, reference("duration"), show_duration(default))
}

pub(super) fn words(description: &str, words: &[&str], default: &str) -> Value {
    with_default(description, json!({ "anyOf": [{ "enum": words }, reference("variable")] }), default)
}

pub(super) fn whole(least: u64, most: u64) -> Value {
    json!({ "anyOf": [{ "type": "integer", "minimum": least, "maximum": most }, reference("variable")] })
}

/// A number from 1 to as many as are ever counted.
pub(super) fn count() -> Value {
    whole(1, u32::MAX.into())
}

/// A number from 0 to as many as are ever counted.
pub(super) fn any_count() -> Value {
    whole(0, u32::MAX.into())
}

pub(super) fn percent(description: &str, default: Percent) -> Value {
    with_default(description, reference("percent"), show_percent(default))
}

pub(super) fn boolean() -> Value {
    json!({ "anyOf": [{ "type": "boolean" }, reference("variable")] })
}

pub(super) fn string() -> Value {
    json!({ "type": "string" })
}

/// A list of at least one.
pub(super) fn some(item: Value) -> Value {
    json!({ "type": "array", "minItems": 1, "items": item })
}

/// One, or a list of at least one.
pub(super) fn one_or_some(item: Value) -> Value {
    json!({ "anyOf": [item.clone(), some(item)] })
}

pub(super) fn one_or_list() -> Value {
    one_or_some(string())
}

pub(super) fn one_or_object(description: &str, object: &str) -> Value {
    json!({ "description": description, "anyOf": [string(), reference(object)] })
}

/// A number with at most one digit after the point; `most` and `default` are tenths.
pub(super) fn tenths(description: &str, most: u32, default: u32) -> Value {
    let number = json!({ "type": "number", "minimum": 0, "maximum": most / 10 });
    let text = json!({ "type": "string", "pattern": "^[0-9]+(\\.[0-9])?$|\\$\\{" });
    let default: Value = show_tenths(default).parse().expect("digits and a point");
    with_default(description, json!({ "anyOf": [number, text] }), default)
}
