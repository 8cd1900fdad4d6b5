use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use futures_util::future::join_all;
use runtime_api::{CallId, FunctionName};
use runtime_store::{DataDirectory, Disk, Sealer, SystemDisk, sync_directory};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    Accepted, CallStatus, Cancelled, Content, Delivery, EntryId, Error, FunctionCounts, NewCall, Outcome,
    Page, Queue, Result, Room, Then, Which,
};

mod bodies;
mod checking;
mod codec;
mod committer;
mod engine;
mod functions;
mod inbox;
mod lease;
mod letters;
mod open;
mod push;
mod queries;
mod records;
mod request;
mod reserve;
mod run;
mod shared;
mod tables;
#[cfg(test)]
mod tests;
mod time;

use bodies::Spool;
use checking::Checking;
use records::{Body, Call, Name};
use request::{Answer, End, Push, Request, Taken, Taker};
use shared::Shared;

/// What a call may have besides its body.
const HEAD_BYTES: usize = 64 << 10;
/// Of a call id, an idempotency key.
const KEY_BYTES: usize = 1 << 10;
/// What a caller's key is checked as.
const KEYED_AS: &str = "idempotency";
/// Calls with one call id are cancelled so many at a time.
const CANCEL_AT_ONCE: usize = 256;

/// What tells the time; tests bring one that they set.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// How much a queue takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls of one function that have not ended, dead letters among them.
    pub calls_per_function: u64,
    /// What these take on disk.
    pub bytes_per_function: u64,
    /// Calls of all functions.
    pub calls: u64,
    /// What these take on disk.
    pub bytes: u64,
    /// The body of one call.
    pub body_bytes: u64,
    /// Calls that have ended and are still visible; besides, they are visible for 24 h.
    pub ended_calls: u64,
}

impl Default for Limits {
    /// One function may have the million waiting calls that the memory is measured with, and not all of the room.
    fn default() -> Self {
        Self {
            calls_per_function: 1_000_000,
            bytes_per_function: 4 << 30,
            calls: 4_000_000,
            bytes: 16 << 30,
            body_bytes: 64 << 20,
            ended_calls: 1_000_000,
        }
    }
}

/// How a queue works.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How much it takes.
    pub limits: Limits,
    /// Memory for calls that are being accepted, in bytes: each takes 64 KiB.
    pub accepting_bytes: usize,
    /// Room on the disk that is given up when it is full, so that calls can still be taken and settled.
    pub reserve_bytes: u64,
    /// Memory for pages of the file.
    pub cache_bytes: usize,
    /// A larger file is checked beside the work, so that the queue opens as fast as a small one.
    pub check_at_once_bytes: u64,
    /// When nobody has asked for anything for so long, unused room of the file is given back to the disk.
    pub idle: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            accepting_bytes: 64 << 20,
            reserve_bytes: 16 << 20,
            cache_bytes: 16 << 20,
            check_at_once_bytes: 64 << 20,
            idle: Duration::from_secs(10),
        }
    }
}

/// The queue in a directory of this machine.
///
/// It keeps calls in one file, `queue.redb`, and large bodies beside it. One thread writes, and commits together what
/// has gathered meanwhile. What is in memory depends on the number of functions and of running calls alone.
pub struct Embedded {
    shared: Arc<Shared>,
    spool: Spool,
    thread: Mutex<Option<JoinHandle<()>>>,
    checking: Mutex<Option<Checking>>,
    /// Given up last.
    _directory: Option<DataDirectory>,
}

