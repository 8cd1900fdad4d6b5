use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use reqwest::Url;
use runtime_api::{Artifact, Digest, Error, ImageReference, Result, canonical_registry};
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout},
};
use tracing::{info, warn};

use crate::{
    ArtifactSource, ArtifactStore, Fetched, Progress, PullPolicy, RegistryHost, Retries, auth::Access,
    disk::read_layout_below, endpoint::Endpoint, pipe::blocking, pull::Pull, transport::Transport,
};

/// The largest module that is taken, unless the operator says otherwise: ten times what large ones have.
pub const DEFAULT_MAX_MODULE_BYTES: u64 = 64 << 20;

/// How often a pull that takes long says in the log how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// How registries are reached.
#[derive(Clone, Debug, Default)]
pub struct RegistryConfig {
    /// Registries that are spoken to without encryption.
    pub plain_http: Vec<RegistryHost>,
    /// Hosts whose certificates are not verified.
    pub skip_tls_verification: Vec<RegistryHost>,
    /// Files of the authorities (PEM) that alone sign the certificates of a host.
    pub certificate_authorities: Vec<(RegistryHost, PathBuf)>,
    /// Files of the certificates (PEM) that we show to a host, with their keys unless these are in `client_keys`.
    pub client_certificates: Vec<(RegistryHost, PathBuf)>,
    /// Files of the keys (PEM) of `client_certificates`.
    pub client_keys: Vec<(RegistryHost, PathBuf)>,
    /// Registries and hosts outside their own domain that give tokens for them, and may have their credentials.
    pub realms: Vec<(RegistryHost, RegistryHost)>,
    /// Registries (as in image names) and what is asked before them, in order. A path stands before the images' names.
    pub mirrors: Vec<(String, Url)>,
    /// Registries that are never asked themselves, but their mirrors alone.
    pub mirrors_only: Vec<String>,
    /// Where images are looked for whose name begins with no registry, in order; none is `docker.io` alone.
    pub short_names: Vec<String>,
    /// Docker's `config.json` with credentials. It must exist.
    pub auth_file: Option<PathBuf>,
    /// The file to use where no `auth_file` is given. It need not exist.
    pub default_auth_file: Option<PathBuf>,
    /// Folders below which images may be read from disk.
    pub image_dirs: Vec<PathBuf>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How often things are tried.
    pub retries: Retries,
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

/// OCI registries, the store as the registry of what was uploaded, and image layouts in an operator's folders.
pub struct Registry {
    pub(crate) transport: Transport,
    pub(crate) store: ArtifactStore,
    pulls: Pulls,
}

impl Registry {
    /// Needs a process-wide TLS provider of `rustls` by the time of the first request.
    ///
    /// # Errors
    /// `Invalid` when the configuration cannot be meant, or a file that it names cannot be used.
    pub fn new(mut config: RegistryConfig, store: ArtifactStore) -> Result<Self> {
        let mirrored = config.mirrors.iter_mut().map(|(host, _)| host);
        for host in mirrored.chain(&mut config.mirrors_only).chain(&mut config.short_names) {
            *host = canonical_registry(host);
        }
        for (host, mirror) in &config.mirrors {
            let usable = matches!(mirror.scheme(), "http" | "https") && mirror.has_host();
            if !usable || !mirror.username().is_empty() || mirror.password().is_some() {
                let message =
                    format!("the mirror of {host} must be an http or https address without credentials");
                return Err(Error::invalid("invalid-mirror", message));
            }
        }
        let alone = |host: &&String| !config.mirrors.iter().any(|(mirrored, _)| mirrored == *host);
        if let Some(host) = config.mirrors_only.iter().find(alone) {
            let message = format!("{host} is not to be asked itself, and has no mirror");
            return Err(Error::invalid("invalid-mirror", message));
        }
        for host in &config.short_names {
            host.parse::<RegistryHost>()?;
        }
        if let Some(path) = config.auth_file.as_ref().filter(|path| !path.is_file()) {
            let message = format!("there is no file of registry credentials {}", path.display());
            return Err(Error::invalid("invalid-credentials", message));
        }
        Ok(Self { transport: Transport::new(config)?, store, pulls: Pulls::default() })
    }

    async fn local(&self, image: &ImageReference) -> Result<Artifact> {
        let missing = || Error::invalid("image-not-found", "no such module was uploaded to this node");
        let (store, digest) = (self.store.clone(), image.digest.ok_or_else(missing)?);
        let found =
            blocking(move || Ok(store.uploaded(&digest).filter(|artifact| store.renew(artifact)))).await?;
        found.ok_or_else(missing)
    }

