//! When the pages of the file are checked.
//!
//! Each record tells itself whether it is what was written, whenever it is read. What only a check of the whole file
//! tells is whether the tree still leads to all of them. That takes seconds for each gigabyte, so that a large file is
//! opened first, and checked beside the work: as it was when it was opened, so that nothing that is written meanwhile
//! covers up what is found. If something is, the queue ends and does not open again, for its file may look sound since.

use std::{
    io,
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use runtime_store::{Check, CheckStopper, Database, Disk, DiskFile, Opening};
use tracing::{error, info};

use super::{Settings, open::FILE, shared::Shared};
use crate::{Error, Result};

/// A file that tells a start of what the last one found. Without a text, the file is to be checked before it is used.
const MARK: &str = "check";
/// More of it is not read.
const FOUND_BYTES: u64 = 1024;

/// Opens the file or makes it, with what is still to be checked.
pub(super) fn open(
    disk: &Arc<dyn Disk>,
    settings: &Settings,
) -> Result<(Database, Option<Check>), runtime_store::Error> {
    let unreadable = |source| runtime_store::Error::Unusable {
        path: disk.path().to_owned(),
        problem: "the directory cannot be read".into(),
        source: Some(source),
    };
    let marked = disk.names().map_err(unreadable)?.iter().any(|name| name == MARK);
    if marked {
        let found = read_mark(&**disk).map_err(unreadable)?;
        if !found.is_empty() {
            let advice = format!(
                "restore it from a backup or move it away, or remove {MARK} to use what is left of it"
            );
            let problem = format!("its check found damage ({found}); {advice}");
            return Err(runtime_store::Error::Unusable {
                path: disk.path().to_owned(),
                problem,
                source: None,
            });
        }
    }
    let length = match disk.open(FILE, Opening::Existing) {
        Ok(file) => file.len_bytes().map_err(unreadable)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(unreadable(error)),
    };
    if length > settings.check_at_once_bytes && !marked {
        let (database, check) = Database::open_unchecked(Arc::clone(disk), FILE, settings.cache_bytes)?;
        return Ok((database, Some(check)));
    }
    let database = Database::open(Arc::clone(disk), FILE, settings.cache_bytes)?;
    if marked {
        disk.remove(MARK).map_err(unreadable)?;
    }
    Ok((database, None))
}

fn read_mark(disk: &dyn Disk) -> io::Result<String> {
    let file = disk.open(MARK, Opening::Existing)?;
    let mut text = vec![0; usize::try_from(file.len_bytes()?.min(FOUND_BYTES)).unwrap_or_default()];
    file.read_at(0, &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Leaves a word for the next start: what was found, or nothing where the file is to be checked first.
pub(super) fn mark(disk: &dyn Disk, found: &str) {
    let write = |file: Arc<dyn DiskFile>| file.write_at(0, found.as_bytes()).and_then(|()| file.sync());
    let marked = disk.open(MARK, Opening::Either).and_then(write).and_then(|()| disk.sync_names());
    if let Err(error) = marked {
        error!(%error, "what is wrong with the queue's file cannot be noted");
    }
}

/// A check beside the work.
pub(super) struct Checking {
    stopper: CheckStopper,
    thread: JoinHandle<()>,
}

impl Checking {
    pub(super) fn start(shared: Arc<Shared>, check: Check) -> Result<Self> {
        let stopper = check.stopper();
        shared.checking.send_replace(true);
        let work = move || {
            match check.run() {
                Ok(()) => info!("the queue's file was checked"),
                Err(found) => {
                    let found = found.to_string();
                    mark(&*shared.disk, &found);
                    shared.fail(found);
                }
            }
            shared.checking.send_replace(false);
        };
        let thread = Builder::new().name("queue-check".into()).spawn(work);
        let thread =
            thread.map_err(|error| Error::Stopped(format!("its thread cannot be started: {error}")))?;
        Ok(Self { stopper, thread })
    }

    /// Ends it, wherever it is.
    pub(super) fn end(self) {
        self.stopper.stop();
        // A panic of the library's is caught where it is called.
        let _ = self.thread.join();
    }
}
