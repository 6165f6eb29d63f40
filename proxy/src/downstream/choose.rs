//! Which chain of a listener takes a connection, where it has several. What is read to find out is kept: TLS goes on with it,
//! and where none is taken off it is passed on as it came.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustls::server::{Accepted, Acceptor, ClientHello};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::handshake::begins_handshake;
use crate::conn::Ends;
use crate::facts::{Arrival, Greeting};
use crate::io::socket::Socket;
use crate::live::{ChainViews, ListenerView};

/// Bytes read at once: a ClientHello fits, and no more than rustls takes at once.
const FIRST: usize = 2048;

/// A connection whose ClientHello has been read.
pub(super) struct Begun {
    /// The handshake, as far as it has come.
    pub(super) accepted: Accepted,
    /// All that was read.
    pub(super) bytes: Bytes,
}

/// Looks at a connection as far as its listener asks for it; `None` where no chain takes it.
///
/// # Errors
/// It ended, or began with what looks like TLS and is not.
pub(super) async fn choose(
    chains: &ChainViews,
    socket: &mut Socket,
    ends: Ends,
) -> io::Result<(Option<Arc<ListenerView>>, Option<Box<Begun>>)> {
    let mut arrival = Arrival { to: ends.destination(), from: ends.peer, hello: None };
    let mut begun = None;
    if chains.looks_into_tls() && begins_handshake(socket).await? {
        let read = hello(socket).await?;
        arrival.hello = Some(greeting(&read.accepted.client_hello()));
        begun = Some(read);
    }
    Ok((chains.find(&arrival).cloned(), begun))
}

async fn hello(socket: &mut Socket) -> io::Result<Box<Begun>> {
    let mut acceptor = Acceptor::default();
    let mut bytes = BytesMut::with_capacity(FIRST);
    loop {
        let before = bytes.len();
        bytes.reserve(FIRST);
        if (&mut *socket).take(FIRST as u64).read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut new = &bytes[before..];
        while !new.is_empty() {
            acceptor.read_tls(&mut new)?;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => return Ok(Box::new(Begun { accepted, bytes: bytes.freeze() })),
            Err((error, mut alert)) => {
                let mut told = Vec::new();
                alert.write_all(&mut told)?;
                // Whether it still hears of it or not, it is over.
                let _ = socket.write_all(&told).await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }
}

fn greeting(hello: &ClientHello<'_>) -> Greeting {
    Greeting {
        host: hello.server_name().map(|name| name.to_ascii_lowercase().into()),
        protocols: hello.alpn().into_iter().flatten().map(Box::from).collect(),
    }
}
