//! Asynchronous calls on this machine: the queue in the data directory, and the threads that its calls run on.

use std::{
    future::pending,
    num::NonZero,
    path::Path,
    sync::Arc,
    thread::{self, available_parallelism},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use gateway_queue::{Embedded, Limits, Queue, Settings, Unusable};
use gateway_server::{CallbackConfig, Gateway, Later, SigningSecrets, Worker};
use http::HeaderValue;
use prometheus::Registry;
use runtime_egress::Policy;
use serde::Deserialize;
use tokio::{
    runtime::{Builder, Runtime},
    select,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{config::quantity, serve_settings::Role};

/// Calls that run at once for each core: most of them wait for something else.
const CALLS_PER_CORE: usize = 32;
/// More would keep what others need.
const MOST_CALLS: usize = 10_000;
/// How soon a queue is tried to be opened again for which there was no room.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
/// Larger than what is passed by value in common use.
const MAX_BODY_BYTES: u64 = 64 << 20;

/// What the operator can choose.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct LaterSettings {
    /// Asynchronous calls that run at once, of all functions; not for fawn node [default: 32 for each core]
    #[arg(long, env = "FAWN_ASYNC_CONCURRENCY", value_name = "COUNT")]
    async_concurrency: Option<usize>,
    /// The largest body of an asynchronous call, and the largest answer that is posted; not for fawn node [default: 64Mi]
    #[arg(long, env = "FAWN_MAX_ASYNC_BODY", value_name = "QUANTITY")]
    max_async_body: Option<String>,
    /// Where answers of asynchronous calls may be posted; not for fawn node [default: public]
    #[arg(long, env = "FAWN_CALLBACK_EGRESS", value_name = "POLICY")]
    callback_egress: Option<String>,
}

/// The same, checked.
#[derive(Clone, Debug)]
pub(crate) struct LaterConfig {
    /// Calls at once.
    concurrency: usize,
    /// The largest body of a call, and the largest answer that is posted.
    max_body_bytes: u64,
    /// Where answers may be posted.
    callback_egress: Policy,
}

impl LaterSettings {
    /// What is set here, and the rest from the file.
    pub(crate) fn or(self, file: Self) -> Self {
        Self {
            async_concurrency: self.async_concurrency.or(file.async_concurrency),
            max_async_body: self.max_async_body.or(file.max_async_body),
            callback_egress: self.callback_egress.or(file.callback_egress),
        }
    }

    /// Nothing for a node alone, which has no queue.
    pub(crate) fn check(self, role: Role, mistakes: &mut Vec<String>) -> Option<LaterConfig> {
        if role.is_provider {
            let set = [
                ("async-concurrency", self.async_concurrency.is_some()),
                ("max-async-body", self.max_async_body.is_some()),
                ("callback-egress", self.callback_egress.is_some()),
            ];
            mistakes.extend(set.iter().filter(|(_, set)| *set).map(|(name, _)| {
                format!("{name} is for asynchronous calls, and a node alone has none: give it to `fawn up`")
            }));
            return None;
        }
        let concurrency = self.async_concurrency.unwrap_or_else(|| CALLS_PER_CORE.saturating_mul(cores()));
        if !(1..=MOST_CALLS).contains(&concurrency) {
            mistakes.push(format!("async-concurrency is {concurrency}: give 1 to {MOST_CALLS}"));
        }
        let max_body_bytes = quantity("max-async-body", self.max_async_body.as_deref(), mistakes);
        let max_body_bytes = max_body_bytes.unwrap_or(MAX_BODY_BYTES);
        let most = Limits::default().bytes_per_function;
        if max_body_bytes > most {
            mistakes
                .push(format!("max-async-body is more than the {} GiB that one function has", most >> 30));
        }
        let egress = self.callback_egress.as_deref().map(Policy::parse).transpose();
        Some(LaterConfig {
            concurrency,
            max_body_bytes,
            callback_egress: match egress {
                Ok(policy) => policy.unwrap_or_default(),
                Err(error) => {
                    mistakes.push(format!("callback-egress: {error}"));
                    Policy::none()
                }
            },
        })
    }
}

fn cores() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

/// Opens the queue of a data directory. One that cannot be opened takes no calls; all else goes on. Blocks on the disk.
pub(crate) fn open(config: &LaterConfig, directory: &Path, secrets: SigningSecrets) -> Later {
    let limits = Limits { body_bytes: config.max_body_bytes, ..Limits::default() };
    let settings = Settings { limits, ..Settings::default() };
    let folder = directory.join("queue");
    let queue: Arc<dyn Queue> = match Embedded::open(&folder, settings, Arc::new(SystemTime::now)) {
        Ok(queue) => Arc::new(queue),
        Err(failure) if failure.is_full() => open_when_there_is_room(&folder, settings),
        Err(failure) => Arc::new(broken(&folder, failure)),
    };
    Later {
        queue,
        max_body_bytes: config.max_body_bytes,
        callbacks: CallbackConfig {
            egress: config.callback_egress.clone(),
            folder,
            max_answer_bytes: config.max_body_bytes,
            secrets,
            user_agent: HeaderValue::from_static(concat!("fawn/", env!("CARGO_PKG_VERSION"))),
        },
    }
}

/// The disk has no room even to open the queue: it is tried again, and all else goes on.
fn open_when_there_is_room(folder: &Path, settings: Settings) -> Arc<Unusable> {
    warn!("the disk has no room to open the queue of asynchronous calls: none are taken or run until it has");
    let unopened = Arc::new(Unusable::full());
    let (weak, folder) = (Arc::downgrade(&unopened), folder.to_owned());
    let again = move || {
        while let Some(unopened) = weak.upgrade() {
            match Embedded::open(&folder, settings, Arc::new(SystemTime::now)) {
                Ok(queue) => return unopened.opened(Arc::new(queue)),
                Err(failure) if failure.is_full() => {}
                Err(failure) => return unopened.opened(Arc::new(broken(&folder, failure))),
            }
            drop(unopened);
            thread::sleep(OPEN_AGAIN);
        }
    };
    if let Err(error) = thread::Builder::new().name("queue-opener".into()).spawn(again) {
        error!(%error, "the queue of asynchronous calls is not opened before a restart");
    }
    unopened
}

/// Says what is wrong, and what to do.
fn broken(folder: &Path, failure: gateway_queue::Error) -> Unusable {
    let (cause, folder) = (anyhow::Error::new(failure), folder.display());
    let reason =
        format!("{cause:#}; restore {folder} from a backup, or move it away to begin with an empty queue");
    error!(reason, "asynchronous calls are neither taken nor run");
    Unusable::broken(reason)
}

/// The worker, on threads of its own, so that calls that somebody waits for share theirs with nobody.
pub(crate) struct Working {
    queue: Arc<dyn Queue>,
    /// None once its threads are told to end: that must not be waited for where another runtime runs.
    runtime: Option<Runtime>,
    worker: JoinHandle<()>,
}

impl Drop for Working {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Working {
    /// Starts to run calls, until shutdown.
    pub(crate) fn start(
        gateway: &Gateway,
        later: &Later,
        registry: &Registry,
        shutdown: CancellationToken,
        config: &LaterConfig,
    ) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(cores())
            .thread_name("async-call")
            .enable_all()
            .build()
            .context("the threads of asynchronous calls cannot be started")?;
        let worker = Worker::new(gateway, config.concurrency, registry)?;
        let worker = runtime.spawn(worker.run(shutdown));
        Ok(Self { queue: later.queue.clone(), runtime: Some(runtime), worker })
    }

    /// Returns when calls are not run any more, though nobody wants that.
    pub(crate) async fn failed(&mut self, shutdown: &CancellationToken) -> anyhow::Error {
        select! {
            failure = self.queue.failed() => anyhow!("the queue of asynchronous calls failed: {failure}"),
            ended = &mut self.worker, if !shutdown.is_cancelled() => match ended {
                Ok(()) => pending().await,
                Err(panic) => anyhow::Error::new(panic).context("the worker of asynchronous calls failed"),
            },
        }
    }

    /// Waits for the calls that run, and for their answers to be posted; those that take longer run again at the next
    /// start.
    pub(crate) async fn end(mut self, grace_period: Duration) -> Result<()> {
        if !self.worker.is_finished() && timeout(grace_period, &mut self.worker).await.is_err() {
            warn!("asynchronous calls were cut, and run again at the next start");
        }
        let queue = self.queue.clone();
        drop(self);
        queue.close().await.context("the queue of asynchronous calls cannot be closed")
    }
}
