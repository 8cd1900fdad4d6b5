use std::str::FromStr;

use async_trait::async_trait;
use runtime_api::{Artifact, Error, ImageReference, Result};

/// Where artifacts come from.
#[async_trait]
pub trait ArtifactSource: Send + Sync {
    /// Brings what `image` names into the local store, and tells `progress` as bytes arrive.
    ///
    /// # Errors
    /// `Invalid` when the image is missing, refused or not WebAssembly; `RegistryUnavailable` when its registry does not
    /// answer; `StorageFull` when the disk has no room for it.
    async fn fetch(
        &self,
        image: &ImageReference,
        policy: PullPolicy,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Fetched>;
}

/// What an image turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its module.
    pub artifact: Artifact,
    /// Its full name, with the digest that its tag meant; of an image on disk or of an uploaded module, as it was written.
    pub image: ImageReference,
}

/// When a registry is asked (Kubernetes, `imagePullPolicy`). What is pinned by its digest and was pulled before is
/// never asked for again, and what was uploaded to the node is never asked for at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// What a tag means is asked each time. Nothing moves if it means what it meant; if not, all layers do that are
    /// needed, also those that both have.
    #[default]
    Always,
    /// A tag goes on meaning what it meant when it was last pulled.
    IfNotPresent,
    /// No registry is asked.
    Never,
}

impl FromStr for PullPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [("Always", Self::Always), ("IfNotPresent", Self::IfNotPresent), ("Never", Self::Never)];
        let found = all.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        found.map(|(_, policy)| policy).ok_or_else(|| {
            let message = format!("pull policy {text:?} is none: write Always, IfNotPresent or Never");
            Error::invalid("invalid-pull-policy", message)
        })
    }
}

/// How far a fetch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of layers that arrived.
    pub bytes_done: u64,
    /// Bytes of all layers known to be needed; grows when another layer turns out to be.
    pub bytes_total: u64,
}
