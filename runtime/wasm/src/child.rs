//! The compiling process: turns one module into machine code and tries to start it, away from those that serve.

use std::{
    fmt::Display,
    fs::File,
    io::{self, Read, Write},
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use cpu_time::ProcessTime;
use runtime_api::{Digest, Error, Result};
use runtime_egress::Policy;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    code::{Code, Unlinked},
    engine::{Engine, MAX_MEMORY_BYTES},
    failpoint,
    inspect::{World, inspect},
    instance::{Limits, Refused, errno},
    jail::{self, MemoryInUse, Walls},
    parts::Parts,
    scan::scan,
    shape::Shape,
};

/// Time by the clock that a module may take to start.
const TRIAL_SECONDS: u64 = 5;

/// Threads that compile a module at most: with more, what one of them does alone takes the longest.
const MOST_THREADS: usize = 8;

/// Stack of each of them, in bytes: as much as the first thread of a process has, as a rule.
const STACK_BYTES: usize = 8 << 20;

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
    pub(crate) parts: Option<PartsFiles>,
}

/// Where parts of machine code are.
#[derive(Serialize, Deserialize)]
pub(crate) struct PartsFiles {
    /// Those that an earlier compilation left.
    pub(crate) earlier: Option<PathBuf>,
    /// What is to be made for those of this one.
    pub(crate) output: PathBuf,
}

/// What the child has to say; written to `Job::answer`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    /// What shut it in; `None` if it came to nothing before.
    pub(crate) walls: Option<Walls>,
    pub(crate) answer: Answer,
    /// If parts were left: how many were not made but used.
    pub(crate) reused: Option<u64>,
}

/// What the child found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Compiled(Report),
    /// The module is at fault.
    Rejected {
        rejection: Rejection,
        /// Whether it is at fault whenever it is tried.
        lasting: bool,
    },
    /// The machine is.
    Failed(String),
}

/// What is known of a compiled module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) world: World,
    /// Linear memory and tables that an instance has before it runs, in bytes.
    pub(crate) memory_bytes: u64,
}

/// Why a module is rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rejection {
    pub(crate) code: String,
    pub(crate) message: String,
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Self::Invalid { code: known_code(&rejection.code).into(), message: rejection.message }
    }
}

/// Codes are static, so that they stay a closed set; the child only ever sends ours.
fn known_code(code: &str) -> &'static str {
    const CODES: [&str; 10] = [
        DAMAGED,
        "not-wasm",
        "malformed-module",
        "no-entry-point",
        "unknown-import",
        "cannot-start",
        "init-timeout",
        "memory-limit",
        "compile-limit",
        "compiler-crashed",
    ];
    CODES.into_iter().find(|known| *known == code).unwrap_or("module-rejected")
}

/// Does one compile job, read from `job`, in a process that was started for nothing else.
///
/// The process is limited first, and shut in before it looks at the module: what a hostile one can cost and reach is
/// bounded by the kernel.
///
/// # Errors
/// When the job cannot be read or the answer cannot be written. What is wrong with the module is in the answer.
pub fn compile_child(job: impl Read) -> io::Result<()> {
    jail::limit_process()?;
    let job: Job = serde_json::from_reader(job)?;
    let mut file = File::create_new(&job.answer)?;
    failpoint::passed("job-read");
    let told = match Work::begin(&job) {
        Ok(mut work) => {
            let answer = answer(work.finish(job.digest));
            let compiled = matches!(answer, Answer::Compiled(_));
            let reused = if compiled { work.leave_parts() } else { None };
            Told { walls: Some(work.walls), answer, reused }
        }
        Err(error) => Told { walls: None, answer: answer(Err(error.into())), reused: None },
    };
    file.write_all(&serde_json::to_vec(&told)?)?;
    failpoint::passed("answered");
    Ok(())
}

