use async_trait::async_trait;
use runtime_api::{Artifact, ImageReference, Result};

/// Where artifacts come from.
#[async_trait]
pub trait ArtifactSource: Send + Sync {
    /// Brings what `image` names into the local store, and tells `progress` as bytes arrive.
    ///
    /// # Errors
    /// `Invalid` when the image is missing, refused or not WebAssembly; `RegistryUnavailable` when its registry does not answer.
    async fn fetch(
        &self,
        image: &ImageReference,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Artifact>;
}

/// How far a fetch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of layers that arrived.
    pub bytes_done: u64,
    /// Bytes of all layers known to be needed; grows when another layer turns out to be.
    pub bytes_total: u64,
}
