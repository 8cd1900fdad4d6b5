use std::{fmt, future::pending, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use runtime_api::{CallId, FunctionName};
use tokio::sync::watch;

use crate::{
    Accepted, CallStatus, Cancelled, Delivery, EntryId, Error, FunctionCounts, NewCall, Page, Queue, Result,
    Room, Which,
};

/// Stands in the place of a queue that cannot be opened, so that all else goes on: it takes no calls, has none to run, and
/// says why. One that only lacks room on its disk is opened when there is some.
pub struct Unusable {
    reason: Option<String>,
    opened: watch::Sender<Option<Arc<dyn Queue>>>,
}

impl Unusable {
    /// For good, for this reason.
    pub fn broken(reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), opened: watch::Sender::new(None) }
    }

    /// Until [`opened`](Self::opened), for want of room.
    pub fn full() -> Self {
        Self { reason: None, opened: watch::Sender::new(None) }
    }

    /// From now on there is a queue, be it one that says what else is wrong.
    pub fn opened(&self, queue: Arc<dyn Queue>) {
        self.opened.send_replace(Some(queue));
    }

    fn queue(&self) -> Result<Arc<dyn Queue>> {
        match (&*self.opened.borrow(), &self.reason) {
            (Some(queue), _) => Ok(Arc::clone(queue)),
            (None, Some(reason)) => Err(Error::Stopped(reason.clone())),
            (None, None) => Err(Error::StorageFull),
        }
    }

    /// Waits until there is one.
    async fn some(&self) -> Result<Arc<dyn Queue>> {
        let mut opened = self.opened.subscribe();
        let opened = opened.wait_for(Option::is_some).await.map_err(|_| Error::Closed)?;
        opened.clone().ok_or(Error::Closed)
    }
}

impl fmt::Debug for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unusable({:?})", self.reason)
    }
}

#[async_trait]
impl Queue for Unusable {
    async fn next(&self, max: usize, room: Room) -> Result<Vec<Delivery>> {
        if self.reason.is_some() {
            self.queue()?;
        }
        self.some().await?.next(max, room).await
    }

    fn now(&self) -> SystemTime {
        self.queue().map_or_else(|_| SystemTime::now(), |queue| queue.now())
    }

    fn wake(&self) {
        if let Ok(queue) = self.queue() {
            queue.wake();
        }
    }

    async fn failed(&self) -> String {
        match self.some().await {
            Ok(queue) => queue.failed().await,
            Err(_) => pending().await,
        }
    }

    async fn close(&self) -> Result<()> {
        match self.queue() {
            Ok(queue) => queue.close().await,
            // Nothing is open.
            Err(_) => Ok(()),
        }
    }

    async fn push(&self, call: NewCall) -> Result<Accepted> {
        self.queue()?.push(call).await
    }

    async fn cancel(&self, call_id: &CallId) -> Result<Cancelled> {
        self.queue()?.cancel(call_id).await
    }

    async fn clear(&self, function: &FunctionName) -> Result<Cancelled> {
        self.queue()?.clear(function).await
    }

    async fn find(&self, call_id: &CallId, page: Page) -> Result<Vec<CallStatus>> {
        self.queue()?.find(call_id, page).await
    }

    async fn dead_letters(&self, function: &FunctionName, page: Page) -> Result<Vec<CallStatus>> {
        self.queue()?.dead_letters(function, page).await
    }

    async fn replay(&self, function: &FunctionName, which: Which) -> Result<u64> {
        self.queue()?.replay(function, which).await
    }

    async fn purge(&self, function: &FunctionName, which: Which) -> Result<u64> {
        self.queue()?.purge(function, which).await
    }

    async fn counts(&self) -> Result<Vec<FunctionCounts>> {
        self.queue()?.counts().await
    }

    async fn damaged(&self, page: Page) -> Result<Vec<EntryId>> {
        self.queue()?.damaged(page).await
    }
}
