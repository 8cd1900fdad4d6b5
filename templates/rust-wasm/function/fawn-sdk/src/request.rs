use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::{Request, Result};

/// What a handler may take: the [`Request`], or what its body is read as: `String`, `Vec<u8>`, [`Bytes`] or [`Json`].
///
/// ```
/// use fawn::{Error, FromRequest, Request, Result};
///
/// /// The word in `?q=WORD`.
/// struct Query(String);
///
/// impl FromRequest for Query {
///     async fn from_request(request: Request) -> Result<Self> {
///         let query = request.uri().query().unwrap_or_default();
///         let word = query.split('&').find_map(|pair| pair.strip_prefix("q="));
///         word.map(|word| Self(word.to_owned())).ok_or_else(|| Error::bad_request("`?q=` is missing"))
///     }
/// }
///
/// #[fawn::handler]
/// async fn handle(Query(word): Query) -> String {
///     format!("You look for {word}.\n")
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a handler cannot take `{Self}`",
    label = "no request can become this",
    note = "take a `fawn::Request`, `String`, `Vec<u8>`, `fawn::Bytes`, or a `fawn::Json` of what is `Deserialize`"
)]
pub trait FromRequest: Sized {
    /// Reads the request.
    ///
    /// # Errors
    /// What the caller is told if it cannot be read: usually a 400.
    ///
    /// ```
    /// use fawn::{FromRequest, Json, Request, Result};
    ///
    /// # async fn show() -> Result<()> {
    /// let request = Request::post("/").body("[1, 2]".into())?;
    /// let Json(numbers) = Json::<Vec<u32>>::from_request(request).await?;
    /// # Ok(())
    /// # }
    /// ```
    fn from_request(request: Request) -> impl Future<Output = Result<Self>>;
}

/// A body that is JSON, either way.
///
/// As an argument it is read whatever `Content-Type` says, up to [`MAX_BODY_BYTES`](crate::MAX_BODY_BYTES); what is
/// not JSON, or not what is wanted, is a 400 that says where.
///
/// ```
/// use fawn::Json;
/// use std::collections::BTreeMap;
///
/// #[fawn::handler]
/// async fn handle(Json(words): Json<Vec<String>>) -> Json<BTreeMap<String, usize>> {
///     Json(words.into_iter().map(|word| { let length = word.len(); (word, length) }).collect())
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// Compiles for the arguments of handlers alone.
#[doc(hidden)]
pub fn takes<A: FromRequest>() {}

impl FromRequest for Request {
    async fn from_request(request: Request) -> Result<Self> {
        Ok(request)
    }
}

impl FromRequest for String {
    async fn from_request(request: Request) -> Result<Self> {
        request.into_body().text().await
    }
}

impl FromRequest for Bytes {
    async fn from_request(request: Request) -> Result<Self> {
        request.into_body().bytes().await
    }
}

impl FromRequest for Vec<u8> {
    async fn from_request(request: Request) -> Result<Self> {
        Ok(request.into_body().bytes().await?.into())
    }
}

impl<T: DeserializeOwned> FromRequest for Json<T> {
    async fn from_request(request: Request) -> Result<Self> {
        Ok(Self(request.into_body().json().await?))
    }
}
