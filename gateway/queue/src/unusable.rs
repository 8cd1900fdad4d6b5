use std::{future::pending, time::SystemTime};

use async_trait::async_trait;
use runtime_api::{CallId, FunctionName};

use crate::{
    Accepted, CallStatus, Cancelled, Delivery, EntryId, Error, FunctionCounts, NewCall, Page, Queue, Result,
    Room, Which,
};

/// Stands in the place of a queue that cannot be opened, so that all else goes on: it takes no calls, has none to run, and
/// says why.
#[derive(Debug)]
pub struct Unusable {
    reason: String,
}

impl Unusable {
    /// For this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }

    fn refuse<T>(&self) -> Result<T> {
        Err(Error::Stopped(self.reason.clone()))
    }
}

#[async_trait]
impl Queue for Unusable {
    async fn push(&self, _: NewCall) -> Result<Accepted> {
        self.refuse()
    }

    async fn next(&self, _: usize, _: Room) -> Result<Vec<Delivery>> {
        self.refuse()
    }

    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn wake(&self) {}

    async fn cancel(&self, _: &CallId) -> Result<Cancelled> {
        self.refuse()
    }

    async fn clear(&self, _: &FunctionName) -> Result<Cancelled> {
        self.refuse()
    }

    async fn find(&self, _: &CallId, _: Page) -> Result<Vec<CallStatus>> {
        self.refuse()
    }

    async fn dead_letters(&self, _: &FunctionName, _: Page) -> Result<Vec<CallStatus>> {
        self.refuse()
    }

    async fn replay(&self, _: &FunctionName, _: Which) -> Result<u64> {
        self.refuse()
    }

    async fn purge(&self, _: &FunctionName, _: Which) -> Result<u64> {
        self.refuse()
    }

    async fn counts(&self) -> Result<Vec<FunctionCounts>> {
        self.refuse()
    }

    async fn damaged(&self, _: Page) -> Result<Vec<EntryId>> {
        self.refuse()
    }

    /// Never: it was no use from the start, and another process would find the same.
    async fn failed(&self) -> String {
        pending().await
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
