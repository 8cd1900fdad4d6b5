//! The layouts in which WebAssembly lies in registries, made by hand: nothing of ours checks itself.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::registry::Registry;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What a registry keeps under a digest.
pub(crate) struct Blob {
    pub(crate) media_type: &'static str,
    pub(crate) digest: String,
    pub(crate) bytes: Vec<u8>,
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        Self { media_type, digest: digest(&bytes), bytes }
    }

    fn json(media_type: &'static str, value: &Value) -> Self {
        Self::new(media_type, value.to_string().into_bytes())
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len() })
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Registry {
    /// Pushes an artifact as the CNCF's Wasm working group lays it out, and gives its reference.
    pub(crate) async fn push_artifact(&self, repository: &str, tag: &str, module: &[u8]) -> String {
        let layer = Blob::new("application/wasm", module.to_vec());
        let config = Blob::json(
            "application/vnd.wasm.config.v0+json",
            &json!({ "architecture": "wasm", "os": "wasip1", "layerDigests": [layer.digest] }),
        );
        self.push(repository, tag, &config, &layer).await;
        self.image(&format!("{repository}:{tag}"))
    }

    /// Pushes what `FROM scratch`, `COPY app.wasm /app.wasm`, `ENTRYPOINT ["/app.wasm"]` makes for one platform.
    pub(crate) async fn push_scratch_image(&self, repository: &str, tag: &str, module: &[u8]) -> String {
        self.push_image(repository, tag, ("linux", "amd64"), module).await;
        self.image(&format!("{repository}:{tag}"))
    }

    /// Pushes an index with a native image, a Wasm image and an attestation, as a build for several platforms makes.
    pub(crate) async fn push_index(&self, repository: &str, tag: &str, module: &[u8]) -> String {
        let native = self.push_image(repository, "native", ("linux", "amd64"), b"\x7fELF, so to speak").await;
        let wasm = self.push_image(repository, "wasm", ("wasip1", "wasm"), module).await;
        let attestation = self.push_image(repository, "attestation", ("unknown", "unknown"), b"{}").await;
        let entry = |manifest: &Blob, os: &str, architecture: &str| {
            let mut descriptor = manifest.descriptor();
            descriptor["platform"] = json!({ "os": os, "architecture": architecture });
            descriptor
        };
        let mut last = entry(&attestation, "unknown", "unknown");
        last["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
        let index = json!({
            "schemaVersion": 2, "mediaType": OCI_INDEX,
            "manifests": [entry(&native, "linux", "amd64"), entry(&wasm, "wasip1", "wasm"), last],
        });
        self.push_manifest(repository, tag, &Blob::json(OCI_INDEX, &index)).await;
        self.image(&format!("{repository}:{tag}"))
    }

    async fn push_image(&self, repository: &str, tag: &str, platform: (&str, &str), file: &[u8]) -> Blob {
        let tar = tar_of("app.wasm", file);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar).unwrap();
        let layer = Blob::new(TAR_GZIP, gzip.finish().unwrap());
        let config = Blob::json(
            OCI_CONFIG,
            &json!({
                "os": platform.0, "architecture": platform.1,
                "config": { "Entrypoint": ["/app.wasm"] },
                "rootfs": { "type": "layers", "diff_ids": [digest(&tar)] },
            }),
        );
        self.push(repository, tag, &config, &layer).await
    }

    async fn push(&self, repository: &str, tag: &str, config: &Blob, layer: &Blob) -> Blob {
        self.push_blob(repository, config).await;
        self.push_blob(repository, layer).await;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": config.descriptor(), "layers": [layer.descriptor()],
        });
        let manifest = Blob::json(OCI_MANIFEST, &manifest);
        self.push_manifest(repository, tag, &manifest).await;
        manifest
    }
}

fn tar_of(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, content).unwrap();
    builder.into_inner().unwrap()
}
