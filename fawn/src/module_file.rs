//! A module on the user's disk: `.wasm`, or `.wat`, which is the same as text.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use runtime_api::FunctionName;

/// Whether an argument means a file rather than an image reference.
pub(crate) fn is_file(argument: &str) -> bool {
    let path = Path::new(argument);
    let known = path.extension().is_some_and(|extension| extension == "wasm" || extension == "wat");
    known || argument.starts_with(['/', '.']) || path.is_file()
}

/// Reads a module; text is compiled.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
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
        None => bail!("no function can be named after {}: rename the file, or give --name", path.display()),
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
        for reference in ["ghcr.io/me/hello:1", "hello", "localhost:5000/hello", "me/hello:latest"] {
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
        assert!(function_name(Path::new("___.wasm")).is_err());
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
