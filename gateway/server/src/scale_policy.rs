use std::collections::BTreeMap;

/// Replicas at the least, where no label says so (`OpenFaaS`).
const DEFAULT_MIN: u64 = 1;
/// Replicas at the most, where no label says so (`OpenFaaS` Pro).
const DEFAULT_MAX: u64 = 20;
/// A step in percent of the most, where no label says so (`OpenFaaS` CE).
const DEFAULT_FACTOR: u64 = 10;

/// Which way an alert points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trend {
    /// It fires: there is more load than before.
    Up,
    /// It is resolved.
    Down,
}

/// How many replicas a function is to have after an alert, going by its labels (`OpenFaaS` CE).
///
/// One step up is `com.openfaas.scale.factor` percent of `com.openfaas.scale.max`; down leads to
/// `com.openfaas.scale.min` at once. A factor of 0 switches this off: the replicas stay as they are.
pub(crate) fn after_alert(trend: Trend, replicas: u64, labels: &BTreeMap<String, String>) -> u64 {
    let label = |name: &str| labels.get(name).and_then(|text| text.parse::<u64>().ok());
    let min = label("com.openfaas.scale.min").unwrap_or(DEFAULT_MIN);
    let max = label("com.openfaas.scale.max").unwrap_or(DEFAULT_MAX).max(min);
    let factor = label("com.openfaas.scale.factor").filter(|factor| *factor <= 100);
    match (factor.unwrap_or(DEFAULT_FACTOR), trend) {
        (0, _) => replicas,
        (factor, Trend::Up) => {
            let step = max.saturating_mul(factor).div_ceil(100);
            replicas.saturating_add(step).min(max)
        }
        (_, Trend::Down) => min,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(trend: Trend, replicas: u64, min: &str, max: &str, factor: &str) -> u64 {
        let labels = [("min", min), ("max", max), ("factor", factor)];
        let given = labels.iter().filter(|(_, value)| !value.is_empty());
        let labels = given.map(|(name, value)| (format!("com.openfaas.scale.{name}"), (*value).to_owned()));
        after_alert(trend, replicas, &labels.collect())
    }

    #[test]
    fn firing_goes_up_by_steps_and_resolved_goes_down_at_once() {
        for (replicas, min, max, factor, up, down) in [
            (1, "", "", "", 3, 1),
            (1, "", "5", "", 2, 1),
            (1, "", "5", "20", 2, 1),
            (1, "", "10", "25", 4, 1),
            (4, "2", "5", "50", 5, 2),
            (5, "2", "5", "50", 5, 2),
            (1, "", "10", "100", 10, 1),
            (0, "", "10", "", 1, 1),
            (3, "3", "3", "", 3, 3),
            (3, "", "10", "0", 3, 3),
            (1, "", "10", "101", 2, 1),
            (1, "many", "few", "x", 3, 1),
            (30, "", "20", "", 20, 1),
            (1, "5", "2", "", 2, 5),
            (u64::MAX, "", "", "100", 20, 1),
        ] {
            assert_eq!(after(Trend::Up, replicas, min, max, factor), up, "{replicas} {min} {max} {factor}");
            assert_eq!(after(Trend::Down, replicas, min, max, factor), down, "{replicas} {min} {max}");
        }
    }
}
