use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Result;
use clap::Args;
use runtime_api::{ArtifactKind, ImageReference, LayoutForm, ModuleCommand};
use runtime_oci::{ModuleDescription, WasmOs};
use runtime_wasm::{Inspection, World};
use serde_json::json;

use crate::{
    module_file::{self, Module},
    progress::Spinner,
    registry::RegistryArguments,
    usage::Mistakes,
};

/// Push a module to a registry, or into an image layout on disk, as an OCI artifact
///
/// The artifact has the layout of the CNCF's Wasm working group, which other tools and runtimes read too. Credentials
/// are those of `docker login` and the like. A module of an image layout keeps its arguments and environment: with any of
/// these it is pushed as an image.
///
/// A layout is made where there is none, and an image of the same tag is replaced.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fawn push hello.wasm ghcr.io/me/hello:1.2
  fawn push hello.wat localhost:5000/hello:dev --insecure-registry localhost:5000
  fawn push hello.wasm oci:pack/images:hello        for `fawn up --store pack`, or any tool that reads layouts")]
pub(crate) struct PushArguments {
    /// A module (.wasm), its text (.wat), or an image layout (oci:FOLDER:TAG, oci-archive:TAR:TAG)
    file: PathBuf,
    /// Where it goes, with a tag: REGISTRY/NAME:TAG, or oci:FOLDER:TAG
    reference: String,
    #[command(flatten)]
    registry: RegistryArguments,
    /// Print one JSON object instead of words
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: PushArguments) -> Result<()> {
    let image = target(&arguments.reference)?;
    let client = arguments.registry.connect()?;
    let Module { bytes: module, command } =
        module_file::load(&arguments.file, client.max_module_bytes()).await?;
    client.check_size(&module)?;
    let description = describe(runtime_wasm::inspect(&module)?, command);
    let spinner = Spinner::start(format!("pushing {} KiB to {image}", module.len().div_ceil(1024)));
    let is_on_disk = image.layout().is_some();
    let digest = match is_on_disk {
        true => runtime_oci::write_layout(&image, module.into(), &description).await?,
        false => client.registry.push(&image, module.into(), description).await?,
    };
    drop(spinner);
    // What lies on disk is named by its tag alone.
    let pinned = (!is_on_disk)
        .then(|| ImageReference { tag: None, digest: Some(digest), ..image.clone() }.to_string());
    let line = if arguments.json {
        json!({ "image": image.to_string(), "digest": digest, "pinned": pinned }).to_string()
    } else {
        format!("{image}\n{}", pinned.unwrap_or_else(|| digest.to_string()))
    };
    Ok(writeln!(io::stdout(), "{line}")?)
}

fn target(reference: &str) -> Result<ImageReference, Mistakes> {
    let mut image = ImageReference::parse(reference).map_err(|error| error.to_string())?;
    match image.layout() {
        Some(LayoutForm::Folder) => {
            image.tag.get_or_insert_with(|| "latest".into());
            Ok(image)
        }
        Some(LayoutForm::Archive) => {
            let mistake = format!(
                "nothing can be pushed into an archive such as {reference}: push to a folder, oci:FOLDER:TAG, and pack \
                 that with `tar -C FOLDER -cf FILE.tar .`"
            );
            Err(mistake.into())
        }
        None if image.digest.is_some() || image.is_local() => {
            let mistake = format!(
                "nothing can be pushed to {reference}: give a registry, a name and a tag, and no digest"
            );
            Err(mistake.into())
        }
        None => Ok(image),
    }
}

fn describe(found: Inspection, command: ModuleCommand) -> ModuleDescription {
    let world = found.world().ok();
    ModuleDescription {
        kind: found.kind,
        os: match found.kind {
            ArtifactKind::Module => WasmOs::Wasip1,
            ArtifactKind::Component => WasmOs::Wasip2,
        },
        target: match world {
            Some(World::Http) => Some("wasi:http/proxy".into()),
            Some(World::Command) => Some("wasi:cli/command".into()),
            Some(World::CoreCommand) | None => None,
        },
        command,
        imports: found.imports,
        exports: found.exports,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_goes_to_a_tag() {
        assert_eq!(target("ghcr.io/me/hello").unwrap().to_string(), "ghcr.io/me/hello:latest");
        assert_eq!(target("oci:pack/images:hello").unwrap().to_string(), "oci:pack/images:hello");
        assert_eq!(target("oci:hello").unwrap().to_string(), "oci:hello:latest");
        assert!(target("oci-archive:a.tar:v1").unwrap_err().to_string().contains("oci:FOLDER:TAG"));
        let digest = runtime_api::Digest([0; 32]);
        for bad in [
            format!("ghcr.io/me/hello@{digest}"),
            "fawn.local/module:v1".into(),
            "oci:".into(),
            "UPPER/case".into(),
        ] {
            assert!(target(&bad).is_err(), "{bad}");
        }
    }
}
