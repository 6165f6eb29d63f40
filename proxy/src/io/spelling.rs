//! How names of fields are written. They mean the same in any case (RFC 9110 section 5.1), and there are readers who do not
//! know it: between HTTP/1 and HTTP/1 a name leaves as it came.
//!
//! hyper could keep that too, in a map beside the headers, which costs a tenth of what a request takes. Here the [`Heads`] that are
//! read note the names in a row; and when a head is written, in lower case, its names are looked up in that row and
//! overwritten where they stand.

use std::rc::Rc;

/// The names of one head, in their order, each with a colon after it.
pub type Spelling = Rc<[u8]>;

/// The heads that were read and not asked about yet, as far as they have a capital letter.
#[derive(Debug, Default)]
pub struct Heads {
    /// The names of heads, each head with a line feed after it; then those of the head that is being read.
    text: Vec<u8>,
    /// Where that head begins.
    begin: usize,
    /// Whether it has a capital letter.
    capital: bool,
    /// Heads that have come, and heads before the first in the text.
    came: u64,
    before: u64,
    /// Heads that were asked about.
    taken: u64,
}

impl Heads {
    /// A name, or a part of it, has come.
    pub fn note(&mut self, part: &[u8]) {
        self.capital |= part.iter().any(u8::is_ascii_uppercase);
        self.text.extend_from_slice(part);
    }

    /// The name was whole.
    pub fn note_end(&mut self) {
        self.text.push(b':');
    }

    /// The head was whole.
    pub fn note_head(&mut self) {
        self.came += 1;
        if self.begin == 0 && !self.capital {
            self.text.clear();
            self.before = self.came;
        } else {
            self.text.push(b'\n');
            self.begin = self.text.len();
        }
        self.capital = false;
    }

    /// How the next head is written that was not asked about; nothing where all of it is in lower case.
    pub fn take_next(&mut self) -> Option<Spelling> {
        self.taken += 1;
        if self.begin == 0 || self.taken <= self.before {
            return None;
        }
        let whole = &self.text[..self.begin];
        let end = memchr::memchr(b'\n', whole).unwrap_or(whole.len());
        let spelling = Rc::from(&whole[..end]);
        self.text.drain(..=end);
        self.begin -= end + 1;
        self.before = self.taken;
        Some(spelling)
    }

    /// How the last head is written; those before it, interim ones, are nobody's concern.
    pub fn take_last(&mut self) -> Option<Spelling> {
        let whole = &self.text[..self.begin.saturating_sub(1)];
        let last = memchr::memrchr(b'\n', whole).map_or(0, |end| end + 1);
        let spelling = (self.begin > 0).then(|| Rc::from(&whole[last..]));
        self.text.drain(..self.begin);
        self.begin = 0;
        (self.taken, self.before) = (self.came, self.came);
        spelling
    }
}

/// Writes the names of a head, which stands at the beginning of these bytes in lower case, as they are spelt; where it ends. Of
/// interim heads before it nothing is changed.
pub fn respell(bytes: &mut [u8], spelling: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let is_interim = bytes[at..].starts_with(b"HTTP/1.1 1");
        at = end_of_line(bytes, at);
        let mut rest = spelling;
        loop {
            match bytes.get(at) {
                None => return at,
                Some(b'\r') => break,
                Some(_) => {}
            }
            let Some(length) = memchr::memchr(b':', &bytes[at..]) else { return bytes.len() };
            if let Some((name, after)) = found(rest, spelling, &bytes[at..at + length]) {
                bytes[at..at + length].copy_from_slice(name);
                rest = after;
            }
            at = end_of_line(bytes, at + length);
        }
        at = (at + 2).min(bytes.len());
        if !is_interim {
            return at;
        }
    }
}

fn end_of_line(bytes: &[u8], from: usize) -> usize {
    memchr::memchr(b'\n', &bytes[from..]).map_or(bytes.len(), |length| from + length + 1)
}

/// A name as it is spelt, and what follows it there: looked for from where the last was found, as most stand in the same order.
fn found<'s>(rest: &'s [u8], all: &'s [u8], name: &[u8]) -> Option<(&'s [u8], &'s [u8])> {
    let is_it = |(spelt, _): &(&[u8], &[u8])| spelt.eq_ignore_ascii_case(name);
    names(rest).find(is_it).or_else(|| names(all).find(is_it))
}

fn names(mut rest: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let length = rest.iter().position(|byte| *byte == b':')?;
        let name = &rest[..length];
        rest = &rest[length + 1..];
        Some((name, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(all: &[&[&str]]) -> Heads {
        let mut heads = Heads::default();
        for head in all {
            for name in *head {
                // In two parts, as it may come.
                let (one, other) = name.split_at(name.len() / 2);
                heads.note(one.as_bytes());
                heads.note(other.as_bytes());
                heads.note_end();
            }
            heads.note_head();
        }
        heads
    }

    fn text(spelling: Option<Spelling>) -> Option<String> {
        spelling.map(|spelling| String::from_utf8(spelling.to_vec()).unwrap())
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
        assert!(heads.text.is_empty());
    }

    #[test]
    fn one_that_is_under_way_is_left_alone() {
        let mut heads = heads(&[&["Host"]]);
        heads.note(b"X-");
        assert_eq!(text(heads.take_next()).as_deref(), Some("Host:"));
        heads.note(b"a");
        heads.note_end();
        heads.note_head();
        assert_eq!(text(heads.take_next()).as_deref(), Some("X-a:"));
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
            let end = respell(&mut bytes, spelling.as_bytes());
            assert_eq!(String::from_utf8(bytes).unwrap(), expected);
            assert_eq!(end, head.find("\r\n\r\nx-a: body").map_or(head.len(), |at| at + 4), "{head:?}");
        }
    }
}
