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

impl Inner {
    /// What functions and the deployments under way need.
    pub(crate) fn needed(&self) -> HashSet<Digest> {
        // A deployment that ends meanwhile is in the table by the time that is looked at.
        let jobs = self.jobs.all();
        let deployed = self.table.all();
        let by_jobs = jobs.iter().flat_map(|(_, job)| job.modules());
        by_jobs.chain(deployed.iter().flat_map(|entry| entry.modules())).collect()
    }

    /// Removes what is not needed until content and code take no more than they may.
    ///
    /// # Errors
    /// `StorageFull` when what is needed takes more than that.
    pub(crate) async fn make_disk_room(self: &Arc<Self>) -> Result<()> {
        let inner = self.clone();
        tokio::task::spawn_blocking(move || inner.evict()).await.map_err(Error::internal)?
    }

    fn evict(&self) -> Result<()> {
        let _one = self.evicting.lock().unwrap_or_else(PoisonError::into_inner);
        let budget = self.disk_budget_bytes;
        let stored = by_digest(self.artifacts.stored()?.into_iter().chain(self.compiler.stored()?));
        let mut taken: u64 = stored.values().map(|stored| stored.size_bytes).sum();
        let limit =
            budget.min(taken.saturating_add(self.artifacts.free_bytes()?).saturating_sub(SCARCE_BYTES));
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
