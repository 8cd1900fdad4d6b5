//! Machine code of a module that replaces another: what they have in common is not compiled again.

use std::{fs, path::PathBuf, time::SystemTime};

use super::*;
use crate::cache::Cache;

/// A module of a hundred functions that prints nothing and is large enough, with this number in it.
fn module(number: u32) -> Vec<u8> {
    let others =
        (0..100).map(|other| format!("(func (export \"f{other}\") (result i32) (i32.const {other}))"));
    let text = format!(
        r#"(module (memory (export "memory") 20) (data (i32.const 0) "{}") {}
            (func $number (result i32) (i32.const {number}))
            (func (export "_start") (drop (call $number))))"#,
        "x".repeat(1 << 20),
        others.collect::<String>()
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
async fn what_a_module_has_in_common_with_the_one_it_replaces_is_not_compiled_again() {
    let (bench, alone) = (Bench::new(), Bench::new());
    let [first, second, third] = [1, 2, 3].map(|number| bench.artifact(&module(number)));
    bench.compiler.compile_in_place_of(None, &first).await.unwrap();
    assert_eq!(bench.compiler.reused(), 0);
    bench.compiler.compile_in_place_of(Some(first.digest), &second).await.unwrap();
    let reused = bench.compiler.reused();
    assert!(reused > 50, "{reused}");
    bench.compiler.compile_in_place_of(Some(second.digest), &third).await.unwrap();
    assert!(bench.compiler.reused() > reused + 50, "those that were used are left again");
    for module in [second, third] {
        alone.compiler.compile(&module).await.unwrap();
        assert!(code(&bench, module.digest) == code(&alone, module.digest));
        assert!(files(&alone, module.digest, "parts").is_empty(), "that is no deploy");
    }
    let small = bench.artifact(&wat::parse_str(guests::HELLO).unwrap());
    bench.compiler.compile_in_place_of(None, &small).await.unwrap();
    assert!(files(&bench, small.digest, "parts").is_empty(), "that is quick enough");
}

/// What is wrong with a module is found out without parts of others.
#[tokio::test]
async fn a_module_that_fails_with_parts_is_tried_without() {
    let bench = Bench::new();
    let (first, mut wrong) = (bench.artifact(&module(1)), module(2));
    bench.compiler.compile_in_place_of(None, &first).await.unwrap();
    wrong.push(0xff);
    let wrong = bench.artifact(&wrong);
    let refused = bench.compiler.compile_in_place_of(Some(first.digest), &wrong).await.unwrap_err();
    assert_eq!(refused.code(), "malformed-module", "{refused}");
    assert_eq!(bench.compiler.compiled(), 3);
    bench.compiler.compile_in_place_of(Some(first.digest), &wrong).await.unwrap_err();
    assert_eq!(bench.compiler.compiled(), 3, "and that is remembered");
}

#[tokio::test]
async fn parts_that_were_touched_are_not_used() {
    let (bench, alone) = (Bench::new(), Bench::new());
    let first = bench.artifact(&module(0));
    bench.compiler.compile_in_place_of(None, &first).await.unwrap();
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
    assert_eq!(bench.compiler.reused(), 0);
    alone.compiler.compile(&second).await.unwrap();
    assert!(code(&bench, second.digest) == code(&alone, second.digest));
    fs::remove_file(&parts).unwrap();
    bench.compiler.compile_in_place_of(Some(first.digest), &bench.artifact(&module(3))).await.unwrap();
    assert_eq!(bench.compiler.reused(), 0);
}

#[tokio::test]
async fn parts_go_after_an_hour_and_with_their_module() {
    let bench = Bench::new();
    let module_0 = bench.artifact(&module(0));
    let digest = module_0.digest;
    bench.compiler.compile_in_place_of(None, &module_0).await.unwrap();
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

    let [other, last] = [1, 2].map(|number| bench.artifact(&module(number)));
    bench.compiler.compile_in_place_of(None, &other).await.unwrap();
    bench.compiler.evict(&other.digest, Duration::ZERO).unwrap();
    assert!(files(&bench, other.digest, "parts").is_empty());
    bench.compiler.compile_in_place_of(None, &last).await.unwrap();
    let [parts] = <[_; 1]>::try_from(files(&bench, last.digest, "parts")).unwrap();
    let length = fs::metadata(&parts).unwrap().len();
    assert_eq!(bench.compiler.drop_parts().unwrap(), length);
    assert!(!parts.exists());
    assert_eq!(files(&bench, last.digest, "cwasm").len(), 1);
}
