//! From a spec to a revision that serves: pull, compile, try, save, swap.

use std::{
    collections::{HashMap, hash_map},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use runtime_api::{Deployed, Digest, Error, FunctionName, FunctionSpec, FunctionStatus, Result};
use runtime_oci::Progress;
use runtime_wasm::{DAMAGED, InstancePool};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    node::Inner,
    record::{Record, Revision},
    rules::CheckedSpec,
    table::{Entry, pending_status, uploaded_module},
};

/// How long a deploy waits for its outcome before it answers that the work goes on. faas-cli gives up after 60 s.
pub const DEPLOY_WAIT: Duration = Duration::from_secs(45);

/// Deployments under way, at most one for each function: a newer one ends an older.
#[derive(Default)]
pub(crate) struct Jobs {
    jobs: Mutex<HashMap<FunctionName, Arc<Job>>>,
}

/// One deployment under way.
pub(crate) struct Job {
    pub(crate) spec: FunctionSpec,
    pub(crate) began: Timestamp,
    /// The module, once it was fetched.
    module: OnceLock<Digest>,
    stage: Mutex<String>,
    superseded: CancellationToken,
}

impl Job {
    fn new(spec: FunctionSpec) -> Self {
        Self {
            spec,
            began: Timestamp::now(),
            module: OnceLock::new(),
            stage: Mutex::new("waiting".into()),
            superseded: CancellationToken::new(),
        }
    }

    /// What a function's first deployment is to the outside.
    pub(crate) fn status(&self, name: &FunctionName) -> FunctionStatus {
        pending_status(name, self.spec.clone(), self.began, self.stage())
    }

    /// The modules that it needs, as far as they are known.
    pub(crate) fn modules(&self) -> impl Iterator<Item = Digest> {
        self.module.get().copied().into_iter().chain(uploaded_module(&self.spec))
    }

    pub(crate) fn stage(&self) -> String {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_stage(&self, stage: String) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }
}

impl Jobs {
    fn jobs(&self) -> MutexGuard<'_, HashMap<FunctionName, Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, name: &FunctionName) -> Option<Arc<Job>> {
        self.jobs().get(name).cloned()
    }

    pub(crate) fn all(&self) -> Vec<(FunctionName, Arc<Job>)> {
        self.jobs().iter().map(|(name, job)| (name.clone(), job.clone())).collect()
    }

    fn begin(&self, checked: &CheckedSpec) -> Arc<Job> {
        let job = Arc::new(Job::new(checked.spec.clone()));
        if let Some(older) = self.jobs().insert(checked.name.clone(), job.clone()) {
            older.superseded.cancel();
        }
        job
    }

    /// Begins unless there is a deployment of the function under way, which is newer.
    fn begin_if_idle(&self, checked: &CheckedSpec) -> Option<Arc<Job>> {
        match self.jobs().entry(checked.name.clone()) {
            hash_map::Entry::Occupied(_) => None,
            hash_map::Entry::Vacant(place) => {
                Some(place.insert(Arc::new(Job::new(checked.spec.clone()))).clone())
            }
        }
    }

    /// Ends whatever is under way for a function.
    pub(crate) fn cancel(&self, name: &FunctionName) {
        if let Some(job) = self.jobs().remove(name) {
            job.superseded.cancel();
        }
    }

    fn end(&self, name: &FunctionName, job: &Arc<Job>) {
        let mut jobs = self.jobs();
        if jobs.get(name).is_some_and(|current| Arc::ptr_eq(current, job)) {
            jobs.remove(name);
        }
    }
}

impl Inner {
    /// Deploys in the background, and waits for the outcome as long as a client does.
    pub(crate) async fn deploy_and_wait(self: &Arc<Self>, checked: CheckedSpec) -> Result<Deployed> {
        let name = checked.name.clone();
        let (told, mut outcome) = oneshot::channel();
        let job = self.begin(&checked).await?;
        self.spawn(self.clone().deploy(checked, job.clone(), told));
        match tokio::time::timeout(self.deploy_wait, &mut outcome).await {
            Ok(outcome) => outcome.unwrap_or_else(|_| Err(shutting_down())),
            Err(_) => self.keep_pending(&name, &job, outcome).await,
        }
    }

