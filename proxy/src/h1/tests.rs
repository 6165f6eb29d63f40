//! What is read is what hyper reads, and what is written is what hyper understands by it, however it comes and goes.

mod clients;
mod upstreams;

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

pub(crate) use self::upstreams::fetched;
use crate::body::BodyError;

/// What a head may have, in the tests.
const MOST: usize = 1000;

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

async fn collect<E>(body: impl http_body::Body<Data = Bytes, Error = E>) -> Result<(Vec<u8>, HeaderMap), E> {
    let mut body = pin!(body);
    let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(more) => data.extend_from_slice(&more),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok((data, trailers))
}

/// A body of these frames, each of which is waited for once.
struct Frames {
    frames: Vec<Frame<Bytes>>,
    waits: bool,
    sized: bool,
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.waits = !self.waits;
        if self.waits {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready((!self.frames.is_empty()).then(|| Ok(self.frames.remove(0))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        let length: usize = self.frames.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
        if self.sized {
            http_body::SizeHint::with_exact(length as u64)
        } else {
            http_body::SizeHint::default()
        }
    }
}
