//! A service that answers as services do: heads of several fields, some content, now and then a failure.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;

use crate::error::{Doing, Result};

/// Of so many requests that may fail, one does.
const FAILS: u32 = 25;

/// The service. It serves until the process ends.
#[derive(Debug)]
pub(crate) struct Origin {
    port: u16,
}

impl Origin {
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").doing("starting a service")?;
        let port = listener.local_addr().doing("starting a service")?.port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Whoever goes away has had enough.
                thread::spawn(move || serve(&stream));
            }
        });
        Ok(Self { port })
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

fn serve(stream: &TcpStream) -> std::io::Result<()> {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    stream.set_nodelay(true)?;
    let mut read = BufReader::new(stream);
    let mut write = stream;
    loop {
        let Some((path, length)) = head(&mut read)? else { return Ok(()) };
        match length {
            Some(length) => {
                std::io::copy(&mut read.by_ref().take(length), &mut std::io::sink())?;
            }
            None => chunks(&mut read)?,
        }
        let fails = path.contains("/flaky") && ASKED.fetch_add(1, Relaxed).is_multiple_of(FAILS);
        write.write_all(&answer(&path, fails))?;
    }
}

/// The path of a request and the length of its body, `None` where that comes in chunks; nothing at the end.
fn head(read: &mut impl BufRead) -> std::io::Result<Option<(String, Option<u64>)>> {
    let mut line = String::new();
    if read.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
    let mut length = Some(0);
    loop {
        line.clear();
        read.read_line(&mut line)?;
        let field = line.trim_end().to_ascii_lowercase();
        match field.split_once(": ") {
            Some(("content-length", said)) => length = said.parse().ok(),
            Some(("transfer-encoding", _)) => length = None,
            Some(_) => {}
            None => return Ok(Some((path, length))),
        }
    }
}

fn chunks(read: &mut impl BufRead) -> std::io::Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        read.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim_end(), 16).unwrap_or(0);
        std::io::copy(&mut read.by_ref().take(size + 2), &mut std::io::sink())?;
        if size == 0 {
            return Ok(());
        }
    }
}

fn answer(path: &str, fails: bool) -> Vec<u8> {
    if fails {
        return b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nlater".to_vec();
    }
    let size = match path.rsplit('/').next() {
        Some("page") => 6000,
        Some("image") => 40_000,
        Some("empty") => 0,
        Some(_) | None => 700,
    };
    let body = vec![b'x'; size];
    let mut answer = b"HTTP/1.1 200 OK\r\n\
        Server: service/1.4\r\n\
        Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
        Content-Type: application/json; charset=utf-8\r\n\
        Cache-Control: private, max-age=0, must-revalidate\r\n\
        ETag: \"5e1f-18c2a9\"\r\n\
        Vary: Accept-Encoding\r\n\
        X-Powered-By: habit\r\n\
        X-Request-Id: 7d1c2c4e-6d0f-4b62-9f39-5f2b8c1d0a77\r\n"
        .to_vec();
    if path.ends_with("/stream") {
        answer.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        for piece in body.chunks(256) {
            answer.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            answer.extend_from_slice(piece);
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(b"0\r\n\r\n");
    } else {
        answer.extend_from_slice(format!("Content-Length: {size}\r\n\r\n").as_bytes());
        answer.extend_from_slice(&body);
    }
    answer
}
