//! Long guests: where they run, and that they keep to what holds for all. These tests have one serving thread each.

use std::{
    future::pending,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::{
    sync::oneshot,
    task::{JoinHandle, yield_now},
    time::Instant,
};

use super::*;
use crate::long::{LONG, Run, give_way};

impl Bench {
    /// A guest that is no WebAssembly, so that a test can see when it runs, and where.
    async fn guest(
        &self,
        pool: &Arc<InstancePool>,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Run<()> {
        let room = pool.room(u64::MAX, Instant::now() + Duration::from_secs(20)).await.unwrap();
        Run::new(Box::pin(work), room)
    }

    /// Keeps all threads of long guests busy, each in one turn that lasts until the barrier is reached.
    async fn occupied(&self, pool: &Arc<InstancePool>) -> (Vec<JoinHandle<()>>, Arc<Barrier>) {
        let threads = thread::available_parallelism().unwrap().get();
        let (busy, barrier) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(threads + 1)));
        let mut guests = Vec::new();
        for _ in 0..threads {
            let (busy, barrier) = (busy.clone(), barrier.clone());
            let work = async move {
                become_long().await;
                busy.fetch_add(1, Ordering::SeqCst);
                barrier.wait();
            };
            let guest = self.guest(pool, work).await;
            guests.push(tokio::spawn(async move { drop(guest.await) }));
        }
        while busy.load(Ordering::SeqCst) < threads {
            yield_now().await;
        }
        (guests, barrier)
    }
}

/// Computes for long, up to a tick.
async fn become_long() {
    let since = Instant::now();
    while since.elapsed() < LONG {
        std::hint::spin_loop();
    }
    give_way().await;
}

fn is_away() -> bool {
    thread::current().name() == Some("long-guest")
}

/// The guest computes for some 100 ms when it comes to `point`.
fn computing(guest: &str, point: &str) -> String {
    const COMPUTE: &str = "(func $compute (local $i i32) (loop $again (br_if $again (i32.lt_u
        (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100000000)))))";
    let (before, after) = guest.rsplit_once(point).unwrap();
    // Within the same core module, at its end.
    let end = [";; The last part", "(core instance $main"].iter().find_map(|end| after.find(end));
    let (rest, shared) = after.split_at(end.unwrap_or(after.len()));
    let (rest, _) = rest.rsplit_once(')').unwrap();
    format!("{before} (call $compute) {point}{rest} {COMPUTE}) {shared}")
}

#[tokio::test]
async fn a_guest_leaves_once_it_has_computed_for_long_and_stays_away() {
    let bench = Bench::new();
    let pool = bench.pool(guests::HELLO, |_| {}).await;
    let (send, receive) = oneshot::channel();
    let (tell, told) = oneshot::channel();
    let work = async move {
        let mut away = vec![is_away()];
        // Ticks may hit the shortest guest.
        give_way().await;
        give_way().await;
        away.push(is_away());
        become_long().await;
        away.push(is_away());
        tell.send(()).unwrap();
        receive.await.unwrap();
        away.push(is_away());
        // Timers, tasks and sockets are still those of the serving runtime.
        tokio::spawn(yield_now()).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(1), pending::<()>()).await.is_err());
        assert_eq!(away, [false, false, true, true]);
    };
    let guest = tokio::spawn(bench.guest(&pool, work).await);
    told.await.unwrap();
    send.send(()).unwrap();
    let ended = guest.await.unwrap();
    assert_eq!((pool.inflight(), bench.engine.slots_in_use()), (1, 1), "held with the store");
    drop(ended);
    assert_eq!((pool.inflight(), bench.engine.slots_in_use()), (0, 0));
}

#[tokio::test]
async fn long_guests_take_turns() {
    let bench = Bench::new();
    let pool = bench.pool(guests::HELLO, |_| {}).await;
    let begun = Arc::new(AtomicUsize::new(0));
    let mut guests = Vec::new();
    for _ in 0..10 {
        let begun = begun.clone();
        let work = async move {
            become_long().await;
            begun.fetch_add(1, Ordering::SeqCst);
            while begun.load(Ordering::SeqCst) < 10 {
                give_way().await;
            }
        };
        guests.push(tokio::spawn(bench.guest(&pool, work).await));
    }
    for guest in guests {
        guest.await.unwrap();
    }
    bench.at_rest().await;
}

#[tokio::test]
async fn a_long_guest_ends_with_its_caller_wherever_it_is() {
    let bench = Bench::new();
    let pool = bench.pool(guests::HELLO, |_| {}).await;
    let (tell, told) = oneshot::channel();
    let work = async move {
        become_long().await;
        tell.send(()).unwrap();
        pending().await
    };
    let waiting = tokio::spawn(bench.guest(&pool, work).await);
    told.await.unwrap();
    waiting.abort();
    bench.at_rest().await;

    let (running, barrier) = bench.occupied(&pool).await;
    let held = bench.engine.slots_in_use();
    let mut queued = Box::pin(bench.guest(&pool, become_long()).await);
    for _ in 0..10 {
        assert!(futures_util::poll!(queued.as_mut()).is_pending());
    }
    assert_eq!(bench.engine.slots_in_use(), held + 1);
    drop(queued);
    assert_eq!(bench.engine.slots_in_use(), held, "at once");

    for guest in running {
        guest.abort();
        assert!(guest.await.unwrap_err().is_cancelled());
    }
    assert_eq!(bench.engine.slots_in_use(), held, "a guest keeps its slot until its turn is over");
    barrier.wait();
    bench.at_rest().await;
    assert_eq!(pool.inflight(), 0);
}

