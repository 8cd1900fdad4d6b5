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

/// A spec with the code that it turned out to mean.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Revision {
    pub(crate) spec: FunctionSpec,
    pub(crate) artifact: Artifact,
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

    /// Every record. One that is damaged stops the start: serving without it would lose a function silently.
    pub(crate) fn all(&self) -> Result<Vec<(FunctionName, Record)>> {
        let parse = |(key, json): (String, Vec<u8>)| {
            let record = serde_json::from_slice(&json).map_err(|error| {
                Error::internal(format!("the record of function {key} cannot be read: {error}"))
            })?;
            Ok((FunctionName::parse(&key)?, record))
        };
        self.store.list(FUNCTIONS).map_err(stored)?.into_iter().map(parse).collect()
    }
}

fn stored(error: runtime_store::Error) -> Error {
    Error::unavailable(format!("the store did not take the change: {error}"), error)
}
