use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, io::Errno};

use crate::{Error, Result};

/// The directory that holds all of a node's state, held by this process alone until dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    /// The lock goes with the last handle on the file, also when the process dies.
    _lock: File,
}

impl DataDirectory {
    /// Makes the directory if there is none, checks that it can be written, and takes its lock.
    ///
    /// # Errors
    /// [`Error::InUse`] with the holder's process id; otherwise what is wrong with the directory and what to do.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        make_directory(&path)?;
        let path = fs::canonicalize(&path).map_err(|error| describe(&path, error))?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path.join("lock"))
            .map_err(|error| describe(&path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { path, holder: holder(&mut lock) }),
            Err(TryLockError::Error(error)) => return Err(describe(&path, error)),
        }
        write_process_id(&mut lock).map_err(|error| describe(&path, error))?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is, absolute and without links.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn make_directory(path: &Path) -> Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(_) if path.exists() && !path.is_dir() => Err(Error::Unusable {
            path: path.to_owned(),
            problem: "it is not a directory; choose another with --data-dir".into(),
            source: None,
        }),
        Err(error) => Err(describe(path, error)),
    }
}

/// Writing the process id also shows, before anything depends on it, that the directory takes writes.
fn write_process_id(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    writeln!(lock, "{}", std::process::id())?;
    lock.sync_all()
}

fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    match lock.take(32).read_to_string(&mut text) {
        Ok(_) if text.trim().parse::<u32>().is_ok() => format!("process {}", text.trim()),
        _ => "another process".into(),
    }
}

fn describe(path: &Path, error: io::Error) -> Error {
    let problem = match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "it is on a read-only file system; remount it, or choose --data-dir"
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied; change its owner, or choose another with --data-dir"
        }
        io::ErrorKind::NotADirectory => {
            "a part of the path is not a directory; choose another with --data-dir"
        }
        _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            "its file 'lock' is a link; remove it"
        }
        _ => return Error::unusable(path, error.to_string(), error),
    };
    Error::unusable(path, problem, error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn is_made_private_and_held_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let held = DataDirectory::open(&path).unwrap();
        assert_eq!(fs::metadata(held.path()).unwrap().permissions().mode() & 0o777, 0o700);

        let refused = DataDirectory::open(&path).unwrap_err().to_string();
        assert!(refused.contains(&format!("in use by process {}", std::process::id())), "{refused}");

        drop(held);
        DataDirectory::open(&path).unwrap();
    }

    #[test]
    fn says_what_is_wrong_with_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let linked = folder.path().join("linked");
        fs::create_dir(&linked).unwrap();
        symlink(&file, linked.join("lock")).unwrap();

        for (path, expected) in [
            (file.clone(), "not a directory"),
            (file.join("below"), "not a directory"),
            (linked, "'lock' is a link"),
            (PathBuf::from("/proc/fawn"), "cannot use /proc/fawn"),
        ] {
            let message = DataDirectory::open(&path).unwrap_err().to_string();
            assert!(message.contains(expected), "{}: {message}", path.display());
        }
    }

    #[test]
    fn tells_a_full_and_a_read_only_disk_apart() {
        let path = Path::new("/data");
        assert!(matches!(describe(path, io::ErrorKind::StorageFull.into()), Error::Full { .. }));
        let read_only = describe(path, io::ErrorKind::ReadOnlyFilesystem.into()).to_string();
        assert!(read_only.contains("read-only"), "{read_only}");
    }
}
