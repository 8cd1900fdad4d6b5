//! Which functions' files changed on the disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};
use tokio::time::{Instant, interval};

use crate::shrinkwrap;

/// How often the kernel is asked. An editor that saves, or a checkout, writes more than one file; when it is quiet for so
/// long, it is done.
const TICK: Duration = Duration::from_millis(50);
/// What never stops writing is looked at all the same.
const LONGEST: Duration = Duration::from_secs(2);
/// Functions that are written by hand lie in fewer.
const MAX_FOLDERS: usize = 20_000;
/// Links of a function lead to fewer places.
const MAX_ROOTS: usize = 20_000;
/// What changes a file or a folder; reading does not.
const CHANGES: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::ONLYDIR);

/// What changes are about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// The stack file, or a file of variables. It comes first, as it says what there is to be built.
    Stack,
    Function(String),
}

/// Paths that are watched. What changes while nobody asks is kept by the kernel (inotify), or that something did.
pub(crate) struct Watcher {
    /// Where links may lead.
    project: PathBuf,
    inotify: OwnedFd,
    /// By the kernel's number.
    folders: BTreeMap<i32, PathBuf>,
    /// With what links lead to.
    roots: BTreeSet<(PathBuf, Subject)>,
}

impl Watcher {
    /// For a project's folder, whose path is absolute and without links.
    pub(crate) fn new(project: &Path) -> Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        Ok(Self {
            project: project.to_owned(),
            inotify: inotify.context("files cannot be watched")?,
            folders: BTreeMap::new(),
            roots: BTreeSet::new(),
        })
    }

    /// Watches these paths from now on, which are absolute and without links: folders with all that is in them, and files
    /// where they are or may come to be. Where links in them lead is watched with them, within the project. To be called
    /// after each change, since folders and links may have come with it.
    pub(crate) fn watch(&mut self, mut roots: Vec<(PathBuf, Subject)>) -> Result<()> {
        self.roots.clear();
        while let Some((root, subject)) = roots.pop() {
            // Links go in circles.
            if !self.roots.insert((root.clone(), subject.clone())) {
                continue;
            }
            ensure!(
                self.roots.len() <= MAX_ROOTS,
                "more than {MAX_ROOTS} files and folders would be watched"
            );
            // A file that is saved is often another file in its place, and a folder may go and come again.
            if let Some(above) = root.parent() {
                self.watch_folder(above)?;
            }
            let mut targets = Vec::new();
            self.watch_all(&root, &root, &mut targets)?;
            roots.extend(targets.into_iter().map(|target| (target, subject.clone())));
        }
        Ok(())
    }

    /// Watches a folder with those in it, and tells where its links lead.
    fn watch_all(&mut self, root: &Path, path: &Path, targets: &mut Vec<PathBuf>) -> Result<()> {
        // One that has gone by now is told by an event.
        let Ok(metadata) = path.symlink_metadata() else { return Ok(()) };
        if metadata.is_file() || !path.strip_prefix(root).is_ok_and(|below| counts(root, below)) {
            return Ok(());
        }
        if metadata.is_symlink() {
            // As for a build, which refuses what leads nowhere or out of the project.
            let target = path.canonicalize().ok().filter(|target| target.starts_with(&self.project));
            targets.extend(target.filter(|target| !shrinkwrap::is_cache(target)));
        } else if metadata.is_dir() {
            self.watch_folder(path)?;
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                self.watch_all(root, &entry.path(), targets)?;
            }
        }
        Ok(())
    }

    fn watch_folder(&mut self, folder: &Path) -> Result<()> {
        match inotify::add_watch(&self.inotify, folder, CHANGES) {
            Ok(number) => {
                self.folders.insert(number, folder.to_owned());
                ensure!(self.folders.len() <= MAX_FOLDERS, "more than {MAX_FOLDERS} folders would be watched");
                Ok(())
            }
            // It has gone, which an event tells.
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(Errno::NOSPC) => Err(Errno::NOSPC).context(
                "no more folders can be watched: raise the limit with `sysctl fs.inotify.max_user_watches=1000000`",
            ),
            Err(error) => Err(error).with_context(|| format!("{} cannot be watched", folder.display())),
        }
    }

    /// Waits until something changed and writing has paused.
    pub(crate) async fn changed(&mut self) -> Result<BTreeSet<Subject>> {
        let (mut changed, mut ticks) = (BTreeSet::new(), interval(TICK));
        let mut end = None;
        loop {
            ticks.tick().await;
            let mut more = self.news()?;
            let quiet = more.is_empty();
            changed.append(&mut more);
            if changed.is_empty() {
                continue;
            }
            let end = *end.get_or_insert_with(|| Instant::now() + LONGEST);
            if quiet || Instant::now() >= end {
                return Ok(changed);
            }
        }
    }

    /// What the kernel has to tell, and nothing if that is about nothing that is watched.
    fn news(&mut self) -> Result<BTreeSet<Subject>> {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut changed = BTreeSet::new();
        loop {
            match events.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                    // What happened was more than is told.
                    changed.extend(self.roots.iter().map(|(_, subject)| subject.clone()));
                }
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_bytes()).unwrap_or_default();
                    let Some(folder) = self.folders.get(&event.wd()) else { continue };
                    let path =
                        if name.is_empty() { folder.clone() } else { folder.join(OsStr::from_bytes(name)) };
                    let concerned = self.roots.iter().filter(|(root, _)| concerns(root, &path));
                    changed.extend(concerned.map(|(_, subject)| subject.clone()));
                    if event.events().contains(ReadFlags::IGNORED) {
                        self.folders.remove(&event.wd());
                    }
                }
                Err(Errno::AGAIN) => return Ok(changed),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("changes cannot be read"),
            }
        }
    }
}