impl Embedded {
    /// Opens the queue of a directory or makes it, checks it or begins to, and gives back the calls that ran when the last
    /// process ended. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::Unusable`]: what is wrong and what to do. [`Error::Stopped`], [`Error::StorageFull`].
    pub fn open(directory: &Path, settings: Settings, clock: Clock) -> Result<Self> {
        let held = DataDirectory::open(directory)?;
        let path = held.path();
        let unsynced = |source| runtime_store::Error::Unusable {
            path: path.to_owned(),
            problem: "its name cannot be synced".into(),
            source: Some(source),
        };
        path.parent().map_or(Ok(()), sync_directory).map_err(unsynced)?;
        let exists = path.join(open::FILE).metadata().is_ok_and(|metadata| metadata.len() > 0);
        let sealer = Sealer::load(&path.join("queue.key"), exists)?;
        let disk = Arc::new(SystemDisk::new(path));
        let mut queue = Self::open_on(disk, sealer, settings, clock)?;
        queue._directory = Some(held);
        Ok(queue)
    }

    /// Opens a queue on any disk: tests bring ones that fail.
    pub(crate) fn open_on(
        disk: Arc<dyn Disk>,
        sealer: Sealer,
        settings: Settings,
        clock: Clock,
    ) -> Result<Self> {
        let (shared, check) = Shared::open(disk, sealer, settings, clock)?;
        let shared = Arc::new(shared);
        let spool = Spool {
            disk: Arc::clone(&shared.disk),
            sealer: Arc::clone(&shared.sealer),
            max_bytes: settings.limits.body_bytes,
            reserve_bytes: settings.reserve_bytes,
        };
        let committer = catch_unwind(AssertUnwindSafe(|| open::prepare(&shared, settings)));
        let committer = committer.unwrap_or_else(|_| {
            checking::mark(&*shared.disk, "");
            Err(Error::Stopped("its file is damaged: the next start tells where".into()))
        })?;
        let checking = check.map(|check| Checking::start(Arc::clone(&shared), check)).transpose()?;
        let thread = std::thread::Builder::new().name("queue-committer".into()).spawn(|| committer.run());
        let thread =
            thread.map_err(|error| Error::Stopped(format!("its thread cannot be started: {error}")))?;
        let (thread, checking) = (Mutex::new(Some(thread)), Mutex::new(checking));
        Ok(Self { shared, spool, thread, checking, _directory: None })
    }

    async fn accept(&self, call: NewCall, place: OwnedSemaphorePermit) -> Result<Accepted> {
        let too_large = |what, limit: usize| Error::TooLarge { what, limit_bytes: limit as u64 };
        if call.call_id.as_str().len() > KEY_BYTES {
            return Err(too_large("the call id", KEY_BYTES));
        }
        let key = call.idempotency_key.as_deref();
        if key.is_some_and(|key| key.len() > KEY_BYTES) {
            return Err(too_large("the idempotency key", KEY_BYTES));
        }
        let headers = call.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        let rest = call.path_and_query.len() + call.callback_url.as_ref().map_or(0, String::len);
        if rest + headers.sum::<usize>() > HEAD_BYTES {
            return Err(too_large("all but the body", HEAD_BYTES));
        }
        let idempotency = key.map(|key| self.name_of(&call.function, key));
        let shared = &self.shared;
        let (body, file) = self.spool.take(call.body).await.map_err(|error| match error {
            Error::Stopped(failure) => shared.fail(failure),
            other => other,
        })?;
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
        let accepted_ms = shared.now_ms();
        let not_before_ms = call.not_before.map(time::to_ms);
        let record = Call {
            function: call.function.clone(),
            method: call.method,
            path_and_query: call.path_and_query,
            headers: call.headers,
            call_id: call.call_id.clone(),
            callback_url: call.callback_url,
            accepted_ms,
            not_before_ms,
            idempotency,
            body,
        };
        // Sealed here, so that the one thread that writes has less to do.
        let record = shared.sealer.seal(tables::CALLS, &id.to_be_bytes(), &record.encode());
        let call_id_hash = tables::hash_of(&shared.sealer, call.call_id.as_str());
        let (function, call_id) = (call.function, call.call_id);
        let push = Push {
            id,
            record,
            function,
            call_id,
            call_id_hash,
            accepted_ms,
            not_before_ms,
            idempotency,
            file,
        };
        let answer = shared.send(Request::Push(push), place)?;
        let answer = shared.answered(answer).await?;
        answer.accepted.ok_or_else(|| Error::Stopped("a call was neither kept nor refused".into()))
    }

