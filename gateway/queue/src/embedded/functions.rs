use std::collections::{BTreeMap, BTreeSet, HashMap};

use runtime_api::FunctionName;
use runtime_store::{Sealer, Snapshot};

use super::{
    codec::Problem,
    records::Counts,
    tables::{FUNCTIONS, Tables},
};
use crate::Result;

/// The functions that have calls, with how many: the one thing that is in memory for each of them, and the only one.
#[derive(Default)]
pub(super) struct Functions {
    by_number: BTreeMap<u32, (FunctionName, Counts)>,
    numbers: HashMap<FunctionName, u32>,
    /// Those with queued calls.
    due: BTreeSet<u32>,
    changed: BTreeSet<u32>,
    /// Of all functions together.
    live: u64,
    live_bytes: u64,
    ended: u64,
    /// Whose turn was last.
    turn: u32,
}

impl Functions {
    /// As the last transaction left them.
    pub(super) fn load(snapshot: &Snapshot, sealer: &Sealer) -> Result<Self, runtime_store::Error> {
        let mut functions = Self::default();
        for entry in snapshot.open(FUNCTIONS)?.range(..)? {
            let (key, record) = entry?;
            let read = || {
                let number = <[u8; 4]>::try_from(key.as_slice()).map_err(|_| "its key is none")?;
                let (name, counts) = Counts::decode(sealer.unseal(FUNCTIONS, &key, &record)?)?;
                Ok((u32::from_be_bytes(number), name, counts))
            };
            let (number, name, counts) = read().map_err(|problem: Problem| {
                let key = format!("{key:?}");
                runtime_store::Error::DamagedRecord { table: FUNCTIONS, key, problem }
            })?;
            functions.numbers.insert(name.clone(), number);
            functions.by_number.insert(number, (name, Counts::default()));
            functions.change(number, |now| *now = counts);
        }
        functions.changed.clear();
        Ok(functions)
    }

    pub(super) fn number(&self, function: &FunctionName) -> Option<u32> {
        self.numbers.get(function).copied()
    }

    /// The number of a function, a new one where it has none.
    pub(super) fn number_or_new(&mut self, function: &FunctionName) -> u32 {
        if let Some(number) = self.number(function) {
            return number;
        }
        let number = self.by_number.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
        self.numbers.insert(function.clone(), number);
        self.by_number.insert(number, (function.clone(), Counts::default()));
        self.changed.insert(number);
        number
    }

    pub(super) fn name(&self, number: u32) -> Option<&FunctionName> {
        self.by_number.get(&number).map(|(name, _)| name)
    }

    pub(super) fn counts(&self, number: u32) -> Counts {
        self.by_number.get(&number).map(|(_, counts)| *counts).unwrap_or_default()
    }

    pub(super) fn change(&mut self, number: u32, change: impl FnOnce(&mut Counts)) {
        let Some((_, counts)) = self.by_number.get_mut(&number) else { return };
        let before = *counts;
        change(counts);
        let after = *counts;
        self.live = (self.live + after.live()).saturating_sub(before.live());
        self.live_bytes = (self.live_bytes + after.bytes).saturating_sub(before.bytes);
        self.ended = (self.ended + after.succeeded + after.cancelled)
            .saturating_sub(before.succeeded + before.cancelled);
        if after.queued > 0 {
            self.due.insert(number);
        } else {
            self.due.remove(&number);
        }
        self.changed.insert(number);
    }

    /// Calls of all functions that have not ended, and their bytes.
    pub(super) fn live(&self) -> (u64, u64) {
        (self.live, self.live_bytes)
    }

    pub(super) fn ended(&self) -> u64 {
        self.ended
    }

    /// Calls that run.
    pub(super) fn running(&self) -> u64 {
        self.by_number.values().map(|(_, counts)| counts.running).sum()
    }

    /// Corrects counts that records were lost for.
    pub(super) fn none_running(&mut self) {
        let numbers: Vec<u32> = self.by_number.keys().copied().collect();
        for number in numbers {
            self.change(number, |counts| counts.running = 0);
        }
    }

    /// The functions with queued calls, from the one on whose turn it is.
    pub(super) fn in_turn(&self) -> Vec<u32> {
        let after = self.due.range(self.turn.saturating_add(1)..);
        after.chain(self.due.range(..=self.turn)).copied().collect()
    }

    pub(super) fn had_turn(&mut self, number: u32) {
        self.turn = number;
    }

    /// Puts on record what changed, and forgets functions that have nothing left.
    pub(super) fn save(
        &mut self,
        tables: &mut Tables<'_>,
        sealer: &Sealer,
    ) -> Result<(), runtime_store::Error> {
        for number in std::mem::take(&mut self.changed) {
            let Some((name, counts)) = self.by_number.get(&number) else { continue };
            let key = number.to_be_bytes();
            if *counts == Counts::default() {
                tables.functions.remove(&key)?;
                tables.numbers.remove(name.as_str().as_bytes())?;
                self.numbers.remove(name);
                self.by_number.remove(&number);
            } else {
                let record = sealer.seal(FUNCTIONS, &key, &counts.encode(name));
                if !tables.functions.insert(&key, &record)? {
                    tables.numbers.insert(name.as_str().as_bytes(), &key)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
impl Functions {
    /// How many entries there are in memory.
    pub(super) fn entries(&self) -> usize {
        self.by_number.len() + self.numbers.len() + self.due.len() + self.changed.len()
    }
}
