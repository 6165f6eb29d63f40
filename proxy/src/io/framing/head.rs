//! Start lines and field lines: RFC 9112 sections 2 to 5, and the fields of section 6 that frame a body.
//!
//! Each function reads a run of its own kind of byte and stops where the slice or the run ends. Values
//! are looked into only for the two fields that frame; `Host` is counted, its value is routing's matter.

use super::{Guard, Refusal, Role, State, Violation, refuse};

/// The largest body or chunk: what fits a signed 64 bit number, since other readers may use one.
pub(super) const MAX_LENGTH: u64 = i64::MAX as u64;

const VERSION: &[u8] = b"HTTP/1.";
const CONNECT: &[u8] = b"CONNECT";
const CHUNKED: &[u8] = b"chunked";
const LINE_END: &[u8] = b"\r\n";

/// What the lines of the current head have said so far.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) http10: bool,
    pub(super) connect: bool,
    pub(super) host: bool,
    pub(super) length: bool,
    pub(super) chunked: bool,
    /// 0 in requests.
    pub(super) status: u16,
}

/// The fields that matter here. While a name is read: the only one it can still become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Host,
    ContentLength,
    TransferEncoding,
    Other,
}

impl Field {
    fn starting_with(first: u8) -> Self {
        match first {
            b'h' | b'H' => Self::Host,
            b'c' | b'C' => Self::ContentLength,
            b't' | b'T' => Self::TransferEncoding,
            _ => Self::Other,
        }
    }

    const fn name(self) -> &'static [u8] {
        match self {
            Self::Host => b"host",
            Self::ContentLength => b"content-length",
            Self::TransferEncoding => b"transfer-encoding",
            Self::Other => b"",
        }
    }
}

/// How far the value of a Content-Length has come.
mod length {
    pub(super) const EMPTY: u8 = 0;
    pub(super) const DIGITS: u8 = 1;
    pub(super) const TRAILING_SPACE: u8 = 2;
}

impl Guard {
    /// A request line with nothing to be said against it, of which no part is missing; else it is read by parts.
    pub(super) fn whole_request_line(&mut self, rest: &[u8]) -> Option<usize> {
        let method = run_of(rest, TOKEN);
        let target = method + 1;
        let version = target + run_of(rest.get(target..)?, TARGET);
        let (http10, end) = whole_version(rest.get(version + 1..)?)?;
        let spaced = method > 0 && version > target && rest[method] == b' ' && rest[version] == b' ';
        let line = version + 1 + end;
        if !spaced || rest.get(line..line + 2)? != LINE_END {
            return None;
        }
        (self.head.connect, self.head.http10) = (&rest[..method] == CONNECT, http10);
        self.state = State::FieldStart;
        Some(line + 2)
    }

    /// The same of a status line.
    pub(super) fn whole_status_line(&mut self, rest: &[u8]) -> Option<usize> {
        let (http10, version) = whole_version(rest)?;
        let [b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' '] =
            *rest.get(version..)?.first_chunk::<5>()?
        else {
            return None;
        };
        let reason = version + 5;
        let line = reason + text_run(&rest[reason..]);
        if rest.get(line..line + 2)? != LINE_END {
            return None;
        }
        self.head.http10 = http10;
        self.head.status = [a, b, c].iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        self.state = State::FieldStart;
        Some(line + 2)
    }

    pub(super) fn method(&mut self, rest: &[u8]) -> Result<usize, Refusal> {
        let run = run_of(rest, TOKEN);
        // `connect` holds while the method is a prefix of CONNECT; a first run that is empty has no method.
        let from = usize::from(self.progress);
        let is_prefix = CONNECT.get(from..from + run) == Some(&rest[..run]);
        self.head.connect = is_prefix && (from == 0 || self.head.connect);
        self.progress = self.progress.saturating_add(u8::try_from(run).unwrap_or(u8::MAX));
        match rest.get(run) {
            None => Ok(run),
            Some(b' ') if self.progress > 0 => {
                self.head.connect &= usize::from(self.progress) == CONNECT.len();
                self.progress = 0;
                self.state = State::Target;
                Ok(run + 1)
            }
            Some(_) => refuse(Violation::Method, run),
        }
    }

