//! What is asked of the queue without changing it: from a snapshot, while the committer goes on.

use std::cmp::Ordering;

use std::ops::Bound;

use runtime_api::{CallId, FunctionName};
use runtime_store::{ReadTable, Result, Sealer, Snapshot};
use tracing::error;

use super::{
    codec::Problem,
    records::{Call, Counts, Ended, History, Progress, Slot},
    tables::{
        CALL_IDS, CALLS, DAMAGED, DEAD, ENDED, FUNCTIONS, NUMBERS, READY, RETRIES, RUNNING, WAITING,
        call_id_key, call_id_key_of, hash_of, pair, read_call_id_key, tail,
    },
    time,
};
use crate::{Attempt, CallStatus, EntryId, FunctionCounts, Page, State};

/// One page has at most this many.
const MAX_PAGE: usize = 1000;

/// The ids of calls that may carry this call id, after one of them.
pub(super) fn ids_of(
    snapshot: &Snapshot,
    sealer: &Sealer,
    call_id: &CallId,
    after: Option<u64>,
    mut each: impl FnMut(u64) -> Result<bool>,
) -> Result<()> {
    let (table, hash) = (snapshot.open(CALL_IDS)?, hash_of(sealer, call_id.as_str()));
    let mut from = call_id_key(hash, after.map_or(0, |id| id.saturating_add(1)));
    loop {
        let Some(entry) = table.range(from.as_slice()..)?.next() else { return Ok(()) };
        let (key, _) = entry?;
        let Some((block, found, id)) = read_call_id_key(&key) else {
            report(CALL_IDS, &key, "it is of another length");
            return Ok(());
        };
        if found == hash && !each(id)? {
            return Ok(());
        }
        // The next one of this block, or the first of the block that the key is of, or of the one after it.
        let next = match found.cmp(&hash) {
            Ordering::Less => Some((block, 0)),
            Ordering::Equal => id.checked_add(1).map(|id| (block, id)),
            Ordering::Greater => block.checked_add(1).map(|block| (block, 0)),
        };
        let Some((block, id)) = next else { return Ok(()) };
        from = call_id_key_of(block, hash, id);
    }
}

/// How far a look at all calls of a function has come: those that wait, that are due, and that run.
pub(super) enum Place {
    Waiting(Vec<u8>),
    Ready(u64),
    Running(u64),
}

impl Place {
    pub(super) fn first() -> Self {
        Self::Waiting(Vec::new())
    }
}

/// At most so many calls that wait are looked at in one go, whosever they are.
const WAITING_AT_ONCE: usize = 100_000;

/// Some calls of a function that have not ended and are no dead letters, up to an id, and where the others are.
pub(super) fn live_of(
    snapshot: &Snapshot,
    function: &FunctionName,
    from: Place,
    last: u64,
    limit: usize,
) -> Result<(Vec<u64>, Option<Place>)> {
    let Some(number) = number_of(&snapshot.open(NUMBERS)?, function)? else { return Ok((Vec::new(), None)) };
    let mut ids = Vec::new();
    let ids_in = |table: &'static str, from: u64, ids: &mut Vec<u64>| {
        let (table, range) = (snapshot.open(table)?, (pair(number, from), pair(number, last)));
        for entry in table.range(range.0.as_slice()..=range.1.as_slice())?.take(limit) {
            ids.extend(tail::<4>(&entry?.0).ok());
        }
        Ok::<_, runtime_store::Error>(
            ids.last().filter(|_| ids.len() == limit).map(|id| id.saturating_add(1)),
        )
    };
    let next = match from {
        Place::Waiting(after) => {
            let table = snapshot.open(WAITING)?;
            let mut entries = table.range((Bound::Excluded(after.as_slice()), Bound::Unbounded))?;
            let mut come_to = None;
            for _ in 0..WAITING_AT_ONCE {
                let Some(entry) = entries.next() else { return Ok((ids, Some(Place::Ready(0)))) };
                let (key, record) = entry?;
                let is_its = super::tables::read_waiting(&record).is_ok_and(|(of, _)| of == number);
                ids.extend(tail::<8>(&key).ok().filter(|id| is_its && *id <= last));
                come_to = Some(key);
                if ids.len() == limit {
                    break;
                }
            }
            come_to.map(Place::Waiting)
        }
        Place::Ready(from) => match ids_in(READY, from, &mut ids)? {
            Some(next) => Some(Place::Ready(next)),
            None => Some(Place::Running(0)),
        },
        Place::Running(from) => ids_in(RUNNING, from, &mut ids)?.map(Place::Running),
    };
    Ok((ids, next))
}

