use std::{
    collections::HashMap,
    error::Error as _,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use runtime_api::{Artifact, Digest, Error, Result, Stored};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    sync::{OwnedMutexGuard, Semaphore},
    time::Instant,
};

use crate::{
    cache::{Cache, CheckedCode, disk_error, for_want_of_room, free_bytes, is_scarce, open_regular},
    child::{Answer, Job, PartsFiles, Rejection, Report, Told, too_large},
    code::Code,
    ended::{COMPILE_TIME, Ended},
    engine::{Engine, boxed, overloaded},
    failpoint,
    inspect::World,
    loaded::{CodeLimits, CodeUsage, LoadedCode, SharedCode, estimate},
    parts,
    rejected::Rejected,
};

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

/// Turns modules into machine code, in child processes, once for each digest, and loads it.
pub struct Compiler {
    engine: Engine,
    cache: Cache,
    rejected: Rejected,
    command: CompileCommand,
    turn: Semaphore,
    flights: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
    compiled: AtomicU64,
    reused: AtomicU64,
    loaded: LoadedCode,
}

/// What a compilation has from an earlier one, and leaves for a later one.
#[derive(Clone, Copy)]
enum Reuse {
    /// It is alone.
    No,
    /// It is one of many of a function. This is the module that it replaces, if any.
    Of(Option<Digest>),
}

