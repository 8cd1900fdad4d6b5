//! Code in memory: loaded by the first call of any function of a module, shared by all of them, dropped when cold.
//!
//! A call reads one pointer and one number here; whoever drops code looks for what was not called lately.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use runtime_api::Digest;
use tokio::time::Instant;

use crate::code::Code;

/// Metadata of the smallest module, and what its calls leave behind in the pool.
const LEAST_BYTES: u64 = 40 << 10;

/// Of a code file, as much is metadata that is unpacked into memory: a twentieth of Python's, a sixtieth of
/// JavaScript's.
const FILE_TO_MEMORY: u64 = 20;

/// Mappings of one module: its code, and read-only data before and behind it; the image of its memory.
const MAPPINGS_OF_A_MODULE: u64 = 4;

/// Mappings of one slot of the pool: for each of two memories the used part, split where the image is, and the rest;
/// a stack and its guard.
const MAPPINGS_OF_A_SLOT: u64 = 10;

/// Mappings of everything else: the binary, threads, the allocator.
const MAPPINGS_OF_A_PROCESS: u64 = 1024;

/// Where room is made, a sixteenth more goes than must, so that not each load looks for the coldest.
const SPARE: u64 = 16;

/// How much code may be in memory, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeLimits {
    /// Private memory that loaded code takes, by estimate, in bytes.
    pub memory_bytes: u64,
    /// Modules: each is an open file and some mappings, and the kernel grants only so many.
    pub modules: u64,
    /// How long code stays that nobody calls.
    pub idle: Duration,
}

impl Default for CodeLimits {
    /// What a small machine has room for.
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, modules: 4096, idle: Self::IDLE }
    }
}

impl CodeLimits {
    /// Loading again takes a millisecond or a few, so nothing is kept long for its own sake.
    pub const IDLE: Duration = Duration::from_secs(600);

    /// Modules that can be loaded beside the pool's own mappings (Linux `vm.max_map_count`), and beside as many
    /// connections (`RLIMIT_NOFILE`). What limits them is the smaller of the two, in this order.
    pub fn modules_within(mappings: u64, open_files: u64, slots: u32) -> (u64, u64) {
        let taken = MAPPINGS_OF_A_PROCESS + MAPPINGS_OF_A_SLOT * u64::from(slots);
        let by_mappings = mappings.saturating_sub(taken) / MAPPINGS_OF_A_MODULE;
        (by_mappings.max(1), (open_files / 2).max(1))
    }
}

/// What code is in memory, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeUsage {
    /// Modules whose code is in memory.
    pub modules: u64,
    /// Private memory that they take, by estimate, in bytes.
    pub memory_bytes: u64,
    /// Loads since the start.
    pub loads: u64,
    /// Modules that had to go before their time, since the start.
    pub evictions: u64,
}

/// All modules that functions run, in memory or not.
pub(crate) struct LoadedCode {
    limits: CodeLimits,
    modules: Mutex<HashMap<Digest, Weak<SharedCode>>>,
    counts: Arc<Counts>,
    evictions_told: AtomicU64,
}

struct Counts {
    origin: Instant,
    modules: AtomicU64,
    memory_bytes: AtomicU64,
    loads: AtomicU64,
    evictions: AtomicU64,
}

impl LoadedCode {
    pub(crate) fn new(limits: CodeLimits) -> Self {
        let counts = Counts {
            origin: Instant::now(),
            modules: AtomicU64::new(0),
            memory_bytes: AtomicU64::new(0),
            loads: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        };
        Self {
            limits,
            modules: Mutex::default(),
            counts: Arc::new(counts),
            evictions_told: AtomicU64::new(0),
        }
    }

    pub(crate) fn limits(&self) -> &CodeLimits {
        &self.limits
    }

    pub(crate) fn usage(&self) -> CodeUsage {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CodeUsage {
            modules: read(&self.counts.modules),
            memory_bytes: read(&self.counts.memory_bytes),
            loads: read(&self.counts.loads),
            evictions: read(&self.counts.evictions),
        }
    }

    /// What all functions of a module share.
    pub(crate) fn share(&self, digest: Digest) -> Arc<SharedCode> {
        let mut modules = self.modules();
        if let Some(shared) = modules.get(&digest).and_then(Weak::upgrade) {
            return shared;
        }
        let shared = Arc::new(SharedCode::new(self.counts.clone()));
        modules.insert(digest, Arc::downgrade(&shared));
        shared
    }

    /// Drops what nobody has called for the idle time, and says if room was short since this was last asked.
    pub(crate) fn drop_cold(&self, now: Instant) {
        self.modules().retain(|_, shared| shared.strong_count() > 0);
        let oldest = self.counts.second(now).saturating_sub(self.limits.idle.as_secs());
        for shared in self.all() {
            if shared.last_used() < oldest {
                shared.clear();
            }
        }
        let usage = self.usage();
        let told = self.evictions_told.swap(usage.evictions, Ordering::Relaxed);
        if usage.evictions > told {
            tracing::warn!(
                evictions = usage.evictions - told,
                modules = usage.modules,
                memory_bytes = usage.memory_bytes,
                limits = ?self.limits,
                "functions that are called now and then do not all fit in memory, and are loaded again and again"
            );
        }
    }

