//! Machine code on disk. A file is loaded only if its keyed hash was checked since the machine booted and the
//! file has not changed since.

use std::{
    error::Error as _,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use runtime_api::{Digest, Error, Stored};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{child::Report, engine::Engine, failpoint};

/// What reports tell, and how it was found out: 1 counts tables as memory. Modules with other reports are compiled anew.
const REPORT_VERSION: u8 = 1;

/// A disk with less free space than this is full.
const FULL_BYTES: u64 = 1 << 20;

/// Parts of a module are kept for whoever works on its function, this long after they were left.
const PARTS_KEPT: Duration = Duration::from_secs(3600);

/// The files of compiled modules, in a directory that only we can enter.
pub(crate) struct Cache {
    directory: PathBuf,
    key: [u8; 32],
    compatibility: u64,
    boot_id: String,
    written_bytes: AtomicU64,
}

/// Beside each code file: what is in it, and when it was last found to be what we wrote.
#[derive(Serialize, Deserialize)]
struct Record {
    report: Report,
    code_hash: String,
    checked: Stamp,
    /// Of the parts that its compilation left.
    #[serde(default)]
    parts_hash: Option<String>,
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
    size_bytes: u64,
}

impl CheckedCode {
    /// A path to the very file that was checked, whatever lies under its name by now.
    pub(crate) fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
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
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        Ok(Self {
            directory: directory.to_owned(),
            key,
            compatibility: compatibility(engine),
            boot_id,
            written_bytes: AtomicU64::new(0),
        })
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

    fn parts_path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(format!("{}-{:016x}.parts", digest.hex(), self.compatibility))
    }

    /// Opens the code of a module. `None` when there is none, or none that can be trusted; that is then removed.
    ///
    /// The caller is the only one that works on this digest's files.
    pub(crate) fn open_checked(&self, digest: &Digest) -> io::Result<Option<CheckedCode>> {
        let file = match open_regular(&self.code_path(digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if is_scarcity(&error) => return Err(error),
            Err(error) => return self.distrust(digest, &error.to_string()),
        };
        let Some(mut record) = self.read_record(digest)? else {
            return self.distrust(digest, "has no valid record");
        };
        let metadata = file.metadata()?;
        if metadata.mode() & 0o7777 != 0o400 || metadata.uid() != rustix::process::geteuid().as_raw() {
            return self.distrust(digest, "has another owner or mode than it was given");
        }
        let stamp = self.stamp(&file)?;
        if stamp != record.checked {
            match self.hash(&record.report, &file) {
                Ok(hash) if hash == record.code_hash => {}
                Ok(_) => return self.distrust(digest, "was changed"),
                Err(error) if is_scarcity(&error) => return Err(error),
                Err(error) => return self.distrust(digest, &error.to_string()),
            }
            record.checked = stamp;
            if let Err(error) = self.write_record(digest, &record) {
                tracing::warn!(%digest, %error, "that machine code was checked cannot be noted, so it is checked again");
            }
        }
        Ok(Some(CheckedCode { report: record.report, size_bytes: metadata.len(), file }))
    }

    /// Gives the parts of a module that a compilation left another name in `folder`, if there are any that can be trusted.
    pub(crate) fn link_parts(&self, digest: &Digest, folder: &Path) -> io::Result<Option<PathBuf>> {
        let Some(hash) = self.read_record(digest)?.and_then(|record| record.parts_hash) else {
            return Ok(None);
        };
        let link = folder.join("parts");
        match fs::hard_link(self.parts_path(digest), &link) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            linked => linked?,
        }
        let found = self.parts_hash(digest, &open_regular(&link)?)?;
        if found != hash {
            tracing::warn!(%digest, "parts of machine code were changed and are not used");
        }
        Ok((found == hash).then_some(link))
    }

    /// Takes the code that a child wrote, and the parts of it that it left, into files that only this process has ever
    /// opened: from now on they are what their hashes say.
    pub(crate) fn insert(
        &self,
        digest: &Digest,
        code: &Path,
        parts: Option<&Path>,
        report: Report,
    ) -> io::Result<()> {
        let mut copy = tempfile::NamedTempFile::new_in(self.directory.join("tmp"))?;
        failpoint::passed("copy-begun");
        let bytes = io::copy(&mut open_regular(code)?, copy.as_file_mut())?;
        failpoint::passed("copied");
        copy.as_file().set_permissions(fs::Permissions::from_mode(0o400))?;
        copy.as_file().sync_all()?;
        failpoint::passed("synced");
        rustix::fs::seek(copy.as_file(), rustix::fs::SeekFrom::Start(0))?;
        let code_hash = self.hash(&report, copy.as_file())?;
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        let file = copy.persist(self.code_path(digest))?;
        failpoint::passed("renamed");
        runtime_store::sync_directory(&self.directory)?;
        let parts_hash = parts.map(|parts| self.insert_parts(digest, parts)).transpose().unwrap_or_else(|error| {
            tracing::warn!(%digest, %error, "parts of machine code cannot be kept: the next compilation takes longer");
            None
        });
        let checked = self.stamp(&file)?;
        self.write_record(digest, &Record { report, code_hash, checked, parts_hash })?;
        failpoint::passed("recorded");
        Ok(())
    }

    /// Nothing is synced: parts that a power cut takes are made again.
    fn insert_parts(&self, digest: &Digest, parts: &Path) -> io::Result<String> {
        let mut copy = tempfile::NamedTempFile::new_in(self.directory.join("tmp"))?;
        let bytes = io::copy(&mut open_regular(parts)?, copy.as_file_mut())?;
        copy.as_file().set_permissions(fs::Permissions::from_mode(0o400))?;
        rustix::fs::seek(copy.as_file(), rustix::fs::SeekFrom::Start(0))?;
        let hash = self.parts_hash(digest, copy.as_file())?;
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        copy.persist(self.parts_path(digest))?;
        Ok(hash)
    }

    fn parts_hash(&self, digest: &Digest, parts: &File) -> io::Result<String> {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(b"parts\0").update(&digest.0).update_reader(parts)?;
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Removes files older than `grace` of modules that `keep` does not want, and of other versions of Wasmtime; and parts
    /// that are old.
    pub(crate) fn retain(&self, keep: impl Fn(&str) -> bool, grace: Duration) -> io::Result<()> {
        let ours = format!("{:016x}", self.compatibility);
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((digest, rest)) = name.to_str().and_then(|name| name.split_once('-')) else { continue };
            if !(keep(digest) && rest.starts_with(&ours)) {
                remove_if_old(&entry, grace)?;
            } else if rest.ends_with(".parts") {
                remove_if_old(&entry, PARTS_KEPT)?;
            }
        }
        Ok(())
    }

    /// Removes all parts. Answers how many bytes that freed.
    pub(crate) fn drop_parts(&self) -> io::Result<u64> {
        let mut freed = 0;
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|extension| extension == "parts") {
                freed += remove_if_old(&entry, Duration::ZERO)?;
            }
        }
        Ok(freed)
    }

    /// What files have taken that were put here since the cache was opened, in bytes, whatever became of them.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// What lies here, also of other versions of Wasmtime; each file is one entry.
    pub(crate) fn stored(&self) -> io::Result<Vec<Stored>> {
        let mut stored = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Some(digest) = digest_in_name(&entry) else { continue };
            match entry.metadata() {
                Ok(file) => stored.push(Stored { digest, size_bytes: file.len(), used: file.modified()? }),
                // A file that is gone by now takes no room.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(stored)
    }

    /// Removes what lies here of one module and was not written for `grace`. Answers how many bytes that freed.
    pub(crate) fn evict(&self, digest: &Digest, grace: Duration) -> io::Result<u64> {
        let mut freed = 0;
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if digest_in_name(&entry) == Some(*digest) {
                freed += remove_if_old(&entry, grace)?;
            }
        }
        Ok(freed)
    }

    fn distrust(&self, digest: &Digest, why: &str) -> io::Result<Option<CheckedCode>> {
        tracing::warn!(%digest, why, "machine code is not trusted and is compiled again");
        for path in [self.code_path(digest), self.record_path(digest), self.parts_path(digest)] {
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
        self.written_bytes.fetch_add(line.len() as u64, Ordering::Relaxed);
        runtime_store::write_atomically(&self.record_path(digest), line.as_bytes(), 0o600)
    }

    /// The record of a module, if there is one that we wrote.
    fn read_record(&self, digest: &Digest) -> io::Result<Option<Record>> {
        match fs::read_to_string(self.record_path(digest)) {
            Ok(text) => Ok(self.parse_record(digest, &text)),
            Err(error) if is_scarcity(&error) => Err(error),
            Err(_) => Ok(None),
        }
    }

    fn parse_record(&self, digest: &Digest, text: &str) -> Option<Record> {
        let (written, json) = text.split_once('\n')?;
        let is_ours = is_written_as(written, self.record_hash(digest, json));
        if is_ours { serde_json::from_str(json).ok() } else { None }
    }

    fn record_hash(&self, digest: &Digest, json: &str) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&digest.0).update(&self.compatibility.to_le_bytes()).update(&[REPORT_VERSION]);
        hasher.update(json.as_bytes());
        hasher.finalize()
    }
}

