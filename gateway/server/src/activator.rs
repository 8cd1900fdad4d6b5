use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use runtime_api::{Error, FunctionName, FunctionStatus, Provider, Result};
use runtime_http::Introduction;
use tokio::{
    sync::Mutex as Turn,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

/// How long a function that was found awake is believed to be (`OpenFaaS`).
const BELIEVED: Duration = Duration::from_millis(250);
/// Between two looks or tries (`OpenFaaS`).
const PAUSE: Duration = Duration::from_millis(100);
/// How often replicas are asked for (`OpenFaaS`).
const TRIES: u32 = 20;
/// The longest that any call waits here (`OpenFaaS`).
const LONGEST: Duration = Duration::from_secs(100);
/// Functions that are remembered, before those are forgotten that no call is waiting for.
const MOST_REMEMBERED: usize = 4096;

/// How functions at zero replicas are woken.
#[derive(Clone, Debug)]
pub struct ScaleFromZero {
    /// How long a call may wait for that, at most 100 s.
    pub patience: Duration,
    /// Whether the provider wakes functions itself: shared with whoever else wants to know who it is.
    pub introduction: Arc<Introduction>,
}

/// Wakes a function that is at zero replicas, once for all calls that wait for it.
///
/// Nothing to do, but for asking now and then who the provider is, where that wakes functions itself.
pub(crate) struct Activator {
    /// How long a call may wait.
    patience: Duration,
    introduction: Arc<Introduction>,
    functions: Mutex<HashMap<FunctionName, Arc<Turn<Option<Seen>>>>>,
}

/// What came of a look: one for all that waited for it, so that an error is shared.
type Outcome = Result<(), Arc<Error>>;

struct Seen {
    at: Instant,
    outcome: Outcome,
}

impl Seen {
    /// Whether it tells those who wait since then. Who was refused before may be lucky now.
    fn tells(&self, since: Instant) -> bool {
        self.at >= since || (self.outcome.is_ok() && self.at.elapsed() < BELIEVED)
    }
}

impl Activator {
    pub(crate) fn new(ScaleFromZero { patience, introduction }: ScaleFromZero) -> Self {
        Self { patience: patience.min(LONGEST), introduction, functions: Mutex::default() }
    }

    /// Returns once the function has a replica that is ready, or has had its time: then the provider says what there is
    /// to say.
    ///
    /// # Errors
    /// `NotFound`, or why nobody can tell; `Internal` when no replicas can be asked for.
    pub(crate) async fn wake(&self, provider: &dyn Provider, function: &FunctionName) -> Outcome {
        let Ok(woken) = timeout(self.patience, self.woken(provider, function)).await else {
            warn!(%function, "is called although no replica is ready");
            return Ok(());
        };
        woken
    }

    async fn woken(&self, provider: &dyn Provider, function: &FunctionName) -> Outcome {
        if self.introduction.is_ours(provider).await? {
            return Ok(());
        }
        until_ready(provider, function, &self.turn(function)).await
    }

    /// Whose turn it is to look: the others wait, and then find what was seen. When the one gives up, the next looks.
    fn turn(&self, function: &FunctionName) -> Arc<Turn<Option<Seen>>> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if functions.len() >= MOST_REMEMBERED && !functions.contains_key(function) {
            functions.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        Arc::clone(functions.entry(function.clone()).or_default())
    }
}

async fn until_ready(provider: &dyn Provider, function: &FunctionName, turn: &Turn<Option<Seen>>) -> Outcome {
    let since = Instant::now();
    let mut turn = turn.lock().await;
    if let Some(seen) = turn.as_ref().filter(|seen| seen.tells(since)) {
        return seen.outcome.clone();
    }
    let outcome = look(provider, function).await.map_err(Arc::new);
    *turn = Some(Seen { at: Instant::now(), outcome: outcome.clone() });
    outcome
}

/// Looks until there is a replica that is ready, and asks for replicas where there are to be none.
async fn look(provider: &dyn Provider, function: &FunctionName) -> Result<()> {
    let mut status = provider.status(function).await?;
    if status.available_replicas == 0 && status.replicas == 0 {
        scale_up(provider, function, &status).await?;
    }
    while status.available_replicas == 0 {
        sleep(PAUSE).await;
        status = provider.status(function).await?;
    }
    Ok(())
}

async fn scale_up(provider: &dyn Provider, function: &FunctionName, status: &FunctionStatus) -> Result<()> {
    let replicas = status.spec.min_replicas();
    info!(%function, replicas, "woken by a call");
    let mut tries = 1;
    loop {
        match provider.scale(function, replicas).await {
            Ok(()) => return Ok(()),
            Err(error) if tries == TRIES => return Err(Error::internal(error)),
            Err(error) => warn!(%function, %error, tries, "cannot be woken yet"),
        }
        tries += 1;
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests;
