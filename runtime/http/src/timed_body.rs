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
    time::{Instant, Sleep, sleep_until},
};

/// How long a client may send nothing of a body that it has begun.
const MAX_SILENCE: Duration = Duration::from_secs(30);

/// A body that fails when it is late.
pub struct TimedBody {
    incoming: Incoming,
    limit: Limit,
    /// Set once there was nothing to read, of a silence until there is something.
    late: Option<Pin<Box<Sleep>>>,
}

enum Limit {
    /// Nothing may arrive for so long, and whoever waits is told of it.
    Silence(Arc<Notify>),
    /// All of it arrives by then.
    Deadline(Instant),
}

impl TimedBody {
    /// One that a client sends, which tells `stalled` when the client stops sending it.
    pub fn of_request(incoming: Incoming, stalled: Arc<Notify>) -> Self {
        Self { incoming, limit: Limit::Silence(stalled), late: None }
    }

    /// An answer's, which ends with the call's time.
    pub(crate) fn of_answer(incoming: Incoming, deadline: Instant) -> Self {
        Self { incoming, limit: Limit::Deadline(deadline), late: None }
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) {
            let over = match this.limit {
                Limit::Silence(_) => {
                    this.late = None;
                    false
                }
                // A body that never pauses ends in time, too.
                Limit::Deadline(deadline) => Instant::now() >= deadline,
            };
            return Poll::Ready(match frame {
                Some(_) if over => Some(Err(this.limit.reason())),
                frame => frame.map(|frame| frame.map_err(Into::into)),
            });
        }
        let late = this.late.get_or_insert_with(|| Box::pin(sleep_until(this.limit.end())));
        ready!(late.as_mut().poll(cx));
        this.late = None;
        if let Limit::Silence(stalled) = &this.limit {
            stalled.notify_one();
        }
        Poll::Ready(Some(Err(this.limit.reason())))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Limit {
    fn end(&self) -> Instant {
        match self {
            Self::Silence(_) => Instant::now() + MAX_SILENCE,
            Self::Deadline(deadline) => *deadline,
        }
    }

    fn reason(&self) -> BodyError {
        match self {
            Self::Silence(_) => "the client stopped sending the body".into(),
            Self::Deadline(_) => "the call's time is over before its answer is".into(),
        }
    }
}
