use std::sync::Arc;

use redb::{Database, TableDefinition};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use crate::{Error, Result, store::Shared};

/// One transaction takes at most this much, so that its callers do not wait for too many others.
const BATCH_CHANGES: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

/// Free space that puts leave alone, so that removing still works on a full disk (redb copies pages to change them).
const RESERVE_BYTES: u64 = 4 << 20;
/// What one change may take besides its value, in copied pages.
const CHANGE_BYTES: u64 = 16 << 10;

pub(crate) const fn table(name: &str) -> TableDefinition<'_, &'static str, &'static [u8]> {
    TableDefinition::new(name)
}

pub(crate) enum Message {
    Change(Change),
    Close(oneshot::Sender<Result<()>>),
}

/// One put (a sealed record) or removal (none).
pub(crate) struct Change {
    pub(crate) table: &'static str,
    pub(crate) key: String,
    pub(crate) record: Option<Vec<u8>>,
    /// Told after the commit: whether there was a record before.
    pub(crate) reply: oneshot::Sender<Result<bool>>,
}

impl Change {
    fn size_bytes(&self) -> usize {
        self.record.as_ref().map_or(0, Vec::len)
    }
}

/// The one writer: commits whatever has gathered while the last commit ran, until closed or nobody is left to ask.
pub(crate) fn run(shared: &Arc<Shared>, mut messages: mpsc::Receiver<Message>) {
    while let Some(first) = messages.blocking_recv() {
        let (batch, close) = drain(first, &mut messages);
        commit_and_reply(shared, batch);
        if let Some(reply) = close {
            // A caller that no longer waits has nothing to be told.
            let _ = reply.send(shared.close());
            return;
        }
    }
}

fn drain(
    first: Message,
    messages: &mut mpsc::Receiver<Message>,
) -> (Vec<Change>, Option<oneshot::Sender<Result<()>>>) {
    let (mut batch, mut bytes, mut next) = (Vec::new(), 0, Some(first));
    while let Some(message) = next {
        match message {
            Message::Close(reply) => return (batch, Some(reply)),
            Message::Change(change) => {
                bytes += change.size_bytes();
                batch.push(change);
            }
        }
        let room = batch.len() < BATCH_CHANGES && bytes < BATCH_BYTES;
        next = if room { messages.try_recv().ok() } else { None };
    }
    (batch, None)
}

fn commit_and_reply(shared: &Shared, batch: Vec<Change>) {
    let batch = refuse_what_does_not_fit(shared, batch);
    if batch.is_empty() {
        return;
    }
    match shared.with_database(|database| commit(database, &batch)) {
        Ok(results) => {
            for (change, existed) in batch.into_iter().zip(results) {
                let _ = change.reply.send(Ok(existed));
            }
        }
        Err(failure) => {
            error!(error = %failure, "the store takes no more writes");
            for change in batch {
                let _ = change.reply.send(shared.check_running().and(Err(Error::Closed)));
            }
        }
    }
}

fn refuse_what_does_not_fit(shared: &Shared, batch: Vec<Change>) -> Vec<Change> {
    if batch.iter().all(|change| change.record.is_none()) {
        return batch;
    }
    let mut room = shared.free_bytes().map(|free| free.saturating_sub(RESERVE_BYTES));
    let mut accepted = Vec::with_capacity(batch.len());
    for change in batch {
        let needed = if change.record.is_some() { CHANGE_BYTES + 2 * change.size_bytes() as u64 } else { 0 };
        match &mut room {
            Ok(room) if *room >= needed => {
                *room -= needed;
                accepted.push(change);
            }
            Ok(_) => drop(change.reply.send(Err(Error::Full { path: shared.path.clone() }))),
            Err(error) => {
                let problem = format!("its free space cannot be told: {error}");
                let _ = change.reply.send(Err(Error::Unusable {
                    path: shared.path.clone(),
                    problem,
                    source: None,
                }));
            }
        }
    }
    accepted
}

fn commit(database: &Database, batch: &[Change]) -> Result<Vec<bool>, redb::Error> {
    let mut transaction = database.begin_write()?;
    // Two phases, so that no crafted value can pass for a valid commit; and a crash is repaired in no time.
    transaction.set_quick_repair(true);
    let mut existed = Vec::with_capacity(batch.len());
    for change in batch {
        let mut table = transaction.open_table(table(change.table))?;
        let before = match &change.record {
            Some(record) => table.insert(change.key.as_str(), record.as_slice())?.is_some(),
            None => table.remove(change.key.as_str())?.is_some(),
        };
        existed.push(before);
    }
    transaction.commit()?;
    Ok(existed)
}
