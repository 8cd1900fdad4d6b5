//! Guests that start well and then do what they can.

use runtime_testing::guests::{
    BOTH_OUTPUTS, EXIT_CODE, FILL, FLOOD, FLOOD_STDERR, GROW, HTTP_AROUND, HTTP_ENDLESS, HTTP_ERROR,
    HTTP_HALF, HTTP_HOARDER, HTTP_HUGE_HEADER, HTTP_ILLEGAL_HEADERS, HTTP_LATE_LOOP, HTTP_LATE_TRAP,
    HTTP_LENGTH_LIE, HTTP_LOOP, HTTP_MANY_HEADERS, HTTP_SILENT, HTTP_TAIL_LOOP, HTTP_TAIL_TRAP, HTTP_TRAP,
    HTTP_TWICE, LOOP, RECURSION, SLEEP, TMP, TRAP,
};

use super::{all_end_as_expected, command, text};
use crate::bench::{Bench, call, text as body_text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_stopped() {
    let (late, trapped) = ("status 408", "status 500");
    let mut cases = vec![
        text("a loop", LOOP, late),
        text("a loop of fills", FILL, late),
        text("growth", GROW, "status 200|status 408"),
        text("recursion", RECURSION, trapped),
        text("a trap", TRAP, trapped),
        text("an exit", EXIT_CODE, trapped),
        text("two outputs", BOTH_OUTPUTS, "status 200"),
        text("a flood", FLOOD, "failed output-limit|status 408"),
        text("a flood of errors", FLOOD_STDERR, "failed output-limit|status 408"),
        text("a long sleep", SLEEP, late),
        text("a file", TMP, "status 200"),
    ];
    for (name, body, ending) in [
        ("unreachable", "unreachable", trapped),
        ("a division by zero", "(drop (i32.div_u (i32.const 1) (i32.const 0)))", trapped),
        ("an overflow", "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))", trapped),
        ("a conversion of no number", "(drop (i32.trunc_f32_s (f32.const nan)))", trapped),
        ("a load beyond the end", "(drop (i32.load (i32.const 65533)))", trapped),
        ("a load at minus one", "(drop (i32.load (i32.const -1)))", trapped),
        ("a load with the largest offset", "(drop (i32.load offset=4294967295 (i32.const -1)))", trapped),
        ("a store beyond the end", "(i64.store (i32.const 65530) (i64.const 1))", trapped),
        ("a vector beyond the end", "(drop (v128.load (i32.const 65521)))", trapped),
        ("a fill beyond the end", "(memory.fill (i32.const 1) (i32.const 0) (i32.const 65536))", trapped),
        ("a copy beyond the end", "(memory.copy (i32.const 0) (i32.const 1) (i32.const -1))", trapped),
        ("growth by all there is", "(drop (memory.grow (i32.const -1)))", "status 200"),
        ("a loop that grows", "loop (drop (memory.grow (i32.const 1))) br 0 end", late),
        ("a loop that grows by nothing", "loop (drop (memory.grow (i32.const 0))) br 0 end", late),
        (
            "a loop that copies",
            "(drop (memory.grow (i32.const 1900))) loop (memory.copy (i32.const 0) (i32.const 65536) (i32.const 124000000)) br 0 end",
            late,
        ),
        ("a loop of branches", "loop i32.const 1 br_if 0 end", late),
        (
            "a loop that divides",
            "(local i64) loop (local.set 0 (i64.div_u (i64.const -1) (i64.const 3))) br 0 end",
            late,
        ),
    ] {
        cases.push(command(name, body, ending));
    }
    for (name, parts, body, ending) in [
        ("a null call", "(table 1 funcref)", "(call_indirect (i32.const 0))", trapped),
        ("a call outside a table", "(table 1 funcref)", "(call_indirect (i32.const -1))", trapped),
        (
            "a call of another type",
            "(table 1 funcref) (func $f (param i64)) (elem (i32.const 0) func $f)",
            "(call_indirect (i32.const 0))",
            trapped,
        ),
        (
            "a loop that fills a table",
            "(table $t 90000 funcref)",
            "loop (table.fill $t (i32.const 0) (ref.null func) (i32.const 90000)) br 0 end",
            late,
        ),
        (
            "a loop that grows a table",
            "(table $t 1 funcref)",
            "loop (drop (table.grow $t (ref.null func) (i32.const 1000))) br 0 end",
            late,
        ),
        ("two functions that call each other", "(func $a call $b) (func $b call $a)", "call $a", trapped),
        (
            "recursion through a table",
            "(table 1 funcref) (func $f (call_indirect (i32.const 0))) (elem (i32.const 0) func $f)",
            "call $f",
            trapped,
        ),
        (
            "recursion with large frames",
            "(func $f (param v128 v128 v128 v128 v128 v128 v128 v128) (call $f (local.get 7) (local.get 6) (local.get 5) (local.get 4) (local.get 3) (local.get 2) (local.get 1) (local.get 0)))",
            "(call $f (v128.const i64x2 0 0) (v128.const i64x2 0 0) (v128.const i64x2 0 0) (v128.const i64x2 0 0) (v128.const i64x2 0 0) (v128.const i64x2 0 0) (v128.const i64x2 0 0) (v128.const i64x2 0 0))",
            trapped,
        ),
        ("tail calls without end", "(func $f return_call $f)", "call $f", late),
    ] {
        let wat = format!(r#"(module (memory (export "memory") 1) {parts} (func (export "_start") {body}))"#);
        cases.push(text(name, &wat, ending));
    }
    all_end_as_expected("commands", cases).await;
}

/// A component that answers after it set these headers, each an offset, a length, an offset and a length.
fn with_headers(data: &str, append: &str) -> String {
    let [begin, end] = HTTP_AROUND;
    format!(
        r#"{begin}
        (core module $Main
          (import "host" "memory" (memory 2))
          (import "host" "append" (func $append (param i32 i32 i32 i32 i32 i32)))
          (import "host" "response" (func $response (param i32) (result i32)))
          (import "answer" "text" (func $text (result i32)))
          (import "answer" "send" (func $send (param i32 i32) (result i32)))
          (import "answer" "open" (func $open (param i32) (result i32)))
          (import "answer" "piece" (func $piece (param i32)))
          (import "answer" "end" (func $end (param i32 i32)))
          (data (i32.const 128) "{data}")
          (func (export "handle") (param $request i32) (param $out i32)
            (local $headers i32) (local $body i32) (local $stream i32) (local $index i32)
            (local.set $headers (call $text))
            {append}
            (local.set $body (call $send (local.get $out) (call $response (local.get $headers))))
            (local.set $stream (call $open (local.get $body)))
            (call $piece (local.get $stream))
            (call $end (local.get $stream) (local.get $body))))
        {end}"#
    )
}

fn append(name: (u32, usize), value: (u32, usize)) -> String {
    format!(
        "(call $append (local.get $headers) (i32.const {}) (i32.const {}) (i32.const {}) (i32.const {}) (i32.const 0))",
        name.0, name.1, value.0, value.1
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn components_are_stopped_and_their_answers_checked() {
    let none = "failed no-response|broken off";
    let mut cases = vec![
        text("a loop", HTTP_LOOP, "status 504"),
        text("a trap", HTTP_TRAP, "failed guest-trap"),
        text("no answer", HTTP_SILENT, "failed no-response"),
        text("two answers", HTTP_TWICE, "failed guest-trap|broken off"),
        text("an error", HTTP_ERROR, "failed guest-error"),
        text("half an answer", HTTP_HALF, none),
        text("a late trap", HTTP_LATE_TRAP, "failed guest-trap|broken off"),
        text("a late loop", HTTP_LATE_LOOP, "broken off"),
        text("an answer without end", HTTP_ENDLESS, "broken off"),
        text("resources without end", HTTP_HOARDER, "failed guest-trap|status 504"),
        text("a header of 120 KiB", HTTP_HUGE_HEADER, "status 200|failed guest-trap"),
        text("headers without end", HTTP_MANY_HEADERS, "failed bad-response|failed guest-trap"),
        text("illegal headers", HTTP_ILLEGAL_HEADERS, "status 200"),
        text("a length that is a lie", HTTP_LENGTH_LIE, "failed guest-trap|failed no-response|broken off"),
        text("a loop after the answer", HTTP_TAIL_LOOP, "status 200"),
        text("a trap after the answer", HTTP_TAIL_TRAP, "status 200|failed guest-trap|broken off"),
    ];
    let at = with_length;
    let broken = "failed guest-trap|broken off|failed no-response";
    for (data, ending) in [("6", "status 200"), ("5", broken), ("18446744073709551615", broken)] {
        cases.push(text(format!("content-length {data:?}"), &at(data), ending));
    }
    let loops = |count: u32| {
        let one = append((128, 3), (131, 1));
        format!(
            "(loop $again {one} (local.set $index (i32.add (local.get $index) (i32.const 1)))
               (br_if $again (i32.lt_u (local.get $index) (i32.const {count}))))"
        )
    };
    cases.push(text("99 headers more", &with_headers("x-av", &loops(99)), "status 200"));
    cases.push(text("100 headers more", &with_headers("x-av", &loops(100)), "failed bad-response"));
    all_end_as_expected("components", cases).await;
}

/// A component that wants this for its content-length, and writes six bytes.
fn with_length(length: &str) -> String {
    with_headers(&format!("content-length{length}"), &append((128, 14), (142, length.len())))
}

#[tokio::test]
async fn a_length_that_could_be_read_in_two_ways_is_never_sent() {
    let bench = Bench::with_slots(2);
    let twice = [append((128, 14), (142, 1)), append((128, 14), (143, 1))].concat();
    let mut guests = vec![("two lengths", with_headers("content-length65", &twice), Some("6"))];
    for length in ["+6", "-6", "0x6", "6, 6", " 6", "6 ", "", "18446744073709551616"] {
        guests.push((length, with_length(length), None));
    }
    for (what, guest, sent) in guests {
        let pool = bench.pool(&guest).await;
        let answer = call(&pool, "").await.unwrap();
        let lengths: Vec<_> = answer.headers().get_all("content-length").iter().collect();
        assert_eq!(lengths, Vec::from_iter(sent), "{what:?}");
        assert_eq!(body_text(answer).await, "piece\n", "{what:?}");
    }
}
