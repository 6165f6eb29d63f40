//! Where a worker's connections read to and write from. What is read shares a block with what was read before, and a block
//! is free again when the last message in it is; so a message takes no memory but its own, and seldom an allocation.

use std::cell::RefCell;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// A block, in bytes, unless reads turn out to be larger. What is kept for long is to be copied out of it.
const BLOCK: usize = 16 * 1024;
/// Room that a read is given, at least and at most.
const LEAST: usize = 4 * 1024;
const MOST: usize = 32 * 1024;
/// So many reads in a row that needed a quarter of their room, and the next gets less.
const SMALL_READS: u8 = 16;
/// Room for a head, at first and at most for the next.
const HEAD: usize = 1024;
const MOST_KEPT: usize = 16 * 1024;
/// So many of them are kept: answers are under way for as long as their clients take.
const KEPT: usize = 16;

/// The space of one worker.
#[derive(Debug, Default)]
pub struct Space {
    read: RefCell<Reading>,
    write: RefCell<Vec<Vec<u8>>>,
}

#[derive(Debug)]
struct Reading {
    /// Empty, with room behind it.
    block: BytesMut,
    room: usize,
    small: u8,
}

impl Default for Reading {
    fn default() -> Self {
        Self { block: BytesMut::new(), room: LEAST, small: 0 }
    }
}

impl Space {
    /// Reads once: what came, nothing at the end.
    pub fn poll_read(
        &self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Poll<std::io::Result<BytesMut>> {
        let mut reading = self.read.borrow_mut();
        let Reading { block, room, small } = &mut *reading;
        if block.capacity() < *room {
            block.reserve(BLOCK.max(2 * *room));
        }
        let offered = block.capacity();
        let n = ready!(pin!(stream.read_buf(block)).poll(cx))?;
        if n == offered {
            (*room, *small) = ((2 * *room).min(MOST), 0);
        } else if n >= *room / 4 {
            *small = 0;
        } else {
            *small += 1;
            if *small == SMALL_READS {
                (*room, *small) = ((*room / 2).max(LEAST), 0);
            }
        }
        Poll::Ready(Ok(block.split()))
    }

    /// Space to gather in what is to be written. It is empty.
    pub fn take_write(&self) -> Vec<u8> {
        self.write.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(HEAD))
    }

    /// To be used by the next.
    pub fn put_write(&self, mut space: Vec<u8>) {
        let mut kept = self.write.borrow_mut();
        if space.capacity() <= MOST_KEPT && kept.len() < KEPT {
            space.clear();
            kept.push(space);
        }
    }
}
