use std::{
    io::{Cursor, Read},
    sync::Arc,
};

use bytes::Bytes;
use oci_client::manifest::{OciDescriptor, OciImageManifest};
use runtime_api::{Artifact, Digest, Error, Result};

use crate::{
    ArtifactStore,
    image_config::{Entrypoint, ImageConfig, has_image_config},
    image_layers::{self, Finding},
    image_layout::ImageLayout,
    incoming::{Incoming, damaged},
    index::{choose, nested},
    layout::{Layout, detect, spin_application},
    manifest::{ACCEPTED, Content, Document, MAX_MANIFEST_BYTES, parse},
    pipe::blocking,
    pull::Pull,
    some_module::Candidates,
    spin::{Application, SpinModule},
};

/// Configurations, and descriptions of applications, are text of a few KiB.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// An image may hold other files beside its module: so many times the module's limit, packed and unpacked.
const LAYERS_PER_MODULE: u64 = 4;

/// Where the parts of an image are.
pub(crate) enum Blobs<'a> {
    Registry(Box<Pull<'a>>),
    Layout(Arc<ImageLayout>),
}

/// An image whose manifest is known, on its way into the store.
pub(crate) struct Image<'a> {
    blobs: Blobs<'a>,
    store: ArtifactStore,
}

impl Blobs<'_> {
    async fn manifest(&mut self, content: Content) -> Result<Bytes> {
        match self {
            Self::Registry(pull) => pull.document("manifests", content, ACCEPTED).await,
            Self::Layout(layout) => layout.document(content).await,
        }
    }

    async fn blob(&mut self, content: Content) -> Result<Bytes> {
        match self {
            Self::Registry(pull) => pull.document("blobs", content, "*/*").await,
            Self::Layout(layout) => layout.document(content).await,
        }
    }

    /// Passes a blob to `work`. What `work` makes of it is handed out only if the blob was right.
    async fn read<T: Send + 'static>(
        &mut self,
        content: Content,
        work: impl FnOnce(Box<dyn Read>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match self {
            Self::Registry(pull) => pull.download(content, |reader| work(Box::new(reader))).await,
            Self::Layout(layout) => layout.read(content, work).await,
        }
    }
}

impl<'a> Image<'a> {
    pub(crate) fn new(blobs: Blobs<'a>, store: &ArtifactStore) -> Self {
        Self { blobs, store: store.clone() }
    }

    /// Brings the module that a manifest leads to into the store, and remembers that it does.
    pub(crate) async fn artifact(mut self, digest: Digest, manifest: &[u8]) -> Result<Artifact> {
        let manifest = self.manifest(manifest).await?;
        let config = self.config(&manifest).await?;
        let artifact = match detect(&manifest, config.as_ref())? {
            Layout::Module(layer, entrypoint) => started(self.module(layer).await?, entrypoint),
            Layout::File(entrypoint) => self.file(&manifest.layers, entrypoint).await?,
            Layout::SomeFile(entrypoint) => self.some_file(&manifest.layers, entrypoint).await?,
            Layout::Spin(application) => self.spin(&manifest, application).await?,
        };
        let (store, recorded) = (self.store, artifact.clone());
        blocking(move || store.record(&digest, &recorded)).await?;
        Ok(artifact)
    }

    async fn manifest(&mut self, manifest: &[u8]) -> Result<Box<OciImageManifest>> {
        let index = match Document::parse(manifest)? {
            Document::Image(manifest) => return Ok(manifest),
            Document::Index(index) => index,
        };
        let content = Content::entry(choose(&index)?, MAX_MANIFEST_BYTES)?;
        match Document::parse(&self.blobs.manifest(content).await?)? {
            Document::Image(manifest) => Ok(manifest),
            Document::Index(_) => Err(nested()),
        }
    }

    /// The configuration, where it is an image's and something depends on it.
    async fn config(&mut self, manifest: &OciImageManifest) -> Result<Option<ImageConfig>> {
        if !has_image_config(manifest) || spin_application(manifest).is_some() {
            return Ok(None);
        }
        self.document(&manifest.config, "image's configuration").await.map(Some)
    }

    async fn document<T: serde::de::DeserializeOwned>(
        &mut self,
        part: &OciDescriptor,
        what: &str,
    ) -> Result<T> {
        let content = Content::new(&part.digest, part.size, MAX_CONFIG_BYTES, what)?;
        parse(&self.blobs.blob(content).await?, what)
    }

    async fn module(&mut self, layer: &OciDescriptor) -> Result<Artifact> {
        let content = Content::layer(layer, self.store.max_module_bytes())?;
        let store = self.store.clone();
        let receive = move |mut reader: Box<dyn Read>| Incoming::receive(&store, &mut reader, damaged);
        let incoming = self.blobs.read(content, receive).await?;
        blocking(|| incoming.keep()).await
    }

    async fn spin(&mut self, manifest: &OciImageManifest, application: &OciDescriptor) -> Result<Artifact> {
        let application: Application = self.document(application, "Spin application").await?;
        let found = application.module(manifest)?;
        let module = match found.module {
            SpinModule::Layer(layer) => self.module(layer).await?,
            SpinModule::Inline(bytes) => {
                let store = self.store.clone();
                blocking(move || Incoming::receive(&store, &mut Cursor::new(bytes), damaged)?.keep()).await?
            }
        };
        Ok(Artifact { env: found.env, ..module })
    }

    /// What layers may have, packed and unpacked.
    fn limit(&self) -> u64 {
        self.store.max_module_bytes().saturating_mul(LAYERS_PER_MODULE)
    }

    async fn file(&mut self, layers: &[OciDescriptor], entrypoint: Entrypoint) -> Result<Artifact> {
        let path: Arc<str> = entrypoint.path.as_str().into();
        let (mut packed, mut unpacked) = (self.limit(), self.limit());
        for layer in layers.iter().rev() {
            let content = Content::layer(layer, packed)?;
            packed -= content.size_bytes;
            let (store, path) = (self.store.clone(), path.clone());
            let search = move |reader| image_layers::search(reader, &path, unpacked, &store);
            match self.blobs.read(content, search).await? {
                Finding::File(incoming) => {
                    return Ok(started(blocking(|| incoming.keep()).await?, entrypoint));
                }
                Finding::Removed => break,
                Finding::Untouched { budget_bytes } => unpacked = budget_bytes,
            }
        }
        let message = format!("the image has no file /{path}, which is its entrypoint: copy the .wasm there");
        Err(Error::invalid("invalid-image-config", message))
    }

    async fn some_file(&mut self, layers: &[OciDescriptor], entrypoint: Entrypoint) -> Result<Artifact> {
        let mut candidates = Candidates::new(entrypoint.path.clone());
        let (mut packed, mut unpacked) = (self.limit(), self.limit());
        for layer in layers {
            let content = Content::layer(layer, packed)?;
            packed -= content.size_bytes;
            let store = self.store.clone();
            let read = move |reader| {
                let left = candidates.read_layer(reader, unpacked, &store)?;
                Ok((candidates, left))
            };
            (candidates, unpacked) = self.blobs.read(content, read).await?;
        }
        let (module, is_entrypoint) = candidates.choose()?;
        let module = blocking(|| module.keep()).await?;
        // The arguments of another program are not the module's.
        let args = if is_entrypoint { entrypoint.args } else { Vec::new() };
        Ok(Artifact { args, env: entrypoint.env, ..module })
    }
}

fn started(module: Artifact, entrypoint: Entrypoint) -> Artifact {
    Artifact { args: entrypoint.args, env: entrypoint.env, ..module }
}
