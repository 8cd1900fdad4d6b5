use std::{
    collections::HashMap,
    ffi::OsString,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use runtime_api::{Artifact, Digest, Error, Result};
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    sync::{OwnedMutexGuard, Semaphore},
};

use crate::{
    cache::{Cache, CheckedCode},
    child::{Answer, DAMAGED, Job, Report, too_large},
    engine::Engine,
    inspect::World,
};

/// Time that one compilation may take; the largest honest modules need half a minute of an idle core.
const COMPILE_TIME: Duration = Duration::from_secs(300);

/// What is kept of a compiling process's standard error, in bytes.
const MAX_LAST_WORDS_BYTES: u64 = 4 << 10;

/// The longest answer of a compiling process that is read, in bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// The command that runs [`compile_child`](crate::compile_child): our own binary, as a rule.
#[derive(Clone, Debug)]
pub struct CompileCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
}

/// Turns modules into machine code, in child processes, once for each digest.
pub struct Compiler {
    engine: Engine,
    cache: Cache,
    command: CompileCommand,
    turn: Semaphore,
    flights: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
    compiled: AtomicU64,
}

/// A module whose machine code lies ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledModule {
    /// The module.
    pub artifact: Artifact,
    /// How it is called.
    pub world: World,
    /// Linear memory that an instance begins with, in bytes.
    pub memory_bytes: u64,
}

impl CompiledModule {
    /// Whether an instance fits a function's memory limit.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names both sizes.
    pub fn check_memory(&self, limit_bytes: u64) -> Result<()> {
        if self.memory_bytes > limit_bytes { Err(too_large(self.memory_bytes, limit_bytes)) } else { Ok(()) }
    }
}

impl Compiler {
    /// Opens the cache of machine code in `directory`; `key` proves what was written there by this node.
    ///
    /// # Errors
    /// [`Error::Internal`] when the directory cannot be used.
    pub fn open(engine: Engine, directory: &Path, key: [u8; 32], command: CompileCommand) -> Result<Self> {
        let cache = Cache::open(directory, key, &engine).map_err(Error::internal)?;
        Ok(Self {
            engine,
            cache,
            command,
            turn: Semaphore::new(1),
            flights: Mutex::new(HashMap::new()),
            compiled: AtomicU64::new(0),
        })
    }

    /// Compilations done since the start.
    pub fn compiled(&self) -> u64 {
        self.compiled.load(Ordering::Relaxed)
    }

    /// Removes machine code older than `grace` of modules that `keep` does not want, by their digests in hexadecimal.
    ///
    /// # Errors
    /// [`Error::Internal`] when a file cannot be removed.
    pub fn retain(&self, keep: impl Fn(&str) -> bool, grace: Duration) -> Result<()> {
        self.cache.retain(keep, grace).map_err(Error::internal)
    }

    /// Makes sure that a module's machine code lies ready, compiling it if it must.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the module cannot run here, with the reason.
    pub async fn compile(self: &Arc<Self>, artifact: &Artifact) -> Result<CompiledModule> {
        let checked = self.checked(artifact).await?;
        let Report { world, memory_bytes } = checked.report;
        Ok(CompiledModule { artifact: artifact.clone(), world, memory_bytes })
    }

    /// As [`Compiler::compile`], with the code opened.
    pub(crate) async fn checked(self: &Arc<Self>, artifact: &Artifact) -> Result<CheckedCode> {
        // Whoever works on the files of a digest is alone, and stays so until the disk is done, also if the caller
        // goes away meanwhile.
        let alone = Arc::new(self.flight(artifact.digest).lock_owned().await);
        if let Some(code) = self.open_checked(artifact.digest, &alone).await? {
            return Ok(code);
        }
        let _turn = self.turn.acquire().await.map_err(Error::internal)?;
        self.run_child(artifact, &alone).await?;
        let code = self.open_checked(artifact.digest, &alone).await?;
        code.ok_or_else(|| Error::internal("machine code vanished as it was written"))
    }

    async fn open_checked(self: &Arc<Self>, digest: Digest, alone: &Alone) -> Result<Option<CheckedCode>> {
        let (compiler, alone) = (self.clone(), alone.clone());
        let open = move || {
            let checked = compiler.cache.open_checked(&digest);
            drop(alone);
            checked
        };
        tokio::task::spawn_blocking(open).await.map_err(Error::internal)?.map_err(Error::internal)
    }

