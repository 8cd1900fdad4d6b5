//! Times as the records have them: milliseconds since 1970.

use std::time::{Duration, SystemTime};

pub(super) fn to_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A time too far away to be told is the farthest that can be.
pub(super) fn from_ms(time_ms: u64) -> SystemTime {
    /// The year 9999.
    const FARTHEST_MS: u64 = 253_370_764_800_000;
    SystemTime::UNIX_EPOCH + Duration::from_millis(time_ms.min(FARTHEST_MS))
}
