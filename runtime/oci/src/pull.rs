use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use oci_client::manifest::{OciDescriptor, OciImageManifest};
use reqwest::Response;
use runtime_api::{Artifact, Digest, Error, ImageReference, Result};

use crate::{
    ArtifactStore, Progress,
    image_layers::{self, Finding},
    incoming::Incoming,
    layout::{self, Entrypoint, ImageConfig, Layout},
    manifest::{ACCEPTED, Check, Content, Document, digest_of, expect, parse},
    pipe::{Pipe, Reader, blocking},
    session::Session,
};

const MAX_MANIFEST_BYTES: u64 = 4 << 20;
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// An image may hold other files beside its module: so many times the module's limit, packed and unpacked.
const LAYERS_PER_MODULE: u64 = 4;

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
        let response = self.session.get(url, ACCEPTED, &what).await?;
        let claimed = response.headers().get("docker-content-digest").cloned();
        let manifest = self.session.read_all(response, MAX_MANIFEST_BYTES, "manifest").await?;
        let digest = digest_of(&manifest);
        if let Some(pinned) = image.digest {
            expect(pinned, digest)?;
        }
        if let Some(claimed) = claimed {
            expect(claimed.to_str().unwrap_or_default().parse()?, digest)?;
        }
        Ok((digest, manifest))
    }

    /// Brings the module that a manifest leads to into the store, and remembers that it does.
    pub(crate) async fn artifact(mut self, digest: Digest, manifest: &[u8]) -> Result<Artifact> {
        let manifest = self.image_manifest(manifest).await?;
        let config = match layout::has_image_config(&manifest) {
            true => Some(self.image_config(&manifest.config).await?),
            false => None,
        };
        let artifact = match layout::detect(&manifest, config.as_ref())? {
            Layout::Module(layer) => self.module(layer).await?,
            Layout::Image(entrypoint) => self.file_of_image(&manifest.layers, entrypoint).await?,
        };
        let (store, recorded) = (self.store.clone(), artifact.clone());
        blocking(move || store.record(&digest, &recorded)).await?;
        Ok(artifact)
    }

    async fn image_manifest(&mut self, manifest: &[u8]) -> Result<Box<OciImageManifest>> {
        let index = match Document::parse(manifest)? {
            Document::Image(manifest) => return Ok(manifest),
            Document::Index(index) => index,
        };
        let content = Content::entry(layout::choose(&index)?, MAX_MANIFEST_BYTES)?;
        match Document::parse(&self.document("manifests", content, ACCEPTED).await?)? {
            Document::Image(manifest) => Ok(manifest),
            Document::Index(_) => Err(Error::invalid(
                "unsupported-artifact",
                "an index within an index is not supported: push a plain one",
            )),
        }
    }

    async fn image_config(&mut self, config: &OciDescriptor) -> Result<ImageConfig> {
        let content = Content::new(&config.digest, config.size, MAX_CONFIG_BYTES, "configuration")?;
        parse(&self.document("blobs", content, "*/*").await?, "image's configuration")
    }

    async fn document(&mut self, kind: &str, content: Content, accept: &'static str) -> Result<Bytes> {
        let digest = content.digest.to_string();
        let url = self.session.endpoint.url(kind, &digest)?;
        let mut response = self.session.get(url, accept, &digest).await?;
        let (mut bytes, mut check) = (BytesMut::new(), Check::new(content));
        while let Some(chunk) = self.session.next_chunk(&mut response).await? {
            check.update(&chunk)?;
            bytes.extend_from_slice(&chunk);
        }
        check.finish()?;
        Ok(bytes.freeze())
    }

    async fn module(&mut self, layer: &OciDescriptor) -> Result<Artifact> {
        let content = Content::layer(layer, self.store.max_module_bytes())?;
        let store = self.store.clone();
        let receive = move |mut reader: Reader| Incoming::receive(&store, &mut reader, Error::internal);
        let incoming = self.download(content, receive).await?;
        blocking(|| incoming.keep()).await
    }

    async fn file_of_image(&mut self, layers: &[OciDescriptor], entrypoint: Entrypoint) -> Result<Artifact> {
        let path: Arc<str> = entrypoint.path.into();
        let limit = self.store.max_module_bytes().saturating_mul(LAYERS_PER_MODULE);
        let (mut packed, mut unpacked) = (limit, limit);
        for layer in layers.iter().rev() {
            let content = Content::layer(layer, packed)?;
            packed -= content.size_bytes;
            let (store, path) = (self.store.clone(), path.clone());
            let search = move |reader: Reader| image_layers::search(reader, &path, unpacked, &store);
            match self.download(content, search).await? {
                Finding::File(incoming) => {
                    let module = blocking(|| incoming.keep()).await?;
                    return Ok(Artifact { args: entrypoint.args, env: entrypoint.env, ..module });
                }
                Finding::Removed => break,
                Finding::Untouched { budget_bytes } => unpacked = budget_bytes,
            }
        }
        let message = format!("the image has no file /{path}, which is its entrypoint: copy the .wasm there");
        Err(Error::invalid("invalid-image-config", message))
    }

    /// Passes a blob to `work` while it arrives. What `work` makes of it is handed out only if the blob was right.
    async fn download<T: Send + 'static>(
        &mut self,
        content: Content,
        work: impl FnOnce(Reader) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let digest = content.digest.to_string();
        let url = self.session.endpoint.url("blobs", &digest)?;
        let response = self.session.get(url, "*/*", &digest).await?;
        self.so_far.bytes_total += content.size_bytes;
        let mut pipe = Pipe::start(work);
        let fed = self.feed(response, Check::new(content), &mut pipe).await;
        pipe.finish(fed).await
    }

    async fn feed<T: Send + 'static>(
        &mut self,
        mut response: Response,
        mut check: Check,
        pipe: &mut Pipe<T>,
    ) -> Result<()> {
        while let Some(chunk) = self.session.next_chunk(&mut response).await? {
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