/// Whether a path is at, below or above a root.
fn concerns(root: &Path, path: &Path) -> bool {
    match path.strip_prefix(root) {
        Ok(below) => counts(root, below),
        Err(_) => root.starts_with(path),
    }
}

/// Whether a path below a root is one that is copied for a build.
fn counts(root: &Path, below: &Path) -> bool {
    let first = below.components().next().map(|first| first.as_os_str());
    let made = first.is_some_and(|first| shrinkwrap::LEFT_OUT.iter().any(|name| first == *name));
    let folders = below.ancestors().filter(|above| !above.as_os_str().is_empty());
    !made && !folders.map(|above| root.join(above)).any(|above| shrinkwrap::is_cache(&above))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tokio::time::timeout;

    use super::*;

    struct Project {
        folder: tempfile::TempDir,
        watcher: Watcher,
    }

    impl Project {
        /// Two functions and a stack file.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            ["a/src", "b"].iter().for_each(|name| fs::create_dir_all(folder.path().join(name)).unwrap());
            fs::write(folder.path().join("stack.yml"), "").unwrap();
            let watcher = Watcher::new(&folder.path().canonicalize().unwrap()).unwrap();
            let mut project = Self { folder, watcher };
            project.watch();
            project
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().canonicalize().unwrap().join(name)
        }

        fn watch(&mut self) {
            let function = |name: &str| (self.path(name), Subject::Function(name.into()));
            let roots = vec![function("a"), function("b"), (self.path("stack.yml"), Subject::Stack)];
            self.watcher.watch(roots).unwrap();
        }

        fn write(&self, name: &str, text: &str) {
            fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
            fs::write(self.path(name), text).unwrap();
        }

        async fn changed(&mut self) -> Vec<Subject> {
            let changed = timeout(Duration::from_secs(60), self.watcher.changed()).await;
            let changed = changed.expect("a change is told").unwrap().into_iter().collect();
            self.watch();
            changed
        }
    }

    fn function(name: &str) -> Subject {
        Subject::Function(name.into())
    }

    #[tokio::test]
    async fn changes_are_told_of_what_they_are_about() {
        let mut project = Project::new();
        project.write("a/src/main", "1");
        assert_eq!(project.changed().await, [function("a")]);
        // Reading is no change, nor is what builds and tools write.
        fs::read(project.path("b")).unwrap_err();
        fs::read(project.path("a/src/main")).unwrap();
        for made in ["build/a/out", "a/build/out", "a/node_modules/x", "other"] {
            project.write(made, "made");
        }
        project.write("new", "version: 1.0");
        fs::rename(project.path("new"), project.path("stack.yml")).unwrap();
        assert_eq!(project.changed().await, [Subject::Stack]);
    }

    #[tokio::test]
    async fn folders_that_come_and_go_are_told() {
        let mut project = Project::new();
        project.write("a/more/deep/file", "1");
        assert_eq!(project.changed().await, [function("a")]);
        project.write("a/more/deep/file", "2");
        assert_eq!(project.changed().await, [function("a")]);
        fs::remove_dir(project.path("b")).unwrap();
        assert_eq!(project.changed().await, [function("b")]);
        fs::create_dir(project.path("b")).unwrap();
        assert_eq!(project.changed().await, [function("b")]);
        project.write("b/file", "1");
        assert_eq!(project.changed().await, [function("b")]);
    }

    #[tokio::test]
    async fn what_changes_while_nobody_asks_is_kept() {
        let mut project = Project::new();
        project.write("a/src/main", "1");
        project.write("b/main", "1");
        project.write("stack.yml", "1");
        assert_eq!(project.changed().await, [Subject::Stack, function("a"), function("b")]);
    }

    #[tokio::test]
    async fn what_lies_behind_links_is_the_function_s() {
        let mut project = Project::new();
        let outside = tempfile::tempdir().unwrap();
        project.write("common/deep/lib", "1");
        project.write("more/one", "1");
        symlink("../common", project.path("a/common")).unwrap();
        symlink("../../more/one", project.path("common/deep/one")).unwrap();
        // These lead in a circle, nowhere, and out of the project.
        symlink("../a", project.path("common/again")).unwrap();
        symlink("nothing", project.path("a/broken")).unwrap();
        symlink(outside.path(), project.path("a/outside")).unwrap();
        assert_eq!(project.changed().await, [function("a")]);
        for path in ["common/deep/lib", "more/one", "common/deep/new"] {
            project.write(path, "2");
            assert_eq!(project.changed().await, [function("a")], "{path}");
        }
        // Both are told together, if either is told.
        fs::write(outside.path().join("file"), "1").unwrap();
        project.write("more/another", "1");
        project.write("b/main", "1");
        assert_eq!(project.changed().await, [function("b")]);
    }

    #[test]
    fn what_is_not_copied_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("target")).unwrap();
        fs::write(folder.path().join("target/CACHEDIR.TAG"), "").unwrap();
        for (below, expected) in [
            ("main.rs", true),
            ("src/build/x", true),
            ("", true),
            ("build/x", false),
            ("template", false),
            ("node_modules/x", false),
            ("src/.git/HEAD", false),
            ("target/debug/x", false),
        ] {
            assert_eq!(counts(folder.path(), Path::new(below)), expected, "{below}");
        }
    }
}
