use oci_client::manifest::{OciDescriptor, OciImageManifest, WASM_CONFIG_MEDIA_TYPE, WASM_LAYER_MEDIA_TYPE};
use runtime_api::{Error, Result};

use crate::image_config::{Entrypoint, ImageConfig};

/// The configuration of a CNCF Wasm OCI Artifact (TAG Runtime, Wasm OCI Artifact layout v0).
pub(crate) const CNCF_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// Its one layer.
pub(crate) const CNCF_LAYER: &str = "application/wasm";

/// Layers that are a module as it is. Below the CNCF's: wasm-to-oci, Krustlet, Kubewarden and Spin; wasmCloud, solo.io
/// and Istio; runwasi.
const MODULE_LAYERS: [&str; 4] = [
    CNCF_LAYER,
    WASM_LAYER_MEDIA_TYPE,
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
];
/// A Spin application's description: a layer, or in old ones the configuration.
const SPIN_APPLICATION: &str = "application/vnd.fermyon.spin.application.v1+config";
/// Configurations under which a single layer is the module, whatever its type says: none (OCI image-spec, "Guidance for
/// an Empty Descriptor"), what older `oras` wrote for none, wasm-to-oci, and wasmCloud.
const LOOSE_CONFIGS: [&str; 4] = [
    "application/vnd.oci.empty.v1+json",
    "application/vnd.unknown.config.v1+json",
    WASM_CONFIG_MEDIA_TYPE,
    "application/vnd.wasmcloud.actor.archive.config",
];
/// Annotations of images that carry a module beside other files: for Istio, Envoy and crun; for crun.
const MODULE_INSIDE: [&str; 2] = ["module.wasm.image/variant", "run.oci.handler"];

const TITLE: &str = "org.opencontainers.image.title";
const ONLY_ONE: &str = "a function has one: push the .wasm file that is meant with `fawn push`";
const PUSH: &str = "take its .wasm file and push that with `fawn push`";

/// How the module lies in an artifact or image.
#[derive(Debug)]
pub(crate) enum Layout<'a> {
    /// The layer is the module, which is started like this.
    Module(&'a OciDescriptor, Entrypoint),
    /// The module is the file in the image's file system that its entrypoint names.
    File(Entrypoint),
    /// The module is some file in the image's file system, perhaps the one that its entrypoint names.
    SomeFile(Entrypoint),
    /// The document that describes a Spin application; it names the module.
    Spin(&'a OciDescriptor),
}

/// Tells how the module lies in what a manifest describes, for every way in which producers are known to push one.
/// `config` is the configuration of an image, where it is one. What holds no function is refused by its name.
pub(crate) fn detect<'a>(manifest: &'a OciImageManifest, config: Option<&ImageConfig>) -> Result<Layout<'a>> {
    if let Some((what, advice)) = no_function(manifest) {
        return Err(unsupported(what, advice));
    }
    if let Some(application) = spin_application(manifest) {
        return Ok(Layout::Spin(application));
    }
    let config_type = manifest.config.media_type.as_str();
    let entrypoint = config.map(ImageConfig::entrypoint).transpose()?.unwrap_or_default();
    let modules = module_layers(manifest);
    match (config_type, modules.as_slice(), manifest.layers.as_slice()) {
        (CNCF_CONFIG, _, [layer]) => Ok(Layout::Module(layer, entrypoint)),
        (CNCF_CONFIG, ..) => {
            Err(unsupported("a Wasm artifact with anything but one layer of type application/wasm", PUSH))
        }
        (_, [], layers) if layers.iter().any(is_packed_folder) => Ok(Layout::SomeFile(entrypoint)),
        (config_type, [], [layer]) if LOOSE_CONFIGS.contains(&config_type) => {
            Ok(Layout::Module(layer, entrypoint))
        }
        (_, [], _) => match config {
            Some(config) => image(manifest, config, entrypoint),
            None => Err(unsupported(&format!("an artifact of type {config_type:?}, not a function"), PUSH)),
        },
        (_, modules, _) => one_of(modules, entrypoint),
    }
}

/// The Spin application's description, where the manifest is of one.
pub(crate) fn spin_application(manifest: &OciImageManifest) -> Option<&OciDescriptor> {
    let mut parts = manifest.layers.iter().rev().chain([&manifest.config]);
    parts.find(|part| part.media_type == SPIN_APPLICATION)
}

pub(crate) fn unsupported(what: &str, advice: &str) -> Error {
    Error::invalid("unsupported-artifact", format!("it is {what}, which is not supported: {advice}"))
}

/// Names what certainly holds no function.
fn no_function(manifest: &OciImageManifest) -> Option<(&'static str, &'static str)> {
    let all_begin = |prefix: &str| {
        let mut layers = manifest.layers.iter();
        !manifest.layers.is_empty() && layers.all(|layer| layer.media_type.starts_with(prefix))
    };
    Some(if manifest.config.media_type.starts_with("application/vnd.wasmcloud.provider.") {
        ("a wasmCloud capability provider, a program", "only WebAssembly functions can be deployed")
    } else if all_begin("application/vnd.in-toto") {
        ("a record of how an image was built", "give the image's own tag or digest")
    } else if all_begin("application/vnd.dev.cosign.") || all_begin("application/vnd.dev.sigstore.") {
        ("a signature", "give the tag or digest of what is signed")
    } else {
        return None;
    })
}

