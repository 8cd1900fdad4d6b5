//! A module on the user's disk: `.wasm`, or `.wat`, which is the same as text.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context, Result};
use runtime_api::{FunctionName, ImageReference};

use crate::usage::Mistakes;

/// Whether an argument means a file rather than an image reference.
pub(crate) fn is_file(argument: &str) -> bool {
    let path = Path::new(argument);
    let known = path.extension().is_some_and(|extension| extension == "wasm" || extension == "wat");
    argument.starts_with(['/', '.']) || path.is_file() || (known && !names_a_registry(argument))
}

/// Whether an argument begins with a host, as Docker tells hosts from the names of folders.
fn names_a_registry(argument: &str) -> bool {
    let host = |first: &str| first.contains(['.', ':']) || first == "localhost";
    let named = argument.split_once('/').is_some_and(|(first, _)| host(first));
    named && ImageReference::parse(argument).is_ok()
}

/// Reads a module; text is compiled.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
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

/// The name of a function that is given by its file only: `My_function.wasm` is `my-function`.
pub(crate) fn function_name(path: &Path) -> Result<FunctionName> {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    match name_from(stem) {
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
    use super::*;

    #[test]
    fn files_and_references_are_told_apart() {
        for file in ["hello.wasm", "dir/hello.wat", "./hello", "/tmp/hello", "../x.wasm"] {
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
        for (file, name) in
            [("a/hello.wasm", "hello"), ("My_Function.wat", "my-function"), ("a.b.wasm", "a-b")]
        {
            assert_eq!(function_name(Path::new(file)).unwrap().name(), name);
        }
        assert!(function_name(Path::new("___.wasm")).unwrap_err().is::<Mistakes>());
    }

    #[test]
    fn a_file_that_is_not_there_is_the_users_mistake() {
        let error = read(Path::new("dir/nowhere.wasm")).unwrap_err();
        assert!(error.is::<Mistakes>() && error.to_string().contains("registry/name:tag"), "{error}");
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