    pub(super) fn target(&mut self, rest: &[u8]) -> Result<usize, Refusal> {
        let run = run_of(rest, TARGET);
        let empty = self.progress == 0 && run == 0;
        self.progress = u8::from(!empty);
        match rest.get(run) {
            None => Ok(run),
            Some(b' ') if !empty => {
                self.progress = 0;
                self.state = State::RequestVersion;
                Ok(run + 1)
            }
            Some(b'\r' | b'\n') if !empty => refuse(Violation::Version, run),
            Some(_) => refuse(Violation::Target, run),
        }
    }

    pub(super) fn version(&mut self, rest: &[u8], then: State) -> Result<usize, Refusal> {
        let wanted = &VERSION[usize::from(self.progress)..];
        let run = rest.iter().zip(wanted).take_while(|(byte, wanted)| byte == wanted).count();
        self.progress += run as u8;
        match rest.get(run) {
            None => Ok(run),
            Some(minor @ (b'0' | b'1')) if run == wanted.len() => {
                self.head.http10 = *minor == b'0';
                self.progress = 0;
                self.state = then;
                Ok(run + 1)
            }
            Some(_) => refuse(Violation::Version, run),
        }
    }

    pub(super) fn request_line_end(&mut self, rest: &[u8]) -> Result<usize, Refusal> {
        match rest[0] {
            b'\r' | b'\n' => self.line_end(rest, 0),
            _ => refuse(Violation::Version, 0),
        }
    }

    /// The space after the version, then three digits.
    pub(super) fn status_code(&mut self, rest: &[u8]) -> Result<usize, Refusal> {
        match (self.progress, rest[0]) {
            (0, b' ') => {}
            (1, digit @ b'1'..=b'9') | (2 | 3, digit @ b'0'..=b'9') => {
                self.head.status = self.head.status * 10 + u16::from(digit - b'0');
            }
            _ => return refuse(Violation::StatusCode, 0),
        }
        self.progress += 1;
        if self.progress == 4 {
            self.state = State::AfterStatus;
        }
        Ok(1)
    }

    /// The reason may be absent, and hyper accepts that its space is too.
    pub(super) fn after_status(&mut self, rest: &[u8]) -> Result<usize, Refusal> {
        match rest[0] {
            b' ' => {
                self.state = State::Reason;
                Ok(1)
            }
            b'\r' | b'\n' => self.line_end(rest, 0),
            _ => refuse(Violation::StatusCode, 0),
        }
    }

    pub(super) fn reason(&mut self, rest: &[u8]) -> Result<usize, Refusal> {
        let run = text_run(rest);
        if run == rest.len() { Ok(run) } else { self.line_end(rest, run) }
    }

    pub(super) fn field_start(&mut self, rest: &[u8]) -> Result<usize, Refusal> {
        let mut whole = 0;
        while let Some(read) =
            whole_field(&rest[whole..]).or_else(|| self.whole_framing_field(&rest[whole..]))
        {
            whole += read;
        }
        if whole > 0 {
            return Ok(whole);
        }
        match rest[0] {
            b'\r' => {
                self.state = State::HeadLf;
                Ok(1)
            }
            b'\n' => refuse(Violation::BareLf, 0),
            b' ' | b'\t' => refuse(Violation::ObsFold, 0),
            b':' => refuse(Violation::EmptyFieldName, 0),
            first => {
                self.field = Field::starting_with(first);
                self.progress = 0;
                self.state = State::Name;
                self.name(rest)
            }
        }
    }

    /// The length of the line, of which no part is missing, of a field that matters here, with nothing to be said against it.
    fn whole_framing_field(&mut self, rest: &[u8]) -> Option<usize> {
        let field = Field::starting_with(*rest.first()?);
        let name = field.name();
        let is_it = field != Field::Other
            && rest.get(name.len()) == Some(&b':')
            && rest[..name.len()].eq_ignore_ascii_case(name);
        let bodiless = self.role == Role::Responses && matches!(self.head.status, 100..=199 | 204);
        if !is_it || self.trailers || bodiless {
            return None;
        }
        let value = name.len() + 1;
        let end = value + text_run(&rest[value..]);
        if rest.get(end..end + 2)? != LINE_END {
            return None;
        }
        let value = rest[value..end].trim_ascii();
        let head = &mut self.head;
        match field {
            Field::Host if !head.host => head.host = true,
            Field::ContentLength if !head.length && !head.chunked && (1..=18).contains(&value.len()) => {
                let digits = value.iter().map(|byte| byte.wrapping_sub(b'0'));
                if !digits.clone().all(|digit| digit < 10) {
                    return None;
                }
                head.length = true;
                self.remaining = digits.fold(0, |length, digit| length * 10 + u64::from(digit));
            }
            Field::TransferEncoding
                if !head.chunked && !head.length && !head.http10 && value.eq_ignore_ascii_case(CHUNKED) =>
            {
                head.chunked = true;
            }
            _ => return None,
        }
        Some(end + 2)
    }