/// The layers that are modules: by their types, else by the names of the files that were pushed. `oras` gives a file the
/// type of a tar unless it is told another.
fn module_layers(manifest: &OciImageManifest) -> Vec<&OciDescriptor> {
    let typed = |layer: &&OciDescriptor| MODULE_LAYERS.contains(&layer.media_type.as_str());
    let modules: Vec<_> = manifest.layers.iter().filter(typed).collect();
    if modules.is_empty() {
        manifest.layers.iter().filter(|layer| is_titled(layer)).collect()
    } else {
        modules
    }
}

fn title(layer: &OciDescriptor) -> Option<&str> {
    layer.annotations.as_ref()?.get(TITLE).map(String::as_str)
}

fn is_titled(layer: &OciDescriptor) -> bool {
    let is_module = |title: &str| [".wasm", ".wasm.gz", ".wasm.zst"].iter().any(|end| title.ends_with(end));
    title(layer).is_some_and(is_module) && !is_packed_folder(layer)
}

/// Whether `oras` packed a folder into the layer.
fn is_packed_folder(layer: &OciDescriptor) -> bool {
    let unpack = |all: &std::collections::BTreeMap<String, String>| {
        all.get("io.deis.oras.content.unpack").is_some_and(|unpack| unpack == "true")
    };
    layer.annotations.as_ref().is_some_and(unpack)
}

/// Picks from layers that are modules: the only one, the one named like the entrypoint, or the only one that is named.
fn one_of<'a>(modules: &[&'a OciDescriptor], entrypoint: Entrypoint) -> Result<Layout<'a>> {
    let named = |layer: &&OciDescriptor| {
        let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        title(layer).is_some_and(|title| last(title) == last(&entrypoint.path))
    };
    let titled: Vec<_> = modules.iter().copied().filter(|layer| is_titled(layer)).collect();
    let layer = match (modules, modules.iter().copied().find(named), titled.as_slice()) {
        ([layer], ..) | (_, None, [layer]) => layer,
        (_, Some(layer), _) => layer,
        _ => {
            let names: Vec<_> = modules.iter().map(|layer| title(layer).unwrap_or(&layer.digest)).collect();
            let what = format!("an artifact with {} modules ({})", modules.len(), names.join(", "));
            return Err(unsupported(&what, ONLY_ONE));
        }
    };
    check_start(&entrypoint)?;
    Ok(Layout::Module(layer, entrypoint))
}

/// An image whose entrypoint is a module is a function, whatever platform it claims: `FROM scratch` builds say
/// linux/amd64. One that is marked as WebAssembly, or that runs nothing by itself, may have a module somewhere.
fn image<'a>(
    manifest: &'a OciImageManifest,
    config: &ImageConfig,
    entrypoint: Entrypoint,
) -> Result<Layout<'a>> {
    if entrypoint.path.ends_with(".cwasm") {
        let message = format!(
            "its entrypoint {:?} is precompiled machine code: give the .wasm file instead",
            entrypoint.path
        );
        return Err(Error::invalid("precompiled", message));
    }
    check_start(&entrypoint)?;
    if entrypoint.path.ends_with(".wasm") {
        return Ok(Layout::File(entrypoint));
    }
    let annotations = manifest.annotations.as_ref();
    let marked = annotations.is_some_and(|all| MODULE_INSIDE.iter().any(|key| all.contains_key(*key)));
    if !marked && !config.is_for_wasm() && !entrypoint.path.is_empty() {
        return Err(unsupported(
            &format!("a container image (its entrypoint is {:?})", entrypoint.path),
            "build the function for WebAssembly, as in FROM scratch and ENTRYPOINT [\"/function.wasm\"]",
        ));
    }
    let is_archive = |layer: &&OciDescriptor| layer.media_type.contains("tar");
    match (manifest.layers.iter().find(|layer| !is_archive(layer)), manifest.layers.as_slice()) {
        (None, _) => Ok(Layout::SomeFile(entrypoint)),
        (Some(_), [layer]) if config.is_for_wasm() => Ok(Layout::Module(layer, entrypoint)),
        (Some(layer), _) => {
            let what =
                format!("an image with a layer of type {:?} and no .wasm entrypoint", layer.media_type);
            Err(unsupported(&what, PUSH))
        }
    }
}

fn check_start(entrypoint: &Entrypoint) -> Result<()> {
    if matches!(entrypoint.function.as_str(), "" | "_start") {
        return Ok(());
    }
    let what = format!("an image that starts its module at {:?}", entrypoint.function);
    Err(unsupported(&what, "make the entrypoint the .wasm file alone; it is started at _start"))
}

#[cfg(test)]
mod tests;
