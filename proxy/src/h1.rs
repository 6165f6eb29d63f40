//! HTTP/1.1 as it stands on the wire (RFC 9112), for both sides of the proxy: heads are read and written, bodies cut and
//! framed. Who speaks with whom, and when, is decided above.
//!
//! The framing guard's scanner is the only parser: it says where a head ends and what is content, and refuses whatever two
//! readers could understand differently. hyper, which does all of this too, would have to be shown each byte after the guard has been
//! through it, holds buffers for connections that wait, and keeps the spelling of names in a second map.

mod date;
mod head;
mod outgoing;
mod reader;
mod space;

#[cfg(test)]
pub(crate) mod tests;

pub use self::date::Dates;
pub use self::head::{
    Asked, Framing, Malformed, RequestHead, ResponseHead, read_request, read_response, status, write_request,
    write_response,
};
pub use self::outgoing::{Outgoing, Stopped};
pub use self::reader::{Cut, Reader, Refused};
pub use self::space::Space;
