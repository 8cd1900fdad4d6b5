use std::{error::Error as StdError, fmt, mem, panic::Location};

use http::{HeaderValue, StatusCode, header};

use crate::{IntoResponse, Response};

/// What anything that fails here gives, unless it says otherwise.
///
/// ```
/// async fn handle(number: String) -> fawn::Result<String> {
///     let number: u32 = number.trim().parse()?;
///     Ok(format!("{}\n", number + 1))
/// }
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) type Cause = Box<dyn StdError + Send + Sync>;

/// A failed call: a status, a text for the caller, and, for the function's log alone, a cause and the line it came
/// from.
///
/// Every other error becomes one of 500 with `?`, strings and those of `anyhow` included. The caller is told no more
/// than `internal server error`; the log has the rest.
///
/// ```
/// use fawn::{Error, Result};
///
/// # struct Pet;
/// # fn find(id: u32) -> std::io::Result<Option<Pet>> { Ok(None) }
/// fn pet(id: &str) -> Result<Pet> {
///     let id = id.parse().map_err(|cause| Error::bad_request("the id is not a number").because(cause))?;
///     find(id)?.ok_or_else(|| Error::not_found(format!("there is no pet {id}")))
/// }
///
/// assert_eq!(pet("x").err().unwrap().status(), 400);
/// assert_eq!(pet("1").err().unwrap().text(), "there is no pet 1");
/// ```
// Not a `std::error::Error`: that would rule out the conversion from all that are.
pub struct Error {
    status: StatusCode,
    /// None where the caller is told nothing.
    text: Option<String>,
    /// The newest first.
    causes: Vec<Cause>,
    /// The author's line, where that is known.
    at: Option<&'static Location<'static>>,
}

impl Error {
    /// An error with a status and a text for the caller.
    ///
    /// ```
    /// use fawn::{Error, http::StatusCode};
    ///
    /// let error = Error::new(StatusCode::CONFLICT, "somebody else has that name");
    /// assert_eq!(error.to_string(), "409 Conflict: somebody else has that name");
    /// ```
    #[track_caller]
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { at: Some(Location::caller()), ..Self::of_sdk(status, text) }
    }

    /// An error of this crate's own, of which no line of the author's is known.
    pub(crate) fn of_sdk(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: Some(text.into()), causes: Vec::new(), at: None }
    }

    /// A 500 of this crate's own.
    pub(crate) fn internal(cause: impl Into<Cause>) -> Self {
        let causes = vec![cause.into()];
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, text: None, causes, at: None }
    }

    /// A 400: what the caller sent is wrong, and how.
    ///
    /// ```
    /// assert_eq!(fawn::Error::bad_request("`from` is after `to`").status(), 400);
    /// ```
    #[track_caller]
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// A 404: there is no such thing.
    ///
    /// ```
    /// assert_eq!(fawn::Error::not_found("no such page").status(), 404);
    /// ```
    #[track_caller]
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    /// Adds what it came from, which goes to the log and never to the caller: an error of any kind, one of this crate
    /// among them, or a text. What was there before is what that came from.
    ///
    /// ```
    /// use fawn::{Error, http::StatusCode};
    ///
    /// let error = Error::new(StatusCode::SERVICE_UNAVAILABLE, "try again later").because("the pool is empty");
    /// assert_eq!(error.to_string(), "503 Service Unavailable: try again later");
    /// assert!(format!("{error:?}").ends_with("try again later: the pool is empty"));
    /// ```
    #[must_use]
    pub fn because(self, cause: impl Into<Self>) -> Self {
        let mut cause: Self = cause.into();
        let its_own = mem::take(&mut cause.causes);
        // What is no error of this crate became one here, which has nothing to tell but that.
        let told = cause.text.is_some().then(|| Cause::from(format!("{cause:?}")));
        let causes = told.into_iter().chain(its_own).chain(self.causes).collect();
        Self { causes, ..self }
    }

    /// The status that the caller gets.
    ///
    /// ```
    /// let error = fawn::Error::from("the disk is on fire");
    /// assert_eq!(error.status(), 500);
    /// ```
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The text that the caller gets.
    ///
    /// ```
    /// let error = fawn::Error::from("the disk is on fire");
    /// assert_eq!(error.text(), "internal server error");
    /// ```
    pub fn text(&self) -> &str {
        self.text.as_deref().unwrap_or("internal server error")
    }
}

impl<E: Into<Cause>> From<E> for Error {
    #[track_caller]
    fn from(cause: E) -> Self {
        Self { at: Some(Location::caller()), ..Self::internal(cause) }
    }
}

/// What the caller sees.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.text())
    }
}

/// What the log sees: where it was made, and every cause.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(f, "{at}: ")?;
        }
        write!(f, "{}", self.status)?;
        if let Some(text) = &self.text {
            write!(f, ": {text}")?;
        }
        for cause in &self.causes {
            write!(f, ": {cause}")?;
            let mut source = cause.source();
            while let Some(cause) = source {
                write!(f, ": {cause}")?;
                source = cause.source();
            }
        }
        Ok(())
    }
}

impl IntoResponse for Error {
    /// Where the fault is ours (5xx), this is where the log learns of it.
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            log::error!("{self:?}");
        } else {
            log::debug!("{self:?}");
        }
        let mut response = (self.status, format!("{}\n", self.text())).into_response();
        // The text may hold what the caller sent: no browser is to take it for a page.
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}