    async fn pull(
        &self,
        image: &ImageReference,
        policy: PullPolicy,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Fetched> {
        let deadline = Instant::now() + self.transport.config.timeouts.total;
        let names = image.in_registries(&self.transport.config.short_names)?;
        let (count, mut others) = (names.len(), Vec::new());
        for (at, name) in names.iter().enumerate() {
            if let Some(fetched) = self.present(name, policy).await? {
                return Ok(fetched);
            }
            if policy == PullPolicy::Never {
                continue;
            }
            match self.pull_name(name, deadline, progress).await {
                // Only where a registry says that there is no such image: somebody else's of that name may be in the
                // next, and must not take the place of one that cannot be had just now.
                Err(Missed::Image(error)) if at + 1 < count => others.push(error),
                result => return result.map_err(|missed| after(others, missed.into())),
            }
        }
        if policy == PullPolicy::Never {
            let message = "it was not pulled to this node before, and the pull policy is Never: deploy it once with \
                           IfNotPresent, or upload it with `fawn deploy FILE`";
            return Err(Error::invalid("image-not-present", message));
        }
        Err(Error::internal("a short name means nothing"))
    }

    /// What is here of an image, as far as it need not be asked what its name means.
    async fn present(&self, image: &ImageReference, policy: PullPolicy) -> Result<Option<Fetched>> {
        let manifest = match (image.digest, policy) {
            (Some(pinned), _) => Some(pinned),
            (None, PullPolicy::Always) => None,
            (None, PullPolicy::IfNotPresent | PullPolicy::Never) => {
                let (store, image) = (self.store.clone(), image.clone());
                blocking(move || Ok(store.tagged(&image))).await?
            }
        };
        let Some(manifest) = manifest else { return Ok(None) };
        let artifact = self.recorded(manifest).await?;
        Ok(artifact.map(|artifact| Fetched { artifact, image: pinned(image, manifest) }))
    }

    /// Pulls from the mirrors in their order, and from the registry at last. What a mirror has and is wrong is an error;
    /// what it has not, or when it does not answer, is the next one's affair. None but the last may use up the time.
    async fn pull_name(
        &self,
        image: &ImageReference,
        deadline: Instant,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Fetched, Missed> {
        let endpoints = Endpoint::to_pull(image, &self.transport.config)?;
        let (count, mut others) = (endpoints.len(), Vec::new());
        for (at, endpoint) in endpoints.into_iter().enumerate() {
            let (last, host) = (at + 1 == count, endpoint.host.clone());
            let share = share(deadline.saturating_duration_since(Instant::now()), count - at);
            let pull = self.pull_from(endpoint, image, last, progress);
            // The last has all that is left, which is bounded with the whole.
            let pulled = if last { pull.await } else { within(share, &host, pull).await };
            match pulled {
                Err(missed) if !last && missed.is_passed_over() => {
                    let error = Error::from(missed);
                    warn!(%image, mirror = host, %error, "a mirror is passed over");
                    others.push(error);
                }
                result => return result.map_err(|missed| missed.map(|error| after(others, error))),
            }
        }
        Err(Error::internal("a registry has no endpoint").into())
    }

    async fn pull_from(
        &self,
        endpoint: Endpoint,
        image: &ImageReference,
        is_last: bool,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Fetched, Missed> {
        let place = endpoint.place();
        let mut session = self.transport.session(endpoint, Access::Pull);
        if !is_last {
            session.retries = session.retries.none();
        }
        let long = LongPull { image, told: Mutex::new(Instant::now()) };
        let progress = |so_far| {
            long.tell(so_far);
            progress(so_far);
        };
        let mut pull = Pull::new(session, &self.store, &progress);
        let (digest, manifest) = pull.manifest_of(image).await.map_err(Missed::manifest)?;
        let artifact = match self.recorded(digest).await? {
            Some(artifact) => artifact,
            None => self
                .pulls
                .of(place, digest)
                .get_or_try_init(|| pull.artifact(digest, &manifest))
                .await?
                .clone(),
        };
        if image.digest.is_none() {
            let (store, image) = (self.store.clone(), image.clone());
            blocking(move || store.tag(&image, digest)).await?;
        }
        Ok(Fetched { artifact, image: pinned(image, digest) })
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
        done.map_err(|error| reworded(error, |message| format!("image {image}: {message}")))
    }
}

#[async_trait]
impl ArtifactSource for Registry {
    async fn fetch(
        &self,
        image: &ImageReference,
        policy: PullPolicy,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Fetched> {
        if image.is_local() {
            let artifact = self.bounded(image, self.local(image)).await?;
            return Ok(Fetched { artifact, image: image.clone() });
        }
        if let Some(form) = image.layout() {
            let folders = &self.transport.config.image_dirs;
            let artifact = self.bounded(image, read_layout_below(folders, image, form, &self.store)).await?;
            return Ok(Fetched { artifact, image: image.clone() });
        }
        self.bounded(image, self.pull(image, policy, progress)).await
    }
}

/// Says now and then how far a pull is.
struct LongPull<'a> {
    image: &'a ImageReference,
    told: Mutex<Instant>,
}

impl LongPull<'_> {
    fn tell(&self, so_far: Progress) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() >= TOLD_EVERY {
            *told = Instant::now();
            let Progress { bytes_done, bytes_total } = so_far;
            info!(image = %self.image, bytes_done, bytes_total, "an image is still being pulled");
        }
    }
}

fn pinned(image: &ImageReference, manifest: Digest) -> ImageReference {
    ImageReference { tag: None, digest: Some(manifest), short_name: None, ..image.clone() }
}

/// Why an image could not be had from one place.
enum Missed {
    /// There is no such image: no manifest of that name.
    Image(Error),
    /// Whatever else failed.
    Other(Error),
}

impl Missed {
    /// Tells what a manifest failed for.
    fn manifest(error: Error) -> Self {
        if error.code() == "image-not-found" { Self::Image(error) } else { Self::Other(error) }
    }

