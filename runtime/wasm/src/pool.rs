use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use runtime_api::{Error, FunctionName, Invocation, Response, Result, parse_duration};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::task::TaskTracker;

use crate::{
    code::Code,
    compile::{CompiledModule, Compiler},
    engine::{Engine, Slot, boxed},
    function_log::{FunctionLog, LogEvent},
    guest_log::{WithCauses, report},
    http,
    instance::{Limits, Usage},
    loaded::SharedCode,
    preview1::Environment,
    secrets::{Directory, SecretFiles},
    stdio,
};

/// What one function is run with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose calls these are.
    pub function: FunctionName,
    /// What each call may use.
    pub limits: Limits,
    /// The time that a call may take.
    pub timeout: Duration,
    /// Calls in flight at once; 0 means as many as the node's pool allows.
    pub max_inflight: u64,
    /// The whole environment of the guest, but for what describes the request.
    pub env: Vec<(String, String)>,
    /// Arguments of a command, its own name first.
    pub args: Vec<String>,
    /// The secrets that it may read, if any.
    pub secrets: Option<SecretFiles>,
    /// How a command's output becomes a response.
    pub stdio: StdioSettings,
}

/// How a command's output becomes a response (`OpenFaaS` classic-watchdog).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StdioSettings {
    /// `combine_output`: standard error goes into the body too.
    pub combine_output: bool,
    /// `cgi_headers`: the request is described in `Http_…` variables.
    pub cgi_headers: bool,
    /// `content_type`: what the response is, whatever it looks like.
    pub content_type: Option<String>,
    /// The largest output, in bytes.
    pub max_output_bytes: u64,
}

/// A compiled function plus the room to run it: a fresh instance for every call.
pub struct InstancePool {
    engine: Engine,
    compiler: Arc<Compiler>,
    module: CompiledModule,
    pub(crate) settings: Settings,
    pub(crate) environment: Arc<Environment>,
    share: Arc<Semaphore>,
    inflight: AtomicU64,
    memory: Arc<AtomicU64>,
    code: Arc<SharedCode>,
    /// Whether the code is wanted in memory for this function's sake.
    holds_code: AtomicBool,
    tails: TaskTracker,
    log: Option<Arc<FunctionLog>>,
}

impl InstancePool {
    /// A pool with nothing in memory; the first call loads the code. `tails` awaits guests that go on after
    /// their answer is sent.
    pub fn new(
        engine: Engine,
        compiler: Arc<Compiler>,
        module: CompiledModule,
        settings: Settings,
        tails: TaskTracker,
    ) -> Self {
        let code = compiler.share(module.artifact.digest);
        let share = (engine.slots() as usize * 3).div_ceil(4).max(1);
        Self {
            memory: Arc::default(),
            engine,
            compiler,
            module,
            environment: Arc::new(Environment::new(&settings.args, &settings.env)),
            settings,
            share: Arc::new(Semaphore::new(share)),
            inflight: AtomicU64::new(0),
            code,
            holds_code: AtomicBool::new(false),
            tails,
            log: None,
        }
    }

    /// The same, with a log that calls write besides the node's own.
    #[must_use]
    pub fn with_log(mut self, log: Arc<FunctionLog>) -> Self {
        self.log = Some(log);
        self
    }

    pub(crate) fn log(&self) -> Option<&Arc<FunctionLog>> {
        self.log.as_ref()
    }

    /// The module that it runs.
    pub fn module(&self) -> &CompiledModule {
        &self.module
    }

    /// What it is run with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Loads the code, so that the first call need not.
    ///
    /// # Errors
    /// `Overloaded` when there is no room for it, `Internal` when the code cannot be loaded; `StorageFull` when it was lost
    /// and the disk has no room for it.
    pub async fn warm(&self) -> Result<()> {
        self.loaded(Instant::now()).await.map(drop)
    }

    /// Whether the code is in memory.
    pub fn is_loaded(&self) -> bool {
        self.holds_code.load(Ordering::Relaxed) && self.code.is_loaded()
    }

    /// Calls in flight.
    pub fn inflight(&self) -> u64 {
        self.inflight.load(Ordering::Relaxed)
    }

