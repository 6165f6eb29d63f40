//! How names of fields are written. They mean the same in any case (RFC 9110 section 5.1), and there are readers who do not
//! know it: between HTTP/1 and HTTP/1 a name leaves as it came.
//!
//! hyper could keep that too, in a map beside the headers, which costs a tenth of what a request takes. Here the [`Heads`] that are
//! read note the names in a row; and when a head is written, in lower case, its names are looked up in that row and
//! overwritten where they stand.

use std::rc::Rc;

/// The names of one head, in their order: each after its length, in two bytes.
pub type Spelling = Rc<[u8]>;

/// The heads that were read and not asked about yet, as far as they have a capital letter.
#[derive(Debug, Default)]
pub struct Heads {
    /// The names of heads, each head with a name of no length after it; then those of the head that is being read.
    names: Vec<u8>,
    /// Where that head begins, and where the length of the name is that has come in part.
    begin: usize,
    part: Option<usize>,
    /// Whether that head has a capital letter.
    capital: bool,
    /// Heads that have come, and those before the first in the row.
    came: u64,
    before: u64,
    /// Heads that were asked about.
    taken: u64,
}

impl Heads {
    /// A name has come.
    #[inline]
    pub fn note(&mut self, name: &[u8]) {
        self.capital |= name.iter().any(u8::is_ascii_uppercase);
        if let Some(length) = length_of(name.len()) {
            self.names.extend_from_slice(&length);
            self.names.extend_from_slice(name);
        }
    }

    /// A part of a name has come, perhaps the last.
    pub fn note_part(&mut self, part: &[u8], is_last: bool) {
        let at = *self.part.get_or_insert(self.names.len());
        if at == self.names.len() {
            self.names.extend_from_slice(&END);
        }
        self.capital |= part.iter().any(u8::is_ascii_uppercase);
        self.names.extend_from_slice(part);
        if is_last {
            match length_of(self.names.len() - at - LENGTH) {
                Some(length) => self.names[at..at + LENGTH].copy_from_slice(&length),
                None => self.names.truncate(at),
            }
            self.part = None;
        }
    }

    /// The head was whole, and is to be remembered or not.
    pub fn note_head(&mut self, is_kept: bool) {
        self.came += u64::from(is_kept);
        if !is_kept {
            self.names.truncate(self.begin);
        } else if self.begin == 0 && !self.capital {
            self.clear();
            self.before = self.came;
        } else {
            self.names.extend_from_slice(&END);
            self.begin = self.names.len();
        }
        self.capital = false;
    }

    /// How the next head is written that was not asked about; nothing where all of it is in lower case.
    pub fn take_next(&mut self) -> Option<Spelling> {
        self.taken += 1;
        if self.begin == 0 || self.taken <= self.before {
            return None;
        }
        let spelling = self.take_first();
        self.before = self.taken;
        Some(spelling)
    }

    /// How the last head is written, whatever was before it.
    pub fn take_last(&mut self) -> Option<Spelling> {
        let mut last = None;
        while self.begin > 0 {
            last = Some(self.take_first());
        }
        (self.taken, self.before) = (self.came, self.came);
        last
    }

    fn take_first(&mut self) -> Spelling {
        let mut end = 0;
        while let Some(name) = name_at(&self.names, end) {
            end += LENGTH + name.len();
        }
        let spelling = Rc::from(&self.names[..end]);
        let after = end + LENGTH;
        if after == self.names.len() {
            self.clear();
        } else {
            self.names.drain(..after);
        }
        self.begin -= after;
        self.part = self.part.map(|at| at - after);
        spelling
    }

    /// Connections are idle for long: what one head took is not kept for the next, unless it is little.
    fn clear(&mut self) {
        if self.names.capacity() > KEPT {
            self.names = Vec::new();
        } else {
            self.names.clear();
        }
    }
}

/// Room for names that is kept between two heads.
const KEPT: usize = 512;
/// Bytes of a length.
const LENGTH: usize = size_of::<u16>();
const END: [u8; LENGTH] = [0; LENGTH];

/// `None` of what no parser takes for a name.
fn length_of(length: usize) -> Option<[u8; LENGTH]> {
    u16::try_from(length).ok().map(u16::to_le_bytes)
}

/// The name whose length stands there; nothing at the end.
#[inline]
fn name_at(names: &[u8], at: usize) -> Option<&[u8]> {
    let length = names.get(at..)?.first_chunk::<LENGTH>()?;
    let begin = at + LENGTH;
    names.get(begin..begin + usize::from(u16::from_le_bytes(*length))).filter(|name| !name.is_empty())
}

