//! Calls of real guests through a real engine, compiled by a child process as in production.

use std::{io::Write, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use runtime_api::{
    Artifact, ArtifactKind, Body, BodyError, CallId, Digest, Error, FunctionName, Invocation, Response,
    Result, SecretName, SecretValue, full,
};
use runtime_egress::Policy;
use runtime_testing::guests;
use sha2::Digest as _;
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

use crate::{
    CompileCommand, CompiledModule, Compiler, Engine, EngineConfig, InstancePool, Limits, Secrets, Settings,
    StdioSettings, World,
};

mod cache;
mod commands;
mod compiling;
mod components;
mod killed;
mod limited;
mod loaded;
mod long;
mod parts;
mod rejected;
mod stdio;
mod tables;

const CHILD: &str = "FAWN_TEST_COMPILE_CHILD";

/// Not a test of its own: the tests' binary run again as the compiling process.
#[test]
fn compile_child() {
    if std::env::var_os(CHILD).is_some() {
        crate::compile_child(std::io::stdin()).unwrap();
    }
}

fn compile_command(env: &[(&str, &str)]) -> CompileCommand {
    let env = [(CHILD, "1")].iter().chain(env).map(|(name, value)| (name.into(), value.into()));
    CompileCommand {
        program: std::env::current_exe().unwrap(),
        args: ["--exact", "tests::compile_child"].map(Into::into).into(),
        env: env.collect(),
    }
}

struct Bench {
    folder: TempDir,
    engine: Engine,
    compiler: Arc<Compiler>,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut EngineConfig)) -> Self {
        // Somebody always listens: a call site that is first reached while nobody does may be taken for one that nobody
        // ever will listen to. Fails in all tests but the first.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
        let folder = tempfile::tempdir().unwrap();
        let mut config = EngineConfig::new(1 << 30, folder.path().to_owned());
        config.slots = 16;
        change(&mut config);
        let engine = Engine::start(&config).unwrap();
        let compiler = Self::compiler(&folder, &engine);
        Self { folder, engine, compiler }
    }

    fn compiler(folder: &TempDir, engine: &Engine) -> Arc<Compiler> {
        Self::compiler_with(folder, engine, &[])
    }

    /// With this environment for the compiling process.
    fn compiler_with(folder: &TempDir, engine: &Engine, env: &[(&str, &str)]) -> Arc<Compiler> {
        let directory = folder.path().join("code");
        Arc::new(Compiler::open(engine.clone(), &directory, [7; 32], compile_command(env)).unwrap())
    }

    /// Puts a module where the artifact store would.
    fn artifact(&self, wasm: &[u8]) -> Artifact {
        let digest = Digest(sha2::Sha256::digest(wasm).into());
        let path = self.folder.path().join(digest.hex());
        std::fs::File::create(&path).unwrap().write_all(wasm).unwrap();
        let kind = ArtifactKind::sniff(wasm).unwrap_or(ArtifactKind::Module);
        Artifact { digest, size_bytes: wasm.len() as u64, kind, args: vec![], env: vec![], path }
    }

    /// A guest that computes when it is ended gives its slot back at its next tick.
    async fn at_rest(&self) {
        let at_rest = async {
            while self.engine.slots_in_use() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), at_rest).await.expect("slots are given back");
    }

    async fn compile(&self, wat: &str) -> Result<CompiledModule> {
        self.compiler.compile(&self.artifact(&wat::parse_str(wat).unwrap())).await
    }

    async fn pool(&self, wat: &str, change: impl FnOnce(&mut Settings)) -> Arc<InstancePool> {
        let module = self.compile(wat).await.unwrap();
        let mut settings = settings();
        change(&mut settings);
        Arc::new(InstancePool::new(
            self.engine.clone(),
            self.compiler.clone(),
            module,
            settings,
            TaskTracker::new(),
        ))
    }
}

fn settings() -> Settings {
    Settings {
        function: FunctionName::parse("guest").unwrap(),
        limits: Limits { memory_bytes: 128 << 20, egress: Policy::none() },
        timeout: Duration::from_secs(20),
        max_inflight: 0,
        env: vec![("GREETING".into(), "hello".into())],
        args: vec!["guest".into(), "first".into()],
        secrets: None,
        stdio: StdioSettings {
            combine_output: true,
            cgi_headers: true,
            content_type: None,
            max_output_bytes: 4 << 20,
        },
    }
}

fn request(body: Body) -> http::Request<Body> {
    http::Request::post("/path?q=1").header("host", "fawn.test").body(body).unwrap()
}

fn invocation(body: Body) -> Invocation {
    Invocation {
        function: FunctionName::parse("guest").unwrap(),
        call_id: CallId::new("call-1"),
        request: request(body),
    }
}

async fn call(pool: &Arc<InstancePool>, body: impl Into<Bytes>) -> Result<Response> {
    pool.invoke(invocation(full(body)), u64::MAX).await
}

async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn an_instance_that_nobody_calls_leaves_nothing() {
    let bench = Bench::new();
    for guest in [guests::HELLO_HTTP, guests::HELLO, guests::CLI_RUN] {
        let pool = bench.pool(guest, |_| {}).await;
        pool.instantiate().await.unwrap();
        assert_eq!(bench.engine.memory_in_use_bytes(), 0);
    }
    // Too small for a page of memory: an instance is really made.
    let pool = bench.pool(guests::HELLO_HTTP, |settings| settings.limits.memory_bytes = 1).await;
    assert!(pool.instantiate().await.is_err());
}

