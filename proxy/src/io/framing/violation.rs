//! Why a message was refused: one name a reason, so that logs, metrics and answers can tell them apart.

use std::fmt;

/// A violation and where it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub violation: Violation,
    /// Offset of the offending byte in the slice that was fed.
    pub at: usize,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {} of this read)", self.violation, self.at)
    }
}

impl std::error::Error for Refusal {}

/// What made a message ambiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Violation {
    /// More than one empty line before a request.
    EmptyLine,
    /// The method is not a token followed by a space.
    Method,
    /// The request target is empty or holds a byte outside visible ASCII.
    Target,
    /// The version is not exactly `HTTP/1.0` or `HTTP/1.1`, or is not where it belongs.
    Version,
    /// The status is not three digits from 100 to 999 between single spaces.
    StatusCode,
    /// A response that no request asked for.
    Unsolicited,
    /// More requests without a response than the guard can tell apart: a fault of ours, not the peer's.
    TooManyExpected,
    /// A CR that no LF follows.
    BareCr,
    /// An LF that no CR precedes.
    BareLf,
    /// NUL or another control character in a line.
    Control,
    /// A line that continues the one before it.
    ObsFold,
    /// A field line without a colon.
    MissingColon,
    /// A field line that begins with its colon.
    EmptyFieldName,
    /// White space in a field name or before its colon.
    SpaceInFieldName,
    /// A field name holds a byte that no token may.
    FieldName,
    /// Content-Length is not a decimal number below 2^63.
    ContentLength,
    /// More than one Content-Length, equal or not.
    ContentLengthRepeated,
    /// Transfer-Encoding is something else than `chunked`.
    TransferEncoding,
    /// More than one Transfer-Encoding.
    TransferEncodingRepeated,
    /// Transfer-Encoding in an HTTP/1.0 message.
    TransferEncodingInHttp10,
    /// Both Content-Length and Transfer-Encoding.
    BothFramings,
    /// A 1xx or 204 response that announces a body.
    FramingForbidden,
    /// A CONNECT request with content, or answered by 204.
    ConnectFraming,
    /// No Host in an HTTP/1.1 request.
    HostMissing,
    /// More than one Host.
    HostRepeated,
    /// A chunk size that is not hexadecimal digits alone.
    ChunkSize,
    /// A chunk size of more than 16 digits, or of 2^63 and more.
    ChunkSizeOverflow,
    /// A bare LF or a control character in a chunk extension.
    ChunkExtension,
    /// Chunk extensions beyond 256 bytes in a line or 16 KiB in a message.
    ChunkExtensionsTooLong,
    /// Chunk data that does not end where its size says.
    ChunkEnd,
    /// Content-Length, Transfer-Encoding or Host in a trailer section.
    TrailerField,
    /// A trailer section with too many fields, or too large ones.
    Trailers,
}

impl Violation {
    /// A stable name for logs and metrics, in `snake_case`.
    pub const fn code(self) -> &'static str {
        self.words().0
    }

    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::EmptyLine => ("empty_line", "more than one empty line before a request"),
            Self::Method => ("method", "the method is not a token followed by one space"),
            Self::Target => ("target", "the request target is empty, not visible ASCII, or has a fragment"),
            Self::Version => ("version", "the version is not HTTP/1.0 or HTTP/1.1"),
            Self::StatusCode => ("status_code", "the status is not three digits between single spaces"),
            Self::Unsolicited => ("unsolicited", "bytes from a server that owes no response"),
            Self::TooManyExpected => ("too_many_expected", "too many requests wait for a response"),
            Self::BareCr => ("bare_cr", "a CR is not followed by LF"),
            Self::BareLf => ("bare_lf", "a line ends in LF without CR"),
            Self::Control => ("control", "a line holds a control character"),
            Self::ObsFold => ("obs_fold", "a line begins with white space"),
            Self::MissingColon => ("missing_colon", "a field line has no colon"),
            Self::EmptyFieldName => ("empty_field_name", "a field has no name"),
            Self::SpaceInFieldName => ("space_in_field_name", "white space in or after a field name"),
            Self::FieldName => ("field_name", "a field name holds a forbidden byte"),
            Self::ContentLength => ("content_length", "Content-Length is not a number below 2^63"),
            Self::ContentLengthRepeated => ("content_length_repeated", "more than one Content-Length"),
            Self::TransferEncoding => ("transfer_encoding", "Transfer-Encoding is not `chunked`"),
            Self::TransferEncodingRepeated => {
                ("transfer_encoding_repeated", "more than one Transfer-Encoding")
            }
            Self::TransferEncodingInHttp10 => {
                ("transfer_encoding_in_http10", "Transfer-Encoding in HTTP/1.0")
            }
            Self::BothFramings => ("both_framings", "both Content-Length and Transfer-Encoding"),
            Self::FramingForbidden => ("framing_forbidden", "a response without a body announces one"),
            Self::ConnectFraming => ("connect_framing", "CONNECT with content, or answered by 204"),
            Self::HostMissing => ("host_missing", "an HTTP/1.1 request has no Host"),
            Self::HostRepeated => ("host_repeated", "more than one Host"),
            Self::ChunkSize => ("chunk_size", "a chunk size is not hexadecimal digits alone"),
            Self::ChunkSizeOverflow => ("chunk_size_overflow", "a chunk size is too large"),
            Self::ChunkExtension => ("chunk_extension", "a chunk extension holds a forbidden byte"),
            Self::ChunkExtensionsTooLong => ("chunk_extensions_too_long", "chunk extensions are too long"),
            Self::ChunkEnd => ("chunk_end", "a chunk does not end where its size says"),
            Self::Trailers => ("trailers", "the trailer section is too large"),
            Self::TrailerField => ("trailer_field", "a framing field or Host in the trailer section"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words().1)
    }
}
