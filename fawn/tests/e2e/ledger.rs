//! A server in the tests' own process that takes note of who came: what functions do is seen here, and outlives the
//! server that ran them. Their answers are posted here, too.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};

use crate::{
    edge::{Reply, client},
    process::PATIENCE,
};

/// Cloned for every client; the server ends with the first.
#[derive(Clone)]
pub(crate) struct Ledger {
    /// `http://127.0.0.1:PORT`.
    pub(crate) address: String,
    book: Arc<Book>,
    _server: Arc<Server>,
}

struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Book {
    calls: Mutex<HashMap<String, Seen>>,
    /// Which life of the server under test this is.
    life: watch::Sender<u32>,
    /// Connections that are open.
    open: watch::Sender<usize>,
    /// Calls that were answered with success at least once.
    done: watch::Sender<usize>,
    /// Whether `/held/…` gets no answer yet.
    holds: watch::Sender<bool>,
    /// What `/effect/…` is answered with, if not as it asks.
    refuses: watch::Sender<bool>,
}

/// What was seen of one call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Each time that the function came with the whole body: in which life of the server, and what it was told.
    pub(crate) effects: Vec<(u32, StatusCode)>,
    /// Each time that the answer was posted.
    pub(crate) callbacks: Vec<Callback>,
}

#[derive(Clone, Debug)]
pub(crate) struct Callback {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    /// How often the function was told that all is well.
    pub(crate) fn successes(&self) -> usize {
        self.effects.iter().filter(|(_, status)| status.is_success()).count()
    }
}

/// What a call has as its body: text that is another for each call, and at each place, and knows its length.
pub(crate) fn body(id: &str, bytes: usize) -> Bytes {
    let mut text = format!("{id} {bytes}\n").into_bytes();
    let mut line = 0;
    while text.len() < bytes {
        text.extend(format!("{id} {line}\n").bytes());
        line += 1;
    }
    text.into()
}

/// What a function that [`body`] was passed on by answers in the end.
pub(crate) fn answer(id: &str) -> String {
    format!("done {id}\n")
}

impl Ledger {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let book = Arc::new(Book {
            calls: Mutex::default(),
            life: watch::Sender::new(0),
            open: watch::Sender::new(0),
            done: watch::Sender::new(0),
            holds: watch::Sender::new(false),
            refuses: watch::Sender::new(false),
        });
        let server = Server(tokio::spawn(accept(listener, book.clone())));
        Self { address, book, _server: Arc::new(server) }
    }

    /// Where a function is to go: it is told to come again, so many times.
    pub(crate) fn effect(&self, id: &str, failures: usize) -> String {
        format!("{}/effect/{id}/{failures}", self.address)
    }

    /// Where a function waits until it is let go.
    pub(crate) fn held(&self, id: &str) -> String {
        format!("{}/held/{id}", self.address)
    }

    pub(crate) fn callback(&self, id: &str) -> String {
        format!("{}/callback/{id}", self.address)
    }

    pub(crate) fn seen(&self, id: &str) -> Seen {
        self.book.calls().get(id).cloned().unwrap_or_default()
    }

    /// How many calls were answered with success.
    pub(crate) fn done(&self) -> watch::Receiver<usize> {
        self.book.done.subscribe()
    }

    /// From now on `/held/…` gets no answer, until it may go.
    pub(crate) fn hold(&self) {
        self.book.holds.send_replace(true);
    }

    pub(crate) fn let_go(&self) {
        self.book.holds.send_replace(false);
    }

    /// Whether everything else is answered with 500.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.book.refuses.send_replace(refuses);
    }

    /// Waits until all that a server did that is dead now was noted, and turns to the next life.
    pub(crate) async fn next_life(&self) {
        // Who asks now is accepted after all who asked before.
        let last =
            client().build().unwrap().get(format!("{}/last", self.address)).header("connection", "close");
        Reply::to(last).await.ok();
        let mut open = self.book.open.subscribe();
        timeout(PATIENCE, open.wait_for(|open| *open == 0))
            .await
            .expect("a dead server's connections end")
            .unwrap();
        self.book.life.send_modify(|life| *life += 1);
    }
}

impl Book {
    fn calls(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.calls.lock().unwrap()
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, content) = request.into_parts();
        let (mut status, mut text) = (StatusCode::OK, String::new());
        // What broke off was not done.
        let Ok(content) = content.collect().await else { return Ok(Response::default()) };
        let content = content.to_bytes();
        match *head.uri.path().split('/').collect::<Vec<_>>() {
            ["", "effect", id, failures] => {
                status = self.effect(id, failures.parse().unwrap(), &content);
                text = answer(id);
            }
            ["", "held", id] => {
                status = self.effect(id, 0, &content);
                text = answer(id);
                self.holds.subscribe().wait_for(|holds| !holds).await.unwrap();
            }
            ["", "callback", id] => {
                let callback = Callback { headers: head.headers, body: content };
                self.calls().entry(id.to_owned()).or_default().callbacks.push(callback);
            }
            ["", "last"] => {}
            _ => status = StatusCode::NOT_FOUND,
        }
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        Ok(response)
    }

    fn effect(&self, id: &str, failures: usize, content: &Bytes) -> StatusCode {
        let bytes = content
            .split(|byte| *byte == b'\n')
            .next()
            .and_then(|line| str::from_utf8(line).ok()?.strip_prefix(id)?.trim().parse().ok());
        if bytes.is_none_or(|bytes| body(id, bytes) != *content) {
            return StatusCode::UNPROCESSABLE_ENTITY;
        }
        let (mut calls, life) = (self.calls(), *self.life.borrow());
        let seen = calls.entry(id.to_owned()).or_default();
        let first = seen.successes() == 0;
        let fails = *self.refuses.borrow() || seen.effects.len() < failures;
        let status = if fails { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
        seen.effects.push((life, status));
        drop(calls);
        if first && !fails {
            self.done.send_modify(|done| *done += 1);
        }
        status
    }
}

async fn accept(listener: TcpListener, book: Arc<Book>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        book.open.send_modify(|open| *open += 1);
        let book = book.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| book.answer(request));
            // A client that was killed hangs up anywhere.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            book.open.send_modify(|open| *open -= 1);
        });
    }
}
