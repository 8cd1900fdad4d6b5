use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use runtime_api::{Body, empty};
use runtime_process::{ServeConfig, bind, serve};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::queued::{next, values};

/// A server that answers are posted to.
pub(crate) struct Target {
    /// Where to.
    pub(crate) url: String,
    posted: mpsc::UnboundedReceiver<Posted>,
    _running: DropGuard,
}

/// An answer as it was posted.
#[derive(Debug)]
pub(crate) struct Posted {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Posted {
    /// The values of a header, joined; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> String {
        values(&self.headers, name)
    }
}

impl Target {
    /// One that takes all.
    pub(crate) fn start() -> Self {
        Self::answering([])
    }

    /// One that answers with these, and then takes all.
    pub(crate) fn answering(answers: impl IntoIterator<Item = Response<Body>>) -> Self {
        let answers: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(answers.into_iter().collect()));
        let (tell, posted) = mpsc::unbounded_channel();
        let listener = bind(([127, 0, 0, 1], 0).into(), "--listen").unwrap();
        let url = format!("http://{}/done?of=f", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let service = move |_| {
            let (tell, answers) = (tell.clone(), Arc::clone(&answers));
            service_fn(move |request: Request<Incoming>| {
                let (tell, answers) = (tell.clone(), Arc::clone(&answers));
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let (method, target) = (parts.method, parts.uri.to_string());
                    // A test may have ended by now.
                    let _ = tell.send(Posted { method, target, headers: parts.headers, body });
                    let answer = answers.lock().unwrap().pop_front();
                    Ok::<_, Infallible>(answer.unwrap_or_else(|| Response::new(empty())))
                }
            })
        };
        tokio::spawn(serve(listener, service, ServeConfig::default(), shutdown.clone()));
        Self { url, posted, _running: shutdown.drop_guard() }
    }

    /// One that answers always so.
    pub(crate) fn always(status: u16) -> Self {
        Self::answering((0..100).map(|_| status_of(status)))
    }

    /// What is posted next.
    pub(crate) async fn next(&mut self) -> Posted {
        next(&mut self.posted).await
    }

    /// Whether all was looked at that was posted.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.posted.try_recv().is_err()
    }

    /// The header that has answers posted here.
    pub(crate) fn header(&self) -> String {
        format!("X-Callback-Url: {}", self.url)
    }
}

/// An answer with no more than a status.
pub(crate) fn status_of(status: u16) -> Response<Body> {
    Response::builder().status(status).body(empty()).unwrap()
}

/// A server that speaks no HTTP of its own accord, and the header that has answers posted there.
pub(crate) async fn raw() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let header = format!("X-Callback-Url: http://{}/", listener.local_addr().unwrap());
    (listener, header)
}

/// The next connection, once it has sent the head of its request.
pub(crate) async fn connected(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream
}
