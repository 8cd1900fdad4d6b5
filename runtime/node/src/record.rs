use jiff::Timestamp;
use runtime_api::{Artifact, Error, FunctionName, FunctionSpec, Result};
use runtime_store::Store;
use runtime_wasm::World;
use serde::{Deserialize, Serialize};

/// The table of functions in the store; the key is `name.namespace`.
const FUNCTIONS: &str = "functions";

/// What is kept of a function across restarts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) created_at: Timestamp,
    pub(crate) replicas: u64,
    /// What serves.
    pub(crate) serving: Option<Revision>,
    /// What is to serve once it is pulled and compiled.
    pub(crate) pending: Option<FunctionSpec>,
    /// Why the newest deploy, answered as pending, did not come to serve.
    pub(crate) failure: Option<String>,
}

impl Record {
    /// A function of which nothing serves yet.
    pub(crate) fn new(created_at: Timestamp) -> Self {
        Self { created_at, replicas: 0, serving: None, pending: None, failure: None }
    }
}

/// A spec with the code that it turned out to mean.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Revision {
    pub(crate) spec: FunctionSpec,
    pub(crate) artifact: Artifact,
    /// The image that it is of, by its digest; empty in records of earlier versions.
    #[serde(default)]
    pub(crate) image: String,
    pub(crate) world: World,
    pub(crate) memory_bytes: u64,
}

/// The records in the store.
#[derive(Clone)]
pub(crate) struct Records {
    store: Store,
}

impl Records {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    pub(crate) async fn put(&self, name: &FunctionName, record: &Record) -> Result<()> {
        let json = serde_json::to_vec(record).map_err(Error::internal)?;
        self.store.put(FUNCTIONS, name.as_str(), json).await.map_err(stored)
    }

    pub(crate) async fn remove(&self, name: &FunctionName) -> Result<()> {
        self.store.remove(FUNCTIONS, name.as_str()).await.map(drop).map_err(stored)
    }

    /// The record of every function; one that cannot be read costs no other.
    pub(crate) fn all(&self) -> Result<Vec<(FunctionName, Result<Record>)>> {
        let records = self.store.list(FUNCTIONS).map_err(unreadable)?.into_iter();
        let named = records.filter_map(|(key, json)| match FunctionName::parse(&key) {
            Ok(name) => Some((name, json.map_err(damaged).and_then(|json| parse(&json)))),
            Err(error) => {
                tracing::error!(key, %error, "a record is of no function and is passed over");
                None
            }
        });
        Ok(named.collect())
    }
}

fn parse(json: &[u8]) -> Result<Record> {
    serde_json::from_slice(json)
        .map_err(|error| Error::unavailable(format!("its record cannot be read: {error}"), error))
}

fn damaged(error: runtime_store::Error) -> Error {
    Error::unavailable(error.to_string(), error)
}

pub(crate) fn unreadable(error: runtime_store::Error) -> Error {
    Error::unavailable(format!("the store cannot be read: {error}"), error)
}

pub(crate) fn stored(error: runtime_store::Error) -> Error {
    if let runtime_store::Error::Full { .. } = error {
        return Error::StorageFull(error.to_string());
    }
    Error::unavailable(format!("the store did not take the change: {error}"), error)
}
