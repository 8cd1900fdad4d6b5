use std::{
    cell::RefCell,
    collections::HashSet,
    io::{self, Read},
    path::Path,
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use oci_client::manifest::{ImageIndexEntry, OciImageIndex};
use runtime_api::{Digest, Error, Result};
use serde::Deserialize;

use crate::{
    index::{best, is_attestation},
    layout_archive::Archive,
    layout_folder::Folder,
    manifest::{Check, Content, Document, MAX_MANIFEST_BYTES, parse},
    pipe::blocking,
};

/// The file that says that a folder is an image layout (OCI image-spec, "Image Layout").
pub(crate) const MARKER: &str = "oci-layout";
/// The file that says which images are in it.
pub(crate) const INDEX: &str = "index.json";
/// The code of an error where a layout has no image of the name.
pub(crate) const NOT_FOUND: &str = "image-not-found";

/// By what an image is called in an index: a tag, or a whole name (OCI image-spec, "Pre-Defined Annotation Keys").
pub(crate) const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

/// An OCI image layout on disk: a folder, or a tar of one, which is read where it lies.
pub(crate) struct ImageLayout(Place);

enum Place {
    Folder(Folder),
    Archive(Archive),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

impl ImageLayout {
    /// Blocks on the disk.
    pub(crate) fn folder(folder: Folder) -> Result<Self> {
        Self(Place::Folder(folder)).checked()
    }

    /// Blocks on the disk.
    pub(crate) fn archive(archive: Archive) -> Result<Self> {
        Self(Place::Archive(archive)).checked()
    }

    fn checked(self) -> Result<Self> {
        let marker: Marker = parse(&self.small_file(MARKER)?, "file oci-layout")?;
        if marker.image_layout_version.split('.').next() == Some("1") {
            return Ok(self);
        }
        let version = marker.image_layout_version;
        Err(Error::invalid(
            "unsupported-artifact",
            format!("the image layout is of version {version}, not of 1"),
        ))
    }

    /// The manifest, or index, of the image of that tag or name; without one, of the only image. Blocks on the disk.
    pub(crate) fn manifest_of(&self, name: Option<&str>) -> Result<(Digest, Bytes)> {
        let Document::Index(index) = Document::parse(&self.small_file(INDEX)?)? else {
            return Err(Error::invalid("invalid-manifest", "index.json is no index"));
        };
        let content = Content::entry(find(&index, name)?, MAX_MANIFEST_BYTES)?;
        Ok((content.digest, self.read_document(content)?))
    }

    /// A whole blob that must be small.
    pub(crate) async fn document(self: &Arc<Self>, content: Content) -> Result<Bytes> {
        let layout = self.clone();
        blocking(move || layout.read_document(content)).await
    }

    /// Passes a blob to `work`. What `work` makes of it is handed out only if the blob was right.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        content: Content,
        work: impl FnOnce(Box<dyn Read>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let layout = self.clone();
        blocking(move || layout.read_blob(content, work)).await
    }

    fn read_document(&self, content: Content) -> Result<Bytes> {
        self.read_blob(content, |mut blob| {
            let mut bytes = Vec::new();
            blob.read_to_end(&mut bytes).map_err(unreadable)?;
            Ok(bytes.into())
        })
    }

    fn read_blob<T>(&self, content: Content, work: impl FnOnce(Box<dyn Read>) -> Result<T>) -> Result<T> {
        let name = format!("blobs/sha256/{}", content.digest.hex());
        let blob = self.open(&name)?;
        let state = Rc::new(RefCell::new(State { check: Some(Check::new(content)), verdict: Ok(()) }));
        // One byte more than promised is enough to tell that there are more.
        let inner = blob.take(content.size_bytes.saturating_add(1));
        let worked = work(Box::new(Checked { inner, state: state.clone() }));
        let State { check, verdict } = state.replace(State { check: None, verdict: Ok(()) });
        verdict?;
        match (worked, check) {
            // Whoever stops early has a reason of its own, and takes nothing.
            (Err(error), Some(_)) => Err(error),
            (Ok(done), Some(check)) => check.finish().map(|()| done),
            (worked, None) => worked,
        }
    }

    /// A file that is not a blob, whole. Blocks on the disk.
    pub(crate) fn small_file(&self, name: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(name)?.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            let message = format!("the image layout's {name} has more than {MAX_MANIFEST_BYTES} bytes");
            return Err(Error::invalid("too-large", message));
        }
        Ok(bytes)
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read>> {
        let found = match &self.0 {
            Place::Folder(folder) => folder.open(Path::new(name)).map(|file| Box::new(file) as Box<dyn Read>),
            Place::Archive(archive) => archive.open(name),
        };
        found.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(name),
            io::ErrorKind::FileTooLarge => unreadable(error),
            _ => Error::invalid(
                "invalid-layout",
                format!("the image layout's {name} cannot be opened: {error}"),
            ),
        })
    }
}