/// A module whose machine code lies ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledModule {
    /// The module.
    pub artifact: Artifact,
    /// How it is called.
    pub world: World,
    /// Linear memory and tables that an instance begins with, in bytes.
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
        let rejected = Rejected::open(&directory.join("rejected"), key, &engine).map_err(Error::internal)?;
        Ok(Self {
            engine,
            cache,
            rejected,
            command,
            turn: Semaphore::new(1),
            flights: Mutex::new(HashMap::new()),
            compiled: AtomicU64::new(0),
            reused: AtomicU64::new(0),
            loaded: LoadedCode::new(CodeLimits::default()),
        })
    }

    /// Chooses how much code may be in memory.
    #[must_use]
    pub fn with_limits(self, limits: CodeLimits) -> Self {
        Self { loaded: LoadedCode::new(limits), ..self }
    }

    /// How much code may be in memory.
    pub fn code_limits(&self) -> &CodeLimits {
        self.loaded.limits()
    }

    /// What code is in memory.
    pub fn code_usage(&self) -> CodeUsage {
        self.loaded.usage()
    }

    /// Drops the code from memory that nobody called for the idle time before `now`. That may take some milliseconds.
    pub fn drop_cold(&self, now: Instant) {
        self.loaded.drop_cold(now);
    }

    /// Compilations done since the start.
    pub fn compiled(&self) -> u64 {
        self.compiled.load(Ordering::Relaxed)
    }

    /// Functions within modules that were not compiled again since the start.
    pub fn reused(&self) -> u64 {
        self.reused.load(Ordering::Relaxed)
    }

    /// Removes what compilations left for later ones. Answers how many bytes that freed.
    ///
    /// # Errors
    /// [`Error::Internal`] when a file cannot be removed.
    pub fn drop_parts(&self) -> Result<u64> {
        self.cache.drop_parts().map_err(Error::internal)
    }

    /// Removes machine code older than `grace` of modules that `keep` does not want, by their digests in hexadecimal, and
    /// forgets what was rejected before that.
    ///
    /// # Errors
    /// [`Error::Internal`] when a file cannot be removed.
    pub fn retain(&self, keep: impl Fn(&str) -> bool, grace: Duration) -> Result<()> {
        self.rejected.forget(grace).map_err(Error::internal)?;
        self.cache.retain(keep, grace).map_err(Error::internal)
    }

    /// What machine code has taken on disk that was written since the start, in bytes, whatever became of it.
    pub fn written_bytes(&self) -> u64 {
        self.cache.written_bytes()
    }

    /// What machine code takes on disk, by module.
    ///
    /// # Errors
    /// [`Error::Internal`] when the cache cannot be read.
    pub fn stored(&self) -> Result<Vec<Stored>> {
        self.cache.stored().map_err(Error::internal)
    }

    /// Removes the machine code of a module, unless it was compiled or checked within `grace`. Answers how many bytes
    /// that freed.
    ///
    /// # Errors
    /// [`Error::Internal`] when a file cannot be removed.
    pub fn evict(&self, digest: &Digest, grace: Duration) -> Result<u64> {
        self.cache.evict(digest, grace).map_err(Error::internal)
    }

    /// Makes sure that a module's machine code lies ready, compiling it if it must.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the module cannot run here, with the reason; [`Error::StorageFull`] when the disk has no room
    /// for its code.
    pub async fn compile(self: &Arc<Self>, artifact: &Artifact) -> Result<CompiledModule> {
        self.report(artifact, Reuse::No).await
    }

    /// The same for a deploy: of a large module only what differs from the one that it replaces, if that was deployed lately,
    /// is compiled.
    ///
    /// # Errors
    /// Those of [`compile`](Self::compile).
    pub async fn compile_in_place_of(
        self: &Arc<Self>,
        replaced: Option<Digest>,
        artifact: &Artifact,
    ) -> Result<CompiledModule> {
        self.report(artifact, Reuse::Of(replaced)).await
    }

    async fn report(self: &Arc<Self>, artifact: &Artifact, reuse: Reuse) -> Result<CompiledModule> {
        let alone = self.alone(artifact.digest).await;
        let Report { world, memory_bytes } =
            self.checked(artifact, reuse, alone, |checked| Ok(checked.report)).await?;
        Ok(CompiledModule { artifact: artifact.clone(), world, memory_bytes })
    }

    /// What all functions of a module share.
    pub(crate) fn share(&self, digest: Digest) -> Arc<SharedCode> {
        self.loaded.share(digest)
    }

    /// Loads a module's code, once for all who wait for it.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when the kernel lacks room for it, also after some other code was dropped. Where it must be
    /// compiled again, what [`compile`](Self::compile) answers.
    pub(crate) async fn load(
        self: &Arc<Self>,
        artifact: &Artifact,
        shared: &Arc<SharedCode>,
    ) -> Result<Arc<Code>> {
        match self.try_load(artifact, shared).await {
            Err(error) if is_scarce(&error) => {
                tracing::warn!(digest = %artifact.digest, error = error.source(), "no room to load code: dropping some");
                let compiler = self.clone();
                tokio::task::spawn_blocking(move || compiler.loaded.give_back_some())
                    .await
                    .map_err(Error::internal)?;
            }
            outcome => return outcome,
        }
        self.try_load(artifact, shared).await.map_err(|error| {
            if !is_scarce(&error) {
                return error;
            }
            tracing::error!(digest = %artifact.digest, error = error.source(), "no room to load code");
            overloaded(
                "the node has no room to load the function's code: it is short of open files (ulimit -n), \
                        mappings (sysctl vm.max_map_count) or memory",
            )
        })
    }

    async fn try_load(self: &Arc<Self>, artifact: &Artifact, shared: &Arc<SharedCode>) -> Result<Arc<Code>> {
        let alone = self.alone(artifact.digest).await;
        if let Some(code) = shared.get(Instant::now()) {
            return Ok(code);
        }
        let (compiler, shared) = (self.clone(), shared.clone());
        let load = move |checked: CheckedCode| {
            let file_bytes = checked.size_bytes();
            compiler.loaded.make_room(estimate(file_bytes));
            let code = Arc::new(Code::load(&compiler.engine, &checked).map_err(boxed)?);
            shared.set(code.clone(), file_bytes, Instant::now());
            Ok(code)
        };
        let _timer = self.engine.metrics().code_load_seconds.start_timer();
        self.checked(artifact, Reuse::No, alone, load).await
    }

    /// Opens a module's code, compiling it if it must, and does with it what `work` does, on a thread that may block.
    async fn checked<T: Send + 'static>(
        self: &Arc<Self>,
        artifact: &Artifact,
        reuse: Reuse,
        alone: Alone,
        work: impl Fn(CheckedCode) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        if let Some(done) = self.open_checked(artifact.digest, &alone, work.clone()).await? {
            self.engine.metrics().code_cache_hits.inc();
            return Ok(done);
        }
        self.not_rejected(artifact.digest, &alone).await?;
        let _turn = self.turn.acquire().await.map_err(Error::internal)?;
        if !self.run_child(artifact, reuse, &alone).await? {
            tracing::info!(digest = %artifact.digest, "compiling again, without parts of another module");
            self.run_child(artifact, Reuse::Of(None), &alone).await?;
        }
        let done = self.open_checked(artifact.digest, &alone, work).await?;
        done.ok_or_else(|| Error::internal("machine code vanished as it was written"))
    }

    async fn open_checked<T: Send + 'static>(
        self: &Arc<Self>,
        digest: Digest,
        alone: &Alone,
        work: impl FnOnce(CheckedCode) -> Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let (compiler, alone) = (self.clone(), alone.clone());
        let open = move || {
            let checked = compiler.cache.open_checked(&digest).map_err(Error::internal);
            let done = checked.and_then(|checked| checked.map(work).transpose());
            drop(alone);
            done
        };
        tokio::task::spawn_blocking(open).await.map_err(Error::internal)?
    }

    /// Whoever works on the files of a digest is alone, and stays so until the disk is done, also if the caller goes
    /// away meanwhile.
    async fn alone(&self, digest: Digest) -> Alone {
        Arc::new(self.flight(digest).lock_owned().await)
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

    /// Answers whether the module was compiled: one that was not, with parts of another, deserves a try without.
    async fn run_child(self: &Arc<Self>, artifact: &Artifact, reuse: Reuse, alone: &Alone) -> Result<bool> {
        let folder = self.cache.temporary().map_err(disk_error)?;
        let (folder, parts) = self.parts(folder, artifact, reuse).await?;
        let job = Job {
            input: artifact.path.clone(),
            digest: artifact.digest,
            output: folder.path().join("code"),
            answer: folder.path().join("answer"),
            shape: self.engine.shape(),
            parts,
        };
        tracing::info!(digest = %artifact.digest, size_bytes = artifact.size_bytes, "compiling");
        let timer = self.engine.metrics().compile_seconds.start_timer();
        let ended = self.spawn(&job).await?;
        timer.observe_duration();
        self.compiled.fetch_add(1, Ordering::Relaxed);
        failpoint::passed("child-ended");
        let told = read_answer(&job.answer);
        self.log(&ended, told.as_ref());
        let with_parts = job.parts.as_ref().is_some_and(|parts| parts.earlier.is_some());
        let reused = told.as_ref().and_then(|told| told.reused);
        let parts = job.parts.filter(|_| reused.is_some());
        let report = match ended.answer(told.map(|told| told.answer)) {
            Answer::Compiled(report) => report,
            _ if with_parts => return Ok(false),
            Answer::Rejected { rejection, lasting } => {
                if lasting {
                    self.remember(artifact.digest, rejection.clone(), alone).await?;
                }
                return Err(rejection.into());
            }
            Answer::Failed(reason) => {
                let error = Error::internal(format!("compiling failed: {reason}"));
                return Err(for_want_of_room(folder.path(), error));
            }
        };
        self.reused.fetch_add(reused.unwrap_or_default(), Ordering::Relaxed);
        let (compiler, digest, alone) = (self.clone(), artifact.digest, alone.clone());
        let insert = move || {
            let parts = parts.as_ref().map(|parts| &*parts.output);
            let inserted = compiler.cache.insert(&digest, &job.output, parts, report);
            drop((folder, alone));
            inserted
        };
        let inserted = tokio::task::spawn_blocking(insert).await.map_err(Error::internal)?;
        inserted.map(|()| true).map_err(disk_error)
    }

    /// The files of parts of a module that is large enough, in the folder of its compilation, which stays until they are
    /// there also if the caller goes away.
    async fn parts(
        self: &Arc<Self>,
        folder: TempDir,
        artifact: &Artifact,
        reuse: Reuse,
    ) -> Result<(TempDir, Option<PartsFiles>)> {
        let Reuse::Of(replaced) = reuse else { return Ok((folder, None)) };
        if !parts::are_worth_it(artifact.size_bytes) || !has_room_for_parts(folder.path()) {
            return Ok((folder, None));
        }
        let compiler = self.clone();
        let link = move || {
            let linked =
                replaced.map(|earlier| compiler.cache.link_parts(&earlier, folder.path())).transpose();
            let earlier = linked.unwrap_or_else(|error| {
                tracing::warn!(%error, "parts of machine code cannot be used: compiling takes longer");
                None
            });
            let files = PartsFiles { earlier: earlier.flatten(), output: folder.path().join("new-parts") };
            (folder, Some(files))
        };
        tokio::task::spawn_blocking(link).await.map_err(Error::internal)
    }

    /// What an operator may want to know of a compiling process, however it ended.
    fn log(&self, ended: &Ended, told: Option<&Told>) {
        let last_words = ended.last_words.as_str();
        match ended.status {
            Some(status) if !status.success() => {
                tracing::warn!(%status, last_words, "a compiler process died");
            }
            _ if !last_words.is_empty() => {
                tracing::warn!(last_words, "a compiler process has something to say");
            }
            _ => {}
        }
        let facts = self.engine.facts();
        if let Some(walls) = told.and_then(|told| told.walls.as_ref())
            && walls.facts().iter().any(|(name, walls)| facts.get(name) != Some(walls))
        {
            // Not what was found at the start, and told then.
            walls.warn();
        }
    }

    /// A module that was rejected lately is rejected again without being looked at.
    async fn not_rejected(self: &Arc<Self>, digest: Digest, alone: &Alone) -> Result<()> {
        let (compiler, alone) = (self.clone(), alone.clone());
        let look = move || {
            let rejection = compiler.rejected.get(&digest);
            drop(alone);
            rejection
        };
        let rejection = tokio::task::spawn_blocking(look).await.map_err(Error::internal)?;
        rejection.map_err(Error::internal)?.map_or(Ok(()), |rejection| Err(rejection.into()))
    }

    async fn remember(self: &Arc<Self>, digest: Digest, rejection: Rejection, alone: &Alone) -> Result<()> {
        let (compiler, alone) = (self.clone(), alone.clone());
        let note = move || {
            if let Err(error) = compiler.rejected.insert(&digest, rejection) {
                tracing::warn!(%digest, %error, "that a module is rejected cannot be noted, so it is tried again");
            }
            drop(alone);
        };
        tokio::task::spawn_blocking(note).await.map_err(Error::internal)
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

/// What only saves time must not take the room of what is needed.
fn has_room_for_parts(folder: &Path) -> bool {
    free_bytes(folder).is_ok_and(|free| free > 4 * parts::MOST_BYTES)
}

/// Held by whoever works on the files of one digest.
type Alone = Arc<OwnedMutexGuard<()>>;

fn read_answer(path: &Path) -> Option<Told> {
    let answer = io::Read::take(open_regular(path).ok()?, MAX_ANSWER_BYTES);
    serde_json::from_reader(answer).ok()
}
