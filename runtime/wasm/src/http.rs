//! Calls of wasi:http components. The guest is polled inside the response's own future, so a call needs no task.

use std::{future::poll_fn, pin::Pin, task::Poll};

use bytes::Bytes;
use http::{
    HeaderValue, StatusCode,
    header::{self, Entry},
};
use http_body_util::BodyExt;
use runtime_api::{Body, Error, Invocation, Response, Result, empty};
use tokio::sync::oneshot;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi_http::{
    Error as HttpError, WasiHttpView,
    p2::bindings::{
        ProxyPre,
        http::types::{ErrorCode, Scheme},
    },
};

use crate::{
    access::Access,
    answer::{NO_RESPONSE, failed, respond},
    guest::{Failure, Guest, Returned},
    guest_log::{GuestLog, report},
    instance::{State, new_store},
    pool::Call,
};

/// Marks an answer that is not the function's own (`OpenFaaS` of-watchdog).
const INTERNAL: &str = "x-openfaas-internal";

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
    let log = GuestLog::new(&function, &call_id, call.pool.log().cloned());
    let access = Access::of(&call, &request, &call_id);
    let mut wasi = WasiCtxBuilder::new();
    wasi.envs(&call.pool.settings.env).stdout(log.stream("stdout")).stderr(log.stream("stderr"));
    let limits = &call.pool.settings.limits;
    let mut store = new_store(call.engine(), limits, call.start, call.usage(), call.secrets(), wasi);

    let (send_head, mut head) = oneshot::channel();
    let request = store
        .data_mut()
        .http()
        .new_incoming_request(Scheme::Http, request.map(incoming))
        .map_err(bad_request)?;
    let answer = store.data_mut().http().new_response_outparam(send_head).map_err(crate::engine::boxed)?;
    let (pre, tails) = (pre.clone(), call.tails().clone());
    let run = async move {
        let result = async {
            let proxy = pre.instantiate_async(&mut store).await?;
            proxy.wasi_http_incoming_handler().call_handle(&mut store, request, answer).await
        };
        let result = result.await.err();
        Returned { result, store }
    };
    let mut guest = Guest::new(run, log, (call.deadline, call.limit), call.room);

    let head = poll_fn(|cx| {
        let ended = guest.poll(cx);
        match Pin::new(&mut head).poll(cx) {
            Poll::Ready(head) => Poll::Ready(head.ok()),
            // Pending may mean no more than that this task has had its share of steps.
            Poll::Pending if ended => Poll::Ready(head.try_recv().ok()),
            Poll::Pending => Poll::Pending,
        }
    });
    let head = head.await;
    let mut response = match (guest.failure(), head) {
        (Some(Failure::Late), _) => {
            guest.log.late(guest.limit);
            timed_out()
        }
        (Some(Failure::Error(error)), _) => return Err(error),
        (None, Some(Ok(head))) => match respond(head, guest, tails, access).await {
            Err(Error::TimedOut(_)) => timed_out(),
            answered => answered?,
        },
        (None, Some(Err(code))) => return Err(gave_up(&code)),
        (None, None) => {
            return Err(failed(
                NO_RESPONSE,
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

fn gave_up(code: &ErrorCode) -> Error {
    Error::FunctionFailed {
        code: "guest-error".into(),
        message: "the function answered with an error".into(),
        source: Some(report(format_args!("response-outparam was set to {code:?}")).into()),
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