    fn name_of(&self, function: &FunctionName, key: &str) -> Name {
        let mut check = self.shared.sealer.content_check(KEYED_AS, function.as_str().as_bytes());
        check.update(key.as_bytes());
        check.finish()
    }

    /// A taken call with its body; none where that is damaged, which is put on record.
    async fn deliver(&self, taken: Taken) -> Result<Option<Delivery>> {
        let Taken { granted, mut lease } = taken;
        let Call {
            function, method, path_and_query, headers, call_id, callback_url, accepted_ms, body, ..
        } = granted.call;
        let body_bytes = body.len_bytes();
        let body = match body {
            Body::Inline(bytes) => Content::Bytes(bytes),
            file => match self.spool.read(file).await {
                Ok(Some(content)) => content,
                Ok(None) => {
                    lease.end(End::Damaged).await?;
                    return Ok(None);
                }
                Err(error) => {
                    tracing::warn!(%error, id = granted.id, "a call cannot be handed out now");
                    lease.end(End::Settled(self.later(&error))).await?;
                    return Ok(None);
                }
            },
        };
        Ok(Some(Delivery {
            id: EntryId(granted.id),
            function,
            method,
            path_and_query,
            headers,
            call_id,
            callback_url,
            accepted: time::from_ms(accepted_ms),
            attempt: granted.attempt,
            body,
            body_bytes,
            lease: Box::new(lease),
        }))
    }

    /// What becomes of a call whose body cannot be opened now, as for want of open files.
    fn later(&self, error: &Error) -> Outcome {
        let then = Then::RetryAt((self.shared.clock)() + Duration::from_secs(1));
        Outcome { status: None, duration: Duration::ZERO, error: error.to_string(), then }
    }

    /// Asks for one part of the dead letters after the other.
    async fn each_part(&self, part: impl Fn(Option<u64>) -> Request) -> Result<u64> {
        let (mut done, mut after) = (0, None);
        loop {
            let Answer { done: some, more_after, .. } = self.shared.ask(part(after)).await?;
            done += some;
            if more_after.is_none() {
                return Ok(done);
            }
            after = more_after;
        }
    }
}

#[async_trait]
impl Queue for Embedded {
    async fn push(&self, call: NewCall) -> Result<Accepted> {
        let place = self.shared.acceptance().await?;
        self.accept(call, place).await
    }

    async fn next(&self, max: usize, room: Room) -> Result<Vec<Delivery>> {
        let shared = &self.shared;
        let _place = shared.takers.acquire().await.map_err(|_| Error::Closed)?;
        loop {
            let (reply, taken) = oneshot::channel();
            let taker = Taker { max: max.max(1), room: Arc::clone(&room), reply };
            shared.inbox.take(taker).map_err(|_| shared.gone())?;
            let taken = taken.await.map_err(|_| shared.gone())?;
            let deliveries = join_all(taken.into_iter().map(|taken| self.deliver(taken))).await;
            let mut handed_out = Vec::with_capacity(deliveries.len());
            for delivery in deliveries {
                handed_out.extend(delivery?);
            }
            if !handed_out.is_empty() {
                return Ok(handed_out);
            }
        }
    }

    fn now(&self) -> SystemTime {
        (self.shared.clock)()
    }

    fn wake(&self) {
        self.shared.inbox.wake();
    }

