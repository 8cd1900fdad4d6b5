//! What tags meant when they were last pulled.

use std::{fs, io, path::Path};

use runtime_api::{Digest, Error, ImageReference, Result};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{ArtifactStore, manifest::digest_of, store::unwritable};

/// One tag, in a file that is named by the digest of the image's name.
#[derive(Serialize, Deserialize)]
struct Tag {
    image: String,
    manifest: Digest,
}

impl ArtifactStore {
    /// The manifest that the name of an image led to. Blocks on the disk.
    pub(crate) fn tagged(&self, image: &ImageReference) -> Option<Digest> {
        let image = image.to_string();
        let tag = read(&self.tag_path(&digest_of(image.as_bytes())))?;
        (tag.image == image).then_some(tag.manifest)
    }

    /// Remembers where the name of an image led. Blocks on the disk.
    pub(crate) fn tag(&self, image: &ImageReference, manifest: Digest) -> Result<()> {
        if self.tagged(image) == Some(manifest) {
            return Ok(());
        }
        let image = image.to_string();
        let path = self.tag_path(&digest_of(image.as_bytes()));
        let bytes = serde_json::to_vec(&Tag { image, manifest }).map_err(Error::internal)?;
        runtime_store::write_atomically(&path, &bytes, 0o600).map_err(|error| unwritable(&path, error))
    }

    /// Whether a file of a tag leads to a module that is here.
    pub(crate) fn leads_somewhere(&self, tag: &Path) -> bool {
        read(tag).is_some_and(|tag| self.recorded(&tag.manifest).is_some())
    }
}

fn read(path: &Path) -> Option<Tag> {
    let bytes = fs::read(path).inspect_err(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            warn!(path = %path.display(), %error, "what a tag meant cannot be read");
        }
    });
    let tag = serde_json::from_slice(&bytes.ok()?);
    tag.inspect_err(|error| warn!(path = %path.display(), %error, "what a tag meant cannot be read")).ok()
}
