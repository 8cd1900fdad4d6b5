use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, ImageIndexEntry, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageIndex, OciImageManifest,
};
use runtime_api::{Digest, Error, Result};
use serde::{Deserialize, de::IgnoredAny};
use sha2::{Digest as _, Sha256};

/// Every kind of manifest that is understood, for the request's `Accept`.
pub(crate) const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// More than any tool writes; the OCI distribution-spec asks registries to take as much ("Pushing Manifests").
pub(crate) const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// Docker makes at most 127; more is a manifest made to cost time.
const MAX_LAYERS: usize = 128;

/// What a registry answers for a tag.
#[derive(Debug)]
pub(crate) enum Document {
    Image(Box<OciImageManifest>),
    Index(OciImageIndex),
}

/// What tells an image manifest from an index, whatever else is in it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
}

impl Document {
    /// Parses a manifest. One that could be read as two things is refused (OCI image-spec, "Manifest ambiguity").
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let shape: Shape = parse(bytes, "manifest")?;
        if shape.schema_version != 2 {
            let message = format!(
                "a manifest of schema version {}: push it again with a newer tool",
                shape.schema_version
            );
            return Err(Error::invalid("unsupported-artifact", message));
        }
        let is_image = shape.config.is_some() && shape.layers.is_some() && shape.manifests.is_none();
        let is_index = shape.manifests.is_some() && shape.config.is_none() && shape.layers.is_none();
        match (is_image, is_index, shape.media_type.as_deref()) {
            (true, _, None | Some(OCI_IMAGE_MEDIA_TYPE | IMAGE_MANIFEST_MEDIA_TYPE)) => Self::image(bytes),
            (_, true, None | Some(OCI_IMAGE_INDEX_MEDIA_TYPE | IMAGE_MANIFEST_LIST_MEDIA_TYPE)) => {
                parse(bytes, "index").map(Self::Index)
            }
            _ => Err(Error::invalid(
                "invalid-manifest",
                "the manifest is neither an image manifest nor an index",
            )),
        }
    }

    fn image(bytes: &[u8]) -> Result<Self> {
        let manifest: OciImageManifest = parse(bytes, "manifest")?;
        if manifest.layers.len() > MAX_LAYERS {
            let message =
                format!("the manifest has {} layers: at most {MAX_LAYERS} are taken", manifest.layers.len());
            return Err(Error::invalid("too-large", message));
        }
        Ok(Self::Image(Box::new(manifest)))
    }
}

/// Reads JSON of a registry or an image.
pub(crate) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::invalid("invalid-manifest", format!("the {what} cannot be read: {error}")))
}

/// What a descriptor promises of some content: the only things that make it into a path or an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
}

impl Content {
    /// Checks a descriptor; `limit` is how large the content may be.
    pub(crate) fn new(digest: &str, size: i64, limit: u64, what: &str) -> Result<Self> {
        let digest = digest.parse()?;
        let size_bytes = u64::try_from(size).map_err(|_| {
            Error::invalid("wrong-size", format!("the {what} {digest} has a negative size in its descriptor"))
        })?;
        if size_bytes > limit {
            let message = format!("the {what} {digest} has {size_bytes} bytes: at most {limit} are taken");
            return Err(Error::invalid("too-large", message));
        }
        Ok(Self { digest, size_bytes })
    }

    pub(crate) fn layer(layer: &OciDescriptor, limit: u64) -> Result<Self> {
        Self::new(&layer.digest, layer.size, limit, "layer")
    }

    pub(crate) fn entry(entry: &ImageIndexEntry, limit: u64) -> Result<Self> {
        Self::new(&entry.digest, entry.size, limit, "manifest")
    }
}

/// Follows content as it arrives, and tells at once when it is not what was promised.
pub(crate) struct Check {
    promised: Content,
    received_bytes: u64,
    hasher: Sha256,
}

impl Check {
    pub(crate) fn new(promised: Content) -> Self {
        Self { promised, received_bytes: 0, hasher: Sha256::new() }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) -> Result<()> {
        self.received_bytes += bytes.len() as u64;
        self.hasher.update(bytes);
        if self.received_bytes > self.promised.size_bytes { Err(self.wrong_size("more")) } else { Ok(()) }
    }

    pub(crate) fn finish(self) -> Result<()> {
        if self.received_bytes < self.promised.size_bytes {
            return Err(self.wrong_size("fewer"));
        }
        expect(self.promised.digest, Digest(self.hasher.finalize().into()))
    }

    fn wrong_size(&self, than: &str) -> Error {
        let Content { digest, size_bytes } = self.promised;
        let message =
            format!("there are {than} than the {size_bytes} bytes that {digest} should have; push it again");
        Error::invalid("wrong-size", message)
    }
}

/// The digest of bytes that are at hand.
pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// Refuses content of another digest.
pub(crate) fn expect(expected: Digest, found: Digest) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    let message = format!("there is content of digest {found} where {expected} was expected; push it again");
    Err(Error::invalid("wrong-digest", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_could_be_read_as_two_things() {
        let image = r#""config":{"mediaType":"a","digest":"b","size":1},"layers":[]"#;
        assert!(matches!(
            Document::parse(format!("{{\"schemaVersion\":2,{image}}}").as_bytes()),
            Ok(Document::Image(_))
        ));
        for bad in [
            format!("{{\"schemaVersion\":2,{image},\"manifests\":[]}}"),
            format!("{{\"schemaVersion\":2,{image},\"mediaType\":\"{OCI_IMAGE_INDEX_MEDIA_TYPE}\"}}"),
            format!("{{\"schemaVersion\":2,\"manifests\":[],\"mediaType\":\"{OCI_IMAGE_MEDIA_TYPE}\"}}"),
            format!("{{\"schemaVersion\":1,{image}}}"),
            "{\"schemaVersion\":2}".into(),
            "[]".into(),
            "\u{0}".into(),
            "[".repeat(100_000),
        ] {
            assert!(Document::parse(bad.as_bytes()).is_err(), "{bad:.120}");
        }
    }

    #[test]
    fn refuses_descriptors_that_are_none() {
        let digest = format!("sha256:{}", "00".repeat(32));
        assert!(Content::new(&digest, 10, 10, "layer").is_ok());
        for (digest, size) in
            [(&*digest, 11), (&*digest, -1), ("sha256:../../x", 1), ("sha512:00", 1), ("md5:00", 1), ("", 1)]
        {
            assert!(Content::new(digest, size, 10, "layer").is_err(), "{digest} {size}");
        }
    }
}
