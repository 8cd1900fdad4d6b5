use std::collections::BTreeMap;

use async_trait::async_trait;
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::{
    Body, Digest, FunctionName, FunctionSpec, FunctionStatus, FunctionUsage, Invocation, LogQuery, LogStream,
    ModuleCommand, Namespace, Response, Result, SecretName, SecretValue,
};

/// A thing that runs functions: in this process, behind HTTP, or many nodes as one.
///
/// One method for each route of the provider API (`OpenFaaS`), one for what `usage` adds to a status, and no other.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Deploys a function that does not exist yet.
    ///
    /// # Errors
    /// `AlreadyExists`; `Invalid` when the spec or its image is rejected, `StorageFull` when the disk has no room for it, and
    /// then nothing has changed.
    async fn deploy(&self, spec: FunctionSpec) -> Result<Deployed>;

    /// Replaces a function. Calls in flight finish on the old revision, and a rejected update leaves it serving.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when the spec or its image is rejected, `StorageFull` when the disk has no room for it, and then
    /// nothing has changed.
    async fn update(&self, spec: FunctionSpec) -> Result<Deployed>;

    /// Removes a function. Calls in flight finish.
    ///
    /// # Errors
    /// `NotFound`; `StorageFull` when the disk has no room even to note that.
    async fn remove(&self, function: &FunctionName) -> Result<()>;

    /// Every function of a namespace, sorted by name.
    ///
    /// # Errors
    /// `Invalid` when there is no such namespace.
    async fn list(&self, namespace: &str) -> Result<Vec<FunctionStatus>>;

    /// One function.
    ///
    /// # Errors
    /// `NotFound`.
    async fn status(&self, function: &FunctionName) -> Result<FunctionStatus>;

    /// What the instances of one function use now, where that is known: what `?usage=1` asks for besides its status.
    ///
    /// # Errors
    /// `NotFound`.
    async fn usage(&self, function: &FunctionName) -> Result<Option<FunctionUsage>>;

    /// Asks for that many replicas; zero unloads the function's code until the next call.
    ///
    /// # Errors
    /// `NotFound`.
    async fn scale(&self, function: &FunctionName, replicas: u64) -> Result<()>;

    /// Calls a function. The answer's body streams while the function runs; dropping it cancels the call.
    ///
    /// # Errors
    /// `NotFound`, `TooManyCalls`, `Overloaded`, `TimedOut`, `FunctionFailed`; `StorageFull` when the function's code was lost
    /// and the disk has no room for it.
    async fn invoke(&self, invocation: Invocation) -> Result<Response>;

    /// Whether plain calls of a function are to be kept and run later, as far as that is known without asking anybody.
    fn runs_later(&self, function: &FunctionName) -> bool {
        let _ = function;
        false
    }

    /// Lets in who would call a function with these headers, without calling it, and takes out of them what is not for
    /// the function to see: for calls that are kept, and run later as [`Admitted`](crate::Admitted). A provider that
    /// cannot tell leaves them as they are, and looks at them when the call is made.
    ///
    /// # Errors
    /// `NotFound`, `Unauthenticated`.
    async fn admit(&self, function: &FunctionName, headers: &mut HeaderMap) -> Result<()> {
        let _ = (function, headers);
        Ok(())
    }

    /// The names of the namespaces there are, sorted.
    ///
    /// # Errors
    /// `Unavailable` when they cannot be asked for.
    async fn namespaces(&self) -> Result<Vec<String>>;

    /// One namespace.
    ///
    /// # Errors
    /// `NotFound`.
    async fn namespace(&self, name: &str) -> Result<Namespace>;

    /// Makes a namespace.
    ///
    /// # Errors
    /// `AlreadyExists`; `Invalid` when its name cannot be one; `StorageFull`.
    async fn create_namespace(&self, namespace: Namespace) -> Result<()>;

    /// Replaces a namespace's labels and annotations.
    ///
    /// # Errors
    /// `NotFound`; `StorageFull`.
    async fn update_namespace(&self, namespace: Namespace) -> Result<()>;

    /// Removes a namespace with its secrets.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` while it has functions, and for the default one; `StorageFull`.
    async fn remove_namespace(&self, name: &str) -> Result<()>;

    /// The names of a namespace's secrets, sorted. Nothing tells their values but a function that may read them.
    ///
    /// # Errors
    /// `Invalid` when there is no such namespace.
    async fn secrets(&self, namespace: &str) -> Result<Vec<SecretName>>;

    /// Keeps a new secret.
    ///
    /// # Errors
    /// `AlreadyExists`; `Invalid` when there is no such namespace; `StorageFull`.
    async fn create_secret(&self, name: &SecretName, value: SecretValue) -> Result<()>;

    /// Gives a secret another value, which the next call of each function sees that names it.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when there is no such namespace; `StorageFull`.
    async fn update_secret(&self, name: &SecretName, value: SecretValue) -> Result<()>;

    /// Removes a secret. Functions that name it go on without it.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when there is no such namespace; `StorageFull`.
    async fn remove_secret(&self, name: &SecretName) -> Result<()>;

    /// A function's log. Dropping the stream ends it.
    ///
    /// # Errors
    /// `NotFound` when there is neither such a function nor a log of it; `Overloaded` when too many read logs already.
    async fn logs(&self, query: LogQuery) -> Result<LogStream>;

    /// Takes a module or component and keeps it, under a name that any deploy can use as its image. Deployed by that name,
    /// it is started with `command`, as that of an image.
    ///
    /// # Errors
    /// `Invalid` when the body is not WebAssembly or is too large, or the command cannot be given to a module;
    /// `StorageFull` when the disk has no room for it.
    async fn store_artifact(&self, module: Body, command: ModuleCommand) -> Result<StoredArtifact>;

    /// Who this is.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be asked.
    async fn info(&self) -> Result<ProviderInfo>;

    /// Whether calls can be taken now.
    ///
    /// # Errors
    /// `Unavailable` while starting or shutting down.
    async fn health(&self) -> Result<()>;
}

/// How far a deploy came by the time it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deployed {
    /// The new revision serves.
    Ready,
    /// Still pulling or compiling; the function's status tells the outcome.
    Pending,
}

/// A module kept by [`Provider::store_artifact`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredArtifact {
    /// What to give as `image` in a deploy.
    pub image: String,
    /// The digest of the module's bytes.
    pub digest: Digest,
}

/// Who a provider is (`OpenFaaS` ProviderInfo).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderInfo {
    /// Its name.
    pub provider: String,
    /// Its version.
    pub version: VersionInfo,
    /// What it runs functions with.
    pub orchestration: String,
    /// What it found to suit its machine: names and values for operators, beyond what `OpenFaaS` tells.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

impl ProviderInfo {
    /// The detail of a provider that wakes functions at zero replicas itself, so that nobody need do it before a call.
    pub const WAKES_FUNCTIONS: &str = "wakes-functions";

    /// Whether a call of a function at zero replicas wakes it.
    pub fn wakes_functions(&self) -> bool {
        self.details.get(Self::WAKES_FUNCTIONS).is_some_and(|value| value == "yes")
    }
}

/// A version (`OpenFaaS` VersionInfo).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// The commit it was built from, or `unknown`.
    pub sha: String,
    /// The released version.
    pub release: String,
}