    pub(super) fn name(&mut self, rest: &[u8]) -> Result<usize, Refusal> {
        let run = run_of(rest, TOKEN);
        if self.field != Field::Other {
            let from = usize::from(self.progress);
            match self.field.name().get(from..from + run) {
                Some(part) if part.eq_ignore_ascii_case(&rest[..run]) => self.progress += run as u8,
                _ => self.field = Field::Other,
            }
        }
        match rest.get(run) {
            None => Ok(run),
            Some(b':') => {
                self.named(run)?;
                self.state = State::Value;
                Ok(run + 1)
            }
            Some(b' ' | b'\t') => refuse(Violation::SpaceInFieldName, run),
            Some(b'\r' | b'\n') => refuse(Violation::MissingColon, run),
            Some(_) => refuse(Violation::FieldName, run),
        }
    }

    /// The name is whole, its colon stands at `at`: may this field stand here?
    fn named(&mut self, at: usize) -> Result<(), Refusal> {
        if self.field == Field::Other || usize::from(self.progress) < self.field.name().len() {
            self.field = Field::Other;
            return Ok(());
        }
        self.progress = 0;
        if self.trailers {
            return refuse(Violation::TrailerField, at);
        }
        let bodiless = self.role == Role::Responses && matches!(self.head.status, 100..=199 | 204);
        let head = &mut self.head;
        let violation = match self.field {
            Field::Host if head.host => Violation::HostRepeated,
            Field::ContentLength if head.length => Violation::ContentLengthRepeated,
            Field::TransferEncoding if head.chunked => Violation::TransferEncodingRepeated,
            Field::ContentLength if head.chunked => Violation::BothFramings,
            Field::TransferEncoding if head.length => Violation::BothFramings,
            Field::TransferEncoding if head.http10 => Violation::TransferEncodingInHttp10,
            Field::TransferEncoding if bodiless => Violation::FramingForbidden,
            Field::ContentLength if bodiless && head.status != 204 => Violation::FramingForbidden,
            Field::Host => {
                head.host = true;
                return Ok(());
            }
            Field::ContentLength => {
                head.length = true;
                return Ok(());
            }
            Field::TransferEncoding => {
                head.chunked = true;
                return Ok(());
            }
            Field::Other => return Ok(()),
        };
        refuse(violation, at)
    }

    pub(super) fn value(&mut self, rest: &[u8]) -> Result<usize, Refusal> {
        let run = text_run(rest);
        match self.field {
            Field::ContentLength => self.content_length(&rest[..run])?,
            Field::TransferEncoding => self.transfer_encoding(&rest[..run])?,
            Field::Host | Field::Other => {}
        }
        if run == rest.len() {
            return Ok(run);
        }
        if rest[run] == b'\r' {
            self.value_end(run)?;
        }
        self.line_end(rest, run)
    }

    /// A part of a value: `OWS 1*DIGIT OWS`, and no list.
    fn content_length(&mut self, part: &[u8]) -> Result<(), Refusal> {
        for (at, &byte) in part.iter().enumerate() {
            match (self.progress, byte) {
                (length::EMPTY | length::TRAILING_SPACE, b' ' | b'\t') => {}
                (length::DIGITS, b' ' | b'\t') => self.progress = length::TRAILING_SPACE,
                (length::EMPTY | length::DIGITS, b'0'..=b'9') => {
                    self.progress = length::DIGITS;
                    self.remaining = (self.remaining.checked_mul(10))
                        .and_then(|tens| tens.checked_add(u64::from(byte - b'0')))
                        .filter(|&length| length <= MAX_LENGTH)
                        .ok_or(Refusal { violation: Violation::ContentLength, at })?;
                }
                (length::DIGITS | length::TRAILING_SPACE, b',') => {
                    return refuse(Violation::ContentLengthRepeated, at);
                }
                _ => return refuse(Violation::ContentLength, at),
            }
        }
        Ok(())
    }

