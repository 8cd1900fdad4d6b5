use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntGauge,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use runtime_api::{Error, Result};

use crate::node::Inner;

/// Time that a pull takes, in seconds: from a small image nearby to a large one from far away.
const PULL_SECONDS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0];

/// What is counted of pulls.
#[derive(Clone)]
pub(crate) struct Pulls {
    pub(crate) seconds: Histogram,
    pub(crate) failures: IntCounter,
    pub(crate) bytes: IntCounter,
    pub(crate) hits: IntCounter,
}

impl Pulls {
    pub(crate) fn new() -> Result<Self> {
        let counter = |name: &str, help: &str| IntCounter::new(name, help).map_err(Error::internal);
        let seconds = HistogramOpts::new("fawn_pull_seconds", "Time that pulling an image took");
        let seconds = Histogram::with_opts(seconds.buckets(PULL_SECONDS.to_vec()));
        Ok(Self {
            seconds: seconds.map_err(Error::internal)?,
            failures: counter("fawn_pull_failures_total", "Images that could not be had")?,
            bytes: counter("fawn_pull_bytes_total", "Bytes of modules and layers that were pulled")?,
            hits: counter("fawn_pull_cache_hits_total", "Images whose module was at hand already")?,
        })
    }

    /// Counts one image that was asked for, of which so many bytes came.
    pub(crate) fn count(&self, had: bool, pulled_bytes: u64, took: Duration) {
        self.bytes.inc_by(pulled_bytes);
        match (had, pulled_bytes) {
            (false, _) => self.failures.inc(),
            (true, 0) => self.hits.inc(),
            (true, _) => self.seconds.observe(took.as_secs_f64()),
        }
    }
}

/// Reads the node's own numbers when they are asked for, so that counting them costs a call nothing.
struct NodeMetrics {
    node: Weak<Inner>,
    compiles: IntCounter,
    code_loads: IntCounter,
    code_evictions: IntCounter,
    code_modules: IntGauge,
    code_memory: IntGauge,
    functions: IntGauge,
    loaded: IntGauge,
    instances: IntGauge,
    instance_slots: IntGauge,
    guest_memory: IntGauge,
}

pub(crate) fn register(node: &Arc<Inner>, registry: &prometheus::Registry) -> Result<()> {
    let gauge = |name: &str, help: &str| IntGauge::new(name, help).map_err(Error::internal);
    let counter = |name: &str, help: &str| IntCounter::new(name, help).map_err(Error::internal);
    let metrics = NodeMetrics {
        node: Arc::downgrade(node),
        compiles: counter("fawn_compiles_total", "Modules compiled since the start")?,
        code_loads: counter("fawn_code_loads_total", "Modules whose code was loaded, since the start")?,
        code_evictions: counter(
            "fawn_code_evictions_total",
            "Modules whose code had to go before its time for want of room, since the start",
        )?,
        code_modules: gauge("fawn_code_modules", "Modules whose code is in memory")?,
        code_memory: gauge("fawn_code_memory_bytes", "Private memory that loaded code takes, by estimate")?,
        functions: gauge("fawn_functions", "Functions deployed")?,
        loaded: gauge("fawn_functions_loaded", "Functions whose code is in memory")?,
        instances: gauge("fawn_instances", "Instances running now")?,
        instance_slots: gauge("fawn_instance_slots", "Instances that can run at once")?,
        guest_memory: gauge(
            "fawn_guest_memory_bytes",
            "Memory of the instances running now, tables among it",
        )?,
    };
    let (of_engine, pulls) = (node.engine.metrics().clone(), node.pulls.clone());
    let measured: [Box<dyn Collector>; 9] = [
        Box::new(of_engine.compile_seconds),
        Box::new(of_engine.code_cache_hits),
        Box::new(of_engine.code_load_seconds),
        Box::new(of_engine.cold_starts),
        Box::new(of_engine.instance_wait_seconds),
        Box::new(pulls.seconds),
        Box::new(pulls.failures),
        Box::new(pulls.bytes),
        Box::new(pulls.hits),
    ];
    for collector in measured {
        registry.register(collector).map_err(Error::internal)?;
    }
    registry.register(Box::new(metrics)).map_err(Error::internal)
}

impl NodeMetrics {
    fn all(&self) -> [&dyn Collector; 10] {
        [
            &self.compiles,
            &self.code_loads,
            &self.code_evictions,
            &self.code_modules,
            &self.code_memory,
            &self.functions,
            &self.loaded,
            &self.instances,
            &self.instance_slots,
            &self.guest_memory,
        ]
    }

    fn read(&self, node: &Inner) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let functions = node.table.all();
        let loaded =
            functions.iter().filter_map(|entry| entry.pool.as_ref()).filter(|pool| pool.is_loaded()).count();
        let code = node.compiler.code_usage();
        let catch_up = |counter: &IntCounter, now: u64| counter.inc_by(now.saturating_sub(counter.get()));
        catch_up(&self.compiles, node.compiler.compiled());
        catch_up(&self.code_loads, code.loads);
        catch_up(&self.code_evictions, code.evictions);
        self.code_modules.set(number(code.modules));
        self.code_memory.set(number(code.memory_bytes));
        self.functions.set(number(functions.len() as u64));
        self.loaded.set(number(loaded as u64));
        self.instances.set(number(node.engine.slots_in_use().into()));
        self.instance_slots.set(number(node.engine.slots().into()));
        self.guest_memory.set(number(node.engine.memory_in_use_bytes()));
    }
}

impl Collector for NodeMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Some(node) = self.node.upgrade() {
            self.read(&node);
        }
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}
