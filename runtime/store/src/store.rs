use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, PoisonError, RwLock},
    thread::JoinHandle,
};

use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, TableError, backends::FileBackend,
};
use rustix::fs::OFlags;
use tokio::sync::{mpsc, oneshot};

use crate::{
    Error, Result,
    committer::{self, Change, Message, table},
    record::Sealer,
    sync_directory,
};

const DATABASE_FILE: &str = "meta.redb";
const KEY_FILE: &str = "store.key";

/// Specs and secrets are small; redb's own default would be 1 GiB.
const CACHE_BYTES: usize = 8 << 20;
/// Changes that wait for the committer; more callers wait for a place.
const WAITING_CHANGES: usize = 1024;

const MAX_KEY_BYTES: usize = 1 << 10;
/// Larger things belong in files of their own, so that the tree stays small.
const MAX_VALUE_BYTES: usize = 4 << 20;

/// Small records by table and key. Cheap to clone; the file is closed with the last clone.
///
/// A change is acknowledged only when it is on disk, however long the disk takes: callers that cannot wait so long
/// bring their own deadline, after which the change may still happen.
#[derive(Clone)]
pub struct Store {
    writer: Arc<Writer>,
}

struct Writer {
    shared: Arc<Shared>,
    /// Taken on drop: the committer ends when nobody can ask it any more.
    messages: Option<mpsc::Sender<Message>>,
    committer: Option<JoinHandle<()>>,
}

/// What the committer and readers share.
pub(crate) struct Shared {
    pub(crate) path: PathBuf,
    database: RwLock<Option<Database>>,
    failure: OnceLock<String>,
    sealer: Sealer,
    free_bytes: FreeBytes,
}

type FreeBytes = Box<dyn Fn() -> io::Result<u64> + Send + Sync>;

impl Store {
    /// Whether a data directory has a store already.
    pub fn exists(directory: &Path) -> bool {
        // An interrupted first start can leave an empty file, which holds no records.
        directory.join(DATABASE_FILE).metadata().is_ok_and(|metadata| metadata.len() > 0)
    }

    /// Opens the store of a data directory, or makes it, and checks every page of it. Blocks on the disk.
    ///
    /// # Errors
    /// What is wrong with the file and what to do: another process has it, its key is lost, it is damaged.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join(DATABASE_FILE);
        let sealer = Sealer::load(&directory.join(KEY_FILE), Self::exists(directory))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(|error| Error::unusable(&path, "the store's file cannot be opened", error))?;
        let backend = FileBackend::new(file).map_err(|error| cannot_open(&path, error))?;
        let space = directory.to_owned();
        let store = Self::open_on(backend, &path, sealer, Box::new(move || free_bytes(&space)))?;
        // redb syncs the file but not its name.
        sync_directory(directory)
            .map_err(|error| Error::unusable(directory, "the directory cannot be synced", error))?;
        Ok(store)
    }

    /// Opens a store on any backend: tests bring disks that fail.
    pub(crate) fn open_on(
        backend: impl StorageBackend,
        path: &Path,
        sealer: Sealer,
        free_bytes: FreeBytes,
    ) -> Result<Self> {
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)
            .map_err(|error| cannot_open(path, error))?;
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            database: RwLock::new(Some(database)),
            failure: OnceLock::new(),
            sealer,
            free_bytes,
        });
        let (messages, receiver) = mpsc::channel(WAITING_CHANGES);
        let for_committer = Arc::clone(&shared);
        let committer = std::thread::Builder::new()
            .name("store-committer".into())
            .spawn(move || committer::run(&for_committer, receiver))
            .map_err(|error| Error::unusable(path, "its thread cannot be started", error))?;
        let writer = Writer { shared, messages: Some(messages), committer: Some(committer) };
        Ok(Self { writer: Arc::new(writer) })
    }

    /// Keeps a value under a key, in place of the one there may be.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Full`]; [`Error::Stopped`] when whether it was kept is unknown.
    pub async fn put(&self, table: &'static str, key: &str, value: Vec<u8>) -> Result<()> {
        check_size(key, key.len(), MAX_KEY_BYTES)?;
        check_size(key, value.len(), MAX_VALUE_BYTES)?;
        let record = self.writer.shared.sealer.seal(table, key.as_bytes(), &value);
        self.change(table, key, Some(record)).await.map(|_| ())
    }

    /// Removes a key, also when its record is damaged. Answers whether there was one.
    ///
    /// # Errors
    /// [`Error::Stopped`] when whether it was removed is unknown.
    pub async fn remove(&self, table: &'static str, key: &str) -> Result<bool> {
        self.change(table, key, None).await
    }

    /// The value under a key. May read from the disk.
    ///
    /// # Errors
    /// [`Error::DamagedRecord`] when it is not what was put there.
    pub fn get(&self, table: &'static str, key: &str) -> Result<Option<Vec<u8>>> {
        let shared = &self.writer.shared;
        let record = shared.with_database(|database| read_one(database, table, key))?;
        record.map(|record| shared.unseal(table, key, &record)).transpose()
    }

    /// Every key of a table, sorted, with its value, or with [`Error::DamagedRecord`] where that is not what was put
    /// there: one damaged record costs no other. May read from the disk.
    ///
    /// # Errors
    /// [`Error::Stopped`] or [`Error::Closed`] when nothing can be read.
    pub fn list(&self, table: &'static str) -> Result<Vec<(String, Result<Vec<u8>>)>> {
        let shared = &self.writer.shared;
        let records = shared.with_database(|database| read_all(database, table))?;
        let unseal = |(key, record): (String, Vec<u8>)| {
            let value = shared.unseal(table, &key, &record);
            (key, value)
        };
        Ok(records.into_iter().map(unseal).collect())
    }

    /// Finishes the changes asked for so far and closes the file. Clones find the store closed.
    ///
    /// # Errors
    /// [`Error::Stopped`] when a write failed, now or before.
    pub async fn close(self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Close(reply)).await?;
        answer.await.map_err(|_| self.writer.shared.gone())?
    }

    async fn change(&self, table: &'static str, key: &str, record: Option<Vec<u8>>) -> Result<bool> {
        self.writer.shared.check_running()?;
        let (reply, answer) = oneshot::channel();
        self.send(Message::Change(Change { table, key: key.to_owned(), record, reply })).await?;
        answer.await.map_err(|_| self.writer.shared.gone())?
    }

    async fn send(&self, message: Message) -> Result<()> {
        let messages = self.writer.messages.as_ref().ok_or(Error::Closed)?;
        messages.send(message).await.map_err(|_| self.writer.shared.gone())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.writer.shared.path.display())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.messages = None;
        // A committer that panicked has already failed the calls that depended on it.
        let _ = self.committer.take().map(JoinHandle::join);
    }
}

