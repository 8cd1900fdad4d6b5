use std::{error::Error as StdError, fmt, sync::Arc};

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response as Answer},
};
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS},
};
use runtime_api::{CallId, Error, Fault, Response, full};
use tracing::{debug, error, field::display, info, warn};

use crate::call_id;

/// A stable word for scripts (ours).
const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
/// Which part of the platform made an error (`OpenFaaS`).
const INTERNAL: HeaderName = HeaderName::from_static("x-openfaas-internal");

/// Answers an error, and logs it with all its sources.
pub fn answer(error: &Error, call_id: &CallId) -> Response {
    log(error, call_id);
    let text = match error {
        Error::Internal(_) => format!("internal error; the log has more under call id {call_id}\n"),
        // of-watchdog's answer to a call that takes too long is empty.
        Error::TimedOut(_) => String::new(),
        error => format!("{error}\n"),
    };
    let mut response = http::Response::new(full(text));
    *response.status_mut() = status(error);
    let headers = response.headers_mut();
    headers.insert(ERROR_CODE, HeaderValue::from_static(error.code()));
    if let Some(part) = origin(error) {
        headers.insert(INTERNAL, HeaderValue::from_static(part));
    }
    if let Error::TooManyCalls { .. } = error {
        // The watchdog's limiter says it in these words, and no more (OpenFaaS).
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        return response;
    }
    if let Error::Overloaded { retry_after, .. } = error {
        let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The answer to a path that leads nowhere.
pub fn no_route() -> Error {
    Error::NotFound("404 page not found".into())
}

fn status(error: &Error) -> StatusCode {
    match error {
        Error::NotFound(_) => StatusCode::NOT_FOUND,
        Error::AlreadyExists(_) => StatusCode::CONFLICT,
        Error::Invalid { code: "too-large", .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Error::Invalid { code: "request-timeout", .. } => StatusCode::REQUEST_TIMEOUT,
        Error::Invalid { .. } => StatusCode::BAD_REQUEST,
        Error::TooManyCalls { .. } => StatusCode::TOO_MANY_REQUESTS,
        Error::Overloaded { .. } | Error::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        Error::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
        Error::FunctionFailed { code: "bad-response" | "no-response", .. } => StatusCode::BAD_GATEWAY,
        Error::FunctionFailed { .. } | Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Clients retry what the platform did, so nothing that the caller did may be marked.
fn origin(error: &Error) -> Option<&'static str> {
    match (error, error.fault()) {
        (Error::TooManyCalls { .. }, _) => Some("faas-middleware"),
        (_, Fault::Caller) => None,
        (_, Fault::Function) => Some("of-watchdog"),
        (_, Fault::Platform) => Some("proxy"),
    }
}

fn log(error: &Error, call_id: &CallId) {
    let (code, reason) = (error.code(), display(Chain(error)));
    match error {
        Error::Internal(_) => error!(%call_id, code, reason, "failed"),
        Error::Unavailable { .. } => warn!(%call_id, code, reason, "depends on what does not answer"),
        Error::FunctionFailed { .. } | Error::TimedOut(_) => info!(%call_id, code, reason, "function failed"),
        // Of these there may be as many as there are requests.
        _ => debug!(%call_id, code, reason, "refused"),
    }
}

/// An error and all that it came from, on one line.
struct Chain<'a>(&'a Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// An error on its way out of a route, to be answered by [`answer_failures`].
#[derive(Clone)]
pub struct Failure(Arc<Error>);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(Arc::new(error))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Answer {
        let mut response = Answer::default();
        response.extensions_mut().insert(self);
        response
    }
}

/// Middleware that answers the [`Failure`]s of routes, since they do not know their call id.
pub async fn answer_failures(request: Request, next: Next) -> Answer {
    let call_id = call_id(request.headers());
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Failure>() {
        Some(Failure(error)) => answer(&error, &call_id).map(axum::body::Body::new),
        None => response,
    }
}
