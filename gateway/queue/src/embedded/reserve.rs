use std::{io, sync::Arc};

use runtime_store::{Disk, Opening};
use tracing::{info, warn};

const NAME: &str = "reserve";

/// Free space that calls leave alone: a transaction copies the pages that it changes, also to remove something.
pub(super) const MARGIN_BYTES: u64 = 8 << 20;

/// How long after it was given up it is made again at the earliest: the system may tell of room that it will not give.
const AGAIN_MS: u64 = 1000;

/// A file that holds room, to be given up where the disk is full, so that calls can still be taken and settled.
pub(super) struct Reserve {
    disk: Arc<dyn Disk>,
    bytes: u64,
    held: bool,
    again_ms: u64,
}

impl Reserve {
    /// Takes the room, unless there is too little.
    pub(super) fn take(disk: Arc<dyn Disk>, bytes: u64, now_ms: u64) -> io::Result<Self> {
        let held = disk.names()?.iter().any(|name| name == NAME)
            && disk.open(NAME, Opening::Existing)?.len_bytes()? == bytes;
        let mut reserve = Self { disk, bytes, held, again_ms: 0 };
        reserve.room(now_ms)?;
        Ok(reserve)
    }

    /// How much room there is for new calls; none while the reserve is not there. Makes it again, or gives it up, as the
    /// disk has room.
    pub(super) fn room(&mut self, now_ms: u64) -> io::Result<u64> {
        let free = self.disk.free_bytes()?;
        if self.held && free < MARGIN_BYTES {
            self.give_up(now_ms);
        } else if !self.held && now_ms >= self.again_ms && free >= self.bytes + 2 * MARGIN_BYTES {
            self.make(now_ms);
        }
        if self.held { Ok(self.disk.free_bytes()?.saturating_sub(MARGIN_BYTES)) } else { Ok(0) }
    }

    /// Whether there is a reserve: the disk has room for calls.
    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Gives the room to the calls that the queue has.
    pub(super) fn give_up(&mut self, now_ms: u64) {
        if !self.held {
            return;
        }
        warn!(
            "the disk of the queue is full: it gives up its reserve, and takes no calls until there is room"
        );
        if let Err(error) = self.disk.remove(NAME) {
            warn!(%error, "the reserve of the queue cannot be removed");
        }
        (self.held, self.again_ms) = (false, now_ms.saturating_add(AGAIN_MS));
    }

    fn make(&mut self, now_ms: u64) {
        let made = self.disk.open(NAME, Opening::Either).and_then(|file| file.allocate(self.bytes));
        match made {
            Ok(()) => {
                self.held = true;
                info!("the queue has its reserve of disk space");
            }
            Err(error) => {
                warn!(%error, "the queue cannot take its reserve of disk space");
                self.again_ms = now_ms.saturating_add(AGAIN_MS);
                // Half of it would be in the way.
                let _ = self.disk.remove(NAME);
            }
        }
    }
}
