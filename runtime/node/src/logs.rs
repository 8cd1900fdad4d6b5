//! Functions' logs: kept on disk within bounds, and read from there, also as they grow.
//!
//! Calls hand over what happened and go on ([`FunctionLog`]). One thread makes lines of it and writes them, not synced
//! one by one: a node that is killed loses what it had not written, and half of no line. A log belongs to a function's
//! name; it stays for the grace period after the function is removed, and a function deployed anew begins a new one.

mod ends;
mod files;
mod line;
mod rates;
mod reader;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use futures_util::{TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use runtime_api::{Error, FunctionName, LogQuery, LogStream, Result};
use runtime_process::Seldom;
use runtime_wasm::{FunctionLog, LogQueue, LogStyle};
use tokio::{
    sync::{Semaphore, watch},
    task::spawn_blocking,
    time::{error::Elapsed, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    ends::Ends,
    files::Files,
    line::Scribe,
    rates::Rates,
    reader::{Placed, Reader, Wanted},
    writer::{SAY_EVERY, Writer},
};

/// How many may read logs at once.
const MAX_READERS: usize = 64;

/// Lines that are told where neither a time nor a number of lines is asked for (`OpenFaaS`).
const DEFAULT_WINDOW: SignedDuration = SignedDuration::from_mins(5);

/// How long a reader waits for what calls have just left to be written. A disk that hangs does not hold it up.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// How long a reader then waits to be told where the log lies, for which nothing may be writing.
const WATCH_TIME: Duration = Duration::from_secs(5);

/// How long what is left may take to be written at the end: at most 32 MiB, and a disk that hangs.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// What logs may take on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// One function's, in bytes; at least [`LogLimits::MIN_FUNCTION_BYTES`]. When it is used up, the older half goes.
    pub function_bytes: u64,
    /// All functions' together, in bytes. When it is used up, the oldest lines of those that have most go.
    pub total_bytes: u64,
}

impl LogLimits {
    /// The least that a function can have: two pieces of what is written at once.
    pub const MIN_FUNCTION_BYTES: u64 = 2 * files::CHUNK_BYTES as u64;

