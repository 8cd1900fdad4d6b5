use std::{collections::HashMap, sync::Arc};

use runtime_store::Result;

use super::{
    engine::{Ending, Work},
    records::{Call, Progress, Slot},
    request::{Answer, End, Granted, Held, Taker},
    tables::{DEAD, RETRIES, RUNNING, pair, tail},
    time,
};
use crate::{Outcome, Then};

/// At most so many calls are taken in one transaction, whatever the taker wants.
const TAKE_AT_ONCE: usize = 256;
/// And, but for the first, at most so many bytes of them: large bodies are looked at before any of them is handed out.
const TAKE_BYTES: u64 = 64 << 20;

impl Work<'_, '_> {
    /// Takes calls for somebody, one of each function in turn, and puts their attempts on record.
    pub(super) fn serve(&mut self, taker: &Taker) -> Result<Vec<Granted>> {
        let max = taker.max.min(TAKE_AT_ONCE);
        let (mut granted, mut room, mut bytes) = (Vec::new(), HashMap::new(), 0);
        loop {
            let before = granted.len();
            for number in self.engine.functions.in_turn() {
                if granted.len() == max || bytes >= TAKE_BYTES {
                    return Ok(granted);
                }
                let functions = &self.engine.functions;
                let ask = || functions.name(number).map_or(0, |function| (taker.room)(function));
                let left = room.entry(number).or_insert_with(ask);
                if *left > 0
                    && let Some(call) = self.take(number)?
                {
                    *left -= 1;
                    bytes += call.call.body.len_bytes();
                    granted.push(call);
                    self.engine.functions.had_turn(number);
                }
            }
            if granted.len() == before {
                return Ok(granted);
            }
        }
    }

    /// The first due call of a function, if it has one that can be run.
    fn take(&mut self, number: u32) -> Result<Option<Granted>> {
        loop {
            let (first, last) = (pair(number, 0), pair(number, u64::MAX));
            let found = self.tables.ready.first(first.as_slice()..=last.as_slice())?;
            let Some((key, slot)) = found else {
                // A count that an entry of the index was lost for.
                self.count(number, |counts| counts.queued = 0);
                return Ok(None);
            };
            self.tables.ready.remove(&key)?;
            self.count(number, |counts| counts.queued = counts.queued.saturating_sub(1));
            let (Ok(id), slot) = (tail::<4>(&key), Slot::decode(&slot).unwrap_or_default()) else {
                self.report(&format!("ready {key:?}"), "its key is of another length");
                continue;
            };
            match self.look_up(number, id)? {
                Ok((call, retried)) => return self.grant((number, id), slot, call, retried).map(Some),
                Err(problem) => self.set_aside(number, id, slot, problem)?,
            }
        }
    }