    /// Makes room for one more module of that size, as far as there is something that no call runs.
    pub(crate) fn make_room(&self, memory_bytes: u64) {
        let fits = |spare: u64| {
            let (usage, limits) = (self.usage(), &self.limits);
            usage.modules < limits.modules - limits.modules / spare
                && usage.memory_bytes.saturating_add(memory_bytes)
                    <= limits.memory_bytes - limits.memory_bytes / spare
        };
        if !fits(u64::MAX) {
            self.evict_until(|| fits(SPARE));
        }
    }

    /// Gives some of what the kernel is short of back to it. False if there is nothing that no call runs.
    pub(crate) fn give_back_some(&self) -> bool {
        let before = self.usage().modules;
        let fewer = before - (before / SPARE).max(1).min(before);
        self.evict_until(|| self.usage().modules <= fewer);
        self.usage().modules < before
    }

    /// The coldest first.
    fn evict_until(&self, enough: impl Fn() -> bool) {
        let mut unused: Vec<_> = self.all().into_iter().filter(|shared| shared.is_unused()).collect();
        unused.sort_unstable_by_key(|shared| shared.last_used());
        for shared in unused {
            if enough() {
                break;
            }
            shared.clear();
            self.counts.evictions.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn all(&self) -> Vec<Arc<SharedCode>> {
        self.modules().values().filter_map(Weak::upgrade).collect()
    }

    fn modules(&self) -> MutexGuard<'_, HashMap<Digest, Weak<SharedCode>>> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_secs()
    }
}

/// The code of one module, for all functions that run it.
pub(crate) struct SharedCode {
    code: ArcSwapOption<Code>,
    /// Functions that want it in memory.
    holders: AtomicUsize,
    last_used: AtomicU64,
    memory_bytes: AtomicU64,
    counts: Arc<Counts>,
}

impl SharedCode {
    fn new(counts: Arc<Counts>) -> Self {
        Self {
            code: ArcSwapOption::empty(),
            holders: AtomicUsize::new(0),
            last_used: AtomicU64::new(0),
            memory_bytes: AtomicU64::new(0),
            counts,
        }
    }

    /// The code, if it is in memory; it stays while it is used.
    pub(crate) fn get(&self, now: Instant) -> Option<Arc<Code>> {
        let code = self.code.load_full()?;
        self.touch(now);
        Some(code)
    }

    /// Takes code from a file of that size, unless somebody else did.
    pub(crate) fn set(&self, code: Arc<Code>, file_bytes: u64, now: Instant) {
        let memory_bytes = estimate(file_bytes);
        self.clear();
        self.touch(now);
        self.memory_bytes.store(memory_bytes, Ordering::Relaxed);
        self.counts.modules.fetch_add(1, Ordering::Relaxed);
        self.counts.memory_bytes.fetch_add(memory_bytes, Ordering::Relaxed);
        self.counts.loads.fetch_add(1, Ordering::Relaxed);
        self.code.store(Some(code));
        // The last function that wanted it may have gone to zero replicas meanwhile; whoever loaded it has it.
        if self.holders.load(Ordering::Relaxed) == 0 {
            self.clear();
        }
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.code.load().is_some()
    }

    pub(crate) fn hold(&self) {
        self.holders.fetch_add(1, Ordering::Relaxed);
    }

    /// The last one to let go drops the code. A call that begins just then loads it again.
    pub(crate) fn let_go(&self) {
        if self.holders.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.clear();
        }
    }

    /// Written once a second at most, so that the cores that call a function can all keep it in their caches.
    fn touch(&self, now: Instant) {
        let second = self.counts.second(now);
        if self.last_used() != second {
            self.last_used.store(second, Ordering::Relaxed);
        }
    }

    fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }

    /// Whether it is in memory, and nobody else has it.
    fn is_unused(&self) -> bool {
        self.code.load().as_ref().is_some_and(|code| Arc::strong_count(code) == 1)
    }

    fn clear(&self) {
        if self.code.swap(None).is_some() {
            self.counts.modules.fetch_sub(1, Ordering::Relaxed);
            self.counts.memory_bytes.fetch_sub(self.memory_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

impl Drop for SharedCode {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Private memory of loaded code. Wasmtime does not tell, so this is what measurements came to; the code itself is
/// mapped from its file, and the kernel takes it back when it must.
pub(crate) fn estimate(file_bytes: u64) -> u64 {
    LEAST_BYTES + file_bytes / FILE_TO_MEMORY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_limits_bound_how_many_modules_there_can_be() {
        assert_eq!(CodeLimits::modules_within(65_530, 20_000, 1000), (13_626, 10_000));
        assert_eq!(CodeLimits::modules_within(1024, 1, 1000), (1, 1), "one can always be tried");
    }
}
