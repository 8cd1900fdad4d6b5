//! Bodies of every size and form, and many callers on one slot.

use bytes::Bytes;
use http_body_util::BodyExt;
use runtime_api::full;
use runtime_testing::guests::{ECHO, ECHO_HTTP, SPLICE_HTTP};

use crate::bench::{Bench, at_hand, bytes, call, in_pieces, invocation, text};

/// Bytes that do not repeat with any buffer's size.
fn content(size: usize) -> Bytes {
    (0..size as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn cut(mut content: Bytes, size: usize) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    while !content.is_empty() {
        pieces.push(content.split_to(size.min(content.len())));
    }
    pieces
}

#[tokio::test]
async fn a_body_comes_back_as_it_was_whatever_its_size_and_form() {
    let bench = Bench::with_slots(2);
    for guest in [ECHO, ECHO_HTTP, SPLICE_HTTP] {
        let pool = bench.pool(guest).await;
        for size in [0, 1, 65_536, (1 << 20) + 1] {
            let sent = content(size);
            let answer = call(&pool, sent.clone()).await.unwrap();
            assert_eq!(answer.status(), 200);
            assert!(bytes(answer).await == sent, "{size} bytes at once");
            for piece in [701, 65_537] {
                let chunked = invocation(in_pieces(cut(sent.clone(), piece)));
                let answer = pool.invoke(chunked, u64::MAX).await.unwrap();
                assert!(bytes(answer).await == sent, "{size} bytes by {piece}");
            }
        }
        bench.at_rest("echoed", &[&pool]).await;
    }
}

/// Tokio lets a task take so many steps before it must let others run, and then answers that nothing is ready. That must
/// not be taken for the end of an answer.
#[tokio::test]
async fn an_answer_is_whole_however_many_steps_it_takes() {
    let bench = Bench::with_slots(2);
    for guest in [ECHO, ECHO_HTTP, SPLICE_HTTP] {
        let pool = bench.pool(guest).await;
        for pieces in (0..400).chain([1000, 2000]) {
            let sent = content(pieces * 10);
            let body = at_hand(cut(sent.clone(), 10));
            let answer = pool.invoke(invocation(body), u64::MAX).await;
            let answer = answer.unwrap_or_else(|error| panic!("{pieces} pieces: {error:?}"));
            let body = answer.into_body().collect().await;
            let body = body.unwrap_or_else(|error| panic!("{pieces} pieces: {error:?}")).to_bytes();
            assert!(body == sent, "{pieces} pieces came back as {} bytes", body.len());
        }
        // Calls that never wait, one after the other in one task.
        for turn in 0..1000 {
            assert_eq!(text(call(&pool, "again").await.unwrap()).await, "again", "{turn}");
        }
        bench.at_rest("echoed", &[&pool]).await;
    }
}

#[tokio::test]
async fn many_callers_of_one_slot_get_their_own_answers() {
    let bench = Bench::with_slots(1);
    let pools = [bench.pool(ECHO).await, bench.pool(ECHO_HTTP).await];
    let callers: Vec<_> = (0..400)
        .map(|caller: usize| {
            let pool = pools[caller % 2].clone();
            tokio::spawn(async move {
                let own = format!("caller {caller}");
                let pieces = cut(own.clone().into(), 3);
                let body = if caller.is_multiple_of(3) { in_pieces(pieces) } else { full(own.clone()) };
                let answer = pool.invoke(invocation(body), u64::MAX).await.unwrap();
                assert_eq!(text(answer).await, own);
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    bench.at_rest("all were served", &[&pools[0], &pools[1]]).await;
}