    /// One lock for each digest that is being compiled.
    fn flight(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(&digest).and_then(Weak::upgrade) {
            return flight;
        }
        let flight = Arc::default();
        flights.insert(digest, Arc::downgrade(&flight));
        flight
    }

    async fn run_child(self: &Arc<Self>, artifact: &Artifact, alone: &Alone) -> Result<()> {
        let folder = self.cache.temporary().map_err(Error::internal)?;
        let job = Job {
            input: artifact.path.clone(),
            digest: artifact.digest,
            output: folder.path().join("code"),
            answer: folder.path().join("answer"),
            shape: self.engine.shape(),
        };
        tracing::info!(digest = %artifact.digest, size_bytes = artifact.size_bytes, "compiling");
        let ended = self.spawn(&job).await?;
        self.compiled.fetch_add(1, Ordering::Relaxed);
        let report = match ended.answer(&job.answer)? {
            Answer::Compiled(report) => report,
            Answer::Rejected(rejection) => {
                return Err(Error::Invalid { code: known_code(&rejection.code), message: rejection.message });
            }
            Answer::Failed(reason) => return Err(Error::internal(format!("compiling failed: {reason}"))),
        };
        let (compiler, digest, alone) = (self.clone(), artifact.digest, alone.clone());
        let insert = move || {
            let inserted = compiler.cache.insert(&digest, &job.output, report);
            drop((folder, alone));
            inserted
        };
        tokio::task::spawn_blocking(insert).await.map_err(Error::internal)?.map_err(Error::internal)
    }

    async fn spawn(&self, job: &Job) -> Result<Ended> {
        let mut child = Command::new(&self.command.program)
            .args(&self.command.args)
            .env_clear()
            .envs(self.command.env.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Error::internal(format!("cannot start the compiler process: {error}")))?;
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let mut last_words = Vec::new();
        let run = async {
            if let Some(mut stdin) = stdin {
                stdin.write_all(&serde_json::to_vec(job)?).await?;
            }
            if let Some(stderr) = stderr {
                stderr.take(MAX_LAST_WORDS_BYTES).read_to_end(&mut last_words).await?;
            }
            child.wait().await
        };
        let status = match tokio::time::timeout(COMPILE_TIME, run).await {
            Ok(status) => Some(status.map_err(Error::internal)?),
            Err(_) => None,
        };
        Ok(Ended { status, last_words: String::from_utf8_lossy(&last_words).into_owned() })
    }
}

/// Held by whoever works on the files of one digest.
type Alone = Arc<OwnedMutexGuard<()>>;

/// How a compiling process ended; `None` when its time was over.
struct Ended {
    status: Option<ExitStatus>,
    last_words: String,
}

impl Ended {
    /// What it found, if it came to its end. One that did not is the module's fault where a limit ended it.
    fn answer(&self, path: &Path) -> Result<Answer> {
        let Some(status) = self.status else { return Err(too_costly("it took too long")) };
        if status.success() {
            return read_answer(path).ok_or_else(|| Error::internal("the compiler process left no answer"));
        }
        tracing::warn!(%status, last_words = self.last_words, "a compiler process died");
        let limit = match status.signal().and_then(Signal::from_named_raw) {
            Some(Signal::XCPU | Signal::KILL) => Some("it took too much processor time"),
            Some(Signal::ABORT) => Some("it took too much memory"),
            Some(Signal::XFSZ) => Some("its machine code is too large"),
            _ => None,
        };
        Err(limit.map_or_else(|| Error::internal(format!("the compiler process died: {status}")), too_costly))
    }
}

fn too_costly(why: &str) -> Error {
    Error::invalid("compile-limit", format!("the module cannot be compiled within the limits: {why}"))
}

fn read_answer(path: &Path) -> Option<Answer> {
    let size = fs::metadata(path).ok()?.len();
    if size > MAX_ANSWER_BYTES {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Codes are static, so that they stay a closed set; the child only ever sends ours.
fn known_code(code: &str) -> &'static str {
    const CODES: [&str; 9] = [
        DAMAGED,
        "not-wasm",
        "malformed-module",
        "no-entry-point",
        "unknown-import",
        "cannot-start",
        "init-timeout",
        "memory-limit",
        "compile-limit",
    ];
    CODES.into_iter().find(|known| *known == code).unwrap_or("module-rejected")
}
