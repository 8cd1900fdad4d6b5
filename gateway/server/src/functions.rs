use http::{Request, Response};
use hyper::body::Incoming;
use runtime_api::CallId;
use runtime_http::{FunctionCall, Peer, forward_request};

use crate::{
    async_functions::push,
    gateway::Parts,
    invoke::{CallBody, invoke},
};

/// `/function/NAME…`.
pub(crate) async fn call(
    gateway: &Parts,
    call_id: CallId,
    peer: &Peer,
    request: Request<Incoming>,
) -> Response<CallBody> {
    match FunctionCall::read(call_id, request, |headers| forward_request(headers, Some(&peer.header))) {
        Ok(call) => plain(gateway, peer, call).await,
        Err(answer) => answer.map(CallBody::from),
    }
}

/// A plain call: made now, unless its function wants its calls kept and run later.
pub(crate) async fn plain(gateway: &Parts, peer: &Peer, call: FunctionCall) -> Response<CallBody> {
    match &gateway.later {
        Some(later) if gateway.provider.runs_later(&call.invocation.function) => {
            push(gateway, later, peer, call).await
        }
        _ => invoke(gateway, peer, call).await.response,
    }
}
