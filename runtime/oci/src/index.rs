use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, ImageIndexEntry, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE, OciImageIndex, Platform,
};
use runtime_api::{Error, Result};

/// Picks the image of an index: WebAssembly first, then what this machine would run (its entrypoint may be a module),
/// then whatever comes first.
pub(crate) fn choose(index: &OciImageIndex) -> Result<&ImageIndexEntry> {
    let best = best(&index.manifests)?;
    match best.media_type.as_str() {
        OCI_IMAGE_MEDIA_TYPE | IMAGE_MANIFEST_MEDIA_TYPE => Ok(best),
        OCI_IMAGE_INDEX_MEDIA_TYPE | IMAGE_MANIFEST_LIST_MEDIA_TYPE => Err(nested()),
        other => {
            let message = format!("the index leads to {other:?} where an image manifest is expected");
            Err(Error::invalid("invalid-manifest", message))
        }
    }
}

/// The entry that suits best, whatever it leads to.
pub(crate) fn best<'a>(
    entries: impl IntoIterator<Item = &'a ImageIndexEntry>,
) -> Result<&'a ImageIndexEntry> {
    let images = entries.into_iter().filter(|entry| !is_attestation(entry));
    let best = images.min_by_key(|entry| entry.platform.as_ref().map_or(u8::MAX, rank));
    best.ok_or_else(|| Error::invalid("invalid-manifest", "the index has no image in it"))
}

/// What to say of an index that an index leads to.
pub(crate) fn nested() -> Error {
    Error::invalid("unsupported-artifact", "an index within an index is not supported: push a plain one")
}

/// `BuildKit` puts records of the build into the index, as if they were images.
pub(crate) fn is_attestation(entry: &ImageIndexEntry) -> bool {
    let annotated =
        entry.annotations.as_ref().is_some_and(|all| all.contains_key("vnd.docker.reference.type"));
    annotated || entry.platform.as_ref().is_some_and(|platform| platform.os.to_string() == "unknown")
}

fn rank(platform: &Platform) -> u8 {
    let lower = |text: String| text.to_ascii_lowercase();
    let (os, architecture) = (lower(platform.os.to_string()), lower(platform.architecture.to_string()));
    let host = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    match (os.as_str(), architecture.as_str()) {
        ("wasip2", wasm) if wasm.starts_with("wasm") => 0,
        ("wasip1", wasm) if wasm.starts_with("wasm") => 1,
        ("wasi", wasm) if wasm.starts_with("wasm") => 2,
        (_, wasm) if wasm.starts_with("wasm") => 3,
        ("linux", architecture) if architecture == host => 4,
        _ => 5,
    }
}
