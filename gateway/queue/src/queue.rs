use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use runtime_api::{CallId, FunctionName};

use crate::{Accepted, CallStatus, Delivery, EntryId, FunctionCounts, NewCall, Result};

/// Keeps asynchronous calls until they have run. Used as `Arc<dyn Queue>`.
///
/// Whatever answers `Ok` to a change is durable. Any method may be dropped while it waits: what it asked for then
/// happens or does not, as a whole.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Keeps a call. It is durable when this returns.
    ///
    /// # Errors
    /// [`crate::Error::StorageFull`], [`crate::Error::FunctionFull`], [`crate::Error::QueueFull`],
    /// [`crate::Error::TooLarge`], [`crate::Error::Busy`], [`crate::Error::Body`], [`crate::Error::Closed`];
    /// [`crate::Error::Stopped`]: it is unknown whether the call was kept.
    async fn push(&self, call: NewCall) -> Result<Accepted>;

    /// Waits for calls that are due and takes at least one of them, at most `max`, in turns from all functions that
    /// have room. Of one function, those that were never tried come in the order in which they were accepted, or became
    /// due; a call that is tried again has its turn as if it had never left, and holds up no other.
    ///
    /// Their attempts are on record when this returns. A delivery that cannot be handed out is given back.
    ///
    /// # Errors
    /// [`crate::Error::Stopped`], [`crate::Error::Closed`]: there will be no more.
    async fn next(&self, max: usize, room: Room) -> Result<Vec<Delivery>>;

    /// What time it is, by the clock that calls become due by.
    fn now(&self) -> SystemTime;

    /// Has those who wait in [`Queue::next`] ask again who has room, and what time it is.
    fn wake(&self);

    /// Cancels all calls that carry this call id: those that are queued or waiting at once, with their bodies; those
    /// that run are told, and never run again. Others are left as they are.
    ///
    /// # Errors
    /// [`crate::Error::Stopped`], [`crate::Error::Closed`]; some may have been cancelled.
    async fn cancel(&self, call_id: &CallId) -> Result<Cancelled>;

    /// Cancels all calls of a function that had not ended when it began, but for dead letters.
    ///
    /// # Errors
    /// As [`Queue::cancel`].
    async fn clear(&self, function: &FunctionName) -> Result<Cancelled>;

    /// What is known of the calls that carry this call id, in the order in which they were accepted. Those that ended
    /// are known for 24 h, unless there are too many.
    ///
    /// # Errors
    /// [`crate::Error::Stopped`], [`crate::Error::Closed`].
    async fn find(&self, call_id: &CallId, page: Page) -> Result<Vec<CallStatus>>;

    /// A function's dead letters, in the order in which they were accepted.
    ///
    /// # Errors
    /// As [`Queue::find`].
    async fn dead_letters(&self, function: &FunctionName, page: Page) -> Result<Vec<CallStatus>>;

    /// Makes dead letters due again, with as many attempts as new ones. Answers how many.
    ///
    /// # Errors
    /// As [`Queue::cancel`].
    async fn replay(&self, function: &FunctionName, which: Which) -> Result<u64>;

    /// Removes dead letters with their bodies. Answers how many.
    ///
    /// # Errors
    /// As [`Queue::cancel`].
    async fn purge(&self, function: &FunctionName, which: Which) -> Result<u64>;

    /// How many calls every function has that has any, by name.
    ///
    /// # Errors
    /// As [`Queue::find`].
    async fn counts(&self) -> Result<Vec<FunctionCounts>>;

    /// Calls whose records were found damaged. They never run, and hold up no other.
    ///
    /// # Errors
    /// As [`Queue::find`].
    async fn damaged(&self, page: Page) -> Result<Vec<EntryId>>;

    /// Returns when the queue has failed for good, with the reason. The process should then end, so that the next one
    /// reads from the disk what is true.
    async fn failed(&self) -> String;

    /// Finishes what was asked for so far, and closes. Running calls are due again at the next start: at once, or, where
    /// they were lost before, after a pause of up to 30 s, so that what takes its process down comes apart from the rest.
    ///
    /// # Errors
    /// [`crate::Error::Stopped`].
    async fn close(&self) -> Result<()>;
}

/// How many more calls of a function may be taken now. Asked by a thread that all callers wait for, and more than once:
/// it must answer at once, and keep no count of being asked.
pub type Room = Arc<dyn Fn(&FunctionName) -> usize + Send + Sync>;

/// Which dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All that there are when it begins.
    All,
    /// This one.
    One(EntryId),
}

/// A part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// It begins after this one.
    pub after: Option<EntryId>,
    /// At most this many; 1000 are the most.
    pub limit: usize,
}

impl Page {
    /// The beginning.
    pub fn first(limit: usize) -> Self {
        Self { after: None, limit }
    }
}

/// What a cancellation came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cancelled {
    /// How many calls will not run.
    pub ended: u64,
    /// How many were running, and were told.
    pub told: u64,
}
