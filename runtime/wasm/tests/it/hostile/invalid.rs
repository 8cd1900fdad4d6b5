//! What is no module, or no valid one.

use runtime_testing::guests::{ECHO, HELLO, HELLO_HTTP, MEMORY64, NO_START, UNKNOWN_IMPORT};

use super::{Case, all_end_as_expected, binary, text};

const HEADER: &[u8] = b"\0asm\x01\0\0\0";

/// A module of one type `() -> ()`, one function of it exported as `_start`, and this code section.
fn with_code(code: &[u8]) -> Vec<u8> {
    let head: &[&[u8]] =
        &[HEADER, b"\x01\x04\x01\x60\0\0", b"\x03\x02\x01\0", b"\x07\x0a\x01\x06_start\0\0", code];
    head.concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_module_is_rejected() {
    let mut cases: Vec<Case> = Vec::new();
    for (name, bytes) in [
        ("nothing", &b""[..]),
        ("text", b"hello world"),
        ("a program", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"),
        ("machine code", b"\x7fELF.....................wasmtime.engine"),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0"),
        ("zstd", b"\x28\xb5\x2f\xfd\0\0\0\0"),
        ("half a magic number", b"\0as"),
        ("half a header", b"\0asm\x01\0"),
        ("a later version", b"\0asm\x02\0\0\0"),
        ("no known layer", b"\0asm\x0d\0\x07\0"),
        ("the text format", b"(module (func (export \"_start\")))"),
    ] {
        cases.push(binary(name, bytes, "rejected not-wasm"));
    }
    for (name, rest) in [
        ("a section beyond the end", &b"\x01\xff\xff\xff\xff\x0f"[..]),
        ("a section id that nobody knows", b"\x3f\x01\0"),
        ("a length of ten bytes", b"\x01\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
        ("four billion types", b"\x01\x05\xff\xff\xff\xff\x0f"),
        ("four billion functions", b"\x03\x05\xff\xff\xff\xff\x0f"),
        ("four billion imports", b"\x02\x05\xff\xff\xff\xff\x0f"),
        ("four billion exports", b"\x07\x05\xff\xff\xff\xff\x0f"),
        ("four billion segments", b"\x0b\x05\xff\xff\xff\xff\x0f"),
        ("sections out of order", b"\x03\x01\0\x01\x01\0"),
        ("two type sections", b"\x01\x01\0\x01\x01\0"),
        ("functions without code", b"\x01\x04\x01\x60\0\0\x03\x02\x01\0"),
        ("a name that is not UTF-8", b"\x02\x0a\x01\x02\xff\xfe\x02ab\0\0\0\0"),
        ("a custom section without a name", b"\0\0"),
        ("bytes after the end", b"\xde\xad\xbe\xef"),
    ] {
        cases.push(binary(
            name,
            [HEADER, rest].concat(),
            "rejected malformed-module|rejected no-entry-point|rejected compile-limit",
        ));
    }
    for (name, code) in [
        ("an unknown instruction", &b"\x0a\x05\x01\x03\0\xff\x0b"[..]),
        ("a body without an end", b"\x0a\x04\x01\x02\0\x01"),
        ("a body that is longer than its section", b"\x0a\x04\x01\x7f\0\x0b"),
        ("more bodies than functions", b"\x0a\x07\x02\x02\0\x0b\x02\0\x0b"),
        (
            "four billion locals, twice",
            b"\x0a\x10\x01\x0e\x02\xff\xff\xff\xff\x0f\x7f\xff\xff\xff\xff\x0f\x7f\x0b",
        ),
        ("an end too many", b"\x0a\x05\x01\x03\0\x0b\x0b"),
        ("an else without an if", b"\x0a\x05\x01\x03\0\x05\x0b"),
    ] {
        cases.push(binary(name, with_code(code), "rejected malformed-module|rejected compile-limit"));
    }
    for (guest, wat) in [("a command", HELLO), ("a component", HELLO_HTTP), ("another command", ECHO)] {
        let whole = wat::parse_str(wat).unwrap();
        for tenth in 1..10 {
            let cut = &whole[..8 + (whole.len() - 8) * tenth / 10];
            let endings = "rejected malformed-module|rejected no-entry-point";
            cases.push(binary(format!("{tenth}/10 of {guest}"), cut, endings));
        }
    }
    all_end_as_expected("no modules", cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_is_not_valid_or_not_for_us_is_rejected() {
    let malformed = [
        ("a wrong type", "i64.const 1 i32.eqz drop"),
        ("an empty stack", "i32.add drop"),
        ("a value left over", "i32.const 1"),
        ("an unknown function", "call 99"),
        ("an unknown local", "local.get 99 drop"),
        ("an unknown global", "global.get 99 drop"),
        ("an unknown table", "i32.const 0 table.get 99 drop"),
        ("an unknown label", "br 99"),
        ("an unknown segment", "i32.const 0 i32.const 0 i32.const 0 memory.init 99"),
        ("too much alignment", "i32.const 0 i32.load align=16 drop"),
        ("a second memory", "i32.const 0 i32.load 1 drop"),
        ("atomic waiting", "i32.const 0 i32.const 0 i64.const -1 memory.atomic.wait32 drop"),
    ];
    let mut cases: Vec<Case> = malformed
        .iter()
        .map(|(name, body)| {
            let wat = format!(r#"(module (memory (export "memory") 1) (func (export "_start") {body}))"#);
            text(*name, &wat, "rejected malformed-module")
        })
        .collect();
    let bad = "rejected malformed-module";
    let no_entry = "rejected no-entry-point";
    for (name, wat, endings) in [
        ("64-bit memory", MEMORY64, bad),
        ("shared memory", r#"(module (memory 1 2 shared) (func (export "_start")))"#, bad),
        ("two memories", r#"(module (memory 1) (memory 1) (func (export "_start")))"#, bad),
        ("pages of one byte", r#"(module (memory 1 (pagesize 1)) (func (export "_start")))"#, bad),
        (
            "five tables",
            r#"(module (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (func (export "_start")))"#,
            bad,
        ),
        ("data without a memory", r#"(module (func (export "_start")) (data (i32.const 0) "a"))"#, bad),
        ("one name twice", r#"(module (func (export "_start")) (func (export "_start")))"#, bad),
        (
            "a start function with parameters",
            r#"(module (func $s (param i32)) (start $s) (func (export "_start")))"#,
            bad,
        ),
        (
            "a constant that computes",
            r#"(module (global i32 (i32.clz (i32.const 1))) (func (export "_start")))"#,
            bad,
        ),
        ("no start", NO_START, no_entry),
        ("a start that is a memory", r#"(module (memory (export "_start") 1))"#, no_entry),
        ("a start that returns", r#"(module (func (export "_start") (result i32) (i32.const 1)))"#, no_entry),
        ("a reactor", r#"(module (func (export "_initialize")))"#, no_entry),
        ("an empty component", "(component)", no_entry),
        ("an unknown import", UNKNOWN_IMPORT, "rejected unknown-import"),
        (
            "a function of WASI that there is not",
            r#"(module (import "wasi_snapshot_preview1" "fd_haha" (func)) (func (export "_start")))"#,
            no_entry,
        ),
        (
            "a function of WASI with other types",
            r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i64))) (func (export "_start")))"#,
            no_entry,
        ),
        (
            "a memory from the host",
            r#"(module (import "wasi_snapshot_preview1" "memory" (memory 1)) (func (export "_start")))"#,
            no_entry,
        ),
        (
            "an interface of the host with other types",
            r#"(component
            (import "wasi:cli/exit@0.2.0" (instance (export "exit" (func (param "status" string)))))
            (core module $m (func (export "run") (result i32) (i32.const 0)))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $r (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $r)))"#,
            no_entry,
        ),
    ] {
        cases.push(text(name, wat, endings));
    }
    all_end_as_expected("invalid modules", cases).await;
}
