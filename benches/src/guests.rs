//! What is called: guests of the tests, so that what is measured is what is tested.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result};
use runtime_testing::guests;

/// What every function that says hello answers, but the one in JavaScript.
pub(crate) const HELLO: &str = "Hello from Fawn\n";
/// What JavaScript answers.
pub(crate) const HELLO_JS: &str = "hello from JavaScript\n";

/// Guests as binaries.
pub(crate) struct Guests {
    pub(crate) hello: Vec<u8>,
    pub(crate) hello_stdio: Vec<u8>,
    pub(crate) echo: Vec<u8>,
    pub(crate) echo_stdio: Vec<u8>,
    pub(crate) endless: Vec<u8>,
    /// Made by componentize-js, where it has been made.
    pub(crate) js: Option<Vec<u8>>,
}

impl Guests {
    pub(crate) fn read(js: Option<&Path>) -> Result<Self> {
        let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        Ok(Self {
            hello: wat::parse_str(guests::HELLO_HTTP)?,
            hello_stdio: wat::parse_str(guests::HELLO)?,
            echo: wat::parse_str(guests::ECHO_HTTP)?,
            echo_stdio: wat::parse_str(guests::ECHO)?,
            endless: wat::parse_str(guests::HTTP_LOOP)?,
            js: js.map(read).transpose()?,
        })
    }
}

/// The JavaScript guest that the end-to-end tests have built last, if they have: `folder/KEY/js.wasm`.
pub(crate) fn find_js(folder: &Path) -> Option<PathBuf> {
    let built = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).ok();
    let folders = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    // What begins with a dot is not finished.
    let finished = folders
        .filter(|folder| folder.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b".")));
    let guests = finished.map(|folder| folder.join("js.wasm"));
    guests.filter_map(|path| Some((built(&path)?, path))).max().map(|(_, path): (SystemTime, _)| path)
}

/// The same module with another digest: a custom section at its end tells them apart.
pub(crate) fn distinct(module: &[u8], number: u32) -> Vec<u8> {
    // A section's id and size, its name behind the name's length, and four bytes.
    let mut module = [module, b"\x00\x0a\x05bench"].concat();
    module.extend_from_slice(&number.to_le_bytes());
    module
}
