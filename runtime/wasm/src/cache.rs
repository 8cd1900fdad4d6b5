//! Machine code on disk. A file is loaded only if its keyed hash was checked since the machine booted and the
//! file has not changed since.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use runtime_api::Digest;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::{child::Report, engine::Engine};

/// The files of compiled modules, in a directory that only we can enter.
pub(crate) struct Cache {
    directory: PathBuf,
    key: [u8; 32],
    compatibility: u64,
    boot_id: String,
}

/// Beside each code file: what is in it, and when it was last found to be what we wrote.
#[derive(Serialize, Deserialize)]
struct Record {
    report: Report,
    code_hash: String,
    checked: Stamp,
}

/// What changes when a file's content does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
    boot_id: String,
}

/// A code file that was opened once and found intact.
pub(crate) struct CheckedCode {
    pub(crate) report: Report,
    file: File,
}

impl CheckedCode {
    /// A path to the very file that was checked, whatever lies under its name by now.
    pub(crate) fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }
}

impl Cache {
    /// Opens the directory, making it if need be, and sweeps what an interrupted compilation left.
    pub(crate) fn open(directory: &Path, key: [u8; 32], engine: &Engine) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
        let temporary = directory.join("tmp");
        if temporary.exists() {
            fs::remove_dir_all(&temporary)?;
        }
        fs::create_dir(&temporary)?;
        let mut hasher = DefaultHasher::new();
        engine.wasmtime().precompile_compatibility_hash().hash(&mut hasher);
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        Ok(Self { directory: directory.to_owned(), key, compatibility: hasher.finish(), boot_id })
    }

    /// A fresh directory for one compilation.
    pub(crate) fn temporary(&self) -> io::Result<tempfile::TempDir> {
        tempfile::tempdir_in(self.directory.join("tmp"))
    }

    fn code_path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(format!("{}-{:016x}.cwasm", digest.hex(), self.compatibility))
    }

    fn record_path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(format!("{}-{:016x}.json", digest.hex(), self.compatibility))
    }

    /// Opens the code of a module. `None` when there is none, or none that can be trusted; that is then removed.
    pub(crate) fn open_checked(&self, digest: &Digest) -> io::Result<Option<CheckedCode>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::open(self.code_path(digest), flags, Mode::empty()) {
            Ok(descriptor) => File::from(descriptor),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::LOOP) => return self.distrust(digest, "is a symbolic link"),
            Err(error) => return Err(error.into()),
        };
        let Some(record) = self.read_record(digest)? else {
            return self.distrust(digest, "has no valid record");
        };
        let metadata = file.metadata()?;
        if metadata.mode() & 0o7777 != 0o400 || metadata.uid() != rustix::process::geteuid().as_raw() {
            return self.distrust(digest, "has another owner or mode than it was given");
        }
        let stamp = self.stamp(&file)?;
        if stamp != record.checked {
            if self.hash(&record.report, &file)? != record.code_hash {
                return self.distrust(digest, "was changed");
            }
            self.write_record(digest, &Record { checked: stamp, ..record_of(&record) })?;
        }
        Ok(Some(CheckedCode { report: record.report, file }))
    }

    /// Takes the code that a child wrote: from now on it is what its hash says.
    pub(crate) fn insert(&self, digest: &Digest, code: &Path, report: Report) -> io::Result<()> {
        let file = File::open(code)?;
        file.set_permissions(fs::Permissions::from_mode(0o400))?;
        file.sync_all()?;
        let code_hash = self.hash(&report, &file)?;
        fs::rename(code, self.code_path(digest))?;
        runtime_store::sync_directory(&self.directory)?;
        self.write_record(digest, &Record { report, code_hash, checked: self.stamp(&file)? })
    }

    /// Removes files older than `grace` of modules that `keep` does not want.
    pub(crate) fn retain(&self, keep: impl Fn(&str) -> bool, grace: Duration) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((digest, _)) = name.to_str().and_then(|name| name.split_once('-')) else { continue };
            // A clock that was set back makes a file look young, never old.
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if !keep(digest) && age >= grace {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn distrust(&self, digest: &Digest, why: &str) -> io::Result<Option<CheckedCode>> {
        tracing::warn!(%digest, why, "machine code is not trusted and is compiled again");
        for path in [self.code_path(digest), self.record_path(digest)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Covers the report too, so that neither can be swapped.
    fn hash(&self, report: &Report, code: &File) -> io::Result<String> {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&serde_json::to_vec(report)?);
        hasher.update_reader(code.try_clone()?)?;
        rustix::fs::seek(code, rustix::fs::SeekFrom::Start(0))?;
        Ok(hasher.finalize().to_hex().to_string())
    }

    fn stamp(&self, file: &File) -> io::Result<Stamp> {
        let metadata = file.metadata()?;
        Ok(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            boot_id: self.boot_id.clone(),
        })
    }

    fn write_record(&self, digest: &Digest, record: &Record) -> io::Result<()> {
        let json = serde_json::to_string(record)?;
        let line = format!("{}\n{json}", self.record_hash(digest, &json));
        runtime_store::write_atomically(&self.record_path(digest), line.as_bytes(), 0o600)
    }

    fn read_record(&self, digest: &Digest) -> io::Result<Option<Record>> {
        let text = match fs::read_to_string(self.record_path(digest)) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let genuine = text.split_once('\n').filter(|(hash, json)| {
            blake3::Hash::from_hex(hash).is_ok_and(|hash| hash == self.record_hash(digest, json))
        });
        Ok(genuine.and_then(|(_, json)| serde_json::from_str(json).ok()))
    }

    fn record_hash(&self, digest: &Digest, json: &str) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&digest.0).update(&self.compatibility.to_le_bytes()).update(json.as_bytes());
        hasher.finalize()
    }
}

fn record_of(record: &Record) -> Record {
    Record {
        report: record.report.clone(),
        code_hash: record.code_hash.clone(),
        checked: record.checked.clone(),
    }
}
