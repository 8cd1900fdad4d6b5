use runtime_store::Result;

use super::{
    engine::Work,
    records::Slot,
    request::{Answer, Push},
    tables::{call_id_key, keyed, pair, timed, waiting},
};
use crate::{Accepted, EntryId, Error};

impl Work<'_, '_> {
    /// Accepts a call, unless its key tells that it is here, or there are too many. Those that were accepted are then to
    /// be kept.
    pub(super) fn push(&mut self, push: &Push) -> Result<crate::Result<Answer>> {
        let number = self.engine.functions.number_or_new(&push.function);
        if let Some(same) = self.same_call(number, push)? {
            return Ok(Ok(Answer { accepted: Some(same), ..Answer::default() }));
        }
        if let Err(full) = self.check_room(number, push) {
            return Ok(Err(full));
        }
        let key = push.id.to_be_bytes();
        if let Some(name) = push.idempotency {
            self.tables.idempotency.insert(&keyed(number, name), &key)?;
        }
        if let Some(file) = &push.file {
            self.tables.files.insert(&file.name(), &key)?;
        }
        let slot = push.slot();
        self.count(number, |counts| counts.bytes += slot.bytes);
        match self.later(push) {
            Some(time) => self.make_waiting(number, push.id, slot, time)?,
            None => self.count(number, |counts| counts.queued += 1),
        }
        self.engine.totals.last_id = self.engine.totals.last_id.max(push.id);
        let accepted = Accepted { id: EntryId(push.id), call_id: push.call_id.clone(), existed: false };
        Ok(Ok(Answer { accepted: Some(accepted), ..Answer::default() }))
    }

    /// Keeps the calls that were accepted in this transaction: all at once, since they come to lie beside each other.
    pub(super) fn keep(&mut self, mut pushes: Vec<&Push>) -> Result<()> {
        pushes.sort_unstable_by_key(|push| push.id);
        self.tables.calls.extend(pushes.iter().map(|push| (push.id.to_be_bytes(), &push.record)))?;
        let mut ready = Vec::with_capacity(pushes.len());
        for push in &pushes {
            if self.later(push).is_none() {
                let number = self.engine.functions.number_or_new(&push.function);
                ready.push((pair(number, push.id), push.slot().encode()));
            }
        }
        ready.sort_unstable();
        self.tables.ready.extend(ready)?;
        let mut call_ids: Vec<_> =
            pushes.iter().map(|push| call_id_key(push.call_id_hash, push.id)).collect();
        call_ids.sort_unstable();
        call_ids.iter().try_for_each(|key| self.tables.call_ids.insert(key, &[]).map(|_| ()))
    }

    /// When a call is due that is not due now.
    fn later(&self, push: &Push) -> Option<u64> {
        push.not_before_ms.filter(|time| *time > self.now_ms)
    }

    /// Puts off a call that is out of all indexes.
    pub(super) fn make_waiting(&mut self, number: u32, id: u64, slot: Slot, time_ms: u64) -> Result<()> {
        self.tables.waiting.insert(&timed(time_ms, id), &waiting(number, slot))?;
        self.count(number, |counts| counts.waiting += 1);
        Ok(())
    }

    /// The call that has this one's key, as long as it is known at all. One that is damaged will not run.
    fn same_call(&self, number: u32, push: &Push) -> Result<Option<Accepted>> {
        let Some(name) = push.idempotency else { return Ok(None) };
        let Some(found) = self.tables.idempotency.get(&keyed(number, name))? else { return Ok(None) };
        let Ok(id) = found.bytes().try_into().map(u64::from_be_bytes) else { return Ok(None) };
        let just_now = |answer: &crate::Result<Answer>| {
            let accepted = answer.as_ref().ok()?.accepted.as_ref();
            accepted.filter(|accepted| accepted.id == EntryId(id)).map(|accepted| accepted.call_id.clone())
        };
        let call_id = match self.effects.answers.iter().find_map(just_now) {
            Some(call_id) => Some(call_id),
            None => match self.call(id)? {
                Some(call) => call.ok().map(|call| call.call_id),
                None => self.ended(id)?.and_then(Result::ok).map(|ended| ended.call_id),
            },
        };
        Ok(call_id.map(|call_id| Accepted { id: EntryId(id), call_id, existed: true }))
    }

    fn check_room(&self, number: u32, push: &Push) -> crate::Result<()> {
        let (limits, counts) = (&self.engine.limits, self.engine.functions.counts(number));
        if counts.live() >= limits.calls_per_function
            || counts.bytes + push.bytes() > limits.bytes_per_function
        {
            return Err(Error::FunctionFull {
                function: push.function.clone(),
                calls: counts.live(),
                bytes: counts.bytes,
                dead: counts.dead,
            });
        }
        let (calls, bytes) = self.engine.functions.live();
        if calls >= limits.calls || bytes + push.bytes() > limits.bytes {
            return Err(Error::QueueFull);
        }
        Ok(())
    }
}
