//! What a certificate goes back to. A certificate leads to the next one, and that to another: without this, taking a token back
//! would end nothing.
//!
//! It stands in the certificate's own number, which is 20 bytes long (RFC 5280 section 4.1.2.2 allows no more): a kind, eight
//! bytes that say which, and eleven at random. So there is no list of all that was signed.

use aws_lc_rs::rand;

use crate::hex::{hex, unhex};

/// Bytes of a certificate's number.
const LENGTH: usize = 20;
/// In the first byte, with the kind: a number is positive, and of as many bytes as it seems.
const MARK: u8 = 0x40;

/// What somebody has shown, before any certificate of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The join token of this id.
    Join([u8; 8]),
    /// A certificate of an authority that is not ours, by the hash of its key.
    Root([u8; 8]),
    /// What a service was asked about.
    Verifier,
}

impl Origin {
    /// The join token whose hash, in hexadecimal, begins so.
    pub(crate) fn of_join(hash: &str) -> Option<Self> {
        unhex(hash).map(Self::Join)
    }

    /// A number for a certificate that goes back to this.
    pub(crate) fn serial(self) -> [u8; LENGTH] {
        let (kind, which) = match self {
            Self::Join(id) => (0, id),
            Self::Root(id) => (1, id),
            Self::Verifier => (2, [0; 8]),
        };
        let mut serial = [0; LENGTH];
        rand::fill(&mut serial).expect("the system has randomness");
        serial[0] = MARK | kind;
        serial[1..9].copy_from_slice(&which);
        serial
    }

    /// What a certificate of this number goes back to, of those that we have signed.
    pub(crate) fn of_serial(serial: &[u8]) -> Option<Self> {
        let serial: [u8; LENGTH] = serial.try_into().ok()?;
        let which = serial[1..9].try_into().ok()?;
        match serial[0].checked_sub(MARK)? {
            0 => Some(Self::Join(which)),
            1 => Some(Self::Root(which)),
            2 => Some(Self::Verifier),
            _ => None,
        }
    }
}

/// As the id of a join token is written.
pub(crate) fn join_id(id: [u8; 8]) -> String {
    hex(&id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_says_what_it_goes_back_to_and_no_two_are_the_same() {
        for origin in [Origin::Join([1, 2, 3, 4, 5, 6, 7, 0xff]), Origin::Root([9; 8]), Origin::Verifier] {
            let (one, other) = (origin.serial(), origin.serial());
            assert_eq!(Origin::of_serial(&one), Some(origin));
            assert_ne!(one, other);
        }
    }

    /// Those of others, and of before.
    #[test]
    fn other_numbers_say_nothing() {
        let mut odd = Origin::Verifier.serial();
        odd[0] = MARK | 3;
        for serial in [&odd[..], &[0x40; 16], &[0x40; 21], &[0x3f; 20], &[0xff; 20], &[]] {
            assert_eq!(Origin::of_serial(serial), None, "{serial:?}");
        }
    }
}
