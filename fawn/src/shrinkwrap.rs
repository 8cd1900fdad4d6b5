//! A function's folder below `build`: its template, with its handler inside. What was copied is told from what a build made
//! there, so that toolchains find their caches again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::ErrorKind,
    os::unix::{
        ffi::OsStrExt,
        fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use runtime_store::write_atomically;
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use crate::{templates::Template, usage::Mistakes};

#[cfg(test)]
mod tests;

/// Where functions are built (faas-cli).
pub(crate) const FOLDER: &str = "build";
/// Folders of a handler that are never part of it (faas-cli).
pub(crate) const LEFT_OUT: [&str; 2] = [FOLDER, crate::templates::FOLDER];
/// What of a function's folder was copied there.
const RECORD: &str = ".fawn-files.json";
/// Held while a function is built.
const LOCK: &str = ".fawn-lock";
/// Beyond these it is no handler, but somebody's home.
const MAX_FILES: usize = 20_000;
const MAX_BYTES: u64 = 1 << 30;
const MAX_DEPTH: usize = 64;

/// A function's folder, ready to be built in; nobody else builds there while this exists.
#[derive(Debug)]
pub(crate) struct Wrapped {
    pub(crate) folder: PathBuf,
    /// Those that were copied, below the folder.
    files: Vec<PathBuf>,
    _lock: File,
}

impl Wrapped {
    /// Of what is built: the names, modes and contents of what was copied.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn digest(&self) -> Result<runtime_api::Digest> {
        let mut hash = Sha256::new();
        for path in &self.files {
            let (whole, name) = (self.folder.join(path), path.as_os_str().as_bytes());
            let unreadable = || format!("{} cannot be read", whole.display());
            let mode = whole.metadata().with_context(unreadable)?.permissions().mode() & 0o777;
            let content = fs::read(&whole).with_context(unreadable)?;
            // With their lengths, so that nothing of one is taken for another's.
            hash.update(name.len().to_le_bytes());
            hash.update(name);
            hash.update(mode.to_le_bytes());
            hash.update(content.len().to_le_bytes());
            hash.update(&content);
        }
        Ok(runtime_api::Digest(hash.finalize().into()))
    }
}

/// Another process builds the function just now.
#[derive(Debug)]
pub(crate) struct Busy {
    function: String,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is being built by another `fawn`: wait for it, or end it", self.function)
    }
}

impl std::error::Error for Busy {}

/// Brings a function's folder up to date: copies what changed, and removes what went.
///
/// # Errors
/// A path leads out of the project, or cannot be copied; [`Busy`] while the function is built already.
pub(crate) fn wrap(
    project: &Path,
    function: &str,
    template: &Template,
    handler: &Path,
    copy: &[String],
) -> Result<Wrapped> {
    let project = project.canonicalize().context("the project's folder cannot be read")?;
    let folder = project.join(FOLDER).join(function);
    let (wanted, lock) = (collect(&project, template, handler, copy)?, lock(&project, &folder, function)?);
    let known = read_record(&folder)?;
    // Whatever happens from here on, no file is forgotten.
    write_record(&folder, known.iter().map(PathBuf::as_path).chain(wanted.keys().map(PathBuf::as_path)))?;
    for gone in known.iter().filter(|path| !wanted.contains_key(*path)) {
        remove(&folder, gone)?;
    }
    for (path, source) in &wanted {
        update(&folder, path, source).with_context(|| {
            format!("{} cannot be copied to {}", source.display(), folder.join(path).display())
        })?;
    }
    write_record(&folder, wanted.keys().map(PathBuf::as_path))?;
    Ok(Wrapped { folder, files: wanted.into_keys().collect(), _lock: lock })
}

/// Whether a folder is a tool's own: it can be made again, or is none of the function's code.
pub(crate) fn is_cache(folder: &Path) -> bool {
    let named = folder
        .file_name()
        .is_some_and(|name| name == ".git" || name == "node_modules" || name == "__pycache__");
    // Cargo and others mark theirs (bford.info/cachedir), and so does Python's venv.
    named || folder.join("CACHEDIR.TAG").is_file() || folder.join("pyvenv.cfg").is_file()
}

/// Where a path leads, if that is in the project.
pub(crate) fn confine(project: &Path, path: &Path) -> Result<PathBuf> {
    let found = match project.join(path).canonicalize() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Mistakes::from(format!("there is no {}", path.display())).into());
        }
        found => found.with_context(|| format!("{} cannot be read", path.display()))?,
    };
    if !found.starts_with(project) {
        return Err(Mistakes::from(format!("{} leads out of the project", path.display())).into());
    }
    Ok(found)
}

/// Which file is to be where in the folder.
fn collect(
    project: &Path,
    template: &Template,
    handler: &Path,
    copy: &[String],
) -> Result<BTreeMap<PathBuf, PathBuf>> {
    let mut files = Files { project, found: BTreeMap::new(), bytes: 0 };
    let inside = template.handler_folder();
    let own = confine(project, &template.folder)?;
    files.folder(&own, Path::new(""), 0, &|path| path == inside)?;
    let source = confine(project, handler)?;
    ensure!(source.is_dir(), Mistakes::from(format!("handler {} is not a folder", handler.display())));
    let left_out = |path: &Path| LEFT_OUT.iter().any(|name| path == inside.join(name));
    files.folder(&source, inside, 0, &left_out)?;
    for path in copy {
        let source = confine(project, Path::new(path)).context("configuration.copy")?;
        let relative = source.strip_prefix(project)?;
        if relative.as_os_str().is_empty() {
            return Err(Mistakes::from(format!("configuration.copy: {path} is the whole project")).into());
        }
        files.any(&source, &inside.join(relative), 0, &|_| false)?;
    }
    Ok(files.found)
}

