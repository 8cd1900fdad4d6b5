//! Images as their producers push them.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use tar::{Builder, Header};

use crate::fake::{FakeRegistry, digest};

/// The smallest core module, and the smallest component.
pub(crate) const MODULE: &[u8] = b"\0asm\x01\0\0\0";
pub(crate) const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const CNCF_CONFIG: &str = "application/vnd.wasm.config.v0+json";
pub(crate) const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const WASM: &str = "application/wasm";

/// A module of so many bytes.
pub(crate) fn module_of(size: usize) -> Vec<u8> {
    let mut module = MODULE.to_vec();
    module.resize(size, 0);
    module
}

pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (path, data) in files {
        let mut header = Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, *data).unwrap();
    }
    tar.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

pub(crate) fn manifest(config: &Value, layers: &[Value]) -> Vec<u8> {
    let manifest =
        json!({"schemaVersion": 2, "mediaType": IMAGE_MANIFEST, "config": config, "layers": layers});
    manifest.to_string().into_bytes()
}

pub(crate) fn config(entrypoint: &[&str]) -> Vec<u8> {
    let config = json!({"Entrypoint": entrypoint, "Env": ["PATH=/bin", "A=b"], "WorkingDir": "/"});
    json!({"architecture": "amd64", "os": "linux", "config": config}).to_string().into_bytes()
}

impl FakeRegistry {
    /// Makes a blob available and describes it.
    pub(crate) fn blob(&self, name: &str, media_type: &str, bytes: &[u8]) -> Value {
        self.serve_at(format!("/v2/{name}/blobs/{}", digest(bytes)), bytes.to_vec());
        descriptor(media_type, bytes)
    }

    /// Makes a manifest available under a tag and its digest, which is answered.
    pub(crate) fn tag(&self, name: &str, tag: &str, manifest: &[u8]) -> String {
        let digest = digest(manifest);
        for reference in [tag, &digest] {
            self.serve_at(format!("/v2/{name}/manifests/{reference}"), manifest.to_vec());
        }
        digest
    }

    /// A CNCF artifact (`wkg oci push`).
    pub(crate) fn artifact(&self, name: &str, tag: &str, module: &[u8]) -> String {
        let config = self.blob(name, CNCF_CONFIG, br#"{"architecture":"wasm","os":"wasip1"}"#);
        let layer = self.blob(name, WASM, module);
        self.tag(name, tag, &manifest(&config, &[layer]))
    }

    /// A Docker image (`docker build`).
    pub(crate) fn docker_image(
        &self,
        name: &str,
        tag: &str,
        entrypoint: &[&str],
        layers: &[Vec<u8>],
    ) -> String {
        let config = self.blob(name, IMAGE_CONFIG, &config(entrypoint));
        let layers: Vec<Value> = layers.iter().map(|layer| self.blob(name, TAR, layer)).collect();
        self.tag(name, tag, &manifest(&config, &layers))
    }

    /// An index of manifests that are there, by platform.
    pub(crate) fn index(&self, name: &str, tag: &str, entries: &[(&str, &str, &[u8])]) -> String {
        let entry = |(os, architecture, manifest): &(&str, &str, &[u8])| {
            let mut entry = descriptor(IMAGE_MANIFEST, manifest);
            entry["platform"] = json!({"os": os, "architecture": architecture});
            entry
        };
        let manifests: Vec<Value> = entries.iter().map(entry).collect();
        let index = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
        self.tag(name, tag, index.as_bytes())
    }
}
