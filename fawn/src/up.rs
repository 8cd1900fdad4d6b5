use std::{
    io::{self, Write},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use gateway_server::Gateway;
use runtime_api::{DEFAULT_NAMESPACE, Provider};
use runtime_node::Node;
use runtime_process::{
    Drained, LogError, ServeConfig, Signals, bind, bind_each, serve_on_cores, serve_on_thread,
};
use runtime_store::{DataDirectory, Store};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    runtime::{Builder, Handle},
    select,
    task::spawn_blocking,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    config::{Auth, Config, Settings},
    credentials::{Credentials, PASSWORD_FILE},
    first_functions::{self, Started},
    hints, node,
    usage::Mistakes,
};

/// Deployments, uploads and the like; calls have threads of their own.
const CONTROL_THREADS: usize = 2;
/// Scrapers and probes are few.
const MAX_METRICS_CONNECTIONS: usize = 64;

/// Run gateway and node on this machine, in one process
///
/// Each file is deployed as a function of its name. Without files, the first start deploys a built-in function,
/// `hello`. Functions, credentials and compiled code are kept in the data directory, and are there after a restart.
///
/// A flag beats the environment, which beats the configuration file. Also honoured are upstream_timeout, basic_auth
/// and secret_mount_path, as OpenFaaS names them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fawn up                                         a first function on http://127.0.0.1:8080
  fawn up hello.wasm api.wasm                     two functions of yours
  fawn up --listen 0.0.0.0:8080 --egress none     for other machines; functions may not connect anywhere
  fawn up --config /etc/fawn.toml                 with settings such as: listen = \"0.0.0.0:8080\"

When it serves, it prints one line on standard output: fawn ready gateway=URL metrics=URL
SIGTERM finishes the calls in flight; a second one exits at once.")]
pub(crate) struct UpArguments {
    /// Modules (.wasm), their text (.wat), or image layouts (oci:FOLDER:TAG, oci-archive:TAR:TAG) to deploy
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A TOML file with the settings below
    #[arg(long, env = "FAWN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

pub(crate) fn run(arguments: UpArguments) -> Result<()> {
    let environment = |name: &str| std::env::var(name).ok();
    let config = Config::load(arguments.settings, arguments.config.as_deref(), &environment)?;
    first_functions::check(&arguments.files)?;
    let (subscriber, _log_until_the_end) =
        runtime_process::subscriber(&config.log, config.log_format).map_err(log_refused)?;
    tracing::subscriber::set_global_default(subscriber).context("the log cannot be installed")?;
    raise_open_files();
    give_memory_in_small_pages();
    let runtime = Builder::new_multi_thread().worker_threads(CONTROL_THREADS).enable_all().build();
    let runtime = runtime.context("cannot start the asynchronous runtime")?;
    let outcome = runtime.block_on(up(&config, &arguments.files));
    // Whoever is told to exit at once does not wait for threads that are busy.
    runtime.shutdown_background();
    outcome
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
        LogError::UnknownFilter { .. } => Mistakes::from(error.to_string()).into(),
        LogError::NoThread(_) => error.into(),
    }
}

async fn up(config: &Config, files: &[PathBuf]) -> Result<()> {
    let directory = DataDirectory::open(&config.data_dir)?;
    let listeners = Listeners::bind(config)?;
    let signals = Signals::listen().context("signals cannot be listened for")?;
    let (shutdown, now) = (CancellationToken::new(), CancellationToken::new());
    let signals = tokio::spawn(signals.run(shutdown.clone(), now.clone()));
    let outcome = select! {
        served = serve_until(config, &directory, files, listeners, shutdown) => served,
        () = now.cancelled() => bail!("told to exit at once: calls in flight were cut"),
    };
    signals.abort();
    outcome
}

/// Both ports, taken before anything is started.
struct Listeners {
    /// One for each serving thread.
    gateway: Vec<TcpListener>,
    metrics: TcpListener,
    gateway_address: SocketAddr,
    metrics_address: SocketAddr,
}

impl Listeners {
    fn bind(config: &Config) -> Result<Self> {
        let gateway = bind_each(config.listen, "--listen", config.serve_threads)?;
        let metrics = bind(config.metrics_listen, "--metrics-listen")?;
        Ok(Self {
            gateway_address: gateway.first().context("there is no listener")?.local_addr()?,
            metrics_address: metrics.local_addr()?,
            gateway,
            metrics,
        })
    }
}

