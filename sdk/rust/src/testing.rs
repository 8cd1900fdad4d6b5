//! Calls handlers in unit tests, on the machine at hand: `cargo test`, no server, no WebAssembly.
//!
//! ```
//! use fawn::{Request, testing};
//!
//! #[fawn::handler]
//! async fn handle(name: String) -> String {
//!     format!("Hello, {name}!\n")
//! }
//!
//! // A #[test] would be this:
//! let answer = testing::call(handle, Request::post("/").body("Ada").unwrap());
//! assert_eq!(answer.status(), 200);
//! assert_eq!(answer.body(), "Hello, Ada!\n");
//! ```

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt, io, mem,
    pin::pin,
    str::Utf8Error,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use bytes::Bytes;

use crate::{Body, Client, FromRequest, IntoResponse, Request, Response, answer::answer};

thread_local! {
    /// What the handler of this test finds.
    static SANDBOX: RefCell<Sandbox> = RefCell::default();
}

/// Calls a handler with a request, and gives its whole answer.
///
/// # Panics
/// If the answer's body breaks off.
///
/// ```
/// use fawn::{Json, Request, testing};
///
/// async fn sum(Json(numbers): Json<Vec<u32>>) -> String {
///     numbers.iter().sum::<u32>().to_string()
/// }
///
/// let answer = testing::call(sum, Request::post("/").body("[1, 2]").unwrap());
/// assert_eq!(answer.body(), "3");
/// assert_eq!(testing::call(sum, Request::post("/").body("[1, ").unwrap()).status(), 400);
/// ```
pub fn call<F, A, R, B>(handler: F, request: Request<B>) -> Response<Bytes>
where
    F: AsyncFnOnce(A) -> R,
    A: FromRequest,
    R: IntoResponse,
    B: Into<Body>,
{
    Sandbox::new().call(handler, request)
}

/// The variables and secrets that a handler finds, and who answers its requests, for one call.
///
/// Without one, there are no secrets, variables are those of the process, and requests get no answer.
///
/// ```
/// use fawn::{Request, Response, Result, testing::Sandbox};
///
/// async fn relay(text: String) -> Result<Response> {
///     let request = Request::post("https://example.com/").header("x-token", fawn::secret("token")?);
///     fawn::fetch(request.body(text)?).await
/// }
///
/// let sandbox = Sandbox::new().secret("token", "hunter2").answering(|request| {
///     assert_eq!(request.headers()["x-token"], "hunter2");
///     Response::new("thanks".into())
/// });
/// let answer = sandbox.call(relay, Request::post("/").body("some text").unwrap());
/// assert_eq!(answer.body(), "thanks");
/// ```
#[derive(Default)]
pub struct Sandbox {
    variables: HashMap<String, String>,
    secrets: HashMap<String, Vec<u8>>,
    answering: Option<Box<dyn FnMut(Request) -> Response>>,
}

impl Sandbox {
    /// One with nothing in it.
    ///
    /// ```
    /// let sandbox = fawn::testing::Sandbox::new();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the function a variable.
    ///
    /// ```
    /// use fawn::{Request, testing::Sandbox};
    ///
    /// let greeting = async |_: Request| fawn::env("GREETING");
    /// let answer = Sandbox::new().variable("GREETING", "hi").call(greeting, Request::get("/").body(()).unwrap());
    /// assert_eq!(answer.body(), "hi");
    /// ```
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Gives the function a secret.
    ///
    /// ```
    /// use fawn::{Request, testing::Sandbox};
    ///
    /// let length = async |_: Request| fawn::secret("token").map(|token| token.len().to_string());
    /// let answer = Sandbox::new().secret("token", "hunter2\n").call(length, Request::get("/").body(()).unwrap());
    /// assert_eq!(answer.body(), "7");
    /// ```
    #[must_use]
    pub fn secret(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.secrets.insert(name.into(), value.into());
        self
    }

    /// Answers the function's own requests, those to other functions among them.
    ///
    /// ```
    /// use fawn::{Request, Response, testing::Sandbox};
    ///
    /// let loud = async |text: String| fawn::call("shout", text).await;
    /// let sandbox = Sandbox::new().answering(|request| {
    ///     assert_eq!(request.uri(), "http://gateway.openfaas:8080/function/shout");
    ///     Response::new("HELLO".into())
    /// });
    /// assert_eq!(sandbox.call(loud, Request::post("/").body("hello").unwrap()).body(), "HELLO");
    /// ```
    #[must_use]
    pub fn answering(mut self, answers: impl FnMut(Request) -> Response + 'static) -> Self {
        self.answering = Some(Box::new(answers));
        self
    }

    /// Calls a handler here, and gives its whole answer.
    ///
    /// # Panics
    /// If the answer's body breaks off.
    ///
    /// ```
    /// use fawn::{Request, testing::Sandbox};
    ///
    /// let echo = async |request: Request| request.into_body();
    /// let answer = Sandbox::new().call(echo, Request::post("/").body("x").unwrap());
    /// assert_eq!(answer.body(), "x");
    /// ```
    #[expect(clippy::panic, reason = "a test fails by panicking")]
    pub fn call<F, A, R, B>(self, handler: F, request: Request<B>) -> Response<Bytes>
    where
        F: AsyncFnOnce(A) -> R,
        A: FromRequest,
        R: IntoResponse,
        B: Into<Body>,
    {
        let _within = Within::enter(self);
        crate::function_log::start();
        block_on(async {
            let (head, mut body) = answer(handler, request.map(Into::into)).await.into_parts();
            let mut all = Vec::new();
            loop {
                match body.chunk().await {
                    Ok(Some(piece)) => all.extend_from_slice(&piece),
                    Ok(None) => return Response::from_parts(head, all.into()),
                    Err(error) => panic!("the answer broke off: {error:?}"),
                }
            }
        })
    }
}

impl fmt::Debug for Sandbox {
    /// Without the secrets' values: a failed test prints what it has.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("variables", &self.variables)
            .field("secrets", &self.secrets.keys())
            .finish_non_exhaustive()
    }
}

/// While it lives, this thread is in a sandbox; afterwards it is where it was, which is another one if what answers
/// a function's request calls a handler itself.
struct Within {
    outer: Sandbox,
}

impl Within {
    fn enter(sandbox: Sandbox) -> Self {
        Self { outer: SANDBOX.replace(sandbox) }
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        SANDBOX.set(mem::take(&mut self.outer));
    }
}

pub(crate) async fn send(_: &Client, request: Request) -> Result<Response, String> {
    // Taken out meanwhile: what answers may look into the sandbox too.
    let answering = SANDBOX.with_borrow_mut(|sandbox| sandbox.answering.take());
    let Some(mut answering) = answering else {
        return Err("a test reaches nobody: say with `Sandbox::answering` what is answered".into());
    };
    let response = answering(request);
    SANDBOX.with_borrow_mut(|sandbox| sandbox.answering = Some(answering));
    Ok(response)
}

pub(crate) fn variable(name: &str) -> Option<Result<String, Utf8Error>> {
    let given = SANDBOX.with_borrow(|sandbox| sandbox.variables.get(name).cloned());
    if let Some(value) = given {
        return Some(Ok(value));
    }
    let value = std::env::var_os(name)?;
    Some(str::from_utf8(value.as_encoded_bytes()).map(str::to_owned))
}

pub(crate) fn secret(name: &str) -> io::Result<Vec<u8>> {
    let given = SANDBOX.with_borrow(|sandbox| sandbox.secrets.get(name).cloned());
    given.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Runs a future to its end on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
