use oci_client::manifest::{IMAGE_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_CONFIG_MEDIA_TYPE, OciImageManifest};
use runtime_api::{Error, Result};
use serde::Deserialize;

/// What is needed of an image's configuration (OCI image-spec, "Image Configuration"; Docker's is the same).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ImageConfig {
    architecture: String,
    os: String,
    config: Option<Execution>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Execution {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
}

/// What an image's configuration says to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Entrypoint {
    /// The path of what is run, without the leading slash; empty where the configuration names nothing.
    pub(crate) path: String,
    /// Where in the module to start; empty for the usual place.
    pub(crate) function: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
}

/// Whether a manifest's configuration is that of an image: other kinds are told by their media types alone.
pub(crate) fn has_image_config(manifest: &OciImageManifest) -> bool {
    matches!(manifest.config.media_type.as_str(), IMAGE_CONFIG_MEDIA_TYPE | IMAGE_DOCKER_CONFIG_MEDIA_TYPE)
}

impl ImageConfig {
    /// Whether the image claims a platform of WebAssembly: `wasi/wasm`, `wasip1/wasm`, `linux/wasm`, `wasi/wasm32`, in
    /// any case.
    pub(crate) fn is_for_wasm(&self) -> bool {
        let begins = |text: &str, with: &str| text.to_ascii_lowercase().starts_with(with);
        begins(&self.architecture, "wasm") || begins(&self.os, "wasi")
    }

    /// What the image runs: the first word of its command, in the way of runwasi `path#function`, and the rest of it.
    pub(crate) fn entrypoint(&self) -> Result<Entrypoint> {
        let nothing = Execution::default();
        let execution = self.config.as_ref().unwrap_or(&nothing);
        let mut command = execution.entrypoint.iter().flatten().chain(execution.cmd.iter().flatten());
        let first = command.next().map_or("", String::as_str);
        let (path, function) = first.split_once('#').unwrap_or((first, ""));
        let working_dir = execution.working_dir.as_deref().unwrap_or_default();
        let args = command.cloned().collect::<Vec<_>>();
        if args.iter().any(|arg| arg.contains('\0')) {
            return Err(Error::invalid("invalid-image-config", "the image's arguments contain a zero byte"));
        }
        Ok(Entrypoint {
            path: if path.is_empty() { String::new() } else { absolute(working_dir, path) },
            function: function.to_owned(),
            args,
            env: execution.env.iter().flatten().map(|text| variable(text)).collect::<Result<_>>()?,
        })
    }
}

fn variable(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !text.contains('\0') => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => {
            let message = format!("the image's environment has {text:?}, which is not NAME=VALUE");
            Err(Error::invalid("invalid-image-config", message))
        }
    }
}

/// Resolves a path as the image's own file system would, without links, and never above its root.
fn absolute(working_dir: &str, path: &str) -> String {
    let base = if path.starts_with('/') { "" } else { working_dir };
    let mut parts = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
