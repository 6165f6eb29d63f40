//! Connections that carried one request each and then stay open, to weigh what they cost.

use std::net::TcpStream;

use rustix::process::{Resource, getrlimit};

use crate::error::{Failure, Result};
use crate::net;

/// Descriptors that are not client connections: files, the proxy's upstream connections, ourselves.
const SPARE: usize = 500;

/// Idle connections; dropping it closes them.
#[derive(Debug)]
pub(crate) struct Idle(Vec<TcpStream>);

impl Idle {
    /// Opens `count` connections to `port`, each after the request of the one before was answered.
    pub(crate) fn open(port: u16, count: usize) -> Result<Self> {
        let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
        if limit.is_some_and(|limit| limit < count + SPARE) {
            return Err(Failure::new(format!("{count} connections need `ulimit -n` of {}", count + SPARE)));
        }
        let one = |_| {
            let mut stream = net::connect(port)?;
            match net::get(&mut stream, "/")? {
                200 => Ok(stream),
                status => Err(Failure::new(format!("answered {status}"))),
            }
        };
        (0..count).map(one).collect::<Result<_>>().map(Self)
    }

    /// How many the proxy has closed since.
    pub(crate) fn closed(&mut self) -> usize {
        self.0.iter_mut().filter_map(|stream| (!net::is_idle(stream)).then_some(())).count()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}
