//! The modules that the tests deploy.

use std::{env, fs, path::PathBuf};

/// A guest that a real toolchain built (`fawn/tests/guests/build`).
pub(crate) fn built(name: &str) -> Vec<u8> {
    let path = built_path(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn built_path(name: &str) -> PathBuf {
    let folder = env::var_os("FAWN_GUESTS").expect("FAWN_GUESTS is not set: run scripts/test e2e");
    PathBuf::from(folder).join(name)
}

/// A guest in the text format.
pub(crate) fn text(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap()
}

/// The same module under another digest: with a custom section, which means nothing (WebAssembly §5.5.3).
pub(crate) fn marked(module: &[u8], mark: &str) -> Vec<u8> {
    let name = mark.as_bytes();
    let length = u8::try_from(name.len()).unwrap();
    assert!(length < 126, "a mark fits in one byte of LEB128");
    [module, &[0, length + 1, length], name].concat()
}
