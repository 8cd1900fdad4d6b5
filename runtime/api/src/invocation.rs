use std::{fmt, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};

use crate::FunctionName;

/// Why a body ended before its end.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A request or response body that streams.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// What a call answers.
pub type Response = http::Response<Body>;

/// A body of no bytes.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is at hand as a whole.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// One call.
#[derive(Debug)]
pub struct Invocation {
    /// Which function.
    pub function: FunctionName,
    /// Which call, for logs and correlation; not unique, since callers choose it.
    pub call_id: CallId,
    /// The request as the function sees it: its path begins after the function's name.
    pub request: http::Request<Body>,
}

/// An extension of a request: its caller was let in before ([`Provider::admit`](crate::Provider::admit)). No client can
/// set it.
#[derive(Clone, Copy, Debug)]
pub struct Admitted;

/// What one call is known by in logs and in `X-Call-Id`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CallId(Arc<str>);

impl CallId {
    /// Takes a text as it is: the caller's, or a fresh UUID.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}
