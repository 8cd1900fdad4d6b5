//! Images written to a layout on disk. A reader finds it whole at any moment: blobs come before the index that names them,
//! a new layout's marker comes last, and each file has its name only when it is complete.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use bytes::Bytes;
use oci_client::manifest::{OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE};
use runtime_api::{Digest, Error, ImageReference, LayoutForm, Result};
use runtime_store::{is_unfinished, write_atomically};
use serde_json::{Map, Value, json};

use crate::{
    image_layout::{INDEX, ImageLayout, MARKER, NAMES},
    layout_folder::{Folder, Links},
    manifest::{Document, MAX_MANIFEST_BYTES, digest_of, parse},
    pipe::blocking,
    wasm_artifact::{ModuleDescription, WasmArtifact},
};

/// What an image is called that is given no name.
const DEFAULT_TAG: &str = "latest";
/// How long another writer may hold the layout: a module takes it a moment.
const LOCK_TIME: Duration = Duration::from_secs(60);
/// How often it is tried meanwhile.
const LOCK_POLL: Duration = Duration::from_millis(20);
/// Images are for whoever the folder is for.
const MODE: u32 = 0o644;

/// Writes a module as an image into the layout in a folder (OCI image-spec, "Image Layout"), with the rights of whoever
/// calls this, and answers the digest of its manifest. The folder is made if it is missing. An image of the same tag is
/// replaced; without a tag it is `latest`. The same module makes the same image, whenever it is written. Blobs that no image
/// needs any longer stay. Writers take turns; what one left that was killed is finished or removed by the next.
///
/// # Errors
/// `Invalid` when the image cannot be called so, the module is not what it is said to be, or the folder is another's or
/// cannot be written; `StorageFull` when the disk has no room for it.
pub async fn write_layout(
    image: &ImageReference,
    module: Bytes,
    description: &ModuleDescription,
) -> Result<Digest> {
    let refused = |error| match error {
        Error::Invalid { code, message } => Error::invalid(code, format!("image {image}: {message}")),
        Error::StorageFull(message) => Error::StorageFull(format!("image {image}: {message}")),
        other => other,
    };
    let tag = image.tag.clone().unwrap_or_else(|| DEFAULT_TAG.into());
    let folder = match image.layout() {
        Some(LayoutForm::Folder) if is_name(&tag) => image.repository.clone(),
        Some(LayoutForm::Folder) => {
            let rule = "letters and digits, with single . _ - + @ : / between them, or --";
            let message = format!("an image in a layout cannot be called {tag:?}: take {rule}");
            return Err(refused(Error::invalid("invalid-image", message)));
        }
        _ => {
            return Err(refused(Error::invalid(
                "invalid-image",
                "it is no folder, written as oci:FOLDER:TAG",
            )));
        }
    };
    let artifact = WasmArtifact::new(module_name(image, &tag), module, description, None).map_err(refused)?;
    blocking(move || write(Path::new(&folder), &tag, &artifact)).await.map_err(refused)
}

fn write(folder: &Path, tag: &str, artifact: &WasmArtifact) -> Result<Digest> {
    fs::create_dir_all(folder).map_err(unwritable(folder))?;
    let _turn = wait_for_turn(folder)?;
    begin(folder)?;
    let index = read_index(folder)?;
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(unwritable(&blobs))?;
    for folder in [folder, &blobs] {
        sweep(folder).map_err(unwritable(folder))?;
    }
    for blob in [&artifact.module, &artifact.config, &artifact.manifest] {
        write_blob(&blobs, blob)?;
    }
    let digest = digest_of(&artifact.manifest);
    let entry = json!({
        "mediaType": OCI_IMAGE_MEDIA_TYPE,
        "digest": digest,
        "size": artifact.manifest.len(),
        "annotations": {NAMES[0]: tag},
    });
    let index = with_image(index, tag, entry)?;
    let path = folder.join(INDEX);
    write_atomically(&path, &index, MODE).map_err(unwritable(&path))?;
    mark(folder)?;
    Ok(digest)
}

