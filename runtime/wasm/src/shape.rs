//! What the engine reserves: how many slots, how large, and how a slot becomes fresh again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wasmtime::{InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::engine::{EngineConfig, MAX_MEMORY_BYTES};

/// Address space of one memory that lets compiled code do without bounds checks: all that 32 bits can name.
const FULL_RESERVATION: u64 = 4 << 30;

/// Fewer slots than this are not worth code without bounds checks.
const FEWEST_FULL_SLOTS: u32 = 32;

/// Elements of a table; large enough for Python and Go guests.
const TABLE_ELEMENTS: usize = 100_000;

/// Core instances of one component: componentize-py's has one for each of Python's libraries, 14 in all. They are only
/// counted, so that room for them costs nothing.
const CORE_INSTANCES: u32 = 64;

/// Tables of one instance, so that no function can take those of others.
const TABLES: u32 = 4;

/// Bytes of a table that are written over.
const TABLE_RESIDENT_BYTES: usize = 64 << 10;

/// Idle slots for each core that are left to the function they served last, while there are slots that nobody used yet.
/// With more, functions that are called now and then hold memory while they sleep.
const WARM_SLOTS: u32 = 8;

const PAGE_BYTES: u64 = 4096;

/// Bytes of a memory that are written over when an instance is gone. What lies beyond is given back to the kernel, but
/// this costs a small function neither a system call nor a page fault.
///
/// Asking the kernel which pages were written (Linux `PAGEMAP_SCAN`) would be faster for large functions, but Wasmtime
/// takes a page that the kernel is just moving, as it does to defragment memory, for one that was not written.
const RESIDENT_BYTES: u64 = 128 << 10;

/// What compiled code depends on besides Wasmtime's version. The compiling process is told, so that both agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    pub(crate) slots: u32,
    pub(crate) reservation_bytes: u64,
}

impl Shape {
    /// Pools to try, the best first: fewer slots, then memories with bounds checks.
    pub(crate) fn candidates(slots: u32) -> impl Iterator<Item = Self> {
        let halves = |slots: u32| std::iter::successors(Some(slots), |n| Some(n / 2)).take_while(|n| *n > 0);
        let full = halves(slots).take_while(move |n| *n >= FEWEST_FULL_SLOTS.min(slots));
        let small =
            halves(slots.min(256)).map(|slots| Self { slots, reservation_bytes: MAX_MEMORY_BYTES / 4 });
        full.map(|slots| Self { slots, reservation_bytes: FULL_RESERVATION }).chain(small)
    }

    /// Memories that there are; a component may have several.
    fn memories(self) -> u32 {
        self.slots.saturating_mul(2)
    }

    /// The most that one memory can grow to.
    pub(crate) fn largest_memory_bytes(self) -> u64 {
        self.reservation_bytes.min(MAX_MEMORY_BYTES)
    }

    /// Whether compiled code checks each access to memory.
    pub(crate) fn checks_bounds(self) -> bool {
        self.reservation_bytes < FULL_RESERVATION
    }

    /// What a memory may keep resident: all of them together no more than a quarter of what guests may use. Tables
    /// come on top, with what they hold.
    pub(crate) fn resident_bytes(self, config: &EngineConfig) -> u64 {
        let share = config.memory_budget_bytes / 4 / u64::from(self.memories().max(1));
        share.min(RESIDENT_BYTES) / PAGE_BYTES * PAGE_BYTES
    }

    /// What an operator may want to know of it.
    pub(crate) fn facts(self, config: &EngineConfig) -> BTreeMap<String, String> {
        let facts = [
            ("instanceSlots", self.slots.to_string()),
            ("boundsChecks", self.checks_bounds().to_string()),
            ("guestMemoryBytes", config.memory_budget_bytes.to_string()),
            ("residentBytesPerSlot", self.resident_bytes(config).to_string()),
        ];
        facts.map(|(name, value)| (name.to_owned(), value)).into()
    }

    pub(crate) fn wasmtime(self, config: &EngineConfig) -> wasmtime::Config {
        let slots = self.slots;
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(slots)
            .total_core_instances(slots.saturating_mul(CORE_INSTANCES))
            .max_core_instances_per_component(CORE_INSTANCES)
            .total_memories(self.memories())
            .total_tables(slots.saturating_mul(TABLES))
            .max_tables_per_component(TABLES)
            .total_stacks(slots)
            .max_memory_size(bytes(self.largest_memory_bytes()))
            .max_component_instance_size(1 << 20)
            .max_core_instance_size(1 << 20)
            .max_tables_per_module(TABLES)
            .table_elements(TABLE_ELEMENTS)
            .linear_memory_keep_resident(bytes(self.resident_bytes(config)))
            .table_keep_resident(TABLE_RESIDENT_BYTES)
            .max_unused_warm_slots(warm_slots().min(slots));
        let mut wasmtime = wasmtime::Config::new();
        wasmtime
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
            .memory_reservation(self.reservation_bytes)
            .memory_may_move(false)
            .epoch_interruption(true)
            .concurrency_support(false)
            .wasm_memory64(false)
            // Nothing but Wasmtime looks into the stacks of guests, and Wasmtime does not need these.
            .native_unwind_info(false)
            .generate_address_map(false)
            .async_stack_size(1 << 20)
            .wasm_backtrace_details(WasmBacktraceDetails::Disable)
            .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(20));
        wasmtime
    }
}

/// The pool shares its slots out among the cores.
fn warm_slots() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    WARM_SLOTS.saturating_mul(u32::try_from(cores).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn little_memory_keeps_little_resident() {
        let shape = Shape { slots: 1000, reservation_bytes: FULL_RESERVATION };
        let resident = |budget| shape.resident_bytes(&EngineConfig::new(budget, PathBuf::new()));
        assert_eq!(resident(16 << 30), 128 << 10);
        assert_eq!(resident(256 << 20), 32 << 10);
        assert_eq!(resident(1 << 20), 0);
    }

    #[test]
    fn the_best_pool_comes_first_and_the_last_has_one_slot() {
        let all: Vec<_> = Shape::candidates(1000).collect();
        assert_eq!(all.first().map(|shape| (shape.slots, shape.checks_bounds())), Some((1000, false)));
        assert_eq!(all.last().map(|shape| (shape.slots, shape.checks_bounds())), Some((1, true)));
    }
}
