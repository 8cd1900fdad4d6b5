//! When code is in memory, and when it is not.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::Instant;

use super::*;
use crate::CodeLimits;

const SHORT_OF_FILES: &str = "FAWN_TEST_SHORT_OF_FILES";

impl Bench {
    fn limited(limits: CodeLimits) -> Self {
        let mut bench = Self::new();
        bench.compiler = Arc::new(Arc::into_inner(bench.compiler).unwrap().with_limits(limits));
        bench
    }

    /// Functions of as many modules, which say the same.
    async fn distinct(&self, count: u8) -> Vec<Arc<InstancePool>> {
        let module = wat::parse_str(guests::HELLO_HTTP).unwrap();
        let mut pools = Vec::new();
        for number in 0..count {
            // A custom section tells them apart.
            let wasm = [&module[..], &[0, 3, 1, b'n', number]].concat();
            let module = self.compiler.compile(&self.artifact(&wasm)).await.unwrap();
            pools.push(self.function_of(module));
        }
        pools
    }

    fn function_of(&self, module: CompiledModule) -> Arc<InstancePool> {
        let (engine, compiler) = (self.engine.clone(), self.compiler.clone());
        Arc::new(InstancePool::new(engine, compiler, module, settings(), TaskTracker::new()))
    }

    /// As if the function were called that many seconds from now.
    fn call_later(&self, pool: &InstancePool, seconds: u64) {
        let code = self.compiler.share(pool.module().artifact.digest);
        assert!(code.get(Instant::now() + Duration::from_secs(seconds)).is_some());
    }

    /// What happens that many seconds from now.
    fn drop_cold_later(&self, seconds: u64) {
        self.compiler.drop_cold(Instant::now() + Duration::from_secs(seconds));
    }

    /// Mappings of code, and files of code that are open.
    fn mapped_and_open(&self) -> (usize, usize) {
        let code = self.folder.path().join("code");
        let code = code.to_str().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let files = std::fs::read_dir("/proc/self/fd").unwrap();
        let targets = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
        (
            maps.lines().filter(|line| line.contains(code)).count(),
            targets.filter(|target| target.to_str().is_some_and(|target| target.contains(code))).count(),
        )
    }
}

async fn hello(pool: &Arc<InstancePool>) {
    assert_eq!(text(call(pool, "").await.unwrap()).await, "Hello from Fawn\n");
}

fn loaded(pools: &[Arc<InstancePool>]) -> Vec<bool> {
    pools.iter().map(|pool| pool.is_loaded()).collect()
}

#[tokio::test]
async fn functions_of_one_module_share_its_code() {
    let bench = Bench::new();
    let one = bench.pool(guests::HELLO_HTTP, |_| {}).await;
    let other = bench.pool(guests::HELLO_HTTP, |settings| settings.env.clear()).await;
    hello(&one).await;
    assert!(one.is_loaded() && !other.is_loaded());
    hello(&other).await;
    assert!(other.is_loaded());
    let usage = bench.compiler.code_usage();
    assert_eq!((usage.modules, usage.loads), (1, 1));
    one.unload();
    one.unload();
    assert!(!one.is_loaded() && other.is_loaded(), "the other still wants it");
    hello(&one).await;
    drop(other);
    assert!(one.is_loaded());
    assert_eq!(bench.compiler.code_usage().loads, 1);
    one.unload();
    let usage = bench.compiler.code_usage();
    assert_eq!((usage.modules, usage.memory_bytes), (0, 0));
}

#[tokio::test]
async fn code_that_nobody_calls_is_dropped_after_a_while() {
    let bench = Bench::new();
    let pools = bench.distinct(2).await;
    for pool in &pools {
        hello(pool).await;
    }
    let idle = CodeLimits::IDLE.as_secs();
    bench.drop_cold_later(idle - 10);
    assert_eq!(loaded(&pools), [true, true]);
    bench.call_later(&pools[1], 60);
    bench.drop_cold_later(idle + 10);
    assert_eq!(loaded(&pools), [false, true]);
    hello(&pools[0]).await;
    let usage = bench.compiler.code_usage();
    assert_eq!((usage.modules, usage.loads, usage.evictions), (2, 3, 0));
}

