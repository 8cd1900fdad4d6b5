//! Small modules that a compiler needs long for: what the shape lets pass, the limits of the process end.

use std::fmt::Write;

use super::{all_end_as_expected, text};

/// Compiled on a fast machine; on a slow one the limit on processor time ends it.
const EITHER: &str = "status 200|status 408|status 500|rejected compile-limit";

fn repeated(count: usize, each: &str) -> String {
    format!("{each} ").repeat(count)
}

/// Blocks that each set some of many locals, so that all of them meet where blocks end.
fn locals_and_blocks(locals: usize, blocks: usize) -> String {
    let mut body = format!("(local {})", repeated(locals, "i32"));
    for block in 0..blocks {
        let local = block % locals;
        write!(
            body,
            "block local.get 0 br_if 0 local.get 0 i32.const {block} i32.add local.set {local} end "
        )
        .unwrap();
    }
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_go_off_in_the_child() {
    let start = |parts: &str, body: &str| format!(r#"(module {parts} (func (export "_start") {body}))"#);
    let labels = repeated(30_000, "0 1");
    let cases = [
        (
            "a function that adds",
            start(
                "",
                &format!("(local i32) {}", repeated(100_000, "local.get 0 i32.const 1 i32.add local.set 0")),
            ),
        ),
        ("locals that meet", start("", &locals_and_blocks(1000, 5000))),
        ("more locals that meet", start("", &locals_and_blocks(4900, 30_000))),
        ("reads of a table", start("(table 10 funcref)", &repeated(100_000, "i32.const 1 table.get drop"))),
        (
            "indirect calls",
            start(
                "(type $t (func)) (table 10 funcref)",
                &repeated(100_000, "i32.const 1 call_indirect (type $t)"),
            ),
        ),
        ("a table of branches", start("", &format!("block block i32.const 0 br_table {labels} 0 end end"))),
        ("loads", start("(memory 1)", &repeated(10_000, "i32.const 0 i64.load drop"))),
        (
            "bulk operations",
            start("(memory 1)", &repeated(3_000, "i32.const 0 i32.const 0 i32.const 0 memory.fill")),
        ),
        ("functions that are empty", start(&repeated(90_000, "(func)"), "")),
        ("functions with loops", start(&repeated(3_000, "(func loop br 0 end)"), "")),
        (
            "vectors",
            start("", &repeated(3_000, "v128.const i64x2 1 2 v128.const i64x2 3 4 i8x16.swizzle drop")),
        ),
        (
            "many results",
            start(
                &format!("(func $r (result {}) {})", repeated(30, "i32"), repeated(30, "i32.const 0")),
                &repeated(500, &format!("call $r {}", repeated(30, "drop"))),
            ),
        ),
    ];
    let cases = cases.map(|(name, wat)| text(name, &wat, EITHER)).into();
    all_end_as_expected("bombs", cases).await;
}
