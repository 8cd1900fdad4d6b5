//! What an instance costs before its first instruction, in a process that does nothing else.

use std::{
    env,
    io::{Write, stdout},
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use runtime_api::{Artifact, ArtifactKind, Digest, FunctionName};
use runtime_egress::Policy;
use runtime_wasm::{
    CompileCommand, Compiler, Engine, EngineConfig, InstancePool, Limits, Settings, StdioSettings,
};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use tokio_util::task::TaskTracker;

use crate::{
    guests::Guests,
    process::minor_faults,
    report::{Table, spread, time},
    statistics::{Figure, median_time},
};

/// What each round found.
#[derive(Serialize, Deserialize)]
pub(crate) struct Rounds {
    p50_micros: Vec<f64>,
    faults: Vec<f64>,
}

pub(crate) struct Instances {
    /// Of a small component, in microseconds.
    pub(crate) time: Figure,
    /// Minor page faults for each.
    pub(crate) faults: Figure,
}

/// Runs [`make`] in a process of its own.
pub(crate) fn measure(rounds: usize, count: u32) -> Result<Instances> {
    let output = Command::new(env::current_exe()?)
        .args(["instances", &rounds.to_string(), &count.to_string()])
        .output()?;
    if !output.status.success() {
        bail!("making instances failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let Rounds { p50_micros, faults } = serde_json::from_slice(&output.stdout)?;
    Ok(Instances { time: Figure::of(p50_micros)?, faults: Figure::of(faults)? })
}

/// Makes and drops instances of a small component, one after another, and prints [`Rounds`].
pub(crate) fn make(rounds: usize, count: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = runtime.block_on(async {
        let pool = pool(folder.path(), &Guests::read(None)?.hello).await?;
        let mut seen = Rounds { p50_micros: Vec::new(), faults: Vec::new() };
        round(&pool, count).await?;
        for _ in 0..rounds {
            let before = minor_faults("thread-self")?;
            let p50 = round(&pool, count).await?;
            seen.faults.push((minor_faults("thread-self")? - before) as f64 / f64::from(count));
            seen.p50_micros.push(p50.as_secs_f64() * 1e6);
        }
        anyhow::Ok(seen)
    })?;
    Ok(stdout().write_all(&serde_json::to_vec(&seen)?)?)
}

async fn round(pool: &InstancePool, count: u32) -> Result<Duration> {
    let mut times = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let begin = Instant::now();
        pool.instantiate().await?;
        times.push(begin.elapsed());
    }
    median_time(times)
}

/// A pool as a node has it, with all that a node begins with.
async fn pool(folder: &Path, module: &[u8]) -> Result<InstancePool> {
    let engine = Engine::start(&EngineConfig::new(1 << 30, folder.to_owned()))?;
    let command =
        CompileCommand { program: env::current_exe()?, args: vec!["compile-module".into()], env: Vec::new() };
    let compiler = Arc::new(Compiler::open(engine.clone(), &folder.join("code"), [0; 32], command)?);
    let path = folder.join("module.wasm");
    std::fs::write(&path, module)?;
    let artifact = Artifact {
        digest: Digest(sha2::Sha256::digest(module).into()),
        size_bytes: module.len() as u64,
        kind: ArtifactKind::sniff(module).context("no module")?,
        args: Vec::new(),
        env: Vec::new(),
        path,
    };
    let module = compiler.compile(&artifact).await?;
    Ok(InstancePool::new(engine, compiler, module, settings()?, TaskTracker::new()))
}

fn settings() -> Result<Settings> {
    Ok(Settings {
        function: FunctionName::parse("hello")?,
        limits: Limits { memory_bytes: 128 << 20, egress: Policy::public() },
        timeout: Duration::from_secs(60),
        max_inflight: 0,
        env: Vec::new(),
        args: Vec::new(),
        secrets: None,
        stdio: StdioSettings {
            combine_output: true,
            cgi_headers: true,
            content_type: None,
            max_output_bytes: 1 << 20,
        },
    })
}

pub(crate) fn table(instances: &Instances) -> Table {
    let mut table = Table::new(
        "An instance of a small component with its store, made and dropped in process",
        ["", "each"],
    );
    table.row(["time, p50".into(), time(instances.time)]);
    table.row(["minor page faults".into(), spread(instances.faults, 3)]);
    table
}
