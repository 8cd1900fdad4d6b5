//! What `fawn up` serves by itself: the files it was given, or on the first start one function that is built in.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use runtime_api::{Deployed, Error, FunctionName, FunctionSpec, ModuleCommand, Phase, Provider, full};
use runtime_store::Store;

use crate::{
    module_file::{self, Module},
    usage::Mistakes,
};

/// The built-in function, as text: it needs no toolchain for WebAssembly to be built.
const HELLO: (&str, &str) = ("hello", include_str!("hello.wat"));

/// Where the store remembers that a first start was completed, so that one that was cut off is made up for.
const RECORD: (&str, &str) = ("fawn", "first-start-completed");

/// A function that was deployed at the start, and how far that came.
pub(crate) struct Started {
    pub(crate) name: FunctionName,
    pub(crate) deployed: Deployed,
}

/// Deploys the files, or without any on the first start the built-in function.
pub(crate) async fn start(
    node: &dyn Provider,
    store: &Store,
    files: &[PathBuf],
    max_module_bytes: u64,
) -> Result<Vec<Started>> {
    let (table, key) = RECORD;
    let first = store.get(table, key)?.is_none();
    let started = if first && files.is_empty() {
        vec![deploy_hello(node).await?]
    } else {
        deploy_files(node, files, max_module_bytes).await?
    };
    if first {
        store.put(table, key, env!("CARGO_PKG_VERSION").into()).await?;
    }
    Ok(started)
}

/// Deploys each file under its name.
async fn deploy_files(node: &dyn Provider, files: &[PathBuf], max_module_bytes: u64) -> Result<Vec<Started>> {
    let mut started = Vec::new();
    for file in files {
        let name = module_file::function_name(file)?;
        let module = module_file::load(file, max_module_bytes).await?;
        let deployed = deploy(node, &name, module)
            .await
            .with_context(|| format!("{} cannot be deployed", file.display()))?;
        started.push(Started { name, deployed });
    }
    Ok(started)
}

async fn deploy_hello(node: &dyn Provider) -> Result<Started> {
    let (name, text) = HELLO;
    let name = FunctionName::new(name, "")?;
    let bytes = wat::parse_str(text).context("the built-in function is not WebAssembly text")?;
    let module = Module { bytes, command: ModuleCommand::default() };
    let deployed = deploy(node, &name, module).await.context("the built-in function cannot be deployed")?;
    Ok(Started { name, deployed })
}

/// Checks names and files before anything is started for them.
pub(crate) fn check(files: &[PathBuf]) -> Result<()> {
    for file in files {
        let there = match module_file::layout(file)? {
            Some((image, _)) => Path::new(&image.repository).exists(),
            None => file.is_file(),
        };
        if !there {
            let file = file.display();
            let mistake = format!(
                "there is no file {file}: give .wasm or .wat files or image layouts, or use `fawn deploy` for images"
            );
            return Err(Mistakes::from(mistake).into());
        }
    }
    let mut names = files.iter().map(|file| module_file::function_name(file)).collect::<Result<Vec<_>>>()?;
    names.sort();
    let twice = names.windows(2).find_map(|pair| pair.first().filter(|name| pair.last() == Some(name)));
    match twice {
        Some(name) => {
            let mistake = format!("two files would both be function {}: rename one", name.name());
            Err(Mistakes::from(mistake).into())
        }
        None => Ok(()),
    }
}

async fn deploy(node: &dyn Provider, name: &FunctionName, module: Module) -> Result<Deployed> {
    let stored = node.store_artifact(full(module.bytes), module.command).await?;
    let spec = match node.status(name).await {
        // What else was chosen for the function stays as it is.
        Ok(status) if status.spec.image == stored.image && status.deployment.phase == Phase::Ready => {
            return Ok(Deployed::Ready);
        }
        Ok(status) => FunctionSpec { service: name.name().to_owned(), image: stored.image, ..status.spec },
        Err(Error::NotFound(_)) => {
            let spec = FunctionSpec {
                service: name.name().to_owned(),
                image: stored.image,
                ..FunctionSpec::default()
            };
            return Ok(node.deploy(spec).await?);
        }
        Err(error) => return Err(error.into()),
    };
    Ok(node.update(spec).await?)
}

#[cfg(test)]
mod tests {
    use runtime_api::DEFAULT_NAMESPACE;
    use runtime_oci::DEFAULT_MAX_MODULE_BYTES;
    use runtime_testing::FakeProvider;

    use super::*;

    #[tokio::test]
    async fn hello_comes_with_the_first_start_that_is_completed_and_with_no_other() {
        let folder = tempfile::tempdir().unwrap();
        // An earlier start came as far as this.
        Store::open(folder.path()).unwrap().close().await.unwrap();
        let store = Store::open(folder.path()).unwrap();
        let node = FakeProvider::new();
        let started = start(&*node, &store, &[], DEFAULT_MAX_MODULE_BYTES).await.unwrap();
        assert_eq!(started[0].name.name(), "hello");

        node.remove(&started[0].name).await.unwrap();
        assert!(start(&*node, &store, &[], DEFAULT_MAX_MODULE_BYTES).await.unwrap().is_empty());
        assert!(node.list(DEFAULT_NAMESPACE).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn whoever_starts_with_files_gets_those_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let node = FakeProvider::new();
        let file = folder.path().join("mine.wat");
        std::fs::write(&file, "(module)").unwrap();
        let started = start(&*node, &store, &[file], DEFAULT_MAX_MODULE_BYTES).await.unwrap();
        assert_eq!(started[0].name.name(), "mine");
        assert!(start(&*node, &store, &[], DEFAULT_MAX_MODULE_BYTES).await.unwrap().is_empty());
    }

    #[test]
    fn files_that_cannot_be_meant_are_the_users_mistake() {
        let folder = tempfile::tempdir().unwrap();
        for missing in ["nowhere.wasm", "oci:nowhere", "oci:", "oci-archive:nowhere.tar:v1"] {
            assert!(check(&[missing.into()]).unwrap_err().is::<Mistakes>(), "{missing}");
        }
        let files = ["a.wasm", "A.wat"].map(|name| folder.path().join(name));
        files.iter().for_each(|file| std::fs::write(file, "").unwrap());
        assert!(check(&files).unwrap_err().is::<Mistakes>());
    }
}
