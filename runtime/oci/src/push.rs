use bytes::Bytes;
use jiff::Timestamp;
use oci_client::manifest::OCI_IMAGE_MEDIA_TYPE;
use reqwest::{Response, StatusCode};
use runtime_api::{Digest, Error, ImageReference, Result};

use crate::{
    Registry,
    auth::Access,
    endpoint::Endpoint,
    manifest::digest_of,
    request::Request,
    retry::Attempt,
    session::{Session, location},
    wasm_artifact::{ModuleDescription, WasmArtifact},
};

impl Registry {
    /// Pushes a module to its registry (never to a mirror) and answers the digest of its manifest.
    ///
    /// # Errors
    /// `Invalid` when the module or its name cannot be pushed or the registry refuses; `RegistryUnavailable` when it does not
    /// answer.
    pub async fn push(
        &self,
        image: &ImageReference,
        module: Bytes,
        description: ModuleDescription,
    ) -> Result<Digest> {
        self.bounded(image, self.push_unbounded(image, module, &description)).await
    }

    async fn push_unbounded(
        &self,
        image: &ImageReference,
        module: Bytes,
        about: &ModuleDescription,
    ) -> Result<Digest> {
        let elsewhere = image.is_local() || image.layout().is_some();
        let tag = match (&image.tag, image.digest, elsewhere) {
            (Some(tag), None, false) => tag.clone(),
            _ => {
                return Err(Error::invalid(
                    "invalid-image",
                    "a push needs a registry, a name and a tag, and no digest",
                ));
            }
        };
        if module.len() as u64 > self.store.max_module_bytes() {
            let limit = self.store.max_module_bytes();
            return Err(Error::invalid(
                "too-large",
                format!("the module is larger than {limit} bytes, the limit"),
            ));
        }
        let name = image.repository.rsplit('/').next().unwrap_or_default();
        let WasmArtifact { module, config, manifest } =
            WasmArtifact::new(name, module, about, Some(Timestamp::now()))?;

        let endpoint = Endpoint::registry(image, &self.transport.config)?;
        let mut session = self.transport.session(endpoint, Access::Push);
        session.prepare().await?;
        session.push_blob(module).await?;
        session.push_blob(config).await?;
        session.push_manifest(&tag, manifest).await
    }
}

/// OCI distribution-spec, "Pushing". It all goes to the registry or where that says, within the bounds of a pull.
impl Session<'_> {
    async fn push_blob(&mut self, blob: Bytes) -> Result<()> {
        let mut backoff = self.retries.begin();
        loop {
            match self.try_push_blob(blob.clone()).await {
                Ok(()) => return Ok(()),
                Err(failure) => backoff.pass(failure).await?,
            }
        }
    }

    async fn try_push_blob(&mut self, blob: Bytes) -> Attempt<()> {
        let digest = digest_of(&blob).to_string();
        let there = self.ask(&self.endpoint.url("blobs", &digest)?, &Request::head()).await?;
        if there.status() == StatusCode::OK {
            return Ok(());
        }
        let begun = self.ask(&self.endpoint.url("blobs", "uploads/")?, &Request::post()).await?;
        let begun = self.taken(begun, "the upload").await?;
        let mut url = location(&begun)?;
        url.query_pairs_mut().append_pair("digest", &digest);
        let put = self.ask(&url, &Request::put("application/octet-stream", blob)).await?;
        self.taken(put, &digest).await.map(drop)
    }

    async fn push_manifest(&mut self, tag: &str, manifest: Bytes) -> Result<Digest> {
        let digest = digest_of(&manifest);
        let request = Request::put(OCI_IMAGE_MEDIA_TYPE, manifest);
        let mut backoff = self.retries.begin();
        loop {
            match self.try_push_manifest(tag, &request).await {
                Ok(()) => return Ok(digest),
                Err(failure) => backoff.pass(failure).await?,
            }
        }
    }

    async fn try_push_manifest(&mut self, tag: &str, request: &Request) -> Attempt<()> {
        let put = self.ask(&self.endpoint.url("manifests", tag)?, request).await?;
        self.taken(put, "the manifest").await.map(drop)
    }

    async fn taken(&self, response: Response, what: &str) -> Attempt<Response> {
        match response.status().is_success() {
            true => Ok(response),
            false => Err(self.refusal(response, what).await),
        }
    }
}
