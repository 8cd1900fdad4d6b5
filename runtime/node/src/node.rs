use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use http::HeaderMap;
use jiff::Timestamp;
use runtime_api::{
    Admitted, Body, DEFAULT_NAMESPACE, Deployed, Error, FunctionName, FunctionSpec, FunctionStatus,
    FunctionUsage, ImageReference, Invocation, LogQuery, LogStream, ModuleCommand, Namespace, Provider,
    ProviderInfo, Response, Result, SecretName, SecretValue, StoredArtifact, VersionInfo,
};
use runtime_egress::Policy;
use runtime_http::{BasicAuth, Credentials};
use runtime_oci::{ArtifactSource, ArtifactStore, PullPolicy};
use runtime_store::{Store, Vault};
use runtime_wasm::{CompiledModule, Compiler, Engine, InstancePool, Settings};
use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    deploy::{Jobs, shutting_down},
    disk::Listed,
    logs::Logs,
    metrics::{self, Pulls},
    namespaces::Namespaces,
    record::{Record, Records, Revision},
    rules::{CheckedSpec, NodeRules},
    secrets::KnownSecrets,
    table::{Entry, Table},
};

/// What an operator can choose of a [`Node`].
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The longest time that any call may take.
    pub max_exec_timeout: Duration,
    /// Where functions may connect to that do not say so themselves.
    pub egress: Policy,
    /// When registries are asked for what functions want that do not say so themselves.
    pub pull_policy: PullPolicy,
    /// How long a deploy waits before it answers that the work goes on; see [`DEPLOY_WAIT`](crate::DEPLOY_WAIT).
    pub deploy_wait: Duration,
    /// How long content is kept that no function names.
    pub garbage_grace: Duration,
    /// What modules and machine code may take on disk, in bytes. Beyond it nothing new is deployed.
    pub disk_budget_bytes: u64,
    /// What functions ask for that ask for credentials; `None` refuses those.
    pub basic_auth: Option<Credentials>,
    /// Whether calls that are to run later are kept in front of it; otherwise functions that want that are refused.
    pub keeps_calls: bool,
    /// What this is a build of.
    pub version: VersionInfo,
}

/// What a [`Node`] is made of.
pub struct NodeParts {
    /// Where function specs are kept.
    pub store: Store,
    /// Where secrets are kept.
    pub vault: Vault,
    /// Where modules are kept.
    pub artifacts: ArtifactStore,
    /// Where modules come from.
    pub source: Arc<dyn ArtifactSource>,
    /// What runs them.
    pub engine: Engine,
    /// What compiles them.
    pub compiler: Arc<Compiler>,
    /// Where their logs are kept.
    pub logs: Logs,
    /// Where deployments and house-keeping run.
    pub runtime: Handle,
}

/// One machine that runs functions.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) table: Table,
    pub(crate) records: Records,
    pub(crate) namespaces: Namespaces,
    pub(crate) secrets: KnownSecrets,
    pub(crate) jobs: Jobs,
    pub(crate) pulls: Pulls,
    /// Held while the store and the table are changed together.
    pub(crate) changes: tokio::sync::Mutex<()>,
    pub(crate) artifacts: ArtifactStore,
    pub(crate) source: Arc<dyn ArtifactSource>,
    pub(crate) engine: Engine,
    pub(crate) compiler: Arc<Compiler>,
    pub(crate) logs: Logs,
    pub(crate) tasks: TaskTracker,
    /// What runs in the background runs here, wherever a call comes in.
    pub(crate) runtime: Handle,
    pub(crate) shutdown: CancellationToken,
    pub(crate) deploy_wait: Duration,
    pub(crate) rules: NodeRules,
    basic_auth: Option<BasicAuth>,
    pub(crate) garbage_grace: Duration,
    pub(crate) disk_budget_bytes: u64,
    /// Held while room is made on the disk.
    pub(crate) disk: std::sync::Mutex<Option<Listed>>,
    version: VersionInfo,
}

