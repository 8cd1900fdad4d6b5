//! Namespaces: records of the store, and in memory for whoever asks whether there is one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arc_swap::ArcSwap;
use runtime_api::{DEFAULT_NAMESPACE, Error, FunctionName, Namespace, Result};
use runtime_store::Store;

use crate::{
    node::Inner,
    record::{stored, unreadable},
};

/// The table of namespaces in the store; the key is the name.
const NAMESPACES: &str = "namespaces";

/// More than anyone means to have; each takes some memory.
const MAX_NAMESPACES: usize = 1000;

/// What Kubernetes keeps for itself, and clients expect to be refused (`OpenFaaS`).
const RESERVED: &str = "kube-system";

/// How many functions a refusal names.
const NAMED_FUNCTIONS: usize = 3;

/// The namespaces that there are, of which [`DEFAULT_NAMESPACE`] is always one.
pub(crate) struct Namespaces {
    store: Store,
    all: ArcSwap<BTreeMap<String, Namespace>>,
}

impl Namespaces {
    /// Takes up those of the store. One whose record cannot be read is there, without its labels and annotations.
    pub(crate) fn load(store: Store) -> Result<Self> {
        let mut all = BTreeMap::from([(DEFAULT_NAMESPACE.to_owned(), without_labels(DEFAULT_NAMESPACE))]);
        for (name, json) in store.list(NAMESPACES).map_err(unreadable)? {
            let read = json.map_err(|error| error.to_string());
            let read = read.and_then(|json| serde_json::from_slice(&json).map_err(|error| error.to_string()));
            let namespace = read.unwrap_or_else(|error| {
                tracing::error!(
                    namespace = name,
                    error,
                    "the labels of a namespace cannot be read; update it"
                );
                without_labels(&name)
            });
            all.insert(name, namespace);
        }
        Ok(Self { store, all: ArcSwap::from_pointee(all) })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.all.load().keys().cloned().collect()
    }

    pub(crate) fn get(&self, name: &str) -> Result<Namespace> {
        let found = self.all.load().get(name).cloned();
        found.ok_or_else(|| Error::NotFound(format!("namespace {name} not found")))
    }

    /// Whether something can be in a namespace.
    pub(crate) fn check(&self, name: &str) -> Result<()> {
        if self.all.load().contains_key(name) {
            return Ok(());
        }
        let text = format!("namespace {name:?} does not exist: make it first, or use {DEFAULT_NAMESPACE}");
        Err(Error::invalid("no-such-namespace", text))
    }

    /// First the disk, then what is asked.
    async fn put(&self, namespace: Namespace) -> Result<()> {
        let json = serde_json::to_vec(&namespace).map_err(Error::internal)?;
        self.store.put(NAMESPACES, &namespace.name, json).await.map_err(stored)?;
        self.change(|all| drop(all.insert(namespace.name.clone(), namespace)));
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<()> {
        self.store.remove(NAMESPACES, name).await.map_err(stored)?;
        self.change(|all| drop(all.remove(name)));
        Ok(())
    }

    /// Whoever changes something holds the node's lock.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Namespace>)) {
        let mut all = BTreeMap::clone(&self.all.load());
        change(&mut all);
        self.all.store(Arc::new(all));
    }
}

impl Inner {
    pub(crate) async fn create_namespace(self: Arc<Self>, namespace: Namespace) -> Result<()> {
        namespace.check()?;
        if namespace.name == RESERVED {
            let text = format!("namespace {RESERVED} is reserved: choose another name");
            return Err(Error::invalid("reserved-namespace", text));
        }
        let _one = self.changes.lock().await;
        if self.namespaces.get(&namespace.name).is_ok() {
            return Err(Error::AlreadyExists(format!("namespace {} exists already", namespace.name)));
        }
        if self.namespaces.names().len() >= MAX_NAMESPACES {
            let text = format!("there are {MAX_NAMESPACES} namespaces, as many as there can be: remove some");
            return Err(Error::invalid("too-many-namespaces", text));
        }
        let name = namespace.name.clone();
        self.namespaces.put(namespace).await?;
        tracing::info!(namespace = name, "namespace made");
        Ok(())
    }

    pub(crate) async fn update_namespace(self: Arc<Self>, namespace: Namespace) -> Result<()> {
        let _one = self.changes.lock().await;
        self.namespaces.get(&namespace.name)?;
        self.namespaces.put(namespace).await
    }

    /// Its secrets and logs go first: what breaks off in between can be done again.
    pub(crate) async fn remove_namespace(self: Arc<Self>, name: String) -> Result<()> {
        let _one = self.changes.lock().await;
        self.namespaces.get(&name)?;
        if name == DEFAULT_NAMESPACE {
            let text = format!("namespace {DEFAULT_NAMESPACE} is always there and cannot be removed");
            return Err(Error::invalid("default-namespace", text));
        }
        self.check_unused(&name)?;
        self.remove_secrets_of(&name).await?;
        let (inner, namespace) = (self.clone(), name.clone());
        let removed = tokio::task::spawn_blocking(move || inner.logs.remove_namespace(&namespace));
        removed.await.map_err(Error::internal)?;
        self.namespaces.remove(&name).await?;
        tracing::info!(namespace = name, "namespace removed");
        Ok(())
    }

    /// Refuses while there are functions, or deployments that may become some.
    fn check_unused(&self, namespace: &str) -> Result<()> {
        let under_way = self.jobs.all().into_iter().map(|(name, _)| name);
        let deployed = self.table.all().into_iter().map(|entry| entry.name.clone());
        let all: BTreeSet<FunctionName> =
            under_way.chain(deployed).filter(|name| name.namespace() == namespace).collect();
        if all.is_empty() {
            return Ok(());
        }
        let some: Vec<&str> = all.iter().take(NAMED_FUNCTIONS).map(FunctionName::name).collect();
        let text = format!(
            "namespace {namespace} has functions ({} in all: {}{}): remove them first",
            all.len(),
            some.join(", "),
            if all.len() > some.len() { ", …" } else { "" }
        );
        Err(Error::invalid("namespace-in-use", text))
    }
}

fn without_labels(name: &str) -> Namespace {
    Namespace { name: name.to_owned(), ..Namespace::default() }
}
