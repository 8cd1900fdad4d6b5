use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use runtime_api::{Body, BodyError, CallId, Error, FunctionName};
use runtime_http::{FunctionCall, Peer, Unattributed, answer, are_presented, function_not_found};
use tracing::{Instrument, debug_span};

use crate::{gateway::Parts, metrics::Running};

/// What a call came to.
pub(crate) struct Invoked {
    /// What its caller is told.
    pub(crate) response: Response<CallBody>,
    /// Why it is not the function that answered, if it is not.
    pub(crate) error: Option<Arc<Error>>,
}

/// The one path that every call takes: measured, answered or refused, its body streaming.
pub(crate) async fn invoke(gateway: &Parts, peer: &Peer, call: FunctionCall) -> Invoked {
    let (function, call_id) = (call.invocation.function.clone(), call.invocation.call_id.clone());
    if let Some(activator) = &gateway.activator
        && let Err(error) = activator.wake(&*gateway.provider, &function).await
    {
        return refused(error, &function, &call_id);
    }
    let mut running = None;
    let span = debug_span!("invocation", %call_id, %function);
    let presented = are_presented(call.invocation.request.headers());
    // Who waits at the gate does not call yet.
    let begun = async {
        running = Some(gateway.metrics.begin(&function));
        call.run(&*gateway.provider).await
    };
    let answered = gateway.gate.call(peer.address, &function, presented, begun).instrument(span).await;
    let Some(mut running) = running else {
        let error = answered.err().unwrap_or_else(|| Error::internal("a call was answered before it began"));
        return Invoked { response: answer(&error, &call_id).map(CallBody::from), error: Some(error.into()) };
    };
    let (response, is_known, error) = match answered {
        Ok(response) => {
            let is_known = response.extensions().get::<Unattributed>().is_none();
            (response, is_known, None)
        }
        Err(error @ Error::NotFound(_)) => {
            running.forget();
            return refused(error.into(), &function, &call_id);
        }
        Err(error @ Error::Unauthenticated { .. }) => {
            let response = answer(&error, &call_id);
            running.refused(response.status());
            return Invoked { response: response.map(CallBody::from), error: Some(error.into()) };
        }
        Err(error) => (answer(&error, &call_id), is_found(&error), Some(error.into())),
    };
    running.answered(response.status(), is_known);
    Invoked { response: response.map(|inner| CallBody { inner, _running: Some(running) }), error }
}

/// In the words that clients of `OpenFaaS` know.
fn refused(error: Arc<Error>, function: &FunctionName, call_id: &CallId) -> Invoked {
    let error = match &*error {
        Error::NotFound(reason) => function_not_found(function.as_str(), reason).into(),
        _ => error,
    };
    Invoked { response: answer(&error, call_id).map(CallBody::from), error: Some(error) }
}

/// Whether an error tells that there is such a function: these come before anybody looks.
fn is_found(error: &Error) -> bool {
    !matches!(error, Error::Unreachable { .. } | Error::TooManyAttempts { .. } | Error::Invalid { .. })
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
