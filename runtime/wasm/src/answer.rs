//! An answer, and the guest that writes it: reading the one runs the other.

use std::{
    collections::VecDeque,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http::{StatusCode, header::CONTENT_LENGTH};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use runtime_api::{BodyError, Error, Response, Result, full};
use tokio::{runtime::Handle, task::unconstrained};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::{
    access::Access,
    guest::{Failure, Guest},
    guest_log::GuestLog,
    pool::panicked,
};

/// The guest returned without having answered in full.
pub(crate) const NO_RESPONSE: &str = "no-response";

/// An answer up to this size whose guest has finished is sent in one piece.
const ONE_PIECE_BYTES: usize = 256 << 10;

/// Headers of one answer, as many as other servers take. What they hold together is bounded as they are made, and those
/// that frame a connection's messages are refused then.
const MAX_HEADERS: usize = 100;

pub(crate) fn failed(code: &'static str, message: &str) -> Error {
    Error::FunctionFailed { code: code.into(), message: message.into(), source: None }
}

/// Takes what the guest has written by now. If that is all, it goes out in one piece with its length.
pub(crate) async fn respond(
    head: http::Response<HyperOutgoingBody>,
    guest: Guest,
    tails: TaskTracker,
    access: Option<Access>,
) -> Result<Response> {
    let (parts, body) = head.into_parts();
    if parts.status.is_informational() {
        return Err(failed("bad-response", "the function answered with a 1xx status, which ends no request"));
    }
    if parts.headers.len() > MAX_HEADERS {
        let message = format!("the function answered with more than {MAX_HEADERS} headers");
        return Err(failed("bad-response", &message));
    }
    let mut rest = Rest::new(body, guest, tails, is_error(parts.status));
    let mut first = BytesMut::new();
    let gathered = poll_fn(|cx| Poll::Ready(rest.gather(&mut first, cx))).await;
    let whole = gathered?;
    let body = if whole {
        if let Some(access) = access {
            access.answered(parts.status, first.len() as u64);
        }
        full(first.freeze())
    } else {
        if !first.is_empty() {
            rest.ready.push_front(Frame::data(first.freeze()));
        }
        let length = parts.headers.get(CONTENT_LENGTH);
        let left_bytes = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let access = access.map(|access| (access, parts.status));
        Streamed::start(rest, left_bytes, access).boxed_unsync()
    };
    Ok(http::Response::from_parts(parts, body))
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// What remains of an answer.
struct Rest {
    body: HyperOutgoingBody,
    /// The guest, until it ends.
    guest: Option<Guest>,
    /// What it has written and nobody has read.
    ready: VecDeque<Frame<Bytes>>,
    /// How the answer ends, once that is known; told after what is ready.
    end: Option<Result<()>>,
    /// Who waits for more.
    reader: Option<Waker>,
    /// Whether the head tells of an error.
    is_error: bool,
    /// Whether some of the body was taken.
    begun: bool,
    log: GuestLog,
    tails: TaskTracker,
}

impl Rest {
    fn new(body: HyperOutgoingBody, guest: Guest, tails: TaskTracker, is_error: bool) -> Self {
        let (ended, log) = (guest.has_ended(), guest.log.clone());
        let mut rest = Self {
            body,
            guest: Some(guest),
            ready: VecDeque::new(),
            end: None,
            reader: None,
            is_error,
            begun: false,
            log,
            tails,
        };
        if ended {
            rest.settle();
        }
        rest
    }

    /// Collects data up to the size of one piece. True if that is the whole answer.
    fn gather(&mut self, first: &mut BytesMut, cx: &mut Context<'_>) -> Result<bool> {
        while first.len() < ONE_PIECE_BYTES {
            match self.poll_next(cx)? {
                Poll::Pending => return Ok(false),
                Poll::Ready(None) => return Ok(true),
                Poll::Ready(Some(frame)) => match frame.into_data() {
                    Ok(data) => first.extend_from_slice(&data),
                    Err(trailers) => {
                        self.ready.push_front(trailers);
                        return Ok(false);
                    }
                },
            }
        }
        Ok(false)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>>> {
        let mut guest_polled = false;
        loop {
            if let Some(frame) = self.ready.pop_front() {
                self.begun = true;
                return Poll::Ready(Ok(Some(frame)));
            }
            if let Some(end) = self.end.take() {
                return Poll::Ready(end.map(|()| None));
            }
            let Some(guest) = &mut self.guest else { return Poll::Ready(Ok(None)) };
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.ready.push_back(frame),
                Poll::Ready(Some(Err(_))) => self.finish(self.broken_off()),
                Poll::Ready(None) => {
                    self.let_go_on();
                    self.end = Some(Ok(()));
                }
                Poll::Pending if guest_polled => {
                    self.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Pending => {
                    guest_polled = true;
                    if guest.poll(cx) {
                        self.settle();
                    }
                }
            }
        }
    }

    /// The guest has ended, and nobody is left who could write more: takes what it wrote and gives its instance back.
    fn settle(&mut self) {
        let failure = self.guest.as_mut().and_then(Guest::failure);
        let mut cx = Context::from_waker(Waker::noop());
        let complete = loop {
            // Pending must mean that there is no more, and not that this task has had its share of steps.
            let mut next = pin!(unconstrained(self.body.frame()));
            match next.as_mut().poll(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => self.ready.push_back(frame),
                Poll::Ready(None) => break true,
                Poll::Ready(Some(Err(_))) | Poll::Pending => break false,
            }
        };
        self.finish(match failure {
            Some(failure) => Err(self.told(failure)),
            None if complete => Ok(()),
            None => self.broken_off(),
        });
    }

    /// What a body is that its guest gave up. A guest that answers with an error and leaves the body be, as JavaScript's
    /// does when a handler throws, has said what it had to say.
    fn broken_off(&self) -> Result<()> {
        if self.is_error && !self.begun && self.ready.is_empty() {
            return Ok(());
        }
        Err(failed(NO_RESPONSE, "the function dropped its answer half-way"))
    }

    /// An error of a failure; that a guest was late is logged here, since its reader may never come to know.
    fn told(&self, failure: Failure) -> Error {
        if let (Failure::Late, Some(guest)) = (&failure, &self.guest) {
            guest.log.late(guest.limit);
        }
        failure.into()
    }

    /// The guest, and what it wrote, are in no state to go on.
    fn give_up(&mut self) {
        self.guest = None;
        self.ready.clear();
        self.end = None;
    }

    fn finish(&mut self, end: Result<()>) {
        self.end = Some(end);
        self.guest = None;
    }

    /// A guest may go on after its answer, within its time.
    fn let_go_on(&mut self) {
        if let (Some(guest), Ok(runtime)) = (self.guest.take(), Handle::try_current()) {
            self.tails.spawn_on(guest.run_to_end(), &runtime);
        }
    }
}

/// An answer whose guest still runs.
struct Streamed {
    rest: Arc<Mutex<Rest>>,
    /// Bytes until the length that the head promised.
    left_bytes: Option<u64>,
    /// Bytes that were read.
    sent_bytes: u64,
    /// What the log is told at the end.
    access: Option<(Access, StatusCode)>,
    _timer: Option<AbortOnDropHandle<()>>,
}

impl Streamed {
    /// A reader that takes its time does not lengthen the guest's: a timer ends the guest when nobody polls it.
    fn start(rest: Rest, left_bytes: Option<u64>, access: Option<(Access, StatusCode)>) -> Self {
        let deadline = rest.guest.as_ref().map(|guest| guest.deadline);
        let tails = rest.tails.clone();
        let rest = Arc::new(Mutex::new(rest));
        let timed = rest.clone();
        let timer = deadline.map(|deadline| {
            AbortOnDropHandle::new(tails.spawn(async move {
                tokio::time::sleep_until(deadline).await;
                let mut rest = lock(&timed);
                if rest.guest.is_some() {
                    let late = rest.told(Failure::Late);
                    rest.finish(Err(late));
                    if let Some(reader) = rest.reader.take() {
                        reader.wake();
                    }
                }
            }))
        });
        Self { rest, left_bytes, sent_bytes: 0, access, _timer: timer }
    }
}

fn lock(rest: &Mutex<Rest>) -> MutexGuard<'_, Rest> {
    rest.lock().unwrap_or_else(PoisonError::into_inner)
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, BodyError>>> {
        let next = catch_unwind(AssertUnwindSafe(|| lock(&self.rest).poll_next(cx)));
        let next = next.unwrap_or_else(|_| {
            lock(&self.rest).give_up();
            Poll::Ready(Err(panicked()))
        });
        if let Poll::Ready(Ok(Some(frame))) = &next {
            let sent = frame.data_ref().map_or(0, |data| data.len() as u64);
            self.left_bytes = self.left_bytes.map(|left| left.saturating_sub(sent));
            self.sent_bytes += sent;
        }
        if let Poll::Ready(Err(error)) = &next
            && !matches!(error, Error::TimedOut(_))
        {
            // No status can tell of it any more. That a guest was late is in the log already.
            lock(&self.rest).log.failed(error);
        }
        next.map(|next| next.map_err(BodyError::from).transpose())
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        let mut rest = lock(&self.rest);
        // The server stops reading at the length that was promised, which is an end like any other.
        if self.left_bytes == Some(0) {
            rest.let_go_on();
        }
        // At once, and not when the timer is gone.
        rest.guest = None;
        drop(rest);
        if let Some((access, status)) = self.access.take() {
            access.answered(status, self.sent_bytes);
        }
    }
}
