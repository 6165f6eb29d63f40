//! A worker's connections to endpoints: those that wait for a request, and HTTP/2 ones that carry several.
//!
//! HTTP/1 connections are taken last in, first out: the one used last is the least likely to have been closed, and
//! those beyond what the load needs grow old and are closed.

use std::cell::RefCell;
use std::rc::Rc;

use hashbrown::HashMap;

use super::{h1, h2};

/// The connections of one worker.
#[derive(Debug, Default)]
pub struct Pools(RefCell<HashMap<u64, Pool>>);

#[derive(Debug, Default)]
struct Pool {
    #[expect(
        clippy::vec_box,
        reason = "a connection is handed from pool to request and back, and moved by its pointer"
    )]
    h1: Vec<Box<h1::Conn>>,
    h2: Vec<Rc<h2::Conn>>,
}

impl Pools {
    /// An idle HTTP/1 connection to this endpoint.
    pub fn take_h1(&self, endpoint: u64) -> Option<Box<h1::Conn>> {
        let conn = self.0.borrow_mut().get_mut(&endpoint)?.h1.pop()?;
        conn.stats().idle.decrement(1);
        Some(conn)
    }

    /// A connection whose exchange is over; dropped unless it can serve another.
    pub fn put_h1(&self, conn: Box<h1::Conn>) {
        if conn.is_ready() && !conn.endpoint().is_retired() {
            conn.stats().idle.increment(1);
            self.0.borrow_mut().entry(conn.endpoint().id()).or_default().h1.push(conn);
        }
    }

    /// An HTTP/2 connection to this endpoint with room for a stream.
    pub fn find_h2(&self, endpoint: u64) -> Option<Rc<h2::Conn>> {
        let pools = self.0.borrow();
        pools.get(&endpoint)?.h2.iter().find(|conn| conn.has_room()).cloned()
    }

    /// An HTTP/2 connection to this endpoint that will soon know how much room it has.
    pub fn settling_h2(&self, endpoint: u64) -> Option<Rc<h2::Conn>> {
        let pools = self.0.borrow();
        pools.get(&endpoint)?.h2.iter().find(|conn| conn.is_settling()).cloned()
    }

    /// Offers a new HTTP/2 connection to all requests.
    pub fn put_h2(&self, conn: Rc<h2::Conn>) {
        self.0.borrow_mut().entry(conn.endpoint().id()).or_default().h2.push(conn);
    }

    /// Closes connections that have been idle for too long, whose endpoint has left its cluster, or that the upstream
    /// has closed.
    pub fn sweep(&self) {
        let mut dropped = Vec::new();
        self.0.borrow_mut().retain(|_, pool| {
            let keep = |conn: &mut Box<h1::Conn>| {
                conn.rest();
                !conn.is_stale() && !conn.endpoint().is_retired() && conn.is_ready()
            };
            dropped.extend(pool.h1.extract_if(.., |conn| !keep(conn)));
            pool.h2.retain(|conn| {
                if conn.is_stale() || (conn.is_idle() && conn.endpoint().is_retired()) {
                    conn.close();
                }
                !conn.is_closed()
            });
            !pool.h1.is_empty() || !pool.h2.is_empty()
        });
        // Dropped outside the borrow: a connection's end may reach for the pool.
        for conn in dropped {
            conn.stats().idle.decrement(1);
        }
    }
}