    /// A part of a value: `OWS "chunked" OWS`, in any case.
    fn transfer_encoding(&mut self, part: &[u8]) -> Result<(), Refusal> {
        for (at, &byte) in part.iter().enumerate() {
            let read = usize::from(self.progress);
            let between = read == 0 || read == CHUNKED.len();
            match CHUNKED.get(read) {
                Some(wanted) if byte.eq_ignore_ascii_case(wanted) => self.progress += 1,
                _ if between && matches!(byte, b' ' | b'\t') => {}
                _ => return refuse(Violation::TransferEncoding, at),
            }
        }
        Ok(())
    }

    /// The value is whole, its CR stands at `at`.
    fn value_end(&mut self, at: usize) -> Result<(), Refusal> {
        match self.field {
            Field::ContentLength if self.progress == length::EMPTY => refuse(Violation::ContentLength, at),
            // A 204 that says it has no content says nothing doubtful, and servers in use do.
            Field::ContentLength if self.head.status == 204 && self.remaining > 0 => {
                refuse(Violation::FramingForbidden, at)
            }
            Field::TransferEncoding if usize::from(self.progress) < CHUNKED.len() => {
                refuse(Violation::TransferEncoding, at)
            }
            Field::ContentLength | Field::TransferEncoding | Field::Host | Field::Other => Ok(()),
        }
    }

    /// The byte at `at` ended a run of text, so it must be the CR that ends the line.
    fn line_end(&mut self, rest: &[u8], at: usize) -> Result<usize, Refusal> {
        match rest[at] {
            b'\r' => {
                self.state = State::LineLf;
                Ok(at + 1)
            }
            b'\n' => refuse(Violation::BareLf, at),
            _ => refuse(Violation::Control, at),
        }
    }
}

/// `HTTP/1.0` or `HTTP/1.1`: whether it is the former, and where it ends.
fn whole_version(rest: &[u8]) -> Option<(bool, usize)> {
    match rest.strip_prefix(VERSION)?.first()? {
        b'0' => Some((true, VERSION.len() + 1)),
        b'1' => Some((false, VERSION.len() + 1)),
        _ => None,
    }
}

/// The length of the line, of which no part is missing, of a field that can be none of those that matter here.
#[inline]
fn whole_field(rest: &[u8]) -> Option<usize> {
    let name = run_of(rest, TOKEN);
    let matters = || Field::starting_with(rest[0]).name().len() == name;
    if name == 0 || rest.get(name) != Some(&b':') || matters() {
        return None;
    }
    let end = name + 1 + text_run(&rest[name + 1..]);
    (rest.get(end..end + 2)? == LINE_END).then_some(end + 2)
}

const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const TEXT: u8 = 4;

/// The kinds of run each byte may be part of. Targets are plain ASCII: beyond it, some readers see white
/// space (0x85, 0xA0) and cut there.
static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut class = 0;
        if matches!(byte as u8, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'!' | b'#'..=b'\'' | b'*' | b'+')
            || matches!(byte as u8, b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
        {
            class |= TOKEN;
        }
        // A fragment is never sent (RFC 9112 section 3.2), and our own parser would drop it unseen.
        if matches!(byte as u8, 0x21..=0x7e) && byte as u8 != b'#' {
            class |= TARGET;
        }
        if matches!(byte as u8, b'\t' | 0x20..=0x7e | 0x80..) {
            class |= TEXT;
        }
        classes[byte] = class;
        byte += 1;
    }
    classes
}

#[inline]
fn run_of(rest: &[u8], class: u8) -> usize {
    rest.iter().position(|&byte| CLASSES[usize::from(byte)] & class == 0).unwrap_or(rest.len())
}

/// `run_of(rest, TEXT)`, 16 bytes at a time: values can be long (cookies, tokens), and the loop without an
/// early way out is what the compiler turns into vector instructions.
#[inline]
pub(super) fn text_run(rest: &[u8]) -> usize {
    let mut run = 0;
    while let Some(block) = rest[run..].first_chunk::<16>() {
        let plain = block.iter().fold(true, |plain, &byte| plain & (byte >= b' ') & (byte != 0x7f));
        if !plain {
            let part = run_of(block, TEXT);
            if part < block.len() {
                return run + part;
            }
        }
        run += block.len();
    }
    run + run_of(&rest[run..], TEXT)
}
