//! A request's body as a command's standard input, read from the network only as the guest reads it.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::Body as _;
use runtime_api::Body;
use tokio::io::AsyncRead;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdinStream},
    p2::{InputStream, Pollable, StreamError},
};

/// The request's body; clones read from the same.
#[derive(Clone)]
pub(crate) struct Stdin {
    state: Arc<Mutex<Input>>,
}

/// What is left of a request's body, and what of it has arrived.
pub(crate) struct Input {
    body: Option<Body>,
    ready: Bytes,
    failure: Option<String>,
}

impl Stdin {
    pub(crate) fn new(body: Body) -> Self {
        Self { state: Arc::new(Mutex::new(Input::new(Some(body)))) }
    }

    fn state(&self) -> MutexGuard<'_, Input> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Input {
    pub(crate) fn new(body: Option<Body>) -> Self {
        Self { body, ready: Bytes::new(), failure: None }
    }

    /// Up to so many of the bytes that have arrived. None at the end of the body, and only there: what has not arrived
    /// is waited for with [`Self::poll_fill`]. A failure is told once.
    pub(crate) fn take(&mut self, most: usize) -> Result<Option<Bytes>, String> {
        match self.failure.take() {
            Some(failure) => Err(failure),
            None if self.ready.is_empty() => Ok(None),
            None => Ok(Some(self.ready.split_to(most.min(self.ready.len())))),
        }
    }

    /// Ready when there are bytes, the end, or a failure to tell of.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.ready.is_empty() && self.failure.is_none() {
            let Some(body) = &mut self.body else { break };
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => self.body = None,
                Poll::Ready(Some(Err(error))) => {
                    self.body = None;
                    self.failure = Some(error.to_string());
                }
                Poll::Ready(Some(Ok(frame))) => self.ready = frame.into_data().unwrap_or_default(),
            }
        }
        Poll::Ready(())
    }
}

impl IsTerminal for Stdin {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for Stdin {
    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        // Only WASI 0.3 reads through this one, and it is not offered.
        Box::new(tokio::io::empty())
    }
}

#[async_trait]
impl InputStream for Stdin {
    fn read(&mut self, size: usize) -> Result<Bytes, StreamError> {
        let mut state = self.state();
        // A guest that asks before it waits must not disturb the waker of one that waits.
        let filled = state.poll_fill(&mut Context::from_waker(Waker::noop()));
        match state.take(size) {
            Err(failure) => Err(StreamError::LastOperationFailed(wasmtime::format_err!(
                "the request broke off: {failure}"
            ))),
            Ok(None) if filled.is_ready() => Err(StreamError::Closed),
            Ok(bytes) => Ok(bytes.unwrap_or_default()),
        }
    }
}

#[async_trait]
impl Pollable for Stdin {
    async fn ready(&mut self) {
        poll_fn(|cx| self.state().poll_fill(cx)).await;
    }
}
