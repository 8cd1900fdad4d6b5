//! A store and a client, set up for a fake registry.

use std::{
    path::{Path, PathBuf},
    sync::Once,
    time::Duration,
};

use runtime_api::{Artifact, ImageReference, Result};
use runtime_oci::{
    ArtifactSource, ArtifactStore, Fetched, PullPolicy, Registry, RegistryConfig, Retries, Timeouts,
};
use tempfile::TempDir;

use crate::fake::FakeRegistry;

/// The limit of a module in these tests.
pub(crate) const MAX_MODULE_BYTES: u64 = 1 << 20;

pub(crate) struct Bench {
    pub(crate) fake: FakeRegistry,
    pub(crate) registry: Registry,
    pub(crate) store: ArtifactStore,
    pub(crate) folder: TempDir,
}

impl Bench {
    pub(crate) async fn start() -> Self {
        Self::configured(|_| {}).await
    }

    pub(crate) async fn configured(configure: impl FnOnce(&mut RegistryConfig)) -> Self {
        let fake = FakeRegistry::start().await;
        Self::with(fake, |config, fake, _| {
            config.plain_http.push(fake.address.to_string().parse().unwrap());
            configure(config);
        })
    }

    /// Logged in at the fake registry as `me` with the password `secret`.
    pub(crate) async fn logged_in() -> Self {
        // Base64 of me:secret.
        Self::logged_in_with(r#"{"auth": "bWU6c2VjcmV0"}"#).await
    }

    /// Logged in at the fake registry with an entry of Docker's `config.json`.
    pub(crate) async fn logged_in_with(entry: &str) -> Self {
        let fake = FakeRegistry::start().await;
        Self::with(fake, |config, fake, folder| {
            let file = folder.join("config.json");
            std::fs::write(&file, format!(r#"{{"auths": {{"{}": {entry}}}}}"#, fake.address)).unwrap();
            config.plain_http.push(fake.address.to_string().parse().unwrap());
            config.auth_file = Some(file);
        })
    }

    pub(crate) fn with(
        fake: FakeRegistry,
        configure: impl FnOnce(&mut RegistryConfig, &FakeRegistry, &Path),
    ) -> Self {
        install_provider();
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path(), MAX_MODULE_BYTES).unwrap();
        let timeouts = Timeouts { stall: Duration::from_millis(500), ..Timeouts::default() };
        let pause = Duration::from_millis(1);
        let retries = Retries { times: 2, first_pause: pause, longest_pause: pause };
        let mut config = RegistryConfig { timeouts, retries, ..RegistryConfig::default() };
        configure(&mut config, &fake, folder.path());
        let registry = Registry::new(config, store.clone()).unwrap();
        Self { fake, registry, store, folder }
    }

    /// Fetches an image of the fake registry.
    pub(crate) async fn fetch(&self, image: &str) -> Result<Artifact> {
        self.fetch_elsewhere(&self.fake.image(image)).await
    }

    pub(crate) async fn fetch_elsewhere(&self, image: &str) -> Result<Artifact> {
        self.fetch_as(image, PullPolicy::Always).await.map(|fetched| fetched.artifact)
    }

    /// Fetches an image by its full name under a policy.
    pub(crate) async fn fetch_as(&self, image: &str, policy: PullPolicy) -> Result<Fetched> {
        self.registry.fetch(&ImageReference::parse(image).unwrap(), policy, &|_| {}).await
    }

    /// The error that fetching ends with, its code first, after making sure that it left nothing behind.
    pub(crate) async fn refusal(&self, image: &str) -> String {
        self.refusal_elsewhere(&self.fake.image(image)).await
    }

    pub(crate) async fn refusal_elsewhere(&self, image: &str) -> String {
        let error = self.fetch_elsewhere(image).await.expect_err("it was taken");
        assert_eq!(self.files(), Vec::<PathBuf>::new(), "left behind by {error}");
        format!("{}: {error}", error.code())
    }

    /// Every file of the store.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let folders = ["modules", "manifests", "tags", "tmp"].map(|name| self.folder.path().join(name));
        let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

/// As `main` does.
pub(crate) fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
}
