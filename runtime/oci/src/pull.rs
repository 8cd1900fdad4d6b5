use bytes::{Bytes, BytesMut};
use runtime_api::{Artifact, Digest, ImageReference, Result};

use crate::{
    ArtifactStore, Progress,
    image::{Blobs, Image},
    manifest::{ACCEPTED, Check, Content, MAX_MANIFEST_BYTES, digest_of, expect},
    pipe::{Pipe, Reader},
    session::Session,
};

/// One image on its way from its registry into the store.
pub(crate) struct Pull<'a> {
    session: Session<'a>,
    store: &'a ArtifactStore,
    progress: &'a (dyn Fn(Progress) + Send + Sync),
    so_far: Progress,
}

impl<'a> Pull<'a> {
    pub(crate) fn new(
        session: Session<'a>,
        store: &'a ArtifactStore,
        progress: &'a (dyn Fn(Progress) + Send + Sync),
    ) -> Self {
        Self { session, store, progress, so_far: Progress::default() }
    }

    /// What the registry has under the image's digest or tag.
    pub(crate) async fn manifest_of(&mut self, image: &ImageReference) -> Result<(Digest, Bytes)> {
        let tag = image.tag.as_deref().unwrap_or("latest");
        let (reference, what) = match image.digest {
            Some(digest) => (digest.to_string(), format!("manifest {digest}")),
            None => (tag.to_owned(), format!("image {:?} with the tag {tag:?}", image.repository)),
        };
        let url = self.session.endpoint.url("manifests", &reference)?;
        let (headers, manifest) = self.session.manifest(&url, ACCEPTED, &what, MAX_MANIFEST_BYTES).await?;
        let claimed = headers.get("docker-content-digest");
        let digest = digest_of(&manifest);
        if let Some(pinned) = image.digest {
            expect(pinned, digest)?;
        }
        if let Some(claimed) = claimed {
            expect(claimed.to_str().unwrap_or_default().parse()?, digest)?;
        }
        // Whoever has the image is worth waiting for, also where there are others to ask.
        self.session.retries = self.session.transport.config.retries;
        Ok((digest, manifest))
    }

    /// Brings the module that a manifest leads to into the store, and remembers that it does.
    pub(crate) async fn artifact(self, digest: Digest, manifest: &[u8]) -> Result<Artifact> {
        let store = self.store;
        Image::new(Blobs::Registry(Box::new(self)), store).artifact(digest, manifest).await
    }

    /// Reads a whole blob or manifest that must be small.
    pub(crate) async fn document(
        &mut self,
        kind: &str,
        content: Content,
        accept: &'static str,
    ) -> Result<Bytes> {
        let mut transfer = self.session.transfer(kind, content, accept)?;
        let (mut bytes, mut check) = (BytesMut::new(), Check::new(content));
        while let Some(chunk) = transfer.next(&mut self.session).await? {
            check.update(&chunk)?;
            bytes.extend_from_slice(&chunk);
        }
        check.finish()?;
        Ok(bytes.freeze())
    }

    /// Passes a blob to `work` while it arrives. What `work` makes of it is handed out only if the blob was right.
    pub(crate) async fn download<T: Send + 'static>(
        &mut self,
        content: Content,
        work: impl FnOnce(Reader) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.so_far.bytes_total += content.size_bytes;
        let mut pipe = Pipe::start(work);
        let fed = self.feed(content, &mut pipe).await;
        pipe.finish(fed).await
    }

    async fn feed<T: Send + 'static>(&mut self, content: Content, pipe: &mut Pipe<T>) -> Result<()> {
        let mut transfer = self.session.transfer("blobs", content, "*/*")?;
        let mut check = Check::new(content);
        while let Some(chunk) = transfer.next(&mut self.session).await? {
            check.update(&chunk)?;
            if !pipe.write(&chunk).await {
                return Ok(());
            }
            self.so_far.bytes_done += chunk.len() as u64;
            (self.progress)(self.so_far);
        }
        check.finish()
    }
}
