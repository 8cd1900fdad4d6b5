//! Every function of the host, called again and again with the worst arguments.

use super::{Case, all_end_as_expected, text};

/// The functions of WASI preview 1 with their parameters, `i` and `I` for 32 and 64 bits. All but one return a number.
const PREVIEW1: [(&str, &str); 46] = [
    ("args_get", "ii"),
    ("args_sizes_get", "ii"),
    ("clock_res_get", "ii"),
    ("clock_time_get", "iIi"),
    ("environ_get", "ii"),
    ("environ_sizes_get", "ii"),
    ("fd_advise", "iIIi"),
    ("fd_allocate", "iII"),
    ("fd_close", "i"),
    ("fd_datasync", "i"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_fdstat_set_rights", "iII"),
    ("fd_filestat_get", "ii"),
    ("fd_filestat_set_size", "iI"),
    ("fd_filestat_set_times", "iIIi"),
    ("fd_pread", "iiiIi"),
    ("fd_prestat_dir_name", "iii"),
    ("fd_prestat_get", "ii"),
    ("fd_pwrite", "iiiIi"),
    ("fd_read", "iiii"),
    ("fd_readdir", "iiiIi"),
    ("fd_renumber", "ii"),
    ("fd_seek", "iIii"),
    ("fd_sync", "i"),
    ("fd_tell", "ii"),
    ("fd_write", "iiii"),
    ("path_create_directory", "iii"),
    ("path_filestat_get", "iiiii"),
    ("path_filestat_set_times", "iiiiIIi"),
    ("path_link", "iiiiiii"),
    ("path_open", "iiiiiIIii"),
    ("path_readlink", "iiiiii"),
    ("path_remove_directory", "iii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("path_unlink_file", "iii"),
    ("poll_oneoff", "iiii"),
    ("proc_exit", "i"),
    ("proc_raise", "i"),
    ("random_get", "ii"),
    ("sched_yield", ""),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
];

/// A command that calls one function for ever with this for every argument.
fn flood(name: &str, parameters: &str, argument: &str) -> Case {
    let typed = |letter: char| if letter == 'i' { "i32" } else { "i64" };
    let types: String = parameters.chars().map(|letter| format!(" {}", typed(letter))).collect();
    let arguments: String =
        parameters.chars().map(|letter| format!(" ({}.const {argument})", typed(letter))).collect();
    let (result, call) = if name == "proc_exit" {
        ("", format!("(call $f {arguments})"))
    } else {
        ("(result i32)", format!("(drop (call $f {arguments}))"))
    };
    let wat = format!(
        r#"(module
          (import "wasi_snapshot_preview1" "{name}" (func $f (param {types}) {result}))
          (memory (export "memory") 100)
          (func (export "_start") loop {call} br 0 end))"#
    );
    text(
        format!("{name} of {argument}"),
        &wat,
        "status 200|status 408|status 500|failed output-limit|failed guest-trap",
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_calls_of_the_host_ends_at_the_deadline() {
    let mut cases: Vec<Case> = Vec::new();
    for (name, parameters) in PREVIEW1 {
        // At the very end of memory and of numbers; and what is in bounds, and as large as can be.
        for argument in ["-1", "1048576"].into_iter().take(if parameters.is_empty() { 1 } else { 2 }) {
            cases.push(flood(name, parameters, argument));
        }
    }
    all_end_as_expected("calls of the host", cases).await;
}

/// A component that asks one function of the host for a list of so many bytes, again and again.
fn random(interface: &str, function: &str, bytes: u64) -> String {
    format!(
        r#"(component
          (import "wasi:random/{interface}@0.2.0" (instance $random
            (export "{function}" (func (param "len" u64) (result (list u8))))))
          (core module $Memory
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64)))
          (core instance $memory (instantiate $Memory))
          (alias core export $memory "memory" (core memory $m))
          (alias core export $memory "realloc" (core func $realloc))
          (core func $get (canon lower (func $random "{function}") (memory $m) (realloc $realloc)))
          (core module $Main
            (import "host" "get" (func $get (param i64 i32)))
            (func (export "run") (result i32)
              loop (call $get (i64.const {bytes}) (i32.const 0)) br 0 end
              (i32.const 0)))
          (core instance $main (instantiate $Main (with "host" (instance (export "get" (func $get))))))
          (func $run (result (result)) (canon lift (core func $main "run")))
          (instance $r (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $r)))"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_from_the_host_are_bounded() {
    let mut cases = Vec::new();
    for (interface, function) in [("random", "get-random-bytes"), ("insecure", "get-insecure-random-bytes")] {
        for (bytes, endings) in [
            (1000, "status 408"),
            (60 << 10, "status 408"),
            // More than one call may ask for, and more than there is.
            (65 << 10, "status 500|failed guest-trap"),
            (4 << 30, "status 500|failed guest-trap"),
            (u64::MAX, "status 500|failed guest-trap"),
        ] {
            cases.push(text(format!("{function} of {bytes}"), &random(interface, function, bytes), endings));
        }
    }
    all_end_as_expected("lists", cases).await;
}
