//! The host, as a component sees it.

use std::{fs, io, str::Utf8Error};

use http::{HeaderMap, StatusCode};
use wasip2::http::types::{ErrorCode, Fields, IncomingRequest, ResponseOutparam};
pub use wstd::__internal::wasip2;
use wstd::http::{request::try_from_incoming, server::Responder};

use crate::{Body, Client, Error, FromRequest, IntoResponse, Request, Response, answer::answer};

/// Answers one request of the host's.
pub fn serve<F, A, R>(request: IncomingRequest, respond: ResponseOutparam, handler: F)
where
    F: AsyncFnOnce(A) -> R,
    A: FromRequest,
    R: IntoResponse,
{
    crate::function_log::start();
    crate::function_log::tell_panics();
    wstd::runtime::block_on(async {
        let response = match try_from_incoming(request) {
            Ok(request) => answer(handler, request.map(Body::from)).await,
            Err(cause) => {
                let text = "the request cannot be read";
                Error::of_sdk(StatusCode::BAD_REQUEST, text).because(cause).into_response()
            }
        };
        // What has no end is broken off by the host.
        if let Err(error) = Responder::new(respond).respond(sendable(response)).await {
            log::error!("the answer broke off: {error:#}");
        }
    });
}

/// An answer whose headers the host takes.
fn sendable(response: Response) -> Response {
    match refused(response.headers()) {
        Some(name) => {
            let cause = format!("the answer has the header {name}, which is the server's to set");
            Error::internal(cause).into_response()
        }
        None => response,
    }
}

/// The first header that the host refuses.
fn refused(headers: &HeaderMap) -> Option<&str> {
    let entry = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.as_str().to_owned(), value.as_bytes().to_vec())
    };
    Fields::from_list(&headers.iter().map(entry).collect::<Vec<_>>()).err()?;
    let alone = |&name: &&http::HeaderName| {
        let values = headers.get_all(name).iter().map(|value| value.as_bytes().to_vec());
        Fields::new().set(name.as_str(), &values.collect::<Vec<_>>()).is_err()
    };
    Some(headers.keys().find(alone).map_or("(too many or too long)", |name| name.as_str()))
}

pub(crate) async fn send(client: &Client, request: Request) -> Result<Response, String> {
    let mut wasi = wstd::http::Client::new();
    if let Some(timeout) = client.connect_timeout {
        wasi.set_connect_timeout(timeout);
    }
    if let Some(timeout) = client.first_byte_timeout {
        wasi.set_first_byte_timeout(timeout);
    }
    let answered = wasi.send(request).await.map(|response| response.map(Body::from));
    answered.map_err(|error| match error.downcast_ref() {
        Some(ErrorCode::HttpRequestDenied) => {
            "the function may not reach it; the annotation `dev.fawn.egress` lists what it may".into()
        }
        Some(code) => format!("{code:?}").replace("ErrorCode::", ""),
        None => format!("{error:#}"),
    })
}

pub(crate) fn variable(name: &str) -> Option<Result<String, Utf8Error>> {
    let value = std::env::var_os(name)?;
    Some(str::from_utf8(value.as_encoded_bytes()).map(str::to_owned))
}

pub(crate) fn secret(name: &str) -> io::Result<Vec<u8>> {
    fs::read(format!("/var/openfaas/secrets/{name}"))
}
