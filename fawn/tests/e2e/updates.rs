//! Updates under load lose nothing.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use runtime_testing::guests::ARGS;

use crate::{
    edge::{Deployment, Edge, Reply},
    guests::{marked, text},
};

fn size_of(folder: &Path) -> u64 {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            // A file may go between listing and looking.
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
                Ok(metadata) => metadata.len(),
                Err(_) => 0,
            }
        })
        .sum()
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
    let size_before = size_of(&edge.data_dir());

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
    let size = size_of(&edge.data_dir());
    eprintln!("{calls} calls during {UPDATES} updates; data directory {size_before} -> {size} bytes");
    assert!(calls > UPDATES as u64, "too few calls to prove anything: {calls}");
    assert!(size < size_before + (2 << 20), "the data directory grew from {size_before} to {size} bytes");
}