/// How these names are written, for [`respell`]; `None` where there is no capital letter among them.
pub fn spelling<'n>(names: impl Iterator<Item = &'n [u8]>) -> Option<Spelling> {
    let mut heads = Heads::default();
    names.for_each(|name| heads.note(name));
    heads.note_head(true);
    heads.take_last()
}

/// Writes the names of a head, which stands at the beginning of these bytes in lower case, as they are spelt; where it ends. Of
/// interim heads before it nothing is changed.
pub fn respell(bytes: &mut [u8], spelling: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let is_interim = bytes[at..].starts_with(b"HTTP/1.1 1");
        at = end_of_line(bytes, at);
        let mut next = 0;
        loop {
            match bytes.get(at) {
                None => return at,
                Some(b'\r') => break,
                Some(_) => {}
            }
            // Most stand in the same order.
            if let Some(name) = name_at(spelling, next)
                && bytes.get(at + name.len()) == Some(&b':')
                && is_same(&bytes[at..at + name.len()], name)
            {
                bytes[at..at + name.len()].copy_from_slice(name);
                next += LENGTH + name.len();
                at += name.len();
            } else {
                let Some(length) = memchr::memchr(b':', &bytes[at..]) else { return bytes.len() };
                let written = &mut bytes[at..at + length];
                if let Some((name, after)) = found(spelling, next, written) {
                    written.copy_from_slice(name);
                    next = after;
                }
                at += length;
            }
            at = end_of_line(bytes, at);
        }
        at = (at + 2).min(bytes.len());
        if !is_interim {
            return at;
        }
    }
}

#[inline]
fn end_of_line(bytes: &[u8], from: usize) -> usize {
    memchr::memchr(b'\n', &bytes[from..]).map_or(bytes.len(), |length| from + length + 1)
}

/// A name as it is spelt, and where the one after it stands: the first from there on, or else the first of all.
fn found<'s>(spelling: &'s [u8], from: usize, written: &[u8]) -> Option<(&'s [u8], usize)> {
    let search = |mut at: usize| {
        while let Some(name) = name_at(spelling, at) {
            at += LENGTH + name.len();
            if name.len() == written.len() && is_same(written, name) {
                return Some((name, at));
            }
        }
        None
    };
    search(from).or_else(|| search(0))
}

/// Whether a name is this one, which is as long, but for capital letters; eight bytes at a time, the last eight perhaps twice.
#[inline]
fn is_same(lower: &[u8], name: &[u8]) -> bool {
    let word = |bytes: &[u8], at: usize| bytes[at..].first_chunk().map(|chunk| u64::from_le_bytes(*chunk));
    let is_same_at = |at: usize| match (word(lower, at), word(name, at)) {
        (Some(lower), Some(name)) => lower == lowered(name),
        _ => false,
    };
    match lower.len().checked_sub(8) {
        None => lower.iter().zip(name).all(|(lower, byte)| *lower == byte.to_ascii_lowercase()),
        Some(last) => (0..last).step_by(8).chain([last]).all(is_same_at),
    }
}

