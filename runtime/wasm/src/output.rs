//! A command's output: in memory while it is small, then on disk, up to a limit.

use std::{
    future::poll_fn,
    io, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use runtime_api::{Body, BodyError, full};
use tokio::{io::AsyncWrite, task::JoinHandle};
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamError},
};

use crate::{
    sniff::SNIFFED_BYTES,
    spill::{Spill, Spilled},
};

/// Output that is kept in memory, in bytes.
const MEMORY_BYTES: usize = 1 << 20;

/// What a guest may write at once.
const WRITE_BYTES: usize = 64 << 10;

/// More than this is in memory only if a guest does not ask before it writes.
const MOST_BYTES: usize = 2 * MEMORY_BYTES;

/// The output of one call; clones write to the same.
#[derive(Clone)]
pub(crate) struct Output {
    state: Arc<Mutex<Buffer>>,
}

/// What one call has written so far.
pub(crate) struct Buffer {
    memory: BytesMut,
    spill: Arc<Spill>,
    spilled: Option<Spilled>,
    /// What is on disk while bytes are written to it. It is kept here, as whoever waits for it may stop waiting: a guest
    /// that polls several things does when another is ready.
    storing: Option<JoinHandle<io::Result<Spilled>>>,
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
    /// The node's disk has no room for it now.
    NoRoom,
}

impl Output {
    pub(crate) fn new(limit: u64, spill: Arc<Spill>) -> Self {
        Self { state: Arc::new(Mutex::new(Buffer::new(limit, spill))) }
    }

    fn state(&self) -> MutexGuard<'_, Buffer> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that was written by now; whatever is written later is lost.
    pub(crate) fn take(&self) -> Buffer {
        let mut state = self.state();
        let spill = state.spill.clone();
        mem::replace(&mut state, Buffer::new(0, spill))
    }
}

impl Buffer {
    pub(crate) fn new(limit: u64, spill: Arc<Spill>) -> Self {
        Self {
            memory: BytesMut::new(),
            spill,
            spilled: None,
            storing: None,
            written: 0,
            limit,
            failure: None,
        }
    }

    /// What was written, behind `prefix`: its length, its first bytes, and a body that streams it.
    pub(crate) async fn finish(mut self, prefix: Bytes) -> Result<Finished, Failure> {
        poll_fn(|cx| self.poll_finish(cx)).await;
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let Self { memory, spilled, written, .. } = self;
        let length = written + prefix.len() as u64;
        if let Some(spilled) = spilled {
            return from_disk(spilled, prefix, length).await.map_err(|error| Failure::Disk(Arc::new(error)));
        }
        let whole = if prefix.is_empty() { memory.freeze() } else { [&prefix, &*memory].concat().into() };
        Ok(Finished { length, start: head_of(&whole), body: full(whole) })
    }

    /// Takes some of the bytes, and tells how many, once there is room for them. A failure is for good.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<wasmtime::Result<usize>> {
        ready!(self.poll_room(cx));
        if self.failure.is_some() {
            return Poll::Ready(Err(wasmtime::format_err!("output cannot be stored")));
        }
        let piece = bytes.get(..WRITE_BYTES).unwrap_or(bytes);
        self.push(piece)?;
        Poll::Ready(Ok(piece.len()))
    }

    /// Ready when there is room for more, or never will be.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_store(cx, MEMORY_BYTES)
    }

    fn push(&mut self, bytes: &[u8]) -> wasmtime::Result<()> {
        self.written = self.written.saturating_add(bytes.len() as u64);
        if self.written > self.limit {
            self.failure = Some(Failure::TooLarge { limit: self.limit });
            wasmtime::bail!("output is larger than {} bytes", self.limit);
        }
        self.memory.extend_from_slice(bytes);
        Ok(())
    }

    /// Ready when no more than `most` bytes are in memory, or never will be fewer.
    fn poll_store(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<()> {
        loop {
            if let Some(storing) = &mut self.storing {
                let stored = ready!(Pin::new(storing).poll(cx));
                self.storing = None;
                match stored.map_err(io::Error::from).flatten() {
                    Ok(spilled) => self.spilled = Some(spilled),
                    Err(error) => self.failure = Some(Failure::Disk(Arc::new(error))),
                }
            }
            if self.memory.len() <= most || self.failure.is_some() {
                return Poll::Ready(());
            }
            self.store();
        }
    }

    /// Begins to move what is in memory to the disk.
    fn store(&mut self) {
        let bytes = self.memory.split().freeze();
        let Some(room) = self.spill.room(bytes.len() as u64) else {
            self.failure = Some(Failure::NoRoom);
            return;
        };
        let spilled = self.spilled.take();
        self.storing = Some(tokio::task::spawn_blocking(move || match spilled {
            Some(spilled) => spilled.append(&bytes, room),
            None => Spilled::create(&bytes, room),
        }));
    }

    /// Ready when all is in one place.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let on_disk = self.spilled.is_some() || self.storing.is_some();
        self.poll_store(cx, if on_disk { 0 } else { MEMORY_BYTES })
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
    whole.slice(..whole.len().min(SNIFFED_BYTES))
}

async fn from_disk(mut spilled: Spilled, prefix: Bytes, length: u64) -> io::Result<Finished> {
    let mut start = prefix.to_vec();
    let (spilled, start) = tokio::task::spawn_blocking(move || {
        spilled.read_start(SNIFFED_BYTES, &mut start)?;
        Ok::<_, io::Error>((spilled, Bytes::from(start)))
    })
    .await??;
    let first = futures_util::stream::once(std::future::ready(Ok(start.clone())));
    let rest = spilled.into_stream();
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
        if state.memory.len() + bytes.len() > MOST_BYTES {
            return Err(StreamError::trap("more was written than check-write allowed"));
        }
        state.push(&bytes).map_err(StreamError::Trap)
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        let state = self.state();
        if state.failure.is_some() {
            return Err(StreamError::Trap(wasmtime::format_err!("output cannot be stored")));
        }
        let room = state.storing.is_none() && state.memory.len() <= MEMORY_BYTES;
        Ok(if room { WRITE_BYTES } else { 0 })
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        poll_fn(|cx| self.state().poll_room(cx)).await;
    }
}

#[cfg(test)]
mod tests;