    /// A namespace does not go while there are deployments in it. A secret may, and then it is not there for the function.
    async fn begin(&self, checked: &CheckedSpec) -> Result<Arc<Job>> {
        let _one = self.changes.lock().await;
        self.namespaces.check(checked.name.namespace())?;
        self.secrets.check(checked.secrets.iter().chain(&checked.bearer).chain(&checked.signing))?;
        Ok(self.jobs.begin(checked))
    }

    /// The deployment that was promised to go on, if it did not come to an end.
    fn promised(&self, name: &FunctionName) -> Option<FunctionSpec> {
        self.table.get(name)?.record.pending.clone()
    }

    /// Goes on with a promised deployment that a restart, or a newer one that was rejected, interrupted.
    pub(crate) fn resume(self: &Arc<Self>, name: &FunctionName) {
        let Some(spec) = self.promised(name) else { return };
        let checked = match self.rules.read(spec) {
            Ok(checked) => checked,
            Err(error) => {
                tracing::error!(function = %name, %error, "the deployment cannot go on");
                return;
            }
        };
        let Some(job) = self.jobs.begin_if_idle(&checked) else { return };
        let (told, _) = oneshot::channel();
        self.spawn(self.clone().deploy(checked, job, told));
    }

    async fn deploy(
        self: Arc<Self>,
        checked: CheckedSpec,
        job: Arc<Job>,
        told: oneshot::Sender<Result<Deployed>>,
    ) {
        let name = checked.name.clone();
        let prepared = tokio::select! {
            prepared = self.prepare(checked, &job) => prepared,
            () = job.superseded.cancelled() => Err(interrupted(&name)),
            () = self.shutdown.cancelled() => return,
        };
        let _one = self.changes.lock().await;
        let outcome = if job.superseded.is_cancelled() {
            Err(interrupted(&name))
        } else {
            self.settle(&name, &job, prepared).await
        };
        self.jobs.end(&name, &job);
        if outcome.is_err() && self.promised(&name).is_some_and(|spec| spec != job.spec) {
            self.resume(&name);
        }
        if let Err(Err(error)) = told.send(outcome) {
            tracing::warn!(function = %name, %error, "deployment failed");
        }
    }

    /// Makes a revision serve, or says why it does not where that was promised.
    async fn settle(
        self: &Arc<Self>,
        name: &FunctionName,
        job: &Job,
        prepared: Result<Prepared>,
    ) -> Result<Deployed> {
        let current = self.table.get(name);
        let record = current.as_ref().map(|entry| &entry.record);
        match prepared {
            Ok(prepared) => {
                let replicas = current.as_ref().map_or(0, |entry| entry.replicas());
                let record = Record {
                    created_at: record.map_or(job.began, |record| record.created_at),
                    replicas: replicas.max(prepared.revision.spec.min_replicas()),
                    serving: Some(prepared.revision),
                    pending: None,
                    failure: None,
                };
                self.save(name, record, Some(prepared.pool)).await?;
                tracing::info!(function = %name, "deployed");
                Ok(Deployed::Ready)
            }
            Err(error) => {
                if let Some(entry) = current.filter(|entry| entry.record.pending.as_ref() == Some(&job.spec))
                {
                    let failure = Some(error.to_string());
                    let record = Record { pending: None, failure, ..entry.current_record() };
                    self.save(name, record, entry.pool.clone()).await?;
                }
                Err(error)
            }
        }
    }