/// Whether this is how we write the hash: the same number in capitals is not ours, either.
pub(crate) fn is_written_as(written: &str, hash: blake3::Hash) -> bool {
    // In constant time, as blake3 compares.
    blake3::Hash::from_hex(written).is_ok_and(|read| read == hash) && written == hash.to_hex().as_str()
}

/// Tells versions and settings of Wasmtime apart whose code does not fit each other.
pub(crate) fn compatibility(engine: &Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.wasmtime().precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

/// What to say of a disk that would not do what was asked.
pub(crate) fn disk_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::StorageFull("the disk of the machine code is full: free some space and try again".into())
        }
        _ => Error::internal(error),
    }
}

/// What a compiling process that failed could not say on a disk that its own output has filled.
pub(crate) fn for_want_of_room(folder: &Path, error: Error) -> Error {
    match error {
        Error::Internal(_) if free_bytes(folder).is_ok_and(|free| free < FULL_BYTES) => {
            disk_error(io::ErrorKind::StorageFull.into())
        }
        error => error,
    }
}

pub(crate) fn free_bytes(folder: &Path) -> rustix::io::Result<u64> {
    rustix::fs::statvfs(folder).map(|space| space.f_bavail.saturating_mul(space.f_frsize))
}

/// Whether something failed for want of open files, mappings or memory, which loaded code takes some of.
pub(crate) fn is_scarce(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref().is_some_and(is_scarcity)
            || error.downcast_ref().is_some_and(|errno| SCARCITIES.contains(errno))
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Says nothing about the file that was to be opened.
pub(crate) fn is_scarcity(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| SCARCITIES.contains(&errno))
}

const SCARCITIES: [Errno; 3] = [Errno::NOMEM, Errno::MFILE, Errno::NFILE];

fn digest_in_name(entry: &fs::DirEntry) -> Option<Digest> {
    let name = entry.file_name();
    let (hex, _) = name.to_str()?.split_once('-')?;
    format!("sha256:{hex}").parse().ok()
}

/// Opens a file that is no link, pipe or the like.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("is no regular file")) }
}

/// Answers how many bytes that freed.
pub(crate) fn remove_if_old(entry: &fs::DirEntry, grace: Duration) -> io::Result<u64> {
    let remove = || {
        let file = entry.metadata()?;
        // Reading does not change a file's modification time, so a record's tells when the code was compiled or
        // checked. A clock that was set back makes a file look young, never old.
        if file.modified()?.elapsed().unwrap_or_default() < grace {
            return Ok(0);
        }
        fs::remove_file(entry.path()).map(|()| file.len())
    };
    match remove() {
        // Somebody else was quicker.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        removed => removed,
    }
}
