use std::{future::pending, sync::Arc};

use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri,
    header::{ALLOW, CONTENT_TYPE},
    uri::PathAndQuery,
};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use runtime_api::{
    Body, CallId, DEFAULT_NAMESPACE, Error, FunctionName, Invocation, Provider, Response, Result, empty,
};
use tokio::{select, sync::Notify};

use crate::{TimedBody, answer, headers::forward_response, is_route_name, no_route};

/// A request for `/function/NAME…` or `/async-function/NAME…`: the path after the name reaches the function byte for byte.
pub struct FunctionCall {
    /// What the provider is asked.
    pub invocation: Invocation,
    /// Told when the client stops sending a body that it has begun.
    pub stalled: Option<Arc<Notify>>,
}

impl FunctionCall {
    /// Takes a request apart. `forward` makes its headers those that the function sees.
    ///
    /// # Errors
    /// The answer, to a request that is no call.
    pub fn read(
        call_id: CallId,
        request: Request<Incoming>,
        forward: impl FnOnce(&mut HeaderMap),
    ) -> Result<Self, Box<Response>> {
        let (mut parts, incoming) = request.into_parts();
        forward(&mut parts.headers);
        let (body, stalled) = if incoming.is_end_stream() {
            (empty(), None)
        } else {
            let stalled = Arc::new(Notify::new());
            (TimedBody::of_request(incoming, Arc::clone(&stalled)).boxed_unsync(), Some(stalled))
        };
        Ok(Self { stalled, ..Self::of(call_id, Request::from_parts(parts, body))? })
    }

    /// The same of a request that came from nowhere, with headers that the function is to see.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn of(call_id: CallId, mut request: Request<Body>) -> Result<Self, Box<Response>> {
        let (function, target) = target(request.uri()).map_err(|error| Box::new(answer(&error, &call_id)))?;
        if !is_callable(request.method()) {
            return Err(Box::new(method_not_allowed()));
        }
        *request.uri_mut() = target;
        Ok(Self { invocation: Invocation { function, call_id, request }, stalled: None })
    }

    /// Calls the function. Its answer is fit to be sent: about the call, and not about a connection.
    ///
    /// # Errors
    /// As [`Provider::invoke`]; `Invalid` when the client stops sending its body.
    pub async fn run(self, provider: &dyn Provider) -> Result<Response> {
        let Self { invocation, stalled } = self;
        let method = invocation.request.method().clone();
        let request_type = invocation.request.headers().get(CONTENT_TYPE).cloned();
        let stalled = async {
            match &stalled {
                Some(stalled) => stalled.notified().await,
                None => pending().await,
            }
        };
        let mut response = select! {
            biased;
            result = provider.invoke(invocation) => result.and_then(fit_to_send)?,
            () = stalled => {
                return Err(Error::invalid("request-timeout", "the request's body stopped arriving"));
            }
        };
        let body_size = response.body().size_hint().exact();
        forward_response(response.headers_mut(), &method, body_size, request_type);
        Ok(response)
    }
}

/// The text that clients of `OpenFaaS` know.
pub fn function_not_found(function: &str, reason: &str) -> Error {
    Error::NotFound(format!("error finding function {function}: {reason}"))
}

/// Which function a URI is for, and the URI that the function sees.
fn target(uri: &Uri) -> Result<(FunctionName, Uri)> {
    let (name, rest) = split(uri).filter(|(name, _)| is_route_name(name)).ok_or_else(no_route)?;
    // A name that no function can have is one that does not exist.
    let function = FunctionName::parse(name)
        .map_err(|error| function_not_found(&qualified(name), &error.to_string()))?;
    let rest =
        if rest.starts_with('/') { PathAndQuery::try_from(rest) } else { format!("/{rest}").try_into() };
    Ok((function, rest.map_err(Error::internal)?.into()))
}

fn split(uri: &Uri) -> Option<(&str, &str)> {
    let path = uri.path_and_query()?.as_str();
    let rest = path.strip_prefix("/function/").or_else(|| path.strip_prefix("/async-function/"))?;
    rest.split_at_checked(rest.find(['/', '?']).unwrap_or(rest.len()))
}

fn qualified(name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { format!("{name}.{DEFAULT_NAMESPACE}") }
}

fn is_callable(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::GET, Method::OPTIONS, Method::HEAD]
        .contains(method)
}

fn method_not_allowed() -> Response {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    let callable = HeaderValue::from_static("POST, PUT, PATCH, DELETE, GET, OPTIONS, HEAD");
    response.headers_mut().insert(ALLOW, callable);
    response
}

/// An interim status cannot be an answer, and taken for one it would leave the client waiting (RFC 9110 §15.2).
fn fit_to_send(response: Response) -> Result<Response> {
    if !response.status().is_informational() {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let message = format!("the function answered with the interim status {status}; answer with 200 to 599");
    Err(Error::FunctionFailed { code: "bad-response".into(), message, source: None })
}
