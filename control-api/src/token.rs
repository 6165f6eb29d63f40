//! Bearer tokens: long, at random, and kept as hashes alone. Looking one up by its hash tells nobody anything by the time that
//! it takes.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;

use crate::hex::hex;

/// Bytes at random.
const LENGTH: usize = 24;
/// By which a token is known for one, where it has got lost.
const PREFIX: &str = "outrigger_";

/// Whether it may be one of ours, and is to be shown to nobody else.
pub(crate) fn is_ours(token: &str) -> bool {
    token.starts_with(PREFIX)
}

/// A new one.
pub(crate) fn make() -> String {
    let mut bytes = [0; LENGTH];
    rand::fill(&mut bytes).expect("the system has randomness");
    format!("{PREFIX}{}", hex(&bytes))
}

/// What is kept of it.
pub(crate) fn hash(token: &str) -> String {
    hex(digest(&SHA256, token.as_bytes()).as_ref())
}
