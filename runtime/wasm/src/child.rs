//! The compiling process: turns one module into machine code and tries to start it, away from those that serve.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
    time::Duration,
};

use runtime_api::{ArtifactKind, Error, Result};
use runtime_egress::Policy;
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use serde::{Deserialize, Serialize};
use wasmtime::{Module, component::Component};
use wasmtime_wasi::WasiCtxBuilder;

use crate::{
    engine::{Engine, MAX_MEMORY_BYTES, Shape},
    inspect::{World, inspect},
    instance::{Limits, Refused, State, new_store},
};

/// Processor time of one compilation and trial.
const CPU_SECONDS: u64 = 120;

/// Memory that the compiler may write to. The largest honest modules need about 500 MiB.
const DATA_BYTES: u64 = 3 << 30;

/// Time that a module may take to start.
const TRIAL_TIME: Duration = Duration::from_secs(5);

/// What the parent asks for, on standard input.
#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) input: PathBuf,
    pub(crate) output: PathBuf,
    pub(crate) answer: PathBuf,
    pub(crate) shape: Shape,
}

/// What the child found; written to `Job::answer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Compiled(Report),
    Rejected(Rejection),
}

/// What is known of a compiled module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) world: World,
    /// Linear memory that an instance has before it runs, in bytes.
    pub(crate) memory_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rejection {
    pub(crate) code: String,
    pub(crate) message: String,
}

/// Does one compile job, read from `job`, in a process that was started for nothing else.
///
/// The process is limited first: what a hostile module can cost is bounded by the kernel.
///
/// # Errors
/// When the job cannot be read or the answer cannot be written. What is wrong with the module is in the answer.
pub fn compile_child(job: impl Read) -> io::Result<()> {
    limit_process()?;
    let job: Job = serde_json::from_reader(job)?;
    let answer = match compile(&job) {
        Ok(report) => Answer::Compiled(report),
        Err(error) => {
            Answer::Rejected(Rejection { code: error.code().to_owned(), message: with_causes(&error) })
        }
    };
    fs::write(&job.answer, serde_json::to_vec(&answer)?)
}

fn limit_process() -> io::Result<()> {
    for (resource, limit) in [(Resource::Cpu, CPU_SECONDS), (Resource::Data, DATA_BYTES), (Resource::Core, 0)]
    {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    rustix::process::nice(10)?;
    // A node that is killed leaves no compilation behind.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

fn with_causes(error: &Error) -> String {
    match error {
        Error::Internal(source) => source.to_string(),
        other => other.to_string(),
    }
}

fn compile(job: &Job) -> Result<Report> {
    let bytes = fs::read(&job.input).map_err(Error::internal)?;
    let found = inspect(&bytes)?;
    let world = found.world()?;
    let engine = Engine::with_shape(Shape { slots: 1, ..job.shape })?;
    let (code, trial) = match found.kind {
        ArtifactKind::Module => {
            let module = Module::from_binary(engine.wasmtime(), &bytes).map_err(|error| malformed(&error))?;
            (module.serialize(), Trial::Core(module))
        }
        ArtifactKind::Component => {
            let component =
                Component::from_binary(engine.wasmtime(), &bytes).map_err(|error| malformed(&error))?;
            (component.serialize(), Trial::Component(component))
        }
    };
    fs::write(&job.output, code.map_err(crate::engine::boxed)?).map_err(Error::internal)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::internal)?;
    let memory_bytes = runtime.block_on(trial.start(&engine))?;
    Ok(Report { world, memory_bytes })
}

fn malformed(error: &wasmtime::Error) -> Error {
    Error::invalid(
        "malformed-module",
        format!("the module is not valid or uses a feature that is off: {}", one_line(error)),
    )
}

/// An error with its causes, without Wasmtime's line breaks.
fn one_line(error: &wasmtime::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}

enum Trial {
    Core(Module),
    Component(Component),
}

impl Trial {
    /// Instantiates once, and tells how much memory that took.
    async fn start(self, engine: &Engine) -> Result<u64> {
        let limits = Limits { memory_bytes: MAX_MEMORY_BYTES, egress: Policy::none() };
        let mut store = new_store(engine, &limits, WasiCtxBuilder::new());
        let started = tokio::time::timeout(TRIAL_TIME, self.instantiate(engine, &mut store)).await;
        let usage = &store.data().usage;
        match (started, usage.refused) {
            (Ok(Ok(())), _) => Ok(usage.memory_bytes),
            (_, Some(Refused::Limit { wanted_bytes })) => Err(too_large(wanted_bytes, MAX_MEMORY_BYTES)),
            (Ok(Err(error)), _) => Err(Error::invalid(
                "cannot-start",
                format!("the module does not start: {}", one_line(&error)),
            )),
            (Err(_), _) => Err(Error::invalid(
                "init-timeout",
                format!(
                    "the module does not start within {} s: its start function runs on",
                    TRIAL_TIME.as_secs()
                ),
            )),
        }
    }

    async fn instantiate(&self, engine: &Engine, store: &mut wasmtime::Store<State>) -> wasmtime::Result<()> {
        match self {
            Self::Core(module) => engine.core_linker().instantiate_async(store, module).await.map(drop),
            Self::Component(component) => {
                engine.component_linker().instantiate_async(store, component).await.map(drop)
            }
        }
    }
}

/// A module whose memory does not fit.
pub(crate) fn too_large(wanted_bytes: u64, limit_bytes: u64) -> Error {
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    Error::invalid(
        "memory-limit",
        format!(
            "an instance begins with {} MiB of memory, more than its limit of {} MiB; set limits.memory to at least {}Mi",
            mebibytes(wanted_bytes),
            mebibytes(limit_bytes),
            mebibytes(wanted_bytes)
        ),
    )
}