    fn segment_bytes(self) -> u64 {
        self.function_bytes / 2
    }
}

impl Default for LogLimits {
    /// A few ten thousand lines of a function, and a total that fits on the disk of a small machine.
    fn default() -> Self {
        Self { function_bytes: 4 << 20, total_bytes: 256 << 20 }
    }
}

/// The logs of a node's functions.
pub struct Logs {
    folder: PathBuf,
    /// Held while something is written: nobody waits for it on a thread of the runtime.
    files: Arc<Mutex<Files>>,
    ends: Ends,
    queue: LogQueue,
    settled: watch::Receiver<u64>,
    places: Arc<Semaphore>,
    ended: CancellationToken,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Logs {
    /// Takes up what is in the folder, and starts the thread that writes. `node` is what tells this node's lines from
    /// others': a word that stays the same over restarts.
    ///
    /// # Errors
    /// `Unavailable` when the folder cannot be used, or the thread not be started.
    pub fn start(folder: &Path, limits: LogLimits, node: &str) -> Result<Self> {
        let function_bytes = limits.function_bytes.max(LogLimits::MIN_FUNCTION_BYTES);
        let limits = LogLimits { function_bytes, total_bytes: limits.total_bytes.max(function_bytes) };
        let files = Files::open(folder, limits).map_err(|error| {
            Error::unavailable(format!("functions' logs cannot be kept in {}", folder.display()), error)
        })?;
        let (files, queue) = (Arc::new(Mutex::new(files)), LogQueue::default());
        let (settle, settled) = watch::channel(0);
        let writer = Writer {
            queue: queue.clone(),
            files: files.clone(),
            scribe: Scribe::new(node),
            rates: Rates::default(),
            settled: settle,
            lost: Seldom::new(SAY_EVERY),
        };
        let thread = thread::Builder::new().name("function-logs".into()).spawn(move || writer.run());
        let thread = thread
            .map_err(|error| Error::unavailable("the thread of functions' logs cannot be started", error))?;
        Ok(Self {
            folder: folder.to_owned(),
            files,
            ends: Ends::default(),
            queue,
            settled,
            places: Arc::new(Semaphore::new(MAX_READERS)),
            ended: CancellationToken::new(),
            writer: Mutex::new(Some(thread)),
        })
    }

    /// Where a function's calls write.
    pub(crate) fn of(&self, function: &FunctionName, style: LogStyle) -> Arc<FunctionLog> {
        self.queue.log(function.clone(), style, self.ends.of(function))
    }

    /// A function's lines. Whether it `exists` decides what having no log means.
    pub(crate) async fn read(&self, query: LogQuery, exists: bool) -> Result<LogStream> {
        let LogQuery { function, instance, tail, since, follow } = query;
        let place = self.places.clone().try_acquire_owned().map_err(|_| Error::Overloaded {
            message: format!("{MAX_READERS} are reading logs already; try again when one of them has ended"),
            retry_after: Duration::from_secs(1),
        })?;
        self.settle().await;
        let (files, asked) = (self.files.clone(), function.clone());
        // The place goes along: so many wait for a disk that hangs, and no more.
        let watching = spawn_blocking(move || (lock(&files).watch(&asked, exists), place));
        let (extent, place) = timeout(WATCH_TIME, watching).await.map_err(hangs)?.map_err(Error::internal)?;
        let Some(extent) = extent else {
            return Err(Error::NotFound(format!("function {function} not found, and no log of it")));
        };
        let window = || Timestamp::now().checked_sub(DEFAULT_WINDOW).ok();
        let since = if tail.is_none() { since.or_else(window) } else { since };
        let wanted = Wanted { function, instance, since };
        let begin = || Reader::new(self.folder.clone(), wanted.clone(), extent.clone(), self.ended.clone());
        // Begins where the count does: should lines go meanwhile, it notices.
        let reader = begin();
        let skip = match tail {
            Some(tail) => begin().until_now().count().await?.saturating_sub(tail),
            None => 0,
        };
        let reader = reader.skipping(skip, tail.unwrap_or_default());
        let reader = if follow { reader } else { reader.until_now() };
        let placed = Placed { reader, _place: place };
        let read = stream::try_unfold(placed, async |mut placed: Placed| {
            let lines = placed.reader.next().await?;
            Ok::<_, Error>(lines.map(|lines| (stream::iter(lines.into_iter().map(Ok)), placed)))
        });
        Ok(Box::pin(read.try_flatten()))
    }

    /// Waits until what was left so far is written.
    async fn settle(&self) {
        let (asked, mut settled) = (self.queue.ask(), self.settled.clone());
        let written = settled.wait_for(|written| *written >= asked);
        if timeout(SETTLE_TIME, written).await.is_err() {
            tracing::warn!("functions' logs are written slowly: a reader does not see the newest lines");
        }
    }

    /// Tells that a function is removed. Its calls in flight go on writing its log, until another takes its name.
    pub(crate) fn retire(&self, function: &FunctionName) {
        self.ends.retire(function);
    }

    /// Removes the log of a retired function: its name is to have a new one. Blocks on the disk.
    pub(crate) fn remove(&self, function: &FunctionName) {
        let mut files = lock(&self.files);
        self.ends.set(function);
        files.give_up(function);
    }

    /// Removes the logs of a namespace, which has no functions any more. Blocks on the disk.
    pub(crate) fn remove_namespace(&self, namespace: &str) {
        let mut files = lock(&self.files);
        self.ends.set_all(namespace);
        let within = |function: &&FunctionName| function.namespace() == namespace;
        let functions: Vec<FunctionName> = files.functions().filter(within).cloned().collect();
        functions.iter().for_each(|function| files.give_up(function));
    }

    /// Removes the logs of functions that have been gone for the grace period. Blocks on the disk.
    pub(crate) fn sweep(&self, exists: impl Fn(&FunctionName) -> bool, grace: Duration) -> Result<()> {
        self.ends.forget(&exists);
        lock(&self.files).sweep(exists, grace).map_err(Error::internal)
    }

    /// Ends those who follow logs.
    pub(crate) fn end_readers(&self) {
        self.ended.cancel();
    }

    /// Writes what is left, as far as that takes no longer than it may.
    pub(crate) async fn close(&self) {
        self.queue.close();
        let mut settled = self.settled.clone();
        // The thread's end is what ends this.
        let ended = async { while settled.changed().await.is_ok() {} };
        if timeout(CLOSE_TIME, ended).await.is_err() {
            tracing::warn!("the last lines of functions' logs are lost: they are written too slowly");
            return;
        }
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the thread of functions' logs panicked");
        }
    }
}

fn lock(files: &Mutex<Files>) -> MutexGuard<'_, Files> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hangs(_: Elapsed) -> Error {
    let text = "functions' logs cannot be read now: the node's disk does not answer; try again later";
    Error::Unavailable { message: text.into(), source: None }
}

impl Drop for Logs {
    fn drop(&mut self) {
        // The thread ends by itself once it has written what is left.
        self.queue.close();
    }
}

#[cfg(test)]
mod tests;