    async fn cancel(&self, call_id: &CallId) -> Result<Cancelled> {
        let (mut cancelled, mut after) = (Cancelled::default(), None);
        loop {
            let wanted = call_id.clone();
            let ids = self.shared.read(move |shared, snapshot| {
                let mut ids = Vec::new();
                queries::ids_of(snapshot, &shared.sealer, &wanted, after, |id| {
                    ids.push(id);
                    Ok(ids.len() < CANCEL_AT_ONCE)
                })?;
                Ok(ids)
            });
            let ids = ids.await?;
            let Some(last) = ids.last() else { return Ok(cancelled) };
            after = Some(*last);
            let answer = self.shared.ask(Request::Cancel { call_id: Some(call_id.clone()), ids }).await?;
            cancelled.ended += answer.done;
            cancelled.told += answer.told;
        }
    }

    async fn clear(&self, function: &FunctionName) -> Result<Cancelled> {
        let (mut cancelled, last) = (Cancelled::default(), self.shared.next_id.load(Ordering::Relaxed));
        loop {
            let (ended, mut told) = (cancelled.ended, 0);
            let mut place = Some(queries::Place::first());
            while let Some(from) = place {
                let function = function.clone();
                let some = move |_: &Shared, snapshot: &runtime_store::Snapshot| {
                    queries::live_of(snapshot, &function, from, last, CANCEL_AT_ONCE)
                };
                let (ids, next) = self.shared.read(some).await?;
                place = next;
                let answer = self.shared.ask(Request::Cancel { call_id: None, ids }).await?;
                cancelled.ended += answer.done;
                told += answer.told;
            }
            // What is told twice is one call.
            cancelled.told = cancelled.told.max(told);
            // A call that moved on meanwhile may have been passed over.
            if cancelled.ended == ended {
                return Ok(cancelled);
            }
        }
    }

    async fn find(&self, call_id: &CallId, page: Page) -> Result<Vec<CallStatus>> {
        let call_id = call_id.clone();
        let find = move |shared: &Shared, snapshot: &runtime_store::Snapshot| {
            queries::find(snapshot, &shared.sealer, shared.now_ms(), &call_id, page)
        };
        self.shared.read(find).await
    }

    async fn dead_letters(&self, function: &FunctionName, page: Page) -> Result<Vec<CallStatus>> {
        let function = function.clone();
        let list = move |shared: &Shared, snapshot: &runtime_store::Snapshot| {
            queries::dead_letters(snapshot, &shared.sealer, shared.now_ms(), &function, page)
        };
        self.shared.read(list).await
    }

    async fn replay(&self, function: &FunctionName, which: Which) -> Result<u64> {
        self.each_part(|after| Request::Replay { function: function.clone(), which, after }).await
    }

    async fn purge(&self, function: &FunctionName, which: Which) -> Result<u64> {
        self.each_part(|after| Request::Purge { function: function.clone(), which, after }).await
    }

    async fn counts(&self) -> Result<Vec<FunctionCounts>> {
        self.shared.read(|shared, snapshot| queries::counts(snapshot, &shared.sealer)).await
    }

    async fn damaged(&self, page: Page) -> Result<Vec<EntryId>> {
        self.shared.read(move |_, snapshot| queries::damaged(snapshot, page)).await
    }

    async fn failed(&self) -> String {
        let mut failure = self.shared.failure.subscribe();
        match failure.wait_for(Option::is_some).await.map(|failure| failure.clone()) {
            Ok(Some(failure)) => failure,
            _ => std::future::pending().await,
        }
    }

    async fn close(&self) -> Result<()> {
        let (reply, closed) = oneshot::channel();
        self.shared.inbox.close(reply).map_err(|_| self.shared.gone())?;
        self.shared.answered(closed).await
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Embedded({})", self.shared.disk.path().display())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // One that was closed already, or has failed, has nothing left to finish.
        let _ = self.shared.inbox.close(oneshot::channel().0);
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let checking = self.checking.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        checking.into_iter().for_each(Checking::end);
        // A thread that panicked has already failed the calls that depended on it.
        let _ = thread.map(JoinHandle::join);
    }
}
