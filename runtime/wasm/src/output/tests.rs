use std::task::{Context, Poll, Waker};

use super::*;

const MIB: usize = 1 << 20;

fn spill(limit_bytes: u64) -> (tempfile::TempDir, Arc<Spill>) {
    let folder = tempfile::tempdir().unwrap();
    let spill = Spill::new(folder.path().to_owned(), limit_bytes);
    (folder, spill)
}

/// Writes as a guest does that asks before.
async fn write(output: &mut Output, bytes: &[u8]) -> Result<(), StreamError> {
    for piece in bytes.chunks(WRITE_BYTES) {
        assert!(output.write_ready().await? >= piece.len());
        output.write(Bytes::copy_from_slice(piece))?;
    }
    Ok(())
}

async fn whole(output: Output) -> (u64, Bytes) {
    let Finished { length, body, .. } = output.take().finish(Bytes::new()).await.unwrap();
    (length, body.collect().await.unwrap().to_bytes())
}

/// Waits as a guest does that waits for other things too: asks once, then lets go.
fn begin_to_wait(output: &mut Output) -> Poll<()> {
    output.ready().as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets nothing be written until what it returns is dropped.
fn hold_the_disk() -> std::sync::mpsc::Sender<()> {
    let (release, held) = std::sync::mpsc::channel();
    drop(tokio::task::spawn_blocking(move || held.recv()));
    release
}

#[test]
fn nothing_is_lost_when_a_wait_is_given_up() {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    runtime.block_on(give_up_waiting());
}

async fn give_up_waiting() {
    let (_folder, spill) = spill(u64::MAX);
    let mut output = Output::new(u64::MAX, spill);
    let mut written = Vec::new();
    for round in 0..3 {
        let most = vec![b'a' + round; MIB + 1];
        output.write(most.clone().into()).unwrap();
        let disk = hold_the_disk();
        assert!(begin_to_wait(&mut output).is_pending());
        assert_eq!(output.check_write().unwrap(), 0, "no more before the disk has taken it");
        // Another stream of the same guest that was let write before.
        output.clone().write(Bytes::from_static(b"more")).unwrap();
        drop(disk);
        output.ready().await;
        assert!(output.check_write().unwrap() > 0);
        written.extend_from_slice(&most);
        written.extend_from_slice(b"more");
    }
    output.write(vec![b'z'; MIB + 1].into()).unwrap();
    let disk = hold_the_disk();
    assert!(begin_to_wait(&mut output).is_pending(), "and the guest ends without waiting");
    output.write(Bytes::from_static(b"end")).unwrap();
    written.extend_from_slice(&vec![b'z'; MIB + 1]);
    written.extend_from_slice(b"end");
    drop(disk);
    let (length, body) = whole(output).await;
    assert_eq!(length, written.len() as u64);
    assert!(body == written, "{} of {} bytes, or in another order", body.len(), written.len());
}

#[tokio::test]
async fn a_guest_that_never_waits_is_stopped() {
    let (_folder, spill) = spill(u64::MAX);
    let mut output = Output::new(u64::MAX, spill);
    let stopped = (0..4).any(|_| matches!(output.write(vec![0; MIB].into()), Err(StreamError::Trap(_))));
    assert!(stopped, "what it may hold in memory is bounded");
}

#[tokio::test]
async fn a_large_output_is_told_by_as_many_bytes_as_a_small_one() {
    let (_folder, spill) = spill(u64::MAX);
    let mut output = Output::new(u64::MAX, spill);
    let mut bytes = vec![b'a'; 2 * MIB];
    bytes[100] = 0;
    write(&mut output, &bytes).await.unwrap();
    let finished = output.take().finish(Bytes::from_static(b"exit status 1\n")).await.unwrap();
    assert_eq!(finished.start.len(), SNIFFED_BYTES);
    assert_eq!(crate::sniff::content_type(&finished.start), "application/octet-stream");
    let body = finished.body.collect().await.unwrap().to_bytes();
    assert!(body.strip_prefix(b"exit status 1\n").unwrap() == bytes, "nothing is missing or twice");
}

#[tokio::test]
async fn outputs_share_the_disk_until_they_are_read_or_dropped() {
    let (folder, spill) = spill(5 << 20);
    let mut first = Output::new(u64::MAX, spill.clone());
    write(&mut first, &vec![b'a'; 3 * MIB]).await.unwrap();
    let first = first.take().finish(Bytes::new()).await.unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "files have no names");

    let mut refused = Output::new(u64::MAX, spill.clone());
    assert!(matches!(write(&mut refused, &vec![b'b'; 4 * MIB]).await, Err(StreamError::Trap(_))));
    assert!(matches!(refused.take().finish(Bytes::new()).await, Err(Failure::NoRoom)));

    let mut last_bytes = Output::new(u64::MAX, spill.clone());
    write(&mut last_bytes, &vec![b'c'; 2 * MIB]).await.unwrap();
    last_bytes.write(Bytes::from_static(b"more")).unwrap();
    assert!(
        matches!(last_bytes.take().finish(Bytes::new()).await, Err(Failure::NoRoom)),
        "the end counts too"
    );

    drop(first.body);
    assert!(spill.room(5 << 20).is_some(), "all is given back");
}

#[tokio::test]
async fn a_call_that_ends_early_gives_back_its_room() {
    let (_folder, spill) = spill(2 << 20);
    let mut output = Output::new(u64::MAX, spill.clone());
    write(&mut output, &vec![b'a'; 2 * MIB]).await.unwrap();
    output.ready().await;
    assert!(spill.room(2 << 20).is_none());
    drop(output);
    assert!(spill.room(2 << 20).is_some());
}

#[tokio::test]
async fn a_disk_that_takes_nothing_ends_the_call() {
    let (folder, spill) = spill(u64::MAX);
    drop(folder);
    let mut output = Output::new(u64::MAX, spill);
    assert!(write(&mut output, &vec![b'a'; 2 * MIB]).await.is_err());
    assert!(matches!(output.take().finish(Bytes::new()).await, Err(Failure::Disk(_))));
}
