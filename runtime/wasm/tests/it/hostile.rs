//! Modules that are built to do harm, through the path that every module takes: compiled and tried by a child process,
//! loaded, called. Each ends with a rejection or an answer, its neighbours are served meanwhile, and nothing is kept.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http_body_util::BodyExt;
use runtime_api::full;
use runtime_testing::guests::HELLO_HTTP;
use runtime_wasm::InstancePool;
use tokio_util::task::AbortOnDropHandle;

use crate::bench::{Bench, call, hurried};

mod audit;
mod bombs;
mod cancel;
mod honest;
mod hostcalls;
mod invalid;
mod random;
mod running;
mod shapes;
mod starting;

/// No module, however bad, keeps anybody longer than this: the limit on compiling, that on a trial, and a good deal more.
const END: Duration = Duration::from_secs(360);

/// The time that a call may take.
const DEADLINE: &str = "300ms";

/// A module, and how it may end, by [`ending`], alternatives with a bar between.
struct Case {
    name: String,
    wasm: Vec<u8>,
    endings: &'static str,
}

fn binary(name: impl Into<String>, wasm: impl Into<Vec<u8>>, endings: &'static str) -> Case {
    Case { name: name.into(), wasm: wasm.into(), endings }
}

fn text(name: impl Into<String>, wat: &str, endings: &'static str) -> Case {
    let name = name.into();
    let wasm = wat::parse_str(wat).unwrap_or_else(|error| panic!("{name}: {error}"));
    binary(name, wasm, endings)
}

/// A command that does this.
fn command(name: impl Into<String>, body: &str, endings: &'static str) -> Case {
    text(name, &format!(r#"(module (memory (export "memory") 1) (func (export "_start") {body}))"#), endings)
}

/// What became of a module and of a call: `rejected CODE`, `failed CODE`, `status NUMBER`, or `broken off`.
async fn ending(bench: &Bench, wasm: &[u8]) -> String {
    let pool = match bench.pool_of(wasm, |_| {}).await {
        Ok(pool) => pool,
        Err(error) => return format!("rejected {}", error.code()),
    };
    let answer = match pool.invoke(hurried(full("some text"), DEADLINE), u64::MAX).await {
        Ok(answer) => answer,
        Err(error) => return format!("failed {}", error.code()),
    };
    let status = answer.status().as_u16();
    match answer.into_body().collect().await {
        Ok(_) => format!("status {status}"),
        Err(_) => "broken off".into(),
    }
}

/// How often a neighbour is called: often enough to see a stall, and seldom enough to leave the cores to the others.
const NEIGHBOUR_CALLS: Duration = Duration::from_millis(2);

/// Calls a good function again and again, beside whatever else happens.
struct Neighbour {
    times: Arc<Mutex<Vec<Duration>>>,
    calls: AbortOnDropHandle<()>,
}

impl Neighbour {
    fn of(pool: Arc<InstancePool>) -> Self {
        let times = Arc::new(Mutex::new(Vec::new()));
        let taken = times.clone();
        let calls = tokio::spawn(async move {
            let mut pace = tokio::time::interval(NEIGHBOUR_CALLS);
            loop {
                pace.tick().await;
                let begin = Instant::now();
                assert_eq!(crate::bench::text(call(&pool, "").await.unwrap()).await, "Hello from Fawn\n");
                taken.lock().unwrap().push(begin.elapsed());
            }
        });
        Self { times, calls: AbortOnDropHandle::new(calls) }
    }

    /// The median, and what all calls but one in a hundred took at most.
    fn report(&self) -> String {
        assert!(!self.calls.is_finished(), "the neighbour was not served");
        let mut times = std::mem::take(&mut *self.times.lock().unwrap());
        times.sort();
        let at = |share: usize| times.get(times.len() * share / 100);
        format!("{} calls of a neighbour, p50 {:?}, p99 {:?}", times.len(), at(50), at(99))
    }
}

#[expect(
    clippy::print_stdout,
    reason = "how neighbours fared is reported, and not asserted: machines differ"
)]
fn report(what: &str) {
    println!("{what}");
}

/// Puts all cases of one kind through, and says how their neighbours fared.
async fn all_end_as_expected(family: &str, cases: Vec<Case>) {
    let bench = Bench::with_slots(8);
    let good = bench.pool(HELLO_HTTP).await;
    let neighbour = Neighbour::of(good.clone());
    let mut accepted = bench.compiler.code_usage().loads;
    let mut wrong = Vec::new();
    let begin = Instant::now();
    for (index, Case { name, wasm, endings }) in cases.iter().enumerate() {
        let ended = tokio::time::timeout(END, ending(&bench, wasm)).await;
        let ended = ended.unwrap_or_else(|_| panic!("{family}, {name}: it does not end"));
        if !endings.split('|').any(|ending| ending == ended) {
            wrong.push(format!("{name}: {ended}, and not {endings}"));
        }
        let rejected = ended.starts_with("rejected");
        accepted += u64::from(!rejected);
        assert_eq!(bench.compiler.compiled(), index as u64 + 2, "{name}: each is compiled by a child, once");
        assert_eq!(bench.compiler.code_usage().loads, accepted, "{name}: what is rejected is never loaded");
        if rejected && !ended.ends_with("init-timeout") {
            assert_eq!(ending(&bench, wasm).await, ended, "{name}: rejected again, for the same reason");
            assert_eq!(bench.compiler.compiled(), index as u64 + 2, "{name}: and without another child");
        }
    }
    report(&format!("{family}: {} modules in {:?}, {}", cases.len(), begin.elapsed(), neighbour.report()));
    drop(neighbour);
    bench.at_rest(family, &[&good]).await;
    assert!(wrong.is_empty(), "{family}: {wrong:#?}");
}
