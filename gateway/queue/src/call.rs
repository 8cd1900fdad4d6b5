use std::{fmt, io, num::ParseIntError, pin::Pin, str::FromStr, time::SystemTime};

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderMap, Method};
use runtime_api::{CallId, FunctionName};

/// A call to be kept.
#[derive(Debug)]
pub struct NewCall {
    /// Who is called.
    pub function: FunctionName,
    /// With which method.
    pub method: Method,
    /// What follows the function's name in the path, with its query, byte for byte.
    pub path_and_query: String,
    /// The headers that the function is to see. Order among different names is not kept.
    pub headers: HeaderMap,
    /// What the call is known by to its caller; not unique.
    pub call_id: CallId,
    /// Where the answer is to be posted.
    pub callback_url: Option<String>,
    /// When it may run first; at once without.
    pub not_before: Option<SystemTime>,
    /// A second call of the same function with the same key is the first one (`Idempotency-Key`).
    pub idempotency_key: Option<String>,
    /// The body.
    pub body: Content,
}

/// Pieces of a body.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A body, whole or as it comes.
pub enum Content {
    /// All of it in memory.
    Bytes(Bytes),
    /// In pieces; an error ends it, and then there is no body.
    Stream(ByteStream),
}

impl Content {
    /// The body as pieces.
    pub fn into_stream(self) -> ByteStream {
        match self {
            Self::Bytes(bytes) => Box::pin(futures_util::stream::iter([Ok(bytes)])),
            Self::Stream(stream) => stream,
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Stream(_) => f.write_str("a stream"),
        }
    }
}

/// What the queue knows a call by: unique, and greater than that of every call accepted before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub u64);

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for EntryId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A call that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// What the queue knows it by.
    pub id: EntryId,
    /// What its caller knows it by.
    pub call_id: CallId,
    /// Whether it was there already, for its idempotency key; nothing was kept then.
    pub existed: bool,
}
