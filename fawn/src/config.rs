//! The configuration of a node, with a gateway or apart: flag, else environment, else file, else default; all mistakes at once.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Arg, Args, Command};
use gateway_server::FunctionStore;
use runtime_api::{MemoryQuantity, nearest, parse_duration};
use runtime_egress::Policy;
use runtime_node::LogLimits;
use runtime_oci::{PullPolicy, RegistryConfig};
use runtime_wasm::CodeLimits;
use serde::{Deserialize, de::DeserializeOwned};
use toml::de::DeTable;

use crate::{
    later::{LaterConfig, LaterSettings},
    registry::{RegistrySettings, image_dirs},
    serve_settings::{Role, ServeOptions, ServeSettings},
    store_folder,
    usage::Mistakes,
};

/// Long enough for batch work, and short enough that a forgotten call ends on the day it began.
const MAX_EXEC_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// A thousand large modules with their code.
const DISK_BUDGET_BYTES: u64 = 16 << 30;
/// A longer time is a mistake in its unit.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// What can be chosen, in each of the three places in the same words. The file is TOML, with these names as keys.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct Settings {
    #[command(flatten)]
    #[serde(flatten)]
    serve: ServeSettings,
    /// A file of 32 random bytes that secrets are encrypted with [default: secrets.key in the data directory]
    #[arg(long, env = "FAWN_SECRETS_KEY_FILE", value_name = "FILE")]
    secrets_key_file: Option<PathBuf>,
    /// Start although the stored secrets are of another key, which is lost: each has to be given again
    #[arg(long, env = "FAWN_SECRETS_KEY_LOST", value_parser = truth, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    secrets_key_lost: Option<bool>,
    #[command(flatten)]
    #[serde(flatten)]
    registry: RegistrySettings,
    /// When registries are asked what a tag means: Always, IfNotPresent or Never [default: Always]
    #[arg(long, env = "FAWN_PULL_POLICY", value_name = "POLICY")]
    pull_policy: Option<String>,
    /// A folder below which deploys may name image layouts, as oci:NAME or oci-archive:NAME; may be repeated
    #[arg(long, env = "FAWN_IMAGE_DIR", value_delimiter = ',', value_name = "FOLDER")]
    image_dir: Vec<PathBuf>,
    /// A function store to offer: a folder with functions.json and images/, which deploys may name as oci:images:NAME
    #[arg(long, env = "FAWN_STORE", value_name = "FOLDER")]
    store: Option<PathBuf>,
    /// The largest module that is taken [default: 64Mi]
    #[arg(long, env = "FAWN_MAX_MODULE_SIZE", value_name = "QUANTITY")]
    max_module_size: Option<String>,
    /// The longest that any call may take [default: 15m]
    #[arg(long, env = "FAWN_MAX_EXEC_TIMEOUT", value_name = "DURATION")]
    max_exec_timeout: Option<String>,
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
    /// Disk for one function's log; when it is used up, the older half goes [default: 4Mi]
    #[arg(long, env = "FAWN_LOG_BYTES_PER_FUNCTION", value_name = "QUANTITY")]
    log_bytes_per_function: Option<String>,
    /// Disk for all functions' logs; when it is used up, the oldest lines of those that have most go [default: 256Mi]
    #[arg(long, env = "FAWN_LOG_BYTES", value_name = "QUANTITY")]
    log_bytes: Option<String>,
    /// Another server that answers GET /system/logs, which functions' logs are then read from; not for fawn node
    #[arg(long, env = "FAWN_LOGS_PROVIDER_URL", value_name = "URL")]
    logs_provider_url: Option<String>,
    /// Where functions may connect to that have no annotation dev.fawn.egress [default: public]
    #[arg(long, env = "FAWN_EGRESS", value_name = "POLICY")]
    egress: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    later: LaterSettings,
}

