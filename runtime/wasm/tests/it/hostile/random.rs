//! Modules by chance: valid ones that do anything, and samples with something changed.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
    time::Instant,
};

use arbitrary::Unstructured;
use runtime_testing::guests::{
    CLI_RUN, COUNTER, ECHO, ECHO_HTTP, GROW, HELLO, HELLO_HTTP, HTTP_AROUND, HTTP_STATUS, HTTP_VAULT,
    RECURSION, VAULT,
};
use wasm_smith::{Component, Config, Module};

use super::{END, Neighbour, ending, report};
use crate::bench::Bench;

/// As many modules as are tried, unless a longer run asks for more.
const MODULES: usize = 300;

/// How many a longer run tries.
const COUNT: &str = "FAWN_HOSTILE_MODULES";

/// Bytes that depend on the number alone.
fn chance(number: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&(number as u64).to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A valid module that exports this, imports of the host what it likes, and may run for ever.
fn generated(number: usize, exports: &str, imports: Option<&str>) -> Option<Vec<u8>> {
    let one_in_twenty = |nth: usize| number % 20 == nth;
    let config = Config {
        exports: Some(wat::parse_str(exports).unwrap()),
        available_imports: imports.map(|imports| wat::parse_str(imports).unwrap()),
        max_imports: if imports.is_some() { 10 } else { 0 },
        max_memory32_bytes: 64 << 20,
        max_table_elements: 10_000,
        max_instructions: 500,
        memory64_enabled: one_in_twenty(19),
        threads_enabled: one_in_twenty(18),
        gc_enabled: one_in_twenty(17),
        exceptions_enabled: one_in_twenty(16),
        // References to the host's objects need a collector, which this host is built without.
        reference_types_enabled: one_in_twenty(15),
        relaxed_simd_enabled: number.is_multiple_of(2),
        ..Config::default()
    };
    let bytes = chance(number, 16 << 10);
    // Chance does not always suffice for a module.
    Some(Module::new(config, &mut Unstructured::new(&bytes)).ok()?.to_bytes())
}

const COMMAND: &str = r#"(module (func (export "_start")))"#;
const HANDLER: &str = r#"(module (func (export "handle") (param i32 i32)))"#;
const WASI: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))))"#;

/// A component whose core module is generated.
fn handler(number: usize) -> Option<Vec<u8>> {
    let [begin, end] = HTTP_AROUND;
    let module = wasmprinter::print_bytes(generated(number, HANDLER, None)?).unwrap();
    let module = module.replacen("(module", "(core module $Main", 1);
    Some(wat::parse_str(format!("{begin} {module} {end}")).unwrap())
}

fn component(number: usize) -> Option<Vec<u8>> {
    let bytes = chance(number, 8 << 10);
    Some(Component::new(Config::default(), &mut Unstructured::new(&bytes)).ok()?.to_bytes())
}

/// A sample that wasm-mutate made another module of.
fn mutated(number: usize, sample: &[u8]) -> Option<Vec<u8>> {
    let mut wasm = sample.to_owned();
    for step in 0..=number % 4 {
        let mut mutate = wasm_mutate::WasmMutate::default();
        mutate.seed((number * 4 + step) as u64).fuel(1000).preserve_semantics(false);
        let next = mutate.run(&wasm).ok()?.next()?.ok()?;
        wasm = next;
    }
    Some(wasm)
}

/// A sample with bytes changed, left out or doubled.
fn damaged(number: usize, sample: &[u8]) -> Vec<u8> {
    let mut wasm = sample.to_owned();
    for change in chance(number, 24).chunks(6) {
        let at = u32::from_le_bytes(change[..4].try_into().unwrap()) as usize % wasm.len();
        match change[4] % 4 {
            0 => wasm[at] = change[5],
            1 => wasm[at] ^= 1 << (change[5] % 8),
            2 => drop(wasm.drain(at..(at + usize::from(change[5] % 8)).min(wasm.len() - 1).max(at))),
            _ => wasm.insert(at, change[5]),
        }
        if number.is_multiple_of(2) {
            break;
        }
    }
    wasm
}