    /// First the disk, then the table. A function that is not there yet begins with no log of another of its name.
    pub(crate) async fn save(
        self: &Arc<Self>,
        name: &FunctionName,
        record: Record,
        pool: Option<Arc<InstancePool>>,
    ) -> Result<()> {
        if self.table.get(name).is_none() {
            let (inner, name) = (self.clone(), name.clone());
            tokio::task::spawn_blocking(move || inner.logs.remove(&name)).await.map_err(Error::internal)?;
        }
        self.records.put(name, &record).await?;
        self.table.put(&Arc::new(Entry::new(name.clone(), record, pool)));
        Ok(())
    }

    /// Promises that the deployment goes on, also after a restart.
    async fn keep_pending(
        self: &Arc<Self>,
        name: &FunctionName,
        job: &Arc<Job>,
        mut outcome: oneshot::Receiver<Result<Deployed>>,
    ) -> Result<Deployed> {
        let _one = self.changes.lock().await;
        // It may have ended while the lock was awaited.
        if let Ok(outcome) = outcome.try_recv() {
            return outcome;
        }
        if job.superseded.is_cancelled() {
            return Err(interrupted(name));
        }
        let current = self.table.get(name);
        let record = current
            .as_ref()
            .map_or_else(|| Record { replicas: 1, ..Record::new(job.began) }, |entry| entry.current_record());
        let record = Record { pending: Some(job.spec.clone()), failure: None, ..record };
        self.save(name, record, current.and_then(|entry| entry.pool.clone())).await?;
        tracing::info!(function = %name, stage = job.stage(), "deployment goes on in the background");
        Ok(Deployed::Pending)
    }

    /// The module that a function runs now.
    fn serving(&self, name: &FunctionName) -> Option<Digest> {
        Some(self.table.get(name)?.pool.as_ref()?.module().artifact.digest)
    }

    /// All that can fail, with nothing changed yet.
    async fn prepare(self: &Arc<Self>, checked: CheckedSpec, job: &Job) -> Result<Prepared> {
        self.make_disk_room().await?;
        job.set_stage("pulling".into());
        let pulled = AtomicU64::new(0);
        let progress = |progress: Progress| {
            pulled.fetch_max(progress.bytes_done, Ordering::Relaxed);
            job.set_stage(format!(
                "pulling, {} of {} KiB",
                progress.bytes_done >> 10,
                progress.bytes_total >> 10
            ));
        };
        let image = checked.spec.image()?;
        let began = Instant::now();
        let fetched = self.source.fetch(&image, checked.pull_policy, &progress).await;
        self.pulls.count(fetched.is_ok(), pulled.into_inner(), began.elapsed());
        let fetched = fetched?;
        let artifact = fetched.artifact;
        // A job fetches once.
        let _ = job.module.set(artifact.digest);
        job.set_stage(format!("compiling {} KiB", artifact.size_bytes >> 10));
        let compiled = self.compiler.compile_in_place_of(self.serving(&checked.name), &artifact).await;
        if compiled.as_ref().is_err_and(|error| error.code() == DAMAGED) {
            // So that the next deploy pulls it anew.
            self.artifacts.discard(&artifact.digest)?;
        }
        let module = compiled?;
        module.check_memory(checked.memory_bytes())?;
        checked.check_mode(module.world)?;
        let revision = Revision {
            spec: checked.spec.clone(),
            artifact,
            image: fetched.image.to_string(),
            world: module.world,
            memory_bytes: module.memory_bytes,
        };
        let pool = self.pool(&checked, &revision);
        job.set_stage("loading".into());
        pool.warm().await?;
        Ok(Prepared { revision, pool })
    }
}

struct Prepared {
    revision: Revision,
    pool: Arc<InstancePool>,
}

pub(crate) fn shutting_down() -> Error {
    Error::Unavailable { message: "the node is shutting down".into(), source: None }
}

fn interrupted(name: &FunctionName) -> Error {
    Error::AlreadyExists(format!("the deployment of {name} was ended by a newer one"))
}