    /// Memory of the calls in flight, tables among it, in bytes.
    pub fn memory_in_use_bytes(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// Drops the code from memory once the calls in flight are done, unless another function wants it there; the next
    /// call loads it again.
    pub fn unload(&self) {
        if self.holds_code.swap(false, Ordering::Relaxed) {
            self.code.let_go();
        }
    }

    /// Calls the function in a fresh instance, with room for `room` calls at once.
    ///
    /// A panic of the host ends this call, and no other.
    ///
    /// # Errors
    /// `TooManyCalls`, `Overloaded`, `TimedOut`, `FunctionFailed`, `Internal`; `StorageFull` as [`warm`](Self::warm).
    pub async fn invoke(self: &Arc<Self>, invocation: Invocation, room: u64) -> Result<Response> {
        let call = AssertUnwindSafe(self.call(invocation, room)).catch_unwind();
        let answer = call.await.unwrap_or_else(|_| Err(panicked()));
        if let (Err(error @ Error::FunctionFailed { .. }), Some(log)) = (&answer, &self.log) {
            log.push(LogEvent::Failed(report(format_args!("{}", WithCauses(error)))));
        }
        answer
    }

    async fn call(self: &Arc<Self>, invocation: Invocation, room: u64) -> Result<Response> {
        let start = Instant::now();
        let limit = self.time_allowed(&invocation);
        let deadline = start + limit;
        let room = self.room(room, deadline).await?;
        let call = Call { pool: self.clone(), start, deadline, limit, room };
        let code = self.code(start, deadline).await?;
        match &*code {
            Code::Http(pre) => http::call(call, pre, invocation).await,
            Code::Command(_) | Code::Core(_) => stdio::call(call, code, invocation).await,
        }
    }

    /// Makes an instance with its store, calls nothing, and drops both: what a call pays before its guest's first
    /// instruction, to be measured.
    ///
    /// # Errors
    /// `Internal` when the code cannot be loaded or there is no room for an instance; else as [`warm`](Self::warm).
    pub async fn instantiate(&self) -> Result<()> {
        let code = self.loaded(Instant::now()).await?;
        let (made, _) = code.try_out(&self.engine, &self.settings.limits, self.settings.timeout).await;
        made.map_err(Error::internal)?.map_err(boxed)
    }

    /// A place in the function's count, at once, and then in the node's.
    pub(crate) async fn room(self: &Arc<Self>, room: u64, deadline: Instant) -> Result<Room> {
        let inflight = Inflight::enter(self.clone(), room)?;
        Ok(Room { _slot: self.engine.slot(&self.share, deadline).await?, inflight })
    }

    /// `X-Timeout` can shorten the time, never lengthen it or switch the limit off.
    fn time_allowed(&self, invocation: &Invocation) -> Duration {
        let header = invocation.request.headers().get("x-timeout").and_then(|value| value.to_str().ok());
        let asked = header.and_then(parse_duration).filter(|asked| !asked.is_zero());
        asked.map_or(self.settings.timeout, |asked| asked.min(self.settings.timeout))
    }

    async fn code(&self, now: Instant, deadline: Instant) -> Result<Arc<Code>> {
        if let Some(code) = self.code_in_memory(now) {
            return Ok(code);
        }
        self.engine.metrics().cold_starts.inc();
        let late = |_| {
            Error::TimedOut("the function's code was not loaded within the time allowed for the call".into())
        };
        tokio::time::timeout_at(deadline, self.loaded(now)).await.map_err(late)?
    }

    async fn loaded(&self, now: Instant) -> Result<Arc<Code>> {
        match self.code_in_memory(now) {
            Some(code) => Ok(code),
            None => self.compiler.load(&self.module.artifact, &self.code).await,
        }
    }

    fn code_in_memory(&self, now: Instant) -> Option<Arc<Code>> {
        self.hold();
        self.code.get(now)
    }

    fn hold(&self) {
        if !self.holds_code.load(Ordering::Relaxed) && !self.holds_code.swap(true, Ordering::Relaxed) {
            self.code.hold();
        }
    }
}

impl Drop for InstancePool {
    fn drop(&mut self) {
        self.unload();
    }
}

/// What a call ends with that runs into a defect of the host, whose message is in the log.
pub(crate) fn panicked() -> Error {
    Error::internal("the host panicked")
}

/// What one call holds while it runs.
pub(crate) struct Call {
    pub(crate) pool: Arc<InstancePool>,
    pub(crate) start: Instant,
    pub(crate) deadline: Instant,
    /// The time between the two.
    pub(crate) limit: Duration,
    pub(crate) room: Room,
}

impl Call {
    pub(crate) fn engine(&self) -> &Engine {
        &self.pool.engine
    }

    /// The secrets that the function may read, as they are now.
    pub(crate) fn secrets(&self) -> Option<Directory> {
        self.pool.settings.secrets.as_ref().map(SecretFiles::open)
    }

    /// Memory of the function's that it may take.
    pub(crate) fn usage(&self) -> Usage {
        let pool = &self.pool;
        Usage::new(&pool.engine, &pool.settings.limits).of(&pool.memory, pool.module.memory_bytes)
    }

    pub(crate) fn tails(&self) -> &TaskTracker {
        &self.pool.tails
    }
}

/// A call's place in the function's and in the node's count; given back when dropped.
pub(crate) struct Room {
    _slot: Slot,
    inflight: Inflight,
}

impl Room {
    pub(crate) fn engine(&self) -> &Engine {
        &self.inflight.0.engine
    }
}

struct Inflight(Arc<InstancePool>);

impl Inflight {
    fn enter(pool: Arc<InstancePool>, room: u64) -> Result<Self> {
        let one_more = |inflight: u64| (inflight < room).then_some(inflight + 1);
        match pool.inflight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Self(pool)),
            Err(_) => Err(Error::TooManyCalls { max_inflight: room }),
        }
    }
}

impl Drop for Inflight {
    fn drop(&mut self) {
        self.0.inflight.fetch_sub(1, Ordering::Relaxed);
    }
}
