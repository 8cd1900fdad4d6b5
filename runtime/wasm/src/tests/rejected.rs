//! Modules that are rejected once are rejected again at no cost, as long as that means the same.

use super::*;
use crate::{child::Rejection, rejected::Rejected};

/// A rejected module, and the file that remembers it.
async fn rejected(bench: &Bench) -> (Artifact, std::path::PathBuf) {
    let artifact = bench.artifact(&wat::parse_str(guests::NO_START).unwrap());
    let error = bench.compiler.compile(&artifact).await.unwrap_err();
    assert_eq!(error.code(), "no-entry-point");
    (artifact.clone(), bench.folder.path().join(format!("code/rejected/{}.json", artifact.digest.hex())))
}

#[tokio::test]
async fn a_rejected_module_costs_nothing_when_it_comes_again() {
    let bench = Bench::new();
    let (artifact, file) = rejected(&bench).await;
    assert!(file.exists());
    // Its file is not even read.
    std::fs::remove_file(&artifact.path).unwrap();
    for _ in 0..100 {
        let again = bench.compiler.compile(&artifact).await.unwrap_err();
        assert_eq!(again.code(), "no-entry-point");
    }
    assert_eq!(bench.compiler.compiled(), 1);
    let restarted = Bench::compiler(&bench.folder, &bench.engine);
    assert_eq!(restarted.compile(&artifact).await.unwrap_err().code(), "no-entry-point");
    assert_eq!(restarted.compiled(), 0, "a restart changes nothing");
}

#[tokio::test]
async fn a_rejection_is_forgotten_after_its_time_and_tried_again() {
    let bench = Bench::new();
    let (artifact, file) = rejected(&bench).await;
    bench.compiler.retain(|_| true, Duration::from_secs(3600)).unwrap();
    assert!(file.exists());
    bench.compiler.retain(|_| true, Duration::ZERO).unwrap();
    assert!(!file.exists());
    bench.compiler.compile(&artifact).await.unwrap_err();
    assert_eq!(bench.compiler.compiled(), 2);
}

#[tokio::test]
async fn a_rejection_that_was_touched_is_not_believed() {
    let bench = Bench::new();
    let (artifact, file) = rejected(&bench).await;
    let written = std::fs::read(&file).unwrap();
    let other = Digest([9; 32]);
    let remembered = Rejected::open(file.parent().unwrap(), [7; 32], &bench.engine).unwrap();
    assert!(remembered.get(&artifact.digest).unwrap().is_some());
    for at in 0..written.len() * 8 {
        let mut forged = written.clone();
        forged[at / 8] ^= 1 << (at % 8);
        std::fs::write(&file, forged).unwrap();
        assert_eq!(remembered.get(&artifact.digest).unwrap(), None, "bit {at}");
        assert!(!file.exists(), "it is removed");
    }
    for length in 0..written.len() {
        std::fs::write(&file, &written[..length]).unwrap();
        assert_eq!(remembered.get(&artifact.digest).unwrap(), None, "{length} bytes");
    }
    std::fs::write(file.with_file_name(format!("{}.json", other.hex())), &written).unwrap();
    assert_eq!(remembered.get(&other).unwrap(), None, "it was of another module");
    std::fs::write(&file, &written).unwrap();
    let stranger = Rejected::open(file.parent().unwrap(), [8; 32], &bench.engine).unwrap();
    assert_eq!(stranger.get(&artifact.digest).unwrap(), None, "it was another node's");
    let target = bench.folder.path().join("target");
    std::fs::write(&target, &written).unwrap();
    std::os::unix::fs::symlink(&target, &file).unwrap();
    assert_eq!(remembered.get(&artifact.digest).unwrap(), None, "a link");
    bench.compiler.compile(&artifact).await.unwrap_err();
    assert_eq!(bench.compiler.compiled(), 2, "it was looked at again");
}

#[test]
fn so_many_are_remembered_and_no_more() {
    let bench = Bench::new();
    let folder = bench.folder.path().join("remembered");
    let remembered = Rejected::open(&folder, [7; 32], &bench.engine).unwrap();
    let digest = |nth: u32| Digest(sha2::Sha256::digest(nth.to_le_bytes()).into());
    let rejection = Rejection { code: "not-wasm".into(), message: "ü".repeat(5000) };
    for nth in 0..1100 {
        remembered.insert(&digest(nth), rejection.clone()).unwrap();
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1024);
    let last = remembered.get(&digest(1099)).unwrap().unwrap();
    assert_eq!((last.code.as_str(), last.message.len()), ("not-wasm", 4096), "and not at any length");
}

#[tokio::test]
async fn what_is_not_the_modules_fault_is_not_remembered() {
    let bench = Bench::new();
    let whole = wat::parse_str(guests::HELLO).unwrap();
    let artifact = bench.artifact(&whole);
    std::fs::write(&artifact.path, "damaged").unwrap();
    assert_eq!(bench.compiler.compile(&artifact).await.unwrap_err().code(), crate::DAMAGED);
    std::fs::remove_file(&artifact.path).unwrap();
    assert!(matches!(bench.compiler.compile(&artifact).await.unwrap_err(), Error::Internal(_)));
    std::fs::write(&artifact.path, &whole).unwrap();
    bench.compiler.compile(&artifact).await.unwrap();
    assert_eq!(bench.compiler.compiled(), 3);
}
