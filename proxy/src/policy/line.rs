//! Short header values out of texts and numbers, written by hand: they are made for each request, where formatting
//! would cost more than what it says.

use http::HeaderValue;

/// Room enough for whatever is written with it.
const ROOM: usize = 48;

/// A value being written.
#[derive(Debug)]
pub(super) struct Line {
    bytes: [u8; ROOM],
    length: usize,
}

impl Line {
    pub(super) fn new() -> Self {
        Self { bytes: [0; ROOM], length: 0 }
    }

    /// Visible ASCII.
    pub(super) fn text(mut self, text: &str) -> Self {
        self.bytes[self.length..self.length + text.len()].copy_from_slice(text.as_bytes());
        self.length += text.len();
        self
    }

    pub(super) fn number(mut self, number: u32) -> Self {
        let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
        let mut left = number;
        for place in self.bytes[self.length..self.length + digits].iter_mut().rev() {
            *place = b'0' + (left % 10) as u8;
            left /= 10;
        }
        self.length += digits;
        self
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub(super) fn value(&self) -> HeaderValue {
        HeaderValue::from_bytes(self.as_bytes()).expect("visible ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length() {
        for number in [0, 1, 9, 10, 99, 100, 1_000_000_000, u32::MAX] {
            let value = Line::new().text("r=").number(number).text(";").value();
            assert_eq!(value, format!("r={number};"));
        }
    }
}
