use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use runtime_api::BodyError;
use tokio::time::{Instant, Sleep, sleep_until};

/// An answer's body that fails when the call's time is over.
pub(crate) struct Until {
    incoming: Incoming,
    deadline: Instant,
    /// Set once there is nothing to read.
    over: Option<Pin<Box<Sleep>>>,
}

impl Until {
    pub(crate) fn new(incoming: Incoming, deadline: Instant) -> Self {
        Self { incoming, deadline, over: None }
    }
}

impl Body for Until {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let deadline = this.deadline;
        if let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) {
            // A body that never pauses ends in time, too.
            let late = frame.is_some() && Instant::now() >= deadline;
            return Poll::Ready(if late {
                Some(Err(LATE.into()))
            } else {
                frame.map(|frame| frame.map_err(Into::into))
            });
        }
        let over = this.over.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        over.as_mut().poll(cx).map(|()| Some(Err(LATE.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

const LATE: &str = "the call's time is over before its answer is";
