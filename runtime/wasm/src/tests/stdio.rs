use std::sync::Mutex;

use tracing::{Level, subscriber::DefaultGuard};

use super::*;

#[tokio::test]
async fn any_status_is_told_as_a_process_would_tell_it() {
    let bench = Bench::new();
    for (code, status, start) in [
        ("125", 500, "exit status 125\n"),
        ("200", 500, "exit status 200\n"),
        ("255", 500, "exit status 255\n"),
        ("-1", 500, "exit status 255\n"),
        ("256", 200, "half done\n"),
    ] {
        let guest = guests::EXIT_CODE.replace("(i32.const 3)", &format!("(i32.const {code})"));
        let pool = bench.pool(&guest, |_| {}).await;
        let response = call(&pool, "").await.unwrap();
        assert_eq!(response.status(), status, "{code}");
        let answer = text(response).await;
        assert!(answer.starts_with(start) && answer.ends_with("half done\n"), "{code}: {answer}");
    }
}

#[tokio::test]
async fn the_log_tells_once_why_a_call_was_ended() {
    let bench = Bench::new();
    let (log, _recording) = record();
    let mut late = invocation(full(""));
    late.request.headers_mut().insert("x-timeout", "50ms".parse().unwrap());
    let pool = bench.pool(guests::LOOP, |_| {}).await;
    pool.warm().await.unwrap();
    assert_eq!(pool.invoke(late, u64::MAX).await.unwrap().status(), 408);
    let lines = log.take();
    assert_eq!(lines.matches("function was stopped at its deadline").count(), 1, "{lines}");
    for part in ["function=guest", "call_id=call-1", "limit=50ms"] {
        assert!(lines.contains(part), "{part} is not in {lines}");
    }

    call(&bench.pool(guests::TRAP, |_| {}).await, "").await.unwrap();
    assert_eq!(log.take().matches(": function trapped").count(), 1);

    let flood = bench.pool(guests::FLOOD, |_| {}).await;
    assert_eq!(call(&flood, "").await.unwrap_err().code(), "output-limit");
    assert_eq!(log.take(), "", "who gets the error logs it");
}

#[tokio::test]
async fn a_call_whose_output_finds_no_room_on_disk_can_be_tried_again() {
    let bench = Bench::with(|config| config.spill_budget_bytes = 3 << 20);
    let pool = bench.pool(guests::ECHO, |_| {}).await;
    let sent = vec![b'a'; 2 << 20];
    let unread = call(&pool, sent.clone()).await.unwrap();
    let error = call(&pool, sent.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Overloaded { .. }), "{error:?}");
    assert_eq!(call(&pool, "small").await.unwrap().status(), 200, "what fits in memory needs no disk");
    assert_eq!(text(unread).await.len(), sent.len());
    assert_eq!(call(&pool, sent).await.unwrap().status(), 200);
}

/// Reads for ever.
const READ_ON: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
      (i32.store (i32.const 4) (i32.const 1024))
      (loop $next
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (br $next))))"#;

#[tokio::test]
async fn a_guest_that_calls_the_host_for_ever_lets_others_have_their_turn() {
    let bench = Bench::new();
    let pool = bench.pool(READ_ON, |settings| settings.timeout = Duration::from_millis(300)).await;
    let neighbour = bench.pool(guests::HELLO, |_| {}).await;
    neighbour.warm().await.unwrap();
    let piece = || Ok::<_, BodyError>(http_body::Frame::data(Bytes::from_static(b"again and again")));
    let endless = StreamBody::new(futures_util::stream::repeat_with(piece)).boxed_unsync();
    let reading = tokio::spawn({
        let pool = pool.clone();
        async move { pool.invoke(invocation(endless), u64::MAX).await }
    });
    for _ in 0..3 {
        assert_eq!(call(&neighbour, "").await.unwrap().status(), 200);
    }
    assert!(!reading.is_finished(), "neighbours answer meanwhile");
    assert_eq!(reading.await.unwrap().unwrap().status(), 408);
    bench.at_rest().await;
    assert_eq!(bench.engine.memory_in_use_bytes(), 0);
}

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn record() -> (Log, DefaultGuard) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(Level::WARN)
        .with_writer(move || writer.clone())
        .finish();
    (log, tracing::subscriber::set_default(subscriber))
}
