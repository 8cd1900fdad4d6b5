//! `/store/functions.json`: what can be deployed from this gateway's store, for everybody, as lists of stores are.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use runtime_api::{Error, Result};
use runtime_http::Failure;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::StoreList;

/// The file that says what is in a packed store.
const LIST: &str = "functions.json";
/// How long a request waits for those before it: a disk that answers reads the list in a moment.
const TURN_WAIT: Duration = Duration::from_secs(5);

/// Where the list of a packed store is read from: a folder with `functions.json`. It is read again when the file has changed,
/// and held once, however many ask for it.
#[derive(Clone, Debug)]
pub struct FunctionStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    list: Mutex<List>,
    /// One looks at the file at a time, also where nobody waits for it any longer.
    turns: Arc<Semaphore>,
}

#[derive(Clone, Debug)]
struct List {
    stamp: Stamp,
    /// What the file holds, or else what is wrong with that.
    content: Result<Bytes, String>,
}

/// What tells a file from what was in its place, or what it was, before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl FunctionStore {
    /// Reads the list of the store in a folder. Blocks on the disk.
    ///
    /// # Errors
    /// `Invalid` when there is none, it is longer than [`StoreList::MAX_BYTES`], or a function in it cannot be deployed.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(LIST);
        let list = read(&path).map_err(invalid)?;
        if let Err(reason) = list.content {
            return Err(invalid(reason));
        }
        Ok(Self(Arc::new(Shared { path, list: Mutex::new(list), turns: Arc::new(Semaphore::new(1)) })))
    }

    /// The list as it is in the file now.
    async fn list(&self) -> Result<Bytes> {
        let turn = timeout(TURN_WAIT, Arc::clone(&self.0.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| Error::Overloaded {
            message: "the store's list takes long to be read: try again in a second".into(),
            retry_after: Duration::from_secs(1),
        })?;
        let turn = turn.map_err(Error::internal)?;
        let shared = Arc::clone(&self.0);
        let newest = spawn_blocking(move || {
            // What was begun goes on when its request is gone, and with it the turn.
            let _turn = turn;
            shared.newest()
        });
        newest.await.map_err(Error::internal)?
    }
}

impl Shared {
    fn newest(&self) -> Result<Bytes> {
        let known = self.list().clone();
        let stamp = self.path.metadata().map(|found| Stamp::of(&found));
        if stamp.is_ok_and(|stamp| stamp == known.stamp) {
            return known.content.map_err(unusable);
        }
        let list = read(&self.path).map_err(unusable)?;
        *self.list() = list.clone();
        list.content.map_err(unusable)
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stamp {
    fn of(found: &std::fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

fn invalid(reason: String) -> Error {
    Error::invalid("invalid-store", reason)
}

fn unusable(reason: String) -> Error {
    let message =
        "the store's list cannot be used since it was changed: its operator finds the reason in the log";
    Error::unavailable(message, reason)
}

/// Reads and checks a list; answers why it cannot be read, which may pass. The stamp is taken first, so that a change
/// meanwhile is seen the next time.
fn read(path: &Path) -> Result<List, String> {
    let wrong = |why: String| format!("{}: {why}", path.display());
    let (stamp, bytes) = bounded(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => wrong("there is no such file, which lists a store's functions".into()),
        _ => wrong(format!("it cannot be read: {error}")),
    })?;
    let checked = StoreList::parse(&bytes).and_then(|list| list.check());
    Ok(List { stamp, content: checked.map(|()| bytes.into()).map_err(|error| wrong(error.to_string())) })
}

fn bounded(path: &Path) -> io::Result<(Stamp, Vec<u8>)> {
    // A pipe would keep us waiting.
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let file = File::open(path)?;
    let (stamp, mut bytes) = (Stamp::of(&file.metadata()?), Vec::new());
    file.take(StoreList::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok((stamp, bytes))
}

/// The list, as it is in the file.
pub(crate) async fn list(State(store): State<Option<FunctionStore>>) -> Result<Response, Failure> {
    let Some(store) = store else {
        let message = "this gateway has no function store: its operator adds one with --store FOLDER (FAWN_STORE), and \
                       `fawn store list --url URL` reads another";
        return Err(Error::NotFound(message.into()).into());
    };
    Ok(([(CONTENT_TYPE, "application/json")], store.list().await?).into_response())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ONE: &str = r#"{"functions":[{"name":"a","images":{"x86_64":"oci:images:a"}}]}"#;

    #[tokio::test]
    async fn a_list_that_changes_is_read_again_and_one_that_is_wrong_is_not_served() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LIST);
        fs::write(&path, ONE).unwrap();
        let store = FunctionStore::open(folder.path()).unwrap();
        let first = store.list().await.unwrap();
        assert_eq!(first, ONE);
        assert_eq!(store.list().await.unwrap().as_ptr(), first.as_ptr(), "it is held once");
        let two = ONE.replace("\"a\"", "\"b\"");
        runtime_store::write_atomically(&path, two.as_bytes(), 0o644).unwrap();
        assert_eq!(store.list().await.unwrap(), two);
        runtime_store::write_atomically(&path, b"{", 0o644).unwrap();
        assert_eq!(store.list().await.unwrap_err().code(), "unavailable");
        fs::remove_file(&path).unwrap();
        assert_eq!(store.list().await.unwrap_err().code(), "unavailable");
        let three = ONE.replace("\"a\"", "\"three\"");
        fs::write(&path, &three).unwrap();
        assert_eq!(store.list().await.unwrap(), three);
    }

    #[tokio::test]
    async fn a_list_that_is_wrong_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LIST);
        fs::write(&path, ONE).unwrap();
        let store = FunctionStore::open(folder.path()).unwrap();
        fs::write(&path, "{").unwrap();
        store.list().await.unwrap_err();
        // Whoever reads the file again finds another reason.
        store.0.list().content = Err("remembered".into());
        let Error::Unavailable { source, .. } = store.list().await.unwrap_err() else { panic!() };
        assert_eq!(source.unwrap().to_string(), "remembered");
        let two = ONE.replace("\"a\"", "\"two\"");
        fs::write(&path, &two).unwrap();
        assert_eq!(store.list().await.unwrap(), two);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_slow_disk_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LIST), ONE).unwrap();
        let store = FunctionStore::open(folder.path()).unwrap();
        let turn = Arc::clone(&store.0.turns).try_acquire_owned().unwrap();
        assert_eq!(store.list().await.unwrap_err().code(), "no-capacity");
        drop(turn);
        assert_eq!(store.list().await.unwrap(), ONE);
    }

    #[test]
    fn a_folder_that_is_no_store_is_refused_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let refusal = || FunctionStore::open(folder.path()).unwrap_err().to_string();
        let path = folder.path().join(LIST);
        assert!(refusal().contains("functions.json: there is no such file"));
        fs::create_dir(&path).unwrap();
        assert!(refusal().contains("it is no file"));
        fs::remove_dir(&path).unwrap();
        for (text, expected) in [
            ("{}".to_owned(), "not as expected"),
            (ONE.replace("oci:images:a", "UPPER"), "function \"a\": image \"UPPER\""),
            (" ".repeat(StoreList::MAX_BYTES) + ONE, "limit"),
        ] {
            fs::write(&path, text).unwrap();
            assert!(refusal().contains(expected), "{}", refusal());
        }
    }
}
