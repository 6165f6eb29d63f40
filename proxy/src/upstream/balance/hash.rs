//! From what a request carries to the number that decides its endpoint.
//!
//! Proxies must agree on it, whatever their version and machine: XXH64 with seed 0, and several values combined as
//! Envoy combines the hashes of a route's `hash_policy`. A change here moves every client of every cluster that
//! balances by hash.

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;

/// The hash of those values of a request that are present, in the order in which the cluster names them; `None` where
/// none is. All of them count: each one's hash is added to the earlier ones' turned by one bit, so that order matters.
pub fn hash_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Option<u64> {
    parts.into_iter().map(xxh64).reduce(|hash, part| hash.rotate_left(1) ^ part)
}

/// The value of a cookie in a `Cookie` field (RFC 6265 section 4.2.1), without the quotes that may stand around it; of
/// several, the first, and it may be empty. Names are told apart by case.
pub fn cookie_value<'a>(header: &'a [u8], name: &str) -> Option<&'a [u8]> {
    header.split(|byte| *byte == b';').find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.trim_ascii_start().strip_prefix(b"=")?;
        let value = value.trim_ascii_start();
        Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
    })
}

/// XXH64 with seed 0.
pub(super) fn xxh64(bytes: &[u8]) -> u64 {
    let (stripes, rest) = bytes.as_chunks::<32>();
    let hash = if stripes.is_empty() { P5 } else { lanes(stripes) };
    tail(hash.wrapping_add(bytes.len() as u64), rest)
}

/// XXH64's last step: every bit of the input moves every bit of the output. One to one.
pub(super) fn mix(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(P2);
    let hash = (hash ^ (hash >> 29)).wrapping_mul(P3);
    hash ^ (hash >> 32)
}

/// All of the input but what is left of its last 32 bytes, in four lanes.
fn lanes(stripes: &[[u8; 32]]) -> u64 {
    let mut lanes = [P1.wrapping_add(P2), P2, 0, P1.wrapping_neg()];
    for stripe in stripes {
        let (words, _) = stripe.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = round(*lane, u64::from_le_bytes(*word));
        }
    }
    let turned = [1, 7, 12, 18].into_iter().zip(lanes).map(|(by, lane)| lane.rotate_left(by));
    let sum = turned.fold(0, u64::wrapping_add);
    lanes.into_iter().fold(sum, |hash, lane| (hash ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4))
}

fn tail(mut hash: u64, rest: &[u8]) -> u64 {
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        hash ^= round(0, u64::from_le_bytes(*word));
        hash = hash.rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
    }
    let (halves, rest) = rest.as_chunks::<4>();
    for half in halves {
        hash ^= u64::from(u32::from_le_bytes(*half)).wrapping_mul(P1);
        hash = hash.rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
    }
    for byte in rest {
        hash ^= u64::from(*byte).wrapping_mul(P5);
        hash = hash.rotate_left(11).wrapping_mul(P1);
    }
    mix(hash)
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_xxh64() {
        let check = |text: &str, hash| assert_eq!(xxh64(text.as_bytes()), hash, "{text}");
        check("", 0xEF46_DB37_51D8_E999);
        check("a", 0xD24E_C4F1_A98C_6E5B);
        check("abc", 0x44BC_2CF5_AD77_0999);
        check("Nobody inspects the spammish repetition", 0xFBCE_A83C_8A37_8BF1);
    }

    #[test]
    fn values_are_combined_in_order_and_nothing_is_no_hash() {
        assert_eq!(hash_of([]), None);
        assert_eq!(hash_of([&b"a"[..]]), Some(xxh64(b"a")));
        assert_eq!(hash_of([&b"a"[..], b"abc"]), Some(xxh64(b"a").rotate_left(1) ^ xxh64(b"abc")));
        assert_ne!(hash_of([&b"a"[..], b"abc"]), hash_of([&b"abc"[..], b"a"]));
        assert_ne!(hash_of([&b"a"[..], b"a"]), Some(0));
    }

    #[test]
    fn a_bit_of_input_moves_half_of_the_output() {
        let mut flips = 0;
        for bit in 0..64 {
            let text = |turned: u64| xxh64(&(0x0123_4567_89AB_CDEF_u64 ^ turned).to_le_bytes());
            flips += (text(0) ^ text(1 << bit)).count_ones();
        }
        assert!((28 * 64..36 * 64).contains(&flips), "{flips}");
    }

    #[track_caller]
    fn check(header: &str, value: Option<&str>) {
        assert_eq!(cookie_value(header.as_bytes(), "id"), value.map(str::as_bytes), "{header}");
    }

    #[test]
    fn cookies() {
        check("id=7", Some("7"));
        check("a=1; id=7; b=2", Some("7"));
        check("a=1;id=7", Some("7"));
        check("id=\"7\"", Some("7"));
        check("id=\"", Some("\""));
        check("id=7; id=8", Some("7"));
        check("id=", Some(""));
        check("id=a=b==", Some("a=b=="));
        check(" id = 7 ;", Some("7"));
        check("ID=7", None);
        check("xid=7", None);
        check("idx=7", None);
        check("id", None);
        check("a=id=7", None);
        check(";;; ;", None);
        check("", None);
    }
}
