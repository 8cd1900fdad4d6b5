use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use runtime_api::{Error, Result};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{
    clocks, filesystem,
    instance::State,
    jail::Walls,
    long::LongThreads,
    metrics::Metrics,
    parts::Parts,
    preview1::{self, Process},
    shape::Shape,
    spill::Spill,
};

/// How long a guest runs before it must give others a turn. Bounds how late a deadline is noticed.
const EPOCH: Duration = Duration::from_millis(5);

/// Slots that a node begins with: beyond this, memory and not address space is what runs out.
const DEFAULT_SLOTS: u32 = 1000;

/// The largest memory that any function may ask for. Bulk memory operations are not interrupted, so this
/// bounds how long one may hold a thread.
pub const MAX_MEMORY_BYTES: u64 = 1 << 30;

/// Bytes of output on disk that a node begins with: what a small machine's disk can spare.
const DEFAULT_SPILL_BYTES: u64 = 4 << 30;

/// Calls that may wait for a slot on the whole node; each holds a request in memory.
const MAX_WAITING: usize = 4096;

/// When a caller should try again that found no slot.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What an operator can choose of an [`Engine`].
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Calls that may run at once; fewer where the address space is small.
    pub slots: u32,
    /// Guest memory in use at once on the whole node, in bytes.
    pub memory_budget_bytes: u64,
    /// Where output lies that is too large for memory, in files without a name. It must exist.
    pub spill_directory: PathBuf,
    /// Output on disk at once on the whole node, in bytes.
    pub spill_budget_bytes: u64,
}

impl EngineConfig {
    /// As many slots as make sense, that much guest memory, and an existing directory for large output.
    pub fn new(memory_budget_bytes: u64, spill_directory: PathBuf) -> Self {
        Self {
            slots: DEFAULT_SLOTS,
            memory_budget_bytes,
            spill_directory,
            spill_budget_bytes: DEFAULT_SPILL_BYTES,
        }
    }
}

/// The Wasmtime engine, its pool of slots, and what the node's functions share.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    wasmtime: wasmtime::Engine,
    shape: Shape,
    facts: BTreeMap<String, String>,
    core: wasmtime::Linker<Process>,
    component: wasmtime::component::Linker<State>,
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
    memory: Arc<Budget>,
    spill: Arc<Spill>,
    long_threads: LongThreads,
    metrics: Metrics,
}

impl Engine {
    /// Reserves the pool, as large as the machine's address space allows, and starts the clock that
    /// interrupts guests.
    ///
    /// # Errors
    /// [`Error::Internal`] when not even a small pool can be had.
    pub fn start(config: &EngineConfig) -> Result<Self> {
        let mut refusal = None;
        for shape in Shape::candidates(config.slots) {
            match wasmtime::Engine::new(&shape.wasmtime(config)) {
                Ok(wasmtime) => {
                    if shape.slots < config.slots {
                        tracing::warn!(
                            asked = config.slots,
                            slots = shape.slots,
                            "address space limits the pool"
                        );
                    }
                    let threads = thread::available_parallelism().map_err(Error::internal)?.get();
                    let walls = Walls::probe().map_err(Error::internal)?;
                    walls.warn();
                    let mut facts = shape.facts(config);
                    facts.extend(walls.facts());
                    return Self::with(wasmtime, shape, config, facts, LongThreads::start(threads)?);
                }
                Err(error) => refusal = Some(error),
            }
        }
        let refusal =
            refusal.map_or_else(|| "no slots were asked for".to_owned(), |error| format!("{error:#}"));
        Err(Error::internal(format!(
            "cannot reserve an instance pool: {refusal}; raise the address space limit (ulimit -v)"
        )))
    }

    /// One that compiles for another of this shape, with parts of what was compiled before.
    pub(crate) fn for_compiling(shape: Shape, parallel: bool, parts: Option<Arc<Parts>>) -> Result<Self> {
        // No call is answered there, so there is no output and no long guest.
        let config = EngineConfig::new(u64::MAX, PathBuf::new());
        let mut wasmtime = shape.wasmtime(&config);
        wasmtime.parallel_compilation(parallel);
        if let Some(parts) = parts {
            wasmtime.enable_incremental_compilation(parts).map_err(boxed)?;
        }
        let wasmtime = wasmtime::Engine::new(&wasmtime).map_err(boxed)?;
        Self::with(wasmtime, shape, &config, BTreeMap::new(), LongThreads::start(0)?)
    }

