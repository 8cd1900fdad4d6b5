use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::{Body, Error, FromRequest, Json, Request, Response};

/// What a handler may answer with: a [`Response`], text, bytes, [`Json`], a status, a status with any of these, or a
/// `Result` of any of these and an error.
///
/// ```
/// use fawn::{IntoResponse, Json, Response, http::StatusCode};
///
/// struct Page(String);
///
/// impl IntoResponse for Page {
///     fn into_response(self) -> Response {
///         let mut response = Response::new(self.0.into());
///         response.headers_mut().insert("content-type", "text/html; charset=utf-8".parse().unwrap());
///         response
///     }
/// }
///
/// #[fawn::handler]
/// async fn handle(name: String) -> (StatusCode, Page) {
///     match name.len() {
///         0 => (StatusCode::UNPROCESSABLE_ENTITY, Page("<h1>Say who you are</h1>".into())),
///         letters => (StatusCode::OK, Page(format!("<h1>Hello</h1><p>{letters} letters</p>"))),
///     }
/// }
/// ```
///
/// The `Err` of a result may be whatever [`Error`] is made from. Text has the type `text/plain; charset=utf-8`, bytes have `application/octet-stream`.
#[diagnostic::on_unimplemented(
    message = "a handler cannot answer with `{Self}`",
    label = "no answer can be made of this",
    note = "answer with a `fawn::Response`, text, bytes, `fawn::Json`, a status, or a `Result` of one of these"
)]
pub trait IntoResponse {
    /// The answer.
    ///
    /// ```
    /// use fawn::{IntoResponse, http::StatusCode};
    ///
    /// assert_eq!((StatusCode::CREATED, "done\n").into_response().status(), 201);
    /// ```
    fn into_response(self) -> Response;
}

/// Runs a handler on one request.
pub(crate) async fn answer<F, A, R>(handler: F, request: Request) -> Response
where
    F: AsyncFnOnce(A) -> R,
    A: FromRequest,
    R: IntoResponse,
{
    match A::from_request(request).await {
        Ok(argument) => handler(argument).await.into_response(),
        Err(error) => error.into_response(),
    }
}

/// Compiles for handlers alone.
#[doc(hidden)]
pub fn answers<F, A, R>(_: F)
where
    F: AsyncFnOnce(A) -> R,
    R: IntoResponse,
{
}

fn typed(kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response {
        typed("text/plain; charset=utf-8", self)
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        typed("text/plain; charset=utf-8", self)
    }
}

impl IntoResponse for Bytes {
    fn into_response(self) -> Response {
        typed("application/octet-stream", self)
    }
}

impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Response {
        Bytes::from(self).into_response()
    }
}

impl IntoResponse for Body {
    fn into_response(self) -> Response {
        typed("application/octet-stream", self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(json) => typed("application/json", json),
            Err(cause) => Error::internal(cause).into_response(),
        }
    }
}

impl IntoResponse for StatusCode {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self;
        response
    }
}

impl<T: IntoResponse> IntoResponse for (StatusCode, T) {
    fn into_response(self) -> Response {
        let mut response = self.1.into_response();
        *response.status_mut() = self.0;
        response
    }
}

impl<T: IntoResponse, E: Into<Error>> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(answer) => answer.into_response(),
            Err(error) => error.into().into_response(),
        }
    }
}