/// The same, checked.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) serve: ServeOptions,
    /// Where the operator keeps the key of the secrets; none for one of our own.
    pub(crate) secrets_key_file: Option<PathBuf>,
    /// Whether secrets may be there that it does not read.
    pub(crate) secrets_key_lost: bool,
    pub(crate) registries: RegistryConfig,
    pub(crate) pull_policy: PullPolicy,
    /// None for a node alone, which has a store's images without its list.
    pub(crate) store: Option<FunctionStore>,
    pub(crate) max_module_bytes: u64,
    pub(crate) max_exec_timeout: Duration,
    pub(crate) memory_budget_bytes: Option<u64>,
    pub(crate) code_memory_bytes: Option<u64>,
    pub(crate) disk_budget_bytes: u64,
    pub(crate) code_idle: Duration,
    pub(crate) log_limits: LogLimits,
    pub(crate) logs_server: Option<String>,
    pub(crate) egress: Policy,
    /// None for a node alone.
    pub(crate) later: Option<LaterConfig>,
}

/// The environment, as far as it is not read by the command line already.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Reads and checks everything, and starts nothing.
    pub(crate) fn load(
        role: Role,
        flags: Settings,
        file: Option<&Path>,
        environment: Environment<'_>,
    ) -> Result<Self, Mistakes> {
        let (file, mut mistakes) = file.map_or_else(|| Ok(Default::default()), read_file::<Settings>)?;
        let config = flags.or(file).check(role, environment, &mut mistakes);
        Mistakes::check(mistakes)?;
        Ok(config)
    }
}

/// What a file says, and a mistake for each key that is no setting.
pub(crate) fn read_file<T: DeserializeOwned + Args>(path: &Path) -> Result<(T, Vec<String>), Mistakes> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("configuration file {} cannot be read: {error}", path.display()))?;
    let invalid = |error| format!("configuration file {}: {error}", path.display());
    let settings = toml::from_str(&text).map_err(invalid)?;
    let table = DeTable::parse(&text).map_err(invalid)?;
    Ok((settings, unknown_settings::<T>(table.get_ref(), &text)))
}

/// A setting is called as its flag is.
fn unknown_settings<T: Args>(table: &DeTable<'_>, text: &str) -> Vec<String> {
    let command = T::augment_args(Command::new("settings"));
    let known: Vec<&str> = command.get_arguments().filter_map(Arg::get_long).collect();
    let unknown = table.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
    unknown
        .map(|key| {
            let line = 1 + text.get(..key.span().start).unwrap_or_default().matches('\n').count();
            let (key, known) = (key.get_ref(), known.iter().copied());
            let meant =
                nearest(key, known).map(|meant| format!(": {meant} may be meant")).unwrap_or_default();
            format!("line {line} of the configuration file has {key:?}, which is no setting{meant}")
        })
        .collect()
}

impl Settings {
    /// What is set here, and the rest from the file.
    fn or(self, file: Self) -> Self {
        Self {
            serve: self.serve.or(file.serve),
            secrets_key_file: self.secrets_key_file.or(file.secrets_key_file),
            secrets_key_lost: self.secrets_key_lost.or(file.secrets_key_lost),
            registry: self.registry.or(file.registry),
            pull_policy: self.pull_policy.or(file.pull_policy),
            store: self.store.or(file.store),
            image_dir: if self.image_dir.is_empty() { file.image_dir } else { self.image_dir },
            max_module_size: self.max_module_size.or(file.max_module_size),
            max_exec_timeout: self.max_exec_timeout.or(file.max_exec_timeout),
            memory_budget: self.memory_budget.or(file.memory_budget),
            code_memory: self.code_memory.or(file.code_memory),
            disk_budget: self.disk_budget.or(file.disk_budget),
            code_idle: self.code_idle.or(file.code_idle),
            log_bytes_per_function: self.log_bytes_per_function.or(file.log_bytes_per_function),
            log_bytes: self.log_bytes.or(file.log_bytes),
            logs_provider_url: self.logs_provider_url.or(file.logs_provider_url),
            egress: self.egress.or(file.egress),
            later: self.later.or(file.later),
        }
    }

