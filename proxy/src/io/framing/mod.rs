//! Refuses HTTP/1.x whose framing two readers could understand differently (RFC 9112 sections 2 to 7).
//!
//! Many readers serve messages that others would cut elsewhere: both framing headers at once, a bare LF,
//! `Content-Length` twice. A [`Guard`] follows the boundaries of the messages and fails at the first byte that leaves
//! room for doubt; whoever reads cuts where it says.
//!
//! There is one scanner, and it can stop at any byte: it consumes runs of a slice and keeps what it must
//! know in a few bytes of state. Lines that are whole and leave nothing to doubt (nearly all are) are taken
//! at once; whatever else there is about a line is found, and judged, on the road that goes byte by byte. A
//! test holds that both read alike. The sizes of heads are not its concern.
//!
//! ```text
//! Start -> request line | status line -> fields -> Length | chunks -> trailer fields | UntilClose -> Start
//!                                                \-> Tunnel (101, or 2xx to CONNECT)
//! ```

mod chunked;
mod head;
mod violation;

#[cfg(test)]
pub(crate) mod tests;

pub use violation::{Refusal, Violation};

use head::{Field, Head};

/// Watches one direction of one connection. By itself it never allocates.
#[derive(Debug)]
pub struct Guard {
    state: State,
    role: Role,
    failed: Option<Violation>,
    /// The field whose line is being read.
    field: Field,
    /// How far the literal, number or line of `state` has come; its meaning belongs to the state.
    progress: u8,
    /// The field lines being read are trailer fields.
    trailers: bool,
    head: Head,
    /// Bytes of chunk extensions in the current line, and in the current message.
    extension_line: u16,
    extensions: u16,
    /// Content-Length while a head is read, then bytes of body or chunk still to come.
    remaining: u64,
    expected: Expected,
    messages: u64,
}

/// Where the peer is in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing of the next message has come; after an interim response, of the final one.
    BetweenMessages,
    /// A head has begun.
    Head,
    /// A body, its trailer section included.
    Body,
    /// What follows is not HTTP.
    Tunnel,
}

/// A run of bytes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// What they are.
    pub kind: Kind,
    /// How many of them there are, at least one.
    pub length: usize,
}

/// What a byte of a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of its head, or of an empty line before it.
    Head,
    /// Of its content; or of no message any more.
    Data,
    /// Of what the chunked coding puts between the parts of the content.
    Coding,
    /// Of the trailer section, its last empty line included.
    Trailers,
}

/// What a response must know of its request to be framed (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseTo {
    /// Has no body, whatever its head says.
    Head,
    /// Ends HTTP when it is a success.
    Connect,
    /// Every other method.
    Other,
}

impl From<&http::Method> for ResponseTo {
    fn from(method: &http::Method) -> Self {
        match *method {
            http::Method::HEAD => Self::Head,
            http::Method::CONNECT => Self::Connect,
            _ => Self::Other,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Requests,
    Responses,
}

/// What the next byte is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    EmptyLineLf,
    AfterEmptyLine,
    Method,
    Target,
    RequestVersion,
    RequestLineCr,
    StatusVersion,
    StatusCode,
    AfterStatus,
    Reason,
    LineLf,
    FieldStart,
    Name,
    Value,
    HeadLf,
    Length,
    ChunkSize,
    ChunkExtension,
    ChunkSizeLf,
    ChunkData,
    ChunkDataCr,
    ChunkDataLf,
    UntilClose,
    Tunnel,
}

impl Guard {
    /// A guard for what a client sends.
    pub fn requests() -> Self {
        Self::new(Role::Requests)
    }

    /// A guard for what a server sends. It refuses bytes until [`Self::expect_response_to`] was called.
    pub fn responses() -> Self {
        Self::new(Role::Responses)
    }

    fn new(role: Role) -> Self {
        Self {
            state: State::Start,
            role,
            failed: None,
            field: Field::Other,
            progress: 0,
            trailers: false,
            head: Head::default(),
            extension_line: 0,
            extensions: 0,
            remaining: 0,
            expected: Expected::default(),
            messages: 0,
        }
    }

    /// Announces a request that is about to be written: once for each, in their order. Up to 32 may wait
    /// for their final response; one more fails the guard, since it could no longer tell which is which.
    pub fn expect_response_to(&mut self, request: impl Into<ResponseTo>) {
        if !self.expected.push(request.into()) && self.failed.is_none() {
            self.failed = Some(Violation::TooManyExpected);
        }
    }

