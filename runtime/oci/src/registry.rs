use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use reqwest::Url;
use runtime_api::{Artifact, Digest, Error, ImageReference, Result};
use tokio::{sync::OnceCell, time::timeout};

use crate::{
    ArtifactSource, ArtifactStore, Progress, RegistryHost, auth::Access, endpoint::Endpoint, pipe::blocking,
    pull::Pull, transport::Transport,
};

/// The largest module that is taken, unless the operator says otherwise: ten times what large ones have.
pub const DEFAULT_MAX_MODULE_BYTES: u64 = 64 << 20;

/// How registries are reached.
#[derive(Clone, Debug, Default)]
pub struct RegistryConfig {
    /// Registries that are spoken to without encryption.
    pub plain_http: Vec<RegistryHost>,
    /// Hosts whose certificates are not verified.
    pub skip_tls_verification: Vec<RegistryHost>,
    /// Registries (as in image names) and what is asked in their place. A path stands before the images' names.
    pub mirrors: Vec<(String, Url)>,
    /// Docker's `config.json` with credentials. It must exist.
    pub auth_file: Option<PathBuf>,
    /// The file to use where no `auth_file` is given. It need not exist.
    pub default_auth_file: Option<PathBuf>,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until a connection is there, with TLS.
    pub connect: Duration,
    /// Between two pieces of an answer, and until its first; between two pieces that are sent.
    pub stall: Duration,
    /// A whole pull or push.
    pub total: Duration,
}

impl Default for Timeouts {
    /// A slow line gets 64 MiB through in ten minutes at 1 Mbit/s; one that is silent for half a minute is dead.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            total: Duration::from_secs(600),
        }
    }
}

/// OCI registries, and the store as the registry of what was uploaded.
pub struct Registry {
    pub(crate) transport: Transport,
    pub(crate) store: ArtifactStore,
    pulls: Pulls,
}

impl Registry {
    /// Needs a process-wide TLS provider of `rustls` by the time of the first request.
    ///
    /// # Errors
    /// `Invalid` when the configuration cannot be meant.
    pub fn new(config: RegistryConfig, store: ArtifactStore) -> Result<Self> {
        for (host, mirror) in &config.mirrors {
            let usable = matches!(mirror.scheme(), "http" | "https") && mirror.has_host();
            if !usable || !mirror.username().is_empty() || mirror.password().is_some() {
                let message =
                    format!("the mirror of {host} must be an http or https address without credentials");
                return Err(Error::invalid("invalid-mirror", message));
            }
        }
        if let Some(path) = config.auth_file.as_ref().filter(|path| !path.is_file()) {
            let message = format!("there is no file of registry credentials {}", path.display());
            return Err(Error::invalid("invalid-credentials", message));
        }
        Ok(Self { transport: Transport::new(config), store, pulls: Pulls::default() })
    }

    async fn local(&self, image: &ImageReference) -> Result<Artifact> {
        let missing = || Error::invalid("image-not-found", "no such module was uploaded to this node");
        let (store, digest) = (self.store.clone(), image.digest.ok_or_else(missing)?);
        let found = blocking(move || Ok(store.get(&digest).filter(|artifact| store.renew(artifact)))).await?;
        found.ok_or_else(missing)
    }

    async fn pull(
        &self,
        image: &ImageReference,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Artifact> {
        if let Some(pinned) = image.digest
            && let Some(artifact) = self.recorded(pinned).await?
        {
            return Ok(artifact);
        }
        let endpoint = Endpoint::to_pull(image, &self.transport.config)?;
        let mut pull = Pull::new(self.transport.session(endpoint, Access::Pull), &self.store, progress);
        let (digest, manifest) = pull.manifest_of(image).await?;
        if let Some(artifact) = self.recorded(digest).await? {
            return Ok(artifact);
        }
        let shared = self.pulls.of(digest);
        shared.get_or_try_init(|| pull.artifact(digest, &manifest)).await.cloned()
    }

    async fn recorded(&self, manifest: Digest) -> Result<Option<Artifact>> {
        let store = self.store.clone();
        blocking(move || Ok(store.recorded(&manifest).filter(|artifact| store.renew(artifact)))).await
    }

    /// Bounds a whole pull or push, and says which image an error is about.
    pub(crate) async fn bounded<T>(
        &self,
        image: &ImageReference,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let limit = self.transport.config.timeouts.total;
        let done = timeout(limit, work).await.unwrap_or_else(|_| {
            Err(Error::RegistryUnavailable { message: format!("not done within {limit:?}"), source: None })
        });
        done.map_err(|error| match error {
            Error::Invalid { code, message } => {
                Error::Invalid { code, message: format!("image {image}: {message}") }
            }
            Error::Unavailable { message, source } => {
                Error::Unavailable { message: format!("image {image}: {message}"), source }
            }
            Error::RegistryUnavailable { message, source } => {
                Error::RegistryUnavailable { message: format!("image {image}: {message}"), source }
            }
            other => other,
        })
    }
}

#[async_trait]
impl ArtifactSource for Registry {
    async fn fetch(
        &self,
        image: &ImageReference,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Artifact> {
        if image.is_local() {
            return self.bounded(image, self.local(image)).await;
        }
        self.bounded(image, self.pull(image, progress)).await
    }
}

/// The pulls under way, by manifest: whoever wants the same waits for the one that began, and goes on if that fails.
#[derive(Default)]
struct Pulls(Mutex<HashMap<Digest, Weak<OnceCell<Artifact>>>>);

impl Pulls {
    fn of(&self, manifest: Digest) -> Arc<OnceCell<Artifact>> {
        let mut pulls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.retain(|_, pull| pull.strong_count() > 0);
        if let Some(pull) = pulls.get(&manifest).and_then(Weak::upgrade) {
            return pull;
        }
        let pull = Arc::default();
        pulls.insert(manifest, Arc::downgrade(&pull));
        pull
    }
}
