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
    state: Arc<Mutex<State>>,
}

struct State {
    body: Option<Body>,
    ready: Bytes,
    failure: Option<String>,
}

impl Stdin {
    pub(crate) fn new(body: Body) -> Self {
        Self { state: Arc::new(Mutex::new(State { body: Some(body), ready: Bytes::new(), failure: None })) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Ready when there are bytes, the end, or a failure to tell of.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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
        if let Some(failure) = state.failure.take() {
            return Err(StreamError::LastOperationFailed(wasmtime::format_err!(
                "the request broke off: {failure}"
            )));
        }
        if filled.is_ready() && state.ready.is_empty() {
            return Err(StreamError::Closed);
        }
        let size = size.min(state.ready.len());
        Ok(state.ready.split_to(size))
    }
}

#[async_trait]
impl Pollable for Stdin {
    async fn ready(&mut self) {
        poll_fn(|cx| self.state().poll_fill(cx)).await;
    }
}
