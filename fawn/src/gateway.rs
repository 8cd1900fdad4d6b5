use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use clap::Args;
use gateway_server::{Gateway, ScaleFromZero};
use http::HeaderValue;
use prometheus::Registry;
use runtime_http::{HttpProvider, HttpProviderConfig};
use runtime_process::{ServeConfig, serve_on_cores, serve_on_thread};
use tokio::{runtime::Handle, task::spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    credentials::{Credentials, PASSWORD_FILE},
    gateway_config::{GatewayConfig, GatewaySettings},
    hints, node,
    serving::{self, Listeners, MetricsPort},
};

/// Besides those that serve calls: what answers `/system`, and what tells numbers.
const OTHER_RUNTIMES: usize = 2;

/// Run a gateway alone, in front of a node or any provider of OpenFaaS
///
/// What it asks users for, it also shows to the provider, unless --provider-credentials says otherwise. On the machine
/// of `fawn node` it finds the node's credentials in the data directory; elsewhere give it a copy of those two files.
/// It keeps nothing on disk.
///
/// A flag beats the environment, which beats the configuration file. Also honoured are functions_provider_url,
/// basic_auth, secret_mount_path, read_timeout, write_timeout, upstream_timeout, scale_from_zero, max_idle_conns,
/// max_idle_conns_per_host and logs_provider_url, as OpenFaaS names them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fawn gateway --provider http://127.0.0.1:8081     to a `fawn node` on this machine
  fawn gateway --provider http://10.0.0.5:8081 --listen 0.0.0.0:8080 --credentials /etc/fawn/credentials
  functions_provider_url=http://faasd:8081/ secret_mount_path=/run/secrets fawn gateway

When it serves, it prints one line on standard output: fawn ready gateway=URL metrics=URL
It serves whether or not the provider is there yet: until then calls are answered with 502.")]
pub(crate) struct GatewayArguments {
    /// A TOML file with the settings below
    #[arg(long, env = "FAWN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: GatewaySettings,
}

pub(crate) fn run(arguments: GatewayArguments) -> Result<()> {
    let environment = |name: &str| std::env::var(name).ok();
    let config = GatewayConfig::load(arguments.settings, arguments.config.as_deref(), &environment)?;
    serving::run(&config.serve, |shutdown| serve(&config, shutdown))
}

async fn serve(config: &GatewayConfig, shutdown: CancellationToken) -> Result<()> {
    let options = &config.serve;
    let credentials = options.auth.read(&options.data_dir)?;
    let for_provider = match &config.provider_credentials {
        Some(directory) => Some(Credentials::read(directory)?),
        None => credentials.clone(),
    };
    let provider = HttpProvider::new(HttpProviderConfig {
        url: config.provider.clone(),
        credentials: for_provider.map(Into::into),
        call_timeout: config.upstream_timeout,
        max_idle_connections: config.max_idle_connections,
        runtimes: options.serve_threads.saturating_add(OTHER_RUNTIMES),
        user_agent: HeaderValue::from_static(concat!("fawn-gateway/", env!("CARGO_PKG_VERSION"))),
    })?;
    let user = credentials.as_ref().map(|credentials| credentials.user.clone());
    let listeners = Listeners::bind(options)?;
    let gateway_config = gateway_server::Config {
        basic_auth: credentials.map(Into::into),
        version: node::version(),
        shutdown: shutdown.clone(),
        control: Handle::current(),
        scale_from_zero: config.scale_from_zero.then(|| ScaleFromZero {
            patience: config.upstream_timeout,
            introduction: provider.introduction(),
        }),
        logs_server: config.logs_server.clone(),
        // It keeps nothing on disk.
        later: None,
        store: config.store.clone(),
    };
    let gateway = Gateway::new(gateway_config, Arc::new(provider), &Registry::new())?;
    let (address, metrics_address) = (listeners.address, listeners.metrics_address);
    let endpoint = gateway.metrics_endpoint();
    let metrics = MetricsPort::serve(|config, end| {
        serve_on_thread("metrics", listeners.metrics, move |_| endpoint.clone(), config, end)
    })?;
    let service_for = move |peer| gateway.service(peer);
    let limits = ServeConfig { head_timeout: config.head_timeout, ..serving::limits(options) };
    let mut cores = serve_on_cores(listeners.serving, service_for, limits, shutdown)
        .context("the gateway cannot be served")?;
    let password_file = options.auth.directory(&options.data_dir).join(PASSWORD_FILE);
    let login =
        hints::login(hints::from_here(address), user.as_deref().map(|user| (user, password_file.as_path())));
    let version = env!("CARGO_PKG_VERSION");
    let hints = format!("fawn {version}: gateway on http://{address} to {}\n{login}", config.provider);
    let ready = format!("fawn ready gateway=http://{address} metrics=http://{metrics_address}");
    serving::say_ready(&hints, &ready);

    serving::warn_of_cut(cores.drained().await.context("the gateway cannot be served")?);
    spawn_blocking(|| cores.end()).await?;
    info!("stopped");
    metrics.end().await
}
