use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File},
    io::{self, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use http_body_util::BodyExt;
use runtime_api::{Artifact, ArtifactKind, Body, Digest, Error, ModuleCommand, Result, Stored};
use tracing::warn;

use crate::{
    incoming::{Incoming, damaged},
    manifest::digest_of,
    pipe::{Pipe, blocking},
};

/// Images and tags of which more is known than this are asked for again.
const MOST_RECORDS: usize = 10_000;

/// Modules by digest, under a directory that the caller owns. Clones share it.
///
/// Beside the modules it remembers which manifest led to which artifact, so that an image is pulled once.
#[derive(Clone, Debug)]
pub struct ArtifactStore(Arc<Folders>);

#[derive(Debug)]
struct Folders {
    modules: PathBuf,
    manifests: PathBuf,
    tags: PathBuf,
    temporary: PathBuf,
    max_module_bytes: u64,
    /// Held while a module's age is looked at and acted on, or changed: what was just asked for is not collected.
    ages: Mutex<()>,
    written_bytes: AtomicU64,
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
        return Error::StorageFull(
            "the disk of the artifact store is full: free some space and try again".into(),
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
    /// `Internal` or `StorageFull` when the directory cannot be used.
    pub fn open(directory: &Path, max_module_bytes: u64) -> Result<Self> {
        let folders = Folders {
            modules: directory.join("modules"),
            manifests: directory.join("manifests"),
            tags: directory.join("tags"),
            temporary: directory.join("tmp"),
            max_module_bytes,
            ages: Mutex::default(),
            written_bytes: AtomicU64::new(0),
        };
        for folder in [&folders.modules, &folders.manifests, &folders.tags, &folders.temporary] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|error| unwritable(folder, error))?;
        }
        for (folder, leftover) in [(&folders.temporary, ""), (&folders.manifests, "."), (&folders.tags, ".")]
        {
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

    /// What was uploaded under that digest: a module's own or that of [`Self::with_command`].
    pub(crate) fn uploaded(&self, digest: &Digest) -> Option<Artifact> {
        self.recorded(digest).or_else(|| self.get(digest))
    }

    /// Takes a module in: hashed and checked as it streams, synced, and only then under its name. How long the body
    /// may take is up to whoever sends it.
    ///
    /// # Errors
    /// `Invalid` when it is too large, is not WebAssembly, or was cut off; `StorageFull` when the disk has no room for it;
    /// `Internal` when it cannot be written.
    pub async fn insert(&self, mut module: Body) -> Result<Artifact> {
        let store = self.clone();
        let mut pipe = Pipe::start(move |mut reader| Incoming::receive(&store, &mut reader, damaged));
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

    /// Remembers a module of the store with a command, and answers the digest that stands for both from then on. Without
    /// a command, it is the module's own.
    ///
    /// # Errors
    /// `Invalid` when the command cannot be given to a module; `StorageFull` or `Internal` when the disk cannot be written.
    pub async fn with_command(&self, module: &Artifact, command: ModuleCommand) -> Result<Digest> {
        command.check()?;
        let ModuleCommand { args, env } = command;
        if args.is_empty() && env.is_empty() {
            return Ok(module.digest);
        }
        let (store, artifact) = (self.clone(), Artifact { args, env, ..module.clone() });
        blocking(move || {
            let digest = digest_of(&serde_json::to_vec(&artifact).map_err(Error::internal)?);
            store.record(&digest, &artifact)?;
            Ok(digest)
        })
        .await
    }

    /// The modules that these digests stand for: their own, or those of modules that were given a command.
    pub fn modules_of(&self, named: &HashSet<Digest>) -> HashSet<Digest> {
        named.iter().map(|digest| self.recorded(digest).map_or(*digest, |artifact| artifact.digest)).collect()
    }

    /// Removes every module that `keep` does not stand for and that is older than `grace`, and what is known of images
    /// made of it. Of what is known of others, the newest ten thousand stay, and what is in `keep`. Answers how many
    /// bytes that freed. Blocks on the disk.
    ///
    /// # Errors
    /// `Internal` or `StorageFull` when the directory cannot be read or changed.
    pub fn retain(&self, keep: &HashSet<Digest>, grace: Duration) -> Result<u64> {
        let mut freed = 0;
        let modules = self.modules_of(keep);
        for (digest, path) in self.files(&self.0.modules)? {
            if !digest.is_some_and(|digest| modules.contains(&digest)) {
                freed += self.remove_if_old(&path, grace)?;
            }
        }
        let leads_somewhere = |manifest: &Digest, _: &Path| self.recorded(manifest).is_some();
        self.retain_newest(&self.0.manifests, keep, leads_somewhere, grace)?;
        self.retain_newest(&self.0.tags, keep, |_, tag| self.leads_somewhere(tag), grace)?;
        Ok(freed)
    }

    /// Removes the files of a folder that do not count, and of the others the oldest where there are too many.
    fn retain_newest(
        &self,
        folder: &Path,
        keep: &HashSet<Digest>,
        counts: impl Fn(&Digest, &Path) -> bool,
        grace: Duration,
    ) -> Result<()> {
        let mut others = Vec::new();
        for (digest, path) in self.files(folder)? {
            match digest {
                Some(digest) if keep.contains(&digest) => {}
                Some(digest) if counts(&digest, &path) => {
                    let written = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
                    others.push((written, path));
                }
                _ => drop(self.remove_if_old(&path, grace)?),
            }
        }
        others.sort_by(|a, b| b.cmp(a));
        for (_, path) in others.iter().skip(MOST_RECORDS) {
            self.remove_if_old(path, grace)?;
        }
        Ok(())
    }

    /// Free space on the disk of the store, in bytes.
    ///
    /// # Errors
    /// `Internal` when it cannot be told.
    pub fn free_bytes(&self) -> Result<u64> {
        let space = rustix::fs::statvfs(&self.0.modules)
            .map_err(|error| unwritable(&self.0.modules, error.into()))?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// What modules have taken that were put here since the store was opened, in bytes, whatever became of them.
    pub fn written_bytes(&self) -> u64 {
        self.0.written_bytes.load(Ordering::Relaxed)
    }

    /// Counts a module before it is here.
    pub(crate) fn count(&self, bytes: u64) {
        self.0.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The modules that are here. Blocks on the disk.
    ///
    /// # Errors
    /// `Internal` when the directory cannot be read.
    pub fn stored(&self) -> Result<Vec<Stored>> {
        let folder = &self.0.modules;
        let stored = self.files(folder)?.into_iter().filter_map(|(digest, path)| {
            // A file that is gone by now takes no room.
            let metadata = fs::metadata(path).ok()?;
            let used = metadata.modified().ok()?;
            Some(Stored { digest: digest?, size_bytes: metadata.len(), used })
        });
        Ok(stored.collect())
    }

    /// Removes a module that was not written or asked for within `grace`. Answers how many bytes that freed. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// `Internal` or `StorageFull` when it cannot be removed.
    pub fn evict(&self, digest: &Digest, grace: Duration) -> Result<u64> {
        self.remove_if_old(&self.module_path(digest), grace)
    }

    /// Removes a module that turned out to be damaged, so that the next fetch brings it anew. Blocks on the disk.
    ///
    /// # Errors
    /// `Internal` or `StorageFull` when the file is there and cannot be removed.
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
        match remove() {
            // Somebody else was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            removed => removed.map_err(|error| unwritable(path, error)),
        }
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

    pub(crate) fn tag_path(&self, image: &Digest) -> PathBuf {
        self.0.tags.join(format!("sha256-{}.json", image.hex()))
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
