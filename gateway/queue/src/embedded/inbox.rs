use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::request::{Asked, Request, Taker};
use crate::{Error, Result};

/// One transaction takes at most this much, so that its callers do not wait for too many others.
const BATCH_REQUESTS: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

/// Where requests wait for the one thread that carries them out.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    asked: VecDeque<Asked>,
    takers: Vec<Taker>,
    /// Deliveries that were dropped. At most as many as there are, for whose sake nobody waits.
    given_back: Vec<u64>,
    woken: bool,
    closing: Vec<oneshot::Sender<Result<()>>>,
    closed: bool,
    /// The thread sleeps until so many wait, or somebody cannot wait for others.
    wanted: usize,
}

/// What arrived.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) asked: Vec<Asked>,
    pub(super) takers: Vec<Taker>,
    pub(super) given_back: Vec<u64>,
    pub(super) woken: bool,
    pub(super) closing: Vec<oneshot::Sender<Result<()>>>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        let nothing = self.asked.is_empty() && self.takers.is_empty() && self.given_back.is_empty();
        nothing && !self.woken && self.closing.is_empty()
    }
}

impl Inbox {
    pub(super) fn ask(&self, asked: Asked) -> Result<()> {
        self.put(|state| state.asked.push_back(asked))
    }

    pub(super) fn take(&self, taker: Taker) -> Result<()> {
        self.put(|state| state.takers.push(taker))
    }

    pub(super) fn close(&self, reply: oneshot::Sender<Result<()>>) -> Result<()> {
        self.put(|state| state.closing.push(reply))
    }

    /// A call whose delivery was dropped. After the end there is nobody to be told, and the next start sees to it.
    pub(super) fn give_back(&self, id: u64) {
        let _ = self.put(|state| state.given_back.push(id));
    }

    pub(super) fn wake(&self) {
        let _ = self.put(|state| state.woken = true);
    }

    /// Takes what has arrived, or what arrives until `timeout` is over.
    pub(super) fn wait(&self, timeout: Duration) -> Batch {
        let end = Instant::now() + timeout;
        let mut state = self.state();
        loop {
            let batch = state.drain();
            let left = end.saturating_duration_since(Instant::now());
            if !batch.is_empty() || left.is_zero() {
                return batch;
            }
            let waited = self.arrived.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until so many more have asked for something, but not for longer than `timeout`.
    pub(super) fn gather(&self, more: usize, timeout: Duration) {
        let end = Instant::now() + timeout;
        let mut state = self.state();
        state.wanted = state.waiting() + more;
        while state.waiting() < state.wanted && !state.is_pressing() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.wanted = 0;
    }

    /// Ends it: who waits for an answer finds that there will be none.
    pub(super) fn end(&self) {
        let mut state = self.state();
        *state = State { closed: true, ..State::default() };
    }

    fn put(&self, put: impl FnOnce(&mut State)) -> Result<()> {
        let mut state = self.state();
        if state.closed {
            return Err(Error::Closed);
        }
        put(&mut state);
        let enough = state.waiting() >= state.wanted || state.is_pressing();
        drop(state);
        if enough {
            self.arrived.notify_one();
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Those who wait for an answer.
    fn waiting(&self) -> usize {
        self.asked.len() + self.takers.len()
    }

    /// Whether there is something that more of the same would not make cheaper.
    fn is_pressing(&self) -> bool {
        self.woken || !self.closing.is_empty() || self.asked.len() >= BATCH_REQUESTS
    }

    fn drain(&mut self) -> Batch {
        let (mut asked, mut bytes) = (Vec::new(), 0);
        while asked.len() < BATCH_REQUESTS && bytes < BATCH_BYTES {
            let Some(next) = self.asked.pop_front() else { break };
            if let Request::Push(push) = &next.request {
                bytes += push.record.len();
            }
            asked.push(next);
        }
        // Whoever closes wants all that was asked for before.
        let closing = if self.asked.is_empty() { std::mem::take(&mut self.closing) } else { Vec::new() };
        Batch {
            asked,
            takers: std::mem::take(&mut self.takers),
            given_back: std::mem::take(&mut self.given_back),
            woken: std::mem::take(&mut self.woken),
            closing,
        }
    }
}
