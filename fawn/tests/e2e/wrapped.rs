//! The templates of the repository, used as faas-cli and `fawn build` use them: the handler's folder goes into a copy of
//! the rest, and the script there builds it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use tokio::process::Command;

use crate::{
    edge::{Deployment, Edge},
    process::{Said, run_within},
};

/// A toolchain's first build compiles what the handler depends on.
pub(crate) const BUILD_PATIENCE: Duration = Duration::from_secs(900);

/// A folder as faas-cli makes one of a template and a function's folder, before it builds there.
pub(crate) struct Wrapped(PathBuf);

impl Wrapped {
    /// Of the template and the folder that `faas-cli new` begins with. `name` is this test's alone.
    pub(crate) fn of(template: &str, name: &str) -> Self {
        // Always the same place: so what was compiled there before is not compiled again.
        let folder = target().join(format!("{template}-{name}"));
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        copy(&templates().join(template), &folder);
        Self(folder)
    }

    /// With this handler in place of the one that comes with the template, and of its test.
    pub(crate) fn with(template: &str, name: &str, file: &str, handler: &str) -> Self {
        let wrapped = Self::of(template, name);
        for entry in fs::read_dir(wrapped.function("")).unwrap().map(Result::unwrap) {
            if entry.file_name().to_str().unwrap().contains("test") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        wrapped.write(file, handler);
        wrapped
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    pub(crate) fn function(&self, file: &str) -> PathBuf {
        self.0.join("function").join(file)
    }

    pub(crate) fn write(&self, file: &str, content: &str) {
        fs::write(self.function(file), content).unwrap();
    }

    pub(crate) fn module(&self) -> PathBuf {
        self.0.join("function.wasm")
    }

    pub(crate) async fn build(&self) -> Said {
        let mut command = Command::new("sh");
        // From anywhere.
        command.arg(self.0.join("build.sh")).current_dir("/");
        with_toolchains(&mut command, &self.0);
        run_within(BUILD_PATIENCE, &mut command, b"").await
    }

    /// Runs a shell's script in it; `$0` is a folder for what that leaves.
    pub(crate) async fn run(&self, script: &str) -> Said {
        let scratch = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-ec", script]).arg(scratch.path()).current_dir(&self.0);
        command.env("CARGO_TARGET_DIR", self.0.with_extension("target"));
        run_within(BUILD_PATIENCE, &mut command, b"").await
    }

    /// Builds and deploys.
    pub(crate) async fn deploy(&self, edge: &Edge, deployment: Deployment) {
        self.build().await.succeeds();
        let image = edge.upload(fs::read(self.module()).unwrap()).await;
        edge.serve(deployment.field("image", json!(image))).await;
    }
}

/// Tells builds in a folder where the parts of toolchains are that are no programs.
pub(crate) fn with_toolchains(command: &mut Command, folder: &Path) {
    // Each its own: cargo puts components of one name in one place.
    command.env("CARGO_TARGET_DIR", folder.with_extension("target")).env("WASI_ADAPTER", adapter());
    // What they have fetched is in the home of whoever runs the tests.
    if let Some(home) = env::var_os("HOME") {
        command.env("HOME", home);
    }
    if let Some(rustc) = in_path("rustc-wasm") {
        // Where rustup cannot add the target, there is a compiler beside it that has it.
        command.env("RUSTC", rustc);
    }
}

pub(crate) fn templates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates")
}

/// A folder for what is built, which outlives the test.
pub(crate) fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("templates")
}

/// The adapter of WASI preview 1 for reactors, which comes with componentize-js.
fn adapter() -> PathBuf {
    let program = in_path("componentize-js").expect("componentize-js is not on PATH: run scripts/test e2e");
    program.parent().unwrap().join("../@bytecodealliance/jco/lib/wasi_snapshot_preview1.reactor.wasm")
}

fn in_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Copies a folder, without what a build in the clone may have left there.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap() {
            _ if entry.file_name() == "target" => {}
            kind if kind.is_dir() => copy(&path, &copied),
            kind => {
                assert!(kind.is_file(), "{}: faas-cli copies files and folders alone", path.display());
                fs::copy(&path, &copied).unwrap();
            }
        }
    }
}
