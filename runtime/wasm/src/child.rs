//! The compiling process: turns one module into machine code and tries to start it, away from those that serve.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
    time::Duration,
};

use runtime_api::{Digest, Error, Result};
use runtime_egress::Policy;
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    code::{Code, Unlinked},
    engine::{Engine, MAX_MEMORY_BYTES},
    inspect::{World, inspect},
    instance::{Limits, Refused},
    shape::Shape,
};

/// Processor time of one compilation and trial.
const CPU_SECONDS: u64 = 120;

/// Memory that the compiler may write to. The largest honest modules need about 500 MiB.
const DATA_BYTES: u64 = 3 << 30;

/// Machine code of one module.
const CODE_BYTES: u64 = 2 << 30;

/// Time that a module may take to start.
const TRIAL_TIME: Duration = Duration::from_secs(5);

/// The code of an error that tells of a module whose file is not what its digest says.
pub const DAMAGED: &str = "damaged-module";

/// What the parent asks for, on standard input.
#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) input: PathBuf,
    pub(crate) digest: Digest,
    pub(crate) output: PathBuf,
    pub(crate) answer: PathBuf,
    pub(crate) shape: Shape,
}

/// What the child found; written to `Job::answer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Compiled(Report),
    /// The module is at fault.
    Rejected(Rejection),
    /// The machine is.
    Failed(String),
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
        Err(Error::Invalid { code, message }) => {
            Answer::Rejected(Rejection { code: code.to_owned(), message })
        }
        Err(Error::Internal(cause)) => Answer::Failed(cause.to_string()),
        Err(error) => Answer::Failed(error.to_string()),
    };
    fs::write(&job.answer, serde_json::to_vec(&answer)?)
}

fn limit_process() -> io::Result<()> {
    let limits = [
        (Resource::Cpu, CPU_SECONDS),
        (Resource::Data, DATA_BYTES),
        (Resource::Fsize, CODE_BYTES),
        (Resource::Core, 0),
    ];
    for (resource, limit) in limits {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    rustix::process::nice(10)?;
    // A node that is killed leaves no compilation behind.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

fn compile(job: &Job) -> Result<Report> {
    let bytes = fs::read(&job.input).map_err(Error::internal)?;
    if Digest(Sha256::digest(&bytes).into()) != job.digest {
        let message = "the stored module is not what was pulled: its file is damaged; deploy it again";
        return Err(Error::invalid(DAMAGED, message));
    }
    let found = inspect(&bytes)?;
    let world = found.world()?;
    let engine = Engine::with_shape(Shape { slots: 1, ..job.shape })?;
    let unlinked = Unlinked::compile(&engine, found.kind, &bytes).map_err(|error| malformed(&error))?;
    let code = unlinked.link(&engine, world).map_err(|error| unlinkable(&error))?;
    fs::write(&job.output, unlinked.serialize().map_err(crate::engine::boxed)?).map_err(Error::internal)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::internal)?;
    let memory_bytes = runtime.block_on(trial(&engine, &code))?;
    Ok(Report { world, memory_bytes })
}

fn unlinkable(error: &wasmtime::Error) -> Error {
    Error::invalid(
        "no-entry-point",
        format!("the module does not fit what this node calls: {}", one_line(error)),
    )
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

/// Instantiates once, and tells how much memory that took.
async fn trial(engine: &Engine, code: &Code) -> Result<u64> {
    let limits = Limits { memory_bytes: MAX_MEMORY_BYTES, egress: Policy::none() };
    let (started, usage) = code.try_out(engine, &limits, TRIAL_TIME).await;
    match (started, usage.refused) {
        (Ok(Ok(())), _) => Ok(usage.memory_bytes),
        (_, Some(Refused::Limit { wanted_bytes })) => Err(too_large(wanted_bytes, MAX_MEMORY_BYTES)),
        (Ok(Err(error)), _) => {
            Err(Error::invalid("cannot-start", format!("the module does not start: {}", one_line(&error))))
        }
        (Err(_), _) => {
            let seconds = TRIAL_TIME.as_secs();
            let message = format!("the module does not start within {seconds} s: its start function runs on");
            Err(Error::invalid("init-timeout", message))
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