struct Files<'a> {
    project: &'a Path,
    found: BTreeMap<PathBuf, PathBuf>,
    bytes: u64,
}

impl Files<'_> {
    fn folder(
        &mut self,
        source: &Path,
        to: &Path,
        depth: usize,
        left_out: &dyn Fn(&Path) -> bool,
    ) -> Result<()> {
        ensure!(depth < MAX_DEPTH, "{} is more than {MAX_DEPTH} folders deep", source.display());
        let unreadable = || format!("{} cannot be read", source.display());
        for entry in fs::read_dir(source).with_context(unreadable)? {
            let path = entry.with_context(unreadable)?.path();
            let name = path.file_name().context("a folder's entry has a name")?;
            let to = to.join(name);
            ensure!(to.to_str().is_some(), "the name of {} is not UTF-8", path.display());
            if !left_out(&to) {
                self.any(&path, &to, depth, left_out)?;
            }
        }
        Ok(())
    }

    /// A file, or a folder that is no tool's own. Links are followed, within the project.
    fn any(&mut self, path: &Path, to: &Path, depth: usize, left_out: &dyn Fn(&Path) -> bool) -> Result<()> {
        let source = confine(self.project, path)?;
        let metadata = source.metadata().with_context(|| format!("{} cannot be read", source.display()))?;
        if metadata.is_dir() {
            return if is_cache(&source) { Ok(()) } else { self.folder(&source, to, depth + 1, left_out) };
        }
        ensure!(metadata.is_file(), "{} is neither a file nor a folder", path.display());
        self.bytes += metadata.len();
        self.found.insert(to.to_owned(), source);
        ensure!(
            self.found.len() <= MAX_FILES && self.bytes <= MAX_BYTES,
            "a function has at most {MAX_FILES} files and {} MiB: {} goes beyond",
            MAX_BYTES >> 20,
            path.display()
        );
        Ok(())
    }
}

/// Makes the folder, if need be, and has it for this process alone.
fn lock(project: &Path, folder: &PathBuf, function: &str) -> Result<File> {
    // One after the other, so that nothing is made where a link leads.
    for folder in [&project.join(FOLDER), folder] {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        confine(project, folder)?;
    }
    let path = folder.join(LOCK);
    // What a build left there is neither followed nor waited for.
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(&path)
        .with_context(|| format!("{} cannot be opened: remove {}", path.display(), folder.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Busy { function: function.to_owned() }.into()),
        Err(TryLockError::Error(error)) => Err(error).context("the build's folder cannot be locked"),
    }
}

fn read_record(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let (path, unreadable) = (folder.join(RECORD), "the record of copied files cannot be read");
    let damaged = || format!("{} is damaged: remove {}", path.display(), folder.display());
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        there => ensure!(there.context(unreadable)?.is_file(), damaged()),
    }
    let text = fs::read(&path).context(unreadable)?;
    let known: BTreeSet<PathBuf> = serde_json::from_slice(&text).with_context(damaged)?;
    ensure!(
        known.iter().all(|path| path.components().all(|part| matches!(part, Component::Normal(_)))),
        damaged()
    );
    Ok(known)
}

fn write_record<'a>(folder: &Path, paths: impl Iterator<Item = &'a Path>) -> Result<()> {
    let known: BTreeSet<&Path> = paths.collect();
    let path = folder.join(RECORD);
    write_atomically(&path, &serde_json::to_vec(&known)?, 0o644)
        .with_context(|| format!("{} cannot be written", path.display()))
}

/// Removes a file that was copied, with the folders that it leaves empty.
fn remove(folder: &Path, path: &Path) -> Result<()> {
    let above: Vec<_> = parents(path).collect();
    // Behind a link or in place of a folder, it is not what was copied.
    if !above.iter().all(|parent| folder.join(parent).symlink_metadata().is_ok_and(|there| there.is_dir())) {
        return Ok(());
    }
    let whole = folder.join(path);
    match fs::remove_file(&whole) {
        // What a build put in its place is the build's.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory
            ) =>
        {
            return Ok(());
        }
        removed => removed.with_context(|| format!("{} cannot be removed", whole.display()))?,
    }
    for parent in above {
        // It has other files.
        if fs::remove_dir(folder.join(parent)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Copies a file unless it is there already, with the same content and mode. Times do not count: sources from a version
/// control system may be older than what was built from others.
fn update(folder: &Path, path: &Path, source: &Path) -> Result<()> {
    let target = folder.join(path);
    make_parents(folder, path)?;
    if let Ok(there) = target.symlink_metadata() {
        ensure!(!there.is_dir(), "a folder is in the way: remove {}", target.display());
        let wanted = source.metadata()?;
        let mode = |metadata: &fs::Metadata| metadata.permissions().mode() & 0o777;
        let alike = there.is_file() && there.len() == wanted.len() && mode(&there) == mode(&wanted);
        if alike && fs::read(&target)? == fs::read(source)? {
            return Ok(());
        }
        fs::remove_file(&target)?;
    }
    fs::copy(source, &target)?;
    Ok(())
}

/// The folders above a file, the nearest first.
fn parents(path: &Path) -> impl Iterator<Item = &Path> {
    path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty())
}

/// Makes the folders above a file, and none through a link.
fn make_parents(folder: &Path, path: &Path) -> Result<()> {
    let above: Vec<_> = parents(path).collect();
    for parent in above.into_iter().rev() {
        let whole = folder.join(parent);
        match whole.symlink_metadata() {
            Ok(there) if there.is_dir() => continue,
            Ok(_) => fs::remove_file(&whole)?,
            Err(_) => {}
        }
        fs::create_dir(&whole)?;
    }
    Ok(())
}