fn number_of(numbers: &ReadTable, function: &FunctionName) -> Result<Option<u32>> {
    let number = numbers.get(function.as_str().as_bytes())?;
    Ok(number.and_then(|number| number.bytes().try_into().ok()).map(u32::from_be_bytes))
}

pub(super) fn find(
    snapshot: &Snapshot,
    sealer: &Sealer,
    now_ms: u64,
    call_id: &CallId,
    page: Page,
) -> Result<Vec<CallStatus>> {
    let calls = Calls::open(snapshot, sealer, now_ms)?;
    let mut found = Vec::new();
    let limit = page.limit.min(MAX_PAGE);
    if limit == 0 {
        return Ok(found);
    }
    ids_of(snapshot, sealer, call_id, page.after.map(|id| id.0), |id| {
        found.extend(calls.status(id)?.filter(|status| status.call_id == *call_id));
        Ok(found.len() < limit)
    })?;
    Ok(found)
}

pub(super) fn dead_letters(
    snapshot: &Snapshot,
    sealer: &Sealer,
    now_ms: u64,
    function: &FunctionName,
    page: Page,
) -> Result<Vec<CallStatus>> {
    let calls = Calls::open(snapshot, sealer, now_ms)?;
    let Some(number) = calls.number(function)? else { return Ok(Vec::new()) };
    let from = pair(number, page.after.map_or(0, |id| id.0.saturating_add(1)));
    let mut found = Vec::new();
    for entry in calls.dead.range(from.as_slice()..=pair(number, u64::MAX).as_slice())? {
        if found.len() >= page.limit.min(MAX_PAGE) {
            break;
        }
        let (key, _) = entry?;
        if let Ok(id) = tail::<4>(&key) {
            found.extend(calls.status(id)?);
        }
    }
    Ok(found)
}

pub(super) fn counts(snapshot: &Snapshot, sealer: &Sealer) -> Result<Vec<FunctionCounts>> {
    let (functions, ready) = (snapshot.open(FUNCTIONS)?, snapshot.open(READY)?);
    let mut all = Vec::new();
    for entry in functions.range(..)? {
        let (key, record) = entry?;
        let read = sealer.unseal(FUNCTIONS, &key, &record).and_then(Counts::decode);
        let (function, counts) = match read {
            Ok(read) => read,
            Err(problem) => {
                report(FUNCTIONS, &key, problem);
                continue;
            }
        };
        let number = key.first_chunk().map_or(u32::MAX, |number| u32::from_be_bytes(*number));
        let (first, last) = (pair(number, 0), pair(number, u64::MAX));
        let oldest = ready
            .range(first.as_slice()..=last.as_slice())?
            .next()
            .transpose()?
            .and_then(|(_, slot)| Slot::decode(&slot).ok());
        all.push(FunctionCounts {
            function,
            queued: counts.queued,
            running: counts.running,
            waiting: counts.waiting,
            dead: counts.dead,
            succeeded: counts.succeeded,
            cancelled: counts.cancelled,
            bytes: counts.bytes,
            oldest_queued: oldest.map(|slot| time::from_ms(slot.accepted_ms)),
        });
    }
    all.sort_by(|one, other| one.function.cmp(&other.function));
    Ok(all)
}

pub(super) fn damaged(snapshot: &Snapshot, page: Page) -> Result<Vec<EntryId>> {
    let from = page.after.map_or(0, |id| id.0.saturating_add(1)).to_be_bytes();
    let table = snapshot.open(DAMAGED)?;
    let mut ids = Vec::new();
    for entry in table.range(from.as_slice()..)?.take(page.limit.min(MAX_PAGE)) {
        ids.extend(tail::<0>(&entry?.0).map(EntryId));
    }
    Ok(ids)
}

