//! The configuration of `fawn up`: flag, else environment, else file, else default; all mistakes at once.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    thread::available_parallelism,
    time::Duration,
};

use clap::Args;
use runtime_api::{MemoryQuantity, parse_duration};
use runtime_egress::Policy;
use runtime_oci::{PullPolicy, RegistryConfig};
use runtime_process::LogFormat;
use runtime_wasm::CodeLimits;
use serde::Deserialize;

use crate::{
    registry::{RegistrySettings, image_dirs},
    usage::Mistakes,
};

/// Where `OpenFaaS` gateways listen; on this machine only, until somebody says otherwise.
const LISTEN: &str = "127.0.0.1:8080";
/// Where `OpenFaaS` gateways serve their metrics.
const METRICS_LISTEN: &str = "127.0.0.1:8082";
/// Long enough for batch work, and short enough that a forgotten call ends on the day it began.
const MAX_EXEC_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// What service managers and Kubernetes wait by default before they kill.
const GRACE_PERIOD: Duration = Duration::from_secs(30);
/// A thousand large modules with their code.
const DISK_BUDGET_BYTES: u64 = 16 << 30;
/// Quiet libraries, our own life cycle.
const LOG: &str = "info";
/// More threads than any machine has cores only take each other's turns.
const MOST_THREADS: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not zero");
/// A longer time is a mistake in its unit.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// What can be chosen, in each of the three places in the same words. The file is TOML, with these names as keys.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct Settings {
    /// Where the gateway listens; port 0 picks a free one [default: 127.0.0.1:8080]
    #[arg(long, env = "FAWN_LISTEN", value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where metrics are served [default: 127.0.0.1:8082]
    #[arg(long, env = "FAWN_METRICS_LISTEN", value_name = "ADDRESS:PORT")]
    metrics_listen: Option<String>,
    /// Where functions and credentials are kept [default: /var/lib/fawn as root, else ~/.local/share/fawn]
    #[arg(long, env = "FAWN_DATA_DIR", value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Let anyone who reaches the gateway deploy functions
    #[arg(long, env = "FAWN_NO_AUTH", value_parser = truth, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    no_auth: Option<bool>,
    /// Mean --no-auth also where other machines reach the gateway
    #[arg(long, env = "FAWN_NO_AUTH_ANYWHERE", value_parser = truth, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    no_auth_anywhere: Option<bool>,
    #[command(flatten)]
    #[serde(flatten)]
    registry: RegistrySettings,
    /// When registries are asked what a tag means: Always, IfNotPresent or Never [default: Always]
    #[arg(long, env = "FAWN_PULL_POLICY", value_name = "POLICY")]
    pull_policy: Option<String>,
    /// A folder below which deploys may name image layouts, as oci:NAME or oci-archive:NAME; may be repeated
    #[arg(long, env = "FAWN_IMAGE_DIR", value_delimiter = ',', value_name = "FOLDER")]
    image_dir: Vec<PathBuf>,
    /// The largest module that is taken [default: 64Mi]
    #[arg(long, env = "FAWN_MAX_MODULE_SIZE", value_name = "QUANTITY")]
    max_module_size: Option<String>,
    /// The longest that any call may take [default: 15m]
    #[arg(long, env = "FAWN_MAX_EXEC_TIMEOUT", value_name = "DURATION")]
    max_exec_timeout: Option<String>,
    /// How long calls in flight may take to finish on SIGTERM [default: 30s]
    #[arg(long, env = "FAWN_GRACE_PERIOD", value_name = "DURATION")]
    grace_period: Option<String>,
    /// Threads that serve calls [default: one for each core]
    #[arg(long, env = "FAWN_SERVE_THREADS", value_name = "COUNT")]
    serve_threads: Option<usize>,
    /// Guest memory in use at once [default: three quarters of this machine's or this cgroup's]
    #[arg(long, env = "FAWN_MEMORY_BUDGET", value_name = "QUANTITY")]
    memory_budget: Option<String>,
    /// Memory for code of functions [default: an eighth of this machine's or this cgroup's]
    #[arg(long, env = "FAWN_CODE_MEMORY", value_name = "QUANTITY")]
    code_memory: Option<String>,
    /// Disk for modules and their machine code; what no function needs goes when there is more [default: 16Gi]
    #[arg(long, env = "FAWN_DISK_BUDGET", value_name = "QUANTITY")]
    disk_budget: Option<String>,
    /// How long the code of a function that nobody calls stays in memory [default: 10m]
    #[arg(long, env = "FAWN_CODE_IDLE", value_name = "DURATION")]
    code_idle: Option<String>,
    /// Where functions may connect to that have no annotation dev.fawn.egress [default: public]
    #[arg(long, env = "FAWN_EGRESS", value_name = "POLICY")]
    egress: Option<String>,
    /// How log lines look: text or json [default: text]
    #[arg(long, env = "FAWN_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<String>,
    /// What is logged, such as warn or info,runtime_wasm=debug [default: info]
    #[arg(long, env = "FAWN_LOG", value_name = "LEVEL")]
    log: Option<String>,
    /// What the file has that is none of the above.
    #[arg(skip)]
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// The same, checked.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) metrics_listen: SocketAddr,
    pub(crate) data_dir: PathBuf,
    pub(crate) auth: Auth,
    pub(crate) registries: RegistryConfig,
    pub(crate) pull_policy: PullPolicy,
    pub(crate) max_module_bytes: u64,
    pub(crate) max_exec_timeout: Duration,
    pub(crate) grace_period: Duration,
    pub(crate) serve_threads: NonZeroUsize,
    pub(crate) memory_budget_bytes: Option<u64>,
    pub(crate) code_memory_bytes: Option<u64>,
    pub(crate) disk_budget_bytes: u64,
    pub(crate) code_idle: Duration,
    pub(crate) egress: Policy,
    pub(crate) log_format: LogFormat,
    pub(crate) log: String,
}

