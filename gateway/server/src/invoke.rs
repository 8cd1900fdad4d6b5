use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Response, header::CONTENT_TYPE};
use http_body::{Body as _, Frame, SizeHint};
use runtime_api::{Body, BodyError, Error, Invocation, Result};
use runtime_http::answer;
use tokio::select;
use tracing::{Instrument, debug_span};

use crate::{gateway::Parts, headers::forward_response, metrics::Running};

/// The one path that every call takes: measured, answered or refused, its body streaming.
///
/// `stalled` ends the call when the client stops sending its body.
pub(crate) async fn invoke(
    gateway: &Parts,
    invocation: Invocation,
    stalled: impl Future<Output = ()>,
) -> Response<CallBody> {
    let mut running = gateway.metrics.begin(&invocation.function);
    let (function, call_id) = (invocation.function.clone(), invocation.call_id.clone());
    let method = invocation.request.method().clone();
    let request_type = invocation.request.headers().get(CONTENT_TYPE).cloned();
    let span = debug_span!("invocation", %call_id, %function);
    let result = select! {
        biased;
        result = gateway.provider.invoke(invocation).instrument(span) => result.and_then(fit_to_send),
        () = stalled => Err(Error::invalid("request-timeout", "the request's body stopped arriving")),
    };
    let response = match result {
        Ok(mut response) => {
            let body_size = response.body().size_hint().exact();
            forward_response(response.headers_mut(), &method, body_size, request_type);
            response
        }
        Err(Error::NotFound(reason)) => {
            running.forget();
            return answer(&not_found(function.as_str(), &reason), &call_id).map(CallBody::from);
        }
        Err(error) => answer(&error, &call_id),
    };
    running.answered(response.status());
    response.map(|inner| CallBody { inner, _running: Some(running) })
}

/// The text that clients of `OpenFaaS` know.
pub(crate) fn not_found(function: &str, reason: &str) -> Error {
    Error::NotFound(format!("error finding function {function}: {reason}"))
}

/// An interim status cannot be an answer, and taken for one it would leave the client waiting (RFC 9110 §15.2).
fn fit_to_send(response: Response<Body>) -> Result<Response<Body>> {
    if !response.status().is_informational() {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let message = format!("the function answered with the interim status {status}; answer with 200 to 599");
    Err(Error::FunctionFailed { code: "bad-response", message, source: None })
}

/// The body of an answer. A call lasts until its body is dropped.
pub struct CallBody {
    inner: Body,
    _running: Option<Running>,
}

impl From<Body> for CallBody {
    fn from(inner: Body) -> Self {
        Self { inner, _running: None }
    }
}

impl http_body::Body for CallBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
