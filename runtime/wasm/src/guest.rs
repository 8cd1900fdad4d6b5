//! The guest of one wasi:http call, polled by whoever wants its answer.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use runtime_api::Error;
use tokio::time::{Instant, Timeout, timeout_at};

use wasmtime::Store;

use crate::{
    guest_log::{GuestLog, report},
    instance::State,
    long::Run,
    pool::Room,
};

/// A running guest, with all that its call holds. Dropping it ends it.
pub(crate) struct Guest {
    ended: Option<Ended>,
    run: Pin<Box<Timeout<Run<Returned>>>>,
    pub(crate) log: GuestLog,
    pub(crate) deadline: Instant,
    /// The time that it was allowed, for the log.
    pub(crate) limit: Duration,
}

/// A guest that returned. Its store keeps what it left unfinished apart from what it finished.
pub(crate) struct Returned {
    pub(crate) result: Option<wasmtime::Error>,
    pub(crate) store: Store<State>,
}

enum Ended {
    /// The room is given back after the store.
    Returned(Returned, #[expect(dead_code, reason = "held until it is dropped")] Room),
    Late,
}

/// Why a guest ended other than by returning.
pub(crate) enum Failure {
    Late,
    Error(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Late => Self::TimedOut("the function did not end within its time".into()),
            Failure::Error(error) => error,
        }
    }
}

impl Guest {
    pub(crate) fn new(
        run: impl Future<Output = Returned> + Send + 'static,
        log: GuestLog,
        (deadline, limit): (Instant, Duration),
        room: Room,
    ) -> Self {
        let run = Run::new(Box::pin(run), room);
        Self { ended: None, run: Box::pin(timeout_at(deadline, run)), log, deadline, limit }
    }

    /// Lets the guest go on. True once it has ended.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if self.ended.is_none()
            && let Poll::Ready(ended) = self.run.as_mut().poll(cx)
        {
            self.ended = Some(ended.map_or(Ended::Late, |(returned, room)| Ended::Returned(returned, room)));
        }
        self.has_ended()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Why it failed, if it did; told once.
    pub(crate) fn failure(&mut self) -> Option<Failure> {
        match self.ended.as_mut()? {
            Ended::Late => Some(Failure::Late),
            Ended::Returned(Returned { result, store }, _) => {
                let error = result.take()?;
                Some(Failure::Error(
                    store.data().usage.lacked_room(&error).unwrap_or_else(|| trapped(&error)),
                ))
            }
        }
    }

    /// Lets a guest end whose answer is sent.
    pub(crate) async fn run_to_end(mut self) {
        poll_fn(|cx| if self.poll(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
        match self.failure() {
            None => {}
            Some(Failure::Late) => self.log.late(self.limit),
            Some(Failure::Error(error)) => self.log.failed(&error),
        }
    }
}

fn trapped(error: &wasmtime::Error) -> Error {
    Error::FunctionFailed {
        code: "guest-trap".into(),
        message: "the function trapped".into(),
        // With all its causes, of which a chain of errors would tell the first alone.
        source: Some(report(format_args!("{error:?}")).into()),
    }
}
