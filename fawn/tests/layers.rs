//! The architecture, checked: which crate may depend on which, and which crate owns which heavy library.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::Command;

use serde::Deserialize;

/// What `cargo metadata` tells of a package, as far as it matters here. Its own crate would bring features of other
/// crates with it, and so a second build of half of everything.
#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `dev`, `build`, or nothing for a normal one.
    kind: Option<String>,
}

/// Crates and the layer that each stands in; arrows go down. `None` is for tests and benchmarks alone.
const LAYERS: [(&str, Option<u8>); 13] = [
    ("fawn", Some(4)),
    ("gateway-server", Some(3)),
    ("runtime-node", Some(3)),
    ("gateway-queue", Some(2)),
    ("runtime-http", Some(2)),
    ("runtime-oci", Some(2)),
    ("runtime-wasm", Some(2)),
    ("runtime-api", Some(1)),
    ("runtime-egress", Some(1)),
    ("runtime-process", Some(1)),
    ("runtime-store", Some(1)),
    ("runtime-testing", None),
    ("benches", None),
];

/// Libraries that only one crate may name.
const OWNERS: [(&str, &str); 5] = [
    ("wasmtime", "runtime-wasm"),
    ("wasmtime-wasi", "runtime-wasm"),
    ("wasmtime-wasi-http", "runtime-wasm"),
    ("oci-client", "runtime-oci"),
    ("redb", "runtime-store"),
];

fn members() -> Vec<Package> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }

    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice::<Metadata>(&cargo.output().unwrap().stdout).unwrap().packages
}

fn layer(name: &str) -> Option<u8> {
    let known = LAYERS.iter().find(|(known, _)| *known == name);
    known.unwrap_or_else(|| panic!("{name} stands in no layer: add it to the table and to ARCHITECTURE.md")).1
}

#[test]
fn arrows_point_down() {
    let members = members();
    let ours = |name: &str| members.iter().any(|package| package.name == name);
    for package in &members {
        let from = layer(&package.name);
        for dependency in package.dependencies.iter().filter(|dependency| ours(&dependency.name)) {
            if dependency.kind.as_deref() == Some("dev") {
                continue;
            }
            let to = layer(&dependency.name);
            assert!(
                from.is_none() || to.is_some_and(|to| Some(to) < from),
                "{} must not depend on {}: dependencies point to a lower layer",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn the_runtime_does_not_know_the_gateway() {
    for package in members().iter().filter(|package| package.name.starts_with("runtime-")) {
        assert!(
            package.dependencies.iter().all(|dependency| !dependency.name.starts_with("gateway-")),
            "{}",
            package.name
        );
    }
}

#[test]
fn heavy_libraries_have_one_owner() {
    for package in members() {
        for dependency in &package.dependencies {
            for (library, owner) in OWNERS {
                assert!(
                    dependency.name != library || package.name == owner,
                    "only {owner} may name {library}, not {}",
                    package.name
                );
            }
        }
    }
}