    fn with(
        wasmtime: wasmtime::Engine,
        shape: Shape,
        config: &EngineConfig,
        facts: BTreeMap<String, String>,
        long_threads: LongThreads,
    ) -> Result<Self> {
        let mut core = wasmtime::Linker::new(&wasmtime);
        preview1::link(&mut core).map_err(boxed)?;
        let mut component = wasmtime::component::Linker::new(&wasmtime);
        wasmtime_wasi::p2::add_to_linker_async(&mut component).map_err(boxed)?;
        clocks::link(&mut component).map_err(boxed)?;
        filesystem::link(&mut component).map_err(boxed)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut component).map_err(boxed)?;
        start_clock(&wasmtime)?;
        Ok(Self {
            inner: Arc::new(Inner {
                wasmtime,
                shape,
                facts,
                core,
                component,
                slots: Arc::new(Semaphore::new(shape.slots as usize)),
                waiting: AtomicUsize::new(0),
                memory: Arc::new(Budget::new(config.memory_budget_bytes)),
                spill: Spill::new(config.spill_directory.clone(), config.spill_budget_bytes),
                long_threads,
                metrics: Metrics::new().map_err(Error::internal)?,
            }),
        })
    }

    /// What is measured.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// What was found to suit this machine, and what it can enforce, for operators.
    pub fn facts(&self) -> BTreeMap<String, String> {
        self.inner.facts.clone()
    }

    /// Calls that can run at once.
    pub fn slots(&self) -> u32 {
        self.inner.shape.slots
    }

    /// Calls that run now.
    pub fn slots_in_use(&self) -> u32 {
        self.slots().saturating_sub(u32::try_from(self.inner.slots.available_permits()).unwrap_or(u32::MAX))
    }

    /// Guest memory in use now, in bytes.
    pub fn memory_in_use_bytes(&self) -> u64 {
        self.inner.memory.used()
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner.wasmtime
    }

    pub(crate) fn shape(&self) -> Shape {
        self.inner.shape
    }

    pub(crate) fn core_linker(&self) -> &wasmtime::Linker<Process> {
        &self.inner.core
    }

    pub(crate) fn component_linker(&self) -> &wasmtime::component::Linker<State> {
        &self.inner.component
    }

    pub(crate) fn memory(&self) -> &Arc<Budget> {
        &self.inner.memory
    }

    /// The most that one memory can grow to.
    pub(crate) fn slot_bytes(&self) -> u64 {
        self.inner.shape.largest_memory_bytes()
    }

    pub(crate) fn spill(&self) -> &Arc<Spill> {
        &self.inner.spill
    }

    pub(crate) fn long_threads(&self) -> &LongThreads {
        &self.inner.long_threads
    }

    /// Waits for a slot within the function's own share of them.
    pub(crate) async fn slot(&self, share: &Arc<Semaphore>, deadline: Instant) -> Result<Slot> {
        let inner = &self.inner;
        if let (Ok(share), Ok(slot)) =
            (share.clone().try_acquire_owned(), inner.slots.clone().try_acquire_owned())
        {
            return Ok(Slot { _share: share, _slot: slot });
        }
        let _waiting = Waiting::enter(&inner.waiting)?;
        let _timer = inner.metrics.instance_wait_seconds.start_timer();
        let both = async {
            Some((share.clone().acquire_owned().await.ok()?, inner.slots.clone().acquire_owned().await.ok()?))
        };
        match tokio::time::timeout_at(deadline, both).await {
            Ok(Some((share, slot))) => Ok(Slot { _share: share, _slot: slot }),
            Ok(None) | Err(_) => Err(overloaded("no free instance within the time allowed for the call")),
        }
    }
}

/// Room for one call; given back when dropped.
pub(crate) struct Slot {
    _share: OwnedSemaphorePermit,
    _slot: OwnedSemaphorePermit,
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize) -> Result<Self> {
        let entered = Self(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            return Err(overloaded("too many calls wait for an instance"));
        }
        Ok(entered)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes that may be handed out.
pub(crate) struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    /// What is handed out now, in bytes.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn take(&self, bytes: u64) -> bool {
        let within = |used: u64| used.checked_add(bytes).filter(|total| *total <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

pub(crate) fn overloaded(message: &str) -> Error {
    Error::Overloaded { message: message.into(), retry_after: RETRY_AFTER }
}

pub(crate) fn boxed(error: wasmtime::Error) -> Error {
    Error::Internal(error.into())
}

/// Advances the epoch until the engine is gone.
fn start_clock(engine: &wasmtime::Engine) -> Result<()> {
    let engine = engine.weak();
    let tick = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(EPOCH);
        }
    };
    thread::Builder::new().name("epoch".into()).spawn(tick).map(drop).map_err(Error::internal)
}
