use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use oci_client::manifest::{IMAGE_CONFIG_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest};
use reqwest::{Response, StatusCode};
use runtime_api::{ArtifactKind, Digest, Error, ImageReference, ModuleCommand, Result};
use serde::Serialize;
use serde_json::json;

use crate::{
    Registry,
    auth::Access,
    endpoint::Endpoint,
    layout::{CNCF_CONFIG, CNCF_LAYER},
    manifest::digest_of,
    request::Request,
    retry::Attempt,
    session::{Session, location},
};

/// What is said of a module in its artifact's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleDescription {
    /// Core module or component.
    pub kind: ArtifactKind,
    /// Which WASI it is for.
    pub os: WasmOs,
    /// What a component imports.
    pub imports: Vec<String>,
    /// What a component exports.
    pub exports: Vec<String>,
    /// The world that a component is for, where it is known.
    pub target: Option<String>,
    /// What it is started with. The CNCF's layout has no place for that: such a module is pushed as an image whose layer is
    /// the module, as runwasi's are.
    pub command: ModuleCommand,
}

/// Which WASI a module is for, in the words of the CNCF's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WasmOs {
    /// WASI 0.1.
    Wasip1,
    /// WASI 0.2.
    Wasip2,
}

/// CNCF TAG Runtime, Wasm OCI Artifact layout v0.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WasmConfig<'a> {
    created: Timestamp,
    architecture: &'static str,
    os: WasmOs,
    layer_digests: [Digest; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<Component<'a>>,
}

#[derive(Serialize)]
struct Component<'a> {
    exports: &'a [String],
    imports: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
}

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
        if ArtifactKind::sniff(&module) != Some(about.kind) {
            return Err(Error::invalid(
                "not-wasm",
                "the file to push is not the WebAssembly that it is said to be",
            ));
        }
        if module.len() as u64 > self.store.max_module_bytes() {
            let limit = self.store.max_module_bytes();
            return Err(Error::invalid(
                "too-large",
                format!("the module is larger than {limit} bytes, the limit"),
            ));
        }
        let (config_type, config) = match about.command == ModuleCommand::default() {
            true => (CNCF_CONFIG, wasm_config(&module, about)?),
            false => (IMAGE_CONFIG_MEDIA_TYPE, image_config(&file_name(image), &module, about)?),
        };
        let manifest = manifest(image, &module, descriptor(config_type, &config)?)?;

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

fn wasm_config(module: &[u8], about: &ModuleDescription) -> Result<Bytes> {
    let component =
        Component { exports: &about.exports, imports: &about.imports, target: about.target.as_deref() };
    let config = WasmConfig {
        created: Timestamp::now(),
        architecture: "wasm",
        os: about.os,
        layer_digests: [digest_of(module)],
        component: (about.os == WasmOs::Wasip2).then_some(component),
    };
    serde_json::to_vec(&config).map(Into::into).map_err(Error::internal)
}

/// OCI image-spec, "Image Configuration".
fn image_config(file: &str, module: &[u8], about: &ModuleDescription) -> Result<Bytes> {
    let ModuleCommand { args, env } = &about.command;
    let entrypoint: Vec<_> = std::iter::once(&format!("/{file}")).chain(args).cloned().collect();
    let env: Vec<_> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let config = json!({
        "created": Timestamp::now(),
        "architecture": "wasm",
        "os": about.os,
        "config": {"Entrypoint": entrypoint, "Env": env},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(module)]},
    });
    serde_json::to_vec(&config).map(Into::into).map_err(Error::internal)
}

fn file_name(image: &ImageReference) -> String {
    format!("{}.wasm", image.repository.rsplit('/').next().unwrap_or_default())
}

fn manifest(image: &ImageReference, module: &[u8], config: OciDescriptor) -> Result<Bytes> {
    let name = image.repository.rsplit('/').next().unwrap_or_default();
    let titled = |title: String| Some(BTreeMap::from([("org.opencontainers.image.title".to_owned(), title)]));
    let manifest = OciImageManifest {
        media_type: Some(OCI_IMAGE_MEDIA_TYPE.into()),
        config,
        // The title of a layer is the name of the file that other tools write it to.
        layers: vec![OciDescriptor {
            annotations: titled(file_name(image)),
            ..descriptor(CNCF_LAYER, module)?
        }],
        annotations: titled(name.to_owned()),
        ..OciImageManifest::default()
    };
    serde_json::to_vec(&manifest).map(Into::into).map_err(Error::internal)
}

fn descriptor(media_type: &str, content: &[u8]) -> Result<OciDescriptor> {
    let size = i64::try_from(content.len()).map_err(Error::internal)?;
    let digest = digest_of(content).to_string();
    Ok(OciDescriptor { media_type: media_type.into(), digest, size, ..OciDescriptor::default() })
}
