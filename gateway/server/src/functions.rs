use http::{Request, Response};
use hyper::body::Incoming;
use runtime_api::CallId;
use runtime_http::{FunctionCall, Peer, forward_request};

use crate::{
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
        Ok(call) => invoke(gateway, peer, call).await,
        Err(answer) => answer.map(CallBody::from),
    }
}
