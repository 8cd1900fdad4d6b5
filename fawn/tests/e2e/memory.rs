//! What a call costs in memory does not depend on the size of its body.

use std::time::Instant;

use reqwest::Method;
use runtime_testing::guests::ECHO_HTTP;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::{
    edge::{Deployment, Edge, Plan},
    guests::{built, text},
    process::eventually,
    streaming::written_later,
};

const MIB: u64 = 1 << 20;
/// A tenth and a bit of what passes through: it cannot be there as a whole.
const MAX_GROWTH: u64 = 16 * MIB;

/// Bytes that do not repeat with any buffer's size.
fn block(turn: u32) -> Vec<u8> {
    (0..50_000u32).map(|at| (at.wrapping_mul(2_654_435_761).wrapping_add(turn) >> 13) as u8).collect()
}

/// Sends that many bytes and compares what comes back, holding neither.
async fn echoes(edge: &Edge, path: &str, size: usize) {
    let (mut send, body) = written_later();
    let sending = tokio::spawn(async move {
        let (mut hash, mut left) = (Sha256::new(), size);
        for turn in 0.. {
            if left == 0 {
                break;
            }
            let mut piece = block(turn);
            piece.truncate(left);
            left -= piece.len();
            hash.update(&piece);
            send.write_all(&piece).await.unwrap();
        }
        hash.finalize()
    });
    let mut answer = edge.request(Method::POST, path).body(body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let (mut hash, mut count) = (Sha256::new(), 0);
    while let Some(piece) = answer.chunk().await.unwrap() {
        count += piece.len();
        hash.update(&piece);
    }
    assert_eq!(count, size, "{path}");
    assert_eq!(hash.finalize(), sending.await.unwrap(), "{path}: other bytes came back");
}

/// Echoes nothing, one byte and 100 MB, and gives by how much the server's memory rose above its level after a call.
async fn growth(edge: &Edge, path: &str) -> u64 {
    for size in [0, 1, 1_000_000] {
        echoes(edge, path, size).await;
    }
    edge.process.reset_peak();
    let before = edge.process.memory("VmRSS");
    let began = Instant::now();
    echoes(edge, path, 100_000_000).await;
    let growth = edge.process.memory("VmHWM").saturating_sub(before);
    eprintln!(
        "{path}: 100 MB in {:?}, peak {} KiB above {} KiB",
        began.elapsed(),
        growth / 1024,
        before / 1024
    );
    growth
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_component_echoes_100_mb_in_little_memory() {
    let edge = Edge::start().await;
    let image = edge.upload(text(ECHO_HTTP)).await;
    edge.serve(Deployment::of("echo", &image)).await;
    assert!(growth(&edge, "/function/echo").await < MAX_GROWTH);
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn a_program_echoes_100_mb_in_little_memory() {
    let edge = Edge::start().await;
    let image = edge.upload(built("c.wasm")).await;
    edge.serve(Deployment::of("copy", &image)).await;
    assert!(growth(&edge, "/function/copy").await < MAX_GROWTH);
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn a_javascript_handler_echoes_100_mb_in_little_memory() {
    let edge = Edge::start().await;
    let image = edge.upload(built("js.wasm")).await;
    edge.serve(Deployment::of("js", &image)).await;
    assert!(growth(&edge, "/function/js/echo").await < MAX_GROWTH);
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn an_idle_server_is_small() {
    let edge = Edge::start().await;
    let resident = edge.process.memory("VmRSS");
    eprintln!("idle: {} KiB", resident / 1024);
    assert!(resident < 40 * MIB, "{} KiB", resident / 1024);
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn code_that_nobody_calls_leaves_memory() {
    let edge = Plan::new().argument("--code-idle=1s").start().await;
    edge.serve(Deployment::of("second", &edge.upload(text(ECHO_HTTP)).await)).await;
    for function in ["hello", "second"] {
        assert_eq!(edge.call(function, "x").await.status, 200);
    }
    eventually("no code in memory", async || (edge.metric("fawn_code_modules").await == 0.0).then_some(()))
        .await;
    assert_eq!(edge.metric("fawn_functions_loaded").await, 0.0);
    assert_eq!(edge.metric("fawn_code_evictions_total").await, 0.0);
    assert_eq!(edge.call("second", "x").await.text(), "x");
}
