//! Functions of Fawn, in Rust.
//!
//! A function is an `async fn` from a request to an answer. Built for `wasm32-wasip2` it is a component that exports
//! `wasi:http/incoming-handler`, which any server of such components runs; built for the machine at hand, it is an
//! ordinary library, whose handler is called in unit tests ([`testing`]).
//!
//! ```
//! use fawn::{Request, Response, Result};
//!
//! #[fawn::handler]
//! pub async fn handle(request: Request) -> Result<Response> {
//!     let name = request.into_body().text().await?;
//!     Ok(Response::new(format!("Hello, {name}!\n").into()))
//! }
//! ```
//!
//! JSON in and out, and errors that the caller may read:
//!
//! ```
//! use fawn::{Error, Json, Result};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Order {
//!     pieces: u32,
//! }
//!
//! #[derive(Serialize)]
//! struct Price {
//!     cents: u32,
//! }
//!
//! #[fawn::handler]
//! pub async fn handle(Json(order): Json<Order>) -> Result<Json<Price>> {
//!     if order.pieces == 0 {
//!         return Err(Error::bad_request("an order has at least one piece"));
//!     }
//!     Ok(Json(Price { cents: 250 * order.pieces }))
//! }
//! ```
//!
//! This crate is not a framework: it has no routes and no middleware. Its one invariant: what a caller is told of a
//! failure is what the handler chose to tell; all else goes to the function's log.

mod answer;
mod body;
mod error;
mod fetch;
mod function_log;
mod request;
mod settings;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
#[cfg(target_family = "wasm")]
mod wasi;

#[cfg(all(target_family = "wasm", not(all(target_os = "wasi", target_env = "p2"))))]
compile_error!("functions are built for wasm32-wasip2: cargo build --release --target wasm32-wasip2");

pub use answer::IntoResponse;
pub use body::{Body, MAX_BODY_BYTES};
pub use bytes::Bytes;
pub use error::{Error, Result};
pub use fetch::{Client, call, fetch, function_url};
pub use http;
/// Lines for the function's log, which `faas-cli logs NAME` shows.
///
/// The variable `LOG_LEVEL` says how much is logged: `off`, `error`, `warn`, `info` (without it), `debug` or `trace`.
/// A message is one line, whatever it holds. Panics, and errors that become a 5xx, are in the log by themselves.
///
/// ```
/// use fawn::log::{debug, info};
///
/// #[fawn::handler]
/// async fn handle(order: String) -> &'static str {
///     info!("an order of {} bytes", order.len());
///     debug!("it says: {order}");
///     "thanks\n"
/// }
/// ```
#[doc(inline)]
pub use log;
pub use request::{FromRequest, Json};
pub use settings::{env, env_or, secret, secret_bytes};

/// Makes a function of the `async fn` below it: what Fawn calls for each request.
///
/// It takes one argument, anything that is [`FromRequest`], and answers with anything that is [`IntoResponse`]. There
/// is one in a crate, at the top level of a library with `crate-type = ["cdylib"]`.
///
/// ```
/// #[fawn::handler]
/// pub async fn handle(name: String) -> String {
///     format!("Hello, {name}!\n")
/// }
/// ```
pub use fawn_sdk_macros::handler;

/// A request, of the crate [`http`], with a body that is read as it comes.
///
/// ```
/// use fawn::Request;
///
/// # fn show(request: Request) {
/// let (method, path, query) = (request.method(), request.uri().path(), request.uri().query());
/// let agent = request.headers().get("user-agent");
/// # }
/// ```
///
/// The path is what follows `/function/NAME`.
pub type Request<B = Body> = http::Request<B>;

/// An answer, of the crate [`http`], with a body that may be written as it is made.
///
/// ```
/// use fawn::{Body, Response, Result, http::StatusCode};
///
/// # fn show() -> Result<Response> {
/// let plain: Response = Response::new("some text".into());
/// let moved = Response::builder()
///     .status(StatusCode::SEE_OTHER)
///     .header("location", "https://example.com/")
///     .body(Body::empty())?;
/// # Ok(moved)
/// # }
/// ```
///
/// Give it a `Content-Type`: OpenFaaS's gateways add the request's where there is none.
/// Headers of the connection (`Connection`, `Transfer-Encoding`, `Upgrade`, …) are the server's: an answer that sets
/// one becomes a 500, and the log names it.
pub type Response<B = Body> = http::Response<B>;

/// What `#[fawn::handler]` expands to.
#[doc(hidden)]
pub mod __private {
    pub use crate::answer::answers;
    pub use crate::request::takes;
    #[cfg(target_family = "wasm")]
    pub use crate::wasi::{serve, wasip2};
}

/// Exports a handler as `wasi:http/incoming-handler`.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($handler:ident) => {
        struct Function;

        impl $crate::__private::wasip2::exports::http::incoming_handler::Guest for Function {
            fn handle(
                request: $crate::__private::wasip2::http::types::IncomingRequest,
                answer: $crate::__private::wasip2::http::types::ResponseOutparam,
            ) {
                $crate::__private::serve(request, answer, $handler);
            }
        }

        $crate::__private::wasip2::http::proxy::export!(Function with_types_in $crate::__private::wasip2);
    };
}
