//! What every server of ours can be told, whatever it serves.

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    thread::available_parallelism,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use runtime_process::LogFormat;
use serde::Deserialize;

use crate::{
    config::{Environment, default_data_dir, duration, truth},
    credentials::Credentials,
};

/// What service managers and Kubernetes wait by default before they kill.
const GRACE_PERIOD: Duration = Duration::from_secs(30);
/// Quiet libraries, our own life cycle.
const LOG: &str = "info";
/// More threads than any machine has cores only take each other's turns.
const MOST_THREADS: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not zero");

/// Where a server listens, until somebody says otherwise: on this machine only, at the ports of `OpenFaaS`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Role {
    listen: &'static str,
    metrics_listen: &'static str,
    /// Whether gateways ask it. Then the variable `port` says where it listens, for other machines too (`OpenFaaS`).
    pub(crate) is_provider: bool,
}

impl Role {
    /// What users talk to.
    pub(crate) const GATEWAY: Self =
        Self { listen: "127.0.0.1:8080", metrics_listen: "127.0.0.1:8082", is_provider: false };
    /// What gateways talk to. `OpenFaaS` has no port for such metrics, so that the next one is ours.
    pub(crate) const NODE: Self =
        Self { listen: "127.0.0.1:8081", metrics_listen: "127.0.0.1:8083", is_provider: true };
}

/// What can be chosen, in the words of flags and files.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct ServeSettings {
    /// Where it listens; port 0 picks a free one [default: 127.0.0.1:8080; fawn node: 127.0.0.1:8081]
    #[arg(long, env = "FAWN_LISTEN", value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where metrics are served [default: 127.0.0.1:8082; fawn node: 127.0.0.1:8083]
    #[arg(long, env = "FAWN_METRICS_LISTEN", value_name = "ADDRESS:PORT")]
    metrics_listen: Option<String>,
    /// Where functions and credentials are kept [default: /var/lib/fawn as root, else ~/.local/share/fawn]
    #[arg(long, env = "FAWN_DATA_DIR", value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Files basic-auth-user and basic-auth-password that somebody else wrote [default: those in the data directory]
    #[arg(long, env = "FAWN_CREDENTIALS", value_name = "FOLDER")]
    credentials: Option<PathBuf>,
    /// Ask nobody for credentials: whoever reaches it may deploy functions
    #[arg(long, env = "FAWN_NO_AUTH", value_parser = truth, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    no_auth: Option<bool>,
    /// Mean --no-auth also where other machines reach it
    #[arg(long, env = "FAWN_NO_AUTH_ANYWHERE", value_parser = truth, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    no_auth_anywhere: Option<bool>,
    /// How long calls in flight may take to finish on SIGTERM [default: 30s]
    #[arg(long, env = "FAWN_GRACE_PERIOD", value_name = "DURATION")]
    grace_period: Option<String>,
    /// Threads that serve calls [default: one for each core]
    #[arg(long, env = "FAWN_SERVE_THREADS", value_name = "COUNT")]
    serve_threads: Option<usize>,
    /// How log lines look: text or json [default: text]
    #[arg(long, env = "FAWN_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<String>,
    /// What is logged, such as warn or info,runtime_wasm=debug [default: info]
    #[arg(long, env = "FAWN_LOG", value_name = "LEVEL")]
    log: Option<String>,
}

/// The same, checked.
#[derive(Debug)]
pub(crate) struct ServeOptions {
    pub(crate) listen: SocketAddr,
    pub(crate) metrics_listen: SocketAddr,
    pub(crate) data_dir: PathBuf,
    pub(crate) auth: Auth,
    pub(crate) grace_period: Duration,
    pub(crate) serve_threads: NonZeroUsize,
    pub(crate) log_format: LogFormat,
    pub(crate) log: String,
}

/// Who may administer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Auth {
    /// Whoever knows the password in the data directory.
    DataDirectory,
    /// Whoever knows the password in this directory, which somebody else fills.
    Mounted(PathBuf),
    /// Anyone.
    Off,
}

impl Auth {
    /// Where its files are.
    pub(crate) fn directory<'a>(&'a self, data_directory: &'a Path) -> &'a Path {
        match self {
            Self::Mounted(directory) => directory,
            Self::DataDirectory | Self::Off => data_directory,
        }
    }

    /// What is asked for, made where nobody did so yet; none lets anyone in.
    pub(crate) fn read_or_make(&self, data_directory: &Path) -> Result<Option<Credentials>> {
        match self {
            Self::DataDirectory => Credentials::read_or_make(data_directory).map(Some),
            Self::Mounted(_) | Self::Off => self.read(data_directory),
        }
    }