fn answer(outcome: Result<Report, Refusal>) -> Answer {
    match outcome {
        Ok(report) => Answer::Compiled(report),
        Err(Refusal { error: Error::Invalid { code, message }, lasting }) => {
            Answer::Rejected { rejection: Rejection { code: code.into_owned(), message }, lasting }
        }
        Err(Refusal { error: Error::Internal(cause), .. }) => Answer::Failed(cause.to_string()),
        Err(Refusal { error, .. }) => Answer::Failed(error.to_string()),
    }
}

/// Why a job was not done.
struct Refusal {
    error: Error,
    /// Whether that says something of the module, rather than of its file or of how busy the machine is.
    lasting: bool,
}

/// What is wrong with a module whatever the machine does. One may bring the compiler down for reasons of the machine's too.
const LASTING: [&str; 7] = [
    "not-wasm",
    "malformed-module",
    "no-entry-point",
    "unknown-import",
    "cannot-start",
    "memory-limit",
    "compile-limit",
];

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let lasting = LASTING.contains(&error.code());
        Self { error, lasting }
    }
}

/// All that the job needs of the machine, open and ready: from here on nothing else can be opened.
struct Work {
    input: File,
    input_bytes: u64,
    output: File,
    parts: Option<Arc<Parts>>,
    engine: Engine,
    runtime: tokio::runtime::Runtime,
    walls: Walls,
}

impl Work {
    fn begin(job: &Job) -> Result<Self> {
        let memory = MemoryInUse::open().map_err(Error::internal)?;
        let input = File::open(&job.input).map_err(Error::internal)?;
        let input_bytes = input.metadata().map_err(Error::internal)?.len();
        let output = File::create_new(&job.output).map_err(Error::internal)?;
        let cpu_seconds = failpoint::limit(failpoint::CPU_SECONDS, jail::cpu_seconds(input_bytes));
        jail::limit_cpu(cpu_seconds).map_err(Error::internal)?;
        let parts = job.parts.as_ref().and_then(open_parts).map(Arc::new);
        // What a container may use of them is told by files.
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        // Before there is a second thread, which would stay outside.
        let landlock = jail::shut_files();
        let parallel = start_threads(cores.min(MOST_THREADS));
        let engine = Engine::for_compiling(Shape { slots: 1, ..job.shape }, parallel, parts.clone())?;
        // Without sockets: an instance that is tried out may wait for the clock, and for nothing else.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(Error::internal)?;
        memory.limit(MAX_MEMORY_BYTES).map_err(Error::internal)?;
        Ok(Self { input, input_bytes, output, parts, engine, runtime, walls: jail::shut(landlock) })
    }

    fn leave_parts(&self) -> Option<u64> {
        let left = self.parts.as_ref()?.leave();
        left.inspect_err(|error| tell("parts of machine code cannot be left", error)).ok()
    }

    /// A panic is a defect of the compiler that this module brings out.
    fn finish(&mut self, digest: Digest) -> Result<Report, Refusal> {
        catch_unwind(AssertUnwindSafe(|| self.compile(digest)))
            .unwrap_or_else(|_| Err(crashed("it gave up").into()))
    }

    fn compile(&mut self, digest: Digest) -> Result<Report, Refusal> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.input_bytes).map_err(Error::internal)?);
        let mut input = (&mut self.input).take(self.input_bytes);
        input.read_to_end(&mut bytes).map_err(Error::internal)?;
        if Digest(Sha256::digest(&bytes).into()) != digest {
            let message = "the stored module is not what was pulled: its file is damaged; deploy it again";
            return Err(Error::invalid(DAMAGED, message).into());
        }
        failpoint::passed("shut-in");
        let found = inspect(&bytes)?;
        scan(&bytes)?;
        if let Some(Err(error)) = self.parts.as_ref().map(|parts| parts.read()) {
            tell("parts of machine code cannot be read", &error);
        }
        let world = found.world()?;
        let unlinked = Unlinked::compile(&self.engine, found.kind, &bytes)
            .map_err(|error| refusal(&error, malformed))?;
        let code = unlinked.link(&self.engine, world).map_err(|error| refusal(&error, unlinkable))?;
        let machine_code = unlinked.serialize().map_err(crate::engine::boxed)?;
        failpoint::passed("compiled");
        self.output.write_all(&machine_code).map_err(Error::internal)?;
        failpoint::passed("written");
        let memory_bytes = self.runtime.block_on(trial(&self.engine, &code))?;
        Ok(Report { world, memory_bytes })
    }
}