fn missing(name: &str) -> Error {
    let message = match name {
        MARKER | INDEX => format!(
            "there is no {name}, so that it is no OCI image layout; write one with `fawn push FILE oci:FOLDER:TAG`, \
             `docker save` (Docker 25 or newer), `skopeo copy` or `oras cp --to-oci-layout`"
        ),
        blob => format!("the image layout has no {blob}: copy the whole of it"),
    };
    Error::invalid("invalid-layout", message)
}

pub(crate) fn unreadable(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::FileTooLarge {
        return Error::invalid("too-large", error.to_string());
    }
    Error::invalid("invalid-layout", format!("the image layout cannot be read: {error}"))
}

fn find<'a>(index: &'a OciImageIndex, wanted: Option<&str>) -> Result<&'a ImageIndexEntry> {
    let mut images: Vec<_> = index.manifests.iter().filter(|entry| !is_attestation(entry)).collect();
    if let Some(wanted) = wanted {
        let all = images.clone();
        images.retain(|entry| names(entry).any(|name| name == wanted));
        if images.is_empty() {
            images =
                all.iter().copied().filter(|entry| names(entry).any(|name| ends_in(name, wanted))).collect();
        }
        if images.is_empty() {
            let labels: Vec<_> = all.into_iter().filter_map(label).collect();
            let message = format!("the image layout has no image {wanted:?}; it has {}", listed(&labels));
            return Err(Error::invalid(NOT_FOUND, message));
        }
    }
    let mut seen = HashSet::new();
    images.retain(|entry| seen.insert(&entry.digest));
    let best = best(images.iter().copied())?;
    let is_other = |entry: &&ImageIndexEntry| {
        entry.digest != best.digest && (label(entry) != label(best) || entry.platform == best.platform)
    };
    if images.iter().any(is_other) {
        let labels: Vec<_> = images.iter().map(|entry| label(entry).unwrap_or(&entry.digest)).collect();
        let message =
            format!("the image layout has {} images: name one of {}", labels.len(), listed(&labels));
        return Err(Error::invalid("ambiguous-image", message));
    }
    Ok(best)
}

/// Whether a name is a whole one that ends in a tag, or in a name and a tag.
fn ends_in(name: &str, wanted: &str) -> bool {
    name.strip_suffix(wanted).is_some_and(|rest| rest.ends_with([':', '/']))
}

/// The fullest of an entry's names.
fn label(entry: &ImageIndexEntry) -> Option<&str> {
    names(entry).max_by_key(|name| name.len())
}

fn names(entry: &ImageIndexEntry) -> impl Iterator<Item = &str> {
    NAMES.iter().filter_map(|key| entry.annotations.as_ref()?.get(*key)).map(String::as_str)
}

/// Names for people, and not too many.
fn listed(names: &[&str]) -> String {
    const MOST: usize = 20;
    let shown: Vec<_> = names.iter().take(MOST).map(|name| format!("{name:?}")).collect();
    let more = if names.len() > MOST { ", …" } else { "" };
    if shown.is_empty() { "none with a name".into() } else { format!("{}{more}", shown.join(", ")) }
}

/// What is known of a blob so far. The check is gone once the blob ended, and the verdict is there.
struct State {
    check: Option<Check>,
    verdict: Result<()>,
}

/// A blob that is checked while it is read.
struct Checked<R> {
    inner: R,
    state: Rc<RefCell<State>>,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.inner.read(buffer)?;
        let mut state = self.state.borrow_mut();
        let State { check, verdict } = &mut *state;
        let wrong = match (read, check.as_mut()) {
            (0, _) => check.take().map_or(Ok(()), Check::finish),
            (_, Some(check)) => check.update(buffer.get(..read).unwrap_or_default()),
            (_, None) => Ok(()),
        };
        wrong.map_err(|error| {
            let message = error.to_string();
            *check = None;
            *verdict = Err(error);
            io::Error::other(message)
        })?;
        Ok(read)
    }
}
