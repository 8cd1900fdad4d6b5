//! What a provider answers, as what [`Provider`](runtime_api::Provider) answers.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderName, Response, StatusCode,
    header::{CONTENT_TYPE, WWW_AUTHENTICATE},
};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use runtime_api::{Error, Result};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use crate::status::{NOT_SUPPORTED, error_of, retry_after};

/// Marks the answer to a call that is an error of the provider's own. A function's own answer never has it when it
/// leaves our node, whatever the function says; it goes no further than to the gateway.
pub(crate) const PROVIDER_ERROR: HeaderName = HeaderName::from_static("x-fawn-provider-error");

/// Room for the status of some ten thousand functions.
const MAX_JSON_BYTES: usize = 16 << 20;
/// What is read of a reason.
const MAX_REASON_BYTES: usize = 16 << 10;
/// A reason follows its head at once.
const REASON_TIME: Duration = Duration::from_secs(3);

/// An answer that grants what was asked for.
pub(crate) async fn granted(answer: Response<Incoming>) -> Result<Response<Incoming>> {
    if answer.status().is_success() { Ok(answer) } else { Err(refusal(answer).await) }
}

/// The body, as what it stands for.
pub(crate) async fn json<T: DeserializeOwned>(answer: Response<Incoming>, deadline: Instant) -> Result<T> {
    let bytes = collect(answer, MAX_JSON_BYTES, deadline).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::unavailable("the provider's answer cannot be understood", error))
}

async fn collect(answer: Response<Incoming>, max_bytes: usize, deadline: Instant) -> Result<Bytes> {
    let body = timeout_at(deadline, Limited::new(answer.into_body(), max_bytes).collect()).await;
    let body =
        body.map_err(|late| Error::unreachable("the provider's answer did not arrive in time", late))?;
    let body =
        body.map_err(|error| Error::unreachable("the provider's answer did not arrive whole", error))?;
    Ok(body.to_bytes())
}

/// The error that an answer tells of.
pub(crate) async fn refusal(answer: Response<Incoming>) -> Error {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let is_text = headers.get(CONTENT_TYPE).is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    let bytes = match collect(answer, MAX_REASON_BYTES, Instant::now() + REASON_TIME).await {
        Ok(bytes) => bytes,
        Err(error) => return error,
    };
    let text = String::from_utf8_lossy(if is_text { &bytes } else { b"" });
    let of_call = headers.contains_key(PROVIDER_ERROR);
    if !of_call && status == StatusCode::UNAUTHORIZED && headers.contains_key(WWW_AUTHENTICATE) {
        return not_let_in();
    }
    if lacks_route(status, &text) {
        let message = format!("the provider has no such feature; it answered {status}");
        return Error::invalid(NOT_SUPPORTED, message);
    }
    match error_of(status, &headers, &text) {
        // Whoever is told so next would look for a mistake of their own.
        Some(Error::Unauthenticated { .. } | Error::TooManyAttempts { .. }) if !of_call => not_let_in(),
        Some(error) => error,
        None => of_status(status, text.trim_end(), retry_after(&headers)),
    }
}

/// The gateway's own credentials are wrong, or have been too often.
fn not_let_in() -> Error {
    let message = "the provider does not take this gateway's credentials: give both the same".to_owned();
    Error::Unavailable { message, source: None }
}

/// What providers answer for features that they do not have (`OpenFaaS`).
fn lacks_route(status: StatusCode, text: &str) -> bool {
    match status {
        StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED => true,
        StatusCode::NOT_FOUND => text.trim_end() == "404 page not found",
        _ => false,
    }
}

/// What other providers than ours mean, which have statuses and words alone.
fn of_status(status: StatusCode, text: &str, retry_after: Duration) -> Error {
    let message = match text {
        "" => format!("the provider answered {status}"),
        text => format!("the provider answered {status}: {text}"),
    };
    match status {
        StatusCode::NOT_FOUND => Error::NotFound(message),
        StatusCode::CONFLICT => Error::AlreadyExists(message),
        StatusCode::PAYLOAD_TOO_LARGE => Error::invalid("too-large", message),
        StatusCode::TOO_MANY_REQUESTS => Error::Overloaded { message, retry_after },
        StatusCode::INSUFFICIENT_STORAGE => Error::StorageFull(message),
        status if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT => {
            Error::invalid("provider-refused", message)
        }
        _ => Error::Unavailable { message, source: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_providers_are_understood_by_their_statuses() {
        for (status, code) in [
            (400, "provider-refused"),
            (403, "provider-refused"),
            (404, "not-found"),
            (408, "unavailable"),
            (409, "already-exists"),
            (413, "too-large"),
            (422, "provider-refused"),
            (429, "no-capacity"),
            (302, "unavailable"),
            (500, "unavailable"),
            (503, "unavailable"),
            (507, "storage-full"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = of_status(status, "why", Duration::from_secs(1));
            assert_eq!(error.code(), code, "{status}");
            assert!(error.to_string().contains("why"));
        }
    }

    #[test]
    fn a_feature_that_is_not_there_is_told_from_a_thing_that_is_not_there() {
        assert!(lacks_route(StatusCode::NOT_FOUND, "404 page not found\n"));
        assert!(lacks_route(StatusCode::NOT_IMPLEMENTED, ""));
        assert!(!lacks_route(StatusCode::NOT_FOUND, "namespace dev not found"));
    }
}
