//! What the committer is asked for.

use std::sync::Arc;

use runtime_api::{CallId, FunctionName};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    bodies::BodyFile,
    lease::HeldLease,
    records::{Call, Name, Slot},
};
use crate::{Accepted, Outcome, Result, Room, Which};

/// One change, and who wants to know when it is durable.
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) reply: oneshot::Sender<Result<Answer>>,
    /// Given back when the change is done, so that there are never too many.
    pub(super) _place: OwnedSemaphorePermit,
}

impl Asked {
    /// A push, where that is what it is and it was accepted as a new call.
    pub(super) fn kept(&self, answer: &Result<Answer>) -> Option<&Push> {
        match (&self.request, answer) {
            (Request::Push(push), Ok(Answer { accepted: Some(accepted), .. })) if !accepted.existed => {
                Some(push)
            }
            _ => None,
        }
    }

    /// Has the file of a body stay where it is.
    pub(super) fn stay(&mut self) {
        if let Request::Push(Push { file: Some(file), .. }) = &mut self.request {
            file.stay();
        }
    }
}

pub(super) enum Request {
    Push(Push),
    Settle {
        id: u64,
        end: End,
    },
    /// Those of these calls that carry the call id, if there is one.
    Cancel {
        call_id: Option<CallId>,
        ids: Vec<u64>,
    },
    Replay {
        function: FunctionName,
        which: Which,
        after: Option<u64>,
    },
    Purge {
        function: FunctionName,
        which: Which,
        after: Option<u64>,
    },
}

/// A sealed call with what the indexes want of it.
pub(super) struct Push {
    pub(super) id: u64,
    pub(super) record: Vec<u8>,
    pub(super) function: FunctionName,
    pub(super) call_id: CallId,
    pub(super) call_id_hash: u64,
    pub(super) accepted_ms: u64,
    pub(super) not_before_ms: Option<u64>,
    pub(super) idempotency: Option<Name>,
    /// Removed with the request, unless it was kept.
    pub(super) file: Option<BodyFile>,
}

impl Push {
    /// What the call counts for.
    pub(super) fn bytes(&self) -> u64 {
        self.record.len() as u64 + self.file.as_ref().map_or(0, BodyFile::length)
    }

    /// What indexes say of it.
    pub(super) fn slot(&self) -> Slot {
        Slot { accepted_ms: self.accepted_ms, bytes: self.bytes() }
    }
}

#[derive(Clone, Debug)]
pub(super) enum End {
    Settled(Outcome),
    /// It was not run, or not to an end.
    GivenBack,
    /// Its body is not what was accepted.
    Damaged,
}

/// What became of a request: of its fields, those that it asked for.
#[derive(Clone, Default)]
pub(super) struct Answer {
    pub(super) accepted: Option<Accepted>,
    /// Calls that were ended, replayed or removed.
    pub(super) done: u64,
    /// Running calls that were told.
    pub(super) told: u64,
    /// The last dead letter that was looked at, while there may be more.
    pub(super) more_after: Option<u64>,
}

/// Somebody who waits for calls.
pub(super) struct Taker {
    pub(super) max: usize,
    pub(super) room: Room,
    pub(super) reply: oneshot::Sender<Vec<Taken>>,
}

/// A call that is handed out: dropped, it is given back.
pub(super) struct Taken {
    pub(super) granted: Granted,
    pub(super) lease: HeldLease,
}

/// A call that was taken.
pub(super) struct Granted {
    pub(super) id: u64,
    pub(super) attempt: u32,
    pub(super) call: Call,
    pub(super) held: Arc<Held>,
}

/// What the engine remembers of a running call.
pub(super) struct Held {
    pub(super) number: u32,
    pub(super) function: FunctionName,
    pub(super) call_id: CallId,
    pub(super) accepted_ms: u64,
    pub(super) idempotency: Option<Name>,
    pub(super) file: Option<Name>,
    pub(super) cancelled: CancellationToken,
}

impl Held {
    pub(super) fn of(number: u32, call: &Call) -> Self {
        Self {
            number,
            function: call.function.clone(),
            call_id: call.call_id.clone(),
            accepted_ms: call.accepted_ms,
            idempotency: call.idempotency,
            file: call.file(),
            cancelled: CancellationToken::new(),
        }
    }
}
