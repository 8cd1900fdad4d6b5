//! A registry that does what it is told.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::{body::Frame, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use runtime_api::{Body, BodyError, full};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// One request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    /// With its query.
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Bytes,
}

type Answer = Arc<dyn Fn(&Seen) -> Response<Body> + Send + Sync>;
type Guard = Arc<dyn Fn(&Seen) -> Option<Response<Body>> + Send + Sync>;

/// An answer that depends on nothing.
pub(crate) type Plain = fn() -> Response<Body>;

#[derive(Default)]
struct State {
    answers: Mutex<HashMap<String, Answer>>,
    guard: Mutex<Option<Guard>>,
    seen: Mutex<Vec<Seen>>,
}

pub(crate) struct FakeRegistry {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeRegistry {
    pub(crate) async fn start() -> Self {
        Self::serve(None).await
    }

    /// With a certificate that nobody signed.
    pub(crate) async fn start_tls() -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        Self::start_tls_with(config).await
    }

    pub(crate) async fn start_tls_with(config: rustls::ServerConfig) -> Self {
        Self::serve(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = state.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, tls) = (shared.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => converse(stream, state).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                converse(stream, state).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, state, task }
    }

    /// Goes down, and is down when this returns.
    pub(crate) async fn stop(mut self) {
        self.task.abort();
        assert!((&mut self.task).await.unwrap_err().is_cancelled());
    }

    /// The name of an image here.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Answers requests for a path in a way of the test's own.
    pub(crate) fn answer(
        &self,
        path: impl Into<String>,
        answer: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static,
    ) {
        self.state.answers.lock().unwrap().insert(path.into(), Arc::new(answer));
    }

    /// Looks at every request first.
    pub(crate) fn guard(&self, guard: impl Fn(&Seen) -> Option<Response<Body>> + Send + Sync + 'static) {
        *self.state.guard.lock().unwrap() = Some(Arc::new(guard));
    }

    /// Serves bytes at a path.
    pub(crate) fn serve_at(&self, path: impl Into<String>, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.answer(path, move |_| Response::new(full(bytes.clone())));
    }

    /// Everything that was asked so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// The paths that were asked for so far.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.path).collect()
    }

    pub(crate) fn forget_requests(&self) {
        self.state.seen.lock().unwrap().clear();
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<State>) {
    let service = service_fn(|request| respond(request, state.clone()));
    // A client that hangs up early is what many tests are about.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

async fn respond(
    request: Request<hyper::body::Incoming>,
    state: Arc<State>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let authorization = head.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let body = body.collect().await.unwrap().to_bytes();
    let seen = Seen { method: head.method, path: head.uri.to_string(), authorization, body };
    state.seen.lock().unwrap().push(seen.clone());
    let guard = state.guard.lock().unwrap().clone();
    if let Some(refusal) = guard.and_then(|guard| guard(&seen)) {
        return Ok(refusal);
    }
    let answer = state.answers.lock().unwrap().get(head.uri.path()).cloned();
    Ok(match answer {
        Some(answer) => answer(&seen),
        None if matches!(seen.method, Method::GET | Method::HEAD) => status(404),
        None => take_upload(&seen, head.uri.path(), &state),
    })
}

/// Pushes (OCI distribution-spec, "POST then PUT" and "Pushing Manifests").
fn take_upload(seen: &Seen, path: &str, state: &State) -> Response<Body> {
    let at = |code: u16, location: String| {
        Response::builder().status(code).header("location", location).body(full("")).unwrap()
    };
    let repository = path.split("/blobs/").next().unwrap_or_default();
    let keep = |path: String, bytes: Bytes| {
        let answer: Answer = Arc::new(move |_| Response::new(full(bytes.clone())));
        state.answers.lock().unwrap().insert(path, answer);
    };
    match seen.method {
        Method::POST => at(202, format!("{repository}/blobs/uploads/1?state=a%3D")),
        Method::PUT if path.contains("/manifests/") => {
            keep(path.to_owned(), seen.body.clone());
            at(201, path.to_owned())
        }
        Method::PUT if seen.path.ends_with(&format!("?state=a%3D&digest={}", escaped(&seen.body))) => {
            let blob = format!("{repository}/blobs/{}", digest(&seen.body));
            keep(blob.clone(), seen.body.clone());
            at(201, blob)
        }
        _ => status(405),
    }
}

fn escaped(bytes: &[u8]) -> String {
    digest(bytes).replace(':', "%3A")
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    runtime_api::Digest(Sha256::digest(bytes).into()).to_string()
}

pub(crate) fn status(code: u16) -> Response<Body> {
    Response::builder().status(code).body(full("")).unwrap()
}

pub(crate) fn redirect(to: &str) -> Response<Body> {
    Response::builder().status(StatusCode::TEMPORARY_REDIRECT).header("location", to).body(full("")).unwrap()
}

pub(crate) fn challenge(text: &str) -> Response<Body> {
    Response::builder().status(401).header("www-authenticate", text).body(full("")).unwrap()
}

/// A body that never ends: full of zeros, or silent.
pub(crate) fn endless(silent: bool) -> Body {
    Endless { silent, begun: false }.boxed_unsync()
}

struct Endless {
    silent: bool,
    begun: bool,
}

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.silent && std::mem::replace(&mut self.begun, true) {
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 4096])))))
    }
}
