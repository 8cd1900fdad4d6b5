use std::{collections::HashMap, sync::Arc};

use runtime_store::{Result, Sealer};
use tracing::error;

use super::{
    Limits,
    codec::Problem,
    functions::Functions,
    records::{Call, Counts, Ended, Name, Progress, Slot, Totals},
    request::{Answer, Held, Request},
    tables::{CALLS, ENDED, STATE, TOTALS, Tables, call_id_key, hash_of, keyed, pair, tail, timed},
};

/// Calls that have ended are visible for this long.
const VISIBLE_MS: u64 = 24 * 3600 * 1000;
/// At most so many ended calls are forgotten in one transaction besides one for each that ends.
const FORGET_AT_ONCE: usize = 64;
/// At most so many calls become due in one transaction.
pub(super) const DUE_AT_ONCE: usize = 512;

/// What the one writer knows besides the disk.
pub(super) struct Engine {
    pub(super) sealer: Arc<Sealer>,
    pub(super) limits: Limits,
    pub(super) functions: Functions,
    pub(super) totals: Totals,
    /// The calls that somebody runs.
    pub(super) held: HashMap<u64, Arc<Held>>,
}

/// One transaction's work. What it changes in the engine besides counts waits in `effects` until it is durable.
pub(super) struct Work<'e, 't> {
    pub(super) engine: &'e mut Engine,
    pub(super) tables: Tables<'t>,
    pub(super) now_ms: u64,
    pub(super) effects: &'e mut Effects,
}

/// What is to be done once a transaction is durable.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) answers: Vec<crate::Result<Answer>>,
    pub(super) granted: Vec<(u64, Arc<Held>)>,
    pub(super) let_go: Vec<u64>,
    pub(super) cancelled: Vec<u64>,
    pub(super) files: Vec<Name>,
    pub(super) next_due_ms: Option<u64>,
    pub(super) next_forgotten_ms: Option<u64>,
}

/// What is known of a call when it ends.
pub(super) struct Ending<'a> {
    pub(super) id: u64,
    pub(super) number: u32,
    pub(super) held: &'a Held,
    pub(super) progress: Progress,
    pub(super) succeeded: bool,
}

impl Work<'_, '_> {
    /// One request. The outer error undoes the transaction, the inner one is this request's alone.
    pub(super) fn apply(&mut self, request: &Request) -> Result<crate::Result<Answer>> {
        match request {
            Request::Push(push) => self.push(push),
            Request::Settle { id, end } => self.settle(*id, end).map(Ok),
            Request::Cancel { call_id, ids } => self.cancel(call_id.as_ref(), ids).map(Ok),
            Request::Replay { function, which, after } => self.replay(function, *which, *after).map(Ok),
            Request::Purge { function, which, after } => self.purge(function, *which, *after).map(Ok),
        }
    }

    /// Makes calls due whose time has come.
    pub(super) fn wake_waiting(&mut self) -> Result<()> {
        for _ in 0..DUE_AT_ONCE {
            let end = timed(self.now_ms, u64::MAX);
            let Some((key, record)) = self.tables.waiting.first(..=end.as_slice())? else { break };
            self.tables.waiting.remove(&key)?;
            let read = || Ok((tail::<8>(&key)?, super::tables::read_waiting(&record)?));
            match read() {
                Ok((id, (number, slot))) => {
                    self.count(number, |counts| counts.waiting = counts.waiting.saturating_sub(1));
                    self.make_ready(number, id, slot)?;
                }
                Err(problem) => self.report(&format!("waiting {key:?}"), problem),
            }
        }
        Ok(())
    }

    /// Ends the transaction's work: what is old is forgotten, what changed in memory is put on record.
    pub(super) fn finish(&mut self) -> Result<()> {
        let ended = self.effects.let_go.len();
        for _ in 0..FORGET_AT_ONCE + 2 * ended {
            let Some((key, _)) = self.tables.expiry.first(..)? else { break };
            let time = key.first_chunk().map_or(0, |time| u64::from_be_bytes(*time));
            let old = time.saturating_add(VISIBLE_MS) <= self.now_ms;
            if !old && self.engine.functions.ended() <= self.engine.limits.ended_calls {
                break;
            }
            self.forget(&key)?;
        }
        self.engine.functions.save(&mut self.tables, &self.engine.sealer)?;
        let record = self.engine.sealer.seal(TOTALS, STATE, &self.engine.totals.encode());
        self.tables.totals.insert(STATE, &record)?;
        let time = |entry: Option<(Vec<u8>, Vec<u8>)>| {
            entry.and_then(|(key, _)| key.first_chunk().map(|time| u64::from_be_bytes(*time)))
        };
        self.effects.next_due_ms = time(self.tables.waiting.first(..)?);
        self.effects.next_forgotten_ms =
            time(self.tables.expiry.first(..)?).map(|ended| ended.saturating_add(VISIBLE_MS));
        Ok(())
    }

