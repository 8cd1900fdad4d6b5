use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use runtime_api::BodyError;
use tokio::{
    sync::Notify,
    time::{Sleep, sleep},
};

/// How long a client may send nothing of a body that it has begun.
const MAX_SILENCE: Duration = Duration::from_secs(30);

/// A request's body, which fails and tells `stalled` when the client stops sending it.
pub struct RequestBody {
    incoming: Incoming,
    /// Set only while there is nothing to read.
    silence: Option<Pin<Box<Sleep>>>,
    stalled: Arc<Notify>,
}

impl RequestBody {
    /// Watches over a body that a client sends.
    pub fn new(incoming: Incoming, stalled: Arc<Notify>) -> Self {
        Self { incoming, silence: None, stalled }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            self.silence = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        ready!(self.silence.get_or_insert_with(|| Box::pin(sleep(MAX_SILENCE))).as_mut().poll(cx));
        self.silence = None;
        self.stalled.notify_one();
        Poll::Ready(Some(Err("the client stopped sending the body".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