/// Tells the node, which logs what is written there, of what only makes compiling take longer.
fn tell(what: &str, error: &dyn Display) {
    // With nobody to tell, there is nothing to be done about it.
    let _ = writeln!(io::stderr(), "{what}: {error}");
}

fn open_parts(files: &PartsFiles) -> Option<Parts> {
    Parts::open(files.earlier.as_deref(), &files.output)
        .inspect_err(|error| tell("parts of machine code cannot be used", error))
        .ok()
}

/// Starts the threads that compile, for none can be started later. Tells whether they are there.
fn start_threads(number: usize) -> bool {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(number).stack_size(STACK_BYTES);
    pool.build_global().inspect_err(|error| tell("threads that compile cannot be started", error)).is_ok()
}

/// A module that the compiler has no answer to.
pub(crate) fn crashed(how: &str) -> Error {
    Error::invalid(
        "compiler-crashed",
        format!(
            "the compiler does not cope with this module: {how}; build it with another toolchain or other options"
        ),
    )
}

/// A module that takes more than there is for it.
pub(crate) fn too_costly(why: &str) -> Error {
    Error::invalid("compile-limit", format!("the module cannot be compiled within the limits: {why}"))
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

/// What the machine refused, if that is why it failed: memory, descriptors, a call of the kernel.
fn refused_by_the_machine(error: &wasmtime::Error) -> Option<Refusal> {
    let error = match errno(error)? {
        // Of the memory that this process may have, or of the machine's.
        rustix::io::Errno::NOMEM => too_costly("it took too much memory"),
        _ => Error::internal(one_line(error)),
    };
    Some(Refusal { error, lasting: false })
}

/// The machine's doing, or else what `otherwise` makes of it.
fn refusal(error: &wasmtime::Error, otherwise: impl FnOnce(&wasmtime::Error) -> Error) -> Refusal {
    refused_by_the_machine(error).unwrap_or_else(|| otherwise(error).into())
}

/// An error with its causes, without Wasmtime's line breaks.
fn one_line(error: &wasmtime::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Instantiates once, and tells how much memory that took.
async fn trial(engine: &Engine, code: &Code) -> Result<u64, Refusal> {
    let limits = Limits { memory_bytes: MAX_MEMORY_BYTES, egress: Policy::none() };
    let begin = ProcessTime::try_now().map_err(Error::internal)?;
    let time = Duration::from_secs(failpoint::limit(failpoint::TRIAL_SECONDS, TRIAL_SECONDS));
    let (started, usage) = code.try_out(engine, &limits, time).await;
    match (started, usage.refused) {
        (Ok(Ok(())), _) => Ok(usage.memory_bytes),
        (Ok(Err(_)), Some(Refused::Limit { wanted_bytes })) => {
            Err(too_large(wanted_bytes, MAX_MEMORY_BYTES).into())
        }
        (Ok(Err(error)), _) => Err(refusal(&error, |error| {
            Error::invalid("cannot-start", format!("the module does not start: {}", one_line(error)))
        })),
        (Err(_), _) => {
            let message =
                format!("the module does not start within {} s: its start function runs on", time.as_secs());
            // On a busy machine it may have had no chance.
            let lasting = begin.try_elapsed().map_err(Error::internal)? > time / 10 * 9;
            Err(Refusal { error: Error::invalid("init-timeout", message), lasting })
        }
    }
}

/// A module whose memory does not fit.
pub(crate) fn too_large(wanted_bytes: u64, limit_bytes: u64) -> Error {
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    Error::invalid(
        "memory-limit",
        format!(
            "an instance begins with {} MiB of memory and tables, more than its limit of {} MiB; set limits.memory to at least {}Mi",
            mebibytes(wanted_bytes),
            mebibytes(limit_bytes),
            mebibytes(wanted_bytes)
        ),
    )
}
