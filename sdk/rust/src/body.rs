use std::{
    fmt,
    future::poll_fn,
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http::StatusCode;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result, error::Cause};

/// The longest body that is read as a whole, in bytes, unless [`Body::bytes_up_to`] says otherwise: an eighth of the
/// memory that an instance has by default.
///
/// ```
/// # async fn show(request: fawn::Request) -> fawn::Result<()> {
/// let twice_as_much = request.into_body().bytes_up_to(2 * fawn::MAX_BODY_BYTES).await?;
/// # Ok(())
/// # }
/// ```
pub const MAX_BODY_BYTES: usize = 16 << 20;

/// The body of a request or an answer: bytes that are there, or that come piece by piece.
///
/// As a [`Stream`] it gives its pieces. A body that is passed on untouched goes from one side to the other without
/// coming through the function's memory as a whole.
///
/// ```
/// use fawn::{Body, Request, Response};
/// use futures_lite::StreamExt;
///
/// /// Shouts back, while the caller is still talking.
/// #[fawn::handler]
/// async fn handle(request: Request) -> Response {
///     let pieces = request.into_body().map(|piece| piece.map(|piece| piece.to_ascii_uppercase()));
///     Response::new(Body::from_stream(pieces))
/// }
/// ```
pub struct Body {
    inner: Inner,
    sender: Sender,
}

/// Who has sent a body, and so whose fault it is if that is not as it should be.
#[derive(Clone, Copy)]
enum Sender {
    /// The caller, who is told what is wrong.
    Caller,
    /// A service that the function has asked: the caller is told no more than that.
    Service,
}

enum Inner {
    Whole(Bytes),
    Pieces(UnsyncBoxBody<Bytes, io::Error>),
    /// As it came from the host, which can also send it on by itself.
    #[cfg(target_family = "wasm")]
    Host(wstd::http::Body),
}

impl Body {
    /// No bytes.
    ///
    /// ```
    /// # fn show() -> fawn::Result<()> {
    /// let request = fawn::Request::get("https://example.com/").body(fawn::Body::empty())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn empty() -> Self {
        Inner::Whole(Bytes::new()).into()
    }

    /// A value as JSON; its content type is yours to set. [`Json`](crate::Json) does both for an answer.
    ///
    /// # Errors
    /// If the value has no JSON, such as a map whose keys are not strings.
    ///
    /// ```
    /// use fawn::{Body, Request};
    ///
    /// # fn show() -> fawn::Result<()> {
    /// let request = Request::post("https://example.com/")
    ///     .header("content-type", "application/json")
    ///     .body(Body::from_json(&[1, 2, 3])?)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_json<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        Ok(serde_json::to_vec(value)?.into())
    }

    /// A body that is written as the stream gives it. An error breaks the answer off, and is in the log.
    ///
    /// ```
    /// use fawn::{Body, Response, Result};
    /// use futures_lite::stream;
    ///
    /// #[fawn::handler]
    /// async fn handle(_: fawn::Request) -> Response {
    ///     let lines = (1..=1000).map(|number| Ok::<_, std::io::Error>(format!("{number}\n")));
    ///     Response::new(Body::from_stream(stream::iter(lines)))
    /// }
    /// ```
    pub fn from_stream<S, D, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<D, E>> + Send + 'static,
        D: Into<Bytes>,
        E: Into<Cause>,
    {
        Inner::Pieces(UnsyncBoxBody::new(Pieces(Box::pin(stream)))).into()
    }

    /// The body as that of an answer to the function's own request.
    pub(crate) fn of_service(self) -> Self {
        Self { sender: Sender::Service, ..self }
    }

    /// The next piece, or nothing at the end.
    ///
    /// # Errors
    /// A 400 if the body breaks off; as in all that reads a body, a 502 instead if it is that of an answer to a
    /// [`Client`](crate::Client): the caller is not told what another service said.
    ///
    /// ```
    /// use fawn::{Request, Result};
    ///
    /// #[fawn::handler]
    /// async fn handle(request: Request) -> Result<String> {
    ///     let (mut body, mut lines) = (request.into_body(), 0);
    ///     while let Some(piece) = body.chunk().await? {
    ///         lines += piece.iter().filter(|&&byte| byte == b'\n').count();
    ///     }
    ///     Ok(format!("{lines}\n"))
    /// }
    /// ```
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let piece = poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await;
        piece.transpose().map_err(|cause| self.sender.broke("the body broke off", cause))
    }

    /// All of it.
    ///
    /// # Errors
    /// A 413 if it is longer than [`MAX_BODY_BYTES`], a 400 if it breaks off.
    ///
    /// ```
    /// # async fn show(request: fawn::Request) -> fawn::Result<()> {
    /// let length = request.into_body().bytes().await?.len();
    /// # Ok(())
    /// # }
    /// ```
    pub async fn bytes(self) -> Result<Bytes> {
        self.bytes_up_to(MAX_BODY_BYTES).await
    }

    /// All of it, if that is no more than so many bytes.
    ///
    /// # Errors
    /// A 413 if it is longer, a 400 if it breaks off.
    ///
    /// ```
    /// # async fn show(request: fawn::Request) -> fawn::Result<()> {
    /// let at_most_1_kib = request.into_body().bytes_up_to(1024).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn bytes_up_to(mut self, most_bytes: usize) -> Result<Bytes> {
        let Some(first) = self.chunk().await? else { return Ok(Bytes::new()) };
        if first.len() > most_bytes {
            return Err(self.sender.sent_more_than(most_bytes));
        }
        let Some(second) = self.chunk().await? else { return Ok(first) };
        let mut all = BytesMut::from(first);
        let mut next = Some(second);
        while let Some(piece) = next {
            if piece.len() > most_bytes - all.len() {
                return Err(self.sender.sent_more_than(most_bytes));
            }
            all.extend_from_slice(&piece);
            next = self.chunk().await?;
        }
        Ok(all.freeze())
    }

    /// All of it as text.
    ///
    /// # Errors
    /// As [`Body::bytes`], and a 400 if it is not UTF-8.
    ///
    /// ```
    /// # async fn show(request: fawn::Request) -> fawn::Result<()> {
    /// let name = request.into_body().text().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn text(self) -> Result<String> {
        let sender = self.sender;
        String::from_utf8(self.bytes().await?.into())
            .map_err(|cause| sender.broke("the body is not text in UTF-8", cause))
    }

    /// All of it, read as JSON.
    ///
    /// # Errors
    /// As [`Body::bytes`], and a 400 that says where it is not JSON, or not what is wanted.
    ///
    /// ```
    /// # async fn show(request: fawn::Request) -> fawn::Result<()> {
    /// let numbers: Vec<f64> = request.into_body().json().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn json<T: DeserializeOwned>(self) -> Result<T> {
        let sender = self.sender;
        serde_json::from_slice(&self.bytes().await?).map_err(|error| {
            sender.wrong(StatusCode::BAD_REQUEST, format!("the body is not the JSON that is wanted: {error}"))
        })
    }

    /// The body as pieces.
    fn pieces(&mut self) -> Option<&mut UnsyncBoxBody<Bytes, io::Error>> {
        #[cfg(target_family = "wasm")]
        if let Inner::Host(body) = &mut self.inner {
            use http_body_util::BodyExt;
            let body = mem::replace(body, wstd::http::Body::empty());
            let pieces =
                body.into_boxed_body().map_err(|error| io::Error::other(error.into_boxed_dyn_error()));
            self.inner = Inner::Pieces(pieces.boxed_unsync());
        }
        match &mut self.inner {
            Inner::Pieces(pieces) => Some(pieces),
            _ => None,
        }
    }
}

