//! How fast each function's log may grow.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use runtime_api::FunctionName;

/// What a function may write in a second, over time: more than anybody reads, and little to a disk.
pub(crate) const BYTES_PER_SECOND: u32 = 256 << 10;

/// What it may write at once, as the time that this takes at that rate: what some calls write that fail together.
pub(crate) const BURST: Duration = Duration::from_secs(4);

/// Who wrote too fast goes on when there is room for so much again, so that a log has few gaps and each is told.
const PAUSE: Duration = Duration::from_secs(1);

/// Who never writes again is not told for long how much was left out.
const FORGOTTEN: Duration = Duration::from_hours(1);

/// The functions that wrote lately.
#[derive(Default)]
pub(crate) struct Rates {
    functions: HashMap<FunctionName, Rate>,
    swept: Option<Instant>,
}

/// One function's.
#[derive(Clone, Copy)]
pub(crate) struct Rate {
    /// When what was written would be, at the rate.
    due: Instant,
    /// What was left out since it wrote too fast.
    left_out: Option<u64>,
}

impl Rates {
    /// A function's, to be given back.
    pub(crate) fn take(&mut self, function: &FunctionName, now: Instant) -> Rate {
        self.functions.remove(function).unwrap_or(Rate { due: now, left_out: None })
    }

    /// What it wrote counts no more.
    pub(crate) fn forget(&mut self, function: &FunctionName) {
        self.functions.remove(function);
    }

    /// Keeps it, and now and then forgets those who have not written for long.
    pub(crate) fn put(&mut self, function: &FunctionName, rate: Rate, now: Instant) {
        self.functions.insert(function.clone(), rate);
        if self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= BURST) {
            self.functions
                .retain(|_, rate| now < rate.due + if rate.is_over() { FORGOTTEN } else { Duration::ZERO });
            self.swept = Some(now);
        }
    }
}

impl Rate {
    /// How much was left out, once there is room again: lines follow.
    pub(crate) fn resume(&mut self, now: Instant) -> Option<u64> {
        let has_room = self.due <= now + BURST.saturating_sub(PAUSE);
        if has_room { self.left_out.take() } else { None }
    }

    /// Whether lines are left out.
    pub(crate) fn is_over(&self) -> bool {
        self.left_out.is_some()
    }

    /// Counts what is left out.
    pub(crate) fn leave_out(&mut self, entries: u64) {
        *self.left_out.get_or_insert_default() += entries;
    }

    /// Whether so many bytes may be written; from the first that may not, lines are left out.
    pub(crate) fn admits(&mut self, bytes: usize, now: Instant) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let due = self.due.max(now) + Duration::from_secs(1) * bytes / BYTES_PER_SECOND;
        if due > now + BURST {
            self.leave_out(1);
            return false;
        }
        self.due = due;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const EACH: usize = BYTES_PER_SECOND as usize;

    #[test]
    fn a_burst_is_admitted_and_then_the_rate() {
        let (start, function) = (Instant::now(), FunctionName::parse("f").unwrap());
        let mut rates = Rates::default();
        let mut rate = rates.take(&function, start);
        assert_eq!([(); 6].map(|()| rate.admits(EACH, start)), [true, true, true, true, false, false]);
        rate.leave_out(3);
        assert!(rate.is_over() && rate.resume(start + SECOND / 2).is_none());
        rates.put(&function, rate, start);
        let mut rate = rates.take(&function, start + SECOND);
        assert_eq!(rate.resume(start + SECOND), Some(5));
        assert!(!rate.is_over() && rate.admits(EACH, start + SECOND) && !rate.admits(1, start + SECOND));
    }

    #[test]
    fn who_has_not_written_for_long_is_forgotten() {
        let (start, mut rates) = (Instant::now(), Rates::default());
        for number in 0..100 {
            let function = FunctionName::parse(&format!("f{number}")).unwrap();
            let mut rate = rates.take(&function, start);
            assert!(rate.admits(100, start));
            rates.put(&function, rate, start);
        }
        assert_eq!(rates.functions.len(), 100);
        let last = FunctionName::parse("last").unwrap();
        let mut rate = rates.take(&last, start + BURST);
        assert!(rate.admits(100, start + BURST));
        rates.put(&last, rate, start + BURST);
        assert_eq!(rates.functions.len(), 1);
    }
}