/// Eight bytes of ASCII in lower case.
#[inline]
fn lowered(word: u64) -> u64 {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    // Adding sets the highest bit of those from `A` on, and of those after `Z`: what is in between has only one of both.
    let from_a = word + EACH * u64::from(0x80 - b'A');
    let after_z = word + EACH * u64::from(0x7f - b'Z');
    word | (((from_a ^ after_z) & (EACH * 0x80)) >> 2)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn heads(all: &[&[&str]]) -> Heads {
        let mut heads = Heads::default();
        for head in all {
            for (number, name) in head.iter().enumerate() {
                // In two parts, as it may come, or whole.
                let (one, other) = name.as_bytes().split_at(name.len() / 2);
                if number % 2 == 0 {
                    heads.note_part(one, false);
                    heads.note_part(other, true);
                } else {
                    heads.note(name.as_bytes());
                }
            }
            heads.note_head(true);
        }
        heads
    }

    /// With a colon after each name.
    fn text(spelling: Option<Spelling>) -> Option<String> {
        let spelling = spelling?;
        let (mut text, mut at) = (String::new(), 0);
        while let Some(name) = name_at(&spelling, at) {
            text += std::str::from_utf8(name).unwrap();
            text.push(':');
            at += LENGTH + name.len();
        }
        assert_eq!(at, spelling.len());
        Some(text)
    }

    pub(crate) fn spelling(text: &str) -> Spelling {
        let names: Vec<_> = text.split_terminator(':').collect();
        heads(&[&names, &[]]).take_next().expect("a capital letter")
    }

    #[test]
    fn each_head_has_its_own() {
        let mut heads = heads(&[&["host"], &["Host", "x-a"], &["host", "accept"], &["HOST"]]);
        let taken: [_; 5] = std::array::from_fn(|_| text(heads.take_next()));
        let expected = [
            None,
            Some("Host:x-a:".to_owned()),
            Some("host:accept:".to_owned()),
            Some("HOST:".to_owned()),
            None,
        ];
        assert_eq!(taken, expected);
        assert!(heads.names.is_empty());
    }

    #[test]
    fn one_that_is_under_way_is_left_alone() {
        let mut heads = heads(&[&["Host"]]);
        heads.note_part(b"X-", false);
        assert_eq!(text(heads.take_next()).as_deref(), Some("Host:"));
        // Where it begins is not where it began.
        heads.note_part(b"a", true);
        heads.note_head(true);
        assert_eq!(text(heads.take_next()).as_deref(), Some("X-a:"));
    }

    #[test]
    fn what_is_too_long_for_a_name_is_none() {
        let long = "A".repeat(70_000);
        let mut heads = heads(&[&[&long, &long, "Host"]]);
        assert_eq!(text(heads.take_next()).as_deref(), Some("Host:"));
        assert!(heads.names.is_empty());
    }

    #[test]
    fn eight_bytes_are_made_lower_case_as_one_is() {
        for byte in 0..0x80u8 {
            let word = u64::from_le_bytes([byte, b'A', b'Z', b'@', b'[', b'~', b'^', byte]);
            let expected = word.to_le_bytes().map(|byte| byte.to_ascii_lowercase());
            assert_eq!(lowered(word).to_le_bytes(), expected);
        }
    }

    #[test]
    fn of_heads_that_nobody_asks_about_nothing_stays() {
        let mut heads = heads(&[&["Host"]]);
        for _ in 0..3 {
            heads.note(b"Link");
            heads.note_head(false);
        }
        heads.note(b"ETag");
        heads.note_head(true);
        let taken: [_; 3] = std::array::from_fn(|_| text(heads.take_next()));
        assert_eq!(taken, [Some("Host:".to_owned()), Some("ETag:".to_owned()), None]);
        heads.note("A".repeat(60_000).as_bytes());
        heads.note_head(true);
        assert!(heads.take_next().is_some() && heads.names.capacity() <= KEPT);
    }

    #[test]
    fn of_several_answers_the_last_counts() {
        for (all, expected) in [
            (&[&["Link"][..], &["Server", "ETag"]][..], Some("Server:ETag:")),
            (&[&["Link"], &["server"]], Some("server:")),
            (&[&["link"], &["server"]], None),
            (&[], None),
        ] {
            let mut heads = heads(all);
            assert_eq!(text(heads.take_last()).as_deref(), expected);
            assert_eq!(heads.take_last(), None);
        }
    }

    #[test]
    fn names_are_written_as_they_are_spelt() {
        let table = [
            (
                "GET / HTTP/1.1\r\nhost: Test\r\nx-a: b: c\r\n\r\nx-a: body",
                "X-A:HoSt:",
                "GET / HTTP/1.1\r\nHoSt: Test\r\nX-A: b: c\r\n\r\nx-a: body",
            ),
            (
                "GET / HTTP/1.1\r\nx-case: 1\r\nx-case: 2\r\n\r\n",
                "X-CaSe:Other:x-case:",
                "GET / HTTP/1.1\r\nX-CaSe: 1\r\nx-case: 2\r\n\r\n",
            ),
            (
                "GET / HTTP/1.1\r\nhost: a\r\nvia: b\r\n\r\n",
                "Host:",
                "GET / HTTP/1.1\r\nHost: a\r\nvia: b\r\n\r\n",
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\netag: a\r\n\r\n",
                "ETag:",
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nETag: a\r\n\r\n",
            ),
            ("GET / HTTP/1.1\r\n\r\n", "Host:", "GET / HTTP/1.1\r\n\r\n"),
            // What is no head is left as it is, whatever it is.
            ("", "Host:", ""),
            ("no line", "Host:", "no line"),
            ("a\r\nhost", "Host:", "a\r\nhost"),
            ("a\r\nhost:", "Host:", "a\r\nHost:"),
            ("a\r\n\r", "Host:", "a\r\n\r"),
        ];
        for (head, spelling, expected) in table {
            let mut bytes = head.as_bytes().to_vec();
            let end = respell(&mut bytes, &self::spelling(spelling));
            assert_eq!(String::from_utf8(bytes).unwrap(), expected);
            assert_eq!(end, head.find("\r\n\r\nx-a: body").map_or(head.len(), |at| at + 4), "{head:?}");
        }
    }
}
