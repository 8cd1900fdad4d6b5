use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use clap::Args;
use gateway_server::Gateway;
use runtime_api::{DEFAULT_NAMESPACE, Provider, SecretName};
use runtime_node::Node;
use runtime_process::{serve_on_cores, serve_on_thread};
use runtime_store::{DataDirectory, Store};
use tokio::{runtime::Handle, select, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Settings},
    credentials::PASSWORD_FILE,
    first_functions::{self, Started},
    hints,
    later::{self, Working},
    node,
    serve_settings::Role,
    serving::{self, Listeners, MetricsPort},
};

/// Run gateway and node on this machine, in one process
///
/// Each file is deployed as a function of its name. Without files, the first start deploys a built-in function,
/// `hello`. Functions, credentials and compiled code are kept in the data directory, and are there after a restart.
///
/// A flag beats the environment, which beats the configuration file. Also honoured are upstream_timeout, basic_auth,
/// secret_mount_path and logs_provider_url, as OpenFaaS names them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fawn up                                         a first function on http://127.0.0.1:8080
  fawn up hello.wasm api.wasm                     two functions of yours
  fawn up --listen 0.0.0.0:8080 --egress none     for other machines; functions may not connect anywhere
  fawn up --store pack                            offer the functions of a packed store: `fawn store list`
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
    let config = Config::load(Role::GATEWAY, arguments.settings, arguments.config.as_deref(), &environment)?;
    first_functions::check(&arguments.files)?;
    serving::run(&config.serve, |shutdown| up(&config, &arguments.files, shutdown))
}

/// Starts everything, from the disk upwards, and ends it in the opposite order.
async fn up(config: &Config, files: &[PathBuf], shutdown: CancellationToken) -> Result<()> {
    let options = &config.serve;
    let directory = DataDirectory::open(&options.data_dir)?;
    let listeners = Listeners::bind(options)?;
    let credentials = options.auth.read_or_make(directory.path())?;
    let user = credentials.as_ref().map(|credentials| credentials.user.clone());
    let store = Store::open(directory.path())?;
    let numbers = prometheus::Registry::new();
    let node = node::start(config, credentials.clone(), directory.path(), store.clone(), &numbers)?;
    let chosen =
        config.later.clone().context("asynchronous calls are configured where there is a gateway")?;
    let (opened, folder) = (chosen.clone(), directory.path().to_owned());
    let secrets = {
        let node = node.clone();
        Arc::new(move |name: &SecretName| node.secret_value(name))
    };
    let later = spawn_blocking(move || later::open(&opened, &folder, secrets)).await?;
    let gateway_config = gateway_server::Config {
        basic_auth: credentials.map(Into::into),
        version: node::version(),
        shutdown: shutdown.clone(),
        control: Handle::current(),
        // The node wakes its functions itself.
        scale_from_zero: None,
        logs_server: config.logs_server.clone(),
        later: Some(later.clone()),
        store: config.store.clone(),
    };
    let gateway = Gateway::new(gateway_config, Arc::new(node.clone()), &numbers)?;
    let (gateway_address, metrics_address) = (listeners.address, listeners.metrics_address);
    let endpoint = gateway.metrics_endpoint();
    let metrics = MetricsPort::serve(|config, end| {
        serve_on_thread("metrics", listeners.metrics, move |_| endpoint.clone(), config, end)
    })?;
    let mut working = Working::start(&gateway, &later, &numbers, shutdown.clone(), &chosen)?;
    let service_for = move |peer| gateway.service(peer);
    let mut cores =
        serve_on_cores(listeners.serving, service_for, serving::limits(options), shutdown.clone())
            .context("the gateway cannot be served")?;

    let started = select! {
        started = first_functions::start(&node, &store, files, config.max_module_bytes) => Some(started),
        () = shutdown.cancelled() => None,
    };
    match &started {
        Some(Ok(functions)) => {
            let password_file = options.auth.directory(directory.path()).join(PASSWORD_FILE);
            let login = user.as_deref().map(|user| (user, password_file.as_path()));
            let hints = next_steps(&node, functions, gateway_address, login).await?;
            let ready =
                format!("fawn ready gateway=http://{gateway_address} metrics=http://{metrics_address}");
            serving::say_ready(&hints, &ready);
        }
        Some(Err(_)) => shutdown.cancel(),
        None => {}
    }
    let drained = async { cores.drained().await.context("the gateway cannot be served") };
    select! {
        biased;
        failure = working.failed(&shutdown) => return Err(failure),
        drained = drained => serving::warn_of_cut(drained?),
    }
    working.end(options.grace_period).await?;
    // Guests that go on after their answer do so where they were called, so that ends last.
    serving::shut_down(&node, store, options.grace_period).await?;
    spawn_blocking(|| cores.end()).await?;
    metrics.end().await?;
    started.transpose().map(drop)
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
