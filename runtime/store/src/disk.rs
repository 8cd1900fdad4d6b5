use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{FallocateFlags, OFlags},
    io::Errno,
};

use crate::sync_directory;

/// A directory on a disk, as far as a store needs one. Everything blocks. Tests bring one that fails.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Where it is, for messages.
    fn path(&self) -> &Path;

    /// Opens a file of the directory for reading and writing.
    ///
    /// # Errors
    /// Whatever the system says; `NotFound` or `AlreadyExists` as `how` asks.
    fn open(&self, name: &str, how: Opening) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes a file's name. The name may come back in a power cut, unless the directory is synced.
    ///
    /// # Errors
    /// Whatever the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all files, in any order.
    ///
    /// # Errors
    /// Whatever the system says.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Makes the names durable: a file that was synced can still lose its name in a power cut.
    ///
    /// # Errors
    /// Whatever the system says.
    fn sync_names(&self) -> io::Result<()>;

    /// How many bytes may still be written.
    ///
    /// # Errors
    /// Whatever the system says.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// Whether [`Disk::open`] makes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// It must be there.
    Existing,
    /// It is made unless it is there.
    Either,
    /// It must not be there.
    New,
}

/// An open file of a [`Disk`].
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// Its length.
    ///
    /// # Errors
    /// Whatever the system says.
    fn len_bytes(&self) -> io::Result<u64>;

    /// Fills `out` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` where the file is shorter; else whatever the system says.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` from `offset` on. Durable only after [`DiskFile::sync`].
    ///
    /// # Errors
    /// Whatever the system says; any part may then have been written.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Cuts the file, or makes it longer with zeroes that take no room yet.
    ///
    /// # Errors
    /// Whatever the system says.
    fn set_len_bytes(&self, length: u64) -> io::Result<()>;

    /// Makes the file this long, with room on the disk for all of it.
    ///
    /// # Errors
    /// Whatever the system says.
    fn allocate(&self, length: u64) -> io::Result<()>;

    /// Makes the content durable. After an error, nothing may be taken for durable that was not before: the system
    /// forgets what it could not write, and a second attempt would succeed without it.
    ///
    /// # Errors
    /// Whatever the system says.
    fn sync(&self) -> io::Result<()>;
}

/// Holds room where a file system knows no other way to.
fn fill(file: &File, length: u64) -> io::Result<()> {
    let zeroes = [0; 1 << 16];
    let mut offset = file.metadata()?.len();
    while offset < length {
        let piece = zeroes.len().min(usize::try_from(length - offset).unwrap_or(zeroes.len()));
        file.write_all_at(zeroes.get(..piece).unwrap_or_default(), offset)?;
        offset += piece as u64;
    }
    file.sync_all()
}

/// A directory of the operating system's.
#[derive(Debug)]
pub struct SystemDisk {
    directory: PathBuf,
}

impl SystemDisk {
    /// A directory that exists.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }
}

impl Disk for SystemDisk {
    fn path(&self) -> &Path {
        &self.directory
    }

    fn open(&self, name: &str, how: Opening) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(how == Opening::Either)
            .create_new(how == Opening::New)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(self.directory.join(name))?;
        Ok(Arc::new(SystemFile(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.directory.join(name))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let named = fs::read_dir(&self.directory)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        // What is not UTF-8 is not ours.
        named.filter_map(io::Result::transpose).collect()
    }

    fn sync_names(&self) -> io::Result<()> {
        sync_directory(&self.directory)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let space = rustix::fs::statvfs(&self.directory)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

#[derive(Debug)]
struct SystemFile(File);

impl DiskFile for SystemFile {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn set_len_bytes(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, length) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(&self.0, length),
            done => Ok(done?),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