    /// Whether another place that has the same image may be asked: this one has it not, or not for us, or it is the
    /// place that is not as it should be, and not what it has.
    fn is_passed_over(&self) -> bool {
        let (Self::Image(error) | Self::Other(error)) = self;
        const CODES: [&str; 4] = ["image-not-found", "unauthorized", "registry-refused", "not-a-registry"];
        matches!(error, Error::RegistryUnavailable { .. }) || CODES.contains(&error.code())
    }

    fn map(self, change: impl FnOnce(Error) -> Error) -> Self {
        match self {
            Self::Image(error) => Self::Image(change(error)),
            Self::Other(error) => Self::Other(change(error)),
        }
    }
}

impl From<Error> for Missed {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<Missed> for Error {
    fn from(missed: Missed) -> Self {
        let (Missed::Image(error) | Missed::Other(error)) = missed;
        error
    }
}

/// What one of so many may use of the time that is left.
fn share(left: Duration, among: usize) -> Duration {
    left / u32::try_from(among).unwrap_or(u32::MAX).max(1)
}

/// Bounds what is asked of a mirror. One that takes longer counts as down.
async fn within<T>(
    limit: Duration,
    host: &str,
    work: impl Future<Output = Result<T, Missed>>,
) -> Result<T, Missed> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        let message = format!("{host} was not done within {limit:?}, its share of the time");
        Err(Error::RegistryUnavailable { message, source: None }.into())
    })
}

/// The last of several failures, with what the others said.
fn after(others: Vec<Error>, last: Error) -> Error {
    let others: Vec<String> = others.iter().map(ToString::to_string).collect();
    reworded(last, |message| match others.as_slice() {
        [] => message,
        others => format!("{message}; before that, {}", others.join("; ")),
    })
}

/// The same error in other words.
fn reworded(error: Error, words: impl FnOnce(String) -> String) -> Error {
    match error {
        Error::Invalid { code, message } => Error::Invalid { code, message: words(message) },
        Error::Unavailable { message, source } => Error::Unavailable { message: words(message), source },
        Error::RegistryUnavailable { message, source } => {
            Error::RegistryUnavailable { message: words(message), source }
        }
        other => other,
    }
}

/// The pulls under way, by where from and manifest: whoever wants the same waits for the one that began, and goes on if
/// that fails. Nobody waits for another place, which may have a copy of the manifest alone.
#[derive(Default)]
struct Pulls(Mutex<HashMap<(String, Digest), Underway>>);

/// One pull, for as long as anybody wants it.
type Underway = Weak<OnceCell<Artifact>>;

impl Pulls {
    /// `place` is what [`Endpoint::place`] says.
    fn of(&self, place: String, manifest: Digest) -> Arc<OnceCell<Artifact>> {
        let key = (place, manifest);
        let mut pulls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.retain(|_, pull| pull.strong_count() > 0);
        if let Some(pull) = pulls.get(&key).and_then(Weak::upgrade) {
            return pull;
        }
        let pull = Arc::default();
        pulls.insert(key, Arc::downgrade(&pull));
        pull
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_pulls_the_same_from_the_same_place_waits() {
        let pulls = Pulls::default();
        let of = |place: &str, byte| pulls.of(place.to_owned(), Digest([byte; 32]));
        let pull = of("https://a.io/hello", 1);
        assert!(Arc::ptr_eq(&pull, &of("https://a.io/hello", 1)));
        assert!(!Arc::ptr_eq(&pull, &of("https://b.io/hello", 1)));
        assert!(!Arc::ptr_eq(&pull, &of("https://a.io/hello", 2)));
    }
}
