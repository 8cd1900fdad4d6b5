//! What every server of ours does first and last.

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpListener},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use runtime_node::Node;
use runtime_process::{Drained, LogError, ServeConfig, Signals, bind, bind_each};
use runtime_store::Store;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{runtime::Builder, select, task::spawn_blocking, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{serve_settings::ServeOptions, usage::Mistakes};

/// Deployments, uploads and the like; calls have threads of their own.
const CONTROL_THREADS: usize = 2;
/// Scrapers and probes are few.
const MAX_METRICS_CONNECTIONS: usize = 64;

/// Runs a server on the control runtime, with the log that was asked for. It is to end when its token is cancelled.
pub(crate) fn run<F: Future<Output = Result<()>>>(
    options: &ServeOptions,
    server: impl FnOnce(CancellationToken) -> F,
) -> Result<()> {
    let (subscriber, _log_until_the_end) =
        runtime_process::subscriber(&options.log, options.log_format).map_err(log_refused)?;
    tracing::subscriber::set_global_default(subscriber).context("the log cannot be installed")?;
    raise_open_files();
    give_memory_in_small_pages();
    let runtime = Builder::new_multi_thread().worker_threads(CONTROL_THREADS).enable_all().build();
    let runtime = runtime.context("cannot start the asynchronous runtime")?;
    let outcome = runtime.block_on(until_told(server));
    // Whoever is told to exit at once does not wait for threads that are busy.
    runtime.shutdown_background();
    outcome
}

async fn until_told<F: Future<Output = Result<()>>>(
    server: impl FnOnce(CancellationToken) -> F,
) -> Result<()> {
    let signals = Signals::listen().context("signals cannot be listened for")?;
    let (shutdown, now) = (CancellationToken::new(), CancellationToken::new());
    let signals = tokio::spawn(signals.run(shutdown.clone(), now.clone()));
    let outcome = select! {
        served = server(shutdown) => served,
        () = now.cancelled() => bail!("told to exit at once: calls in flight were cut"),
    };
    signals.abort();
    outcome
}

/// Both ports, taken before anything is started.
pub(crate) struct Listeners {
    /// One for each serving thread.
    pub(crate) serving: Vec<TcpListener>,
    pub(crate) metrics: TcpListener,
    pub(crate) address: SocketAddr,
    pub(crate) metrics_address: SocketAddr,
}

impl Listeners {
    pub(crate) fn bind(options: &ServeOptions) -> Result<Self> {
        let serving = bind_each(options.listen, "--listen", options.serve_threads)?;
        let metrics = bind(options.metrics_listen, "--metrics-listen")?;
        Ok(Self {
            address: serving.first().context("there is no listener")?.local_addr()?,
            metrics_address: metrics.local_addr()?,
            serving,
            metrics,
        })
    }
}

/// The limits of the port that is served on all cores.
pub(crate) fn limits(options: &ServeOptions) -> ServeConfig {
    ServeConfig { grace: options.grace_period, ..ServeConfig::default() }
}

/// Numbers, told from a thread that never runs a function; so is health.
pub(crate) struct MetricsPort {
    thread: JoinHandle<io::Result<Drained>>,
    shutdown: CancellationToken,
}

impl MetricsPort {
    /// `serve` starts the thread, given the port's limits and what ends it.
    pub(crate) fn serve(
        serve: impl FnOnce(ServeConfig, CancellationToken) -> io::Result<JoinHandle<io::Result<Drained>>>,
    ) -> Result<Self> {
        let shutdown = CancellationToken::new();
        let config = ServeConfig { max_connections: MAX_METRICS_CONNECTIONS, ..ServeConfig::default() };
        let thread = serve(config, shutdown.clone()).context("metrics cannot be served")?;
        Ok(Self { thread, shutdown })
    }

    /// Ends it, last of all.
    pub(crate) async fn end(self) -> Result<()> {
        self.shutdown.cancel();
        let ended = spawn_blocking(|| self.thread.join()).await?;
        ended.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
        Ok(())
    }
}

/// Tells people on standard error what to do next, and programs on standard output that it serves.
pub(crate) fn say_ready(hints: &str, ready: &str) {
    let said = writeln!(io::stderr(), "{hints}").and_then(|()| writeln!(io::stdout(), "{ready}"));
    // Where nobody listens to what is said, functions are served all the same.
    if let Err(error) = said {
        warn!(%error, "cannot say that it serves");
    }
}

/// Says how many calls did not end in time.
pub(crate) fn warn_of_cut(drained: Drained) {
    if drained.cut > 0 {
        warn!(calls = drained.cut, "calls were cut: they took longer than the grace period");
    }
}

/// Ends a node whose calls have ended.
pub(crate) async fn shut_down(node: &Node, store: Store, grace_period: Duration) -> Result<()> {
    if timeout(grace_period, node.shut_down()).await.is_err() {
        warn!("background work was cut: it took longer than the grace period");
    }
    node.close_logs().await;
    store.close().await?;
    info!("stopped");
    Ok(())
}

/// The allocator asks for pages of 2 MiB, of which each thread fills some hundred KiB.
fn give_memory_in_small_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        warn!(%error, "memory is taken in huge pages, so more of it");
    }
}

/// A filter that makes no sense is the user's mistake, and says its cause itself.
fn log_refused(error: LogError) -> anyhow::Error {
    match error {
        LogError::UnknownFilter { .. } | LogError::UnknownLevel { .. } => {
            Mistakes::from(error.to_string()).into()
        }
        LogError::NoThread(_) => error.into(),
    }
}

/// Each connection is a file, and the usual limit is for programs of another time.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        warn!(%error, "the limit of open files stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use runtime_process::LogFormat;

    use super::*;

    #[test]
    fn a_log_filter_that_makes_no_sense_is_explained_once() {
        let error = runtime_process::subscriber("fawn=loud", LogFormat::Text).err().unwrap();
        let error = log_refused(error);
        assert!(error.is::<Mistakes>());
        assert_eq!(format!("{error:#}").matches("error parsing level filter").count(), 1, "{error:#}");
    }
}
