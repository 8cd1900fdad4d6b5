use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use clap::Args;
use runtime_http::{ProviderServer, ProviderServerConfig};
use runtime_node::Node;
use runtime_process::{serve_on_cores, serve_on_thread};
use runtime_store::{DataDirectory, Store};
use tokio::{runtime::Handle, task::spawn_blocking};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    config::{Config, Settings},
    hints, node,
    serve_settings::Role,
    serving::{self, Listeners, MetricsPort},
};

/// Run a node alone, for a gateway elsewhere
///
/// It serves the provider API of OpenFaaS: /system with credentials, and /function, /healthz and /metrics without. A
/// gateway needs the same credentials: the files basic-auth-user and basic-auth-password of the data directory, or a
/// folder of yours with such files for both. The API is plain HTTP: keep it on a network of your own.
///
/// A flag beats the environment, which beats the configuration file. Also honoured are port (then for other machines
/// too), basic_auth, secret_mount_path and upstream_timeout (as --max-exec-timeout), as OpenFaaS names them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fawn node                                        on http://127.0.0.1:8081, for a gateway on this machine
  fawn node --listen 10.0.0.5:8081 --credentials /etc/fawn/credentials
  fawn gateway --provider http://127.0.0.1:8081    the gateway to it, from another terminal

When it serves, it prints one line on standard output: fawn ready provider=URL metrics=URL
SIGTERM finishes the calls in flight; a second one exits at once.")]
pub(crate) struct NodeArguments {
    /// A TOML file with the settings below
    #[arg(long, env = "FAWN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

pub(crate) fn run(arguments: NodeArguments) -> Result<()> {
    let environment = |name: &str| std::env::var(name).ok();
    let config = Config::load(Role::NODE, arguments.settings, arguments.config.as_deref(), &environment)?;
    serving::run(&config.serve, |shutdown| serve(&config, shutdown))
}

/// Starts everything, from the disk upwards, and ends it in the opposite order.
async fn serve(config: &Config, shutdown: CancellationToken) -> Result<()> {
    let options = &config.serve;
    let directory = DataDirectory::open(&options.data_dir)?;
    let listeners = Listeners::bind(options)?;
    let credentials = options.auth.read_or_make(directory.path())?;
    let store = Store::open(directory.path())?;
    let numbers = prometheus::Registry::new();
    let node = node::start(config, credentials.clone(), directory.path(), store.clone(), &numbers)?;
    let asks = credentials.is_some();
    let server_config = ProviderServerConfig {
        basic_auth: credentials.map(Into::into),
        shutdown: shutdown.clone(),
        control: Handle::current(),
    };
    let server = ProviderServer::new(server_config, Arc::new(node.clone()), &numbers)?;
    let (address, metrics_address, status) = (listeners.address, listeners.metrics_address, server.status());
    let metrics = MetricsPort::serve(|config, end| {
        serve_on_thread("metrics", listeners.metrics, move |_| status.clone(), config, end)
    })?;
    let service_for = move |peer| server.service(peer);
    let _ending = end_log_readers(&node, shutdown.clone());
    let mut cores = serve_on_cores(listeners.serving, service_for, serving::limits(options), shutdown)
        .context("the node cannot be served")?;
    let files = asks.then(|| options.auth.directory(directory.path()));
    let ready = format!("fawn ready provider=http://{address} metrics=http://{metrics_address}");
    serving::say_ready(&hints::gateway_to(address, files), &ready);

    serving::warn_of_cut(cores.drained().await.context("the node cannot be served")?);
    // Guests that go on after their answer do so where they were called, so that ends last.
    serving::shut_down(&node, store, options.grace_period).await?;
    spawn_blocking(|| cores.end()).await?;
    metrics.end().await
}

/// Whoever follows a log is not waited for when connections are drained.
fn end_log_readers(node: &Node, shutdown: CancellationToken) -> AbortOnDropHandle<()> {
    let node = node.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        shutdown.cancelled().await;
        node.end_log_readers();
    }))
}
