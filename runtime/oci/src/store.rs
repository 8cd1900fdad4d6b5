use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File},
    io::{self, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use http_body_util::BodyExt;
use runtime_api::{Artifact, ArtifactKind, Body, Digest, Error, Result};
use tracing::warn;

use crate::{
    incoming::Incoming,
    pipe::{Pipe, blocking},
};

/// Modules by digest, under a directory that the caller owns. Clones share it.
///
/// Beside the modules it remembers which manifest led to which artifact, so that an image is pulled once.
#[derive(Clone, Debug)]
pub struct ArtifactStore(Arc<Folders>);

#[derive(Debug)]
struct Folders {
    modules: PathBuf,
    manifests: PathBuf,
    temporary: PathBuf,
    max_module_bytes: u64,
    /// Held while a module's age is looked at and acted on, or changed: what was just asked for is not collected.
    ages: Mutex<()>,
}

/// The file system would not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {} in the artifact store", path.display())]
struct Unwritable {
    path: PathBuf,
    source: io::Error,
}

pub(crate) fn unwritable(path: &Path, source: io::Error) -> Error {
    if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return Error::unavailable(
            "the disk of the artifact store is full: free some space and try again",
            source,
        );
    }
    Error::internal(Unwritable { path: path.to_owned(), source })
}

