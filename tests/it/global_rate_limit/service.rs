//! What a rate limit service is asked, and what it says: `rls.proto`.

use crate::grpc_service::{Asked, nested, parts, text};

/// A question.
#[derive(Clone, Debug, Default)]
pub(super) struct Question {
    pub(super) domain: String,
    pub(super) descriptors: Vec<Vec<(String, String)>>,
    pub(super) hits: u64,
}

impl Question {
    /// The first value of the first descriptor.
    pub(super) fn first(&self) -> &str {
        &self.descriptors[0][0].1
    }

    pub(super) fn of(asked: &Asked) -> Self {
        let mut question = Self::default();
        for (tag, value, number) in parts(&asked.message) {
            match tag {
                1 => question.domain = text(value),
                2 => question.descriptors.push(parts(value).map(|(_, entry, _)| pair(entry)).collect()),
                3 => question.hits = number,
                other => panic!("field {other}"),
            }
        }
        question
    }
}

fn pair(entry: &[u8]) -> (String, String) {
    let mut parts = parts(entry).map(|(tag, value, _)| (tag, text(value)));
    match (parts.next(), parts.next(), parts.next()) {
        (Some((1, key)), Some((2, value)), None) => (key, value),
        // Protobuf leaves out what is empty.
        (Some((1, key)), None, None) => (key, String::new()),
        (_, _, _) => panic!("{entry:?}"),
    }
}

/// OK.
pub(super) fn ok() -> Vec<u8> {
    vec![0x08, 1]
}

/// OVER_LIMIT, with a descriptor that is, for so many more seconds.
pub(super) fn over_limit(reset: u8) -> Vec<u8> {
    [&[0x08, 2][..], &nested(2, &[&[0x08, 2][..], &nested(4, &[0x08, reset])].concat())].concat()
}

/// Of `response_headers_to_add`.
pub(super) fn to_response(name: &str, value: &str) -> Vec<u8> {
    nested(3, &[nested(1, name.as_bytes()), nested(2, value.as_bytes())].concat())
}

/// Of `request_headers_to_add`.
pub(super) fn to_request(name: &str, value: &str) -> Vec<u8> {
    nested(4, &[nested(1, name.as_bytes()), nested(2, value.as_bytes())].concat())
}
