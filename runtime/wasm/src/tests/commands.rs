//! Commands: what they are given, and what becomes of their output.

use super::*;

#[tokio::test]
async fn a_command_answers_with_its_output() {
    let bench = Bench::new();
    let pool = bench.pool(guests::ECHO, |_| {}).await;
    let response = call(&pool, "some text").await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(response.headers()["content-length"], "9");
    assert!(response.headers().contains_key("x-duration-seconds"));
    assert_eq!(text(response).await, "some text");

    let mut invocation = invocation(full("{}"));
    invocation.request.headers_mut().insert("content-type", "application/json".parse().unwrap());
    let response = pool.invoke(invocation, u64::MAX).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json", "the request's own type");
}

/// Reads into a buffer of 16 MiB, and answers with the length of what came or with the error's number.
const WIDE_READ: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 512)
    (func (export "_start")
      (i32.store (i32.const 0) (i32.const 1024))
      (i32.store (i32.const 4) (i32.const 16777216))
      (i32.store8 (i32.const 16) (i32.add (i32.const 48) (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))))
      (i32.store (i32.const 0) (i32.const 16))
      (i32.store (i32.const 4) (i32.const 1))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

#[tokio::test]
async fn a_command_may_read_into_as_large_a_buffer_as_its_memory_has() {
    let bench = Bench::new();
    let pool = bench.pool(WIDE_READ, |_| {}).await;
    assert_eq!(text(call(&pool, "abc").await.unwrap()).await, "0", "no error");
}

#[tokio::test]
async fn a_command_component_answers_with_its_output() {
    let bench = Bench::new();
    let pool = bench.pool(guests::CLI_RUN, |_| {}).await;
    assert_eq!(pool.module().world, World::Command);
    let response = call(&pool, "").await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!text(response).await.is_empty());

    let failing = bench.pool(guests::CLI_FAIL, |_| {}).await;
    let response = call(&failing, "").await.unwrap();
    assert_eq!(response.status(), 500);
    assert!(text(response).await.starts_with("exit status 1\n"));
}

#[tokio::test]
async fn a_large_output_lies_on_disk_up_to_its_limit() {
    let bench = Bench::new();
    let pool = bench.pool(guests::ECHO, |_| {}).await;
    let sent: Bytes = (0..3_u32 << 18).flat_map(u32::to_le_bytes).collect::<Vec<u8>>().into();
    let response = call(&pool, sent.clone()).await.unwrap();
    let received = response.into_body().collect().await.unwrap().to_bytes();
    assert!(received == sent, "3 MiB come back as they were");

    let error = call(&pool, vec![b'a'; 5 << 20]).await.unwrap_err();
    assert_eq!(error.code(), "output-limit");
}

#[tokio::test]
async fn a_command_sees_the_request_and_its_own_environment_only() {
    let bench = Bench::new();
    let pool = bench.pool(guests::ENV, |_| {}).await;
    let env = text(call(&pool, "abc").await.unwrap()).await;
    for line in [
        "GREETING=hello",
        "Http_Method=POST",
        "Http_Path=/path",
        "Http_Query=q=1",
        "Http_Host=fawn.test",
        "Http_Content_Length=3",
    ] {
        assert!(env.lines().any(|found| found == line), "{line} in {env}");
    }
    assert!(env.lines().all(|line| line.starts_with("Http_") || line == "GREETING=hello"), "{env}");
    let pool = bench.pool(guests::ENV, |settings| settings.stdio.cgi_headers = false).await;
    assert_eq!(text(call(&pool, "").await.unwrap()).await.trim(), "GREETING=hello");
    let pool = bench.pool(guests::ARGS, |_| {}).await;
    assert_eq!(text(call(&pool, "").await.unwrap()).await, "guest\nfirst\n");
}

#[tokio::test]
async fn exit_traps_and_deadlines_answer_as_the_watchdog_does() {
    let bench = Bench::new();
    let pool = bench.pool(guests::EXIT_CODE, |_| {}).await;
    let response = call(&pool, "").await.unwrap();
    assert_eq!(response.status(), 500);
    assert!(!response.headers().contains_key("x-duration-seconds"));
    assert!(text(response).await.starts_with("exit status 3\n"));

    let pool = bench.pool(guests::TRAP, |_| {}).await;
    let response = call(&pool, "").await.unwrap();
    assert_eq!(response.status(), 500);
    let answer = text(response).await;
    assert!(answer.starts_with("signal: aborted\n") && !answer.contains("wasm"), "{answer}");

    let pool = bench.pool(guests::LOOP, |settings| settings.timeout = Duration::from_millis(100)).await;
    let response = call(&pool, "").await.unwrap();
    assert_eq!(response.status(), 408);
    assert_eq!(text(response).await, "Killed process.\n");

    let pool = bench.pool(guests::RECURSION, |_| {}).await;
    assert_eq!(call(&pool, "").await.unwrap().status(), 500, "the stack ends before the host's");
}

#[tokio::test]
async fn standard_error_is_in_the_body_or_in_the_log() {
    let bench = Bench::new();
    let combined = text(call(&bench.pool(guests::BOTH_OUTPUTS, |_| {}).await, "").await.unwrap()).await;
    let separate = bench.pool(guests::BOTH_OUTPUTS, |settings| settings.stdio.combine_output = false).await;
    let separate = text(call(&separate, "").await.unwrap()).await;
    assert!(separate.len() < combined.len() && !separate.is_empty(), "{combined:?} {separate:?}");
}

#[tokio::test]
async fn a_flood_of_output_ends_at_the_limit() {
    let bench = Bench::new();
    for guest in [guests::FLOOD, guests::FLOOD_STDERR] {
        let pool = bench.pool(guest, |_| {}).await;
        assert_eq!(call(&pool, "").await.unwrap_err().code(), "output-limit");
    }
    // What goes to the log is dropped beyond a call's share, and the guest runs into its deadline.
    let pool = bench
        .pool(guests::FLOOD_STDERR, |settings| {
            settings.stdio.combine_output = false;
            settings.timeout = Duration::from_millis(100);
        })
        .await;
    assert_eq!(call(&pool, "").await.unwrap().status(), 408);
}
