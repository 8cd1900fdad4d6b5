use runtime_api::{CallId, FunctionName};
use runtime_store::Result;

use super::{
    engine::{Ending, Work},
    records::{Call, Progress, Slot},
    request::{Answer, Held},
    tables::{CALLS, DEAD, RETRIES, RUNNING, first_of_block, last_of_block, pair, tail, timed},
};
use crate::Which;

/// The pause of a call that was lost twice; it doubles each time after that.
const FIRST_PAUSE_MS: u64 = 1000;
const LONGEST_PAUSE_MS: u64 = 30_000;
/// At most so many dead letters are replayed or purged in one transaction.
const LETTERS_AT_ONCE: usize = 256;

impl Work<'_, '_> {
    /// Cancels those of these calls that carry this call id, or any, and have not ended.
    pub(super) fn cancel(&mut self, call_id: Option<&CallId>, ids: &[u64]) -> Result<Answer> {
        let mut answer = Answer::default();
        for id in ids {
            let Some(Ok(call)) = self.call(*id)? else { continue };
            let Some(number) = self.engine.functions.number(&call.function) else { continue };
            let key = pair(number, *id);
            if call_id.is_some_and(|call_id| call.call_id != *call_id)
                || self.tables.dead.get(&key)?.is_some()
            {
                continue;
            }
            if self.mark_running(&key)? {
                self.effects.cancelled.push(*id);
                answer.told += 1;
            } else if self.cancel_unstarted(number, *id, &call)? {
                answer.done += 1;
            }
        }
        Ok(answer)
    }

    fn mark_running(&mut self, key: &[u8]) -> Result<bool> {
        let Some(record) = self.tables.running.get(key)?.map(|record| record.bytes().to_vec()) else {
            return Ok(false);
        };
        // One that is damaged is set aside when it is settled, and does not run again either.
        if let Ok(mut progress) = self.unseal_progress(RUNNING, key, &record) {
            progress.cancel = true;
            self.tables.running.insert(key, &self.seal_progress(RUNNING, key, &progress))?;
        }
        Ok(true)
    }

    fn cancel_unstarted(&mut self, number: u32, id: u64, call: &Call) -> Result<bool> {
        let key = pair(number, id);
        let retried = self.tables.retries.get(&key)?;
        let retried = retried.map(|record| self.unseal_progress(RETRIES, &key, record.bytes())).transpose();
        let Ok(retried) = retried else { return Ok(false) };
        let due_ms = retried.as_ref().map_or(call.not_before_ms, |progress| progress.due_ms);
        let Some(slot) = self.unindex_unstarted(number, id, due_ms)? else { return Ok(false) };
        self.tables.retries.remove(&key)?;
        let progress = retried.unwrap_or(Progress { slot, ..Progress::default() });
        let held = Held::of(number, call);
        self.end(Ending { id, number, held: &held, progress, succeeded: false })?;
        Ok(true)
    }

    fn unindex_unstarted(&mut self, number: u32, id: u64, due_ms: Option<u64>) -> Result<Option<Slot>> {
        let ready = pair(number, id);
        let slot = self.tables.ready.get(&ready)?.map(|slot| Slot::decode(slot.bytes()).unwrap_or_default());
        if slot.is_some() {
            self.tables.ready.remove(&ready)?;
            self.count(number, |counts| counts.queued = counts.queued.saturating_sub(1));
            return Ok(slot);
        }
        let waiting = timed(due_ms.unwrap_or_default(), id);
        let slot =
            self.tables.waiting.get(&waiting)?.map(|record| super::tables::read_waiting(record.bytes()));
        if slot.is_some() {
            self.tables.waiting.remove(&waiting)?;
            self.count(number, |counts| counts.waiting = counts.waiting.saturating_sub(1));
        }
        Ok(slot.map(|read| read.map(|(_, slot)| slot).unwrap_or_default()))
    }

    /// Makes some dead letters due again.
    pub(super) fn replay(
        &mut self,
        function: &FunctionName,
        which: Which,
        after: Option<u64>,
    ) -> Result<Answer> {
        self.each_letter(function, which, after, |work, number, id, record| {
            let key = pair(number, id);
            match work.unseal_progress(DEAD, &key, record) {
                Ok(progress) => {
                    let progress = Progress { attempt: 0, due_ms: None, died_ms: None, ..progress };
                    work.retry(number, id, &progress)
                }
                Err(problem) => work.set_aside(number, id, Slot::default(), problem),
            }
        })
    }

    /// Removes some dead letters, and damaged calls that are asked for by their id.
    pub(super) fn purge(
        &mut self,
        function: &FunctionName,
        which: Which,
        after: Option<u64>,
    ) -> Result<Answer> {
        if let Which::One(id) = which
            && self.purge_damaged(id.0)?
        {
            return Ok(Answer { done: 1, ..Answer::default() });
        }
        self.each_letter(function, which, after, |work, number, id, record| {
            let bytes =
                work.unseal_progress(DEAD, &pair(number, id), record).map(|progress| progress.slot.bytes);
            let call = work.call(id)?;
            if let Some(Ok(call)) = &call {
                work.unindex(id, number, call.call_id.as_str(), call.idempotency)?;
            }
            work.remove_call(id, call.and_then(Result::ok).and_then(|call| call.file()))?;
            work.count(number, |counts| {
                counts.bytes = counts.bytes.saturating_sub(bytes.unwrap_or_default())
            });
            Ok(())
        })
    }