impl Shared {
    /// Runs a piece of work on the open database. Any error of the library stops the store for good.
    pub(crate) fn with_database<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T> {
        self.check_running()?;
        let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or(Error::Closed)?;
        work(database).map_err(|error| Error::Stopped(self.fail(error.to_string())))
    }

    fn unseal(&self, table: &'static str, key: &str, record: &[u8]) -> Result<Vec<u8>> {
        let value = self.sealer.unseal(table, key.as_bytes(), record).map(<[u8]>::to_vec);
        value.map_err(|problem| Error::DamagedRecord { table, key: key.to_owned(), problem })
    }

    pub(crate) fn close(&self) -> Result<()> {
        let database = self.database.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(error)) = database.map(Database::close) {
            self.fail(error.to_string());
        }
        self.check_running()
    }

    pub(crate) fn check_running(&self) -> Result<()> {
        self.failure.get().map_or(Ok(()), |failure| Err(Error::Stopped(failure.clone())))
    }

    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        (self.free_bytes)()
    }

    /// The first failure is the cause of the others.
    fn fail(&self, failure: String) -> String {
        self.failure.get_or_init(|| failure).clone()
    }

    /// Why the committer does not answer.
    fn gone(&self) -> Error {
        match (self.check_running(), self.database.read().unwrap_or_else(PoisonError::into_inner).is_some()) {
            (Err(stopped), _) => stopped,
            (Ok(()), false) => Error::Closed,
            (Ok(()), true) => Error::Stopped(self.fail("its writing thread ended".into())),
        }
    }
}

fn read_one(database: &Database, name: &str, key: &str) -> Result<Option<Vec<u8>>, redb::Error> {
    match database.begin_read()?.open_table(table(name)) {
        Ok(table) => Ok(table.get(key)?.map(|record| record.value().to_vec())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read_all(database: &Database, name: &str) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
    let table = match database.begin_read()?.open_table(table(name)) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut records = Vec::new();
    for entry in table.iter()? {
        let (key, record) = entry?;
        records.push((key.value().to_owned(), record.value().to_vec()));
    }
    Ok(records)
}

fn check_size(key: &str, size_bytes: usize, limit_bytes: usize) -> Result<()> {
    if size_bytes <= limit_bytes {
        return Ok(());
    }
    Err(Error::TooLarge { key: key.chars().take(64).collect(), size_bytes, limit_bytes })
}

pub(crate) fn cannot_open(path: &Path, error: redb::DatabaseError) -> Error {
    let problem = match &error {
        redb::DatabaseError::DatabaseAlreadyOpen => {
            "another process has it open; stop that process".to_owned()
        }
        other => format!(
            "the store is damaged or of another kind ({other}); restore it from a backup or move it away"
        ),
    };
    match error {
        redb::DatabaseError::Storage(redb::StorageError::Io(error)) => Error::unusable(
            path,
            format!("the store cannot be read or written ({error}); look after the disk"),
            error,
        ),
        _ => Error::Unusable { path: path.to_owned(), problem, source: None },
    }
}

fn free_bytes(directory: &Path) -> io::Result<u64> {
    let space = rustix::fs::fstatvfs(File::open(directory)?)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

#[cfg(test)]
mod tests;
