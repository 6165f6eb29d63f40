//! Bytes through a TCP proxy: a source and sink that stands behind it, and the client in front.
//!
//! A connection begins with one byte of direction and eight bytes of length (big endian). Downloads then flow
//! towards the client; uploads towards the sink, which answers one byte when it has read all of it.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use crate::error::{Doing, Failure, Result};
use crate::net::{self, local};

/// One write, and the most that one read takes.
const CHUNK: usize = 128 * 1024;

/// Which way the bytes flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the source, through the proxy, to the client.
    Down,
    /// From the client, through the proxy, to the sink.
    Up,
}

impl Direction {
    fn code(self) -> u8 {
        match self {
            Self::Down => b'd',
            Self::Up => b'u',
        }
    }

    fn of(code: u8) -> Option<Self> {
        [Self::Down, Self::Up].into_iter().find(|direction| direction.code() == code)
    }
}

/// Starts the source and sink; it lives as long as this program. Returns its port.
pub(crate) fn serve() -> Result<u16> {
    let listener = TcpListener::bind(local(net::free_port()?)).doing("binding the source and sink")?;
    let port = listener.local_addr().doing("binding the source and sink")?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A proxy that breaks the connection shows at the client, which counts.
            thread::spawn(move || answer(stream));
        }
    });
    Ok(port)
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(net::PATIENCE))?;
    stream.set_write_timeout(Some(net::PATIENCE))?;
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let [code, length @ ..] = head;
    let length = u64::from_be_bytes(length);
    match Direction::of(code) {
        Some(Direction::Down) => send(&mut stream, length),
        Some(Direction::Up) => {
            receive(&mut stream, length)?;
            stream.write_all(b"k")
        }
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Moves `length` bytes through the proxy at `port`, to the last one.
pub(crate) fn transfer(port: u16, direction: Direction, length: u64) -> Result<()> {
    let mut stream = net::connect(port)?;
    let mut head = vec![direction.code()];
    head.extend(length.to_be_bytes());
    stream.write_all(&head).doing("asking for bytes")?;
    match direction {
        Direction::Down => receive(&mut stream, length).doing("downloading")?,
        Direction::Up => {
            send(&mut stream, length).doing("uploading")?;
            receive(&mut stream, 1).doing("waiting for the sink")?;
        }
    }
    match stream.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(Failure::new("bytes after the last one")),
        Err(error) => Err(Failure::new(format!("the end did not arrive: {error}"))),
    }
}

fn send(stream: &mut TcpStream, mut length: u64) -> io::Result<()> {
    let chunk = vec![0x5a; CHUNK];
    while length > 0 {
        let part = length.min(CHUNK as u64);
        stream.write_all(&chunk[..usize::try_from(part).expect("no more than a chunk")])?;
        length -= part;
    }
    Ok(())
}

fn receive(stream: &mut TcpStream, mut length: u64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    while length > 0 {
        let most = usize::try_from(length).unwrap_or(CHUNK).min(CHUNK);
        let read = stream.read(&mut chunk[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        length -= read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_end_at_the_last_byte() {
        #[track_caller]
        fn check(direction: Direction, length: u64) {
            let port = serve().unwrap();
            transfer(port, direction, length).unwrap();
        }
        check(Direction::Down, 0);
        check(Direction::Down, 3 * CHUNK as u64 + 1);
        check(Direction::Up, 1);
        check(Direction::Up, 2 * CHUNK as u64);
    }
}
