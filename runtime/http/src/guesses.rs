use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus::{IntCounterVec, Opts, Registry};
use runtime_api::{Error, Result};
use runtime_process::Seldom;
use tokio::time::Instant;
use tracing::warn;

/// How often a wrong attempt is told in the log: whoever guesses chooses how many there are.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// A path as long as this is told whole.
const MAX_PATH_CHARS: usize = 256;

/// Wrong credentials, for those who look after the server: all are counted, and some told in the log.
pub(crate) struct Guesses {
    failures: IntCounterVec,
    seldom: Mutex<Seldom>,
}

/// What credentials were presented for.
#[derive(Clone, Copy)]
pub(crate) enum Door {
    /// Below `/system` and `/ui`.
    System,
    /// A function that asks for some.
    Function,
}

impl Door {
    fn label(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Function => "function",
        }
    }
}

impl Guesses {
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let failures = Opts::new("fawn_auth_failures_total", "Wrong credentials, by what they were for");
        let failures = IntCounterVec::new(failures, &["door", "outcome"]).map_err(Error::internal)?;
        registry.register(Box::new(failures.clone())).map_err(Error::internal)?;
        for door in [Door::System, Door::Function] {
            for outcome in ["refused", "throttled"] {
                // Shown from the start, so that the first one is a change.
                failures.with_label_values(&[door.label(), outcome]);
            }
        }
        Ok(Self { failures, seldom: Mutex::new(Seldom::new(SAY_EVERY)) })
    }

    /// Takes note of presented credentials that were refused. `path` is what they were for, without its query; what was
    /// presented is told nowhere.
    pub(crate) fn note(&self, door: Door, error: &Error, peer: IpAddr, path: &str) {
        let outcome = match error {
            Error::Unauthenticated { .. } => "refused",
            Error::TooManyAttempts { .. } => "throttled",
            _ => return,
        };
        self.failures.with_label_values(&[door.label(), outcome]).inc();
        let mut seldom = self.seldom.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(attempts) = seldom.add(1, Instant::now().into_std()) else { return };
        drop(seldom);
        let path: String = path.chars().take(MAX_PATH_CHARS).collect();
        warn!(%peer, path, outcome, attempts, "wrong credentials; attempts are all since this was last said");
    }
}
