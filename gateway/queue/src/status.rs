use std::time::{Duration, SystemTime};

use runtime_api::{CallId, FunctionName};

use crate::EntryId;

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Due, and not yet taken.
    Queued,
    /// Taken.
    Running,
    /// Not due yet: delayed, or to be tried again.
    Waiting,
    /// Ended well.
    Succeeded,
    /// Given up; kept to be replayed or purged.
    Dead,
    /// Ended because somebody wanted that.
    Cancelled,
}

/// One attempt at a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it was handed out.
    pub started: SystemTime,
    /// How long it took; none while it runs, or where its worker was lost.
    pub duration: Option<Duration>,
    /// What the function answered, if it did.
    pub status: Option<u16>,
}

/// What is known of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallStatus {
    /// What the queue knows it by.
    pub id: EntryId,
    /// Who is called.
    pub function: FunctionName,
    /// What the call is known by to its caller.
    pub call_id: CallId,
    /// Where it stands.
    pub state: State,
    /// When it was accepted.
    pub accepted: SystemTime,
    /// When it is due, while it is waiting.
    pub due: Option<SystemTime>,
    /// When it succeeded, was cancelled, or was given up.
    pub ended: Option<SystemTime>,
    /// The attempts at it, the last 100 of them, oldest first.
    pub attempts: Vec<Attempt>,
    /// What was wrong with the last attempt; empty where nothing was.
    pub last_error: String,
}

/// How many calls a function has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionCounts {
    /// The function.
    pub function: FunctionName,
    /// Due, and not yet taken.
    pub queued: u64,
    /// Taken.
    pub running: u64,
    /// Not due yet, as far as the queue has looked.
    pub waiting: u64,
    /// Dead letters.
    pub dead: u64,
    /// Ended well, and still visible.
    pub succeeded: u64,
    /// Cancelled, and still visible.
    pub cancelled: u64,
    /// What all but the ended ones take, in bytes.
    pub bytes: u64,
    /// When the oldest of the queued calls was accepted.
    pub oldest_queued: Option<SystemTime>,
}