/// Starts everything, from the disk upwards, and ends it in the opposite order.
async fn serve_until(
    config: &Config,
    directory: &DataDirectory,
    files: &[PathBuf],
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<()> {
    let credentials = credentials(&config.auth, directory.path())?;
    let user = credentials.as_ref().map(|credentials| credentials.user.clone());
    let store = Store::open(directory.path())?;
    let numbers = prometheus::Registry::new();
    let node = node::start(config, directory.path(), store.clone(), &numbers)?;
    let gateway_config = gateway_server::Config {
        basic_auth: credentials
            .map(|Credentials { user, password }| gateway_server::Credentials { user, password }),
        version: node::version(),
        shutdown: shutdown.clone(),
        control: Handle::current(),
    };
    let gateway = Gateway::new(gateway_config, Arc::new(node.clone()), &numbers)?;
    let (gateway_address, metrics_address) = (listeners.gateway_address, listeners.metrics_address);
    let metrics_end = CancellationToken::new();
    let metrics = serve_metrics(&gateway, listeners.metrics, metrics_end.clone())?;
    let serve_config = ServeConfig { grace: config.grace_period, ..ServeConfig::default() };
    let service_for = move |peer| gateway.service(peer);
    let mut serving = serve_on_cores(listeners.gateway, service_for, serve_config, shutdown.clone())
        .context("the gateway cannot be served")?;

    let started = select! {
        started = first_functions::start(&node, &store, files, config.max_module_bytes) => Some(started),
        () = shutdown.cancelled() => None,
    };
    match &started {
        Some(Ok(functions)) => {
            let password_file = config.auth.directory(directory.path()).join(PASSWORD_FILE);
            let login = user.as_deref().map(|user| (user, password_file.as_path()));
            let hints = next_steps(&node, functions, gateway_address, login).await?;
            let ready =
                format!("fawn ready gateway=http://{gateway_address} metrics=http://{metrics_address}");
            // Where nobody listens to what is said, functions are served all the same.
            if let Err(error) =
                writeln!(io::stderr(), "{hints}").and_then(|()| writeln!(io::stdout(), "{ready}"))
            {
                warn!(%error, "cannot say that it serves");
            }
        }
        Some(Err(_)) => shutdown.cancel(),
        None => {}
    }
    let drained = serving.drained().await.context("the gateway cannot be served")?;
    // Guests that go on after their answer do so where they were called, so that ends last.
    shut_down(config, &node, store, drained).await?;
    spawn_blocking(|| serving.end()).await?;
    metrics_end.cancel();
    spawn_blocking(|| metrics.join()).await?.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
    started.transpose().map(drop)
}

/// Numbers are told, and health is, from a thread that never runs a function.
fn serve_metrics(
    gateway: &Gateway,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<JoinHandle<io::Result<Drained>>> {
    let endpoint = gateway.metrics_endpoint();
    let config = ServeConfig { max_connections: MAX_METRICS_CONNECTIONS, ..ServeConfig::default() };
    serve_on_thread("metrics", listener, move |_| endpoint.clone(), config, shutdown)
        .context("metrics cannot be served")
}

async fn shut_down(config: &Config, node: &Node, store: Store, drained: Drained) -> Result<()> {
    if drained.cut > 0 {
        warn!(calls = drained.cut, "calls were cut: they took longer than the grace period");
    }
    if timeout(config.grace_period, node.shut_down()).await.is_err() {
        warn!("background work was cut: it took longer than the grace period");
    }
    store.close().await?;
    info!("stopped");
    Ok(())
}

async fn next_steps(
    node: &Node,
    started: &[Started],
    listening: SocketAddr,
    login: Option<(&str, &Path)>,
) -> Result<String> {
    let address = hints::from_here(listening);
    let mut lines = vec![
        format!("fawn {}: gateway on http://{listening}", env!("CARGO_PKG_VERSION")),
        hints::login(address, login),
    ];
    lines.extend(started.iter().map(|started| hints::call(address, started)));
    if started.is_empty() {
        lines.push(match node.list(DEFAULT_NAMESPACE).await?.len() {
            0 => "  deploy:  fawn deploy FILE.wasm".into(),
            1 => "  serving: one function from before, see `faas-cli list`".into(),
            count => format!("  serving: {count} functions from before, see `faas-cli list`"),
        });
    }
    Ok(lines.join("\n"))
}

/// What the gateway asks for; none lets anyone in.
fn credentials(auth: &Auth, data_directory: &Path) -> Result<Option<Credentials>> {
    match auth {
        Auth::DataDirectory => Credentials::read_or_make(data_directory).map(Some),
        Auth::Mounted(directory) => Credentials::read(directory).map(Some),
        Auth::Off => Ok(None),
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