    fn forget(&mut self, key: &[u8]) -> Result<()> {
        self.tables.expiry.remove(key)?;
        let Ok(id) = tail::<8>(key) else { return Ok(()) };
        let id_key = id.to_be_bytes();
        let ended = self.ended(id)?;
        self.tables.ended.remove(&id_key)?;
        match ended {
            None => {}
            Some(Ok(ended)) => {
                let number = self.engine.functions.number(&ended.function).unwrap_or(u32::MAX);
                self.unindex(id, number, ended.call_id.as_str(), ended.idempotency)?;
                self.count(number, |counts| {
                    let count = if ended.succeeded { &mut counts.succeeded } else { &mut counts.cancelled };
                    *count = count.saturating_sub(1);
                });
            }
            Some(Err(problem)) => self.report(&format!("of ended call {id}"), problem),
        }
        Ok(())
    }

    /// Makes a call that is out of all indexes due.
    pub(super) fn make_ready(&mut self, number: u32, id: u64, slot: Slot) -> Result<()> {
        self.tables.ready.insert(&pair(number, id), &slot.encode())?;
        self.count(number, |counts| counts.queued += 1);
        Ok(())
    }

    /// Puts the end of a call on record and removes the call. It is out of the indexes of live calls already.
    pub(super) fn end(&mut self, ending: Ending<'_>) -> Result<()> {
        let Ending { id, number, held, progress, succeeded } = ending;
        let ended = Ended {
            succeeded,
            function: held.function.clone(),
            call_id: held.call_id.clone(),
            accepted_ms: held.accepted_ms,
            ended_ms: self.now_ms,
            idempotency: held.idempotency,
            history: progress.history,
        };
        let key = id.to_be_bytes();
        self.tables.ended.insert(&key, &self.engine.sealer.seal(ENDED, &key, &ended.encode()))?;
        self.tables.expiry.insert(&timed(self.now_ms, id), &[])?;
        self.remove_call(id, held.file)?;
        self.count(number, |counts| {
            *(if succeeded { &mut counts.succeeded } else { &mut counts.cancelled }) += 1;
            counts.bytes = counts.bytes.saturating_sub(progress.slot.bytes);
        });
        Ok(())
    }

    /// Removes what was accepted, with its body.
    pub(super) fn remove_call(&mut self, id: u64, file: Option<Name>) -> Result<()> {
        self.tables.calls.remove(&id.to_be_bytes())?;
        if let Some(file) = file {
            self.tables.files.remove(&file)?;
            self.effects.files.push(file);
        }
        Ok(())
    }

    /// Removes what finds a call by what its caller calls it.
    pub(super) fn unindex(
        &mut self,
        id: u64,
        number: u32,
        call_id: &str,
        idempotency: Option<Name>,
    ) -> Result<()> {
        self.tables.call_ids.remove(&call_id_key(hash_of(&self.engine.sealer, call_id), id))?;
        if let Some(name) = idempotency {
            let key = keyed(number, name);
            // Another call may have the key since.
            let ours =
                self.tables.idempotency.get(&key)?.is_some_and(|found| found.bytes() == id.to_be_bytes());
            if ours {
                self.tables.idempotency.remove(&key)?;
            }
        }
        Ok(())
    }

    /// A call as it was accepted: `None` where there is none, or what is wrong with it.
    pub(super) fn call(&self, id: u64) -> Result<Option<Result<Call, Problem>>> {
        let key = id.to_be_bytes();
        let record = self.tables.calls.get(&key)?;
        Ok(record.map(|record| Call::decode(self.engine.sealer.unseal(CALLS, &key, record.bytes())?)))
    }

    /// A call that has ended, in the same way.
    pub(super) fn ended(&self, id: u64) -> Result<Option<Result<Ended, Problem>>> {
        let key = id.to_be_bytes();
        let record = self.tables.ended.get(&key)?;
        Ok(record.map(|record| Ended::decode(self.engine.sealer.unseal(ENDED, &key, record.bytes())?)))
    }

    /// Sets a call aside whose record, or whose attempts, cannot be told. It is out of its index already.
    pub(super) fn set_aside(&mut self, number: u32, id: u64, slot: Slot, problem: Problem) -> Result<()> {
        self.report(&format!("of call {id}"), problem);
        let key = id.to_be_bytes();
        let record = self.tables.calls.get(&key)?.map(|record| record.bytes().to_vec());
        self.tables.calls.remove(&key)?;
        self.tables.retries.remove(&pair(number, id))?;
        self.tables.damaged.insert(&key, record.as_deref().unwrap_or_default())?;
        self.count(number, |counts| counts.bytes = counts.bytes.saturating_sub(slot.bytes));
        Ok(())
    }

    pub(super) fn seal_progress(&self, table: &str, key: &[u8], progress: &Progress) -> Vec<u8> {
        self.engine.sealer.seal(table, key, &progress.encode())
    }

    pub(super) fn unseal_progress(
        &self,
        table: &str,
        key: &[u8],
        record: &[u8],
    ) -> Result<Progress, Problem> {
        Progress::decode(self.engine.sealer.unseal(table, key, record)?)
    }

    pub(super) fn count(&mut self, number: u32, change: impl FnOnce(&mut Counts)) {
        self.engine.functions.change(number, change);
    }

    pub(super) fn report(&self, what: &str, problem: Problem) {
        error!(record = what, problem, "a record of the queue is damaged; it was set aside");
    }
}
