//! Calls of wasi:http components. The guest is polled inside the response's own future, so a call needs no task.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderValue, StatusCode,
    header::{self, Entry},
};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use runtime_api::{Body, BodyError, Error, Invocation, Response, Result, empty, full};
use tokio::{sync::oneshot, time::error::Elapsed};
use tokio_util::task::TaskTracker;
use wasmtime::Store;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi_http::{
    Error as HttpError, WasiHttpView,
    p2::{
        bindings::{
            ProxyPre,
            http::types::{ErrorCode, Scheme},
        },
        body::HyperOutgoingBody,
    },
};

use crate::{
    guest_log::GuestLog,
    instance::{State, new_store},
    pool::{Call, Room},
};

/// Marks an answer that is not the function's own (`OpenFaaS` of-watchdog).
const INTERNAL: &str = "x-openfaas-internal";

/// The guest returned without having answered in full.
const NO_RESPONSE: &str = "no-response";

/// An answer up to this size whose guest has finished is sent in one piece.
const ONE_PIECE_BYTES: usize = 256 << 10;

type Head = http::Response<HyperOutgoingBody>;

/// Runs a guest to its response head; what remains of it runs as the body is read.
pub(crate) async fn call(call: Call, pre: &ProxyPre<State>, invocation: Invocation) -> Result<Response> {
    let Invocation { function, call_id, mut request } = invocation;
    if request.uri().authority().is_none()
        && let Entry::Vacant(host) = request.headers_mut().entry(header::HOST)
    {
        // HTTP/1.0 allows a request without a host; wasi:http does not.
        host.insert(HeaderValue::from_static("localhost"));
    }
    let start = call.start;
    let log = GuestLog::new(&function, &call_id);
    let mut wasi = WasiCtxBuilder::new();
    wasi.envs(&call.pool.settings.env).stdout(log.stream("stdout")).stderr(log.stream("stderr"));
    let mut store = new_store(call.engine(), &call.pool.settings.limits, wasi);

    let (send_head, mut head) = oneshot::channel();
    let request = store
        .data_mut()
        .http()
        .new_incoming_request(Scheme::Http, request.map(incoming))
        .map_err(bad_request)?;
    let answer = store.data_mut().http().new_response_outparam(send_head).map_err(crate::engine::boxed)?;
    let (pre, tails, deadline) = (pre.clone(), call.tails().clone(), call.deadline);
    let run = async move {
        let result = async {
            let proxy = pre.instantiate_async(&mut store).await?;
            proxy.wasi_http_incoming_handler().call_handle(&mut store, request, answer).await
        };
        let result = result.await.err();
        Finished { result, store }
    };
    let mut guest =
        Guest { run: Box::pin(tokio::time::timeout_at(deadline, run)), ended: None, log, _room: call.room };

    let head = poll_fn(|cx| {
        guest.poll(cx);
        match Pin::new(&mut head).poll(cx) {
            Poll::Ready(head) => Poll::Ready(head.ok()),
            Poll::Pending if guest.ended.is_some() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    let head = head.await;
    let mut response = match (guest.failure(), head) {
        (Some(Failure::Late), _) => timed_out(),
        (Some(Failure::Error(error)), _) => return Err(error),
        (None, Some(Ok(head))) => respond(head, guest, tails).await?,
        (None, Some(Err(code))) => return Err(gave_up(&code)),
        (None, None) => {
            return Err(failed(
                "no-response",
                "the function ended without an answer: it must set the response-outparam",
            ));
        }
    };
    if let Ok(duration) = HeaderValue::try_from(format!("{:.6}", start.elapsed().as_secs_f64())) {
        response.headers_mut().insert("x-duration-seconds", duration);
    }
    Ok(response)
}

fn incoming(body: Body) -> impl http_body::Body<Data = Bytes, Error = HttpError> + Send + 'static {
    body.map_err(|_| HttpError::ConnectionTerminated)
}

fn bad_request(error: wasmtime::Error) -> Error {
    Error::invalid("bad-request", format!("the request cannot be passed on: {error:#}"))
}

fn failed(code: &'static str, message: &str) -> Error {
    Error::FunctionFailed { code, message: message.into(), source: None }
}

fn gave_up(code: &ErrorCode) -> Error {
    Error::FunctionFailed {
        code: "guest-error",
        message: "the function answered with an error".into(),
        source: Some(format!("response-outparam was set to {code:?}").into()),
    }
}

/// What of-watchdog answers when `exec_timeout` is over (`OpenFaaS`).
fn timed_out() -> Response {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    response.headers_mut().insert(INTERNAL, HeaderValue::from_static("of-watchdog"));
    response.headers_mut().insert("x-error-code", HeaderValue::from_static("guest-timeout"));
    response
}

/// Takes what the guest has written by now. If that is all, it goes out in one piece with its length.
async fn respond(head: Head, guest: Guest, tails: TaskTracker) -> Result<Response> {
    let (parts, body) = head.into_parts();
    if parts.status.is_informational() {
        return Err(failed("bad-response", "the function answered with a 1xx status, which ends no request"));
    }
    let mut rest = GuestBody { body, guest: Some(guest), tails };
    let mut first = BytesMut::new();
    let mut next = None;
    let gather = poll_fn(|cx| {
        while first.len() < ONE_PIECE_BYTES {
            match rest.poll_next(cx)? {
                Poll::Pending => break,
                Poll::Ready(None) => return Poll::Ready(Ok(true)),
                Poll::Ready(Some(frame)) => match frame.into_data() {
                    Ok(data) => first.extend_from_slice(&data),
                    Err(trailers) => {
                        next = Some(trailers);
                        break;
                    }
                },
            }
        }
        Poll::Ready(Ok::<_, Error>(false))
    });
    let whole = match gather.await {
        Ok(whole) => whole,
        // A guest that answers with an error and leaves the body be, as JavaScript's does when a handler throws,
        // has said what it had to say.
        Err(Error::FunctionFailed { code: NO_RESPONSE, .. })
            if is_error(parts.status) && first.is_empty() =>
        {
            true
        }
        Err(error) => return Err(error),
    };
    let body = if whole {
        full(first.freeze())
    } else {
        let data = (!first.is_empty()).then(|| Frame::data(first.freeze()));
        Streamed { ready: data.into_iter().chain(next).collect(), rest }.boxed_unsync()
    };
    Ok(http::Response::from_parts(parts, body))
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// An answer whose guest still runs.
struct Streamed {
    ready: VecDeque<Frame<Bytes>>,
    rest: GuestBody,
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, BodyError>>> {
        if let Some(frame) = self.ready.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        self.rest.poll_next(cx).map(|next| next.map_err(|error| self.rest.report(error)).transpose())
    }
}

/// The rest of an answer, and the guest that writes it: reading the one runs the other.
struct GuestBody {
    body: HyperOutgoingBody,
    guest: Option<Guest>,
    tails: TaskTracker,
}

impl GuestBody {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>>> {
        let mut guest_polled = false;
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => return Poll::Ready(Ok(Some(frame))),
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(self.broken_off())),
                Poll::Ready(None) => return Poll::Ready(self.end()),
                Poll::Pending => {}
            }
            match &mut self.guest {
                // Nobody is left who could write or finish the body.
                Some(guest) if guest.ended.is_some() => return Poll::Ready(Err(self.broken_off())),
                Some(guest) if !guest_polled => guest.poll(cx),
                _ => return Poll::Pending,
            }
            guest_polled = true;
        }
    }

    /// The body's end, if the guest did not fail. A guest that goes on after its answer is let run.
    fn end(&mut self) -> Result<Option<Frame<Bytes>>> {
        let Some(mut guest) = self.guest.take() else { return Ok(None) };
        if guest.ended.is_none() {
            self.tails.spawn(guest.run_to_end());
            return Ok(None);
        }
        guest.failure().map_or(Ok(None), |failure| Err(failure.into()))
    }

    /// Logs what can no longer be told by a status, and cuts the answer off.
    fn report(&self, error: Error) -> BodyError {
        if let Some(guest) = &self.guest {
            guest.log.failed(&error);
        }
        error.into()
    }

    fn broken_off(&mut self) -> Error {
        let failure = self.guest.as_mut().and_then(Guest::failure);
        failure.map_or_else(|| failed(NO_RESPONSE, "the function dropped its answer half-way"), Error::from)
    }
}

