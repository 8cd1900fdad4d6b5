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

#[cfg(test)]
mod tests {
    use std::{cell::Cell, os::unix::fs::symlink};

    use super::*;

    /// A folder, and the digest of what was built there last.
    struct Project(tempfile::TempDir, Cell<Option<runtime_api::Digest>>);

    impl Project {
        fn new() -> Self {
            let project = Self(tempfile::tempdir().unwrap(), Cell::default());
            project.write("template/t/template.yml", "language: T\n");
            project.write("template/t/build.sh", "true\n");
            project.write("template/t/glue/glue.t", "glue\n");
            project.write("template/t/function/sample.t", "sample\n");
            project.write("f/main.t", "main\n");
            project.write("f/part/one.t", "one\n");
            project
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        /// Whether anything is otherwise than at the last time.
        fn wrap_with(&self, handler: &str, copy: &[&str]) -> Result<bool> {
            let template = Template::find(self.0.path(), "t")?;
            let copy: Vec<String> = copy.iter().map(|path| (*path).to_owned()).collect();
            let digest = wrap(self.0.path(), "f", &template, Path::new(handler), &copy)?.digest()?;
            Ok(self.1.replace(Some(digest)) != Some(digest))
        }

        fn wrap(&self) -> bool {
            self.wrap_with("./f", &[]).unwrap()
        }

        fn refused(&self, handler: &str, copy: &[&str]) -> String {
            format!("{:#}", self.wrap_with(handler, copy).unwrap_err())
        }

        fn built(&self, path: &str) -> Option<String> {
            fs::read_to_string(self.path("build/f").join(path)).ok()
        }
    }

    #[test]
    fn a_function_is_its_template_with_its_handler_inside() {
        let project = Project::new();
        assert!(project.wrap());
        assert_eq!(project.built("glue/glue.t").as_deref(), Some("glue\n"));
        assert_eq!(project.built("function/part/one.t").as_deref(), Some("one\n"));
        assert_eq!(project.built("function/sample.t"), None, "the sample is not the handler");
        assert!(!project.wrap(), "nothing changed");
    }

    #[test]
    fn what_changed_is_copied_what_went_is_removed_and_caches_stay() {
        let project = Project::new();
        project.wrap();
        project.write("build/f/target/cache", "cached");
        project.write("build/f/function/node_modules/x.js", "cached");
        project.write("build/f/function/part/made.o", "made");
        project.write("f/main.t", "niam\n");
        fs::remove_file(project.path("f/part/one.t")).unwrap();
        fs::remove_dir(project.path("f/part")).unwrap();
        assert!(project.wrap());
        assert_eq!(project.built("function/main.t").as_deref(), Some("niam\n"));
        assert_eq!(project.built("function/part/one.t"), None);
        for cache in ["target/cache", "function/node_modules/x.js", "function/part/made.o"] {
            assert!(project.built(cache).is_some(), "{cache}");
        }
        // A mode is part of a file; and what a build did to it is undone, which is no change.
        fs::set_permissions(project.path("f/main.t"), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(project.wrap());
        project.write("build/f/function/main.t", "mine\n");
        assert!(!project.wrap());
        assert_eq!(project.built("function/main.t").as_deref(), Some("niam\n"));
    }

    #[test]
    fn a_file_and_a_folder_change_places() {
        let project = Project::new();
        project.wrap();
        fs::remove_dir_all(project.path("f/part")).unwrap();
        project.write("f/part", "now a file");
        assert!(project.wrap());
        fs::remove_file(project.path("f/part")).unwrap();
        project.write("f/part/two.t", "two\n");
        assert!(project.wrap());
        assert_eq!(project.built("function/part/two.t").as_deref(), Some("two\n"));
    }

    #[test]
    fn what_is_no_code_is_not_copied() {
        let project = Project::new();
        for path in [
            "f/build/x",
            "f/template/x",
            "f/node_modules/x",
            "f/.git/x",
            "f/target/CACHEDIR.TAG",
            "f/venv/pyvenv.cfg",
        ] {
            project.write(path, "x");
        }
        project.write("f/src/build/kept.t", "kept");
        project.wrap();
        for folder in ["build", "template", "node_modules", ".git", "target", "venv"] {
            assert!(!project.path("build/f/function").join(folder).exists(), "{folder}");
        }
        assert!(project.built("function/src/build/kept.t").is_some());
        // The project itself as handler: it does not contain its own copy.
        assert!(project.wrap_with(".", &[]).unwrap());
        assert!(
            project.built("function/f/main.t").is_some() && !project.path("build/f/function/build").exists()
        );
    }

    #[test]
    fn further_paths_lie_in_the_handler() {
        let project = Project::new();
        project.write("common/a/lib.t", "lib");
        project.write("common.txt", "text");
        project.wrap_with("f", &["./common/a", "common.txt"]).unwrap();
        assert!(
            project.built("function/common/a/lib.t").is_some()
                && project.built("function/common.txt").is_some()
        );
        assert!(project.refused("f", &["."]).contains("the whole project"));
        assert!(project.refused("f", &["../x"]).contains("configuration.copy"));
    }

    #[test]
    fn no_path_leads_out_of_the_project() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        let project = Project::new();
        for handler in ["..", "/", outside.path().to_str().unwrap()] {
            assert!(project.refused(handler, &[]).contains("leads out of the project"), "{handler}");
        }
        assert!(project.refused("nowhere", &[]).contains("there is no nowhere"));
        assert!(project.refused("f/main.t", &[]).contains("is not a folder"));
        symlink(outside.path().join("secret"), project.path("f/link")).unwrap();
        assert!(project.refused("f", &[]).contains("leads out of the project"));
        fs::remove_file(project.path("f/link")).unwrap();

        // What a build left in the way is not followed either.
        project.wrap();
        fs::remove_dir_all(project.path("build/f/function")).unwrap();
        symlink(outside.path(), project.path("build/f/function")).unwrap();
        project.wrap();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "nothing was written outside");
        assert!(project.built("function/main.t").is_some());

