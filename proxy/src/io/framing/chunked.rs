//! The chunked coding: RFC 9112 section 7.1, without the white space it lets a lenient reader bear with.

use super::head::{MAX_LENGTH, text_run};
use super::{Guard, Refusal, State, Violation, refuse};

/// Bytes of extensions in one chunk-size line, the first `;` included.
pub(super) const MAX_EXTENSION_LINE: u16 = 256;
/// The same over one message.
pub(super) const MAX_EXTENSIONS: u16 = 16 * 1024;
/// Digits of a chunk size. More would be leading zeros or too large.
const MAX_DIGITS: u8 = 16;

impl Guard {
    /// `1*HEXDIG`; `progress` counts the digits, `remaining` gathers the size.
    pub(super) fn chunk_size(&mut self, rest: &[u8]) -> Result<usize, Refusal> {
        for (at, &byte) in rest.iter().enumerate() {
            let Some(digit) = char::from(byte).to_digit(16) else {
                return self.after_chunk_size(byte, at);
            };
            let size = self.remaining << 4 | u64::from(digit);
            // The last shift cannot lose a bit: 15 digits take 60.
            if self.progress == MAX_DIGITS || size > MAX_LENGTH {
                return refuse(Violation::ChunkSizeOverflow, at);
            }
            self.remaining = size;
            self.progress += 1;
        }
        Ok(rest.len())
    }

    fn after_chunk_size(&mut self, byte: u8, at: usize) -> Result<usize, Refusal> {
        match byte {
            b'\n' => refuse(Violation::BareLf, at),
            b'\r' if self.progress > 0 => {
                self.state = State::ChunkSizeLf;
                Ok(at + 1)
            }
            b';' if self.progress > 0 => {
                self.extension_line = 0;
                self.state = State::ChunkExtension;
                // The `;` counts, so it is read again as part of the extension.
                Ok(at)
            }
            _ => refuse(Violation::ChunkSize, at),
        }
    }

    pub(super) fn chunk_extension(&mut self, rest: &[u8]) -> Result<usize, Refusal> {
        let run = text_run(rest);
        let room = (MAX_EXTENSION_LINE - self.extension_line).min(MAX_EXTENSIONS - self.extensions);
        let Some(read) = u16::try_from(run).ok().filter(|&read| read <= room) else {
            return refuse(Violation::ChunkExtensionsTooLong, usize::from(room));
        };
        self.extension_line += read;
        self.extensions += read;
        match rest.get(run) {
            None => Ok(run),
            Some(b'\r') => {
                self.state = State::ChunkSizeLf;
                Ok(run + 1)
            }
            Some(_) => refuse(Violation::ChunkExtension, run),
        }
    }

    /// The last chunk has no data; trailer fields, which may be none, follow it.
    pub(super) fn chunk_size_end(&mut self, byte: u8) -> Result<usize, Refusal> {
        let last = self.remaining == 0;
        self.trailers = last;
        self.progress = 0;
        self.line_feed(byte, if last { State::FieldStart } else { State::ChunkData })
    }

    /// One byte of the CRLF that ends the data of a chunk.
    pub(super) fn chunk_data_end(&mut self, byte: u8, wanted: u8, then: State) -> Result<usize, Refusal> {
        if byte != wanted {
            return refuse(Violation::ChunkEnd, 0);
        }
        self.state = then;
        Ok(1)
    }
}