#[tokio::test]
async fn a_call_in_flight_keeps_its_code() {
    let bench = Bench::new();
    let pool = bench.pool(guests::ECHO_HTTP, |_| {}).await;
    let (send, receive) = tokio::sync::mpsc::channel::<Bytes>(1);
    let pieces = futures_util::stream::unfold(receive, |mut receive| async {
        let piece = receive.recv().await?;
        Some((Ok::<_, BodyError>(http_body::Frame::data(piece)), receive))
    });
    send.send("one".into()).await.unwrap();
    let response = pool.invoke(invocation(StreamBody::new(pieces).boxed_unsync()), u64::MAX).await.unwrap();
    bench.drop_cold_later(2 * CodeLimits::IDLE.as_secs());
    assert!(!pool.is_loaded());
    assert_ne!(bench.mapped_and_open(), (0, 0));
    send.send("two".into()).await.unwrap();
    drop(send);
    assert_eq!(text(response).await, "onetwo");
    assert_eq!(bench.mapped_and_open(), (0, 0));
}

#[tokio::test]
async fn dropped_code_leaves_no_mapping_and_no_open_file() {
    let bench = Bench::new();
    let pools = bench.distinct(20).await;
    assert_eq!(bench.mapped_and_open(), (0, 0));
    for pool in &pools {
        hello(pool).await;
    }
    let (mapped, open) = bench.mapped_and_open();
    assert!((60..=80).contains(&mapped) && open == 20, "{mapped} mappings, {open} open files");
    bench.drop_cold_later(2 * CodeLimits::IDLE.as_secs());
    assert_eq!(bench.mapped_and_open(), (0, 0));
}

#[tokio::test]
async fn the_coldest_makes_room_for_what_is_called() {
    let limits = CodeLimits { modules: 2, ..CodeLimits::default() };
    let bench = Bench::limited(limits);
    let pools = bench.distinct(3).await;
    hello(&pools[0]).await;
    hello(&pools[1]).await;
    bench.call_later(&pools[0], 60);
    hello(&pools[2]).await;
    assert_eq!(loaded(&pools), [true, false, true]);
    assert_eq!(bench.compiler.code_usage().evictions, 1);
}

#[tokio::test]
async fn memory_is_a_limit_too_but_one_module_always_runs() {
    let limits = CodeLimits { memory_bytes: 1, ..CodeLimits::default() };
    let bench = Bench::limited(limits);
    let pools = bench.distinct(2).await;
    for at in [0, 1, 0] {
        hello(&pools[at]).await;
    }
    assert_eq!(loaded(&pools), [true, false]);
    assert_eq!(bench.compiler.code_usage().evictions, 2);
}

/// In a process of its own, since the limit is the whole process's.
#[test]
fn a_node_short_of_open_files_makes_do() {
    if std::env::var_os(SHORT_OF_FILES).is_some() {
        return short_of_files();
    }
    let own = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::loaded::a_node_short_of_open_files_makes_do", "--nocapture"])
        .env(SHORT_OF_FILES, "1")
        .output()
        .unwrap();
    assert!(own.status.success(), "{}", String::from_utf8_lossy(&own.stderr));
}

#[tokio::main(flavor = "current_thread")]
async fn short_of_files() {
    let bench = Bench::new();
    let pools = bench.distinct(12).await;
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let limit =
        |files| setrlimit(Resource::Nofile, Rlimit { current: Some(files), ..getrlimit(Resource::Nofile) });
    limit(open + 5).unwrap();
    for pool in &pools {
        hello(pool).await;
    }
    let usage = bench.compiler.code_usage();
    assert!(usage.evictions > 0 && usage.modules < 12, "{usage:?}");
    pools.iter().for_each(|pool| pool.unload());
    limit(open - 1).unwrap();
    let error = call(&pools[0], "").await.unwrap_err();
    assert!(matches!(error, Error::Overloaded { .. }), "{error:?}");
    assert!(error.to_string().contains("ulimit -n"), "{error}");
    limit(open + 5).unwrap();
    hello(&pools[0]).await;
    assert_eq!(bench.compiler.compiled(), 12, "no code was taken for damaged");
}