impl Node {
    /// Takes up the functions of the store, compiling nothing, and goes on with deployments that were interrupted.
    ///
    /// # Errors
    /// `Internal` or `Unavailable` when the store cannot be read.
    pub fn start(config: NodeConfig, parts: NodeParts, registry: &prometheus::Registry) -> Result<Self> {
        let inner = Arc::new(Inner {
            table: Table::default(),
            namespaces: Namespaces::load(parts.store.clone())?,
            secrets: KnownSecrets::load(parts.vault)?,
            records: Records::new(parts.store),
            jobs: Jobs::default(),
            pulls: Pulls::new()?,
            changes: tokio::sync::Mutex::new(()),
            artifacts: parts.artifacts,
            source: parts.source,
            engine: parts.engine,
            compiler: parts.compiler,
            logs: parts.logs,
            tasks: TaskTracker::new(),
            runtime: parts.runtime,
            shutdown: CancellationToken::new(),
            deploy_wait: config.deploy_wait,
            rules: NodeRules {
                max_exec_timeout: config.max_exec_timeout,
                egress: config.egress,
                pull_policy: config.pull_policy,
                asks_credentials: config.basic_auth.is_some(),
                keeps_calls: config.keeps_calls,
            },
            basic_auth: config.basic_auth.as_ref().map(BasicAuth::new),
            garbage_grace: config.garbage_grace,
            disk_budget_bytes: config.disk_budget_bytes,
            disk: std::sync::Mutex::default(),
            version: config.version,
        });
        let records = inner.records.all()?;
        inner.table.fill(records.into_iter().map(|(name, record)| match record {
            Ok(record) => inner.take_up(name, record),
            Err(error) => unreadable(name, &error),
        }));
        metrics::register(&inner, registry)?;
        for entry in inner.table.all() {
            inner.resume(&entry.name);
        }
        inner.spawn(inner.clone().keep_house());
        inner.spawn(inner.clone().drop_cold_code());
        Ok(Self { inner })
    }

    /// Refuses deployments from now on, and waits until what goes on in the background is at an end, or at a point
    /// from which the next start goes on. Calls are still taken: whoever passes them on stops and drains them first.
    pub async fn shut_down(&self) {
        self.inner.shutdown.cancel();
        self.end_log_readers();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Writes the last lines of functions' logs, once nothing runs any more. Takes five seconds at most.
    pub async fn close_logs(&self) {
        self.inner.logs.close().await;
    }

    /// The value of a secret, for what is done beside the node in its name, such as signing.
    pub fn secret_value(&self, name: &SecretName) -> Option<SecretValue> {
        self.inner.secrets.values().all().get(name).cloned()
    }

    /// Ends the streams of those who follow logs, which would otherwise hold up whoever drains connections.
    pub fn end_log_readers(&self) {
        self.inner.logs.end_readers();
    }

    fn details(&self) -> BTreeMap<String, String> {
        let mut details = self.inner.engine.facts();
        details.insert(ProviderInfo::WAKES_FUNCTIONS.to_owned(), "yes".to_owned());
        details
    }
}

impl Inner {
    /// In the background, and awaited at the end.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// Brings a change to its end, also where whoever asked for it does not wait: disk and memory change together.
    async fn carry_through(&self, change: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
        self.check_running()?;
        let (told, outcome) = oneshot::channel();
        // Nobody may want to know any more.
        self.spawn(async move { drop(told.send(change.await)) });
        outcome.await.map_err(Error::internal)?
    }

    /// A function as the store has it. One that this node can no longer run or deploy is kept, and says so.
    fn take_up(&self, name: FunctionName, mut record: Record) -> Entry {
        if let Some(Err(error)) = record.pending.clone().map(|spec| self.rules.read(spec)) {
            record.failure = Some(error.to_string());
        }
        let pool = record.serving.as_ref().map(|revision| {
            let checked = self.rules.read(revision.spec.clone())?;
            Ok::<_, Error>(self.pool(&checked, revision))
        });
        match pool.transpose() {
            Ok(pool) => Entry::new(name, record, pool),
            Err(error) => {
                tracing::error!(function = %name, %error, "the function cannot be run by this node any more");
                record.failure = Some(error.to_string());
                Entry::new(name, record, None)
            }
        }
    }

    pub(crate) fn pool(&self, checked: &CheckedSpec, revision: &Revision) -> Arc<InstancePool> {
        let mut artifact = revision.artifact.clone();
        artifact.path = self.artifacts.module_path(&artifact.digest);
        let secrets = self.secrets.files(checked);
        let settings = Settings { secrets, ..checked.settings(&artifact) };
        let log = self.logs.of(&checked.name, checked.log_style());
        let module = CompiledModule { artifact, world: revision.world, memory_bytes: revision.memory_bytes };
        let pool = InstancePool::new(
            self.engine.clone(),
            self.compiler.clone(),
            module,
            settings,
            self.tasks.clone(),
        );
        Arc::new(pool.with_log(log))
    }

    pub(crate) fn exists(&self, name: &FunctionName) -> bool {
        self.table.get(name).is_some() || self.jobs.get(name).is_some()
    }

    fn entry(&self, name: &FunctionName) -> Result<Arc<Entry>> {
        self.table.get(name).ok_or_else(|| not_found(name))
    }