impl Sender {
    /// What is wrong with the body.
    fn wrong(self, status: StatusCode, text: String) -> Error {
        match self {
            Self::Caller => Error::of_sdk(status, text),
            Self::Service => not_as_expected().because(text),
        }
    }

    /// What is wrong with the body, and what that comes from, which is for the log.
    fn broke(self, text: &'static str, cause: impl Into<Cause>) -> Error {
        match self {
            Self::Caller => Error::of_sdk(StatusCode::BAD_REQUEST, text).because(cause.into()),
            Self::Service => not_as_expected().because(cause.into()).because(text),
        }
    }

    fn sent_more_than(self, most_bytes: usize) -> Error {
        self.wrong(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {most_bytes} bytes"))
    }
}

fn not_as_expected() -> Error {
    let text = "a service that this function needs did not answer as expected";
    Error::of_sdk(StatusCode::BAD_GATEWAY, text)
}

impl Stream for Body {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Inner::Whole(bytes) = &mut self.inner {
            let bytes = mem::take(bytes);
            return Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes)));
        }
        let Some(pieces) = self.pieces() else { return Poll::Ready(None) };
        loop {
            let frame = ready!(http_body::Body::poll_frame(Pin::new(&mut *pieces), cx));
            match frame.transpose()?.map(Frame::into_data) {
                Some(Ok(piece)) if !piece.is_empty() => return Poll::Ready(Some(Ok(piece))),
                // An empty piece says nothing, and trailers are not of the body.
                Some(_) => {}
                None => return Poll::Ready(None),
            }
        }
    }
}

/// A stream as what the crates of `http` send.
struct Pieces<S>(Pin<Box<S>>);

impl<S, D, E> http_body::Body for Pieces<S>
where
    S: Stream<Item = Result<D, E>>,
    D: Into<Bytes>,
    E: Into<Cause>,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = ready!(self.0.as_mut().poll_next(cx));
        Poll::Ready(piece.map(|piece| piece.map(|data| Frame::data(data.into())).map_err(io::Error::other)))
    }
}

#[cfg(target_family = "wasm")]
impl From<wstd::http::Body> for Body {
    fn from(body: wstd::http::Body) -> Self {
        Inner::Host(body).into()
    }
}

#[cfg(target_family = "wasm")]
impl From<Body> for wstd::http::Body {
    fn from(body: Body) -> Self {
        match body.inner {
            Inner::Whole(bytes) => bytes.into(),
            Inner::Pieces(pieces) => Self::from_http_body(pieces),
            Inner::Host(body) => body,
        }
    }
}

impl From<Inner> for Body {
    fn from(inner: Inner) -> Self {
        Self { inner, sender: Sender::Caller }
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Inner::Whole(bytes).into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner {
            Inner::Whole(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            _ => f.write_str("Body(..)"),
        }
    }
}
