//! Numbers of asynchronous calls, by the names that dashboards of `OpenFaaS` and `OpenFaaS` Pro ask for, and ours.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gateway_queue::{Queue, Then};
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector};
use runtime_api::{Error, FunctionName, Result};

/// The annotation that names a function's queue (`OpenFaaS` Pro). Here every function has its turn whatever the name,
/// which is a label and no more.
const QUEUE_NAME: &str = "com.openfaas.queue";
/// The queue of functions that name none (`OpenFaaS` Pro).
const DEFAULT_QUEUE: &str = "faas-request";
const MAX_QUEUE_NAME_BYTES: usize = 63;

const OUTCOMES: [&str; 4] = ["succeeded", "retried", "dead", "cancelled"];

pub(crate) struct QueueMetrics {
    queue: Arc<dyn Queue>,
    submitted: IntCounterVec,
    processed: IntCounterVec,
    running: IntGaugeVec,
    pending: IntGaugeVec,
    length: IntGaugeVec,
    dead: IntGaugeVec,
    oldest: IntGaugeVec,
    /// Whether the queue can be asked at all.
    usable: IntGauge,
    /// By which names the functions' queues go.
    names: Mutex<HashMap<FunctionName, String>>,
}

impl QueueMetrics {
    pub(crate) fn new(queue: Arc<dyn Queue>, registry: &Registry) -> Result<Self> {
        let labels = ["queue_name", "function_name"];
        let counter = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        Ok(Self {
            queue,
            submitted: counter(
                "queue_worker_messages_submitted_total",
                "Asynchronous calls accepted",
                &labels,
            )?,
            processed: counter(
                "queue_worker_messages_processed_total",
                "Attempts at asynchronous calls, by what came of them",
                &["queue_name", "function_name", "outcome"],
            )?,
            running: gauge(
                "queue_worker_function_invocation_inflight",
                "Asynchronous calls that run",
                &labels,
            )?,
            pending: gauge("queue_worker_pending_messages", "Asynchronous calls that wait", &labels)?,
            length: gauge("gateway_async_queue_length", "Asynchronous calls that wait", &labels[1..])?,
            dead: gauge("fawn_async_dead_letters", "Asynchronous calls that were given up", &labels[1..])?,
            oldest: gauge(
                "fawn_async_oldest_seconds",
                "How long the oldest asynchronous call has waited that is due",
                &labels[1..],
            )?,
            usable: registered(
                registry,
                IntGauge::new("fawn_async_usable", "Whether asynchronous calls are taken and run: 1 or 0"),
            )?,
            names: Mutex::default(),
        })
    }

    /// Takes note of what a function's annotations say. Where the name is another now, the numbers under the old one go.
    pub(crate) fn found(&self, function: &FunctionName, annotations: &BTreeMap<String, String>) {
        let name = queue_name(annotations);
        let mut names = self.names();
        if names.get(function).is_some_and(|known| known == name) {
            return;
        }
        if let Some(old) = names.insert(function.clone(), name.to_owned()) {
            self.remove(&old, function);
        }
    }

    /// A call was kept.
    pub(crate) fn submitted(&self, function: &FunctionName, annotations: &BTreeMap<String, String>) {
        self.found(function, annotations);
        self.submitted.with_label_values(&[queue_name(annotations), function.as_str()]).inc();
    }

    /// An attempt ended.
    pub(crate) fn processed(&self, function: &FunctionName, then: Then) {
        let outcome = match then {
            Then::Succeeded => "succeeded",
            Then::RetryAt(_) => "retried",
            // It was no attempt.
            Then::PutBack(_) => return,
            Then::Dead => "dead",
            Then::Cancelled => "cancelled",
        };
        // What is gone is not counted any more.
        if let Some(queue) = self.names().get(function) {
            self.processed.with_label_values(&[queue, function.as_str(), outcome]).inc();
        }
    }

    /// Tells what there is now, and no more of what there is not.
    pub(crate) async fn refresh(&self) -> Result<(), gateway_queue::Error> {
        let counts = self.queue.counts().await;
        self.usable.set(i64::from(counts.is_ok()));
        let counts = counts?;
        let (names, now) = (self.names(), self.queue.now());
        for gauge in [&self.running, &self.pending, &self.length, &self.dead, &self.oldest] {
            gauge.reset();
        }
        for counts in counts {
            let function = counts.function.as_str();
            let queue = names.get(&counts.function).map_or(DEFAULT_QUEUE, String::as_str);
            let number = |calls: u64| i64::try_from(calls).unwrap_or(i64::MAX);
            let waiting = number(counts.queued.saturating_add(counts.waiting));
            self.running.with_label_values(&[queue, function]).set(number(counts.running));
            self.pending.with_label_values(&[queue, function]).set(waiting);
            self.length.with_label_values(&[function]).set(waiting);
            self.dead.with_label_values(&[function]).set(number(counts.dead));
            let waited = counts.oldest_queued.and_then(|oldest| now.duration_since(oldest).ok());
            self.oldest.with_label_values(&[function]).set(number(waited.unwrap_or_default().as_secs()));
        }
        Ok(())
    }

    /// The function is gone, and so is what was counted of it.
    pub(crate) fn forget(&self, function: &FunctionName) {
        let name = self.names().remove(function);
        self.remove(name.as_deref().unwrap_or(DEFAULT_QUEUE), function);
    }

    fn remove(&self, queue: &str, function: &FunctionName) {
        let name = function.as_str();
        // What is not there need not be removed.
        let _ = self.submitted.remove_label_values(&[queue, name]);
        for outcome in OUTCOMES {
            let _ = self.processed.remove_label_values(&[queue, name, outcome]);
        }
    }

    fn names(&self) -> MutexGuard<'_, HashMap<FunctionName, String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What makes no good label is no name.
fn queue_name(annotations: &BTreeMap<String, String>) -> &str {
    let plain = |name: &&str| {
        (1..=MAX_QUEUE_NAME_BYTES).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    annotations.get(QUEUE_NAME).map(String::as_str).filter(plain).unwrap_or(DEFAULT_QUEUE)
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    series: prometheus::Result<C>,
) -> Result<C> {
    let series = series.map_err(Error::internal)?;
    registry.register(Box::new(series.clone())).map_err(Error::internal)?;
    Ok(series)
}
