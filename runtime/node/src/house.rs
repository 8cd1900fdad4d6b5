//! What a node does now and then, whoever calls: it checks, sweeps, and drops what nobody uses.

use std::{collections::HashSet, sync::Arc, time::Duration};

use runtime_api::{Digest, Error, Result};

use crate::node::Inner;

/// How often content that no function names is looked for.
const SWEEP: Duration = Duration::from_secs(300);

/// How often code that nobody calls is looked for: four times in its idle time, within these.
const SHORTEST_COLD_SWEEP: Duration = Duration::from_secs(1);
const LONGEST_COLD_SWEEP: Duration = Duration::from_secs(60);

impl Inner {
    /// Checks the machine code of every function once, then sweeps now and then. A sweep is not broken off, so that
    /// nothing of the node is in use once it is shut down.
    pub(crate) async fn keep_house(self: Arc<Self>) {
        tokio::select! {
            () = self.check_code() => {}
            () = self.shutdown.cancelled() => return,
        }
        loop {
            if let Err(error) = self.sweep().await {
                tracing::warn!(%error, "content that is no longer used could not be removed");
            }
            tokio::select! {
                () = tokio::time::sleep(SWEEP.min(self.garbage_grace)) => {}
                () = self.shutdown.cancelled() => return,
            }
        }
    }

    /// Drops code from memory that nobody has called for a while.
    pub(crate) async fn drop_cold_code(self: Arc<Self>) {
        let every = (self.compiler.code_limits().idle / 4).clamp(SHORTEST_COLD_SWEEP, LONGEST_COLD_SWEEP);
        loop {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = self.shutdown.cancelled() => return,
            }
            let (compiler, now) = (self.compiler.clone(), tokio::time::Instant::now());
            if let Err(error) = tokio::task::spawn_blocking(move || compiler.drop_cold(now)).await {
                tracing::error!(%error, "code that nobody calls could not be dropped");
            }
        }
    }

    async fn check_code(&self) {
        let mut seen = HashSet::new();
        for entry in self.table.all() {
            let Some(pool) = &entry.pool else { continue };
            if !seen.insert(pool.module().artifact.digest) {
                continue;
            }
            if let Err(error) = self.compiler.compile(&pool.module().artifact).await {
                tracing::error!(function = %entry.name, %error, "the function's code is not ready");
            }
        }
    }

    /// Removes content and code that no function and no deployment under way needs, and that nothing wrote or asked
    /// for within the grace period, and logs of functions that are gone that long.
    async fn sweep(self: &Arc<Self>) -> Result<()> {
        let keep = self.needed();
        let inner = self.clone();
        let sweep = move || {
            inner.artifacts.retain(&keep, inner.garbage_grace)?;
            let hex: HashSet<String> = inner.artifacts.modules_of(&keep).iter().map(Digest::hex).collect();
            inner.compiler.retain(|digest| hex.contains(digest), inner.garbage_grace)?;
            inner.logs.sweep(|function| inner.exists(function), inner.garbage_grace)
        };
        tokio::task::spawn_blocking(sweep).await.map_err(Error::internal)?
    }
}
