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
    response(error, call_id, status(error), origin(error))
}

fn response(error: &Error, call_id: &CallId, status: StatusCode, origin: Option<&'static str>) -> Response {
    let text = match error {
        Error::Internal(_) => format!("internal error; the log has more under call id {call_id}\n"),
        // of-watchdog's answer to a call that takes too long is empty.
        Error::TimedOut(_) => String::new(),
        error => format!("{error}\n"),
    };
    let mut response = http::Response::new(full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(ERROR_CODE, HeaderValue::from_static(error.code()));
    if let Some(part) = origin {
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
        Error::Invalid { code: "unsupported-transfer-encoding", .. } => StatusCode::NOT_IMPLEMENTED,
        Error::Invalid { code: "cross-site", .. } => StatusCode::FORBIDDEN,
        Error::Invalid { .. } => StatusCode::BAD_REQUEST,
        Error::TooManyCalls { .. } => StatusCode::TOO_MANY_REQUESTS,
        Error::Overloaded { .. } | Error::Unavailable { .. } | Error::RegistryUnavailable { .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Error::StorageFull(_) => StatusCode::INSUFFICIENT_STORAGE,
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
        Error::StorageFull(_) => warn!(%call_id, code, reason, "no room on the disk"),
        Error::Unavailable { .. } | Error::RegistryUnavailable { .. } => {
            warn!(%call_id, code, reason, "depends on what does not answer");
        }
        Error::FunctionFailed { .. } | Error::TimedOut(_) => info!(%call_id, code, reason, "function failed"),
        // Of these there may be as many as there are requests.
        _ => debug!(%call_id, code, reason, "refused"),
    }
}

/// Answers a failed deploy: whatever the image or its registry is to blame for rejects it, even a registry that does
/// not answer, since trying again as it stands is the user's choice.
fn answer_deploy(function: &str, error: &Error, call_id: &CallId) -> Response {
    log_deploy(function, error, call_id);
    if let Error::Invalid { .. } | Error::RegistryUnavailable { .. } = error {
        return response(error, call_id, StatusCode::BAD_REQUEST, None);
    }
    response(error, call_id, status(error), origin(error))
}

fn log_deploy(function: &str, error: &Error, call_id: &CallId) {
    let (code, reason) = (error.code(), display(Chain(error)));
    match error {
        Error::Internal(_) => error!(%call_id, function, code, reason, "deploy failed"),
        // This is how clients find out whether a function is there: faas-cli updates before it deploys.
        Error::NotFound(_) | Error::AlreadyExists(_) => {
            debug!(%call_id, function, code, reason, "deploy refused");
        }
        error if error.fault() == Fault::Platform => {
            warn!(%call_id, function, code, reason, "deploy failed");
        }
        _ => info!(%call_id, function, code, reason, "deploy rejected"),
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
pub struct Failure {
    error: Arc<Error>,
    /// The function that was to be deployed.
    deploying: Option<String>,
}

impl Failure {
    /// A deploy that did not succeed: of which function, and why.
    pub(crate) fn deploying(function: String, error: Error) -> Self {
        Self { error: Arc::new(error), deploying: Some(function) }
    }

    fn answer(&self, call_id: &CallId) -> Response {
        match &self.deploying {
            Some(function) => answer_deploy(function, &self.error, call_id),
            None => answer(&self.error, call_id),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error: Arc::new(error), deploying: None }
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
        Some(failure) => failure.answer(&call_id).map(axum::body::Body::new),
        None => response,
    }
}