/// So many different modules of all kinds.
fn modules(count: usize) -> Vec<(&'static str, Vec<u8>)> {
    let commands = [HELLO, ECHO, COUNTER, GROW, RECURSION, VAULT].map(|wat| wat::parse_str(wat).unwrap());
    let components =
        [HELLO_HTTP, ECHO_HTTP, HTTP_STATUS, HTTP_VAULT, CLI_RUN].map(|wat| wat::parse_str(wat).unwrap());
    let mut seen = HashSet::new();
    let mut modules = Vec::new();
    for number in 0.. {
        if modules.len() >= count {
            break;
        }
        let (command, component_sample) = (&commands[number % 6], &components[number % 5]);
        let (kind, made) = match number % 8 {
            0 => ("generated", generated(number, COMMAND, None)),
            1 => ("generated with imports", generated(number, COMMAND, Some(WASI))),
            2 => ("generated handlers", handler(number)),
            3 => ("generated components", component(number)),
            4 | 5 => ("mutated", mutated(number, command)),
            6 => ("damaged commands", Some(damaged(number, command))),
            _ => ("damaged components", Some(damaged(number, component_sample))),
        };
        if let Some(wasm) = made
            && seen.insert(wasm.clone())
        {
            modules.push((kind, wasm));
        }
    }
    modules
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modules_by_chance_end_with_an_answer_or_a_rejection() {
    let count = std::env::var(COUNT).map_or(MODULES, |count| count.parse().expect(COUNT));
    let modules = modules(count);
    let begin = Instant::now();
    let waiting = Arc::new(Mutex::new(modules.into_iter()));
    let endings = Arc::new(Mutex::new(BTreeMap::<(&str, String), usize>::new()));
    // As many nodes as there are cores to compile on.
    let nodes: Vec<_> = (0..2).map(|_| tokio::spawn(one_by_one(waiting.clone(), endings.clone()))).collect();
    for node in nodes {
        node.await.unwrap();
    }
    let endings = endings.lock().unwrap();
    assert_eq!(endings.values().sum::<usize>(), count);
    let answers: usize =
        endings.iter().filter(|((_, ending), _)| ending.starts_with("status")).map(|(_, count)| count).sum();
    assert!(answers * 10 > count, "some run: {endings:?}");
    for ((kind, ending), count) in &*endings {
        assert!(!ending.contains("internal") && !ending.contains("crashed"), "{kind}: {ending}");
        report(&format!("{count:5} {kind}: {ending}"));
    }
    report(&format!("{count} modules by chance in {:?}", begin.elapsed()));
}

type Waiting = Arc<Mutex<std::vec::IntoIter<(&'static str, Vec<u8>)>>>;
type Endings = Arc<Mutex<BTreeMap<(&'static str, String), usize>>>;

async fn one_by_one(waiting: Waiting, endings: Endings) {
    let bench = Bench::with_slots(4);
    let good = bench.pool(HELLO_HTTP).await;
    let neighbour = Neighbour::of(good.clone());
    let mut done = 1;
    loop {
        let next = waiting.lock().unwrap().next();
        let Some((kind, wasm)) = next else { break };
        let ended = tokio::time::timeout(END, ending(&bench, &wasm)).await;
        let ended = ended.unwrap_or_else(|_| panic!("{kind} does not end: {}", wasm.escape_ascii()));
        assert!(!ended.contains("internal"), "{kind}: {ended}: {}", wasm.escape_ascii());
        done += 1;
        assert_eq!(bench.compiler.compiled(), done, "each is compiled by a child, once");
        *endings.lock().unwrap().entry((kind, ended)).or_default() += 1;
    }
    report(&format!("by chance: {}", neighbour.report()));
    drop(neighbour);
    bench.at_rest("by chance", &[&good]).await;
}
