use oci_client::manifest::{
    IMAGE_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_CONFIG_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, ImageIndexEntry,
    OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageIndex, OciImageManifest, Platform, WASM_CONFIG_MEDIA_TYPE,
    WASM_LAYER_MEDIA_TYPE,
};
use runtime_api::{Error, Result};
use serde::Deserialize;

/// The configuration of a CNCF Wasm OCI Artifact (TAG Runtime, Wasm OCI Artifact layout v0).
pub(crate) const CNCF_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// Its one layer.
pub(crate) const CNCF_LAYER: &str = "application/wasm";

const PUSH: &str = "take its .wasm file and push that with `fawn push`";
const VARIANT: &str = "module.wasm.image/variant";

/// How the module lies in an image.
#[derive(Debug)]
pub(crate) enum Layout<'a> {
    /// The layer is the module.
    Module(&'a OciDescriptor),
    /// The module is a file in the image's file system.
    Image(Entrypoint),
}

/// What an image's configuration says to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entrypoint {
    /// The module's path, without the leading slash.
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
}

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

/// Whether [`detect`] needs the configuration: other kinds are told by their media types alone.
pub(crate) fn has_image_config(manifest: &OciImageManifest) -> bool {
    matches!(manifest.config.media_type.as_str(), IMAGE_CONFIG_MEDIA_TYPE | IMAGE_DOCKER_CONFIG_MEDIA_TYPE)
}

/// Tells which of the layouts in the wild this is; those that are not supported are refused by name.
pub(crate) fn detect<'a>(manifest: &'a OciImageManifest, config: Option<&ImageConfig>) -> Result<Layout<'a>> {
    let config_type = manifest.config.media_type.as_str();
    if let (CNCF_CONFIG, [layer]) = (config_type, manifest.layers.as_slice())
        && layer.media_type == CNCF_LAYER
    {
        return Ok(Layout::Module(layer));
    }
    if let Some((what, advice)) = known_artifact(manifest) {
        return Err(unsupported(what, advice));
    }
    match config {
        Some(config) => image(manifest, config).map(Layout::Image),
        None => Err(unsupported(&format!("an artifact of type {config_type:?}, not a function"), PUSH)),
    }
}

fn unsupported(what: &str, advice: &str) -> Error {
    Error::invalid(
        "unsupported-artifact",
        format!("it is {what}, which is not supported by this build: {advice}"),
    )
}

/// Names the layouts that are told by their media types, each as its producer writes it.
fn known_artifact(manifest: &OciImageManifest) -> Option<(&'static str, &'static str)> {
    let config = manifest.config.media_type.as_str();
    let has = |media_type: &str| manifest.layers.iter().any(|layer| layer.media_type == media_type);
    let titled = |layer: &OciDescriptor| {
        let title = layer.annotations.as_ref().and_then(|all| all.get("org.opencontainers.image.title"));
        title.is_some_and(|title| title.ends_with(".wasm"))
    };
    let spin = "application/vnd.fermyon.spin.application.v1+config";
    Some(if config == spin || has(spin) {
        (
            "a Spin application",
            "build its component as a wasi:http module, and push that .wasm file with `fawn push`",
        )
    } else if config.starts_with("application/vnd.wasmcloud.provider.") {
        ("a wasmCloud capability provider, a program", "only WebAssembly functions can be deployed")
    } else if config == "application/vnd.wasmcloud.actor.archive.config" {
        ("a wasmCloud actor of the old layout", PUSH)
    } else if has("application/vnd.module.wasm.config.v1+json")
        || has("application/vnd.module.wasm.content.layer.v1+wasm")
    {
        ("a proxy-wasm filter (layout of Istio and solo.io)", "only functions can be deployed")
    } else if config == CNCF_CONFIG {
        ("a Wasm artifact with anything but one layer of type application/wasm", PUSH)
    } else if has("application/vnd.bytecodealliance.wasm.component.layer.v0+wasm") {
        ("a runwasi image whose layer is the module itself", PUSH)
    } else if config == WASM_CONFIG_MEDIA_TYPE || has(WASM_LAYER_MEDIA_TYPE) {
        ("a module in the layout of wasm-to-oci (also Krustlet and Kubewarden)", PUSH)
    } else if has(CNCF_LAYER) || manifest.layers.iter().any(titled) {
        ("a .wasm file pushed as a plain file (as oras does)", PUSH)
    } else {
        return None;
    })
}