    /// A due call, and how far it is if it was tried before.
    fn look_up(&self, number: u32, id: u64) -> Result<Result<(Call, Option<Progress>), &'static str>> {
        let key = pair(number, id);
        let call = self.call(id)?;
        let retried = self.tables.retries.get(&key)?;
        let read = || {
            let call = call.ok_or("it is gone")??;
            if Some(&call.function) != self.engine.functions.name(number) {
                return Err("it is of another function than its index says");
            }
            let retried = retried.map(|record| self.unseal_progress(RETRIES, &key, record.bytes()));
            Ok((call, retried.transpose()?))
        };
        Ok(read())
    }

    fn grant(
        &mut self,
        (number, id): (u32, u64),
        slot: Slot,
        call: Call,
        retried: Option<Progress>,
    ) -> Result<Granted> {
        let key = pair(number, id);
        if retried.is_some() {
            self.tables.retries.remove(&key)?;
        }
        let fresh = Progress { slot, due_ms: call.not_before_ms, ..Progress::default() };
        let mut progress = retried.unwrap_or(fresh);
        progress.begin_attempt(self.now_ms);
        self.tables.running.insert(&key, &self.seal_progress(RUNNING, &key, &progress))?;
        self.count(number, |counts| counts.running += 1);
        let held = Arc::new(Held::of(number, &call));
        self.effects.granted.push((id, Arc::clone(&held)));
        Ok(Granted { id, attempt: progress.attempt, call, held })
    }

    /// Puts on record what became of an attempt.
    pub(super) fn settle(&mut self, id: u64, end: &End) -> Result<Answer> {
        let Some(held) = self.engine.held.get(&id).map(Arc::clone) else { return Ok(Answer::default()) };
        let (number, key) = (held.number, pair(held.number, id));
        self.effects.let_go.push(id);
        let record = self.tables.running.get(&key)?.map(|record| record.bytes().to_vec());
        self.tables.running.remove(&key)?;
        self.count(number, |counts| counts.running = counts.running.saturating_sub(1));
        let progress = match record.as_deref().map(|record| self.unseal_progress(RUNNING, &key, record)) {
            Some(Ok(progress)) => progress,
            Some(Err(problem)) => return self.lose(number, id, problem),
            None => return self.lose(number, id, "its attempt is gone"),
        };
        match end {
            End::Settled(outcome) => self.record_outcome(id, &held, progress, outcome)?,
            End::GivenBack => self.give_back(id, &held, Progress { due_ms: None, ..progress })?,
            End::Damaged => self.set_aside(number, id, progress.slot, "its body is not what was accepted")?,
        }
        Ok(Answer::default())
    }

    fn record_outcome(
        &mut self,
        id: u64,
        held: &Held,
        mut progress: Progress,
        outcome: &Outcome,
    ) -> Result<()> {
        let duration_us = u64::try_from(outcome.duration.as_micros()).unwrap_or(u64::MAX);
        match outcome.then {
            Then::PutBack(_) => progress.take_attempt_back(&outcome.error),
            _ => progress.end_attempt(outcome.status, duration_us, &outcome.error),
        }
        let number = held.number;
        match outcome.then {
            Then::Succeeded => self.end(Ending { id, number, held, progress, succeeded: true }),
            Then::Cancelled => self.end(Ending { id, number, held, progress, succeeded: false }),
            Then::RetryAt(_) | Then::PutBack(_) | Then::Dead if progress.cancel => {
                self.end(Ending { id, number, held, progress, succeeded: false })
            }
            Then::RetryAt(at) | Then::PutBack(at) => {
                progress.due_ms = Some(time::to_ms(at));
                self.retry(number, id, &progress)
            }
            Then::Dead => {
                progress.died_ms = Some(self.now_ms);
                let key = pair(number, id);
                self.tables.dead.insert(&key, &self.seal_progress(DEAD, &key, &progress))?;
                self.count(number, |counts| counts.dead += 1);
                Ok(())
            }
        }
    }

    /// A call that its worker lost is due again, unless somebody wanted it cancelled.
    pub(super) fn give_back(&mut self, id: u64, held: &Held, progress: Progress) -> Result<()> {
        let number = held.number;
        if progress.cancel {
            return self.end(Ending { id, number, held, progress, succeeded: false });
        }
        self.retry(number, id, &progress)
    }

    /// Has a call that is out of all indexes run once more, when it is due.
    pub(super) fn retry(&mut self, number: u32, id: u64, progress: &Progress) -> Result<()> {
        let key = pair(number, id);
        self.tables.retries.insert(&key, &self.seal_progress(RETRIES, &key, progress))?;
        match progress.due_ms.filter(|time| *time > self.now_ms) {
            Some(time) => self.make_waiting(number, id, progress.slot, time),
            None => self.make_ready(number, id, progress.slot),
        }
    }

    fn lose(&mut self, number: u32, id: u64, problem: &'static str) -> Result<Answer> {
        let bytes = self.tables.calls.get(&id.to_be_bytes())?.map_or(0, |record| record.bytes().len() as u64);
        self.set_aside(number, id, Slot { accepted_ms: 0, bytes }, problem)?;
        Ok(Answer::default())
    }
}
