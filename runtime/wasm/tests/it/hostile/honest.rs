//! The other side of every limit: real modules that must not run into it.

use std::{path::PathBuf, time::Instant};

use super::{END, report};
use crate::bench::Bench;

/// What the guests of the end-to-end tests are written in.
const LANGUAGES: [&str; 6] = ["assemblyscript", "c", "go", "js", "python", "rust"];

/// The modules that real toolchains made of them.
fn modules() -> Vec<PathBuf> {
    let folder = std::env::var_os("FAWN_GUESTS").expect("FAWN_GUESTS is not set: run scripts/test e2e");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let modules: Vec<_> = files.filter(|path| path.extension().is_some_and(|kind| kind == "wasm")).collect();
    for language in LANGUAGES {
        let is_of = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(language);
        assert!(modules.iter().any(is_of), "no module of {language} in {modules:?}");
    }
    modules
}

/// The processor time of child processes that have ended, in seconds (proc_pid_stat(5), fields 16 and 17).
fn children_seconds() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let field = |nth: usize| after_name.split_whitespace().nth(nth - 3).unwrap().parse::<u64>().unwrap();
    (field(16) + field(17)) / rustix::param::clock_ticks_per_second()
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn modules_of_real_toolchains_are_compiled_within_a_third_of_their_time() {
    let bench = Bench::with_slots(8);
    for path in modules() {
        let wasm = std::fs::read(&path).unwrap();
        let path = path.display();
        let (begin, before) = (Instant::now(), children_seconds());
        let compiled = tokio::time::timeout(END, bench.compile(&wasm)).await;
        compiled.expect("it ends").unwrap_or_else(|error| panic!("{path}: {error}"));
        let (seconds, mebibytes) = (children_seconds() - before, wasm.len() >> 20);
        report(&format!("{path}: {mebibytes} MiB, {seconds} s of a processor, {:?}", begin.elapsed()));
        let allowed = (5 + 4 * mebibytes as u64).min(120);
        assert!(seconds * 3 <= allowed, "{path}: {seconds} s, and {allowed} s is the limit");
    }
}