/// Who may administer.
#[derive(Debug, PartialEq, Eq)]
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
}

/// The environment, as far as it is not read by the command line already.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Reads and checks everything, and starts nothing.
    pub(crate) fn load(
        flags: Settings,
        file: Option<&Path>,
        environment: Environment<'_>,
    ) -> Result<Self, Mistakes> {
        let file = file.map_or_else(|| Ok(Settings::default()), read_file)?;
        let mut mistakes: Vec<String> = file
            .unknown
            .keys()
            .map(|key| format!("the configuration file has {key:?}, which is no setting"))
            .collect();
        let config = flags.or(file).check(environment, &mut mistakes);
        Mistakes::check(mistakes)?;
        Ok(config)
    }
}

fn read_file(path: &Path) -> Result<Settings, Mistakes> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("configuration file {} cannot be read: {error}", path.display()))?;
    let settings = toml::from_str(&text);
    settings.map_err(|error| format!("configuration file {}: {error}", path.display()).into())
}

impl Settings {
    /// What is set here, and the rest from the file.
    fn or(self, file: Self) -> Self {
        Self {
            listen: self.listen.or(file.listen),
            metrics_listen: self.metrics_listen.or(file.metrics_listen),
            data_dir: self.data_dir.or(file.data_dir),
            no_auth: self.no_auth.or(file.no_auth),
            no_auth_anywhere: self.no_auth_anywhere.or(file.no_auth_anywhere),
            registry: self.registry.or(file.registry),
            pull_policy: self.pull_policy.or(file.pull_policy),
            image_dir: if self.image_dir.is_empty() { file.image_dir } else { self.image_dir },
            max_module_size: self.max_module_size.or(file.max_module_size),
            max_exec_timeout: self.max_exec_timeout.or(file.max_exec_timeout),
            grace_period: self.grace_period.or(file.grace_period),
            serve_threads: self.serve_threads.or(file.serve_threads),
            memory_budget: self.memory_budget.or(file.memory_budget),
            code_memory: self.code_memory.or(file.code_memory),
            disk_budget: self.disk_budget.or(file.disk_budget),
            code_idle: self.code_idle.or(file.code_idle),
            egress: self.egress.or(file.egress),
            log_format: self.log_format.or(file.log_format),
            log: self.log.or(file.log),
            unknown: BTreeMap::new(),
        }
    }

