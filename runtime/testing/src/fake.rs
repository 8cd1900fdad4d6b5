use std::{
    collections::{BTreeMap, HashMap, VecDeque, btree_map::Entry},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use jiff::Timestamp;
use runtime_api::{
    Admitted, ArtifactKind, Body, BodyError, DEFAULT_NAMESPACE, Deployed, Deployment, Digest, Error,
    FunctionName, FunctionSpec, FunctionStatus, FunctionUsage, ImageReference, Invocation, LogLine, LogQuery,
    LogStream, ModuleCommand, Namespace, Phase, Provider, ProviderInfo, Response, Result, SecretName,
    SecretValue, StoredArtifact, VersionInfo,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

type Script = Arc<dyn Fn(Invocation) -> Pin<Box<dyn Future<Output = Result<Response>> + Send>> + Send + Sync>;

/// A provider in memory. A function answers what its script says, or else with the request's own body.
#[derive(Default)]
pub struct FakeProvider {
    functions: Mutex<BTreeMap<FunctionName, FunctionStatus>>,
    scripts: Mutex<HashMap<FunctionName, Script>>,
    namespaces: Mutex<BTreeMap<String, Namespace>>,
    secrets: Mutex<BTreeMap<SecretName, SecretValue>>,
    logs: Arc<Mutex<BTreeMap<FunctionName, Vec<LogLine>>>>,
    /// Told of each line.
    logged: watch::Sender<()>,
    failures: Mutex<VecDeque<Error>>,
    in_flight: Arc<watch::Sender<usize>>,
    details: Mutex<BTreeMap<String, String>>,
    status_asked: AtomicU64,
    /// What functions ask for as `Authorization`.
    credentials: Mutex<HashMap<FunctionName, HeaderValue>>,
}

impl FakeProvider {
    /// Without functions, and with the namespaces `openfaas-fn` and `dev`.
    pub fn new() -> Arc<Self> {
        let fake = Self::default();
        for name in [DEFAULT_NAMESPACE, "dev"] {
            let namespace = Namespace { name: name.to_owned(), ..Namespace::default() };
            lock(&fake.namespaces).insert(name.to_owned(), namespace);
        }
        Arc::new(fake)
    }

    /// Adds a function that answers with the request's body.
    pub fn add(&self, name: &str) {
        let name = valid(name);
        let (service, namespace) = (name.name().to_owned(), name.namespace().to_owned());
        let spec = FunctionSpec {
            service,
            namespace,
            image: "registry.example/fake:1".into(),
            ..Default::default()
        };
        lock(&self.functions).insert(name, status_of(spec));
    }

    /// Adds a function that answers what `script` does. Dropping the call, or its body, drops the script's future.
    pub fn script<F, R>(&self, name: &str, script: F)
    where
        F: Fn(Invocation) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response>> + Send + 'static,
    {
        self.add(name);
        lock(&self.scripts).insert(valid(name), Arc::new(move |invocation| Box::pin(script(invocation))));
    }

    /// Adds a line to a function's log.
    pub fn log(&self, function: &str, timestamp: Timestamp, text: &str) {
        let function = valid(function);
        let line = LogLine {
            name: function.name().to_owned(),
            namespace: function.namespace().to_owned(),
            instance: "fake-1".to_owned(),
            timestamp,
            text: text.to_owned(),
        };
        lock(&self.logs).entry(function).or_default().push(line);
        self.logged.send_replace(());
    }

    /// What a secret holds.
    pub fn secret(&self, name: &SecretName) -> Option<SecretValue> {
        lock(&self.secrets).get(name).cloned()
    }

    /// Lets the next operation that is not a call fail.
    pub fn fail_next(&self, error: Error) {
        lock(&self.failures).push_back(error);
    }

    /// Lets so many of a function's replicas be ready.
    pub fn set_available(&self, function: &str, replicas: u64) {
        if let Some(status) = lock(&self.functions).get_mut(&valid(function)) {
            status.available_replicas = replicas;
        }
    }

    /// Adds an annotation to a function.
    pub fn annotate(&self, function: &str, name: &str, value: &str) {
        if let Some(status) = lock(&self.functions).get_mut(&valid(function)) {
            status.spec.annotations.insert(name.to_owned(), value.to_owned());
        }
    }

    /// Lets a function refuse calls without this `Authorization`.
    pub fn guard(&self, function: &str, authorization: &'static str) {
        lock(&self.credentials).insert(valid(function), HeaderValue::from_static(authorization));
    }

    /// Adds a detail to what it says of itself.
    pub fn add_detail(&self, name: &str, value: &str) {
        lock(&self.details).insert(name.to_owned(), value.to_owned());
    }

    /// How often it was asked for the status of a function.
    pub fn status_asked(&self) -> u64 {
        self.status_asked.load(Ordering::Relaxed)
    }

    /// How many calls are running: begun, and neither dropped nor read to their end.
    pub fn in_flight(&self) -> watch::Receiver<usize> {
        self.in_flight.subscribe()
    }

    /// The lines of a log from there on, as they come.
    fn follow(&self, function: FunctionName, next: usize) -> impl Stream<Item = Result<LogLine>> + use<> {
        let reader = (self.logged.subscribe(), Arc::clone(&self.logs), function, next);
        stream::unfold(reader, async |(mut logged, logs, function, next)| {
            loop {
                let line = lock(&logs).get(&function).and_then(|lines| lines.get(next).cloned());
                if let Some(line) = line {
                    return Some((Ok(line), (logged, logs, function, next + 1)));
                }
                logged.changed().await.ok()?;
            }
        })
    }

    fn failure(&self) -> Result<()> {
        lock(&self.failures).pop_front().map_or(Ok(()), Err)
    }

    fn checked(&self, spec: &FunctionSpec) -> Result<FunctionName> {
        let name = spec.name()?;
        self.check_namespace(name.namespace())?;
        spec.image()?;
        spec.memory_limit()?;
        for secret in &spec.secrets {
            if !lock(&self.secrets).contains_key(&SecretName::new(secret, name.namespace())?) {
                return Err(Error::invalid("no-such-secret", format!("unable to find secret: {secret}")));
            }
        }
        Ok(name)
    }

    fn check_namespace(&self, namespace: &str) -> Result<()> {
        if lock(&self.namespaces).contains_key(namespace) {
            return Ok(());
        }
        Err(Error::invalid("no-such-namespace", format!("namespace {namespace:?} does not exist")))
    }
}

#[async_trait]
impl Provider for FakeProvider {
    async fn deploy(&self, spec: FunctionSpec) -> Result<Deployed> {
        self.failure()?;
        let name = self.checked(&spec)?;
        let mut functions = lock(&self.functions);
        if functions.contains_key(&name) {
            return Err(Error::AlreadyExists(format!("function {name} already exists")));
        }
        functions.insert(name, status_of(spec));
        Ok(Deployed::Ready)
    }

    async fn update(&self, spec: FunctionSpec) -> Result<Deployed> {
        self.failure()?;
        let name = self.checked(&spec)?;
        let mut functions = lock(&self.functions);
        let old = functions.get_mut(&name).ok_or_else(|| unknown(&name))?;
        *old = FunctionStatus { created_at: old.created_at, ..status_of(spec) };
        Ok(Deployed::Ready)
    }

    async fn remove(&self, function: &FunctionName) -> Result<()> {
        self.failure()?;
        lock(&self.functions).remove(function).map(drop).ok_or_else(|| unknown(function))
    }

    async fn list(&self, namespace: &str) -> Result<Vec<FunctionStatus>> {
        self.failure()?;
        self.check_namespace(namespace)?;
        let listed = |status: &&FunctionStatus| status.spec.namespace == namespace;
        let mut found: Vec<_> = lock(&self.functions).values().filter(listed).cloned().collect();
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    async fn status(&self, function: &FunctionName) -> Result<FunctionStatus> {
        self.status_asked.fetch_add(1, Ordering::Relaxed);
        self.failure()?;
        lock(&self.functions).get(function).cloned().ok_or_else(|| unknown(function))
    }

    async fn usage(&self, function: &FunctionName) -> Result<Option<FunctionUsage>> {
        self.failure()?;
        let usage = FunctionUsage { cpu: Some(1.5), total_memory_bytes: 1_048_576.0 };
        lock(&self.functions).get(function).map(|_| Some(usage)).ok_or_else(|| unknown(function))
    }

    async fn scale(&self, function: &FunctionName, replicas: u64) -> Result<()> {
        self.failure()?;
        let mut functions = lock(&self.functions);
        let status = functions.get_mut(function).ok_or_else(|| unknown(function))?;
        (status.replicas, status.available_replicas) = (replicas, replicas);
        Ok(())
    }

    async fn invoke(&self, mut invocation: Invocation) -> Result<Response> {
        if invocation.request.extensions().get::<Admitted>().is_none() {
            self.admit(&invocation.function, invocation.request.headers_mut()).await?;
        }
        if !lock(&self.functions).contains_key(&invocation.function) {
            return Err(unknown(&invocation.function));
        }
        let running = Running::begin(&self.in_flight);
        let script = lock(&self.scripts).get(&invocation.function).cloned();
        let response = match script {
            Some(script) => script(invocation).await?,
            None => http::Response::new(invocation.request.into_body()),
        };
        Ok(response.map(|inner| UntilDropped { inner, _running: running }.boxed_unsync()))
    }

    fn runs_later(&self, function: &FunctionName) -> bool {
        lock(&self.functions).get(function).is_some_and(|status| status.spec.runs_later())
    }

    async fn admit(&self, function: &FunctionName, headers: &mut HeaderMap) -> Result<()> {
        if !lock(&self.functions).contains_key(function) {
            return Err(unknown(function));
        }
        match lock(&self.credentials).get(function) {
            Some(wanted) if headers.remove(AUTHORIZATION).as_ref() != Some(wanted) => {
                Err(Error::Unauthenticated { challenge: "Bearer".into() })
            }
            _ => Ok(()),
        }
    }

    async fn namespaces(&self) -> Result<Vec<String>> {
        self.failure()?;
        Ok(lock(&self.namespaces).keys().cloned().collect())
    }

    async fn namespace(&self, name: &str) -> Result<Namespace> {
        self.failure()?;
        lock(&self.namespaces).get(name).cloned().ok_or_else(|| no_namespace(name))
    }

    async fn create_namespace(&self, namespace: Namespace) -> Result<()> {
        self.failure()?;
        namespace.check()?;
        match lock(&self.namespaces).entry(namespace.name.clone()) {
            Entry::Occupied(_) => {
                Err(Error::AlreadyExists(format!("namespace {} already exists", namespace.name)))
            }
            Entry::Vacant(place) => {
                place.insert(namespace);
                Ok(())
            }
        }
    }

    async fn update_namespace(&self, namespace: Namespace) -> Result<()> {
        self.failure()?;
        let mut namespaces = lock(&self.namespaces);
        let old = namespaces.get_mut(&namespace.name).ok_or_else(|| no_namespace(&namespace.name))?;
        *old = namespace;
        Ok(())
    }

    async fn remove_namespace(&self, name: &str) -> Result<()> {
        self.failure()?;
        let in_use = name == DEFAULT_NAMESPACE
            || lock(&self.functions).keys().any(|function| function.namespace() == name);
        if in_use {
            return Err(Error::invalid("namespace-in-use", format!("namespace {name} is in use")));
        }
        lock(&self.secrets).retain(|secret, _| secret.namespace() != name);
        lock(&self.namespaces).remove(name).map(drop).ok_or_else(|| no_namespace(name))
    }

    async fn secrets(&self, namespace: &str) -> Result<Vec<SecretName>> {
        self.failure()?;
        self.check_namespace(namespace)?;
        let secrets = lock(&self.secrets);
        Ok(secrets.keys().filter(|secret| secret.namespace() == namespace).cloned().collect())
    }

    async fn create_secret(&self, name: &SecretName, value: SecretValue) -> Result<()> {
        self.failure()?;
        self.check_namespace(name.namespace())?;
        match lock(&self.secrets).entry(name.clone()) {
            Entry::Occupied(_) => Err(Error::AlreadyExists(format!("secret {name} already exists"))),
            Entry::Vacant(place) => {
                place.insert(value);
                Ok(())
            }
        }
    }

    async fn update_secret(&self, name: &SecretName, value: SecretValue) -> Result<()> {
        self.failure()?;
        self.check_namespace(name.namespace())?;
        let mut secrets = lock(&self.secrets);
        *secrets.get_mut(name).ok_or_else(|| no_secret(name))? = value;
        Ok(())
    }

    async fn remove_secret(&self, name: &SecretName) -> Result<()> {
        self.failure()?;
        self.check_namespace(name.namespace())?;
        lock(&self.secrets).remove(name).map(drop).ok_or_else(|| no_secret(name))
    }

    async fn logs(&self, query: LogQuery) -> Result<LogStream> {
        self.failure()?;
        let known = lock(&self.functions).contains_key(&query.function);
        let lines = match lock(&self.logs).get(&query.function) {
            None if !known => return Err(unknown(&query.function)),
            lines => lines.cloned().unwrap_or_default(),
        };
        let known_lines = lines.len();
        let since = |line: &LogLine| query.since.is_none_or(|since| line.timestamp >= since);
        let mut wanted: Vec<LogLine> = lines.into_iter().filter(since).collect();
        let tail = query.tail.map_or(usize::MAX, |tail| usize::try_from(tail).unwrap_or(usize::MAX));
        let lines = stream::iter(wanted.split_off(wanted.len().saturating_sub(tail)).into_iter().map(Ok));
        Ok(if query.follow {
            lines.chain(self.follow(query.function, known_lines)).boxed()
        } else {
            lines.boxed()
        })
    }

    async fn store_artifact(&self, module: Body, command: ModuleCommand) -> Result<StoredArtifact> {
        self.failure()?;
        let unreadable =
            |error| Error::invalid("incomplete-body", format!("the module cannot be read: {error}"));
        let bytes = module.collect().await.map_err(unreadable)?.to_bytes();
        if ArtifactKind::sniff(&bytes).is_none() {
            return Err(Error::invalid("not-wasm", "the body is not WebAssembly"));
        }
        command.check()?;
        let digest = Digest(Sha256::digest(&bytes).into());
        let named = match command == ModuleCommand::default() {
            true => digest,
            false => Digest(Sha256::digest(format!("{digest}{command:?}")).into()),
        };
        Ok(StoredArtifact { image: ImageReference::local(named).to_string(), digest })
    }

    async fn info(&self) -> Result<ProviderInfo> {
        self.failure()?;
        let version = VersionInfo { sha: "abc123".into(), release: "0.0.1".into() };
        Ok(ProviderInfo {
            provider: "fake".into(),
            version,
            orchestration: "memory".into(),
            details: lock(&self.details).clone(),
        })
    }

    async fn health(&self) -> Result<()> {
        self.failure()
    }
}

struct Running(Arc<watch::Sender<usize>>);

impl Running {
    fn begin(in_flight: &Arc<watch::Sender<usize>>) -> Self {
        in_flight.send_modify(|count| *count += 1);
        Self(Arc::clone(in_flight))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// A body that keeps its call counted as running.
struct UntilDropped {
    inner: Body,
    _running: Running,
}

impl http_body::Body for UntilDropped {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn no_namespace(name: &str) -> Error {
    Error::NotFound(format!("namespace {name} not found"))
}

fn no_secret(name: &SecretName) -> Error {
    Error::NotFound(format!("secret {name} not found"))
}

fn status_of(spec: FunctionSpec) -> FunctionStatus {
    let namespace =
        if spec.namespace.is_empty() { DEFAULT_NAMESPACE.to_owned() } else { spec.namespace.clone() };
    FunctionStatus {
        name: spec.service.clone(),
        spec: FunctionSpec { namespace, ..spec },
        invocation_count: 0.0,
        replicas: 1,
        available_replicas: 1,
        created_at: Timestamp::UNIX_EPOCH,
        usage: None,
        deployment: Deployment::new(Phase::Ready),
    }
}

fn unknown(function: &FunctionName) -> Error {
    Error::NotFound(format!("function {function} not found"))
}

#[expect(clippy::unwrap_used, reason = "a test that names a function wrongly should fail")]
fn valid(name: &str) -> FunctionName {
    FunctionName::parse(name).unwrap()
}

#[expect(clippy::unwrap_used, reason = "poisoned only by a test that has failed already")]
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider_suite;

    #[tokio::test]
    async fn keeps_the_contract() {
        provider_suite(async || FakeProvider::new() as Arc<dyn Provider>, b"\0asm\x01\0\0\0").await;
    }
}
