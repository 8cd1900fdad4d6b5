//! When an asynchronous call is tried again, and after how long.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use jiff::Timestamp;
use runtime_api::parse_duration;

/// Which calls are tried again, where the function does not say (`OpenFaaS` Pro). What the platform answers in place
/// of the function is tried again whatever its code.
const CODES: [u16; 6] = [408, 429, 500, 502, 503, 504];
/// Tries after the first, where the function does not say.
const ATTEMPTS: u32 = 10;
/// More than anybody can mean: with the longest pauses it is weeks.
const MOST_ATTEMPTS: u32 = 10_000;
/// The pause before the second try, where the function does not say (`OpenFaaS` Pro).
const MIN_WAIT: Duration = Duration::from_secs(10);
/// The longest pause, where the function does not say (`OpenFaaS` Pro).
const MAX_WAIT: Duration = Duration::from_secs(120);
/// The pause of a call for which there was no room.
const NO_ROOM_WAIT: Duration = Duration::from_secs(1);
/// No pause is longer, whoever asks for it.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// How calls of one function are tried again (`OpenFaaS` Pro's annotations `com.openfaas.retry.*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RetryPolicy {
    /// Tries after the first.
    attempts: u32,
    codes: Vec<u16>,
    min_wait: Duration,
    max_wait: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: ATTEMPTS, codes: CODES.into(), min_wait: MIN_WAIT, max_wait: MAX_WAIT }
    }
}

impl RetryPolicy {
    /// What a function's annotations say. One that cannot be read has its default (`OpenFaaS` Pro).
    pub(crate) fn of(annotations: &BTreeMap<String, String>) -> Self {
        let text =
            |name: &str| annotations.get(&format!("com.openfaas.retry.{name}")).map(|text| text.trim());
        let wait = |name: &str| text(name).and_then(parse_duration).map(|wait| wait.min(LONGEST_WAIT));
        let default = Self::default();
        let attempts = text("attempts").and_then(|text| text.parse().ok());
        let min_wait = wait("min_wait").unwrap_or(default.min_wait);
        Self {
            attempts: attempts.map_or(default.attempts, |attempts: u32| attempts.min(MOST_ATTEMPTS)),
            codes: text("codes").and_then(parse_codes).unwrap_or(default.codes),
            min_wait,
            max_wait: wait("max_wait").unwrap_or(default.max_wait).max(min_wait),
        }
    }

    /// Tries in all.
    pub(crate) fn tries(&self) -> u32 {
        self.attempts.saturating_add(1)
    }

    /// Whether an answer is tried again, as far as it goes by its status.
    pub(crate) fn wants(&self, status: StatusCode) -> bool {
        self.codes.contains(&status.as_u16())
    }

    /// The pause after that many tries: what the answer asks for, if that is longer than the shortest, or one that doubles
    /// with every try. Up to half of it is up to `chance`, from 0 to 1, so that calls that failed together do not come back
    /// together; the shortest becomes longer by that.
    pub(crate) fn wait(&self, tries: u32, asked: Option<Duration>, chance: f64) -> Duration {
        if let Some(asked) = asked {
            return asked.clamp(self.min_wait, LONGEST_WAIT);
        }
        let factor = 2_u32.saturating_pow(tries.saturating_sub(1));
        let whole = self.min_wait.saturating_mul(factor).min(self.max_wait);
        let least = (whole / 2).max(self.min_wait);
        let most = whole.max(self.min_wait + self.min_wait / 2);
        least + most.saturating_sub(least).mul_f64(chance)
    }
}

/// The pause of a call for which there was no room: what the platform asks for, else a second, and by chance up to as much
/// again.
pub(crate) fn until_room(asked: Option<Duration>, chance: f64) -> Duration {
    let pause = asked.unwrap_or(NO_ROOM_WAIT).clamp(NO_ROOM_WAIT, MAX_WAIT);
    pause + pause.mul_f64(chance)
}

