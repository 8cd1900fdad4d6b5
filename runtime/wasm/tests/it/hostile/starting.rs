//! Modules that cannot start, or whose start does not end: known before any is loaded where calls are served.

use runtime_testing::guests::{BIG_MEMORY, BIG_TABLE, START_LOOP, START_TRAP};

use super::{Case, all_end_as_expected, text};

/// A module with this start function.
fn starts(name: &str, body: &str, endings: &'static str) -> Case {
    let wat = format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 1) (table 10 funcref) (data (i32.const 16) "\80\00\00\00\40")
          (func $start {body}) (start $start) (func (export "_start")))"#
    );
    text(name, &wat, endings)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_cannot_start_is_rejected_by_its_trial() {
    let cannot = "rejected cannot-start";
    let late = "rejected init-timeout";
    let large = "rejected memory-limit";
    let module = |name: &str, parts: &str, endings: &'static str| {
        text(name, &format!(r#"(module {parts} (func (export "_start")))"#), endings)
    };
    let cases = vec![
        text("a memory above the default limit", BIG_MEMORY, large),
        module(
            "all the memory that there is",
            "(memory 65536)",
            "rejected memory-limit|rejected malformed-module",
        ),
        module(
            "a page more than any function has",
            "(memory 16385)",
            "rejected memory-limit|rejected malformed-module",
        ),
        module("a gigabyte", "(memory 16384)", large),
        text("a table of ten million", BIG_TABLE, "rejected malformed-module"),
        module("a table of four billion", "(table 4294967295 funcref)", "rejected malformed-module"),
        module("data outside its memory", r#"(memory 1) (data (i32.const 65536) "a")"#, cannot),
        module("data at minus one", r#"(memory 1) (data (i32.const -1) "a")"#, cannot),
        module(
            "elements outside their table",
            "(table 1 funcref) (func) (elem (i32.const 1) func 0)",
            cannot,
        ),
        text("a loop", START_LOOP, late),
        text("a trap", START_TRAP, cannot),
        starts("recursion", "call $start", cannot),
        starts(
            "a loop that grows",
            "loop (drop (memory.grow (i32.const 1))) br 0 end",
            "rejected init-timeout",
        ),
        starts(
            "a loop that fills",
            "loop (drop (memory.grow (i32.const 1000))) (memory.fill (i32.const 0) (i32.const 1) (i32.mul (memory.size) (i32.const 65535))) br 0 end",
            "rejected init-timeout|rejected cannot-start",
        ),
        starts(
            "a loop that prints",
            "loop (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 8))) br 0 end",
            "rejected init-timeout|rejected cannot-start",
        ),
        starts(
            "a long sleep",
            "(i64.store (i32.const 64) (i64.const 7)) (i32.store8 (i32.const 72) (i32.const 0)) (i64.store (i32.const 88) (i64.const 0x7fffffffffffffff)) (drop (call $poll (i32.const 64) (i32.const 256) (i32.const 1) (i32.const 8)))",
            "rejected init-timeout|rejected cannot-start|status 200",
        ),
        starts("an exit", "(call $exit (i32.const 0))", cannot),
        starts("a null call", "(call_indirect (i32.const 0))", cannot),
    ];
    all_end_as_expected("starts", cases).await;
}
