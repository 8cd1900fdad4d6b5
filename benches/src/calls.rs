//! Warm calls in one process and one thread: gateway, node and guest as `fawn up` joins them, and no sockets.

use std::{
    env,
    ffi::OsString,
    fmt,
    io::{Write, stdout},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use gateway_server::Gateway;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use runtime_api::{FunctionSpec, ModuleCommand, Provider, VersionInfo, full};
use runtime_egress::Policy;
use runtime_node::{DEPLOY_WAIT, LogLimits, Logs, Node, NodeConfig, NodeParts};
use runtime_oci::{ArtifactStore, DEFAULT_MAX_MODULE_BYTES, PullPolicy, Registry, RegistryConfig};
use runtime_store::{Store, Vault};
use runtime_wasm::{CompileCommand, Compiler, Engine, EngineConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    runtime::Handle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::Answer,
    connection::request,
    guests::{Guests, HELLO},
};

/// Slots of the node. Valgrind has little address space to give.
pub(crate) const SLOTS: u32 = 2;

/// Calls before those that are asked for.
const WARM_UP: u32 = 20;

/// What is called.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Component,
    Command,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Component { "component" } else { "command" })
    }
}

/// Makes that many warm calls and prints what the engine found, as JSON. Code is compiled for the processor that
/// `valgrind` imitates, if that is given.
pub(crate) fn make(kind: Kind, count: u32, valgrind: Option<PathBuf>) -> Result<()> {
    // Fails only when one is installed already, and nothing ran before this.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guests = Guests::read(None)?;
    let module = if kind == Kind::Component { guests.hello } else { guests.hello_stdio };
    let engine = runtime.block_on(async {
        let config = EngineConfig { slots: SLOTS, ..EngineConfig::new(1 << 30, folder.path().to_owned()) };
        let engine = Engine::start(&config)?;
        let node = start(folder.path(), engine.clone(), valgrind)?;
        let image = node.store_artifact(full(module), ModuleCommand::default()).await?.image;
        node.deploy(FunctionSpec { service: "hello".into(), image, ..FunctionSpec::default() }).await?;
        let config = gateway_server::Config {
            basic_auth: None,
            version: version(),
            shutdown: CancellationToken::new(),
            control: Handle::current(),
            scale_from_zero: None,
            logs_server: None,
            later: None,
            store: None,
        };
        let gateway = Gateway::new(config, Arc::new(node), &prometheus::Registry::new())?;
        let (mut client, server) = tokio::io::duplex(64 << 10);
        let service = gateway.service(([127, 0, 0, 1], 1).into());
        let serving = tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(server), service));
        for _ in 0..WARM_UP + count {
            call(&mut client).await?;
        }
        serving.abort();
        anyhow::Ok(engine)
    })?;
    Ok(stdout().write_all(&serde_json::to_vec(&engine.facts())?)?)
}

async fn call(client: &mut DuplexStream) -> Result<()> {
    client.write_all(&request("GET", "/function/hello", b"")).await?;
    let mut received = Vec::with_capacity(4096);
    let answer = loop {
        if client.read_buf(&mut received).await? == 0 {
            bail!("the connection was closed");
        }
        if let Some(answer) = Answer::parse(&received)? {
            break answer;
        }
    };
    let body = answer.body(&received)?;
    if answer.status != 200 || body != HELLO.as_bytes() {
        bail!("status {} and {:?}", answer.status, String::from_utf8_lossy(&body));
    }
    Ok(())
}

/// A node as `fawn up` starts it.
fn start(folder: &Path, engine: Engine, valgrind: Option<PathBuf>) -> Result<Node> {
    let store = Store::open(folder)?;
    let artifacts = ArtifactStore::open(folder, DEFAULT_MAX_MODULE_BYTES)?;
    let source = Arc::new(Registry::new(RegistryConfig::default(), artifacts.clone())?);
    let compiler = Compiler::open(engine.clone(), &folder.join("code"), [0; 32], compile_command(valgrind)?)?;
    let config = NodeConfig {
        max_exec_timeout: Duration::from_secs(900),
        egress: Policy::public(),
        pull_policy: PullPolicy::default(),
        deploy_wait: DEPLOY_WAIT,
        garbage_grace: Duration::from_secs(3600),
        disk_budget_bytes: u64::MAX,
        basic_auth: None,
        keeps_calls: true,
        version: version(),
    };
    let (compiler, runtime) = (Arc::new(compiler), Handle::current());
    let logs = Logs::start(&folder.join("logs"), LogLimits::default(), "00000000")?;
    let vault = Vault::open_or_make(store.clone(), &folder.join("secrets.key"), false)?;
    let parts = NodeParts { store, vault, artifacts, source, engine, compiler, logs, runtime };
    Node::start(config, parts, &prometheus::Registry::new()).context("the node cannot be started")
}

/// This program, which is also the compiling process. Valgrind passes its name and place on in variables.
fn compile_command(valgrind: Option<PathBuf>) -> Result<CompileCommand> {
    let (program, own) = (env::current_exe()?, OsString::from("compile-module"));
    let Some(valgrind) = valgrind else {
        return Ok(CompileCommand { program, args: vec![own], env: Vec::new() });
    };
    let args = vec!["--tool=none".into(), "--quiet".into(), program.into(), own];
    let place = env::var_os("VALGRIND_LIB").map(|place| ("VALGRIND_LIB".into(), place));
    Ok(CompileCommand { program: valgrind, args, env: place.into_iter().collect() })
}

fn version() -> VersionInfo {
    VersionInfo { sha: "unknown".into(), release: env!("CARGO_PKG_VERSION").into() }
}