        // What was copied once and is no longer wanted is not removed elsewhere.
        fs::write(outside.path().join("one.t"), "precious").unwrap();
        fs::remove_dir_all(project.path("build/f/function/part")).unwrap();
        symlink(outside.path(), project.path("build/f/function/part")).unwrap();
        fs::remove_file(project.path("f/part/one.t")).unwrap();
        project.wrap();
        let precious = || fs::read_to_string(outside.path().join("one.t")).ok();
        assert_eq!(precious().as_deref(), Some("precious"), "a file outside was removed");

        // Nor do our own files' names lead anywhere.
        for (name, expected) in [(LOCK, "cannot be opened"), (RECORD, "is damaged")] {
            for target in ["one.t", "made"] {
                let link = project.path("build/f").join(name);
                fs::remove_file(&link).unwrap();
                symlink(outside.path().join(target), &link).unwrap();
                let said = project.refused("f", &[]);
                assert!(said.contains(expected) && said.contains("remove "), "{said}");
            }
            fs::remove_dir_all(project.path("build/f")).unwrap();
            project.wrap();
        }
        assert_eq!(precious().as_deref(), Some("precious"), "a file outside was written");
        fs::remove_file(outside.path().join("one.t")).unwrap();

        fs::remove_dir_all(project.path("build")).unwrap();
        symlink(outside.path(), project.path("build")).unwrap();
        assert!(project.refused("f", &[]).contains("leads out of the project"));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "nothing was made outside");
    }

    #[test]
    fn a_link_in_a_circle_ends() {
        let project = Project::new();
        symlink(project.path("f"), project.path("f/again")).unwrap();
        assert!(project.refused("f", &[]).contains("folders deep"));
    }

    #[test]
    fn one_builds_at_a_time() {
        let project = Project::new();
        let template = Template::find(project.0.path(), "t").unwrap();
        let _first = wrap(project.0.path(), "f", &template, Path::new("f"), &[]).unwrap();
        assert!(project.wrap_with("f", &[]).unwrap_err().is::<Busy>());
    }

    #[test]
    fn a_change_that_another_copied_is_one_all_the_same() {
        let project = Project::new();
        project.wrap();
        project.write("f/main.t", "niam\n");
        let template = Template::find(project.0.path(), "t").unwrap();
        drop(wrap(project.0.path(), "f", &template, Path::new("f"), &[]).unwrap());
        assert!(project.wrap());
    }

    #[test]
    fn a_record_is_believed_only_below_its_folder() {
        let project = Project::new();
        project.wrap();
        project.write("precious", "kept");
        fs::write(project.path("build/f").join(RECORD), r#"["../../precious"]"#).unwrap();
        assert!(project.refused("f", &[]).contains("is damaged"));
        assert!(project.path("precious").exists());
    }
}