    /// A call for a function at zero replicas; the change is saved behind the call's back.
    fn wake(self: &Arc<Self>, entry: &Arc<Entry>) {
        let replicas = entry.record.serving.as_ref().map_or(1, |revision| revision.spec.min_replicas());
        if !entry.wake(replicas) {
            return;
        }
        tracing::info!(function = %entry.name, "woken by a call");
        let (inner, woken) = (self.clone(), entry.clone());
        self.spawn(async move {
            if let Err(error) = inner.save_wake(&woken, replicas).await {
                tracing::warn!(function = %woken.name, %error, "the number of replicas could not be saved");
            }
        });
    }

    /// Unless the function was scaled, replaced or removed since.
    async fn save_wake(self: &Arc<Self>, woken: &Arc<Entry>, replicas: u64) -> Result<()> {
        let _one = self.changes.lock().await;
        match self.table.get(&woken.name) {
            Some(entry) if Arc::ptr_eq(&entry, woken) => self.save_replicas(&entry, replicas).await,
            _ => Ok(()),
        }
    }

    async fn remove(self: Arc<Self>, function: FunctionName) -> Result<()> {
        let _one = self.changes.lock().await;
        if !self.exists(&function) {
            return Err(not_found(&function));
        }
        self.jobs.cancel(&function);
        self.records.remove(&function).await?;
        self.table.remove(&function);
        self.logs.retire(&function);
        tracing::info!(%function, "removed");
        Ok(())
    }

    async fn set_replicas(self: Arc<Self>, name: FunctionName, replicas: u64) -> Result<()> {
        let _one = self.changes.lock().await;
        let entry = self.entry(&name)?;
        // A record that cannot be read is left as it is.
        if entry.record.serving.is_none() && entry.record.pending.is_none() {
            return Err(entry.not_ready());
        }
        self.save_replicas(&entry, replicas).await
    }

    /// Calls find the zero before the code goes, so that one that loads it again also wakes the function.
    async fn save_replicas(self: &Arc<Self>, entry: &Entry, replicas: u64) -> Result<()> {
        let record = Record { replicas, ..entry.record.clone() };
        self.save(&entry.name, record, entry.pool.clone()).await?;
        if let Some(pool) = entry.pool.as_ref().filter(|_| replicas == 0) {
            pool.unload();
        }
        Ok(())
    }

    /// Whether deployments are still taken.
    fn check_running(&self) -> Result<()> {
        if self.shutdown.is_cancelled() { Err(shutting_down()) } else { Ok(()) }
    }
}

#[async_trait]
impl Provider for Node {
    async fn deploy(&self, spec: FunctionSpec) -> Result<Deployed> {
        self.inner.check_running()?;
        let checked = self.inner.rules.check(spec)?;
        self.inner.namespaces.check(checked.name.namespace())?;
        if self.inner.exists(&checked.name) {
            return Err(Error::AlreadyExists(format!(
                "function {} exists already: update it, or remove it first",
                checked.name
            )));
        }
        self.inner.deploy_and_wait(checked).await
    }

    async fn update(&self, spec: FunctionSpec) -> Result<Deployed> {
        self.inner.check_running()?;
        // Existence first: faas-cli deploys what an update does not find.
        let name = spec.name()?;
        self.inner.namespaces.check(name.namespace())?;
        if !self.inner.exists(&name) {
            return Err(not_found(&name));
        }
        self.inner.deploy_and_wait(self.inner.rules.check(spec)?).await
    }

    async fn remove(&self, function: &FunctionName) -> Result<()> {
        self.inner.carry_through(self.inner.clone().remove(function.clone())).await
    }

    async fn list(&self, namespace: &str) -> Result<Vec<FunctionStatus>> {
        let namespace = if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace };
        self.inner.namespaces.check(namespace)?;
        // In this order, a deployment that ends meanwhile is not missed.
        let within = |name: &FunctionName| name.namespace() == namespace;
        let mut jobs: HashMap<_, _> =
            self.inner.jobs.all().into_iter().filter(|(name, _)| within(name)).collect();
        let deployed = self.inner.table.all().into_iter().filter(|entry| within(&entry.name));
        let mut all: Vec<FunctionStatus> =
            deployed.map(|entry| entry.status(jobs.remove(&entry.name).map(|job| job.stage()))).collect();
        all.extend(jobs.iter().map(|(name, job)| job.status(name)));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    async fn status(&self, function: &FunctionName) -> Result<FunctionStatus> {
        let job = self.inner.jobs.get(function);
        match (self.inner.table.get(function), job) {
            (Some(entry), job) => Ok(entry.status(job.map(|job| job.stage()))),
            (None, Some(job)) => Ok(job.status(function)),
            (None, None) => Err(not_found(function)),
        }
    }

