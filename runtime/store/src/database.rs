use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use redb::{Builder, ReadableDatabase, StorageBackend};

use crate::{
    Check, Disk, DiskFile, Error, Opening, Result,
    store::cannot_open,
    transaction::{Snapshot, Transaction, stopped},
};

/// Tables of bytes by bytes in one file, changed by transactions of one writer. Everything blocks on the disk.
///
/// A transaction is durable when [`Database::write`] returns, or never happened, whatever crashes. An error of the disk
/// stops the database for good, but for one: where the disk is full, it can be opened again in place.
#[derive(Debug)]
pub struct Database {
    disk: Arc<dyn Disk>,
    name: &'static str,
    cache_bytes: usize,
    /// None once closed, and while there is no room to open it again.
    file: RwLock<Option<File>>,
    closed: AtomicBool,
    failure: OnceLock<String>,
}

#[derive(Debug)]
struct File {
    redb: redb::Database,
    trouble: Arc<Trouble>,
}

/// What the disk refused since the file was opened.
#[derive(Debug, Default)]
struct Trouble {
    full: AtomicBool,
    /// Anything else, of which a failed sync is the one that must never be tried again.
    broken: AtomicBool,
    length: AtomicU64,
}

impl Database {
    /// Opens the file of this name or makes it, repairs what a crash left, and checks every page of it.
    ///
    /// # Errors
    /// [`Error::Unusable`]: what is wrong with the file and what to do. [`Error::Full`].
    pub fn open(disk: Arc<dyn Disk>, name: &'static str, cache_bytes: usize) -> Result<Self> {
        let file = open_file(&*disk, name, cache_bytes, true)?;
        Self::of(disk, name, cache_bytes, file)
    }

    /// The same, but the pages are still to be checked: in the background, say. Takes no longer for a large file, and also
    /// after a crash.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn open_unchecked(
        disk: Arc<dyn Disk>,
        name: &'static str,
        cache_bytes: usize,
    ) -> Result<(Self, Check)> {
        // The library panics at some of what it does not expect. What it trips over, the check can name.
        let opened = catch_unwind(AssertUnwindSafe(|| open_file(&*disk, name, cache_bytes, false)));
        let file = match opened {
            Ok(Ok(file)) => file,
            Ok(Err(_)) | Err(_) => open_file(&*disk, name, cache_bytes, true)?,
        };
        let path = disk.path().join(name);
        let pages = file.redb.begin_read().map_err(stopped)?;
        let unreadable = |error| Error::unusable(&path, "the file cannot be read", error);
        let opened = disk.open(name, Opening::Existing).map_err(unreadable)?;
        let check = Check::new(path.clone(), opened, pages).map_err(unreadable)?;
        Ok((Self::of(disk, name, cache_bytes, file)?, check))
    }

    fn of(disk: Arc<dyn Disk>, name: &'static str, cache_bytes: usize, file: File) -> Result<Self> {
        // redb syncs the file but not its name.
        disk.sync_names()
            .map_err(|error| Error::unusable(disk.path(), "the directory cannot be synced", error))?;
        Ok(Self {
            disk,
            name,
            cache_bytes,
            file: RwLock::new(Some(file)),
            closed: AtomicBool::new(false),
            failure: OnceLock::new(),
        })
    }

    /// Does a piece of work as one transaction, which is on disk when this returns. An error of the work's undoes all
    /// of it. One caller at a time; others wait.
    ///
    /// # Errors
    /// The work's; [`Error::Full`]: it is unknown whether the transaction happened, which tells itself after
    /// [`Database::reopen`]; [`Error::Stopped`]: unknown until the next start.
    pub fn write<T>(&self, work: impl FnOnce(&Transaction) -> Result<T>) -> Result<T> {
        self.with_file(|file| {
            let mut transaction = file.redb.begin_write().map_err(stopped)?;
            // Two phases, so that no crafted value can pass for a valid commit; and a crash is repaired in no time.
            transaction.set_quick_repair(true);
            let transaction = Transaction(transaction);
            let done = work(&transaction)?;
            transaction.0.commit().map_err(stopped)?;
            Ok(done)
        })
    }

    /// Reads what the last finished transaction left, while others may write.
    ///
    /// # Errors
    /// The work's; [`Error::Stopped`], [`Error::Closed`], [`Error::Full`] until the database was opened again.
    pub fn read<T>(&self, work: impl FnOnce(&Snapshot) -> Result<T>) -> Result<T> {
        self.with_file(|file| work(&Snapshot(file.redb.begin_read().map_err(stopped)?)))
    }

    /// Opens the file again after [`Error::Full`], once there is room: as the next start would find it.
    ///
    /// # Errors
    /// [`Error::Full`] when there is still too little room: try again. [`Error::Stopped`].
    pub fn reopen(&self) -> Result<()> {
        self.check_running()?;
        let mut file = self.file.write().unwrap_or_else(PoisonError::into_inner);
        // The old one lets go of the file first. It has failed already, so that it has nothing left to say.
        drop(file.take());
        match open_file(&*self.disk, self.name, self.cache_bytes, false) {
            Ok(opened) => *file = Some(opened),
            Err(full @ Error::Full { .. }) => return Err(full),
            Err(error) => return Err(Error::Stopped(self.fail(error.to_string()))),
        }
        Ok(())
    }

    /// Gives unused room back to the disk; nobody reads or writes meanwhile. Takes as long as copying what is in use.
    ///
    /// # Errors
    /// [`Error::Full`], as for [`Database::write`]; [`Error::Stopped`].
    pub fn compact(&self) -> Result<()> {
        self.check_running()?;
        let mut file = self.file.write().unwrap_or_else(PoisonError::into_inner);
        let file = file.as_mut().ok_or_else(|| self.missing())?;
        let compacted = file.redb.compact().map(|_| ()).map_err(stopped);
        compacted.map_err(|error| self.judge(file, error))
    }

    /// The length of the file.
    pub fn len_bytes(&self) -> u64 {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        file.as_ref().map_or(0, |file| file.trouble.length.load(Ordering::Relaxed))
    }

    /// Closes the file; later work finds it closed.
    ///
    /// # Errors
    /// [`Error::Stopped`] when a write failed, now or before.
    pub fn close(&self) -> Result<()> {
        let file = self.file.write().unwrap_or_else(PoisonError::into_inner).take();
        self.closed.store(true, Ordering::Relaxed);
        if let Some(Err(error)) = file.map(|file| file.redb.close()) {
            self.fail(error.to_string());
        }
        self.check_running()
    }

    /// Stops the database for good; answers the first cause, which is that of the others.
    pub fn fail(&self, failure: String) -> String {
        self.failure.get_or_init(|| failure).clone()
    }

    /// # Errors
    /// [`Error::Stopped`] once the database has stopped.
    pub fn check_running(&self) -> Result<()> {
        self.failure.get().map_or(Ok(()), |failure| Err(Error::Stopped(failure.clone())))
    }

    fn with_file<T>(&self, work: impl FnOnce(&File) -> Result<T>) -> Result<T> {
        self.check_running()?;
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        let file = file.as_ref().ok_or_else(|| self.missing())?;
        if file.trouble.full.load(Ordering::Relaxed) {
            return Err(self.full());
        }
        work(file).map_err(|error| self.judge(file, error))
    }

    /// What an error of the library's means for what comes after it.
    fn judge(&self, file: &File, error: Error) -> Error {
        let Error::Stopped(problem) = error else { return error };
        if file.trouble.full.load(Ordering::Relaxed) && !file.trouble.broken.load(Ordering::Relaxed) {
            return self.full();
        }
        Error::Stopped(self.fail(problem))
    }

    fn missing(&self) -> Error {
        if self.closed.load(Ordering::Relaxed) { Error::Closed } else { self.full() }
    }

    fn full(&self) -> Error {
        Error::Full { path: self.disk.path().to_owned() }
    }
}

