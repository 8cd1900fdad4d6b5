//! Secrets: encrypted in the store, and in memory for the functions that name them. Nothing tells their values.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::try_join_all;
use runtime_api::{DEFAULT_NAMESPACE, Error, Result, SecretName, SecretValue};
use runtime_store::Vault;
use runtime_wasm::{SecretFiles, Secrets};

use crate::{
    node::Inner,
    record::{stored, unreadable},
    rules::CheckedSpec,
};

/// Secrets of a node, and what their values may take in memory, in bytes.
const MAX_SECRETS: usize = 10_000;
const MAX_TOTAL_BYTES: usize = 64 << 20;

/// The secrets that there are.
pub(crate) struct KnownSecrets {
    vault: Vault,
    readable: Secrets,
    /// Those whose values the store no longer gives. They can be updated and removed.
    unreadable: Mutex<BTreeSet<SecretName>>,
}

impl KnownSecrets {
    /// Takes up those of the store. A value that cannot be had costs that secret alone.
    pub(crate) fn load(vault: Vault) -> Result<Self> {
        let (mut readable, mut broken) = (BTreeMap::new(), BTreeSet::new());
        for (key, value) in vault.list().map_err(unreadable)? {
            let Some(name) = name(&key) else {
                tracing::error!(key, "a record is of no secret and is passed over");
                continue;
            };
            let value = value.map_err(|error| error.to_string());
            let value =
                value.and_then(|value| SecretValue::new(value.as_slice()).map_err(|error| error.to_string()));
            match value {
                Ok(value) => drop(readable.insert(name, value)),
                Err(error) => {
                    tracing::error!(secret = %name, error, "the secret cannot be read: update it, or restore the key");
                    broken.insert(name);
                }
            }
        }
        let known = Self { vault, readable: Secrets::default(), unreadable: Mutex::new(broken) };
        known.readable.replace(readable);
        Ok(known)
    }

    /// Those that can be read, as they are now.
    pub(crate) fn values(&self) -> &Secrets {
        &self.readable
    }

    pub(crate) fn names_in(&self, namespace: &str) -> Vec<SecretName> {
        let readable = self.readable.all();
        let mut names: Vec<_> = readable.keys().cloned().chain(self.unreadable().iter().cloned()).collect();
        names.retain(|name| name.namespace() == namespace);
        names.sort();
        names
    }

    /// What a function is to find of the secrets that its spec names.
    pub(crate) fn files(&self, checked: &CheckedSpec) -> Option<SecretFiles> {
        self.readable.files(checked.secrets.clone())
    }

    /// Whether a deploy can have what it names.
    pub(crate) fn check<'a>(&self, wanted: impl IntoIterator<Item = &'a SecretName>) -> Result<()> {
        let readable = self.readable.all();
        let missing = wanted.into_iter().find(|name| !readable.contains_key(name));
        let Some(missing) = missing else { return Ok(()) };
        let text = match self.exists(missing) {
            true => {
                format!("unable to find secret: {} (its record cannot be read: update it)", missing.name())
            }
            false => missing_secret(missing),
        };
        Err(Error::invalid("no-such-secret", text))
    }

    fn exists(&self, name: &SecretName) -> bool {
        self.readable.all().contains_key(name) || self.unreadable().contains(name)
    }

    fn unreadable(&self) -> MutexGuard<'_, BTreeSet<SecretName>> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_room(&self, name: &SecretName, value: &SecretValue) -> Result<()> {
        let readable = self.readable.all();
        let others = readable.iter().filter(|(other, _)| *other != name);
        let (count, bytes) = others.fold((self.unreadable().len(), 0), |(count, bytes), (_, other)| {
            (count + 1, bytes + other.expose().len())
        });
        if count < MAX_SECRETS && bytes + value.expose().len() <= MAX_TOTAL_BYTES {
            return Ok(());
        }
        let mebibytes = MAX_TOTAL_BYTES >> 20;
        let text = format!(
            "a node keeps {MAX_SECRETS} secrets, and {mebibytes} MiB of them, and this would be more: remove some"
        );
        Err(Error::StorageFull(text))
    }

    /// First the disk, then what the next call sees.
    async fn put(&self, name: &SecretName, value: SecretValue) -> Result<()> {
        self.check_room(name, &value)?;
        self.vault.put(&key(name), value.expose()).await.map_err(stored)?;
        self.unreadable().remove(name);
        self.change(|all| drop(all.insert(name.clone(), value)));
        Ok(())
    }

    async fn remove(&self, names: &[SecretName]) -> Result<()> {
        let removed = names.iter().map(async |name| self.vault.remove(&key(name)).await.map_err(stored));
        try_join_all(removed).await?;
        self.unreadable().retain(|name| !names.contains(name));
        self.change(|all| all.retain(|name, _| !names.contains(name)));
        Ok(())
    }

    /// Whoever changes something holds the node's lock.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<SecretName, SecretValue>)) {
        let mut all = BTreeMap::clone(&self.readable.all());
        change(&mut all);
        self.readable.replace(all);
    }
}

impl Inner {
    pub(crate) async fn create_secret(self: Arc<Self>, name: SecretName, value: SecretValue) -> Result<()> {
        let _one = self.changes.lock().await;
        self.namespaces.check(name.namespace())?;
        if self.secrets.exists(&name) {
            return Err(Error::AlreadyExists(format!("secret {name} exists already: update it")));
        }
        self.secrets.put(&name, value).await?;
        tracing::info!(secret = %name, "secret made");
        Ok(())
    }

    pub(crate) async fn update_secret(self: Arc<Self>, name: SecretName, value: SecretValue) -> Result<()> {
        let _one = self.changes.lock().await;
        self.check_secret(&name)?;
        self.secrets.put(&name, value).await?;
        tracing::info!(secret = %name, "secret updated");
        Ok(())
    }

    pub(crate) async fn remove_secret(self: Arc<Self>, name: SecretName) -> Result<()> {
        let _one = self.changes.lock().await;
        self.check_secret(&name)?;
        self.secrets.remove(std::slice::from_ref(&name)).await?;
        tracing::info!(secret = %name, "secret removed");
        Ok(())
    }

    /// Those of a namespace that goes, whose lock the caller holds.
    pub(crate) async fn remove_secrets_of(&self, namespace: &str) -> Result<()> {
        self.secrets.remove(&self.secrets.names_in(namespace)).await
    }

    fn check_secret(&self, name: &SecretName) -> Result<()> {
        self.namespaces.check(name.namespace())?;
        if self.secrets.exists(name) {
            return Ok(());
        }
        Err(Error::NotFound(missing_secret(name)))
    }
}

/// In the words of `OpenFaaS`, and what to do.
fn missing_secret(name: &SecretName) -> String {
    let (name, namespace) = (name.name(), name.namespace());
    let place =
        if namespace == DEFAULT_NAMESPACE { String::new() } else { format!(" --namespace {namespace}") };
    format!("unable to find secret: {name}; it is made with: faas-cli secret create {name}{place}")
}

/// How a secret is called in the store: neither part has a slash, and both may have dots.
fn key(name: &SecretName) -> String {
    format!("{}/{}", name.namespace(), name.name())
}

fn name(key: &str) -> Option<SecretName> {
    let (namespace, name) = key.split_once('/')?;
    SecretName::new(name, namespace).ok()
}
