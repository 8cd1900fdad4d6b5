//! Outgoing wasi:http requests, through the egress checker.

use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use runtime_egress::{Policy, Timeouts};
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody};

/// Time to connect where the guest sets none; the call's own deadline applies besides.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time to the first byte of the answer where the guest sets none.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) async fn send(
    policy: &Policy,
    request: http::Request<WasiBody>,
    options: Option<RequestOptions>,
) -> Result<http::Response<impl Body<Data = Bytes, Error = HttpError> + Send + 'static>, HttpError> {
    let options = options.unwrap_or_default();
    let timeouts = Timeouts {
        connect: options.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
        first_byte: options.first_byte_timeout.unwrap_or(FIRST_BYTE_TIMEOUT),
    };
    let response = runtime_egress::send(policy, request, timeouts).await.map_err(http_error)?;
    Ok(response.map(|body| body.map_err(|_| HttpError::HttpResponseIncomplete)))
}

fn http_error(error: runtime_egress::Error) -> HttpError {
    use runtime_egress::Error;
    tracing::debug!(%error, "outgoing request failed");
    match error {
        Error::Denied { .. } | Error::InvalidPolicy { .. } => HttpError::HttpRequestDenied,
        Error::NameNotFound { .. } => HttpError::DnsError { rcode: None, info_code: None },
        Error::NameTimedOut { .. } => HttpError::DnsTimeout,
        Error::ConnectFailed { .. } => HttpError::ConnectionRefused,
        Error::ConnectTimedOut { .. } => HttpError::ConnectionTimeout,
        Error::TlsFailed { .. } => HttpError::TlsProtocolError,
        Error::InvalidRequest(_) => HttpError::HttpRequestUriInvalid,
        Error::AnswerTimedOut { .. } => HttpError::HttpResponseTimeout,
        Error::HttpFailed { .. } => HttpError::HttpProtocolError,
    }
}
