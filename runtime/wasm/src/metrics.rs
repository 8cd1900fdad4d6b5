use prometheus::{Histogram, HistogramOpts, IntCounter};

/// Time that compiling takes, in seconds: up to what the limits allow.
const COMPILE_SECONDS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
/// Time that loading code takes, in seconds: from a small module's to that of a large one from a slow disk.
const LOAD_SECONDS: [f64; 10] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0];
/// Time that a call waits for an instance, in seconds: up to what most calls may take.
const WAIT_SECONDS: [f64; 9] = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0];

/// What is measured away from the usual path of a call. Whoever has a registry registers the collectors.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Time from the start of a compiling process to its answer.
    pub compile_seconds: Histogram,
    /// Modules whose machine code was at hand when it was asked for, and need not be compiled.
    pub code_cache_hits: IntCounter,
    /// Time to bring a module's code into memory, compiling it included where it has to be.
    pub code_load_seconds: Histogram,
    /// Calls that found their function's code not in memory.
    pub cold_starts: IntCounter,
    /// Time that calls waited for an instance, of those that had to.
    pub instance_wait_seconds: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> prometheus::Result<Self> {
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
        };
        Ok(Self {
            compile_seconds: histogram(
                "fawn_compile_seconds",
                "Time that compiling a module took, with the start of its process",
                &COMPILE_SECONDS,
            )?,
            code_cache_hits: IntCounter::new(
                "fawn_code_cache_hits_total",
                "Modules whose machine code was at hand and need not be compiled",
            )?,
            code_load_seconds: histogram(
                "fawn_code_load_seconds",
                "Time that bringing a module's code into memory took",
                &LOAD_SECONDS,
            )?,
            cold_starts: IntCounter::new(
                "fawn_cold_starts_total",
                "Calls that found their function's code not in memory",
            )?,
            instance_wait_seconds: histogram(
                "fawn_instance_wait_seconds",
                "Time that calls waited for a free instance, of those that had to",
                &WAIT_SECONDS,
            )?,
        })
    }
}
