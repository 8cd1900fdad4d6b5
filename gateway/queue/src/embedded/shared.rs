use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use runtime_store::{Check, CheckStopper, Database, Disk, Sealer, Snapshot};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::{
    Clock, Settings,
    bodies::{INLINE_BYTES, blocking},
    checking,
    inbox::Inbox,
    request::{Answer, Asked, Request},
    time,
};
use crate::{Error, Result};

/// How long a caller waits for a place, or for the end of house-keeping.
const PATIENCE: Duration = Duration::from_millis(500);

/// Requests that wait for the committer, besides new calls; more callers wait for a place.
const PLACES: usize = 4096;
/// Those who wait for calls.
const TAKERS: usize = 64;

/// What the callers, the committer and the deliveries share.
pub(super) struct Shared {
    pub(super) database: Database,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) sealer: Arc<Sealer>,
    pub(super) clock: Clock,
    pub(super) inbox: Inbox,
    pub(super) next_id: AtomicU64,
    /// Places for new calls: each takes [`INLINE_BYTES`] of memory.
    pub(super) accepting: Arc<Semaphore>,
    /// Of all other requests.
    pub(super) places: Arc<Semaphore>,
    pub(super) takers: Arc<Semaphore>,
    /// Ends the check of the file beside the work, where there is one.
    pub(super) check: Option<CheckStopper>,
    /// While it goes on, the file cannot be compacted.
    pub(super) checking: watch::Sender<bool>,
    pub(super) compacting: watch::Sender<bool>,
    pub(super) failure: watch::Sender<Option<String>>,
}

impl Shared {
    /// Opens the file or makes it, with what is still to be checked of it.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        sealer: Sealer,
        settings: Settings,
        clock: Clock,
    ) -> Result<(Self, Option<Check>), runtime_store::Error> {
        let (database, check) = checking::open(&disk, &settings)?;
        let shared = Self {
            database,
            check: check.as_ref().map(Check::stopper),
            checking: watch::Sender::new(false),
            disk,
            sealer: Arc::new(sealer),
            clock,
            inbox: Inbox::default(),
            next_id: AtomicU64::new(0),
            accepting: Arc::new(Semaphore::new((settings.accepting_bytes / INLINE_BYTES).max(1))),
            places: Arc::new(Semaphore::new(PLACES)),
            takers: Arc::new(Semaphore::new(TAKERS)),
            compacting: watch::Sender::new(false),
            failure: watch::Sender::new(None),
        };
        Ok((shared, check))
    }

    pub(super) fn now_ms(&self) -> u64 {
        time::to_ms((self.clock)())
    }

    /// A place for a new call, once the committer is not busy with house-keeping.
    pub(super) async fn acceptance(&self) -> Result<OwnedSemaphorePermit> {
        if !*self.compacting.borrow()
            && let Ok(place) = Arc::clone(&self.accepting).try_acquire_owned()
        {
            return Ok(place);
        }
        let place = async {
            let mut compacting = self.compacting.subscribe();
            compacting.wait_for(|compacting| !compacting).await.map_err(|_| Error::Closed)?;
            Arc::clone(&self.accepting).acquire_owned().await.map_err(|_| Error::Closed)
        };
        tokio::time::timeout(PATIENCE, place).await.map_err(|_| Error::Busy)?
    }

    pub(super) async fn place(&self) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.map_err(|_| Error::Closed)
    }

    /// Asks the committer. From here on the request happens, whether or not anybody waits for its answer.
    pub(super) fn send(
        &self,
        request: Request,
        place: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Result<Answer>>> {
        let (reply, answer) = oneshot::channel();
        self.inbox.ask(Asked { request, reply, _place: place }).map_err(|_| self.gone())?;
        Ok(answer)
    }

    pub(super) async fn answered<T>(&self, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        answer.await.map_err(|_| self.gone())?
    }

    pub(super) async fn ask(&self, request: Request) -> Result<Answer> {
        let place = self.place().await?;
        let answer = self.send(request, place)?;
        self.answered(answer).await
    }

    /// Reads on a thread that may wait for the disk.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self, &Snapshot) -> Result<T, runtime_store::Error> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(self);
        blocking(move || {
            shared.database.read(|snapshot| work(&shared, snapshot)).map_err(|error| shared.judge(error))
        })
        .await
    }

    /// An error of the store's as ours; one that stopped it is told to whoever waits for that.
    pub(super) fn judge(&self, error: runtime_store::Error) -> Error {
        match error {
            runtime_store::Error::Stopped(failure) => self.fail(failure),
            runtime_store::Error::Full { .. } => Error::StorageFull,
            runtime_store::Error::Closed => Error::Closed,
            other => Error::Unusable(other),
        }
    }

    /// Stops the queue for good: nothing is acknowledged any more.
    pub(super) fn fail(&self, failure: String) -> Error {
        let failure = self.database.fail(failure);
        self.failure.send_if_modified(|told| {
            let first = told.is_none();
            told.get_or_insert_with(|| failure.clone());
            first
        });
        // The committer ends, and so does every wait for it.
        self.inbox.wake();
        Error::Stopped(failure)
    }

    /// Why there is no answer.
    pub(super) fn gone(&self) -> Error {
        self.database.check_running().map_err(|error| self.judge(error)).err().unwrap_or(Error::Closed)
    }
}
