//! Ports, and an HTTP/1.1 client just large enough to see a proxy ready and to leave a connection idle.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::error::{Doing, Failure, Result};

/// How long any single read, write or connect may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The address of `port` on this machine.
pub(crate) fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A port nobody listens on, below the range of outgoing connections: the load would collide with those.
pub(crate) fn free_port() -> Result<u16> {
    const FIRST: u16 = 20_000;
    const LAST: u16 = 32_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in FIRST..LAST {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let start = u16::try_from(std::process::id() % 12_000).unwrap_or(0);
        let port = FIRST + (start + step) % (LAST - FIRST);
        if TcpListener::bind(local(port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Failure::new(format!("no free port between {FIRST} and {LAST}")))
}

/// Connects, with a limit on this and on each later read and write.
pub(crate) fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&local(port), PATIENCE)
        .doing(format_args!("connecting to port {port}"))?;
    stream.set_read_timeout(Some(PATIENCE)).doing("setting a limit")?;
    stream.set_write_timeout(Some(PATIENCE)).doing("setting a limit")?;
    stream.set_nodelay(true).doing("turning Nagle's algorithm off")?;
    Ok(stream)
}

/// Whether `GET path` is answered with 200.
pub(crate) fn answers(port: u16, path: &str) -> bool {
    connect(port).is_ok_and(|mut stream| get(&mut stream, path).is_ok_and(|status| status == 200))
}

/// The same, of this host.
pub(crate) fn answers_for(port: u16, host: &str, path: &str) -> bool {
    connect(port)
        .is_ok_and(|mut stream| ask(&mut stream, host, path, "close").is_ok_and(|status| status == 200))
}

/// Sends `GET path` on a connection that stays open, and reads the whole answer. Returns its status.
pub(crate) fn get(stream: &mut TcpStream, path: &str) -> Result<u16> {
    request(stream, path, "keep-alive")
}

/// Sends `GET path` with this `connection` header, and reads the whole answer. Returns its status.
pub(crate) fn request(stream: &mut (impl Read + Write), path: &str, connection: &str) -> Result<u16> {
    ask(stream, "127.0.0.1", path, connection)
}

fn ask(stream: &mut (impl Read + Write), host: &str, path: &str, connection: &str) -> Result<u16> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: {connection}\r\n\r\n");
    exchange(stream, request.as_bytes())
}

/// Sends a request as it is written, and reads the whole answer. Returns its status.
pub(crate) fn exchange(stream: &mut (impl Read + Write), request: &[u8]) -> Result<u16> {
    stream.write_all(request).doing("sending a request")?;
    let mut answer = Vec::with_capacity(1024);
    let mut piece = [0; 1024];
    loop {
        let read = stream.read(&mut piece).doing("reading an answer")?;
        answer.extend_from_slice(&piece[..read]);
        match whole(&answer) {
            Some(status) => return Ok(status),
            None if read == 0 => return Err(Failure::new("the connection ended within an answer")),
            None => {}
        }
    }
}

/// The status of an answer that has come whole.
pub(crate) fn whole(bytes: &[u8]) -> Option<u16> {
    let Answer { status, length } = Answer::parse(bytes)?;
    (bytes.len() >= length).then_some(status)
}

/// Whether the peer still keeps an idle connection: neither closed nor sent anything.
pub(crate) fn is_idle(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).is_ok()
        && stream.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// The head of an answer whose end is announced by `content-length`; chunked ones end with their last chunk.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    /// Bytes of head and body.
    length: usize,
}

impl Answer {
    /// `None` until the head is whole.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let length = match field("content-length:") {
            Some(length) => end + length.parse::<usize>().ok()?,
            None if field("transfer-encoding:").is_some() && !bytes.ends_with(b"0\r\n\r\n") => usize::MAX,
            None => end,
        };
        Some(Self { status, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        #[track_caller]
        fn check(bytes: &str, expected: Option<(u16, usize)>) {
            let expected = expected.map(|(status, length)| Answer { status, length });
            assert_eq!(Answer::parse(bytes.as_bytes()), expected);
        }
        check("HTTP/1.1 200 OK\r\nContent-Le", None);
        check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", Some((200, 43)));
        check("HTTP/1.1 503 No\r\n\r\n", Some((503, 19)));
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", Some((200, usize::MAX)));
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Some((200, 47)));
    }
}
