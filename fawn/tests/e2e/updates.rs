//! Updates under load lose nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use runtime_testing::guests::ARGS;

use crate::{
    edge::{Deployment, Edge, Reply},
    guests::{marked, text},
    process::eventually,
};

/// Every file in a folder and below.
fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn size_of(folder: &Path) -> u64 {
    // A file may go between listing and looking.
    files(folder).iter().filter_map(|path| Some(path.metadata().ok()?.len())).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by scripts/test"]
async fn a_thousand_updates_lose_no_call_and_no_disk() {
    const UPDATES: usize = 1000;
    const CALLERS: usize = 4;
    let edge = Edge::start().await;
    let answers = ["args\nv1\n", "args\nv2\n"];
    let mut revisions = Vec::new();
    for revision in ["v1", "v2"] {
        let image = edge.upload(marked(&text(ARGS), revision)).await;
        revisions.push(Deployment::of("changing", &image).process(&format!("args {revision}")));
    }
    edge.serve(revisions[1].clone()).await;
    edge.serve(revisions[0].clone()).await;
    // Logs have a bound of their own, which so many calls do not reach.
    let size = || size_of(&edge.data_dir()) - size_of(&edge.data_dir().join("logs"));
    let size_before = size();

    let (done, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    let call = async || {
        while !done.load(Ordering::Relaxed) {
            let answer = edge.call("changing", "").await.ok();
            assert!(answers.contains(&answer.as_str()), "a foreign answer: {answer:?}");
            calls.fetch_add(1, Ordering::Relaxed);
        }
    };
    let update = async {
        for turn in 1..=UPDATES {
            let answer: Reply = edge.update(&revisions[turn % 2]).await;
            assert_eq!(answer.status, 202, "update {turn}: {answer}");
            let after = edge.call("changing", "").await.ok();
            assert_eq!(after, answers[turn % 2], "update {turn} was acknowledged");
        }
        done.store(true, Ordering::Relaxed);
    };
    let callers: [_; CALLERS] = std::array::from_fn(|_| call());
    let [one, two, three, four] = callers;
    tokio::join!(update, one, two, three, four);

    let calls = calls.load(Ordering::Relaxed);
    let size = size();
    eprintln!("{calls} calls during {UPDATES} updates; data directory {size_before} -> {size} bytes");
    assert!(calls > UPDATES as u64, "too few calls to prove anything: {calls}");
    assert!(size < size_before + (2 << 20), "the data directory grew from {size_before} to {size} bytes");
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn code_that_no_function_names_is_removed_after_its_time() {
    const REVISIONS: usize = 8;
    const PADDING: usize = 1 << 20;
    let mut edge = Edge::start().await;
    for revision in 0..REVISIONS {
        let mut module = marked(&text(ARGS), &revision.to_string());
        // A custom section of one MiB, its length in four bytes of LEB128.
        module.extend([0, 0x82, 0x80, 0xc0, 0, 1, b'x']);
        module.resize(module.len() + PADDING, 0);
        let image = edge.upload(module).await;
        edge.serve(Deployment::of("changing", &image).process(&format!("args {revision}"))).await;
    }
    // Besides what the queue of asynchronous calls holds in reserve.
    let taken = |edge: &Edge| size_of(&edge.data_dir()) - size_of(&edge.data_dir().join("queue"));
    assert!(taken(&edge) > (REVISIONS * PADDING) as u64);

    assert!(edge.terminate().await.success());
    let long_ago = SystemTime::now() - Duration::from_secs(24 * 3600);
    for path in files(&edge.data_dir()) {
        fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
    }
    let edge = edge.again().start().await;
    eventually("one revision is left", async || (taken(&edge) < 2 * PADDING as u64).then_some(())).await;
    assert_eq!(edge.call("changing", "").await.ok(), format!("args\n{}\n", REVISIONS - 1));
    assert_eq!(edge.call("hello", "").await.status, 200);
}
