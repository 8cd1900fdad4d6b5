//! Machine code of a module that replaces another: what they have in common is not compiled again.

use std::{fs, path::PathBuf, time::SystemTime};

use super::*;
use crate::cache::Cache;

/// A module that prints nothing and is large enough, with this number in it.
fn module(number: u32) -> Vec<u8> {
    let text = format!(
        r#"(module (memory (export "memory") 20) (data (i32.const 0) "{}")
            (func $number (result i32) (i32.const {number}))
            (func (export "_start") (drop (call $number))))"#,
        "x".repeat(1 << 20)
    );
    wat::parse_str(text).unwrap()
}

fn files(bench: &Bench, digest: Digest, extension: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(bench.folder.path().join("code")).unwrap().map(|entry| entry.unwrap().path());
    let wanted = |path: &PathBuf| {
        path.file_name().unwrap().to_string_lossy().starts_with(&digest.hex())
            && path.extension().is_some_and(|e| e == extension)
    };
    files.filter(wanted).collect()
}

fn code(bench: &Bench, digest: Digest) -> Vec<u8> {
    fs::read(&files(bench, digest, "cwasm")[0]).unwrap()
}

#[tokio::test]
async fn what_replaces_a_module_is_the_code_that_it_would_be_alone() {
    let (bench, alone) = (Bench::new(), Bench::new());
    let (first, second) = (bench.artifact(&module(1)), bench.artifact(&module(2)));
    bench.compiler.compile(&first).await.unwrap();
    bench.compiler.compile_in_place_of(Some(first.digest), &second).await.unwrap();
    alone.compiler.compile(&second).await.unwrap();
    assert!(code(&bench, second.digest) == code(&alone, second.digest));
    let small = bench.compile(guests::HELLO).await.unwrap().artifact.digest;
    assert!(files(&bench, small, "parts").is_empty(), "that is quick enough");
}

/// Nobody has to believe in the parts of others.
#[tokio::test]
async fn code_made_with_parts_is_taken_by_what_replaces_that_module_alone() {
    let bench = Bench::new();
    let [first, second, third] = [1, 2, 3].map(|number| bench.artifact(&module(number)));
    let compiled = async |replaced: Option<&Artifact>, module: &Artifact| {
        let replaced = replaced.map(|module| module.digest);
        bench.compiler.compile_in_place_of(replaced, module).await.unwrap();
        bench.compiler.compiled()
    };
    assert_eq!(compiled(None, &first).await, 1);
    assert_eq!(compiled(Some(&third), &first).await, 1, "made with no parts, it is for all");
    assert_eq!(compiled(Some(&first), &second).await, 2);
    assert_eq!(compiled(Some(&first), &second).await, 2);
    assert_eq!(compiled(Some(&second), &second).await, 2, "what a function runs already is its own");
    bench.compiler.compile(&second).await.unwrap();
    assert_eq!(bench.compiler.compiled(), 2);
    assert_eq!(
        compiled(Some(&third), &second).await,
        3,
        "another's parts, and then none: the third was not compiled"
    );
    assert_eq!(compiled(None, &second).await, 3);
    assert_eq!(compiled(Some(&first), &third).await, 4);
    assert_eq!(compiled(None, &third).await, 5);
}

#[tokio::test]
async fn parts_that_were_touched_are_not_used() {
    let (bench, alone) = (Bench::new(), Bench::new());
    let first = bench.artifact(&module(0));
    bench.compiler.compile(&first).await.unwrap();
    let [parts] = <[_; 1]>::try_from(files(&bench, first.digest, "parts")).unwrap();
    let whole = fs::read(&parts).unwrap();
    let cache = Cache::open(&bench.folder.path().join("code"), [7; 32], &bench.engine).unwrap();
    assert!(cache.link_parts(&first.digest, bench.folder.path()).unwrap().is_some());
    let touched = |bytes: Vec<u8>| {
        fs::remove_file(&parts).unwrap();
        fs::write(&parts, bytes).unwrap();
        let folder = tempfile::tempdir_in(bench.folder.path()).unwrap();
        let linked = cache.link_parts(&first.digest, folder.path()).unwrap();
        assert!(linked.is_none());
    };
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        touched(bytes);
    }
    touched(whole[..whole.len() - 1].to_vec());
    touched([&whole[..], b"\0"].concat());
    touched(Vec::new());
    let second = bench.artifact(&module(2));
    bench.compiler.compile_in_place_of(Some(first.digest), &second).await.unwrap();
    alone.compiler.compile(&second).await.unwrap();
    assert!(code(&bench, second.digest) == code(&alone, second.digest));
    fs::remove_file(&parts).unwrap();
    bench.compiler.compile_in_place_of(Some(first.digest), &bench.artifact(&module(3))).await.unwrap();
}

#[tokio::test]
async fn parts_go_after_an_hour_and_with_their_module() {
    let bench = Bench::new();
    let digest = bench.artifact(&module(0)).digest;
    bench.compiler.compile(&bench.artifact(&module(0))).await.unwrap();
    let [parts] = <[_; 1]>::try_from(files(&bench, digest, "parts")).unwrap();
    let length = fs::metadata(&parts).unwrap().len();
    let stored: u64 = bench.compiler.stored().unwrap().iter().map(|stored| stored.size_bytes).sum();
    assert!(stored > length + code(&bench, digest).len() as u64, "they count");

    bench.compiler.retain(|_| true, Duration::ZERO).unwrap();
    assert!(parts.exists());
    let old = SystemTime::now() - Duration::from_secs(3601);
    fs::File::open(&parts).unwrap().set_modified(old).unwrap();
    bench.compiler.retain(|_| true, Duration::ZERO).unwrap();
    assert!(!parts.exists());
    assert_eq!(files(&bench, digest, "cwasm").len(), 1);

    let other = bench.artifact(&module(1));
    bench.compiler.compile(&other).await.unwrap();
    bench.compiler.evict(&other.digest, Duration::ZERO).unwrap();
    assert!(files(&bench, other.digest, "parts").is_empty());
}
