use std::time::{Duration, Instant};

/// Counts what may happen as often as somebody likes, and tells when to speak of it, so that a log stays readable.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    /// Those of which nothing was said yet.
    untold: u64,
    said: Option<Instant>,
}

impl Seldom {
    /// What is spoken of once in that time at most, and at once when it was silent for so long.
    pub fn new(every: Duration) -> Self {
        Self { every, untold: 0, said: None }
    }

    /// Adds so many, and tells of how many to speak, if it is time to: none is left out, some are told later.
    pub fn add(&mut self, more: u64, now: Instant) -> Option<u64> {
        self.untold += more;
        let due = self.said.is_none_or(|said| now.saturating_duration_since(said) >= self.every);
        (due && self.untold > 0).then(|| {
            self.said = Some(now);
            std::mem::take(&mut self.untold)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_in_that_time_and_none_is_left_out() {
        let (mut lost, start) = (Seldom::new(Duration::from_mins(1)), Instant::now());
        let said = [(0, 0), (0, 3), (1, 2), (1, 0), (59, 1), (60, 0), (61, 0), (130, 0), (131, 7)]
            .map(|(second, lines)| lost.add(lines, start + Duration::from_secs(second)));
        assert_eq!(said, [None, Some(3), None, None, None, Some(3), None, None, Some(7)]);
    }
}