/// `408,429, 500`: none of it where one is no code.
fn parse_codes(text: &str) -> Option<Vec<u16>> {
    let code = |text: &str| text.trim().parse().ok().filter(|code| (100..1000).contains(code));
    text.split(',').map(code).collect()
}

/// The pause that an answer of 429 or 503 asks for (RFC 9110 §10.2.3): seconds, or a date.
pub(crate) fn asked_wait(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(annotations: &[(&str, &str)]) -> RetryPolicy {
        let named =
            |(name, value): &(&str, &str)| (format!("com.openfaas.retry.{name}"), (*value).to_owned());
        RetryPolicy::of(&annotations.iter().map(named).collect())
    }

    #[test]
    fn annotations_say_how_and_what_cannot_be_read_is_the_default() {
        let all = policy(&[("attempts", "3"), ("codes", "500, 502"), ("min_wait", "2s"), ("max_wait", "1m")]);
        let seconds = Duration::from_secs;
        let expected =
            RetryPolicy { attempts: 3, codes: vec![500, 502], min_wait: seconds(2), max_wait: seconds(60) };
        assert_eq!(all, expected);
        for unreadable in [
            ("attempts", "-1"),
            ("attempts", "many"),
            ("codes", "500,x"),
            ("codes", ""),
            ("codes", "5000"),
            ("min_wait", "soon"),
            ("max_wait", "-1s"),
        ] {
            assert_eq!(policy(&[unreadable]), RetryPolicy::default(), "{unreadable:?}");
        }
        assert_eq!(policy(&[("attempts", "0")]).tries(), 1);
        assert_eq!(policy(&[("attempts", "4000000000")]).tries(), MOST_ATTEMPTS + 1);
        // The longest is never shorter than the shortest.
        assert_eq!(policy(&[("min_wait", "10m")]).wait(1, None, 0.0), seconds(600));
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_half_is_chance() {
        let policy = policy(&[("min_wait", "2s"), ("max_wait", "30s")]);
        for (tries, least, most) in [(1, 2, 3), (2, 2, 4), (3, 4, 8), (4, 8, 16), (5, 15, 30), (50, 15, 30)] {
            assert_eq!(policy.wait(tries, None, 0.0), Duration::from_secs(least), "{tries}");
            assert_eq!(policy.wait(tries, None, 1.0), Duration::from_secs(most), "{tries}");
        }
        assert_eq!(policy.wait(u32::MAX, None, 0.5), Duration::from_millis(22_500));
    }

    #[test]
    fn an_answer_may_ask_for_a_pause_within_limits() {
        let policy = policy(&[("min_wait", "2s")]);
        let now: Timestamp = "2026-11-22T07:00:00Z".parse().unwrap();
        let asked = |status: u16, text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            asked_wait(StatusCode::from_u16(status).unwrap(), &headers, now)
        };
        assert_eq!(asked(429, "7"), Some(Duration::from_secs(7)));
        assert_eq!(asked(503, "Sun, 22 Nov 2026 07:01:00 GMT"), Some(Duration::from_mins(1)));
        assert_eq!(asked(503, "Sun, 22 Nov 2026 06:01:00 GMT"), Some(Duration::ZERO));
        for (status, text) in [(500, "7"), (429, "-7"), (429, "soon"), (503, "")] {
            assert_eq!(asked(status, text), None, "{status} {text}");
        }
        assert_eq!(policy.wait(1, Some(Duration::ZERO), 0.0), Duration::from_secs(2));
        assert_eq!(until_room(None, 0.5), Duration::from_millis(1500));
        assert_eq!(until_room(Some(Duration::from_secs(u64::MAX)), 1.0), 2 * MAX_WAIT);
        assert_eq!(policy.wait(1, Some(Duration::from_secs(u64::MAX)), 0.0), LONGEST_WAIT);
    }
}