    async fn usage(&self, function: &FunctionName) -> Result<Option<FunctionUsage>> {
        match self.inner.table.get(function) {
            Some(entry) => Ok(entry.usage()),
            None if self.inner.exists(function) => Ok(None),
            None => Err(not_found(function)),
        }
    }

    async fn scale(&self, function: &FunctionName, replicas: u64) -> Result<()> {
        self.inner.carry_through(self.inner.clone().set_replicas(function.clone(), replicas)).await
    }

    async fn invoke(&self, mut invocation: Invocation) -> Result<Response> {
        let entry = self.inner.entry(&invocation.function)?;
        let Some(pool) = &entry.pool else { return Err(entry.not_ready()) };
        let (basic, secrets) = (self.inner.basic_auth.as_ref(), self.inner.secrets.values());
        if invocation.request.extensions().get::<Admitted>().is_none() {
            entry.access.admit(invocation.request.headers_mut(), basic, secrets)?;
        }
        if entry.replicas() == 0 {
            self.inner.wake(&entry);
        }
        let room = entry.room(pool.settings().max_inflight);
        pool.invoke(invocation, room).await
    }

    fn runs_later(&self, function: &FunctionName) -> bool {
        self.inner.table.runs_later(function)
    }

    async fn admit(&self, function: &FunctionName, headers: &mut HeaderMap) -> Result<()> {
        let entry = self.inner.entry(function)?;
        entry.access.admit(headers, self.inner.basic_auth.as_ref(), self.inner.secrets.values())
    }

    async fn namespaces(&self) -> Result<Vec<String>> {
        Ok(self.inner.namespaces.names())
    }

    async fn namespace(&self, name: &str) -> Result<Namespace> {
        self.inner.namespaces.get(name)
    }

    async fn create_namespace(&self, namespace: Namespace) -> Result<()> {
        self.inner.carry_through(self.inner.clone().create_namespace(namespace)).await
    }

    async fn update_namespace(&self, namespace: Namespace) -> Result<()> {
        self.inner.carry_through(self.inner.clone().update_namespace(namespace)).await
    }

    async fn remove_namespace(&self, name: &str) -> Result<()> {
        self.inner.carry_through(self.inner.clone().remove_namespace(name.to_owned())).await
    }

    async fn secrets(&self, namespace: &str) -> Result<Vec<SecretName>> {
        self.inner.namespaces.check(namespace)?;
        Ok(self.inner.secrets.names_in(namespace))
    }

    async fn create_secret(&self, name: &SecretName, value: SecretValue) -> Result<()> {
        self.inner.carry_through(self.inner.clone().create_secret(name.clone(), value)).await
    }

    async fn update_secret(&self, name: &SecretName, value: SecretValue) -> Result<()> {
        self.inner.carry_through(self.inner.clone().update_secret(name.clone(), value)).await
    }

    async fn remove_secret(&self, name: &SecretName) -> Result<()> {
        self.inner.carry_through(self.inner.clone().remove_secret(name.clone())).await
    }

    async fn logs(&self, query: LogQuery) -> Result<LogStream> {
        self.inner.namespaces.check(query.function.namespace())?;
        let exists = self.inner.exists(&query.function);
        self.inner.logs.read(query, exists).await
    }

    async fn store_artifact(&self, module: Body, command: ModuleCommand) -> Result<StoredArtifact> {
        command.check()?;
        self.inner.make_disk_room().await?;
        let artifact = self.inner.artifacts.insert(module).await?;
        let named = self.inner.artifacts.with_command(&artifact, command).await?;
        Ok(StoredArtifact { image: ImageReference::local(named).to_string(), digest: artifact.digest })
    }

    async fn info(&self) -> Result<ProviderInfo> {
        Ok(ProviderInfo {
            provider: "fawn".into(),
            version: self.inner.version.clone(),
            orchestration: "wasmtime".into(),
            details: self.details(),
        })
    }

    async fn health(&self) -> Result<()> {
        self.inner.check_running()
    }
}

/// A function whose record cannot be read: it stays on disk, and the name can be deployed again or removed.
fn unreadable(name: FunctionName, error: &Error) -> Entry {
    tracing::error!(function = %name, %error, "the function's record is damaged");
    let failure = Some(format!("{error}; update or remove the function, or restore the data directory"));
    Entry::new(name, Record { failure, ..Record::new(Timestamp::now()) }, None)
}

fn not_found(name: &FunctionName) -> Error {
    Error::NotFound(format!("function {name} not found"))
}
