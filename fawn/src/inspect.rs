use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, Result};
use clap::Args;
use runtime_api::{ArtifactKind, ImageReference};
use runtime_oci::{ArtifactSource, PullPolicy};
use runtime_wasm::Inspection;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    module_file,
    progress::Spinner,
    registry::{RegistryArguments, TemporaryRegistry},
    usage::Mistakes,
};

/// Say what a module is, and whether and how it would run here
///
/// Reads a file, or pulls an image; compiles nothing, runs nothing and deploys nothing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fawn inspect hello.wasm
  fawn inspect ghcr.io/me/hello:1.2 --json")]
pub(crate) struct InspectArguments {
    /// A module (.wasm), its text (.wat), an image layout (oci:FOLDER:TAG, oci-archive:TAR:TAG), or an image
    /// reference
    #[arg(value_name = "FILE|REFERENCE")]
    source: String,
    #[command(flatten)]
    registry: RegistryArguments,
    /// Print one JSON object instead of words
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: InspectArguments) -> Result<()> {
    let client = arguments.registry.connect()?;
    let module = if module_file::is_file(&arguments.source) {
        module_file::load(Path::new(&arguments.source), client.max_module_bytes()).await?.bytes
    } else {
        pull(&arguments.source, &client).await?
    };
    client.check_size(&module)?;
    let found =
        runtime_wasm::inspect(&module).with_context(|| format!("cannot inspect {}", arguments.source))?;
    let digest = runtime_api::Digest(Sha256::digest(&module).into());
    let text = if arguments.json {
        as_json(&found, module.len(), digest).to_string()
    } else {
        in_words(&found, module.len(), digest)
    };
    Ok(writeln!(io::stdout(), "{text}")?)
}

async fn pull(reference: &str, client: &TemporaryRegistry) -> Result<Vec<u8>> {
    let image = ImageReference::parse(reference).map_err(|error| Mistakes::from(error.to_string()))?;
    let spinner = Spinner::start(format!("pulling {image}"));
    let show = |progress: runtime_oci::Progress| {
        spinner.say(format!(
            "pulling {image}: {} of {} KiB",
            progress.bytes_done >> 10,
            progress.bytes_total >> 10
        ));
    };
    let artifact = client.registry.fetch(&image, PullPolicy::Always, &show).await?.artifact;
    fs::read(&artifact.path).context("the pulled module cannot be read")
}

fn in_words(found: &Inspection, size_bytes: usize, digest: runtime_api::Digest) -> String {
    let kind = match found.kind {
        ArtifactKind::Module => "core module",
        ArtifactKind::Component => "component",
    };
    let verdict = match found.world() {
        Ok(world) => format!("runs      as a {}", world.describe()),
        Err(error) => format!("does not run here: {error}"),
    };
    let list =
        |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { names.join("\n          ") };
    format!(
        "kind      {kind}\nsize      {size_bytes} bytes\ndigest    {digest}\nimports   {}\nexports   {}\n{verdict}",
        list(&found.imports),
        list(&found.exports)
    )
}

fn as_json(found: &Inspection, size_bytes: usize, digest: runtime_api::Digest) -> Value {
    let world = found.world();
    json!({
        "kind": found.kind,
        "sizeBytes": size_bytes,
        "digest": digest,
        "imports": found.imports,
        "exports": found.exports,
        "runs": world.is_ok(),
        "world": world.as_ref().ok().map(|world| world.describe()),
        "reason": world.as_ref().err().map(ToString::to_string),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspect(wat: &str) -> Inspection {
        runtime_wasm::inspect(&wat::parse_str(wat).unwrap()).unwrap()
    }

    #[test]
    fn says_how_a_module_runs_or_why_it_does_not() {
        let digest = runtime_api::Digest([0xab; 32]);
        let good = inspect(r#"(module (func (export "_start")))"#);
        let words = in_words(&good, 42, digest);
        assert!(words.contains("runs      as a WASI preview 1 command module"), "{words}");
        assert!(
            words.contains("42 bytes") && words.contains("sha256:abab") && words.contains("_start"),
            "{words}"
        );
        assert_eq!(as_json(&good, 42, digest)["runs"], true);

        let bad = inspect(r#"(module (import "env" "abort" (func)) (func (export "_start")))"#);
        let words = in_words(&bad, 42, digest);
        assert!(words.contains("does not run here") && words.contains("env/abort"), "{words}");
        assert!(as_json(&bad, 42, digest)["reason"].as_str().unwrap().contains("env/abort"));
    }
}