/// The guest of one call, polled by whoever wants its answer.
struct Guest {
    run: Pin<Box<dyn Future<Output = std::result::Result<Finished, Elapsed>> + Send>>,
    ended: Option<std::result::Result<Finished, Elapsed>>,
    log: GuestLog,
    _room: Room,
}

/// A guest that returned. Its store keeps what it left unfinished apart from what it finished.
struct Finished {
    result: Option<wasmtime::Error>,
    store: Store<State>,
}

enum Failure {
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
    fn poll(&mut self, cx: &mut Context<'_>) {
        if self.ended.is_none()
            && let Poll::Ready(ended) = self.run.as_mut().poll(cx)
        {
            self.ended = Some(ended);
        }
    }

    /// Why the guest ended other than by returning; told once.
    fn failure(&mut self) -> Option<Failure> {
        match self.ended.as_mut()? {
            Err(_) => Some(Failure::Late),
            Ok(Finished { result, store }) => {
                let error = result.take()?;
                Some(Failure::Error(store.data().lacked_room(&error).unwrap_or_else(|| trapped(error))))
            }
        }
    }

    async fn run_to_end(mut self) {
        poll_fn(|cx| {
            self.poll(cx);
            if self.ended.is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        if let Some(failure) = self.failure() {
            self.log.failed(&failure.into());
        }
    }
}

fn trapped(error: wasmtime::Error) -> Error {
    Error::FunctionFailed {
        code: "guest-trap",
        message: "the function trapped".into(),
        // With all its causes, of which a chain of errors would tell the first alone.
        source: Some(format!("{error:?}").into()),
    }
}
