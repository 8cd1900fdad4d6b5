use std::time::Duration;

use jiff::{Timestamp, fmt::rfc2822};
use reqwest::{Response, header::RETRY_AFTER};
use runtime_api::{Error, Result};
use tokio::time::sleep;
use tracing::warn;

/// A registry that wants more patience than this is given up, and its wish is told.
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// How often what fails in passing is tried again, and how long after: each pause is up to twice as long as the one
/// before, and between half and all of that by chance, so that nodes that failed together do not return together.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    /// How often, beside the first time.
    pub times: u32,
    /// The pause before the second try, at the most.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Default for Retries {
    /// A registry that is down is told of within four seconds; one that restarts behind its proxy is not noticed.
    fn default() -> Self {
        Self { times: 4, first_pause: Duration::from_millis(250), longest_pause: Duration::from_secs(8) }
    }
}

impl Retries {
    /// For what has somebody else to turn to.
    pub(crate) fn none(self) -> Self {
        Self { times: 0, ..self }
    }

    pub(crate) fn begin(self) -> Backoff {
        Backoff { retries: self, failures: 0 }
    }
}

/// What one try comes to.
pub(crate) type Attempt<T> = Result<T, Failure>;

/// Why a try failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another would fail as well.
    Final(Error),
    /// Another may not; the registry may have said when.
    Passing { error: Error, retry_after: Option<Duration> },
}

impl Failure {
    pub(crate) fn passing(error: Error) -> Self {
        Self::Passing { error, retry_after: None }
    }

    /// An answer that says to come back later (RFC 9110 §10.2.3, RFC 6585 §4): at once final, if later is too late.
    pub(crate) fn come_back(message: String, response: &Response) -> Self {
        let unavailable = |message| Error::RegistryUnavailable { message, source: None };
        match retry_after(response) {
            Some(wait) if wait > LONGEST_RETRY_AFTER => {
                let seconds = wait.as_secs();
                Self::Final(unavailable(format!("{message}; it asks to wait {seconds} s")))
            }
            retry_after => Self::Passing { error: unavailable(message), retry_after },
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Final(error) | Failure::Passing { error, .. } => error,
        }
    }
}

/// The tries of one thing.
pub(crate) struct Backoff {
    retries: Retries,
    failures: u32,
}

impl Backoff {
    /// Waits until it is time to try again.
    ///
    /// # Errors
    /// The failure itself, if it is final or the last that is put up with.
    pub(crate) async fn pass(&mut self, failure: Failure) -> Result<()> {
        let (error, retry_after) = match failure {
            Failure::Passing { error, retry_after } if self.failures < self.retries.times => {
                (error, retry_after)
            }
            failure => return Err(failure.into()),
        };
        let wait = retry_after.unwrap_or_default() + self.pause();
        self.failures += 1;
        warn!(%error, ?wait, "a registry failed and is tried again");
        sleep(wait).await;
        Ok(())
    }

    /// What came since counts as a success.
    pub(crate) fn forgive(&mut self) {
        self.failures = 0;
    }

    fn pause(&self) -> Duration {
        let doubled =
            self.retries.first_pause.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        doubled.min(self.retries.longest_pause).mul_f64(rand::random_range(0.5..=1.0))
    }
}

/// `Retry-After`, in seconds or as a date (RFC 9110 §10.2.3).
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(date - Timestamp::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn failure(retry_after: Option<Duration>) -> Failure {
        let error = Error::RegistryUnavailable { message: "503".into(), source: None };
        Failure::Passing { error, retry_after }
    }

    /// Half of the longest pause and all of it.
    fn is_within(elapsed: Duration, longest: Duration) -> bool {
        // Timers of tokio's are of whole milliseconds, rounded up.
        (longest / 2..=longest + Duration::from_millis(1)).contains(&elapsed)
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_up_to_the_longest_and_come_to_an_end() {
        let retries = Retries { times: 7, ..Retries::default() };
        let mut backoff = retries.begin();
        for longest in [250, 500, 1000, 2000, 4000, 8000, 8000] {
            let began = Instant::now();
            backoff.pass(failure(None)).await.unwrap();
            assert!(is_within(began.elapsed(), Duration::from_millis(longest)), "{:?}", began.elapsed());
        }
        let began = Instant::now();
        assert_eq!(backoff.pass(failure(None)).await.unwrap_err().to_string(), "503");
        assert_eq!(began.elapsed(), Duration::ZERO);

        backoff.forgive();
        backoff.pass(failure(None)).await.unwrap();
        assert!(is_within(began.elapsed(), Duration::from_millis(250)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_is_down_is_told_of_in_time() {
        let (mut backoff, began) = (Retries::default().begin(), Instant::now());
        while backoff.pass(failure(None)).await.is_ok() {}
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_registry_asks_for_is_waited_out() {
        let began = Instant::now();
        Retries::default().begin().pass(failure(Some(Duration::from_secs(30)))).await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(30) && began.elapsed() < Duration::from_secs(31));
    }

    #[tokio::test(start_paused = true)]
    async fn what_would_fail_again_is_not_tried_again() {
        let began = Instant::now();
        let last = Failure::Final(Error::invalid("wrong-digest", "no"));
        assert_eq!(Retries::default().begin().pass(last).await.unwrap_err().code(), "wrong-digest");
        assert_eq!(
            Retries::default().none().begin().pass(failure(None)).await.unwrap_err().to_string(),
            "503"
        );
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[test]
    fn both_forms_of_retry_after_are_understood() {
        let asked = |text: &str| {
            let response = http::Response::builder().header("retry-after", text).body("").unwrap();
            retry_after(&response.into())
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO), "long ago is now");
        assert!(asked("Tue, 31 Dec 2199 23:59:59 GMT").unwrap() > LONGEST_RETRY_AFTER);
        for none in ["", "-1", "soon", "1.5"] {
            assert_eq!(asked(none), None, "{none}");
        }
    }
}
