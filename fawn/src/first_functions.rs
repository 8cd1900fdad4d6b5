//! What `fawn up` serves by itself: the files it was given, or on the first start one function that is built in.

use std::path::PathBuf;

use anyhow::{Context, Result};
use runtime_api::{Deployed, Error, FunctionName, FunctionSpec, Phase, Provider, full};

use crate::module_file;

/// The built-in function, as text: it needs no toolchain for WebAssembly to be built.
const HELLO: (&str, &str) = ("hello", include_str!("hello.wat"));

/// Deploys each file under its name, and answers the names.
pub(crate) async fn deploy_files(node: &dyn Provider, files: &[PathBuf]) -> Result<Vec<FunctionName>> {
    let mut names = Vec::new();
    for file in files {
        let name = module_file::function_name(file)?;
        let module = module_file::read(file)?;
        deploy(node, &name, module)
            .await
            .with_context(|| format!("{} cannot be deployed", file.display()))?;
        names.push(name);
    }
    Ok(names)
}

/// Deploys the built-in function, and answers its name.
pub(crate) async fn deploy_hello(node: &dyn Provider) -> Result<FunctionName> {
    let (name, text) = HELLO;
    let name = FunctionName::new(name, "")?;
    let module = wat::parse_str(text).context("the built-in function is not WebAssembly text")?;
    deploy(node, &name, module).await.context("the built-in function cannot be deployed")?;
    Ok(name)
}

/// Checks names and files before anything is started for them.
pub(crate) fn check(files: &[PathBuf]) -> Result<()> {
    let missing = |file: &&PathBuf| !file.is_file();
    if let Some(file) = files.iter().find(missing) {
        anyhow::bail!(
            "there is no file {}: give .wasm or .wat files, or use `fawn deploy` for images",
            file.display()
        );
    }
    let mut names = files.iter().map(|file| module_file::function_name(file)).collect::<Result<Vec<_>>>()?;
    names.sort();
    let twice = names.windows(2).find_map(|pair| pair.first().filter(|name| pair.last() == Some(name)));
    match twice {
        Some(name) => anyhow::bail!("two files would both be function {}: rename one", name.name()),
        None => Ok(()),
    }
}

async fn deploy(node: &dyn Provider, name: &FunctionName, module: Vec<u8>) -> Result<Deployed> {
    let stored = node.store_artifact(full(module)).await?;
    let spec = match node.status(name).await {
        // What else was chosen for the function stays as it is.
        Ok(status)
            if status.deployment.digest == stored.digest.to_string()
                && status.deployment.phase == Phase::Ready =>
        {
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