    /// Reads on. Errs at the first violation, with its place in `bytes`; what stands before that place is
    /// sound. Once failed, a guard refuses everything, at offset 0.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let part = self.next(rest).map_err(|refusal| Refusal { at: at + refusal.at, ..refusal })?;
            at += part.length;
        }
        Ok(())
    }

    /// What the next bytes are, of which there are some: up to where that changes, a head or a message ends, or they do.
    /// Errs as [`Self::feed`] does.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Part, Refusal> {
        if let Some(violation) = self.failed {
            return Err(Refusal { violation, at: 0 });
        }
        let (kind, messages) = (self.kind(), self.messages);
        let mut at = 0;
        while at < bytes.len() && self.kind() == kind && (at == 0 || self.messages == messages) {
            at += self.step(&bytes[at..]).map_err(|Refusal { violation, at: further }| {
                self.failed = Some(violation);
                Refusal { violation, at: at + further }
            })?;
            if self.state == State::Start {
                break;
            }
        }
        Ok(Part { kind, length: at })
    }

    /// Of which kind the next byte is.
    fn kind(&self) -> Kind {
        match self.state {
            State::Length | State::ChunkData | State::UntilClose | State::Tunnel => Kind::Data,
            State::ChunkSize
            | State::ChunkExtension
            | State::ChunkSizeLf
            | State::ChunkDataCr
            | State::ChunkDataLf => Kind::Coding,
            State::LineLf | State::FieldStart | State::Name | State::Value | State::HeadLf
                if self.trailers =>
            {
                Kind::Trailers
            }
            _ => Kind::Head,
        }
    }

    /// Bytes of the body that are still to come, where its head has said how many there are.
    pub fn to_come(&self) -> Option<u64> {
        (self.state == State::Length).then_some(self.remaining)
    }

    /// Whether the body's end is that of the connection.
    pub fn is_until_close(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Where the peer is; after a refusal, where it was then.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Start | State::EmptyLineLf | State::AfterEmptyLine => Phase::BetweenMessages,
            State::Method
            | State::Target
            | State::RequestVersion
            | State::RequestLineCr
            | State::StatusVersion
            | State::StatusCode
            | State::AfterStatus
            | State::Reason => Phase::Head,
            State::LineLf | State::FieldStart | State::Name | State::Value | State::HeadLf => {
                if self.trailers { Phase::Body } else { Phase::Head }
            }
            State::Length
            | State::ChunkSize
            | State::ChunkExtension
            | State::ChunkSizeLf
            | State::ChunkData
            | State::ChunkDataCr
            | State::ChunkDataLf
            | State::UntilClose => Phase::Body,
            State::Tunnel => Phase::Tunnel,
        }
    }

    /// Heads completed so far, those of interim (1xx) responses included.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Consumes some of `rest`, which is not empty, or changes the state; returns how much was consumed.
    #[inline]
    fn step(&mut self, rest: &[u8]) -> Result<usize, Refusal> {
        match self.state {
            State::Start | State::AfterEmptyLine => self.start(rest),
            State::EmptyLineLf => self.line_feed(rest[0], State::AfterEmptyLine),
            State::Method => self.method(rest),
            State::Target => self.target(rest),
            State::RequestVersion => self.version(rest, State::RequestLineCr),
            State::RequestLineCr => self.request_line_end(rest),
            State::StatusVersion => self.version(rest, State::StatusCode),
            State::StatusCode => self.status_code(rest),
            State::AfterStatus => self.after_status(rest),
            State::Reason => self.reason(rest),
            State::LineLf => self.line_feed(rest[0], State::FieldStart),
            State::FieldStart => self.field_start(rest),
            State::Name => self.name(rest),
            State::Value => self.value(rest),
            State::HeadLf => self.section_end(rest[0]),
            State::Length => Ok(self.skip(rest, State::Start)),
            State::ChunkSize => self.chunk_size(rest),
            State::ChunkExtension => self.chunk_extension(rest),
            State::ChunkSizeLf => self.chunk_size_end(rest[0]),
            State::ChunkData => Ok(self.skip(rest, State::ChunkDataCr)),
            State::ChunkDataCr => self.chunk_data_end(rest[0], b'\r', State::ChunkDataLf),
            State::ChunkDataLf => self.chunk_data_end(rest[0], b'\n', State::ChunkSize),
            State::UntilClose | State::Tunnel => Ok(rest.len()),
        }
    }

    /// The first byte of a message, or of an empty line before a request: RFC 9112 section 2.2 asks to
    /// bear with one, as old clients send it after a body.
    fn start(&mut self, rest: &[u8]) -> Result<usize, Refusal> {
        let first = rest[0];
        match self.role {
            Role::Responses if self.expected.front().is_none() => return refuse(Violation::Unsolicited, 0),
            Role::Responses => self.state = State::StatusVersion,
            Role::Requests if first == b'\r' && self.state == State::Start => {
                self.state = State::EmptyLineLf;
                return Ok(1);
            }
            Role::Requests if matches!(first, b'\r' | b'\n') => return refuse(Violation::EmptyLine, 0),
            Role::Requests => self.state = State::Method,
        }
        self.head = Head::default();
        self.trailers = false;
        self.progress = 0;
        self.remaining = 0;
        self.extensions = 0;
        let read = match self.role {
            Role::Requests => self.whole_request_line(rest),
            Role::Responses => self.whole_status_line(rest),
        };
        Ok(read.unwrap_or(0))
    }

    /// The LF of the empty line that ends a head or a trailer section.
    fn section_end(&mut self, byte: u8) -> Result<usize, Refusal> {
        self.line_feed(byte, State::Start)?;
        if !self.trailers {
            let body = match self.role {
                Role::Requests => self.request_body(),
                Role::Responses => self.response_body(),
            };
            self.state = body.or_else(|violation| {
                self.state = State::HeadLf;
                refuse(violation, 0)
            })?;
            self.messages += 1;
        }
        Ok(1)
    }

    fn request_body(&mut self) -> Result<State, Violation> {
        if !self.head.host && !self.head.http10 {
            return Err(Violation::HostMissing);
        }
        // RFC 9110 section 9.3.6 gives CONNECT no content: others take these bytes for the tunnel's.
        if self.head.connect && (self.head.chunked || self.remaining > 0) {
            return Err(Violation::ConnectFraming);
        }
        Ok(self.sized_body().unwrap_or(State::Start))
    }

    fn response_body(&mut self) -> Result<State, Violation> {
        let status = self.head.status;
        match status {
            101 => return Ok(State::Tunnel),
            100..=199 => return Ok(State::Start),
            _ => {}
        }
        let request = self.expected.pop();
        if request == Some(ResponseTo::Connect) && (200..=299).contains(&status) {
            // RFC 9110 makes every 2xx open the tunnel; some readers all but this one.
            return if status == 204 { Err(Violation::ConnectFraming) } else { Ok(State::Tunnel) };
        }
        if request == Some(ResponseTo::Head) || matches!(status, 204 | 304) {
            return Ok(State::Start);
        }
        Ok(self.sized_body().unwrap_or(State::UntilClose))
    }

    /// The state that reads the body its head announced, if it announced one.
    fn sized_body(&mut self) -> Option<State> {
        if self.head.chunked {
            self.progress = 0;
            self.remaining = 0;
            Some(State::ChunkSize)
        } else if self.head.length {
            Some(if self.remaining == 0 { State::Start } else { State::Length })
        } else {
            None
        }
    }

    /// Passes over what is left of a body or a chunk.
    fn skip(&mut self, rest: &[u8], then: State) -> usize {
        let read = usize::try_from(self.remaining).map_or(rest.len(), |remaining| remaining.min(rest.len()));
        self.remaining -= read as u64;
        if self.remaining == 0 {
            self.state = then;
        }
        read
    }

    fn line_feed(&mut self, byte: u8, then: State) -> Result<usize, Refusal> {
        if byte != b'\n' {
            return refuse(Violation::BareCr, 0);
        }
        self.state = then;
        Ok(1)
    }
}

fn refuse<T>(violation: Violation, at: usize) -> Result<T, Refusal> {
    Err(Refusal { violation, at })
}

/// Requests whose final response has not come, oldest in the lowest two bits; 0 is none.
#[derive(Debug, Default)]
struct Expected(u64);

impl Expected {
    /// False if there is no room.
    fn push(&mut self, request: ResponseTo) -> bool {
        let bits: u64 = match request {
            ResponseTo::Head => 1,
            ResponseTo::Connect => 2,
            ResponseTo::Other => 3,
        };
        let used = (u64::BITS - self.0.leading_zeros()).next_multiple_of(2);
        if used == u64::BITS {
            return false;
        }
        self.0 |= bits << used;
        true
    }

    fn front(&self) -> Option<ResponseTo> {
        match self.0 & 3 {
            1 => Some(ResponseTo::Head),
            2 => Some(ResponseTo::Connect),
            3 => Some(ResponseTo::Other),
            _ => None,
        }
    }

    fn pop(&mut self) -> Option<ResponseTo> {
        let front = self.front();
        self.0 >>= 2;
        front
    }
}
