//! Requests of the function's own.

use std::{fmt, time::Duration};

use http::{Method, StatusCode, Uri};

use crate::{Body, Error, Request, Response, Result};

#[cfg(not(target_family = "wasm"))]
use crate::testing as platform;
#[cfg(target_family = "wasm")]
use crate::wasi as platform;

/// Where the gateway is, as OpenFaaS's functions reach it.
const GATEWAY_VARIABLE: &str = "gateway_url";

const DEFAULT_GATEWAY: &str = "http://gateway.openfaas:8080";

/// Sends requests of HTTP, through the host's `wasi:http`.
///
/// A function reaches public addresses only, or what its annotation `dev.fawn.egress` lists
/// (`api.example.com:443,10.0.0.0/8`). Redirects are answers like others, and are not followed. The time of the whole
/// call bounds that of its requests.
///
/// ```
/// use fawn::{Body, Client, Request, Result};
/// use std::time::Duration;
///
/// #[fawn::handler]
/// async fn handle(text: String) -> Result<fawn::Response> {
///     let client = Client::new().first_byte_timeout(Duration::from_secs(5));
///     client.send(Request::post("https://example.com/").body(text)?).await
/// }
/// ```
#[derive(Clone, Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), expect(dead_code, reason = "in a test, nobody is waited for"))]
pub struct Client {
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) first_byte_timeout: Option<Duration>,
}

impl Client {
    /// A client with the node's own timeouts: 10 s to connect, 60 s to the first byte of the answer.
    ///
    /// ```
    /// let client = fawn::Client::new();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// How long connecting may take.
    ///
    /// ```
    /// let client = fawn::Client::new().connect_timeout(std::time::Duration::from_secs(1));
    /// ```
    #[must_use]
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { connect_timeout: Some(timeout), ..self }
    }

    /// How long the answer may take to begin.
    ///
    /// ```
    /// let client = fawn::Client::new().first_byte_timeout(std::time::Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn first_byte_timeout(self, timeout: Duration) -> Self {
        Self { first_byte_timeout: Some(timeout), ..self }
    }

    /// Sends a request, and gives the answer once its head is there, whatever its status.
    ///
    /// # Errors
    /// A 502 if there is no answer; why is for the log. A 500 if the address is not a whole one. What reads the answer's
    /// body fails with a 502 too, if that breaks off, is too long, or is not what it is read as.
    ///
    /// ```
    /// use fawn::{Client, Request};
    ///
    /// # async fn show() -> fawn::Result<()> {
    /// let answer = Client::new().send(Request::get("https://example.com/").body(())?).await?;
    /// let page = answer.into_body().text().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send<B: Into<Body>>(&self, request: Request<B>) -> Result<Response> {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        if uri.scheme().is_none() || uri.authority().is_none() {
            // Without the address: it may hold what is nobody's business.
            let cause = format!("{method}: the address is not a whole one: write it as https://HOST/PATH");
            return Err(Error::internal(cause));
        }
        platform::send(self, request.map(Into::into))
            .await
            .map(|answer| answer.map(Body::of_service))
            .map_err(|why| unreached(&Unreached { method, uri, why }))
    }
}

/// Sends a request with a [`Client`] of the usual timeouts.
///
/// # Errors
/// As [`Client::send`].
///
/// ```
/// use fawn::{Json, Request, Result};
///
/// #[fawn::handler]
/// async fn handle(city: String) -> Result<String> {
///     let request = Request::get("https://example.com/weather").header("x-city", city).body(())?;
///     let answer = fawn::fetch(request).await?;
///     let degrees: f64 = answer.into_body().json().await?;
///     Ok(format!("{degrees} °C\n"))
/// }
/// ```
pub async fn fetch<B: Into<Body>>(request: Request<B>) -> Result<Response> {
    Client::new().send(request).await
}

/// The address of another function, `NAME` or `NAME.NAMESPACE`, behind the gateway.
///
/// Where the gateway is, the function's variable `gateway_url` says; without it, it is `http://gateway.openfaas:8080`,
/// as on OpenFaaS. On Fawn, set the variable, and allow the address, unless it is a public one: as an example, with
/// `fawn up` on its usual port,
///
/// ```yaml
/// environment:
///   gateway_url: http://127.0.0.1:8080
/// annotations:
///   dev.fawn.egress: public,127.0.0.1:8080
/// ```
///
/// lets the function reach all that is on that port, the gateway's own API included, which asks for its password.
///
/// # Errors
/// A 500 if the name is none, or the variable cannot be read.
///
/// ```
/// # fn show() -> fawn::Result<()> {
/// let request = fawn::Request::get(fawn::function_url("figlet")? + "/banner?font=slant").body(())?;
/// # Ok(())
/// # }
/// ```
#[track_caller]
pub fn function_url(name: &str) -> Result<String> {
    let legal = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if name.is_empty() || !name.chars().all(legal) || name.starts_with('.') {
        return Err(Error::from(format!("{name:?} is not the name of a function")));
    }
    let gateway = crate::env_or(GATEWAY_VARIABLE, DEFAULT_GATEWAY);
    Ok(format!("{}/function/{name}", gateway.trim_end_matches('/')))
}

/// Calls another function with a POST, through the gateway ([`function_url`] says what that needs), and gives its
/// answer, whatever the status.
///
/// # Errors
/// As [`Client::send`] and [`function_url`].
///
/// ```
/// use fawn::{Response, Result};
///
/// #[fawn::handler]
/// async fn handle(text: String) -> Result<Response> {
///     let shouted = fawn::call("shout", text).await?;
///     fawn::call("figlet", shouted.into_body()).await
/// }
/// ```
pub async fn call(name: &str, body: impl Into<Body>) -> Result<Response> {
    fetch(Request::post(function_url(name)?).body(body)?).await
}

fn unreached(why: &Unreached) -> Error {
    Error::of_sdk(StatusCode::BAD_GATEWAY, "a service that this function needs did not answer")
        .because(why.to_string())
}

/// A request without an answer.
struct Unreached {
    method: Method,
    uri: Uri,
    why: String,
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, uri, why } = self;
        // Not the path and the query: they may hold what is nobody's business.
        let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default());
        write!(f, "{method} {scheme}://{host}")?;
        match uri.port_u16() {
            Some(port) => write!(f, ":{port}: {why}"),
            None => write!(f, ": {why}"),
        }
    }
}