/// The lock is the folder's own, and ends with this process at the latest.
fn wait_for_turn(folder: &Path) -> Result<File> {
    let held = File::open(folder).map_err(unwritable(folder))?;
    let until = Instant::now() + LOCK_TIME;
    loop {
        match held.try_lock() {
            Ok(()) => return Ok(held),
            Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(LOCK_POLL),
            Err(TryLockError::WouldBlock) => {
                let message = format!("another process has been writing to it for {} s", LOCK_TIME.as_secs());
                return Err(Error::invalid("invalid-layout", message));
            }
            Err(TryLockError::Error(error)) => return Err(unwritable(folder)(error)),
        }
    }
}

/// A folder is empty, or a layout, or as a writer leaves a new one that is killed: then it lacks its marker, and may lack
/// its index.
fn begin(folder: &Path) -> Result<()> {
    if folder.join(MARKER).exists() {
        return open(folder).map(drop);
    }
    if !is_free(folder).map_err(unwritable(folder))? {
        let message = "the folder has other things in it and is no OCI image layout: name one that is empty or not there";
        return Err(Error::invalid("invalid-layout", message));
    }
    if folder.join(INDEX).exists() {
        // All that it names is there.
        mark(folder)?;
    }
    Ok(())
}

/// Whether nothing is in a folder without marker but what writers leave.
fn is_free(folder: &Path) -> io::Result<bool> {
    let blobs = folder.join("blobs/sha256");
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let is_ours = is_unfinished(&name) || name == "blobs" || name == INDEX && blobs.is_dir();
        if !is_ours {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes what killed writers left. No other writer is at work.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if is_unfinished(&entry.file_name()) && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Says that the folder is a layout, unless it says so.
fn mark(folder: &Path) -> Result<()> {
    let marker = folder.join(MARKER);
    if marker.exists() {
        return Ok(());
    }
    write_atomically(&marker, br#"{"imageLayoutVersion":"1.0.0"}"#, MODE).map_err(unwritable(&marker))
}

fn open(folder: &Path) -> Result<ImageLayout> {
    ImageLayout::folder(Folder::at(folder, Links::Followed).map_err(unwritable(folder))?)
}

/// What is there under its digest and whole is not written again.
fn write_blob(blobs: &Path, blob: &[u8]) -> Result<()> {
    let path = blobs.join(digest_of(blob).hex());
    let is_there = path.metadata().is_ok_and(|there| there.is_file() && there.len() == blob.len() as u64)
        && fs::read(&path).is_ok_and(|there| there == blob);
    if is_there {
        return Ok(());
    }
    write_atomically(&path, blob, MODE).map_err(unwritable(&path))
}

/// With all that other tools wrote into it.
fn read_index(folder: &Path) -> Result<Map<String, Value>> {
    if !folder.join(INDEX).exists() {
        let empty = json!({"schemaVersion": 2, "mediaType": OCI_IMAGE_INDEX_MEDIA_TYPE, "manifests": []});
        return parse(empty.to_string().as_bytes(), "index");
    }
    let bytes = open(folder)?.small_file(INDEX)?;
    match Document::parse(&bytes)? {
        Document::Index(_) => parse(&bytes, "index"),
        Document::Image(_) => Err(Error::invalid("invalid-manifest", "index.json is no index")),
    }
}

/// The index with the entry in the place of all of that name.
fn with_image(mut index: Map<String, Value>, tag: &str, entry: Value) -> Result<Vec<u8>> {
    if let Some(Value::Array(entries)) = index.get_mut("manifests") {
        entries.retain(|entry| !is_called(entry, tag));
        entries.push(entry);
    }
    let bytes = serde_json::to_vec(&index).map_err(Error::internal)?;
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        let message =
            format!("its index.json would have more than {MAX_MANIFEST_BYTES} bytes: begin another layout");
        return Err(Error::invalid("too-large", message));
    }
    Ok(bytes)
}

fn is_called(entry: &Value, tag: &str) -> bool {
    let annotations = entry.get("annotations");
    NAMES.iter().any(|key| annotations.and_then(|all| all.get(key)).and_then(Value::as_str) == Some(tag))
}

/// What a module is called in a layout: as its image is, or the layout where that has no name of its own.
fn module_name<'a>(image: &'a ImageReference, tag: &'a str) -> &'a str {
    let named = |name: &'a str| name.rsplit('/').next().unwrap_or_default();
    match image.tag {
        Some(_) => named(tag).split([':', '@']).next().unwrap_or_default(),
        None => named(image.repository.trim_end_matches('/')),
    }
}

/// Whether an image may be called so in an index (OCI image-spec, "Pre-Defined Annotation Keys").
fn is_name(text: &str) -> bool {
    let is_separator = |byte: &u8| b"-._:@+".contains(byte);
    let is_component = |component: &str| {
        let bytes = component.as_bytes();
        let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        is_end(bytes.first())
            && is_end(bytes.last())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || is_separator(byte))
            && bytes.windows(2).all(|pair| pair == b"--" || !pair.iter().all(is_separator))
    };
    text.split('/').all(is_component)
}

fn unwritable(path: &Path) -> impl Fn(io::Error) -> Error {
    move |error| {
        let message = format!("{} cannot be written: {error}", path.display());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::StorageFull(message),
            _ => Error::invalid("invalid-layout", message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_other_tools_take() {
        for good in ["v1", "hello", "ghcr.io/me/hello:1.2", "a--b", "1"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "..", "a/../b", "/a", "a/", "a..b", "a b", "-a", "a:", "a\u{1b}", "\u{e9}"] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_full_disk_is_told_from_a_folder_that_cannot_be_written() {
        let error = |kind: io::ErrorKind| unwritable(Path::new("images"))(kind.into());
        assert_eq!(error(io::ErrorKind::StorageFull).code(), "storage-full");
        assert_eq!(error(io::ErrorKind::PermissionDenied).code(), "invalid-layout");
    }

    #[test]
    fn a_module_is_called_as_its_image() {
        for (image, name) in [
            ("oci:images:hello", "hello"),
            ("oci:images:ghcr.io/me/hello:1.2", "hello"),
            ("oci:/srv/hello/", "hello"),
            ("oci:hello", "hello"),
        ] {
            let image = ImageReference::parse(image).unwrap();
            let tag = image.tag.clone().unwrap_or_default();
            assert_eq!(module_name(&image, &tag), name, "{image}");
        }
    }

    #[test]
    fn an_index_keeps_what_others_wrote_and_has_a_bound() {
        let index = json!({
            "schemaVersion": 2,
            "annotations": {"by": "another tool"},
            "manifests": [
                {"digest": "sha256:1", "annotations": {"org.opencontainers.image.ref.name": "v1"}, "urls": ["u"]},
                {"digest": "sha256:2", "annotations": {"io.containerd.image.name": "v2"}},
                {"digest": "sha256:3"},
            ],
        });
        let index = index.as_object().unwrap();
        let written = with_image(index.clone(), "v2", json!({"digest": "sha256:4"})).unwrap();
        let written: Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(written["annotations"]["by"], "another tool");
        let digests: Vec<_> =
            written["manifests"].as_array().unwrap().iter().map(|entry| &entry["digest"]).collect();
        assert_eq!(digests, ["sha256:1", "sha256:3", "sha256:4"]);
        assert_eq!(written["manifests"][0]["urls"][0], "u");
        let long = json!({"digest": "x".repeat(5 << 20)});
        assert_eq!(with_image(index.clone(), "v3", long).unwrap_err().code(), "too-large");
    }
}
