use std::sync::{Arc, Weak};

use prometheus::{
    IntCounter, IntGauge,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use runtime_api::{Error, Result};

use crate::node::Inner;

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
        guest_memory: gauge("fawn_guest_memory_bytes", "Linear memory of the instances running now")?,
    };
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
