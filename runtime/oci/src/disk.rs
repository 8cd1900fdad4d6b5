//! Images in layouts on disk: the caller's own, and those below the folders of an operator.

use std::{
    io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use runtime_api::{Artifact, Error, ImageReference, LayoutForm, Result};

use crate::{
    ArtifactStore,
    image::{Blobs, Image},
    image_layout::ImageLayout,
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
    let path = PathBuf::from(&image.repository);
    let limit = store.max_module_bytes();
    let open = move || {
        let opened = match form {
            LayoutForm::Folder => Folder::at(&path, Links::Followed).map(Found::Folder),
            LayoutForm::Archive => {
                let (folder, name) = parent_and_name(&path)?;
                Folder::at(folder, Links::Followed).and_then(|folder| folder.open(name)).map(Found::Archive)
            }
        };
        opened.map_err(|error| not_readable(form, &error))?.layout(limit)
    };
    artifact(image, store, open).await.map_err(|error| about(image, error))
}

/// The same for a name that a deploy gives: only below the operator's folders, and no link is followed there.
pub(crate) async fn read_layout_below(
    folders: &[PathBuf],
    image: &ImageReference,
    form: LayoutForm,
    store: &ArtifactStore,
) -> Result<Artifact> {
    let name = PathBuf::from(&image.repository);
    if folders.is_empty() {
        return Err(Error::invalid("image-dir", NO_FOLDER));
    }
    if !name.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(Error::invalid("image-dir", NOT_BELOW));
    }
    let (folders, limit) = (folders.to_vec(), store.max_module_bytes());
    let open = move || {
        for folder in &folders {
            let folder = Folder::at(folder, Links::Refused).map_err(|error| {
                Error::unavailable(format!("{} of --image-dir cannot be opened", folder.display()), error)
            })?;
            let opened = match form {
                LayoutForm::Folder => folder.folder(&name).map(Found::Folder),
                LayoutForm::Archive => folder.open(&name).map(Found::Archive),
            };
            match opened {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => return opened.map_err(|error| not_readable(form, &error))?.layout(limit),
            }
        }
        Err(Error::invalid("image-not-found", NOT_THERE))
    };
    artifact(image, store, open).await
}

async fn artifact(
    image: &ImageReference,
    store: &ArtifactStore,
    open: impl FnOnce() -> Result<ImageLayout> + Send + 'static,
) -> Result<Artifact> {
    let (name, known) = (image.tag.clone(), store.clone());
    let read = move || {
        let layout = open()?;
        let (digest, manifest) = layout.manifest_of(name.as_deref())?;
        let recorded = known.recorded(&digest).filter(|artifact| known.renew(artifact));
        Ok((layout, digest, manifest, recorded))
    };
    match blocking(read).await? {
        (.., Some(artifact)) => Ok(artifact),
        (layout, digest, manifest, None) => {
            Image::new(Blobs::Layout(Arc::new(layout)), store).artifact(digest, &manifest).await
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
