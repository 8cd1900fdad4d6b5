//! From a spec to a revision that serves: pull, compile, try, save, swap.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use runtime_api::{Deployed, Error, FunctionName, FunctionSpec, Result};
use runtime_oci::Progress;
use runtime_wasm::InstancePool;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    node::Inner,
    record::{Record, Revision},
    rules::{CheckedSpec, min_replicas},
    table::Entry,
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
    stage: Mutex<String>,
    superseded: CancellationToken,
}

impl Job {
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

    fn begin(&self, checked: &CheckedSpec) -> Arc<Job> {
        let job = Arc::new(Job {
            spec: checked.spec.clone(),
            stage: Mutex::new("waiting".into()),
            superseded: CancellationToken::new(),
        });
        if let Some(older) = self.jobs().insert(checked.name.clone(), job.clone()) {
            older.superseded.cancel();
        }
        job
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
        let job = self.jobs.begin(&checked);
        self.tasks.spawn(self.clone().deploy(checked, job.clone(), told));
        match tokio::time::timeout(self.deploy_wait, &mut outcome).await {
            Ok(outcome) => outcome.unwrap_or_else(|_| Err(interrupted(&name))),
            Err(_) => self.keep_pending(&name, &job, outcome).await,
        }
    }

    /// Goes on with a deployment that a restart interrupted.
    pub(crate) fn resume(self: &Arc<Self>, checked: CheckedSpec) {
        let job = self.jobs.begin(&checked);
        let (told, _) = oneshot::channel();
        self.tasks.spawn(self.clone().deploy(checked, job, told));
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
            self.settle(&name, prepared).await
        };
        self.jobs.end(&name, &job);
        if let Err(Err(error)) = told.send(outcome) {
            tracing::warn!(function = %name, %error, "deployment failed");
        }
    }

    /// Makes a revision serve, or says why it does not where that was promised.
    async fn settle(&self, name: &FunctionName, prepared: Result<Prepared>) -> Result<Deployed> {
        let current = self.table.get(name);
        let record = current.as_ref().map(|entry| &entry.record);
        match prepared {
            Ok(prepared) => {
                let replicas = current.as_ref().map_or(0, |entry| entry.replicas());
                let record = Record {
                    created_at: record.map_or_else(Timestamp::now, |record| record.created_at),
                    replicas: replicas.max(min_replicas(&prepared.revision.spec)),
                    serving: Some(prepared.revision),
                    pending: None,
                    failure: None,
                };
                self.save(name, record, Some(prepared.pool)).await?;
                tracing::info!(function = %name, "deployed");
                Ok(Deployed::Ready)
            }
            Err(error) => {
                if let Some(record) = record.filter(|record| record.pending.is_some()) {
                    let record = Record { pending: None, failure: Some(error.to_string()), ..record.clone() };
                    self.save(name, record, current.as_ref().and_then(|entry| entry.pool.clone())).await?;
                }
                Err(error)
            }
        }
    }

    /// First the disk, then the table.
    pub(crate) async fn save(
        &self,
        name: &FunctionName,
        record: Record,
        pool: Option<Arc<InstancePool>>,
    ) -> Result<()> {
        self.records.put(name, &record).await?;
        self.table.put(&Arc::new(Entry::new(name.clone(), record, pool)));
        Ok(())
    }

    /// Promises that the deployment goes on, also after a restart.
    async fn keep_pending(
        &self,
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
        let record = current.as_ref().map_or_else(
            || Record {
                created_at: Timestamp::now(),
                replicas: 1,
                serving: None,
                pending: None,
                failure: None,
            },
            |entry| entry.record.clone(),
        );
        let record = Record { pending: Some(job.spec.clone()), failure: None, ..record };
        self.save(name, record, current.and_then(|entry| entry.pool.clone())).await?;
        tracing::info!(function = %name, stage = job.stage(), "deployment goes on in the background");
        Ok(Deployed::Pending)
    }

    /// All that can fail, with nothing changed yet.
    async fn prepare(self: &Arc<Self>, checked: CheckedSpec, job: &Job) -> Result<Prepared> {
        job.set_stage("pulling".into());
        let progress = |progress: Progress| {
            job.set_stage(format!(
                "pulling, {} of {} KiB",
                progress.bytes_done >> 10,
                progress.bytes_total >> 10
            ));
        };
        let artifact = self.source.fetch(&checked.spec.image()?, &progress).await?;
        job.set_stage(format!("compiling {} KiB", artifact.size_bytes >> 10));
        let module = self.compiler.compile(&artifact).await?;
        module.check_memory(checked.memory_bytes())?;
        let revision = Revision {
            spec: checked.spec.clone(),
            artifact,
            world: module.world,
            memory_bytes: module.memory_bytes,
        };
        let pool = self.pool(&checked, &revision)?;
        job.set_stage("loading".into());
        pool.warm().await?;
        Ok(Prepared { revision, pool })
    }
}

struct Prepared {
    revision: Revision,
    pool: Arc<InstancePool>,
}

fn interrupted(name: &FunctionName) -> Error {
    Error::AlreadyExists(format!("the deployment of {name} was ended by a newer one"))
}
