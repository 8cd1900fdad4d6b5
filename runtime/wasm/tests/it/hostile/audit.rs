//! What a guest finds in its world: what was declared, and nothing else.

use std::fmt::Write as _;

use runtime_api::full;
use runtime_egress::Policy;
use runtime_wasm::Settings;

use self::{
    offered::{EXPORTED, FOREIGN, INTERFACES, PREVIEW1, UNSTABLE},
    wit::{Interfaces, Wit},
};
use crate::bench::{Bench, invocation, text};

mod offered;
mod wit;

/// Imports everything, as a toolchain would.
const EVERYTHING: &str = include_str!("audit/everything.wat");

/// Asks for all that may lead out of the sandbox, and prints what it got.
const AUDITOR: &str = include_str!("audit/auditor.wat");

fn listed(interfaces: &[(&str, &str)]) -> Interfaces {
    let words = |names: &str| names.split_whitespace().map(str::to_owned).collect();
    interfaces.iter().map(|(interface, names)| ((*interface).to_owned(), words(names))).collect()
}

/// What the component that imports everything imports, read from its text: each interface has one line.
fn imported() -> Interfaces {
    let interfaces = EVERYTHING.lines().filter_map(|line| line.trim_start().strip_prefix("(type $ty-"));
    let names = |line: &str| {
        let exports = line.split("(export \"").skip(1).filter_map(|export| {
            let (name, kind) = export.split_once('"')?;
            let counts = kind.starts_with(" (func") || kind.starts_with(" (type (sub resource))");
            counts.then(|| name.rsplit(']').next().unwrap().to_owned())
        });
        // A constructor is called as its resource.
        exports.collect()
    };
    interfaces.map(|line| (line.split('@').next().unwrap().to_owned(), names(line))).collect()
}

/// A command component that imports this.
fn importing(imports: &str) -> Vec<u8> {
    let wat = format!(
        r#"(component
          {imports}
          (core module $m (func (export "run") (result i32) (i32.const 0)))
          (core instance $i (instantiate $m))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $r (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $r)))"#
    );
    wat::parse_str(wat).unwrap()
}

async fn refusal(bench: &Bench, what: &str, wasm: &[u8]) -> String {
    let error = bench.compile(wasm).await.err().unwrap_or_else(|| panic!("{what} is offered"));
    error.code().to_owned()
}

