use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use http::StatusCode;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, Result,
    core::Collector,
};
use runtime_api::{FunctionName, FunctionStatus};

/// The code of a call whose client went away before it was answered (nginx).
const CLIENT_GONE: u16 = 499;

/// Stands for every code without a name: functions choose codes freely, and each one is a dozen series.
const OTHER: u16 = 0;

/// The series of `OpenFaaS` gateways.
///
/// A function has series once it is known to exist: because it is listed, or because a call of it got past the
/// provider's lookup, or succeeded where others than ours do not tell. Its first call is therefore counted as started when
/// it is answered, every other one when it starts, and no made-up name is ever counted.
///
/// Whoever is refused for want of credentials does not call the function. So where one asks for some, calls are counted as
/// started when they are answered; the refusal that tells so first is counted, since its start was.
pub(crate) struct Metrics {
    seconds: HistogramVec,
    completed: IntCounterVec,
    started: IntCounterVec,
    replicas: IntGaugeVec,
    functions: RwLock<HashMap<FunctionName, Arc<Series>>>,
}

/// The series of one function.
struct Series {
    started: IntCounter,
    /// Whether the function asks its callers for credentials.
    asks: AtomicBool,
    by_code: RwLock<BTreeMap<u16, (IntCounter, Histogram)>>,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let (by_code, by_name) = (["function_name", "code"], ["function_name"]);
        let completed = Opts::new("gateway_function_invocation_total", "Calls completed");
        let started = Opts::new("gateway_function_invocation_started", "Calls started");
        let replicas = Opts::new("gateway_service_count", "Replicas asked for");
        let seconds = HistogramOpts::new("gateway_functions_seconds", "Function time taken");
        Ok(Self {
            seconds: registered(registry, HistogramVec::new(seconds, &by_code))?,
            completed: registered(registry, IntCounterVec::new(completed, &by_code))?,
            started: registered(registry, IntCounterVec::new(started, &by_name))?,
            replicas: registered(registry, IntGaugeVec::new(replicas, &by_name))?,
            functions: RwLock::default(),
        })
    }

    /// A call begins.
    pub(crate) fn begin(self: &Arc<Self>, function: &FunctionName) -> Running {
        let series = self.known(function);
        let is_started = series.as_ref().is_some_and(|series| !series.asks.load(Ordering::Relaxed));
        let (metrics, function) = (Arc::clone(self), function.clone());
        if let Some(series) = series.as_ref().filter(|_| is_started) {
            series.started.inc();
        }
        Running { metrics, function, series, is_started, since: Instant::now(), code: CLIENT_GONE }
    }

    /// How many calls of a function have ended.
    pub(crate) fn completed(&self, function: &FunctionName) -> f64 {
        let Some(series) = self.known(function) else { return 0.0 };
        let by_code = series.by_code.read().unwrap_or_else(PoisonError::into_inner);
        // Exact up to 2^53 calls.
        by_code.values().map(|(completed, _)| completed.get() as f64).sum()
    }

    /// The functions that have series.
    pub(crate) fn names(&self) -> HashSet<FunctionName> {
        self.functions.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Takes note of a function that exists.
    pub(crate) fn found(&self, function: &FunctionName, status: &FunctionStatus) {
        self.series(function).asks.store(status.spec.asks_callers(), Ordering::Relaxed);
        let replicas = i64::try_from(status.replicas).unwrap_or(i64::MAX);
        self.replicas.with_label_values(&[function.as_str()]).set(replicas);
    }

    /// Drops the series of a function that does not exist, or no longer.
    pub(crate) fn forget(&self, function: &FunctionName) {
        if self.known(function).is_none() {
            return;
        }
        let removed = self.functions.write().unwrap_or_else(PoisonError::into_inner).remove(function);
        let Some(series) = removed else { return };
        let name = function.as_str();
        // What is not there need not be removed.
        let _ = (self.started.remove_label_values(&[name]), self.replicas.remove_label_values(&[name]));
        for code in series.by_code.read().unwrap_or_else(PoisonError::into_inner).keys() {
            let labels = [name, &label_of(*code)];
            let _ = (self.completed.remove_label_values(&labels), self.seconds.remove_label_values(&labels));
        }
    }

    fn known(&self, function: &FunctionName) -> Option<Arc<Series>> {
        self.functions.read().unwrap_or_else(PoisonError::into_inner).get(function).cloned()
    }

    fn series(&self, function: &FunctionName) -> Arc<Series> {
        self.known(function).unwrap_or_else(|| {
            let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
            let new = || {
                let started = self.started.with_label_values(&[function.as_str()]);
                Arc::new(Series { started, asks: AtomicBool::default(), by_code: RwLock::default() })
            };
            Arc::clone(functions.entry(function.clone()).or_insert_with(new))
        })
    }

    fn count(&self, function: &FunctionName, series: &Series, code: u16, seconds: f64) {
        let record = |(completed, histogram): &(IntCounter, Histogram)| {
            completed.inc();
            histogram.observe(seconds);
        };
        if let Some(counted) = series.by_code.read().unwrap_or_else(PoisonError::into_inner).get(&code) {
            return record(counted);
        }
        let code_label = label_of(code);
        let labels = [function.as_str(), code_label.as_str()];
        let new = || (self.completed.with_label_values(&labels), self.seconds.with_label_values(&labels));
        record(
            series.by_code.write().unwrap_or_else(PoisonError::into_inner).entry(code).or_insert_with(new),
        );
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, series: Result<C>) -> Result<C> {
    let series = series?;
    registry.register(Box::new(series.clone()))?;
    Ok(series)
}

fn label_of(code: u16) -> String {
    if code == OTHER { "other".to_owned() } else { code.to_string() }
}

/// A call that is running: counted when this is dropped, whatever way it ends.
pub(crate) struct Running {
    metrics: Arc<Metrics>,
    function: FunctionName,
    series: Option<Arc<Series>>,
    /// Whether it is counted as started.
    is_started: bool,
    since: Instant,
    code: u16,
}

impl Running {
    /// The answer begins. `is_known`: it tells that the function exists, so that it has series from now on.
    pub(crate) fn answered(&mut self, status: StatusCode, is_known: bool) {
        self.code = if status.canonical_reason().is_some() { status.as_u16() } else { OTHER };
        if self.series.is_none() && is_known {
            self.series = Some(self.metrics.series(&self.function));
        }
        self.start();
    }

    /// Whoever calls was not let in, by this status.
    pub(crate) fn refused(&mut self, status: StatusCode) {
        self.code = status.as_u16();
        let series = self.series.take().unwrap_or_else(|| self.metrics.series(&self.function));
        series.asks.store(true, Ordering::Relaxed);
        self.series = Some(series).filter(|_| self.is_started);
    }

    fn start(&mut self) {
        if let Some(series) = self.series.as_ref().filter(|_| !self.is_started) {
            series.started.inc();
            self.is_started = true;
        }
    }

    /// The function does not exist.
    pub(crate) fn forget(mut self) {
        self.series = None;
        self.metrics.forget(&self.function);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.start();
        if let Some(series) = &self.series {
            self.metrics.count(&self.function, series, self.code, self.since.elapsed().as_secs_f64());
        }
    }
}
