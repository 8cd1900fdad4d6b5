use std::{
    fs::File,
    io::Write,
    path::Path,
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// As many as wait for the queue's own thread.
const PLACES: usize = 4096;

/// A file to which one thread appends whatever waits, and syncs before it answers.
pub(crate) struct RawLog {
    entries: mpsc::Sender<Entry>,
    thread: JoinHandle<Result<()>>,
}

struct Entry {
    bytes: Bytes,
    done: oneshot::Sender<()>,
}

impl RawLog {
    pub(crate) fn start(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        let (entries, waiting) = mpsc::channel(PLACES);
        Ok(Self { entries, thread: thread::spawn(|| append(file, waiting)) })
    }

    /// A handle for one client.
    pub(crate) fn client(&self) -> Client {
        Client(self.entries.clone())
    }

    /// Returns once nobody is left to append.
    pub(crate) fn end(self) -> Result<()> {
        drop(self.entries);
        self.thread.join().map_err(|_| anyhow!("the log's thread panicked"))?
    }
}

#[derive(Clone)]
pub(crate) struct Client(mpsc::Sender<Entry>);

impl Client {
    /// Returns when it is on disk.
    pub(crate) async fn append(&self, bytes: Bytes) -> Result<()> {
        let (done, on_disk) = oneshot::channel();
        self.0.send(Entry { bytes, done }).await.map_err(|_| anyhow!("the log has failed"))?;
        on_disk.await.context("the log has failed")
    }
}

fn append(mut file: File, mut waiting: mpsc::Receiver<Entry>) -> Result<()> {
    let (mut bytes, mut answers) = (Vec::new(), Vec::new());
    while let Some(first) = waiting.blocking_recv() {
        let mut next = Some(first);
        while let Some(entry) = next {
            bytes.extend_from_slice(&entry.bytes);
            answers.push(entry.done);
            next = waiting.try_recv().ok();
        }
        file.write_all(&bytes)?;
        file.sync_data()?;
        bytes.clear();
        for done in answers.drain(..) {
            // A client that has gone away has nothing to be told.
            let _ = done.send(());
        }
    }
    Ok(())
}
