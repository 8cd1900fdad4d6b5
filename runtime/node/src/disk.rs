//! The disk that content and code may take. What no function needs goes first, the least recently used before others.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError},
    time::Duration,
};

use runtime_api::{Digest, Error, Result, Stored};

use crate::node::Inner;

/// What was uploaded or pulled so lately may be what a deployment is about to name.
const YOUNG: Duration = Duration::from_secs(120);

/// With less free space than this on the disk, what is not needed goes too.
const SCARCE_BYTES: u64 = 256 << 20;

/// What content and code took when they were last listed, and what had been written by then. Files are only added by
/// being written, so that what was written since bounds what they take by now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed {
    taken_bytes: u64,
    written_bytes: u64,
}

impl Listed {
    /// What is taken at most, when so much has been written.
    fn most_bytes(self, written_bytes: u64) -> u64 {
        self.taken_bytes.saturating_add(written_bytes.saturating_sub(self.written_bytes))
    }
}

impl Inner {
    /// What functions and the deployments under way need.
    pub(crate) fn needed(&self) -> HashSet<Digest> {
        // A deployment that ends meanwhile is in the table by the time that is looked at.
        let jobs = self.jobs.all();
        let deployed = self.table.all();
        let by_jobs = jobs.iter().flat_map(|(_, job)| job.modules());
        by_jobs.chain(deployed.iter().flat_map(|entry| entry.modules())).collect()
    }

    /// Removes what is not needed until content and code take no more than they may. While there is clearly room, nothing
    /// is looked at.
    ///
    /// # Errors
    /// `StorageFull` when what is needed takes more than that.
    pub(crate) async fn make_disk_room(self: &Arc<Self>) -> Result<()> {
        let inner = self.clone();
        tokio::task::spawn_blocking(move || inner.evict()).await.map_err(Error::internal)?
    }

    fn evict(&self) -> Result<()> {
        let mut listed = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let (budget, free_bytes) = (self.disk_budget_bytes, self.artifacts.free_bytes()?);
        // Before the folders are read: what comes meanwhile is counted twice rather than not at all.
        let written_bytes = self.artifacts.written_bytes().saturating_add(self.compiler.written_bytes());
        if free_bytes >= SCARCE_BYTES
            && listed.is_some_and(|listed| listed.most_bytes(written_bytes) <= budget)
        {
            return Ok(());
        }
        let stored = by_digest(self.artifacts.stored()?.into_iter().chain(self.compiler.stored()?));
        let mut taken: u64 = stored.values().map(|stored| stored.size_bytes).sum();
        *listed = Some(Listed { taken_bytes: taken, written_bytes });
        let limit = budget.min(taken.saturating_add(free_bytes).saturating_sub(SCARCE_BYTES));
        if taken > limit {
            // They save time, and nobody needs them.
            taken = taken.saturating_sub(self.compiler.drop_parts()?);
            *listed = Some(Listed { taken_bytes: taken, written_bytes });
        }
        if taken <= limit {
            return Ok(());
        }
        let (needed, young) = (self.artifacts.modules_of(&self.needed()), YOUNG.min(self.garbage_grace));
        let mut unused: Vec<Stored> =
            stored.into_values().filter(|stored| !needed.contains(&stored.digest)).collect();
        unused.sort_by_key(|stored| stored.used);
        let mut spared = 0;
        for Stored { digest, size_bytes, .. } in unused {
            if taken <= limit {
                break;
            }
            let freed = self.artifacts.evict(&digest, young)? + self.compiler.evict(&digest, young)?;
            if freed > 0 {
                tracing::info!(%digest, freed, "content that no function needs was removed to make room");
            }
            taken = taken.saturating_sub(freed);
            spared += size_bytes.saturating_sub(freed);
        }
        *listed = Some(Listed { taken_bytes: taken, written_bytes });
        if taken <= budget { Ok(()) } else { Err(too_much(taken, spared, budget)) }
    }
}

/// Module and code of one digest together, as old as the younger of them.
fn by_digest(stored: impl Iterator<Item = Stored>) -> HashMap<Digest, Stored> {
    let mut all = HashMap::new();
    for one in stored {
        let sum = all.entry(one.digest).or_insert(Stored { size_bytes: 0, ..one });
        sum.size_bytes += one.size_bytes;
        sum.used = sum.used.max(one.used);
    }
    all
}

fn too_much(taken: u64, spared: u64, budget: u64) -> Error {
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    Error::StorageFull(format!(
        "modules and machine code take {} MiB of the {} MiB that they may (--disk-budget), {} MiB of it for functions: \
         remove some, allow more, or wait two minutes for what was just uploaded or pulled to make room",
        mebibytes(taken),
        mebibytes(budget),
        mebibytes(taken - spared)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_since_bounds_what_is_taken() {
        let listed = Listed { taken_bytes: 100, written_bytes: 1000 };
        assert_eq!(listed.most_bytes(1000), 100);
        assert_eq!(listed.most_bytes(1050), 150);
        assert_eq!(listed.most_bytes(u64::MAX), u64::MAX - 900);
        assert_eq!(Listed { taken_bytes: u64::MAX, ..listed }.most_bytes(1001), u64::MAX);
    }
}
