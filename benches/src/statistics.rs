use std::time::Duration;

use anyhow::{Context, Result};

/// One figure as several rounds saw it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Figure {
    /// Of what each round gave; there must have been a round.
    pub(crate) fn of(rounds: impl IntoIterator<Item = f64>) -> Result<Self> {
        let mut rounds: Vec<f64> = rounds.into_iter().collect();
        rounds.sort_unstable_by(f64::total_cmp);
        match (rounds.first(), rounds.get(rounds.len() / 2), rounds.last()) {
            (Some(least), Some(median), Some(most)) => {
                Ok(Self { median: *median, least: *least, most: *most })
            }
            _ => anyhow::bail!("nothing was measured"),
        }
    }

    /// In another unit.
    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self { median: self.median * factor, least: self.least * factor, most: self.most * factor }
    }

    /// Of times, in the unit that there are so many of in a second.
    pub(crate) fn of_times(rounds: impl IntoIterator<Item = Duration>, per_second: f64) -> Result<Self> {
        Self::of(rounds.into_iter().map(|time| time.as_secs_f64() * per_second))
    }
}

/// A percentile of what is sorted.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Result<Duration> {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().context("nothing was measured")
}

/// The middle one.
pub(crate) fn median_time(times: impl IntoIterator<Item = Duration>) -> Result<Duration> {
    let mut times: Vec<_> = times.into_iter().collect();
    times.sort_unstable();
    percentile(&times, 50)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_middle_of_its_rounds() {
        let figure = Figure::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!(figure, Figure { median: 2.0, least: 1.0, most: 3.0 });
        assert!(Figure::of([]).is_err());
    }

    #[test]
    fn a_percentile_is_one_of_what_was_seen() {
        let times: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 99).unwrap(), Duration::from_millis(199));
        assert_eq!(percentile(&times, 50).unwrap(), Duration::from_millis(101));
        assert_eq!(percentile(&times, 100).unwrap(), Duration::from_millis(200));
        assert_eq!(median_time(times).unwrap(), Duration::from_millis(101));
        assert!(percentile(&[], 50).is_err());
    }
}