fn open_file(disk: &dyn Disk, name: &'static str, cache_bytes: usize, check: bool) -> Result<File> {
    let path = disk.path().join(name);
    let trouble = Arc::<Trouble>::default();
    let file = disk
        .open(name, Opening::Either)
        .map_err(|error| Error::unusable(&path, "the file cannot be opened", error))?;
    let backend = Backend { file, trouble: Arc::clone(&trouble) };
    let opened = Builder::new()
        .set_cache_size(cache_bytes)
        .set_check_integrity_on_open(check)
        .create_with_backend(backend)
        .map_err(|error| cannot_open(&path, error));
    match opened {
        Ok(redb) => Ok(File { redb, trouble }),
        Err(_) if trouble.full.load(Ordering::Relaxed) && !trouble.broken.load(Ordering::Relaxed) => {
            Err(Error::Full { path })
        }
        Err(error) => Err(error),
    }
}

/// One of our files as the library wants it. Nobody else has it open: its directory has one holder.
#[derive(Debug)]
pub(crate) struct Backend {
    file: Arc<dyn DiskFile>,
    trouble: Arc<Trouble>,
}

impl Backend {
    #[cfg(test)]
    pub(crate) fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file, trouble: Arc::default() }
    }

    /// Remembers what kind of failure it was.
    fn seen<T>(&self, syncing: bool, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let trouble = if full && !syncing { &self.trouble.full } else { &self.trouble.broken };
            trouble.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        let length = self.seen(false, self.file.len_bytes())?;
        self.trouble.length.store(length, Ordering::Relaxed);
        Ok(length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.seen(false, self.file.read_at(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.seen(false, self.file.set_len_bytes(len))?;
        self.trouble.length.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.seen(true, self.file.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.seen(false, self.file.write_at(offset, data))
    }

    fn try_lock_range(
        &self,
        _start: std::ops::Bound<u64>,
        _end: std::ops::Bound<u64>,
    ) -> Result<bool, redb::BackendError> {
        Ok(true)
    }
}
