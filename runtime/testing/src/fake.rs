use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use async_trait::async_trait;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use jiff::Timestamp;
use runtime_api::{
    ArtifactKind, Body, BodyError, DEFAULT_NAMESPACE, Deployed, Deployment, Digest, Error, FunctionName,
    FunctionSpec, FunctionStatus, ImageReference, Invocation, ModuleCommand, Phase, Provider, ProviderInfo,
    Response, Result, StoredArtifact, VersionInfo,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

type Script = Arc<dyn Fn(Invocation) -> Pin<Box<dyn Future<Output = Result<Response>> + Send>> + Send + Sync>;

/// A provider in memory. A function answers what its script says, or else with the request's own body.
#[derive(Default)]
pub struct FakeProvider {
    functions: Mutex<BTreeMap<FunctionName, FunctionStatus>>,
    scripts: Mutex<HashMap<FunctionName, Script>>,
    failures: Mutex<VecDeque<Error>>,
    in_flight: Arc<watch::Sender<usize>>,
}

impl FakeProvider {
    /// Without functions, and with the namespaces `openfaas-fn` and `dev`.
    pub fn new() -> Arc<Self> {
        Arc::default()
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

    /// Lets the next operation that is not a call fail.
    pub fn fail_next(&self, error: Error) {
        lock(&self.failures).push_back(error);
    }

    /// How many calls are running: begun, and neither dropped nor read to their end.
    pub fn in_flight(&self) -> watch::Receiver<usize> {
        self.in_flight.subscribe()
    }

    fn failure(&self) -> Result<()> {
        lock(&self.failures).pop_front().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Provider for FakeProvider {
    async fn deploy(&self, spec: FunctionSpec) -> Result<Deployed> {
        self.failure()?;
        let name = checked(&spec)?;
        let mut functions = lock(&self.functions);
        if functions.contains_key(&name) {
            return Err(Error::AlreadyExists(format!("function {name} already exists")));
        }
        functions.insert(name, status_of(spec));
        Ok(Deployed::Ready)
    }

    async fn update(&self, spec: FunctionSpec) -> Result<Deployed> {
        self.failure()?;
        let name = checked(&spec)?;
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
        check_namespace(namespace)?;
        let listed = |status: &&FunctionStatus| status.spec.namespace == namespace;
        let mut found: Vec<_> = lock(&self.functions).values().filter(listed).cloned().collect();
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    async fn status(&self, function: &FunctionName) -> Result<FunctionStatus> {
        self.failure()?;
        lock(&self.functions).get(function).cloned().ok_or_else(|| unknown(function))
    }

    async fn scale(&self, function: &FunctionName, replicas: u64) -> Result<()> {
        self.failure()?;
        let mut functions = lock(&self.functions);
        let status = functions.get_mut(function).ok_or_else(|| unknown(function))?;
        (status.replicas, status.available_replicas) = (replicas, replicas);
        Ok(())
    }

    async fn invoke(&self, invocation: Invocation) -> Result<Response> {
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

    async fn namespaces(&self) -> Result<Vec<String>> {
        self.failure()?;
        Ok(NAMESPACES.map(str::to_owned).to_vec())
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
            details: BTreeMap::new(),
        })
    }

    async fn health(&self) -> Result<()> {
        self.failure()
    }
}

const NAMESPACES: [&str; 2] = [DEFAULT_NAMESPACE, "dev"];

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

fn checked(spec: &FunctionSpec) -> Result<FunctionName> {
    let name = spec.name()?;
    check_namespace(name.namespace())?;
    spec.image()?;
    spec.memory_limit()?;
    Ok(name)
}

fn check_namespace(namespace: &str) -> Result<()> {
    if NAMESPACES.contains(&namespace) {
        return Ok(());
    }
    Err(Error::invalid("no-such-namespace", format!("namespace {namespace:?} does not exist")))
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
        deployment: Deployment {
            phase: Phase::Ready,
            reason: String::new(),
            digest: String::new(),
            image: String::new(),
            kind: String::new(),
        },
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