    fn check(self, environment: Environment<'_>, mistakes: &mut Vec<String>) -> Config {
        let listen = address("listen", self.listen.as_deref().unwrap_or(LISTEN), mistakes);
        let off = self
            .no_auth
            .or_else(|| openfaas_basic_auth(environment, mistakes).map(|on| !on))
            .unwrap_or(false);
        if off && !listen.ip().is_loopback() && !self.no_auth_anywhere.unwrap_or(false) {
            mistakes.push(format!(
                "--no-auth lets everyone who reaches {listen} run code here: add --no-auth-anywhere if that is meant"
            ));
        }
        let auth = match environment("secret_mount_path") {
            _ if off => Auth::Off,
            Some(path) => Auth::Mounted(path.into()),
            None => Auth::DataDirectory,
        };
        // OpenFaaS has one such limit, and its name says whose time it is.
        let (name, longest) = match self.max_exec_timeout {
            Some(longest) => ("max-exec-timeout", Some(longest)),
            None => ("upstream_timeout", environment("upstream_timeout")),
        };
        Config {
            listen,
            metrics_listen: address(
                "metrics-listen",
                self.metrics_listen.as_deref().unwrap_or(METRICS_LISTEN),
                mistakes,
            ),
            data_dir: self.data_dir.unwrap_or_else(|| default_data_dir(environment)),
            auth,
            registries: RegistryConfig {
                image_dirs: image_dirs(self.image_dir, mistakes),
                ..self.registry.check(mistakes)
            },
            pull_policy: pull_policy(self.pull_policy.as_deref(), mistakes),
            max_module_bytes: quantity("max-module-size", self.max_module_size.as_deref(), mistakes)
                .unwrap_or(runtime_oci::DEFAULT_MAX_MODULE_BYTES),
            max_exec_timeout: duration(name, longest.as_deref(), mistakes).unwrap_or(MAX_EXEC_TIMEOUT),
            grace_period: duration("grace-period", self.grace_period.as_deref(), mistakes)
                .unwrap_or(GRACE_PERIOD),
            serve_threads: serve_threads(self.serve_threads, mistakes),
            memory_budget_bytes: quantity("memory-budget", self.memory_budget.as_deref(), mistakes),
            code_memory_bytes: quantity("code-memory", self.code_memory.as_deref(), mistakes),
            disk_budget_bytes: quantity("disk-budget", self.disk_budget.as_deref(), mistakes)
                .unwrap_or(DISK_BUDGET_BYTES),
            code_idle: duration("code-idle", self.code_idle.as_deref(), mistakes).unwrap_or(CodeLimits::IDLE),
            egress: self.egress.map_or_else(Policy::default, |text| {
                Policy::parse(&text).unwrap_or_else(|error| {
                    mistakes.push(error.to_string());
                    Policy::none()
                })
            }),
            log_format: log_format(self.log_format.as_deref().unwrap_or("text"), mistakes),
            log: self.log.unwrap_or_else(|| LOG.to_owned()),
        }
    }
}

/// The data directory where none is chosen (XDG Base Directory Specification).
pub(crate) fn default_data_dir(environment: Environment<'_>) -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return "/var/lib/fawn".into();
    }
    let absolute = |text: String| Some(PathBuf::from(text)).filter(|path| path.is_absolute());
    let home = || environment("HOME").and_then(absolute).map(|home| home.join(".local/share"));
    environment("XDG_DATA_HOME")
        .and_then(absolute)
        .or_else(home)
        .unwrap_or_else(|| "/var/lib".into())
        .join("fawn")
}

fn address(name: &str, text: &str, mistakes: &mut Vec<String>) -> SocketAddr {
    text.parse().unwrap_or_else(|_| {
        mistakes.push(format!(
            "{name} {text:?} is not an address with a port, such as 127.0.0.1:8080 or 0.0.0.0:8080"
        ));
        SocketAddr::from(([127, 0, 0, 1], 0))
    })
}

fn duration(name: &str, text: Option<&str>, mistakes: &mut Vec<String>) -> Option<Duration> {
    let text = text?;
    let parsed = parse_duration(text).filter(|duration| !duration.is_zero() && *duration <= LONGEST);
    if parsed.is_none() {
        mistakes
            .push(format!("{name} {text:?} is not a time between 1ns and 168h: write it like 30s or 15m"));
    }
    parsed
}

pub(crate) fn quantity(name: &str, text: Option<&str>, mistakes: &mut Vec<String>) -> Option<u64> {
    match MemoryQuantity::parse(name, text?) {
        Ok(MemoryQuantity(0)) => mistakes.push(format!("{name} is nothing: write it like 64Mi")),
        Ok(MemoryQuantity(bytes)) => return Some(bytes),
        Err(error) => mistakes.push(error.to_string()),
    }
    None
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

fn pull_policy(text: Option<&str>, mistakes: &mut Vec<String>) -> PullPolicy {
    let policy = text.map_or(Ok(PullPolicy::default()), str::parse);
    policy.unwrap_or_else(|error| {
        mistakes.push(error.to_string());
        PullPolicy::default()
    })
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

fn openfaas_basic_auth(environment: Environment<'_>, mistakes: &mut Vec<String>) -> Option<bool> {
    let parsed = truth(&environment("basic_auth")?);
    parsed.map_err(|error| mistakes.push(format!("basic_auth {error}"))).ok()
}

fn truth(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

#[cfg(test)]
mod tests;
