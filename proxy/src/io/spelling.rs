//! How names of fields are written. They mean the same in any case (RFC 9110 section 5.1), and there are readers who do not
//! know it: between HTTP/1 and HTTP/1 a name leaves as it came.
//!
//! A name with a capital letter is noted as it is read, and so are all that follow it; the row travels beside the message,
//! and when its fields are written, each is looked up there.

use std::rc::Rc;

/// The names of one head, in their order, each after its length in one byte.
pub type Spelling = Rc<[u8]>;

/// The names of a head as it is read.
#[derive(Debug, Default)]
pub struct Written(Vec<u8>);

/// Room for the names of most heads.
const USUAL: usize = 128;

impl Written {
    /// The next name, and whether it has a capital letter.
    #[inline]
    pub fn note(&mut self, name: &[u8], has_capital: bool) {
        if !has_capital && self.0.is_empty() {
            return;
        }
        // A longer one goes in lower case.
        let Ok(length) = u8::try_from(name.len()) else { return };
        if self.0.is_empty() {
            self.0.reserve(USUAL);
        }
        self.0.push(length);
        self.0.extend_from_slice(name);
    }

    /// All of them; nothing where all are in lower case.
    pub fn into_spelling(self) -> Option<Spelling> {
        (!self.0.is_empty()).then(|| Rc::from(self.0))
    }
}

/// Spells the names of a head as it is written.
#[derive(Debug)]
pub struct Speller<'s> {
    names: &'s [u8],
    /// Where the name stands that comes next if the order is the same.
    next: usize,
}

impl<'s> Speller<'s> {
    /// One that spells as these; in lower case without.
    pub fn new(names: Option<&'s Spelling>) -> Self {
        Self { names: names.map_or(&[], |names| names), next: 0 }
    }

    /// The next name, which is in lower case.
    #[inline]
    pub fn spell<'n>(&mut self, name: &'n str) -> &'n [u8]
    where
        's: 'n,
    {
        let name = name.as_bytes();
        if self.names.is_empty() {
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
            if found.len() == name.len() && found.eq_ignore_ascii_case(name) {
                return Some((found, end));
            }
            at = end;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
