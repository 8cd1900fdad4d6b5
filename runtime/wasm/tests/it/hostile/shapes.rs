//! Modules that are valid, or nearly so, and of a shape that no toolchain makes.

use std::fmt::Write;

use super::{Case, all_end_as_expected, command, text};

const TOO_MUCH: &str = "rejected compile-limit";

/// The same text again and again.
fn many(count: usize, each: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for index in 0..count {
        write!(text, "{} ", each(index)).unwrap();
    }
    text
}

fn same(count: usize, each: &str) -> String {
    many(count, |_| each.to_owned())
}

fn module(name: &str, parts: &str, endings: &'static str) -> Case {
    text(name, &format!(r#"(module {parts} (func (export "_start")))"#), endings)
}

fn component(name: &str, parts: &str) -> Case {
    text(name, &format!("(component {parts})"), TOO_MUCH)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shapes_beyond_the_limits_are_rejected_before_they_are_compiled() {
    let nested_components = (0..40).fold(String::new(), |inner, _| format!("(component {inner})"));
    let cases = vec![
        module("functions", &same(120_000, "(func)"), TOO_MUCH),
        command("a long body", &same(2_200_000, "nop"), TOO_MUCH),
        command("locals", &format!("(local {})", same(49_000, "i32")), TOO_MUCH),
        command("nested blocks", &format!("{}{}", same(50_000, "block"), same(50_000, "end")), TOO_MUCH),
        command("nested loops", &format!("{}{}", same(50_000, "loop"), same(50_000, "end")), TOO_MUCH),
        command(
            "nested conditions",
            &format!("{}{}", same(50_000, "i32.const 0 if"), same(50_000, "end")),
            TOO_MUCH,
        ),
        module("parameters", &format!("(type (func (param {})))", same(1000, "i32")), TOO_MUCH),
        module("results", &format!("(type (func (result {})))", same(1000, "i32")), TOO_MUCH),
        module("types", &many(120_000, |_| "(type (func))".into()), TOO_MUCH),
        module("exports", &many(110_000, |at| format!(r#"(export "e{at}" (func 0))"#)), TOO_MUCH),
        module("globals", &same(120_000, "(global i32 (i32.const 0))"), TOO_MUCH),
        module(
            "imports",
            &many(11_000, |_| {
                r#"(import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))"#.into()
            }),
            TOO_MUCH,
        ),
        module("tables", &same(200, "(table 1 funcref)"), "rejected compile-limit"),
        module("memories", &same(200, "(memory 1)"), "rejected compile-limit"),
        module("tags", &same(2000, "(tag)"), "rejected compile-limit"),
        module("segments", &format!("(memory 1) {}", same(110_000, r#"(data (i32.const 0) "")"#)), TOO_MUCH),
        module("passive segments", &format!("(memory 1) {}", same(110_000, r#"(data "")"#)), TOO_MUCH),
        module("elements", &format!("(table 1 funcref) (elem func {})", same(1_100_000, "0")), TOO_MUCH),
        module(
            "element segments",
            &format!("(table 1 funcref) {}", same(1_010_000, "(elem func)")),
            TOO_MUCH,
        ),
        component("components in components", &nested_components),
        component("inner modules", &same(600, "(core module)")),
        component("inner components", &same(600, "(component)")),
        component("instances", &format!("(component $c) {}", same(1200, "(instance (instantiate $c))"))),
        component(
            "core instances",
            &format!("(core module $m) {}", same(1200, "(core instance (instantiate $m))")),
        ),
        component("component types", &same(30_000, "(type u8)")),
        component(
            "component aliases",
            &format!(
                r#"(core module $m (func (export "f"))) (core instance $i (instantiate $m)) {}"#,
                same(30_000, r#"(alias core export $i "f" (core func))"#)
            ),
        ),
        component(
            "exports of a component",
            &format!("(type $t u8) {}", many(30_000, |at| format!(r#"(export "e{at}" (type $t))"#))),
        ),
    ];
    all_end_as_expected("shapes", cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shapes_within_the_limits_are_compiled_and_run() {
    let call_all = many(1000, |at| format!("call $f{at}"));
    let cases = vec![
        command("nested blocks", &format!("{}{}", same(4900, "block"), same(4900, "end")), "status 200"),
        command("locals", &format!("(local {})", same(4900, "i32")), "status 200"),
        module("functions", &same(5000, "(func)"), "status 200"),
        module("parameters", &format!("(func (param {}))", same(30, "i64")), "status 200"),
        module("exports", &many(5000, |at| format!(r#"(export "e{at}" (func 0))"#)), "status 200"),
        module("globals", &same(5000, "(global i32 (i32.const 0))"), "status 200"),
        module("tables", &same(4, "(table 1 funcref)"), "status 200"),
        module(
            "segments",
            &format!("(memory 1) {}", same(5000, r#"(data (i32.const 0) "a")"#)),
            "status 200",
        ),
        module(
            "elements",
            &format!("(table 50000 funcref) (elem (i32.const 0) func {})", same(50_000, "0")),
            "status 200",
        ),
        text(
            "calls of a thousand functions",
            &format!(
                r#"(module {} (func (export "_start") {call_all}))"#,
                many(1000, |at| format!("(func $f{at})"))
            ),
            "status 200",
        ),
        text(
            "a large custom section",
            &format!(r#"(module (@custom "x" "{}") (func (export "_start")))"#, "a".repeat(4 << 20)),
            "status 200",
        ),
    ];
    all_end_as_expected("shapes within the limits", cases).await;
}
