use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use runtime_api::{
    Deployment, Digest, Error, FunctionName, FunctionSpec, FunctionStatus, FunctionUsage, ImageReference,
    Phase,
};
use runtime_wasm::InstancePool;

use crate::{access::Access, record::Record};

type Entries = HashMap<FunctionName, Arc<Entry>>;

/// The functions that there are, read on every call without a lock.
#[derive(Default)]
pub(crate) struct Table {
    functions: ArcSwap<Functions>,
}

#[derive(Default)]
struct Functions {
    entries: Entries,
    /// Whether there is any whose plain calls run later.
    any_later: bool,
}

impl From<Entries> for Functions {
    fn from(entries: Entries) -> Self {
        Self { any_later: entries.values().any(|entry| entry.runs_later()), entries }
    }
}

impl Table {
    pub(crate) fn get(&self, name: &FunctionName) -> Option<Arc<Entry>> {
        self.functions.load().entries.get(name).cloned()
    }

    /// Whether a function's plain calls run later. Costs next to nothing where there is no such function.
    pub(crate) fn runs_later(&self, name: &FunctionName) -> bool {
        let functions = self.functions.load();
        functions.any_later && functions.entries.get(name).is_some_and(|entry| entry.runs_later())
    }

    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.functions.load().entries.values().cloned().collect()
    }

    /// Puts an entry in place of the one of its name. Calls in flight keep the old one.
    pub(crate) fn put(&self, entry: &Arc<Entry>) {
        self.change(|entries| drop(entries.insert(entry.name.clone(), entry.clone())));
    }

    pub(crate) fn remove(&self, name: &FunctionName) {
        self.change(|entries| drop(entries.remove(name)));
    }

    fn change(&self, change: impl Fn(&mut Entries)) {
        self.functions.rcu(|functions| {
            let mut entries = functions.entries.clone();
            change(&mut entries);
            Functions::from(entries)
        });
    }

    pub(crate) fn fill(&self, entries: impl Iterator<Item = Entry>) {
        let entries: Entries = entries.map(|entry| (entry.name.clone(), Arc::new(entry))).collect();
        self.functions.store(Arc::new(entries.into()));
    }
}

/// One function as it is now: its record, and what runs it.
pub(crate) struct Entry {
    pub(crate) name: FunctionName,
    pub(crate) record: Record,
    pub(crate) pool: Option<Arc<InstancePool>>,
    /// Who may call what serves.
    pub(crate) access: Access,
    replicas: AtomicU64,
}

impl Entry {
    pub(crate) fn new(name: FunctionName, record: Record, pool: Option<Arc<InstancePool>>) -> Self {
        let access =
            record.serving.as_ref().map_or(Ok(Access::Open), |revision| Access::of(&revision.spec, &name));
        let access = access.unwrap_or(Access::Nobody);
        Self { replicas: AtomicU64::new(record.replicas), name, record, pool, access }
    }

    pub(crate) fn replicas(&self) -> u64 {
        self.replicas.load(Ordering::Relaxed)
    }

    /// Whether plain calls of what serves run later.
    fn runs_later(&self) -> bool {
        self.record.serving.as_ref().is_some_and(|revision| revision.spec.runs_later())
    }

    /// Leaves zero replicas. True for the one caller that did it.
    pub(crate) fn wake(&self, replicas: u64) -> bool {
        self.replicas.compare_exchange(0, replicas, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Calls that may be in flight: replicas times `max_inflight`, where that is set.
    pub(crate) fn room(&self, max_inflight: u64) -> u64 {
        if max_inflight == 0 { u64::MAX } else { self.replicas().max(1).saturating_mul(max_inflight) }
    }

    /// The record with the replicas as they are now, though a wake may not be saved yet.
    pub(crate) fn current_record(&self) -> Record {
        Record { replicas: self.replicas(), ..self.record.clone() }
    }

    /// The modules that it needs, as far as they are known.
    pub(crate) fn modules(&self) -> impl Iterator<Item = Digest> {
        let Record { serving, pending, .. } = &self.record;
        let serving = serving.as_ref().map(|revision| revision.artifact.digest);
        serving.into_iter().chain(pending.as_ref().and_then(uploaded_module))
    }

    /// Why there is nothing to call.
    pub(crate) fn not_ready(&self) -> Error {
        let message = match &self.record.failure {
            Some(failure) => format!("function {} is not ready: {failure}", self.name),
            None => format!("function {} is still being deployed", self.name),
        };
        Error::Unavailable { message, source: None }
    }

    /// What the calls of what serves use now.
    pub(crate) fn usage(&self) -> Option<FunctionUsage> {
        let bytes = self.pool.as_ref()?.memory_in_use_bytes();
        // Exact up to 2^53 bytes.
        Some(FunctionUsage { cpu: None, total_memory_bytes: bytes as f64 })
    }

    /// What it is to the outside; `stage` tells of a deployment under way.
    pub(crate) fn status(&self, stage: Option<String>) -> FunctionStatus {
        let Record { serving, pending, failure, created_at, .. } = &self.record;
        let (phase, reason) = match (stage, failure) {
            (Some(stage), _) => (Phase::Pending, stage),
            (None, Some(failure)) => (Phase::Failed, failure.clone()),
            (None, None) if pending.is_some() || serving.is_none() => {
                (Phase::Pending, "waiting for the next start of the node".into())
            }
            (None, None) => (Phase::Ready, String::new()),
        };
        let spec =
            serving.as_ref().map(|revision| &revision.spec).or(pending.as_ref()).cloned().unwrap_or_default();
        let mut status = pending_status(&self.name, spec, *created_at, reason);
        status.replicas = self.replicas();
        status.available_replicas = if self.pool.is_some() { status.replicas } else { 0 };
        status.deployment.phase = phase;
        if let Some(revision) = serving {
            status.deployment.digest = revision.artifact.digest.to_string();
            status.deployment.image.clone_from(&revision.image);
            status.deployment.kind = revision.world.describe().to_owned();
        }
        status
    }
}

/// The module that a spec names without a registry: it was uploaded, and cannot be had again.
pub(crate) fn uploaded_module(spec: &FunctionSpec) -> Option<Digest> {
    spec.image().ok().filter(ImageReference::is_local)?.digest
}

/// The status of a function of which there is nothing but a spec.
pub(crate) fn pending_status(
    name: &FunctionName,
    mut spec: FunctionSpec,
    created_at: Timestamp,
    reason: String,
) -> FunctionStatus {
    name.namespace().clone_into(&mut spec.namespace);
    spec.labels.insert("faas_function".into(), name.name().into());
    FunctionStatus {
        name: name.name().to_owned(),
        spec,
        invocation_count: 0.0,
        replicas: 0,
        available_replicas: 0,
        created_at,
        usage: None,
        deployment: Deployment {
            phase: Phase::Pending,
            reason,
            digest: String::new(),
            image: String::new(),
            kind: String::new(),
        },
    }
}
