//! A module on the user's disk: `.wasm`, or `.wat`, which is the same as text, or in an OCI image layout.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context, Result};
use runtime_api::{FunctionName, ImageReference, LayoutForm, ModuleCommand};
use runtime_oci::ArtifactStore;

use crate::usage::Mistakes;

/// How archives are called.
const ARCHIVES: [&str; 4] = [".tar.gz", ".tar.zst", ".tgz", ".tar"];

/// A module, and what it is started with.
pub(crate) struct Module {
    pub(crate) bytes: Vec<u8>,
    pub(crate) command: ModuleCommand,
}

/// Whether an argument means a file rather than an image reference.
pub(crate) fn is_file(argument: &str) -> bool {
    let path = Path::new(argument);
    let known = path.extension().is_some_and(|extension| extension == "wasm" || extension == "wat");
    LayoutForm::of(argument).is_some()
        || argument.starts_with(['/', '.'])
        || path.is_file()
        || (known && !names_a_registry(argument))
}

/// Whether an argument begins with a host, as Docker tells hosts from the names of folders.
fn names_a_registry(argument: &str) -> bool {
    let host = |first: &str| first.contains(['.', ':']) || first == "localhost";
    let named = argument.split_once('/').is_some_and(|(first, _)| host(first));
    named && ImageReference::parse(argument).is_ok()
}

/// The image layout that an argument names, if it names one.
pub(crate) fn layout(path: &Path) -> Result<Option<(ImageReference, LayoutForm)>, Mistakes> {
    let Some(reference) = path.to_str().filter(|text| LayoutForm::of(text).is_some()) else {
        return Ok(None);
    };
    let image = ImageReference::parse(reference).map_err(|error| error.to_string())?;
    let form = image.layout();
    Ok(form.map(|form| (image, form)))
}

/// Loads a module from a file, or from an image layout, whose modules have at most so many bytes.
pub(crate) async fn load(path: &Path, max_module_bytes: u64) -> Result<Module> {
    let Some((image, form)) = layout(path)? else {
        return Ok(Module { bytes: read(path)?, command: ModuleCommand::default() });
    };
    let folder = tempfile::tempdir().context("no temporary folder can be made")?;
    let store = ArtifactStore::open(folder.path(), max_module_bytes)?;
    let artifact = runtime_oci::read_layout(&image, form, &store).await?;
    let bytes = fs::read(&artifact.path).context("the module of the image layout cannot be read")?;
    Ok(Module { bytes, command: ModuleCommand { args: artifact.args, env: artifact.env } })
}

/// Reads a module; text is compiled.
fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mistake = format!("there is no file {}; for an image give registry/name:tag", path.display());
            return Err(Mistakes::from(mistake).into());
        }
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    if path.extension().is_some_and(|extension| extension == "wat") {
        return wat::parse_bytes(&bytes)
            .map(std::borrow::Cow::into_owned)
            .with_context(|| format!("{} is not WebAssembly text", path.display()));
    }
    Ok(bytes)
}

/// The name of a function that is given by its file only: `My_function.wasm` is `my-function`, and so is
/// `oci:My_function:v1`.
pub(crate) fn function_name(path: &Path) -> Result<FunctionName> {
    let stem = match layout(path)? {
        Some((image, _)) => {
            let last = image.repository.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            let end = ARCHIVES.iter().find_map(|end| last.strip_suffix(end));
            end.unwrap_or(last).to_owned()
        }
        None => path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned(),
    };
    match name_from(&stem) {
        Some(name) => Ok(name),
        None => {
            let file = path.display();
            let mistake = format!("no function can be named after {file}: rename the file, or give --name");
            Err(Mistakes::from(mistake).into())
        }
    }
}

/// The nearest name that is valid.
pub(crate) fn name_from(text: &str) -> Option<FunctionName> {
    let usable = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = text.chars().map(usable).collect();
    FunctionName::new(name.trim_matches('-'), "").ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn files_and_references_are_told_apart() {
        for file in [
            "oci:hello",
            "oci-archive:a/hello.tar:v1",
            "hello.wasm",
            "dir/hello.wat",
            "./hello",
            "/tmp/hello",
            "../x.wasm",
        ] {
            assert!(is_file(file), "{file}");
        }
        for reference in [
            "ghcr.io/me/hello.wasm",
            "localhost:5000/hello.wasm",
            "ghcr.io/me/hello:1",
            "hello",
            "localhost:5000/hello",
            "me/hello:latest",
        ] {
            assert!(!is_file(reference), "{reference}");
        }
    }

    #[test]
    fn a_function_is_named_after_its_file() {
        for (file, name) in [
            ("a/hello.wasm", "hello"),
            ("My_Function.wat", "my-function"),
            ("a.b.wasm", "a-b"),
            ("oci:images/hello/:ghcr.io/me/other:1", "hello"),
            ("oci-archive:hello.tar.gz", "hello"),
            ("oci-archive:hello.tar:v1", "hello"),
        ] {
            assert_eq!(function_name(Path::new(file)).unwrap().name(), name);
        }
        assert!(function_name(Path::new("___.wasm")).unwrap_err().is::<Mistakes>());
    }

    #[test]
    fn a_file_that_is_not_there_is_the_users_mistake() {
        let error = read(Path::new("dir/nowhere.wasm")).unwrap_err();
        assert!(error.is::<Mistakes>() && error.to_string().contains("registry/name:tag"), "{error}");
    }

    #[tokio::test]
    async fn a_module_of_an_image_layout_keeps_its_command() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        let blob = |media_type: &str, bytes: &[u8]| {
            let digest = runtime_api::Digest(Sha256::digest(bytes).into());
            fs::write(folder.path().join("blobs/sha256").join(digest.hex()), bytes).unwrap();
            json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
        };
        let command = json!({"Entrypoint": ["/f.wasm", "--fast"], "Env": ["A=b"]});
        let config = json!({"architecture": "wasm", "os": "wasip1", "config": command}).to_string();
        let config = blob("application/vnd.oci.image.config.v1+json", config.as_bytes());
        let layer = blob("application/wasm", b"\0asm\x01\0\0\0");
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string();
        let manifest = blob("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
        let index = json!({"schemaVersion": 2, "manifests": [manifest]}).to_string();
        fs::write(folder.path().join("index.json"), index).unwrap();
        fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();

        let path = format!("oci:{}", folder.path().display());
        let module = load(Path::new(&path), 1000).await.unwrap();
        assert_eq!(module.bytes, b"\0asm\x01\0\0\0");
        assert_eq!(module.command.args, ["--fast"]);
        assert_eq!(module.command.env, [("A".to_owned(), "b".to_owned())]);
        let large = load(Path::new(&path), 7).await.err().unwrap().to_string();
        assert!(large.contains("at most 7 are taken"), "{large}");
    }

    #[test]
    fn text_is_compiled_and_its_mistakes_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wat");
        fs::write(&path, "(module)").unwrap();
        assert_eq!(read(&path).unwrap(), b"\0asm\x01\0\0\0");
        fs::write(&path, "(modul)").unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains("not WebAssembly text") && error.contains("1:2"), "{error}");
    }
}