#[tokio::test]
async fn a_panic_reaches_the_caller_and_costs_no_thread() {
    let bench = Bench::new();
    let pool = bench.pool(guests::HELLO, |_| {}).await;
    for _ in 0..2 * thread::available_parallelism().unwrap().get() {
        let work = async {
            become_long().await;
            assert!(!is_away(), "as the test wants it");
        };
        let guest = tokio::spawn(bench.guest(&pool, work).await);
        assert!(guest.await.is_err_and(|error| error.is_panic()));
    }
    assert_eq!(bench.engine.slots_in_use(), 0);
    bench.guest(&pool, become_long()).await.await;
}

#[tokio::test]
async fn a_deadline_is_kept_while_all_threads_are_busy() {
    let bench = Bench::new();
    let blocker = bench.pool(guests::HELLO, |_| {}).await;
    let (running, barrier) = bench.occupied(&blocker).await;
    for (guest, status) in [(guests::LOOP, 408), (guests::HTTP_LOOP, 504)] {
        let pool = bench.pool(guest, |settings| settings.timeout = Duration::from_millis(100)).await;
        assert_eq!(call(&pool, "").await.unwrap().status(), status);
        assert_eq!(pool.inflight(), 0);
    }
    barrier.wait();
    for guest in running {
        guest.await.unwrap();
    }
    bench.at_rest().await;
}

/// Computes for ever, and takes one more page of memory every now and then.
const GROWING: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "_start") (local $i i32)
      (loop $again
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (if (i32.eqz (i32.rem_u (local.get $i) (i32.const 100000))) (then
          (drop (memory.grow (i32.const 1)))))
        (br $again))))"#;

#[tokio::test]
async fn a_computing_guest_goes_on_while_the_serving_thread_does_something_else() {
    let bench = Bench::new();
    let pool = bench.pool(GROWING, |settings| settings.limits.memory_bytes = 1 << 30).await;
    let guest = tokio::spawn({
        let pool = pool.clone();
        async move { call(&pool, "").await }
    });
    let grows_by_itself = || {
        let before = bench.engine.memory_in_use_bytes();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(20) {
            if before > 0 && bench.engine.memory_in_use_bytes() != before {
                return true;
            }
            thread::yield_now();
        }
        false
    };
    let away = async {
        while !grows_by_itself() {
            yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), away).await.expect("it leaves the serving thread");
    guest.abort();
    bench.at_rest().await;
    assert_eq!(bench.engine.memory_in_use_bytes(), 0);
}

#[tokio::test]
async fn short_calls_are_answered_while_endless_ones_compute() {
    let bench = Bench::new();
    let cli = computing(guests::CLI_RUN, "(call $write (call").replace("100000000", "-1");
    let mut endless = Vec::new();
    for guest in [guests::LOOP, guests::HTTP_LOOP, guests::HTTP_LATE_LOOP, &cli] {
        let pool = bench.pool(guest, |_| {}).await;
        for _ in 0..2 {
            let pool = pool.clone();
            endless.push(tokio::spawn(
                async move { call(&pool, "").await.unwrap().into_body().collect().await },
            ));
        }
    }
    let hello = bench.pool(guests::HELLO_HTTP, |_| {}).await;
    for _ in 0..100 {
        assert_eq!(call(&hello, "").await.unwrap().status(), 200);
        yield_now().await;
    }
    assert_eq!(bench.engine.slots_in_use(), 8, "all of them still run");
    for guest in endless {
        guest.abort();
    }
    bench.at_rest().await;
    assert_eq!(bench.engine.memory_in_use_bytes(), 0);
}

#[tokio::test]
async fn a_long_guest_fails_as_any_other() {
    let bench = Bench::new();
    let pool = bench.pool(&computing(guests::HTTP_TRAP, "unreachable"), |_| {}).await;
    assert_eq!(call(&pool, "").await.unwrap_err().code(), "guest-trap");
    let pool = bench.pool(&computing(guests::HTTP_LATE_TRAP, "unreachable"), |_| {}).await;
    match call(&pool, "").await {
        Err(error) => assert_eq!(error.code(), "guest-trap", "it may be over before the head is read"),
        Ok(response) => assert!(response.into_body().collect().await.is_err()),
    }
    let pool = bench.pool(&computing(guests::TRAP, "unreachable"), |_| {}).await;
    let response = call(&pool, "").await.unwrap();
    assert_eq!(response.headers()["x-error-code"], "guest-trap");
    assert!(text(response).await.contains("before\n"));
    assert_eq!(bench.engine.slots_in_use(), 0);
}

#[tokio::test]
async fn a_long_guest_streams_piece_by_piece() {
    let bench = Bench::new();
    let pool = bench.pool(&computing(guests::ECHO_HTTP, "(loop $next"), |_| {}).await;
    let (send, receive) = tokio::sync::mpsc::channel::<Bytes>(1);
    let pieces = futures_util::stream::unfold(receive, |mut receive| async {
        let piece = receive.recv().await?;
        Some((Ok::<_, BodyError>(http_body::Frame::data(piece)), receive))
    });
    let response = pool.invoke(invocation(StreamBody::new(pieces).boxed_unsync()), u64::MAX).await.unwrap();
    let mut body = response.into_body();
    for piece in ["one", "two", "three"] {
        send.send(piece.into()).await.unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), piece);
    }
    drop(send);
    assert!(body.frame().await.is_none());
    drop(body);
    bench.at_rest().await;

    let pool = bench.pool(&computing(guests::HTTP_ENDLESS, "(loop $again"), |_| {}).await;
    let mut body = call(&pool, "").await.unwrap().into_body();
    let mut read = 0;
    while read < 100_000 {
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(data.chunks(6).all(|piece| piece == b"piece\n"));
        read += data.len();
    }
    drop(body);
    bench.at_rest().await;
}
