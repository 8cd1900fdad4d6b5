use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};

use runtime_api::{Error, Provider, Result};
use tokio::{sync::Mutex as Turn, time::Instant};
use tracing::warn;

/// How long a provider is believed: behind the same address there may be another one by then.
const BELIEVED: Duration = Duration::from_secs(30);
/// How long those who come next share that it did not say who it is.
const SHARED: Duration = Duration::from_secs(1);

/// Whether a provider is ours, as it says itself, asked once for all who want to know and again now and then.
#[derive(Debug, Default)]
pub struct Introduction {
    said: RwLock<Option<Said>>,
    turn: Turn<()>,
}

#[derive(Debug)]
struct Said {
    until: Instant,
    /// Or why it could not be asked.
    is_ours: Result<bool, String>,
}

impl Introduction {
    /// Whether the provider is ours: it wakes functions itself, and marks what is not a function's answer. One that does
    /// not say so is somebody else's.
    ///
    /// # Errors
    /// `Unreachable` when it cannot be asked, and could not the last time.
    pub async fn is_ours(&self, provider: &dyn Provider) -> Result<bool> {
        if let Some(known) = self.known() {
            return known;
        }
        let _turn = self.turn.lock().await;
        if let Some(known) = self.known() {
            return known;
        }
        let (is_ours, believed) = match provider.info().await {
            Ok(info) => (Ok(info.wakes_functions()), BELIEVED),
            // A provider that is away for a moment has not become another one.
            Err(Error::Unreachable { message, .. }) => (self.last().ok_or(message), SHARED),
            Err(error) => {
                warn!(%error, "the provider does not say who it is, and is taken for somebody else's");
                (Ok(false), SHARED)
            }
        };
        let answer = told(&is_ours);
        let said = Said { until: Instant::now() + believed, is_ours };
        *self.said.write().unwrap_or_else(PoisonError::into_inner) = Some(said);
        answer
    }

    fn known(&self) -> Option<Result<bool>> {
        let said = self.said.read().unwrap_or_else(PoisonError::into_inner);
        said.as_ref().filter(|said| Instant::now() < said.until).map(|said| told(&said.is_ours))
    }

    /// What it said when it was last asked, however long ago.
    fn last(&self) -> Option<bool> {
        let said = self.said.read().unwrap_or_else(PoisonError::into_inner);
        said.as_ref().and_then(|said| said.is_ours.as_ref().ok().copied())
    }
}

fn told(is_ours: &Result<bool, String>) -> Result<bool> {
    is_ours.clone().map_err(|message| Error::Unreachable { message, source: None })
}

#[cfg(test)]
mod tests {
    use runtime_api::ProviderInfo;
    use runtime_testing::FakeProvider;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_it_says_is_believed_for_a_while() {
        let (fake, introduction) = (FakeProvider::new(), Introduction::default());
        assert!(!introduction.is_ours(&*fake).await.unwrap());
        fake.add_detail(ProviderInfo::WAKES_FUNCTIONS, "yes");
        assert!(!introduction.is_ours(&*fake).await.unwrap());
        advance(BELIEVED).await;
        assert!(introduction.is_ours(&*fake).await.unwrap());
        fake.fail_next(Error::unreachable("away", "x"));
        advance(BELIEVED).await;
        assert!(introduction.is_ours(&*fake).await.unwrap(), "it was ours before");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_for_a_second() {
        let (fake, introduction) = (FakeProvider::new(), Introduction::default());
        fake.add_detail(ProviderInfo::WAKES_FUNCTIONS, "yes");
        fake.fail_next(Error::unreachable("away", "x"));
        for _ in 0..2 {
            let error = introduction.is_ours(&*fake).await.unwrap_err();
            assert!(matches!(error, Error::Unreachable { .. }) && error.to_string() == "away", "{error:?}");
        }
        fake.fail_next(Error::invalid("not-supported", "no such feature"));
        advance(SHARED).await;
        for _ in 0..2 {
            assert!(!introduction.is_ours(&*fake).await.unwrap());
        }
        advance(SHARED).await;
        assert!(introduction.is_ours(&*fake).await.unwrap());
    }
}
