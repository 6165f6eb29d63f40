//! How names of fields are written. They mean the same in any case (RFC 9110 section 5.1), and there are readers who do not
//! know it: between HTTP/1 and HTTP/1 a name leaves as it came.
//!
//! A name with a capital letter is noted as it is read, and so are all that follow it; the row travels beside the message,
//! and when its fields are written, each is looked up there. Names that we add are not among them: a few bits in front of
//! the row tell so of most.

use std::rc::Rc;

/// The names of one head: the [bits](bit) of all of them, then they in their order, each after its length in one byte.
pub type Spelling = Rc<[u8]>;

/// The names of a head as it is read.
#[derive(Debug, Default)]
pub struct Written {
    row: Vec<u8>,
    bits: u64,
}

/// Room for the names of most heads.
const USUAL: usize = 128;
/// Bytes in front of a row.
const BITS: usize = size_of::<u64>();

/// The bit of a name, in any case. Names of different bits differ.
fn bit(name: &[u8]) -> u64 {
    let [first, .., last] = *name else { return 1 };
    // What differs in case differs in this alone, of letters.
    let ends = (u32::from(first | 0x20) * 7) ^ u32::from(last | 0x20);
    1 << (ends.wrapping_add(name.len() as u32 * 11) % u64::BITS)
}

impl Written {
    /// The next name, and whether it has a capital letter.
    #[inline]
    pub fn note(&mut self, name: &[u8], has_capital: bool) {
        if !has_capital && self.row.is_empty() {
            return;
        }
        // A longer one goes in lower case.
        let Ok(length) = u8::try_from(name.len()) else { return };
        if self.row.is_empty() {
            self.row.reserve(USUAL);
            self.row.extend_from_slice(&[0; BITS]);
        }
        self.bits |= bit(name);
        self.row.push(length);
        self.row.extend_from_slice(name);
    }

    /// All of them; nothing where all are in lower case.
    pub fn into_spelling(mut self) -> Option<Spelling> {
        self.row.first_chunk_mut().map(|bits| *bits = self.bits.to_ne_bytes())?;
        Some(Rc::from(self.row))
    }
}

/// Spells the names of a head as it is written.
#[derive(Debug)]
pub struct Speller<'s> {
    names: &'s [u8],
    bits: u64,
    /// Where the name stands that comes next if the order is the same.
    next: usize,
}

impl<'s> Speller<'s> {
    /// One that spells as these; in lower case without.
    pub fn new(names: Option<&'s Spelling>) -> Self {
        match names.and_then(|names| names.split_first_chunk()) {
            Some((bits, names)) => Self { names, bits: u64::from_ne_bytes(*bits), next: 0 },
            None => Self { names: &[], bits: 0, next: 0 },
        }
    }

    /// The next name, which is in lower case.
    #[inline]
    pub fn spell<'n>(&mut self, name: &'n str) -> &'n [u8]
    where
        's: 'n,
    {
        let name = name.as_bytes();
        if self.bits & bit(name) == 0 {
            return name;
        }
        // From where the last one stood, or else among all.
        match self.find(self.next, name).or_else(|| self.find(0, name)) {
            Some((found, after)) => {
                self.next = after;
                found
            }
            None => name,
        }
    }

    /// A name from there on, and where the one after it stands.
    fn find(&self, mut at: usize, name: &[u8]) -> Option<(&'s [u8], usize)> {
        while let Some(&length) = self.names.get(at) {
            let end = at + 1 + usize::from(length);
            let found = &self.names[at + 1..end];
            if is_spelling(found, name) {
                return Some((found, end));
            }
            at = end;
        }
        None
    }
}

