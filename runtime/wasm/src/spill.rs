//! Output on disk: files without a name in one directory, together no larger than the node allows.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    mem,
    path::PathBuf,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use tokio::io::AsyncReadExt;

use crate::engine::Budget;

/// What is read from the disk at once.
const READ_BYTES: usize = 64 << 10;

/// Where the node's functions leave output that is too large for memory.
pub(crate) struct Spill {
    directory: PathBuf,
    budget: Budget,
}

impl Spill {
    pub(crate) fn new(directory: PathBuf, limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self { directory, budget: Budget::new(limit_bytes) })
    }

    /// Room for so many bytes, if there is.
    pub(crate) fn room(self: &Arc<Self>, bytes: u64) -> Option<Room> {
        self.budget.take(bytes).then(|| Room { spill: self.clone(), bytes })
    }
}

/// Bytes that one call may have on disk; given back when dropped.
pub(crate) struct Room {
    spill: Arc<Spill>,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.spill.budget.give_back(self.bytes);
    }
}

/// One call's output on disk, with the room that it takes.
pub(crate) struct Spilled {
    file: File,
    room: Room,
}

impl Spilled {
    /// Stores the first bytes. Blocks on the disk.
    pub(crate) fn create(bytes: &[u8], room: Room) -> io::Result<Self> {
        let file = tempfile::tempfile_in(&room.spill.directory)?;
        Self { file, room: Room { spill: room.spill.clone(), bytes: 0 } }.append(bytes, room)
    }

    /// Stores more bytes. Blocks on the disk.
    pub(crate) fn append(mut self, bytes: &[u8], mut room: Room) -> io::Result<Self> {
        self.room.bytes += mem::take(&mut room.bytes);
        self.file.write_all(bytes)?;
        Ok(self)
    }

    /// Reads up to so many of the first bytes; the rest is for [`Self::into_stream`]. Blocks on the disk.
    pub(crate) fn read_start(&mut self, most: usize, start: &mut Vec<u8>) -> io::Result<()> {
        self.file.rewind()?;
        (&self.file).take(most as u64).read_to_end(start)?;
        Ok(())
    }

    /// What was not read yet.
    pub(crate) fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let file = tokio::fs::File::from_std(self.file);
        stream::try_unfold((file, self.room), async |(mut file, room)| {
            let mut piece = BytesMut::with_capacity(READ_BYTES);
            let read = file.read_buf(&mut piece).await?;
            Ok((read > 0).then(|| (piece.freeze(), (file, room))))
        })
    }
}