    /// What is asked for, by who does not own the data directory.
    pub(crate) fn read(&self, data_directory: &Path) -> Result<Option<Credentials>> {
        match self {
            Self::DataDirectory => Credentials::read(data_directory).map(Some).context(
                "there are no credentials: start `fawn node` on this machine first, or give those of the node with --credentials FOLDER",
            ),
            Self::Mounted(directory) => Credentials::read(directory).map(Some),
            Self::Off => Ok(None),
        }
    }
}

impl ServeSettings {
    /// What is set here, and the rest from the file.
    pub(crate) fn or(self, file: Self) -> Self {
        Self {
            listen: self.listen.or(file.listen),
            metrics_listen: self.metrics_listen.or(file.metrics_listen),
            data_dir: self.data_dir.or(file.data_dir),
            credentials: self.credentials.or(file.credentials),
            no_auth: self.no_auth.or(file.no_auth),
            no_auth_anywhere: self.no_auth_anywhere.or(file.no_auth_anywhere),
            grace_period: self.grace_period.or(file.grace_period),
            serve_threads: self.serve_threads.or(file.serve_threads),
            log_format: self.log_format.or(file.log_format),
            log: self.log.or(file.log),
        }
    }

    pub(crate) fn check(
        self,
        role: Role,
        environment: Environment<'_>,
        mistakes: &mut Vec<String>,
    ) -> ServeOptions {
        let listen = listen(self.listen, role, environment, mistakes);
        let off = self
            .no_auth
            .or_else(|| openfaas_truth("basic_auth", environment, mistakes).map(|on| !on))
            .unwrap_or(false);
        if off && !listen.ip().is_loopback() && !self.no_auth_anywhere.unwrap_or(false) {
            mistakes.push(format!(
                "--no-auth lets everyone who reaches {listen} run code here: add --no-auth-anywhere if that is meant"
            ));
        }
        let mounted = self.credentials.or_else(|| environment("secret_mount_path").map(PathBuf::from));
        let auth = match mounted {
            _ if off => Auth::Off,
            Some(directory) => Auth::Mounted(directory),
            None => Auth::DataDirectory,
        };
        let metrics_listen = self.metrics_listen.as_deref().unwrap_or(role.metrics_listen);
        ServeOptions {
            listen,
            metrics_listen: address("metrics-listen", metrics_listen, mistakes),
            data_dir: self.data_dir.unwrap_or_else(|| default_data_dir(environment)),
            auth,
            grace_period: duration("grace-period", self.grace_period.as_deref(), mistakes)
                .unwrap_or(GRACE_PERIOD),
            serve_threads: serve_threads(self.serve_threads, mistakes),
            log_format: log_format(self.log_format.as_deref().unwrap_or("text"), mistakes),
            log: self.log.unwrap_or_else(|| LOG.to_owned()),
        }
    }
}

fn listen(
    chosen: Option<String>,
    role: Role,
    environment: Environment<'_>,
    mistakes: &mut Vec<String>,
) -> SocketAddr {
    let port = || environment("port").filter(|_| role.is_provider);
    match chosen {
        Some(chosen) => address("listen", &chosen, mistakes),
        None => match port() {
            Some(port) => address("port", &format!("0.0.0.0:{port}"), mistakes),
            None => address("listen", role.listen, mistakes),
        },
    }
}

fn address(name: &str, text: &str, mistakes: &mut Vec<String>) -> SocketAddr {
    text.parse().unwrap_or_else(|_| {
        mistakes.push(format!(
            "{name} {text:?} is not an IP address with a port, such as 127.0.0.1:8080, [::1]:8080 or 0.0.0.0:8080; \
             names are not looked up"
        ));
        SocketAddr::from(([127, 0, 0, 1], 0))
    })
}

fn serve_threads(count: Option<usize>, mistakes: &mut Vec<String>) -> NonZeroUsize {
    match count.map(NonZeroUsize::new) {
        Some(Some(count)) if count <= MOST_THREADS => return count,
        Some(_) => mistakes.push(format!(
            "serve-threads is none or more than {MOST_THREADS}: leave it out to have one for each core"
        )),
        None => {}
    }
    // Where the number of cores cannot be told, there is one for certain.
    available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn log_format(text: &str, mistakes: &mut Vec<String>) -> LogFormat {
    match text {
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        _ => {
            mistakes.push(format!("log-format {text:?} is neither text nor json"));
            LogFormat::Text
        }
    }
}

/// A switch that `OpenFaaS` names.
pub(crate) fn openfaas_truth(
    name: &str,
    environment: Environment<'_>,
    mistakes: &mut Vec<String>,
) -> Option<bool> {
    let parsed = truth(&environment(name)?);
    parsed.map_err(|error| mistakes.push(format!("{name} {error}"))).ok()
}