    fn check(self, role: Role, environment: Environment<'_>, mistakes: &mut Vec<String>) -> Config {
        // OpenFaaS has one such limit, and its name says whose time it is.
        let (name, longest) = match self.max_exec_timeout {
            Some(longest) => ("max-exec-timeout", Some(longest)),
            None => ("upstream_timeout", environment("upstream_timeout")),
        };
        let image_dirs = image_dirs(self.image_dir, mistakes);
        let image_dirs = store_folder::with_images(self.store.as_deref(), image_dirs, mistakes);
        Config {
            serve: self.serve.check(role, environment, mistakes),
            secrets_key_file: self.secrets_key_file,
            secrets_key_lost: self.secrets_key_lost.unwrap_or(false),
            registries: RegistryConfig { image_dirs, ..self.registry.check(mistakes) },
            store: self
                .store
                .filter(|_| !role.is_provider)
                .and_then(|folder| store_folder::open(&folder, mistakes)),
            pull_policy: pull_policy(self.pull_policy.as_deref(), mistakes),
            max_module_bytes: quantity("max-module-size", self.max_module_size.as_deref(), mistakes)
                .unwrap_or(runtime_oci::DEFAULT_MAX_MODULE_BYTES),
            max_exec_timeout: duration(name, longest.as_deref(), mistakes).unwrap_or(MAX_EXEC_TIMEOUT),
            memory_budget_bytes: quantity("memory-budget", self.memory_budget.as_deref(), mistakes),
            code_memory_bytes: quantity("code-memory", self.code_memory.as_deref(), mistakes),
            disk_budget_bytes: quantity("disk-budget", self.disk_budget.as_deref(), mistakes)
                .unwrap_or(DISK_BUDGET_BYTES),
            code_idle: duration("code-idle", self.code_idle.as_deref(), mistakes).unwrap_or(CodeLimits::IDLE),
            log_limits: log_limits(
                self.log_bytes_per_function.as_deref(),
                self.log_bytes.as_deref(),
                mistakes,
            ),
            logs_server: match self.logs_provider_url {
                Some(_) if role.is_provider => {
                    mistakes.push(
                        "logs-provider-url is for what users talk to: give it to `fawn gateway`".into(),
                    );
                    None
                }
                None if role.is_provider => None,
                url => logs_server(url.or_else(|| environment("logs_provider_url")), mistakes),
            },
            later: self.later.check(role, mistakes),
            egress: self.egress.map_or_else(Policy::default, |text| {
                Policy::parse(&text).unwrap_or_else(|error| {
                    mistakes.push(error.to_string());
                    Policy::none()
                })
            }),
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

pub(crate) fn duration(name: &str, text: Option<&str>, mistakes: &mut Vec<String>) -> Option<Duration> {
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

/// Less than a function can do with is a mistake, and so is less for all than for one.
fn log_limits(one: Option<&str>, all: Option<&str>, mistakes: &mut Vec<String>) -> LogLimits {
    let defaults = LogLimits::default();
    let function_bytes = quantity("log-bytes-per-function", one, mistakes).unwrap_or(defaults.function_bytes);
    let total_bytes = quantity("log-bytes", all, mistakes).unwrap_or(defaults.total_bytes);
    if function_bytes < LogLimits::MIN_FUNCTION_BYTES {
        mistakes.push(format!(
            "log-bytes-per-function is too little: a log takes at least {}Ki",
            LogLimits::MIN_FUNCTION_BYTES >> 10
        ));
    }
    if total_bytes < function_bytes {
        mistakes.push(format!(
            "log-bytes, {total_bytes} bytes for all functions, is less than one function may have ({function_bytes}): \
             raise it, or lower log-bytes-per-function"
        ));
    }
    LogLimits { function_bytes, total_bytes }
}

pub(crate) fn logs_server(url: Option<String>, mistakes: &mut Vec<String>) -> Option<String> {
    let url = url?;
    let parsed = reqwest::Url::parse(&url).ok();
    let good = parsed.is_some_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    if !good {
        // Not the URL itself, which may hold a password.
        mistakes.push(
            "logs-provider-url is no address of a server: write it like http://loki-provider:8080".into(),
        );
    }
    Some(url)
}

fn pull_policy(text: Option<&str>, mistakes: &mut Vec<String>) -> PullPolicy {
    let policy = text.map_or(Ok(PullPolicy::default()), str::parse);
    policy.unwrap_or_else(|error| {
        mistakes.push(error.to_string());
        PullPolicy::default()
    })
}

pub(crate) fn truth(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

#[cfg(test)]
mod tests;
