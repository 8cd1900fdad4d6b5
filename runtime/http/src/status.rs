use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response as Answer},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS},
};
use runtime_api::{CallId, Error, Fault, Response, empty, full};
use tracing::{debug, error, field::display, info, warn};

use crate::call_id;

/// A stable word for scripts (ours).
pub(crate) const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
/// Which part of the platform made an error (`OpenFaaS`).
pub(crate) const INTERNAL: HeaderName = HeaderName::from_static("x-openfaas-internal");

const WATCHDOG: &str = "of-watchdog";
/// The code of a request whose provider has no such feature.
pub(crate) const NOT_SUPPORTED: &str = "not-supported";
/// The code of a request in a namespace that is not there.
pub(crate) const NO_SUCH_NAMESPACE: &str = "no-such-namespace";
/// The code of a request with wrong or missing credentials.
pub(crate) const UNAUTHENTICATED: &str = "unauthenticated";
/// Longer than any code of ours.
const MAX_CODE_BYTES: usize = 64;

/// Answers a call that failed, or any request that did on its way, and logs the error with all its sources.
pub fn answer(error: &Error, call_id: &CallId) -> Response {
    let response = answer_in_full(error, call_id);
    match error {
        // of-watchdog's answer to a call that takes too long is empty.
        // So is the gateway's where its provider does not answer (OpenFaaS).
        Error::TimedOut(_) | Error::Unreachable { .. } => response.map(|_| empty()),
        _ => response,
    }
}

/// The same, for those who look after functions: they are told all that may be told.
fn answer_in_full(error: &Error, call_id: &CallId) -> Response {
    log(error, call_id);
    response(error, call_id, status(error), origin(error))
}

fn response(error: &Error, call_id: &CallId, status: StatusCode, origin: Option<&'static str>) -> Response {
    let text = match error {
        Error::Internal(_) => format!("internal error; the log has more under call id {call_id}\n"),
        // Without an end of line (OpenFaaS).
        Error::Unauthenticated { .. } => error.to_string(),
        error => format!("{error}\n"),
    };
    let mut response = http::Response::new(full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // One that a provider has told may be anything.
    let code = HeaderValue::from_str(error.code()).unwrap_or(HeaderValue::from_static("invalid-code"));
    headers.insert(ERROR_CODE, code);
    if let Some(part) = origin {
        headers.insert(INTERNAL, HeaderValue::from_static(part));
    }
    if let Error::TooManyCalls { .. } = error {
        // The watchdog's limiter says it in these words, and no more (OpenFaaS).
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        return response;
    }
    if let Error::Unauthenticated { challenge } = error {
        // One that a provider has told may be anything.
        let challenge = HeaderValue::from_str(challenge).unwrap_or(HeaderValue::from_static("Basic"));
        headers.insert(WWW_AUTHENTICATE, challenge);
    }
    if let Error::Overloaded { retry_after, .. }
    | Error::QueueFull { retry_after, .. }
    | Error::TooManyAttempts { retry_after } = error
    {
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
        Error::Invalid { code, .. } => match code.as_ref() {
            "too-large" => StatusCode::PAYLOAD_TOO_LARGE,
            "request-timeout" => StatusCode::REQUEST_TIMEOUT,
            "unsupported-transfer-encoding" | NOT_SUPPORTED => StatusCode::NOT_IMPLEMENTED,
            "cross-site" => StatusCode::FORBIDDEN,
            "invalid-log-query" => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::BAD_REQUEST,
        },
        Error::Unauthenticated { .. } => StatusCode::UNAUTHORIZED,
        Error::TooManyAttempts { .. } | Error::TooManyCalls { .. } | Error::QueueFull { .. } => {
            StatusCode::TOO_MANY_REQUESTS
        }
        Error::Overloaded { .. } | Error::Unavailable { .. } | Error::RegistryUnavailable { .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Error::StorageFull(_) => StatusCode::INSUFFICIENT_STORAGE,
        Error::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
        Error::Unreachable { .. } => StatusCode::BAD_GATEWAY,
        Error::FunctionFailed { code, .. } if matches!(code.as_ref(), "bad-response" | "no-response") => {
            StatusCode::BAD_GATEWAY
        }
        Error::FunctionFailed { .. } | Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The error that an answer of ours was made of, but for what clients are not told; `None` if the answer is not ours.
pub(crate) fn error_of(status: StatusCode, headers: &HeaderMap, text: &str) -> Option<Error> {
    let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let code = header(ERROR_CODE).filter(|code| is_code(code))?;
    let message = match text.strip_suffix('\n').unwrap_or(text) {
        "" => format!("the provider answered {status}"),
        text => text.to_owned(),
    };
    let source = None;
    Some(match code {
        "not-found" => Error::NotFound(message),
        "already-exists" => Error::AlreadyExists(message),
        "over-limit" => {
            let limit = message.rsplit(' ').next().and_then(|limit| limit.parse().ok());
            Error::TooManyCalls { max_inflight: limit.unwrap_or_default() }
        }
        UNAUTHENTICATED => {
            let challenge = header(WWW_AUTHENTICATE).unwrap_or("Basic").to_owned().into();
            Error::Unauthenticated { challenge }
        }
        "too-many-attempts" => Error::TooManyAttempts { retry_after: retry_after(headers) },
        "queue-full" => Error::QueueFull { message, retry_after: retry_after(headers) },
        "no-capacity" => Error::Overloaded { message, retry_after: retry_after(headers) },
        "storage-full" => Error::StorageFull(message),
        "unavailable" => Error::Unavailable { message, source },
        "provider-unreachable" => Error::Unreachable { message, source },
        "registry-unavailable" => Error::RegistryUnavailable { message, source },
        "timeout" => Error::TimedOut(message),
        "internal" => Error::internal(message),
        _ if header(INTERNAL) == Some(WATCHDOG) => {
            Error::FunctionFailed { code: code.to_owned().into(), message, source }
        }
        _ => Error::invalid(code.to_owned(), message),
    })
}

/// What a header that is not ours may not smuggle into logs and answers.
fn is_code(code: &str) -> bool {
    (1..=MAX_CODE_BYTES).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
}

/// When it makes sense to try again; in a second, unless the answer says otherwise (RFC 9110 §10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1))
}

/// Clients retry what the platform did, so nothing that the caller did may be marked.
fn origin(error: &Error) -> Option<&'static str> {
    match (error, error.fault()) {
        (Error::TooManyCalls { .. }, _) => Some("faas-middleware"),
        (_, Fault::Caller) => None,
        (_, Fault::Function) => Some(WATCHDOG),
        (_, Fault::Platform) => Some("proxy"),
    }
}

fn log(error: &Error, call_id: &CallId) {
    let (code, reason) = (error.code(), display(Chain(error)));
    match error {
        Error::Internal(_) => error!(%call_id, code, reason, "failed"),
        Error::StorageFull(_) => warn!(%call_id, code, reason, "no room on the disk"),
        Error::Unavailable { .. } | Error::Unreachable { .. } | Error::RegistryUnavailable { .. } => {
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
            None => answer_in_full(&self.error, call_id),
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
