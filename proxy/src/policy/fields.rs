//! Header fields that a service writes into its answer, for the request or the response that it was asked about
//! (`envoy.config.core.v3.HeaderValue`).
//! <https://github.com/envoyproxy/envoy/blob/main/api/envoy/config/core/v3/base.proto>

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use prost::Message;

/// Fields that frame a message, belong to one connection or say whom it is for: no service may write them.
const OURS: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Whether a field is none that a service may write.
pub fn is_ours(name: &HeaderName) -> bool {
    OURS.contains(name)
}

/// `HeaderValue`.
#[derive(Clone, PartialEq, Message)]
pub struct Field {
    /// The name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value.
    #[prost(string, tag = "2")]
    pub value: String,
    /// Instead of the value.
    #[prost(bytes = "vec", tag = "3")]
    pub raw_value: Vec<u8>,
}

impl Field {
    /// The field, where it can be one.
    pub fn parse(self) -> Option<(HeaderName, HeaderValue)> {
        let Self { key, value, raw_value } = self;
        let value = if raw_value.is_empty() { value.into_bytes() } else { raw_value };
        Some((HeaderName::try_from(key).ok()?, HeaderValue::try_from(value).ok()?))
    }
}

/// A change to a message's header fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which field.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderValue,
    /// What becomes of one that is there.
    pub how: How,
}

/// What becomes of a field that is there (`HeaderValueOption.HeaderAppendAction`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The new one stands beside it.
    Append,
    /// It stays, and there is no new one.
    IfAbsent,
    /// It is replaced.
    Set,
    /// It is replaced; where there is none, nothing is written.
    IfPresent,
}

impl Change {
    /// A field beside those that are there.
    pub fn append((name, value): (HeaderName, HeaderValue)) -> Self {
        Self { name, value, how: How::Append }
    }

    /// Does it.
    pub fn apply(self, headers: &mut HeaderMap) {
        let Self { name, value, how } = self;
        match (how, headers.entry(name)) {
            (How::Append, Entry::Occupied(mut old)) => old.append(value),
            (How::Set | How::IfPresent, Entry::Occupied(mut old)) => drop(old.insert_mult(value)),
            (How::IfAbsent, Entry::Occupied(_)) | (How::IfPresent, Entry::Vacant(_)) => {}
            (How::Append | How::Set | How::IfAbsent, Entry::Vacant(place)) => drop(place.insert(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_do_what_their_names_say() {
        let rows = [
            (How::Append, &["1", "2", "3"][..], &["3"][..]),
            (How::IfAbsent, &["1", "2"], &["3"]),
            (How::Set, &["3"], &["3"]),
            (How::IfPresent, &["3"], &[]),
        ];
        for (how, there, absent) in rows {
            for (before, expected) in [(&["1", "2"][..], there), (&[], absent)] {
                let name = HeaderName::from_static("x-a");
                let fields = before.iter().map(|value| (name.clone(), HeaderValue::from_static(value)));
                let mut headers = HeaderMap::from_iter(fields);
                Change { name: name.clone(), value: HeaderValue::from_static("3"), how }.apply(&mut headers);
                let found: Vec<_> = headers.get_all(&name).iter().collect();
                assert_eq!(found, expected, "{how:?} {before:?}");
            }
        }
    }
}
