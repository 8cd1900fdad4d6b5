use std::time::Instant;

/// Calls of a function at once, before anything is known of it.
const BEGIN: usize = 16;
/// Calls of a function at once, however well it does.
const MOST: usize = 1024;

/// How many calls of one function are made at once: one more after as many as that went well, half as many when it is
/// too much for the function, and never none.
#[derive(Debug)]
pub(crate) struct Concurrency {
    limit: usize,
    running: usize,
    posting: usize,
    /// Calls that went well since the limit was changed.
    went_well: usize,
    /// When it was last halved: calls that began before say nothing of the new limit.
    halved: Option<Instant>,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { limit: BEGIN, running: 0, posting: 0, went_well: 0, halved: None }
    }
}

impl Concurrency {
    /// How many more may begin, of which so many may run at once, and so many answers be posted.
    pub(crate) fn room(&self, most_running: usize, most_posting: usize) -> usize {
        if self.posting >= most_posting {
            return 0;
        }
        self.limit.min(most_running).saturating_sub(self.running)
    }

    /// One begins.
    pub(crate) fn begin(&mut self) {
        self.running += 1;
    }

    /// One has ended.
    pub(crate) fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// What one that began then tells. `too_much`: there was no room for it where it was made.
    pub(crate) fn learn(&mut self, began: Instant, now: Instant, too_much: bool) {
        if !too_much {
            self.went_well += 1;
            if self.went_well >= self.limit {
                (self.limit, self.went_well) = ((self.limit + 1).min(MOST), 0);
            }
        } else if self.halved.is_none_or(|halved| began >= halved) {
            (self.limit, self.went_well, self.halved) = ((self.limit / 2).max(1), 0, Some(now));
        }
    }

    /// One has ended, and its answer is to be posted.
    pub(crate) fn begin_to_post(&mut self) {
        self.end();
        self.posting += 1;
    }

    /// That is done, or was given up.
    pub(crate) fn end_posting(&mut self) {
        self.posting = self.posting.saturating_sub(1);
    }

    /// Whether there is nothing to remember.
    pub(crate) fn is_idle(&self) -> bool {
        self.running + self.posting == 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Instant {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        *START + Duration::from_secs(seconds)
    }

    fn room(calls: &Concurrency) -> usize {
        calls.room(usize::MAX, usize::MAX)
    }

    fn end(calls: &mut Concurrency, began: Instant, now: Instant, too_much: bool) {
        calls.end();
        calls.learn(began, now, too_much);
    }

    #[test]
    fn it_grows_by_one_and_is_halved_once_for_calls_that_began_together() {
        let mut calls = Concurrency::default();
        (0..BEGIN).for_each(|_| calls.begin());
        assert_eq!(room(&calls), 0);
        for _ in 0..4 {
            end(&mut calls, at(0), at(1), true);
        }
        assert_eq!((calls.limit, calls.running), (BEGIN / 2, BEGIN - 4));
        end(&mut calls, at(2), at(3), true);
        assert_eq!(calls.limit, BEGIN / 4);
        while calls.running > 0 {
            end(&mut calls, at(2), at(4), true);
        }
        assert_eq!(room(&calls), BEGIN / 4);
        for _ in 0..BEGIN / 4 {
            calls.begin();
            end(&mut calls, at(5), at(5), false);
        }
        assert_eq!(room(&calls), BEGIN / 4 + 1);
    }

    #[test]
    fn it_is_at_least_one_and_at_most_so_many() {
        let mut calls = Concurrency::default();
        for second in 0..20 {
            calls.begin();
            end(&mut calls, at(second), at(second), true);
        }
        assert_eq!(room(&calls), 1);
        for _ in 0..MOST * MOST {
            calls.begin();
            end(&mut calls, at(30), at(30), false);
        }
        assert_eq!(room(&calls), MOST);
        assert_eq!(calls.room(48, 1), 48);
    }
}
