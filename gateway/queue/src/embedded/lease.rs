use std::sync::Arc;

use async_trait::async_trait;

use super::{
    request::{End, Held, Request},
    shared::Shared,
};
use crate::{Lease, Outcome, Result};

/// A running call: settled, or given back when it is dropped.
pub(super) struct HeldLease {
    shared: Arc<Shared>,
    held: Arc<Held>,
    id: u64,
    settled: bool,
}

impl HeldLease {
    pub(super) fn new(shared: Arc<Shared>, held: Arc<Held>, id: u64) -> Self {
        Self { shared, held, id, settled: false }
    }

    /// Puts the end on record. It will be, once this has begun to wait for that, also when it is dropped then.
    pub(super) async fn end(&mut self, end: End) -> Result<()> {
        let place = self.shared.place().await?;
        let answer = self.shared.send(Request::Settle { id: self.id, end }, place)?;
        self.settled = true;
        self.shared.answered(answer).await.map(|_| ())
    }
}

#[async_trait]
impl Lease for HeldLease {
    async fn settle(&mut self, outcome: Outcome) -> Result<()> {
        self.end(End::Settled(outcome)).await
    }

    async fn cancelled(&self) {
        self.held.cancelled.cancelled().await;
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        if !self.settled {
            self.shared.inbox.give_back(self.id);
        }
    }
}