/// Whether one is the other in some case. `name` is in lower case.
///
/// What `eq_ignore_ascii_case` says, several bytes at a time: names are short, and there are many.
fn is_spelling(found: &[u8], name: &[u8]) -> bool {
    const CHUNK: usize = size_of::<u32>();
    if found.len() != name.len() {
        return false;
    }
    let mut pairs = found.chunks_exact(CHUNK).zip(name.chunks_exact(CHUNK));
    pairs.all(|(found, name)| {
        let [found, name] =
            [found, name].map(|chunk| u32::from_ne_bytes(chunk.try_into().unwrap_or_default()));
        differ_in_case_alone(found, name)
    }) && {
        let [found, name] = [found, name].map(|all| all.chunks_exact(CHUNK).remainder());
        found.eq_ignore_ascii_case(name)
    }
}

/// Whether four bytes differ in nothing but the case of letters.
fn differ_in_case_alone(found: u32, name: u32) -> bool {
    const EACH: u32 = 0x0101_0101;
    const TOP: u32 = 0x80 * EACH;
    // Sums stay within their byte.
    let low = name & !TOP;
    let is_from_a = low + (0x80 - b'a' as u32) * EACH;
    let is_past_z = low + (0x80 - b'z' as u32 - 1) * EACH;
    let is_letter = is_from_a & !is_past_z & !name & TOP;
    (found ^ name) & !(is_letter >> 2) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_compared_as_the_standard_library_does(
            name in "[!-~]{0,13}", bits in any::<u16>(), at in 0_usize..13, other in any::<u8>(),
        ) {
            let name = name.to_ascii_lowercase().into_bytes();
            let mut found = name.clone();
            for (at, byte) in found.iter_mut().enumerate().filter(|(at, _)| bits & (1 << at) != 0) {
                *byte = if at % 2 == 0 { byte.to_ascii_uppercase() } else { *byte ^ 0x20 };
            }
            prop_assert_eq!(is_spelling(&found, &name), found.eq_ignore_ascii_case(&name));
            if let Some(byte) = found.get_mut(at) {
                *byte = other;
            }
            prop_assert_eq!(is_spelling(&found, &name), found.eq_ignore_ascii_case(&name));
            prop_assert!(!is_spelling(&found, &[&name[..], b"x"].concat()));
        }
    }

    fn spelling(names: &[&str]) -> Option<Spelling> {
        let mut written = Written::default();
        for name in names {
            written.note(name.as_bytes(), name.bytes().any(|byte| byte.is_ascii_uppercase()));
        }
        written.into_spelling()
    }

    #[test]
    fn names_are_spelt_as_they_were() {
        let long = ["A".repeat(256), "A".repeat(255)];
        let table: [(&[&str], &[&str], &[&str]); 7] = [
            (&["Host", "X-A"], &["host", "x-a"], &["Host", "X-A"]),
            // In another order, and with names that nobody has written.
            (&["Host", "X-A", "ETag"], &["x-a", "via", "etag", "host"], &["X-A", "via", "ETag", "Host"]),
            (
                &["X-Case", "x-case", "X-CASE"],
                &["x-case", "x-case", "x-case"],
                &["X-Case", "x-case", "X-CASE"],
            ),
            (&["X-Case", "Other"], &["x-case", "x-case"], &["X-Case", "X-Case"]),
            (&["host", "ETag"], &["host", "etag"], &["host", "ETag"]),
            (&[&long[0], "B"], &[&long[0].to_ascii_lowercase(), "b"], &[&long[0].to_ascii_lowercase(), "B"]),
            (&[&long[1]], &[&long[1].to_ascii_lowercase()], &[&long[1]]),
        ];
        for (came, names, expected) in table {
            let spelling = spelling(came);
            let mut speller = Speller::new(spelling.as_ref());
            let spelt: Vec<_> = names.iter().map(|name| speller.spell(name)).collect();
            assert_eq!(spelt, expected.iter().map(|name| name.as_bytes()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_in_lower_case_takes_nothing() {
        assert_eq!(spelling(&["host", "x-a"]), None);
        assert_eq!(Speller::new(None).spell("host"), b"host");
    }
}
