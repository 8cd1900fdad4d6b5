//! Images in layouts on disk: the caller's own, and those below the folders of an operator.

use std::{
    io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use runtime_api::{Artifact, Digest, Error, ImageReference, LayoutForm, Result};

use crate::{
    ArtifactStore,
    image::{Blobs, Image},
    image_layout::{ImageLayout, NOT_FOUND},
    layout_archive::Archive,
    layout_folder::{Folder, Links},
    pipe::blocking,
};

const NO_FOLDER: &str = "this node takes no images from its disk: its operator allows that with --image-dir FOLDER (FAWN_IMAGE_DIR)";
const NOT_BELOW: &str =
    "an image on a node's disk is named from a folder of --image-dir on, without .. or a leading /";
const NOT_THERE: &str = "it is in none of the folders that this node's --image-dir (FAWN_IMAGE_DIR) names";

/// Brings the module of an image layout on disk into the store, with the rights of whoever calls this: a path that begins
/// with neither `/` nor `..` is below the working directory, and links are followed.
///
/// # Errors
/// `Invalid` when there is no such image, or it is damaged, refused or not WebAssembly; `StorageFull` when the store's disk
/// has no room for it.
pub async fn read_layout(
    image: &ImageReference,
    form: LayoutForm,
    store: &ArtifactStore,
) -> Result<Artifact> {
    let (path, name) = (PathBuf::from(&image.repository), image.tag.clone());
    let limit = store.max_module_bytes();
    let find = move || {
        let opened = match form {
            LayoutForm::Folder => Folder::at(&path, Links::Followed).map(Found::Folder),
            LayoutForm::Archive => {
                let (folder, name) = parent_and_name(&path)?;
                Folder::at(folder, Links::Followed).and_then(|folder| folder.open(name)).map(Found::Archive)
            }
        };
        Manifest::read(opened.map_err(|error| not_readable(form, &error))?.layout(limit)?, name.as_deref())
    };
    artifact(store, find).await.map_err(|error| about(image, error))
}

/// The same for a name that a deploy gives: only below the operator's folders, and no link is followed there. The first
/// folder that has the image counts.
pub(crate) async fn read_layout_below(
    folders: &[PathBuf],
    image: &ImageReference,
    form: LayoutForm,
    store: &ArtifactStore,
) -> Result<Artifact> {
    let place = PathBuf::from(&image.repository);
    if folders.is_empty() {
        return Err(Error::invalid("image-dir", NO_FOLDER));
    }
    if !place.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(Error::invalid("image-dir", NOT_BELOW));
    }
    let (folders, name, limit) = (folders.to_vec(), image.tag.clone(), store.max_module_bytes());
    let find = move || {
        let mut missed = Error::invalid(NOT_FOUND, NOT_THERE);
        for folder in &folders {
            let folder = Folder::at(folder, Links::Refused).map_err(|error| {
                Error::unavailable(format!("{} of --image-dir cannot be opened", folder.display()), error)
            })?;
            let opened = match form {
                LayoutForm::Folder => folder.folder(&place).map(Found::Folder),
                LayoutForm::Archive => folder.open(&place).map(Found::Archive),
            };
            let found = match opened {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(|error| not_readable(form, &error))?,
            };
            match Manifest::read(found.layout(limit)?, name.as_deref()) {
                Err(error) if error.code() == NOT_FOUND => missed = error,
                read => return read,
            }
        }
        Err(missed)
    };
    artifact(store, find).await
}

/// An image's manifest, and the layout that it is in.
struct Manifest {
    layout: ImageLayout,
    digest: Digest,
    bytes: Bytes,
}

impl Manifest {
    fn read(layout: ImageLayout, name: Option<&str>) -> Result<Self> {
        let (digest, bytes) = layout.manifest_of(name)?;
        Ok(Self { layout, digest, bytes })
    }
}

async fn artifact(
    store: &ArtifactStore,
    find: impl FnOnce() -> Result<Manifest> + Send + 'static,
) -> Result<Artifact> {
    let known = store.clone();
    let read = move || {
        let manifest = find()?;
        let recorded = known.recorded(&manifest.digest).filter(|artifact| known.renew(artifact));
        Ok((manifest, recorded))
    };
    match blocking(read).await? {
        (_, Some(artifact)) => Ok(artifact),
        (Manifest { layout, digest, bytes }, None) => {
            Image::new(Blobs::Layout(Arc::new(layout)), store).artifact(digest, &bytes).await
        }
    }
}

enum Found {
    Folder(Folder),
    Archive(std::fs::File),
}

impl Found {
    fn layout(self, max_module_bytes: u64) -> Result<ImageLayout> {
        match self {
            Self::Folder(folder) => ImageLayout::folder(folder),
            Self::Archive(file) => ImageLayout::archive(Archive::scan(file, max_module_bytes)?),
        }
    }
}

fn parent_and_name(path: &Path) -> Result<(&Path, &Path)> {
    let name = path.file_name().ok_or_else(|| Error::invalid("invalid-image", "the path names no file"))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((folder, Path::new(name)))
}

fn not_readable(form: LayoutForm, error: &io::Error) -> Error {
    let expected = match form {
        LayoutForm::Folder => "a folder is expected (for a tar write oci-archive:)",
        LayoutForm::Archive => "a tar is expected (for a folder write oci:)",
    };
    Error::invalid("invalid-layout", format!("it cannot be opened: {error}; {expected}"))
}

/// Says which image an error is about.
fn about(image: &ImageReference, error: Error) -> Error {
    match error {
        Error::Invalid { code, message } => Error::invalid(code, format!("image {image}: {message}")),
        other => other,
    }
}
