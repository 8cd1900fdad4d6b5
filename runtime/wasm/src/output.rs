//! A command's output: in memory while it is small, then in a file that has no name, up to a limit.

use std::{
    fs::File,
    io::{self, Seek},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use runtime_api::{Body, BodyError, full};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamError},
};

/// Output that is kept in memory, in bytes.
const MEMORY_BYTES: usize = 1 << 20;

/// What a guest may write at once.
const WRITE_BYTES: usize = 64 << 10;

/// The output of one call; clones write to the same.
#[derive(Clone)]
pub(crate) struct Output {
    state: Arc<Mutex<State>>,
}

struct State {
    memory: BytesMut,
    file: Option<tokio::fs::File>,
    /// All bytes written so far.
    written: u64,
    limit: u64,
    failure: Option<Failure>,
}

/// Why output was lost.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// It is more than the function may answer.
    TooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The disk did not take it.
    Disk(Arc<io::Error>),
}

impl Output {
    pub(crate) fn new(limit: u64) -> Self {
        let state = State { memory: BytesMut::new(), file: None, written: 0, limit, failure: None };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves what is in memory to the file.
    async fn spill(&self) {
        let (file, memory) = {
            let mut state = self.state();
            (state.file.take(), state.memory.split().freeze())
        };
        let stored = store(file, &memory).await;
        let mut state = self.state();
        match stored {
            Ok(file) => state.file = Some(file),
            Err(error) => state.failure = Some(Failure::Disk(Arc::new(error))),
        }
    }

    /// What was written, behind `prefix`: its length, its first bytes, and a body that streams it.
    pub(crate) async fn finish(self, prefix: Bytes) -> Result<Finished, Failure> {
        if self.state().file.is_some() {
            self.spill().await;
        }
        let (memory, file, written) = {
            let mut state = self.state();
            if let Some(failure) = state.failure.take() {
                return Err(failure);
            }
            (state.memory.split(), state.file.take(), state.written)
        };
        let length = written + prefix.len() as u64;
        if let Some(file) = file {
            return from_file(file, prefix, length).await.map_err(|error| Failure::Disk(Arc::new(error)));
        }
        let whole = if prefix.is_empty() { memory.freeze() } else { [&prefix, &*memory].concat().into() };
        Ok(Finished { length, start: head_of(&whole), body: full(whole) })
    }
}

/// A command's whole output.
pub(crate) struct Finished {
    pub(crate) length: u64,
    pub(crate) start: Bytes,
    pub(crate) body: Body,
}

/// As much as content sniffing looks at.
fn head_of(whole: &Bytes) -> Bytes {
    whole.slice(..whole.len().min(crate::sniff::SNIFFED_BYTES))
}

async fn store(file: Option<tokio::fs::File>, bytes: &[u8]) -> io::Result<tokio::fs::File> {
    let mut file = match file {
        Some(file) => file,
        None => tokio::fs::File::from_std(tokio::task::spawn_blocking(tempfile::tempfile).await??),
    };
    file.write_all(bytes).await?;
    file.flush().await?;
    Ok(file)
}

async fn from_file(file: tokio::fs::File, prefix: Bytes, length: u64) -> io::Result<Finished> {
    let mut file = tokio::task::spawn_blocking({
        let file: File = file.into_std().await;
        move || {
            (&file).rewind()?;
            Ok::<_, io::Error>(tokio::fs::File::from_std(file))
        }
    })
    .await??;
    let mut start = BytesMut::from(&*prefix);
    file.read_buf(&mut start).await?;
    let start = start.freeze();
    let first = futures_util::stream::once(std::future::ready(Ok(start.clone())));
    let rest = tokio_util::io::ReaderStream::with_capacity(file, WRITE_BYTES);
    let frames = futures_util::StreamExt::chain(first, rest);
    let frames = futures_util::TryStreamExt::map_ok(frames, Frame::data);
    let body = StreamBody::new(frames).map_err(BodyError::from).boxed_unsync();
    Ok(Finished { length, start: head_of(&start), body })
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI 0.3 writes through this one, and it is not offered.
        Box::new(tokio::io::sink())
    }
}

#[async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        let mut state = self.state();
        state.written = state.written.saturating_add(bytes.len() as u64);
        if state.written > state.limit {
            state.failure = Some(Failure::TooLarge { limit: state.limit });
            return Err(StreamError::Trap(wasmtime::format_err!(
                "output is larger than {} bytes",
                state.limit
            )));
        }
        state.memory.extend_from_slice(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        let state = self.state();
        if state.failure.is_some() {
            return Err(StreamError::Trap(wasmtime::format_err!("output cannot be stored")));
        }
        Ok(if state.memory.len() < MEMORY_BYTES { WRITE_BYTES } else { 0 })
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        if self.state().memory.len() >= MEMORY_BYTES {
            self.spill().await;
        }
    }
}