/// An image whose entrypoint is a module is a function, whatever platform it claims: `FROM scratch` builds say
/// linux/amd64.
fn image(manifest: &OciImageManifest, config: &ImageConfig) -> Result<Entrypoint> {
    let nothing = Execution::default();
    let execution = config.config.as_ref().unwrap_or(&nothing);
    let mut command = execution.entrypoint.iter().flatten().chain(execution.cmd.iter().flatten());
    let first = command.next().map_or("", String::as_str);
    let (path, function) = first.split_once('#').unwrap_or((first, "_start"));
    if !path.ends_with(".wasm") {
        return Err(not_a_module(manifest, config, path));
    }
    if function != "_start" {
        let what = format!("an image that starts its module at {function:?}");
        return Err(unsupported(&what, "make the entrypoint the .wasm file alone; it is started at _start"));
    }
    let working_dir = execution.working_dir.as_deref().unwrap_or_default();
    let args = command.cloned().collect::<Vec<_>>();
    let env = execution.env.iter().flatten().map(|text| variable(text)).collect::<Result<Vec<_>>>()?;
    if args.iter().any(|arg| arg.contains('\0')) {
        return Err(Error::invalid("invalid-image-config", "the image's arguments contain a zero byte"));
    }
    Ok(Entrypoint { path: absolute(working_dir, path), args, env })
}

fn not_a_module(manifest: &OciImageManifest, config: &ImageConfig, entrypoint: &str) -> Error {
    let for_wasm =
        config.architecture.starts_with("wasm") || config.os.to_ascii_lowercase().starts_with("wasi");
    if entrypoint.ends_with(".cwasm") {
        let message =
            format!("its entrypoint {entrypoint:?} is precompiled machine code: give the .wasm file instead");
        return Error::invalid("precompiled", message);
    }
    if manifest.annotations.as_ref().is_some_and(|all| all.contains_key(VARIANT)) {
        return unsupported(
            "a plugin image for Istio or Envoy (module.wasm.image/variant)",
            "only functions can be deployed",
        );
    }
    if for_wasm {
        let what = format!("a Wasm image whose entrypoint {entrypoint:?} is not a .wasm file");
        return unsupported(&what, "set it in the Dockerfile, as in ENTRYPOINT [\"/function.wasm\"]");
    }
    let what = format!("a container image (its entrypoint is {entrypoint:?})");
    unsupported(
        &what,
        "build the function for WebAssembly, as in FROM scratch and ENTRYPOINT [\"/function.wasm\"]",
    )
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

/// Picks from an index: WebAssembly first, then what this machine would run (its entrypoint may be a module), then
/// whatever comes first.
pub(crate) fn choose(index: &OciImageIndex) -> Result<&ImageIndexEntry> {
    let images = index.manifests.iter().filter(|entry| !is_attestation(entry));
    let best = images.min_by_key(|entry| entry.platform.as_ref().map_or(u8::MAX, rank));
    let best = best.ok_or_else(|| Error::invalid("invalid-manifest", "the index has no image in it"))?;
    if !matches!(best.media_type.as_str(), OCI_IMAGE_MEDIA_TYPE | IMAGE_MANIFEST_MEDIA_TYPE) {
        let message = format!("the index leads to {:?} where an image manifest is expected", best.media_type);
        return Err(Error::invalid("invalid-manifest", message));
    }
    Ok(best)
}

/// `BuildKit` puts records of the build into the index, as if they were images.
fn is_attestation(entry: &ImageIndexEntry) -> bool {
    let annotated =
        entry.annotations.as_ref().is_some_and(|all| all.contains_key("vnd.docker.reference.type"));
    annotated || entry.platform.as_ref().is_some_and(|platform| platform.os.to_string() == "unknown")
}

fn rank(platform: &Platform) -> u8 {
    let (os, architecture) =
        (platform.os.to_string().to_ascii_lowercase(), platform.architecture.to_string());
    let host = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    match (os.as_str(), architecture.as_str()) {
        ("wasip2", wasm) if wasm.starts_with("wasm") => 0,
        ("wasip1", wasm) if wasm.starts_with("wasm") => 1,
        ("wasi", wasm) if wasm.starts_with("wasm") => 2,
        (_, wasm) if wasm.starts_with("wasm") => 3,
        ("linux", architecture) if architecture == host => 4,
        _ => 5,
    }
}

#[cfg(test)]
mod tests;