impl ArtifactStore {
    /// Opens the store, makes its directories where they are missing, and removes what an interrupted write left.
    ///
    /// Blocks on the disk. No other process may hold the directory.
    ///
    /// # Errors
    /// `Internal` or `Unavailable` when the directory cannot be used.
    pub fn open(directory: &Path, max_module_bytes: u64) -> Result<Self> {
        let folders = Folders {
            modules: directory.join("modules"),
            manifests: directory.join("manifests"),
            temporary: directory.join("tmp"),
            max_module_bytes,
            ages: Mutex::default(),
        };
        for folder in [&folders.modules, &folders.manifests, &folders.temporary] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|error| unwritable(folder, error))?;
        }
        for (folder, leftover) in [(&folders.temporary, ""), (&folders.manifests, ".")] {
            sweep(folder, leftover).map_err(|error| unwritable(folder, error))?;
        }
        runtime_store::sync_directory(directory).map_err(|error| unwritable(directory, error))?;
        Ok(Self(Arc::new(folders)))
    }

    /// The module of that digest, if a file of WebAssembly is here under its name. Only that and no more is looked at:
    /// whoever reads the whole of it compares the digest, and [`ArtifactStore::discard`]s what is damaged. Blocks on
    /// the disk, briefly.
    pub fn get(&self, digest: &Digest) -> Option<Artifact> {
        self.inspect(digest).unwrap_or_else(|error| {
            warn!(%digest, %error, "a stored module cannot be read");
            None
        })
    }

    /// Takes a module in: hashed and checked as it streams, synced, and only then under its name. How long the body
    /// may take is up to whoever sends it.
    ///
    /// # Errors
    /// `Invalid` when it is too large, is not WebAssembly, or was cut off.
    pub async fn insert(&self, mut module: Body) -> Result<Artifact> {
        let store = self.clone();
        let mut pipe = Pipe::start(move |mut reader| Incoming::receive(&store, &mut reader, Error::internal));
        let fed = loop {
            match module.frame().await {
                None => break Ok(()),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref()
                        && !pipe.write(data).await
                    {
                        break Ok(());
                    }
                }
                Some(Err(error)) => {
                    break Err(Error::invalid(
                        "cut-off",
                        format!("the module ended before its end: {error}"),
                    ));
                }
            }
        };
        let incoming = pipe.finish(fed).await?;
        blocking(|| incoming.keep()).await
    }

    /// Removes every module that is not in `keep` and is older than `grace`, and what is known of images made of it.
    /// Answers how many bytes that freed. Blocks on the disk.
    ///
    /// # Errors
    /// `Internal` when the directory cannot be read or changed.
    pub fn retain(&self, keep: &HashSet<Digest>, grace: Duration) -> Result<u64> {
        let mut freed = 0;
        for (digest, path) in self.files(&self.0.modules)? {
            if digest.is_some_and(|digest| keep.contains(&digest)) {
                continue;
            }
            freed += self.remove_if_old(&path, grace)?;
        }
        for (manifest, path) in self.files(&self.0.manifests)? {
            let leads_somewhere = manifest.is_some_and(|manifest| self.recorded(&manifest).is_some());
            if !leads_somewhere {
                self.remove_if_old(&path, grace)?;
            }
        }
        Ok(freed)
    }

    /// Removes a module that turned out to be damaged, so that the next fetch brings it anew. Blocks on the disk.
    ///
    /// # Errors
    /// `Internal` when the file is there and cannot be removed.
    pub fn discard(&self, digest: &Digest) -> Result<()> {
        let path = self.module_path(digest);
        let _ages = self.ages();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unwritable(&path, error)),
            _ => Ok(()),
        }
    }

    /// The largest module it takes, in bytes.
    pub fn max_module_bytes(&self) -> u64 {
        self.0.max_module_bytes
    }

    /// What the image of that manifest was found to be, if its module is here.
    pub(crate) fn recorded(&self, manifest: &Digest) -> Option<Artifact> {
        let bytes = fs::read(self.record_path(manifest)).ok()?;
        let record: Artifact = serde_json::from_slice(&bytes)
            .inspect_err(|error| warn!(%manifest, %error, "the record of an image is damaged"))
            .ok()?;
        let found = self.get(&record.digest)?;
        let same = found.size_bytes == record.size_bytes && found.kind == record.kind;
        same.then_some(Artifact { path: found.path, ..record })
    }

    /// Remembers what the image of that manifest is.
    pub(crate) fn record(&self, manifest: &Digest, artifact: &Artifact) -> Result<()> {
        let path = self.record_path(manifest);
        let bytes = serde_json::to_vec(artifact).map_err(Error::internal)?;
        runtime_store::write_atomically(&path, &bytes, 0o600).map_err(|error| unwritable(&path, error))
    }

    /// Begins a module's grace anew; `false` if it was removed meanwhile.
    pub(crate) fn renew(&self, artifact: &Artifact) -> bool {
        let _ages = self.ages();
        File::open(&artifact.path).and_then(|file| file.set_modified(SystemTime::now())).is_ok()
    }

    /// See [`Folders::ages`].
    pub(crate) fn ages(&self) -> MutexGuard<'_, ()> {
        self.0.ages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a file that was not written or renewed for so long; answers how many bytes that freed.
    fn remove_if_old(&self, path: &Path, grace: Duration) -> Result<u64> {
        let _ages = self.ages();
        let remove = || {
            let metadata = fs::metadata(path)?;
            // A time in the future is a clock that was set back; such a file is as good as new.
            let age = metadata.modified()?.elapsed().unwrap_or_default();
            if age < grace {
                return Ok(0);
            }
            fs::remove_file(path).map(|()| metadata.len())
        };
        remove().map_err(|error| unwritable(path, error))
    }

    pub(crate) fn temporary_folder(&self) -> &Path {
        &self.0.temporary
    }

    pub(crate) fn module_folder(&self) -> &Path {
        &self.0.modules
    }

    /// Where the module of that digest lies, if it is here.
    pub fn module_path(&self, digest: &Digest) -> PathBuf {
        self.0.modules.join(format!("sha256-{}.wasm", digest.hex()))
    }

    fn record_path(&self, manifest: &Digest) -> PathBuf {
        self.0.manifests.join(format!("sha256-{}.json", manifest.hex()))
    }

    fn inspect(&self, digest: &Digest) -> io::Result<Option<Artifact>> {
        let path = self.module_path(digest);
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let size_bytes = file.metadata()?.len();
        let mut head = [0; 8];
        file.read_exact(&mut head)?;
        let kind = ArtifactKind::sniff(&head).ok_or_else(|| io::Error::other("it is not WebAssembly"))?;
        Ok(Some(Artifact { digest: *digest, size_bytes, kind, args: Vec::new(), env: Vec::new(), path }))
    }

    /// The files of a folder, with the digests that they are named by.
    fn files(&self, folder: &Path) -> Result<Vec<(Option<Digest>, PathBuf)>> {
        let list = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
        let paths = list().map_err(|error| unwritable(folder, error))?;
        Ok(paths.into_iter().map(|path| (digest_in_name(&path), path)).collect())
    }
}

fn digest_in_name(path: &Path) -> Option<Digest> {
    let hex = path.file_stem()?.to_str()?.strip_prefix("sha256-")?;
    format!("sha256:{hex}").parse().ok()
}

/// Removes what begins with `prefix` in a folder.
fn sweep(folder: &Path, prefix: &str) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
