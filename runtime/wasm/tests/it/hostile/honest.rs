//! The other side of every limit: real modules that must not run into it.

use std::time::Instant;

use super::report;
use crate::bench::Bench;

/// Paths with colons between.
const MODULES: &str = "FAWN_HONEST_MODULES";

/// The processor time of child processes that have ended, in seconds (proc_pid_stat(5), fields 16 and 17).
fn children_seconds() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let field = |nth: usize| after_name.split_whitespace().nth(nth - 3).unwrap().parse::<u64>().unwrap();
    (field(16) + field(17)) / rustix::param::clock_ticks_per_second()
}

#[tokio::test]
#[ignore = "needs modules of real toolchains, named by FAWN_HONEST_MODULES"]
async fn modules_of_real_toolchains_are_compiled_within_a_third_of_their_time() {
    let bench = Bench::with_slots(8);
    for path in std::env::var(MODULES).expect(MODULES).split(':') {
        let wasm = std::fs::read(path).unwrap();
        let (begin, before) = (Instant::now(), children_seconds());
        bench.compile(&wasm).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        let (seconds, mebibytes) = (children_seconds() - before, wasm.len() >> 20);
        report(&format!("{path}: {mebibytes} MiB, {seconds} s of a processor, {:?}", begin.elapsed()));
        let allowed = (5 + 4 * mebibytes as u64).min(120);
        assert!(seconds * 3 <= allowed, "{path}: {seconds} s, and {allowed} s is the limit");
    }
}
