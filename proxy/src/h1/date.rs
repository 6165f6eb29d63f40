//! The `date` of answers that have none (RFC 9110 section 6.6.1): asked of the system and formatted a few times a second, not
//! for each of them.

use std::cell::Cell;
use std::fmt::Write;
use std::time::SystemTime;

use httpdate::HttpDate;

/// `Sun, 06 Nov 1994 08:49:37 GMT`: all are as long.
pub(super) type Text = [u8; 29];

/// A worker's dates.
#[derive(Debug, Default)]
pub struct Dates(Cell<Option<(u64, Text)>>);

impl Dates {
    /// The date at this tick of the worker's coarse clock.
    pub fn at(&self, tick: u64) -> [u8; 29] {
        if let Some((at, text)) = self.0.get()
            && at == tick
        {
            return text;
        }
        let mut text = Fixed { text: [b' '; 29], length: 0 };
        // It has room for just this.
        let _ = write!(text, "{}", HttpDate::from(SystemTime::now()));
        self.0.set(Some((tick, text.text)));
        text.text
    }
}

struct Fixed {
    text: Text,
    length: usize,
}

impl Write for Fixed {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        let end = self.length + part.len();
        self.text.get_mut(self.length..end).ok_or(std::fmt::Error)?.copy_from_slice(part.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_now_and_is_kept_for_its_tick() {
        let dates = Dates::default();
        let first = dates.at(1);
        let read = httpdate::parse_http_date(std::str::from_utf8(&first).unwrap()).unwrap();
        assert!(SystemTime::now().duration_since(read).unwrap().as_secs() < 60);
        dates.0.set(Some((1, [b'x'; 29])));
        assert_eq!(dates.at(1), [b'x'; 29]);
        assert_ne!(dates.at(2), [b'x'; 29]);
    }
}
