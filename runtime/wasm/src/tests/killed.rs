//! A node, or its compiling process, that is killed at each step of a compilation.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::*;
use crate::failpoint::KILL_AT;

const VICTIM: &str = "FAWN_TEST_KILLED_IN";

const STEPS_OF_THE_CHILD: [&str; 5] = ["job-read", "shut-in", "compiled", "written", "answered"];
const STEPS_OF_THE_NODE: [&str; 6] = ["child-ended", "copy-begun", "copied", "synced", "renamed", "recorded"];

fn module() -> Vec<u8> {
    wat::parse_str(guests::HELLO).unwrap()
}

/// An engine and a compiler whose cache is in this folder, with this environment for the compiling process.
fn compiler(folder: &Path, env: &[(&str, &str)]) -> Arc<Compiler> {
    let mut config = EngineConfig::new(1 << 30, folder.to_owned());
    config.slots = 2;
    let engine = Engine::start(&config).unwrap();
    Arc::new(Compiler::open(engine, &folder.join("code"), [7; 32], compile_command(env)).unwrap())
}

fn artifact(folder: &Path) -> Artifact {
    let (module, path) = (module(), folder.join("module"));
    fs::write(&path, &module).unwrap();
    let digest = Digest(sha2::Sha256::digest(&module).into());
    let size_bytes = module.len() as u64;
    Artifact { digest, size_bytes, kind: ArtifactKind::Module, args: vec![], env: vec![], path }
}

/// What lies in the folder of code under its final name, with its content.
fn code_in(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(folder.join("code")).unwrap().map(|entry| entry.unwrap().path());
    let code = files.filter(|path| path.extension().is_some_and(|extension| extension == "cwasm"));
    code.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// What is there after a kill is whole or nothing, and the next start makes the best of it.
async fn recovers(folder: &Path, whole: &[u8], step: &str) {
    let found = code_in(folder);
    assert!(found.len() <= 1, "{step}");
    for (path, code) in &found {
        assert!(code == whole, "{step}: {} is half a file", path.display());
    }
    let compiler = compiler(folder, &[]);
    assert_eq!(fs::read_dir(folder.join("code/tmp")).unwrap().count(), 0, "{step}: what was left is swept");
    compiler.compile(&artifact(folder)).await.unwrap();
    assert_eq!(compiler.compiled(), u64::from(step != "recorded"), "{step}");
    assert!(code_in(folder)[0].1 == whole, "{step}");
}

#[tokio::test]
async fn a_node_that_is_killed_at_any_step_leaves_nothing_half_done() {
    let reference = tempfile::tempdir().unwrap();
    compiler(reference.path(), &[]).compile(&artifact(reference.path())).await.unwrap();
    let whole = code_in(reference.path()).remove(0).1;

    for step in STEPS_OF_THE_NODE {
        let folder = tempfile::tempdir().unwrap();
        let mut victim = Command::new(std::env::current_exe().unwrap());
        victim.args(["--exact", "tests::killed::victim"]).env(VICTIM, folder.path()).env(KILL_AT, step);
        let ended = victim.output().unwrap().status;
        assert_eq!(ended.signal(), Some(9), "{step}: {ended}");
        recovers(folder.path(), &whole, step).await;
    }
    for step in STEPS_OF_THE_CHILD {
        let folder = tempfile::tempdir().unwrap();
        let compiler = compiler(folder.path(), &[(KILL_AT, step)]);
        let error = compiler.compile(&artifact(folder.path())).await.unwrap_err();
        assert!(matches!(error, Error::Internal(_)), "{step}: nobody blames the module: {error:?}");
        assert_eq!(code_in(folder.path()).len(), 0, "{step}");
        assert_eq!(fs::read_dir(folder.path().join("code/tmp")).unwrap().count(), 0, "{step}: tidied up");
        recovers(folder.path(), &whole, step).await;
    }
}

/// Not a test of its own: a node that is killed as it compiles.
#[tokio::test]
async fn victim() {
    let Some(folder) = std::env::var_os(VICTIM) else { return };
    let folder = PathBuf::from(folder);
    let outcome = compiler(&folder, &[]).compile(&artifact(&folder)).await;
    panic!("it should have been killed: {outcome:?}");
}