/// The tables that tell where a call stands.
struct Calls<'a> {
    sealer: &'a Sealer,
    now_ms: u64,
    calls: ReadTable,
    numbers: ReadTable,
    running: ReadTable,
    retries: ReadTable,
    dead: ReadTable,
    ended: ReadTable,
}

impl<'a> Calls<'a> {
    fn open(snapshot: &Snapshot, sealer: &'a Sealer, now_ms: u64) -> Result<Self> {
        Ok(Self {
            sealer,
            now_ms,
            calls: snapshot.open(CALLS)?,
            numbers: snapshot.open(NUMBERS)?,
            running: snapshot.open(RUNNING)?,
            retries: snapshot.open(RETRIES)?,
            dead: snapshot.open(DEAD)?,
            ended: snapshot.open(ENDED)?,
        })
    }

    fn number(&self, function: &FunctionName) -> Result<Option<u32>> {
        number_of(&self.numbers, function)
    }

    /// A record that reads as it was written. What does not is reported, and is not there.
    fn read<T>(
        &self,
        name: &'static str,
        table: &ReadTable,
        key: &[u8],
        decode: impl FnOnce(&[u8]) -> Result<T, Problem>,
    ) -> Result<Option<T>> {
        let Some(record) = table.get(key)? else { return Ok(None) };
        let read = self.sealer.unseal(name, key, record.bytes()).and_then(decode);
        Ok(read.inspect_err(|problem| report(name, key, problem)).ok())
    }

    fn status(&self, id: u64) -> Result<Option<CallStatus>> {
        let key = id.to_be_bytes();
        if let Some(call) = self.read(CALLS, &self.calls, &key, Call::decode)? {
            return self.live(id, call).map(Some);
        }
        let ended = self.read(ENDED, &self.ended, &key, Ended::decode)?;
        Ok(ended.map(|ended| CallStatus {
            id: EntryId(id),
            function: ended.function,
            call_id: ended.call_id,
            state: if ended.succeeded { State::Succeeded } else { State::Cancelled },
            accepted: time::from_ms(ended.accepted_ms),
            due: None,
            ended: Some(time::from_ms(ended.ended_ms)),
            attempts: attempts(&ended.history),
            last_error: ended.history.last_error,
        }))
    }

    fn live(&self, id: u64, call: Call) -> Result<CallStatus> {
        let key = pair(self.number(&call.function)?.unwrap_or(u32::MAX), id);
        let running = self.read(RUNNING, &self.running, &key, Progress::decode)?;
        let dead = self.read(DEAD, &self.dead, &key, Progress::decode)?;
        let (state, progress) = match (running, dead) {
            (Some(progress), _) => (State::Running, progress),
            (None, Some(progress)) => (State::Dead, progress),
            (None, None) => {
                let retried = self.read(RETRIES, &self.retries, &key, Progress::decode)?;
                let fresh = Progress { due_ms: call.not_before_ms, ..Progress::default() };
                let progress = retried.unwrap_or(fresh);
                let waits = progress.due_ms.is_some_and(|due| due > self.now_ms);
                (if waits { State::Waiting } else { State::Queued }, progress)
            }
        };
        Ok(CallStatus {
            id: EntryId(id),
            function: call.function,
            call_id: call.call_id,
            state,
            accepted: time::from_ms(call.accepted_ms),
            due: progress.due_ms.filter(|_| state == State::Waiting).map(time::from_ms),
            ended: progress.died_ms.map(time::from_ms),
            attempts: attempts(&progress.history),
            last_error: progress.history.last_error,
        })
    }
}

fn attempts(history: &History) -> Vec<Attempt> {
    let attempt = |tried: &super::records::Try| Attempt {
        started: time::from_ms(tried.started_ms),
        duration: tried.duration_us.map(std::time::Duration::from_micros),
        status: tried.status,
    };
    history.attempts.iter().map(attempt).collect()
}

fn report(table: &'static str, key: &[u8], problem: Problem) {
    error!(table, ?key, problem, "a record of the queue is damaged");
}