#[tokio::test]
async fn a_component_may_import_what_is_listed_and_nothing_else() {
    let Wit { mut stable, unstable } = Wit::of_wasmtime();
    for (interface, _) in EXPORTED {
        stable.remove(interface).unwrap();
    }
    let listed_names = listed(&INTERFACES);
    for (what, found) in [("Wasmtime has", &stable), ("everything imports", &imported())] {
        for interface in found.keys().chain(listed_names.keys()) {
            let names = |all: &Interfaces| all.get(interface).cloned().unwrap_or_default();
            let (found, listed) = (names(found), names(&listed_names));
            let differ: Vec<_> = found.symmetric_difference(&listed).collect();
            assert!(differ.is_empty(), "{what} otherwise in {interface}: look at {differ:?}");
        }
    }
    assert_eq!(unstable, listed(&UNSTABLE));

    let bench = Bench::with_slots(2);
    bench.compile(&wat::parse_str(EVERYTHING).unwrap()).await.unwrap();
    // A component names the version that it was built with.
    for version in ["0.2.0", "0.2.3"] {
        let imports: String = listed_names
            .keys()
            .map(|interface| format!(r#"(import "{interface}@{version}" (instance))"#))
            .collect();
        bench.compile(&importing(&imports)).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_not_listed_is_refused() {
    let bench = Bench::with_slots(2);
    for interface in FOREIGN {
        let code =
            refusal(&bench, interface, &importing(&format!(r#"(import "{interface}" (instance))"#))).await;
        assert_eq!(code, "unknown-import", "{interface}");
    }
    for (interface, names) in EXPORTED.into_iter().chain(UNSTABLE) {
        for name in names.split(' ') {
            // Without parameters: what is not there has none to compare.
            let export = if let Some((resource, _)) = name.split_once('.') {
                format!(
                    r#"(export "{resource}" (type $r (sub resource)))
                    (export "[method]{name}" (func (param "self" (borrow $r))))"#
                )
            } else {
                format!(r#"(export "{name}" (func))"#)
            };
            let wasm = importing(&format!(r#"(import "{interface}@0.2.12" (instance {export}))"#));
            assert_eq!(refusal(&bench, name, &wasm).await, "no-entry-point", "{interface} {name}");
        }
    }
}

/// What every function of the audits is given.
fn given(settings: &mut Settings) {
    settings.env = vec![("ONE".into(), "1".into()), ("TWO".into(), "2".into())];
    settings.args = vec!["guest".into(), "a".into(), "b".into()];
    settings.stdio.cgi_headers = false;
    settings.limits.egress = Policy::parse("public,127.0.0.1,localhost").unwrap();
}

#[tokio::test]
async fn what_a_component_imports_leads_nowhere() {
    let bench = Bench::with_slots(2);
    let pool = bench.pool_with(AUDITOR, given).await;
    let answer = pool.invoke(invocation(full("")), u64::MAX).await.unwrap();
    let told = [
        // Two variables and three arguments, as declared; no working directory, and no files.
        "2300",
        // No terminal for any stream.
        "000",
        // Of a name, that nobody will ever resolve it ('D' is the twentieth error); of each socket, that access is denied.
        "1D11111111",
        // Clocks that go on in steps of 100 µs.
        "1010",
    ];
    assert_eq!(text(answer).await, told.concat());
    bench.at_rest("audited", &[&pool]).await;
}

/// What a command asks of preview 1, and the error that it gets (WASI preview 1, `errno`).
const ASKED: [(&str, &[u64], u8); 25] = [
    ("fd_prestat_get", &[3, 0], BADF),
    ("fd_prestat_dir_name", &[3, 0, 8], BADF),
    ("fd_read", &[3, 0, 0, 8], BADF),
    ("fd_write", &[3, 0, 0, 8], BADF),
    ("fd_readdir", &[3, 0, 8, 0, 16], BADF),
    ("path_open", &[3, 0, 1024, 1, 0, 0, 0, 0, 8], BADF),
    ("path_open", &[0, 0, 1024, 1, 9, u64::MAX >> 34, u64::MAX >> 34, 0, 8], BADF),
    ("path_filestat_get", &[3, 0, 1024, 1, 0], BADF),
    ("path_readlink", &[3, 1024, 1, 0, 8, 16], BADF),
    ("path_create_directory", &[3, 1024, 1], BADF),
    ("path_remove_directory", &[3, 1024, 1], BADF),
    ("path_unlink_file", &[3, 1024, 1], BADF),
    ("path_rename", &[3, 1024, 1, 3, 1024, 1], BADF),
    ("path_link", &[3, 0, 1024, 1, 3, 1024, 1], BADF),
    ("path_symlink", &[1024, 1, 3, 1024, 1], BADF),
    ("sock_accept", &[3, 0, 8], BADF),
    ("sock_accept", &[0, 0, 8], NOTSOCK),
    ("sock_recv", &[0, 0, 0, 0, 8, 16], NOTSOCK),
    ("sock_send", &[1, 0, 0, 0, 8], NOTSOCK),
    ("sock_shutdown", &[1, 3], NOTSOCK),
    ("proc_raise", &[9], NOTSUP),
    ("clock_time_get", &[2, 0, 0], BADF),
    ("clock_time_get", &[3, 0, 0], BADF),
    ("clock_time_get", &[0, 0, 0], 0),
    ("clock_time_get", &[1, 0, 8], 0),
];

const BADF: u8 = 8;
const NOTSOCK: u8 = 57;
const NOTSUP: u8 = 58;

/// A module that imports all of preview 1, asks for all that may lead out of the sandbox, and prints what it got.
fn preview1_auditor() -> String {
    let mut wat = String::from("(module\n");
    for (name, params) in PREVIEW1 {
        let params = params.chars().map(|param| if param == 'i' { " i32" } else { " i64" });
        let (params, result) =
            (params.collect::<String>(), if name == "proc_exit" { "" } else { "(result i32)" });
        let kind = format!("(param{params}) {result}");
        writeln!(wat, r#"(import "wasi_snapshot_preview1" "{name}" (func ${name} {kind}))"#).unwrap();
    }
    wat += r#"(memory (export "memory") 1)
        (global $at (mut i32) (i32.const 2048))
        (func $note (param $number i32)
          (i32.store8 (global.get $at) (i32.add (i32.const 48) (local.get $number)))
          (global.set $at (i32.add (global.get $at) (i32.const 1))))
        (func (export "_start") (local $fd i32)
          (drop (call $environ_sizes_get (i32.const 0) (i32.const 8))) (call $note (i32.load (i32.const 0)))
          (drop (call $args_sizes_get (i32.const 0) (i32.const 8))) (call $note (i32.load (i32.const 0)))
          ;; How many descriptors are open.
          (i64.store (i32.const 8) (i64.const 0))
          (loop $next
            (if (i32.eqz (call $fd_fdstat_get (local.get $fd) (i32.const 16))) (then
              (i32.store (i32.const 8) (i32.add (i32.load (i32.const 8)) (i32.const 1)))))
            (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $fd) (i32.const 5000))))
          (call $note (i32.load (i32.const 8)))
          (i32.store8 (i32.const 1024) (i32.const 46))
    "#;
    for (name, args, _) in ASKED {
        let params = PREVIEW1.iter().find(|(known, _)| *known == name).unwrap().1;
        let wide = params.chars().map(|param| if param == 'i' { "i32" } else { "i64" });
        let args: String = wide.zip(args).map(|(kind, arg)| format!("({kind}.const {arg})")).collect();
        writeln!(wat, "(call $note (call ${name} {args}))").unwrap();
    }
    // The last two have left the time in memory.
    wat += r#"
          (call $note (i32.wrap_i64 (i64.rem_u (i64.load (i32.const 0)) (i64.const 100000))))
          (call $note (i32.wrap_i64 (i64.rem_u (i64.load (i32.const 8)) (i64.const 100000))))
          (i32.store (i32.const 0) (i32.const 2048))
          (i32.store (i32.const 4) (i32.sub (global.get $at) (i32.const 2048)))
          (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;
    wat
}

#[tokio::test]
async fn what_a_command_imports_is_listed_and_leads_nowhere() {
    let bench = Bench::with_slots(2);
    let pool = bench.pool_with(&preview1_auditor(), given).await;
    let answer = pool.invoke(invocation(full("")), u64::MAX).await.unwrap();
    // Two variables and three arguments as declared, three streams, and clocks that go on in steps.
    let errors: String = ASKED.iter().map(|(.., errno)| char::from(b'0' + errno)).collect();
    assert_eq!(text(answer).await, format!("233{errors}00"));
    for (module, name, code) in [
        ("wasi_snapshot_preview1", "sock_open", "no-entry-point"),
        ("wasi_unstable", "fd_write", "unknown-import"),
        ("wasi", "thread-spawn", "unknown-import"),
        ("wasix_32v1", "proc_fork", "unknown-import"),
    ] {
        let wat = format!(
            r#"(module (import "{module}" "{name}" (func)) (memory (export "memory") 1) (func (export "_start")))"#
        );
        assert_eq!(refusal(&bench, name, &wat::parse_str(wat).unwrap()).await, code, "{module}/{name}");
    }
    bench.at_rest("audited", &[&pool]).await;
}