    /// Removes a call that was set aside, with all that leads to it, as far as its record tells. Where it tells nothing, the
    /// block of its id is searched for its call id; what then stays are a few bytes for the key that its caller gave it,
    /// until that is used again, and the file of its body, until the next start.
    fn purge_damaged(&mut self, id: u64) -> Result<bool> {
        let key = id.to_be_bytes();
        let Some(record) = self.tables.damaged.get(&key)?.map(|record| record.bytes().to_vec()) else {
            return Ok(false);
        };
        self.tables.damaged.remove(&key)?;
        match self.engine.sealer.unseal(CALLS, &key, &record).and_then(Call::decode) {
            Ok(call) => {
                let number = self.engine.functions.number(&call.function).unwrap_or(u32::MAX);
                self.unindex(id, number, call.call_id.as_str(), call.idempotency)?;
                self.remove_call(id, call.file())?;
            }
            Err(_) => {
                let mut from = first_of_block(id).to_vec();
                while let Some((found, _)) =
                    self.tables.call_ids.first(from.as_slice()..=last_of_block(id).as_slice())?
                {
                    if found.ends_with(&key) {
                        self.tables.call_ids.remove(&found)?;
                        break;
                    }
                    // The least key that is greater.
                    from = [found.as_slice(), &[0]].concat();
                }
            }
        }
        Ok(true)
    }

    /// Takes dead letters out of their index and does something with each.
    fn each_letter(
        &mut self,
        function: &FunctionName,
        which: Which,
        after: Option<u64>,
        mut each: impl FnMut(&mut Self, u32, u64, &[u8]) -> Result<()>,
    ) -> Result<Answer> {
        let mut answer = Answer::default();
        let Some(number) = self.engine.functions.number(function) else { return Ok(answer) };
        let (mut from, to) = match which {
            Which::One(id) => (id.0, id.0),
            Which::All => (after.map_or(0, |id| id.saturating_add(1)), u64::MAX),
        };
        for _ in 0..LETTERS_AT_ONCE {
            let range = (pair(number, from), pair(number, to));
            let Some((key, record)) = self.tables.dead.first(range.0.as_slice()..=range.1.as_slice())? else {
                return Ok(answer);
            };
            self.tables.dead.remove(&key)?;
            self.count(number, |counts| counts.dead = counts.dead.saturating_sub(1));
            let Ok(id) = tail::<4>(&key) else { continue };
            each(self, number, id, &record)?;
            answer.done += 1;
            if which != Which::All {
                return Ok(answer);
            }
            (from, answer.more_after) = (id.saturating_add(1), Some(id));
        }
        Ok(answer)
    }

    /// Gives back what ran when the last process ended, some at a time. Answers whether there was any.
    pub(super) fn give_back_lost(&mut self) -> Result<bool> {
        let mut any = false;
        for _ in 0..super::engine::DUE_AT_ONCE {
            let Some((key, record)) = self.tables.running.first(..)? else { break };
            any = true;
            self.tables.running.remove(&key)?;
            let (Some(number), Ok(id)) =
                (key.first_chunk().map(|number| u32::from_be_bytes(*number)), tail::<4>(&key))
            else {
                self.report(&format!("running {key:?}"), "its key is of another length");
                continue;
            };
            self.count(number, |counts| counts.running = counts.running.saturating_sub(1));
            let call = self.call(id)?;
            match (call, self.unseal_progress(RUNNING, &key, &record)) {
                (Some(Ok(call)), Ok(progress)) => {
                    let due_ms = self.after_loss(id, progress.attempt);
                    self.give_back(id, &Held::of(number, &call), Progress { due_ms, ..progress })?;
                }
                (Some(Err(problem)), Ok(progress)) => self.set_aside(number, id, progress.slot, problem)?,
                (None, Ok(progress)) => self.set_aside(number, id, progress.slot, "it is gone")?,
                (_, Err(problem)) => self.set_aside(number, id, Slot::default(), problem)?,
            }
        }
        Ok(any)
    }
}

impl Work<'_, '_> {
    /// When a call is due that has been lost so often. The first time it is at once. After that it may be the one that
    /// takes its process down, and all that ran beside it are suspected too: they wait for longer each time, and not all
    /// for as long, so that they come apart.
    fn after_loss(&self, id: u64, attempts: u32) -> Option<u64> {
        let doublings = attempts.checked_sub(2)?;
        let longest_ms = FIRST_PAUSE_MS.saturating_mul(1_u64.checked_shl(doublings)?).min(LONGEST_PAUSE_MS);
        let part_ms = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (longest_ms / 2 + 1);
        Some(self.now_ms.saturating_add(longest_ms / 2 + part_ms))
    }
}
