//! The node, with a gateway or apart: here its parts are chosen and joined.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use rand::TryRng;
use runtime_api::VersionInfo;
use runtime_node::{DEPLOY_WAIT, Logs, Node, NodeConfig, NodeParts};
use runtime_oci::{ArtifactStore, Registry};
use runtime_store::{Store, Vault, write_atomically};
use runtime_wasm::{CodeLimits, CompileCommand, Compiler, Engine, EngineConfig};
use rustix::process::{Resource, getrlimit};
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::{compile_module, config::Config, credentials::Credentials, memory};

/// How long modules are kept that no function names: longer than anyone takes between upload and deploy.
const GARBAGE_GRACE: Duration = Duration::from_secs(3600);

/// What kernels grant that nobody has tuned.
const DEFAULT_MAX_MAPPINGS: u64 = 65_530;

/// More modules than most nodes ever call within the idle time.
const MANY_MODULES: u64 = 1000;

/// Joins store, registry and engine, all within the data directory.
pub(crate) fn start(
    config: &Config,
    credentials: Option<Credentials>,
    directory: &Path,
    store: Store,
    metrics: &prometheus::Registry,
) -> Result<Node> {
    let artifacts = ArtifactStore::open(directory, config.max_module_bytes)?;
    let source = Arc::new(Registry::new(config.registries.clone(), artifacts.clone())?);
    let budget = config.memory_budget_bytes.unwrap_or_else(memory::default_budget_bytes);
    let spill = spill_directory(directory).context("the directory for large output cannot be used")?;
    let engine =
        Engine::start(&EngineConfig::new(budget, spill)).map_err(|error| with_cause(error, "the engine"))?;
    info!(details = ?engine.facts(), "engine started");
    let key = key(&directory.join("code.key")).context("the key of the machine code cache cannot be used")?;
    let compiler = Compiler::open(engine.clone(), &directory.join("code"), key, compile_command())
        .map_err(|error| with_cause(error, "the machine code cache"))?
        .with_limits(code_limits(config, engine.slots()));
    let node_config = NodeConfig {
        max_exec_timeout: config.max_exec_timeout,
        egress: config.egress.clone(),
        pull_policy: config.pull_policy,
        deploy_wait: DEPLOY_WAIT,
        garbage_grace: GARBAGE_GRACE,
        disk_budget_bytes: config.disk_budget_bytes,
        basic_auth: credentials.map(Into::into),
        keeps_calls: config.later.is_some(),
        version: version(),
    };
    let id = id(&directory.join("node-id")).context("the node's id cannot be kept")?;
    let logs = Logs::start(&directory.join("logs"), config.log_limits, &id)
        .map_err(|error| with_cause(error, "functions' logs"))?;
    let (compiler, runtime) = (Arc::new(compiler), Handle::current());
    let vault = vault(config, directory, store.clone())?;
    let parts = NodeParts { store, vault, artifacts, source, engine, compiler, logs, runtime };
    Node::start(node_config, parts, metrics).map_err(|error| with_cause(error, "the node"))
}

/// Secrets, under the operator's key or one beside them.
fn vault(config: &Config, directory: &Path, store: Store) -> Result<Vault> {
    let own = directory.join("secrets.key");
    let (vault, file) = match &config.secrets_key_file {
        Some(file) => (Vault::open(store, file)?, file),
        None => (Vault::open_or_make(store, &own, config.secrets_key_lost)?, &own),
    };
    if !config.secrets_key_lost {
        vault.check_key(file)?;
    }
    Ok(vault)
}

/// As much code as memory, mappings and open files have room for.
fn code_limits(config: &Config, slots: u32) -> CodeLimits {
    let memory_bytes = config.code_memory_bytes.unwrap_or_else(memory::default_code_bytes);
    let (mappings, open_files) = (max_mappings(), getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX));
    let (by_mappings, by_files) = CodeLimits::modules_within(mappings, open_files, slots);
    let limits = CodeLimits { memory_bytes, modules: by_mappings.min(by_files), idle: config.code_idle };
    info!(
        modules = limits.modules,
        memory_bytes,
        idle = ?limits.idle,
        mappings,
        open_files,
        "code of functions is kept in memory within limits"
    );
    if limits.modules < MANY_MODULES {
        let raise = if by_mappings < by_files { "sysctl vm.max_map_count" } else { "ulimit -n" };
        warn!(
            modules = limits.modules,
            raise, "a limit of the kernel's bounds how many modules can be in memory"
        );
    }
    limits
}

/// Mappings that the kernel grants a process (Linux, Documentation/admin-guide/sysctl/vm.rst).
fn max_mappings() -> u64 {
    let text = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    text.trim().parse().unwrap_or(DEFAULT_MAX_MAPPINGS)
}

/// What this is a build of.
pub(crate) fn version() -> VersionInfo {
    VersionInfo {
        sha: option_env!("FAWN_COMMIT").unwrap_or("unknown").to_owned(),
        release: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The running binary itself, also after it was replaced on disk, and nothing of our environment.
fn compile_command() -> CompileCommand {
    CompileCommand {
        program: "/proc/self/exe".into(),
        args: vec![compile_module::NAME.into()],
        env: Vec::new(),
    }
}

/// What tells this node's lines in logs from others': eight hexadecimal digits, made once. One that is damaged is made
/// anew.
fn id(path: &Path) -> Result<String> {
    let whole = |id: &str| id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    match fs::read(path) {
        Ok(bytes) => {
            if let Some(id) = String::from_utf8(bytes).ok().filter(|id| whole(id)) {
                return Ok(id);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let id = format!("{:08x}", rand::rngs::SysRng.try_next_u32()?);
    write_atomically(path, id.as_bytes(), 0o600)?;
    Ok(id)
}

/// Where functions' large output lies, without what a node that was killed may have left there.
fn spill_directory(directory: &Path) -> io::Result<PathBuf> {
    let spill = directory.join("spill");
    DirBuilder::new().recursive(true).mode(0o700).create(&spill)?;
    for entry in fs::read_dir(&spill)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(spill)
}

/// The key that proves which machine code this node compiled. A lost one costs compiling again, and nothing else.
fn key(path: &Path) -> Result<[u8; 32]> {
    match fs::read(path) {
        Ok(bytes) => {
            if let Ok(key) = bytes.try_into() {
                return Ok(key);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let mut key = [0; 32];
    rand::rngs::SysRng.try_fill_bytes(&mut key)?;
    write_atomically(path, &key, 0o600)?;
    Ok(key)
}

fn with_cause(error: runtime_api::Error, what: &str) -> anyhow::Error {
    anyhow::Error::new(error).context(format!("{what} cannot be started"))
}
