//! What there is in WASI 0.2, read from the text that the crate of Wasmtime's host comes with.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// An interface, by its name without a version, and what is in it: functions and resources.
pub(super) type Interfaces = BTreeMap<String, BTreeSet<String>>;

#[derive(Default)]
pub(super) struct Wit {
    pub(super) stable: Interfaces,
    /// What is marked as unstable.
    pub(super) unstable: Interfaces,
}

impl Wit {
    pub(super) fn of_wasmtime() -> Self {
        let mut wit = Self::default();
        for file in fs::read_dir(folder().join("deps")).unwrap() {
            wit.read(&fs::read_to_string(file.unwrap().path()).unwrap());
        }
        wit
    }

    /// Reads one package: interfaces hold functions and resources, which hold functions.
    fn read(&mut self, text: &str) {
        let (mut package, mut interface, mut resource) = (String::new(), None, None);
        let (mut depth, mut is_unstable) = (0, false);
        let tokens = tokens(text);
        let mut rest = tokens.as_slice();
        while let Some((token, after)) = rest.split_first() {
            match (*token, after) {
                ("package", [namespace, ":", name, ..]) => package = format!("{namespace}:{name}"),
                ("@", ["unstable", ..]) => is_unstable = true,
                ("interface", [name, "{", ..]) => {
                    interface = Some((format!("{package}/{name}"), std::mem::take(&mut is_unstable)));
                }
                ("resource", [name, then, ..]) => {
                    self.add(interface.as_ref(), &mut is_unstable, name);
                    resource = (*then == "{").then_some(*name);
                }
                (name, [":", "func", ..] | [":", "static", "func", ..]) => {
                    let name = resource.map_or(name.to_owned(), |resource| format!("{resource}.{name}"));
                    self.add(interface.as_ref(), &mut is_unstable, &name);
                }
                ("{", _) => depth += 1,
                ("}", _) => {
                    depth -= 1;
                    is_unstable = false;
                    if depth == 1 {
                        resource = None;
                    } else if depth == 0 {
                        interface = None;
                    }
                }
                (";", _) => is_unstable = false,
                _ => {}
            }
            rest = after;
        }
        assert_eq!(depth, 0, "{package} is read to its end");
    }

    fn add(&mut self, interface: Option<&(String, bool)>, is_unstable: &mut bool, name: &str) {
        let (interface, all_unstable) = interface.unwrap();
        let is_unstable = std::mem::take(is_unstable) || *all_unstable;
        let all = if is_unstable { &mut self.unstable } else { &mut self.stable };
        all.entry(interface.clone()).or_default().insert(name.to_owned());
    }
}

/// Words, and each other character but spaces by itself, without comments.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    for line in text.lines() {
        let mut line = line.split("//").next().unwrap().trim_start();
        while !line.is_empty() {
            let word = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(line.len());
            let (token, rest) = line.split_at(word.max(1));
            tokens.push(token);
            line = rest.trim_start();
        }
    }
    tokens
}

/// Where the text is: the host of wasi:http needs all of it.
fn folder() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--format-version", "1"]);
    cargo.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "wasmtime-wasi-http").unwrap();
    Path::new(package["manifest_path"].as_str().unwrap()).with_file_name("wit")
}
