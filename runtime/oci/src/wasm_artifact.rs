//! What is written of a module, to a registry or to a layout on disk: the artifact of the CNCF's Wasm working group, or an
//! image where there is something to start it with.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use oci_client::manifest::{IMAGE_CONFIG_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest};
use runtime_api::{ArtifactKind, Digest, Error, ModuleCommand, Result};
use serde::Serialize;
use serde_json::json;

use crate::{
    layout::{CNCF_CONFIG, CNCF_LAYER},
    manifest::digest_of,
};

/// A module, and the documents that lead to it.
pub(crate) struct WasmArtifact {
    pub(crate) module: Bytes,
    pub(crate) config: Bytes,
    pub(crate) manifest: Bytes,
}

impl WasmArtifact {
    /// Other tools write the module to a file of that name, with `.wasm` behind it. Without a time, the same module makes
    /// the same documents.
    pub(crate) fn new(
        name: &str,
        module: Bytes,
        about: &ModuleDescription,
        created: Option<Timestamp>,
    ) -> Result<Self> {
        if ArtifactKind::sniff(&module) != Some(about.kind) {
            return Err(Error::invalid(
                "not-wasm",
                "the file to push is not the WebAssembly that it is said to be",
            ));
        }
        let (config_type, config) = match about.command == ModuleCommand::default() {
            true => (CNCF_CONFIG, wasm_config(&module, about, created)?),
            false => (IMAGE_CONFIG_MEDIA_TYPE, image_config(name, &module, about, created)?),
        };
        let manifest = manifest(name, &module, descriptor(config_type, &config)?)?;
        Ok(Self { module, config, manifest })
    }
}

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
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<Timestamp>,
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

fn wasm_config(module: &[u8], about: &ModuleDescription, created: Option<Timestamp>) -> Result<Bytes> {
    let component =
        Component { exports: &about.exports, imports: &about.imports, target: about.target.as_deref() };
    let config = WasmConfig {
        created,
        architecture: "wasm",
        os: about.os,
        layer_digests: [digest_of(module)],
        component: (about.os == WasmOs::Wasip2).then_some(component),
    };
    serde_json::to_vec(&config).map(Into::into).map_err(Error::internal)
}

/// OCI image-spec, "Image Configuration".
fn image_config(
    name: &str,
    module: &[u8],
    about: &ModuleDescription,
    created: Option<Timestamp>,
) -> Result<Bytes> {
    let ModuleCommand { args, env } = &about.command;
    let entrypoint: Vec<_> = std::iter::once(&format!("/{name}.wasm")).chain(args).cloned().collect();
    let env: Vec<_> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut config = json!({
        "architecture": "wasm",
        "os": about.os,
        "config": {"Entrypoint": entrypoint, "Env": env},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(module)]},
    });
    if let (Some(created), Some(fields)) = (created, config.as_object_mut()) {
        fields.insert("created".into(), json!(created));
    }
    serde_json::to_vec(&config).map(Into::into).map_err(Error::internal)
}

fn manifest(name: &str, module: &[u8], config: OciDescriptor) -> Result<Bytes> {
    let titled = |title: String| Some(BTreeMap::from([("org.opencontainers.image.title".to_owned(), title)]));
    let manifest = OciImageManifest {
        media_type: Some(OCI_IMAGE_MEDIA_TYPE.into()),
        config,
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
