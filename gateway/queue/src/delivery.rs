use std::{
    fmt,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method};
use runtime_api::{CallId, FunctionName};

use crate::{Content, EntryId, Result};

/// One call taken, to be run and then settled. Dropped without that, it is due again at once.
///
/// Its attempt is on record before it is handed out, so that a call that takes its worker down with it cannot do so
/// for ever: a worker that finds too many attempts settles it as dead instead of running it.
pub struct Delivery {
    /// What the queue knows the call by.
    pub id: EntryId,
    /// Who is called.
    pub function: FunctionName,
    /// With which method.
    pub method: Method,
    /// As in [`crate::NewCall`].
    pub path_and_query: String,
    /// As in [`crate::NewCall`].
    pub headers: HeaderMap,
    /// As in [`crate::NewCall`].
    pub call_id: CallId,
    /// As in [`crate::NewCall`].
    pub callback_url: Option<String>,
    /// When the call was accepted.
    pub accepted: SystemTime,
    /// The number of this attempt, from 1 on; a replayed call begins again.
    pub attempt: u32,
    /// The body, which was found to be what was accepted.
    pub body: Content,
    /// How long it is.
    pub body_bytes: u64,
    /// What ties it to the queue.
    pub lease: Box<dyn Lease>,
}

impl Delivery {
    /// Takes the body out.
    pub fn take_body(&mut self) -> Content {
        std::mem::replace(&mut self.body, Content::Bytes(Bytes::new()))
    }

    /// Returns once somebody wants the call cancelled. It is to be stopped then, and settled as [`Then::Cancelled`],
    /// or as what it came to.
    pub async fn cancelled(&self) {
        self.lease.cancelled().await;
    }

    /// Puts on record what became of the attempt; it is durable when this returns.
    ///
    /// # Errors
    /// [`crate::Error::Stopped`]: it is unknown whether it is on record; the call may run again.
    pub async fn settle(mut self, outcome: Outcome) -> Result<()> {
        self.lease.settle(outcome).await
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delivery({} of {}, attempt {})", self.id, self.function, self.attempt)
    }
}

/// What ties a delivery to its engine. One that is dropped before it was settled gives the call back.
#[async_trait]
pub trait Lease: Send + Sync {
    /// As [`Delivery::settle`]; called at most once.
    async fn settle(&mut self, outcome: Outcome) -> Result<()>;

    /// As [`Delivery::cancelled`].
    async fn cancelled(&self);
}

/// What became of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the function answered, if it did.
    pub status: Option<u16>,
    /// How long it took.
    pub duration: Duration,
    /// What was wrong; empty where nothing was. Cut to 1 KiB.
    pub error: String,
    /// What is to come of the call.
    pub then: Then,
}

/// What is to come of a call after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It is done.
    Succeeded,
    /// It is to be tried again, not before this time. A call that somebody cancelled meanwhile is cancelled.
    RetryAt(SystemTime),
    /// It was no attempt, since the platform had no room for the call: it is due again, not before this time, and the
    /// number of the attempt is given back. Nothing is kept of it but the error. A call that somebody cancelled meanwhile
    /// is cancelled.
    PutBack(SystemTime),
    /// It is a dead letter: kept with its body, until somebody has it replayed or purged.
    Dead,
    /// It was stopped because somebody wanted that.
    Cancelled,
}