#[tokio::test]
async fn a_secret_is_what_it_is_when_the_call_begins() {
    let bench = Bench::new();
    let secret = SecretName::new("token", "").unwrap();
    let secrets = Secrets::default();
    let put = |value: &str| {
        secrets.replace([(secret.clone(), SecretValue::new(value).unwrap())].into());
    };
    let files = || secrets.files(vec![secret.clone()]);
    let pool = bench.pool(guests::SECRET, |settings| settings.secrets = files()).await;
    let other = bench.pool(guests::SECRET, |_| {}).await;
    let printed = async |pool| text(call(pool, "").await.unwrap()).await;
    assert_eq!(printed(&pool).await, "none\n");
    put("before");
    assert_eq!(printed(&pool).await, "before");
    put(&"after".repeat(5000));
    assert_eq!(printed(&pool).await, "after".repeat(5000));
    assert_eq!(printed(&other).await, "none\n", "it does not name the secret");
    secrets.replace(Default::default());
    assert_eq!(printed(&pool).await, "none\n");
}

#[tokio::test]
async fn a_timeout_in_the_request_shortens_and_never_lengthens() {
    let bench = Bench::new();
    let pool = bench.pool(guests::LOOP, |settings| settings.timeout = Duration::from_millis(300)).await;
    for (asked, most) in [("50ms", 250), ("0s", 2_000), ("1h", 2_000)] {
        let mut invocation = invocation(full(""));
        invocation.request.headers_mut().insert("x-timeout", asked.parse().unwrap());
        let answer =
            tokio::time::timeout(Duration::from_millis(most), pool.invoke(invocation, u64::MAX)).await;
        assert_eq!(answer.expect(asked).unwrap().status(), 408, "{asked}");
    }
}

#[tokio::test]
async fn nothing_of_one_call_is_seen_by_the_next() {
    let bench = Bench::with(|config| config.slots = 1);
    let pool = bench.pool(guests::COUNTER, |_| {}).await;
    let first = text(call(&pool, "").await.unwrap()).await;
    for _ in 0..50 {
        assert_eq!(text(call(&pool, "").await.unwrap()).await, first);
    }
}

#[tokio::test]
async fn memory_ends_at_the_functions_limit_and_at_the_nodes() {
    let bench = Bench::with(|config| config.memory_budget_bytes = 32 << 20);
    let pool = bench.pool(guests::GROW, |settings| settings.limits.memory_bytes = 16 << 20).await;
    let pages = text(call(&pool, "").await.unwrap()).await;
    assert_eq!(pages.trim(), "256", "16 MiB are 256 pages");

    let pool = bench.pool(guests::GROW, |settings| settings.limits.memory_bytes = 64 << 20).await;
    let error = call(&pool, "").await.unwrap_err();
    assert!(matches!(error, Error::Overloaded { .. }), "{error:?}");
    assert_eq!(bench.engine.memory_in_use_bytes(), 0);

    let big = bench.compile(guests::BIG_MEMORY).await.unwrap();
    let error = big.check_memory(128 << 20).unwrap_err();
    assert!(error.to_string().contains("limits.memory"), "{error}");
}

#[tokio::test]
async fn a_full_pool_makes_calls_wait_up_to_their_deadline() {
    let bench = Bench::with(|config| config.slots = 1);
    let busy = bench.pool(guests::HTTP_ENDLESS, |_| {}).await;
    let pool = bench.pool(guests::HELLO_HTTP, |settings| settings.timeout = Duration::from_millis(200)).await;
    let held = call(&busy, "").await.unwrap();
    let error = call(&pool, "").await.unwrap_err();
    assert!(matches!(error, Error::Overloaded { .. }), "{error:?}");
    drop(held);
    assert_eq!(call(&pool, "").await.unwrap().status(), 200);
}

#[tokio::test]
async fn calls_beyond_the_functions_room_are_refused_at_once() {
    let bench = Bench::new();
    let pool = bench.pool(guests::HTTP_ENDLESS, |_| {}).await;
    let held = pool.invoke(invocation(full("")), 1).await.unwrap();
    let error = pool.invoke(invocation(full("")), 1).await.unwrap_err();
    assert_eq!(error.to_string(), "Concurrent request limit exceeded. Max concurrent requests: 1");
    drop(held);
    assert!(pool.invoke(invocation(full("")), 1).await.is_ok());
}

#[tokio::test]
async fn code_is_loaded_by_the_first_call_and_can_be_dropped() {
    let bench = Bench::new();
    let pool = bench.pool(guests::HELLO, |_| {}).await;
    assert!(!pool.is_loaded());
    call(&pool, "").await.unwrap();
    assert!(pool.is_loaded());
    pool.unload();
    assert!(!pool.is_loaded());
    assert_eq!(call(&pool, "").await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_guest_has_no_files_and_no_memory64() {
    let bench = Bench::new();
    let pool = bench.pool(guests::TMP, |_| {}).await;
    assert_eq!(text(call(&pool, "").await.unwrap()).await, "no /tmp\n");
    assert_eq!(bench.compile(guests::MEMORY64).await.unwrap_err().code(), "malformed-module");
}

#[tokio::test]
async fn bulk_memory_does_not_outlast_the_deadline_by_much() {
    let bench = Bench::new();
    let pool = bench.pool(guests::FILL, |settings| settings.timeout = Duration::from_millis(100)).await;
    let answer = tokio::time::timeout(Duration::from_secs(10), call(&pool, "")).await.expect("stopped");
    assert_eq!(answer.unwrap().status(), 408);
}
