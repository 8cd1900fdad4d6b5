use std::{future::pending, sync::Arc};

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header::ALLOW, uri::PathAndQuery};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use runtime_api::{Body, CallId, DEFAULT_NAMESPACE, Error, FunctionName, Invocation, Result, empty};
use runtime_http::{answer, is_route_name, no_route};
use tokio::sync::Notify;

use crate::{
    gateway::Parts,
    headers::forward_request,
    invoke::{CallBody, invoke, not_found},
    request_body::RequestBody,
};

/// `/function/NAME…`: the path after the name reaches the function byte for byte.
pub(crate) async fn call(
    gateway: &Parts,
    call_id: CallId,
    peer: &HeaderValue,
    request: Request<Incoming>,
) -> Response<CallBody> {
    let (function, target) = match target(request.uri()) {
        Ok(target) => target,
        Err(error) => return answer(&error, &call_id).map(CallBody::from),
    };
    if !is_callable(request.method()) {
        return method_not_allowed().map(CallBody::from);
    }
    let (mut parts, incoming) = request.into_parts();
    parts.uri = target;
    forward_request(&mut parts.headers, peer);
    if incoming.is_end_stream() {
        let invocation = Invocation { function, call_id, request: Request::from_parts(parts, empty()) };
        return invoke(gateway, invocation, pending()).await;
    }
    let stalled = Arc::new(Notify::new());
    let body = RequestBody::new(incoming, Arc::clone(&stalled)).boxed_unsync();
    let invocation = Invocation { function, call_id, request: Request::from_parts(parts, body) };
    invoke(gateway, invocation, stalled.notified()).await
}

/// Which function a URI is for, and the URI that the function sees.
fn target(uri: &Uri) -> Result<(FunctionName, Uri)> {
    let (name, rest) = split(uri).filter(|(name, _)| is_route_name(name)).ok_or_else(no_route)?;
    // A name that no function can have is one that does not exist.
    let function =
        FunctionName::parse(name).map_err(|error| not_found(&qualified(name), &error.to_string()))?;
    let rest =
        if rest.starts_with('/') { PathAndQuery::try_from(rest) } else { format!("/{rest}").try_into() };
    Ok((function, rest.map_err(Error::internal)?.into()))
}

fn split(uri: &Uri) -> Option<(&str, &str)> {
    let rest = uri.path_and_query()?.as_str().strip_prefix("/function/")?;
    rest.split_at_checked(rest.find(['/', '?']).unwrap_or(rest.len()))
}

fn qualified(name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { format!("{name}.{DEFAULT_NAMESPACE}") }
}

fn is_callable(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::GET, Method::OPTIONS, Method::HEAD]
        .contains(method)
}

fn method_not_allowed() -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    let callable = HeaderValue::from_static("POST, PUT, PATCH, DELETE, GET, OPTIONS, HEAD");
    response.headers_mut().insert(ALLOW, callable);
    response
}
