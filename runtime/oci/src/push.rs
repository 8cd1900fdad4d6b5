use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol},
    errors::OciDistributionError,
    manifest::{OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest},
    secrets::RegistryAuth,
};
use reqwest::header::HeaderValue;
use runtime_api::{ArtifactKind, Digest, Error, ImageReference, Result};
use serde::Serialize;

use crate::{
    Registry,
    auth::{Access, Authorization},
    endpoint::{Endpoint, authority},
    layout::{CNCF_CONFIG, CNCF_LAYER},
    manifest::digest_of,
    transport::Session,
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
    /// `Invalid` when the module or its name cannot be pushed or the registry refuses; `Unavailable` when it does not
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
        let tag = match (&image.tag, image.digest, image.is_local()) {
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
        let config = wasm_config(&module, about)?;
        let manifest = manifest(image, &module, &config)?;

        let mut session = self.transport.session(Endpoint::registry(image, &self.transport.config)?);
        session.prepare(Access::Push).await?;
        let client = self.client(&session)?;
        let target = Reference::with_tag(authority(session.endpoint.base()), image.repository.clone(), tag);
        client.store_auth_if_needed(target.registry(), &credentials(session.authorization.as_ref())).await;
        for blob in [module, config] {
            let digest = digest_of(&blob).to_string();
            client.push_blob(&target, blob, &digest).await.map_err(|error| refused(&session, error))?;
        }
        let digest = digest_of(&manifest);
        let media_type = HeaderValue::from_static(OCI_IMAGE_MEDIA_TYPE);
        let pushed = client.push_manifest_raw(&target, manifest, media_type).await;
        pushed.map(|_| digest).map_err(|error| refused(&session, error))
    }

    fn client(&self, session: &Session<'_>) -> Result<Client> {
        let timeouts = self.transport.config.timeouts;
        let protocol = if session.endpoint.is_plain() { ClientProtocol::Http } else { ClientProtocol::Https };
        let config = ClientConfig {
            protocol,
            accept_invalid_certificates: session.transport.skips_verification(session.endpoint.base()),
            connect_timeout: Some(timeouts.connect),
            read_timeout: Some(timeouts.stall),
            user_agent: concat!("fawn/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        Client::try_from(config).map_err(|error| Error::unavailable("no client to push with", error))
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

fn manifest(image: &ImageReference, module: &[u8], config: &[u8]) -> Result<Bytes> {
    let name = image.repository.rsplit('/').next().unwrap_or_default();
    let titled = |title: String| Some(BTreeMap::from([("org.opencontainers.image.title".to_owned(), title)]));
    let manifest = OciImageManifest {
        media_type: Some(OCI_IMAGE_MEDIA_TYPE.into()),
        config: descriptor(CNCF_CONFIG, config)?,
        // The title of a layer is the name of the file that other tools write it to.
        layers: vec![OciDescriptor {
            annotations: titled(format!("{name}.wasm")),
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

fn credentials(authorization: Option<&Authorization>) -> RegistryAuth {
    match authorization {
        Some(Authorization::Basic { username, password }) => {
            RegistryAuth::Basic(username.clone(), password.clone())
        }
        Some(Authorization::Bearer { token, .. }) => RegistryAuth::Bearer(token.clone()),
        None => RegistryAuth::Anonymous,
    }
}

fn refused(session: &Session<'_>, error: OciDistributionError) -> Error {
    let host = &session.endpoint.host;
    match error {
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
            session.denied(host)
        }
        OciDistributionError::ServerError { code: 401 | 403, .. } => session.denied(host),
        OciDistributionError::ServerError { code, ref message, .. } if code < 500 => {
            let message: String = message.chars().take(200).collect();
            Error::invalid("registry-refused", format!("{host} refuses the push ({code}): {message}"))
        }
        OciDistributionError::RegistryError { ref envelope, .. } => {
            Error::invalid("registry-refused", format!("{host} refuses the push: {envelope}"))
        }
        error => Error::unavailable(format!("{host} did not take the push"), error),
    }
}
