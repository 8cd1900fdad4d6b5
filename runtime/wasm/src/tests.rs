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
mod killed;
mod limited;
mod loaded;
mod long;
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
async fn an_http_component_owns_its_answer() {
    let bench = Bench::new();
    let pool = bench.pool(guests::HELLO_HTTP, |_| {}).await;
    assert_eq!(pool.module().world, World::Http);
    let response = call(&pool, "").await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert!(response.headers().contains_key("x-duration-seconds"));
    assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(16), "sent in one piece");
    assert_eq!(text(response).await, "Hello from Fawn\n");
    assert_eq!(bench.engine.slots_in_use(), 0);
    assert_eq!(bench.engine.memory_in_use_bytes(), 0);
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
async fn bodies_stream_both_ways_piece_by_piece() {
    let bench = Bench::new();
    let pool = bench.pool(guests::ECHO_HTTP, |_| {}).await;
    let (send, receive) = tokio::sync::mpsc::channel::<Bytes>(1);
    let pieces = futures_util::stream::unfold(receive, |mut receive| async {
        let piece = receive.recv().await?;
        Some((Ok::<_, BodyError>(http_body::Frame::data(piece)), receive))
    });
    send.send("one".into()).await.unwrap();
    let response = pool.invoke(invocation(StreamBody::new(pieces).boxed_unsync()), u64::MAX).await.unwrap();
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
    // The second piece is sent only after the first was seen to come back.
    send.send("two".into()).await.unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "two");
    drop(send);
    assert!(body.frame().await.is_none());
    drop(body);
    assert_eq!(bench.engine.slots_in_use(), 0);
}

#[tokio::test]
async fn an_answer_cut_short_is_never_a_clean_end() {
    let bench = Bench::new();
    for guest in [guests::HTTP_HALF, guests::HTTP_LATE_TRAP] {
        let pool = bench.pool(guest, |_| {}).await;
        match call(&pool, "").await {
            Err(Error::FunctionFailed { .. }) => {}
            Err(error) => panic!("{error:?}"),
            Ok(response) => assert!(response.into_body().collect().await.is_err()),
        }
    }
}

#[tokio::test]
async fn a_component_that_misbehaves_is_told_apart() {
    let bench = Bench::new();
    for (guest, code) in [
        (guests::HTTP_SILENT, "no-response"),
        (guests::HTTP_TWICE, "guest-trap"),
        (guests::HTTP_TRAP, "guest-trap"),
        (guests::HTTP_ERROR, "guest-error"),
    ] {
        let pool = bench.pool(guest, |_| {}).await;
        let error = call(&pool, "").await.unwrap_err();
        assert_eq!(error.code(), code, "{error:?}");
        assert!(!error.to_string().contains("wasm"), "the answer holds no backtrace: {error}");
    }
}

#[tokio::test]
async fn an_endless_component_is_stopped_at_its_deadline() {
    let bench = Bench::new();
    let pool = bench.pool(guests::HTTP_LOOP, |settings| settings.timeout = Duration::from_millis(100)).await;
    let neighbour = bench.pool(guests::HELLO_HTTP, |_| {}).await;
    let looping = tokio::spawn({
        let pool = pool.clone();
        async move { call(&pool, "").await }
    });
    assert_eq!(call(&neighbour, "").await.unwrap().status(), 200, "neighbours answer meanwhile");
    let response = looping.await.unwrap().unwrap();
    assert_eq!(response.status(), 504);
    assert_eq!(response.headers()["x-openfaas-internal"], "of-watchdog");

    let pool =
        bench.pool(guests::HTTP_LATE_LOOP, |settings| settings.timeout = Duration::from_millis(100)).await;
    let response = call(&pool, "").await.unwrap();
    assert!(response.into_body().collect().await.is_err(), "what began is cut off");
    bench.at_rest().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_frees_the_instance() {
    let bench = Bench::new();
    let pool = bench.pool(guests::HTTP_ENDLESS, |_| {}).await;
    let response = call(&pool, "").await.unwrap();
    assert_eq!(bench.engine.slots_in_use(), 1);
    drop(response);
    assert_eq!(bench.engine.slots_in_use(), 0);
    assert_eq!(pool.inflight(), 0);
}

#[tokio::test]
async fn a_command_answers_with_its_output() {
    let bench = Bench::new();
    let pool = bench.pool(guests::ECHO, |_| {}).await;
    let response = call(&pool, "some text").await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(response.headers()["content-length"], "9");
    assert!(response.headers().contains_key("x-duration-seconds"));
    assert_eq!(text(response).await, "some text");

    let mut invocation = invocation(full("{}"));
    invocation.request.headers_mut().insert("content-type", "application/json".parse().unwrap());
    let response = pool.invoke(invocation, u64::MAX).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json", "the request's own type");
}

/// Reads into a buffer of 16 MiB, and answers with the length of what came or with the error's number.
const WIDE_READ: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 512)
    (func (export "_start")
      (i32.store (i32.const 0) (i32.const 1024))
      (i32.store (i32.const 4) (i32.const 16777216))
      (i32.store8 (i32.const 16) (i32.add (i32.const 48) (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))))
      (i32.store (i32.const 0) (i32.const 16))
      (i32.store (i32.const 4) (i32.const 1))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

#[tokio::test]
async fn a_command_may_read_into_as_large_a_buffer_as_its_memory_has() {
    let bench = Bench::new();
    let pool = bench.pool(WIDE_READ, |_| {}).await;
    assert_eq!(text(call(&pool, "abc").await.unwrap()).await, "0", "no error");
}

#[tokio::test]
async fn a_command_component_answers_with_its_output() {
    let bench = Bench::new();
    let pool = bench.pool(guests::CLI_RUN, |_| {}).await;
    assert_eq!(pool.module().world, World::Command);
    let response = call(&pool, "").await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!text(response).await.is_empty());

    let failing = bench.pool(guests::CLI_FAIL, |_| {}).await;
    let response = call(&failing, "").await.unwrap();
    assert_eq!(response.status(), 500);
    assert!(text(response).await.starts_with("exit status 1\n"));
}

#[tokio::test]
async fn a_large_output_lies_on_disk_up_to_its_limit() {
    let bench = Bench::new();
    let pool = bench.pool(guests::ECHO, |_| {}).await;
    let sent: Bytes = (0..3_u32 << 18).flat_map(u32::to_le_bytes).collect::<Vec<u8>>().into();
    let response = call(&pool, sent.clone()).await.unwrap();
    let received = response.into_body().collect().await.unwrap().to_bytes();
    assert!(received == sent, "3 MiB come back as they were");

    let error = call(&pool, vec![b'a'; 5 << 20]).await.unwrap_err();
    assert_eq!(error.code(), "output-limit");
}

#[tokio::test]
async fn a_command_sees_the_request_and_its_own_environment_only() {
    let bench = Bench::new();
    let pool = bench.pool(guests::ENV, |_| {}).await;
    let env = text(call(&pool, "abc").await.unwrap()).await;
    for line in [
        "GREETING=hello",
        "Http_Method=POST",
        "Http_Path=/path",
        "Http_Query=q=1",
        "Http_Host=fawn.test",
        "Http_Content_Length=3",
    ] {
        assert!(env.lines().any(|found| found == line), "{line} in {env}");
    }
    assert!(env.lines().all(|line| line.starts_with("Http_") || line == "GREETING=hello"), "{env}");
    let pool = bench.pool(guests::ENV, |settings| settings.stdio.cgi_headers = false).await;
    assert_eq!(text(call(&pool, "").await.unwrap()).await.trim(), "GREETING=hello");
    let pool = bench.pool(guests::ARGS, |_| {}).await;
    assert_eq!(text(call(&pool, "").await.unwrap()).await, "guest\nfirst\n");
}

#[tokio::test]
async fn exit_traps_and_deadlines_answer_as_the_watchdog_does() {
    let bench = Bench::new();
    let pool = bench.pool(guests::EXIT_CODE, |_| {}).await;
    let response = call(&pool, "").await.unwrap();
    assert_eq!(response.status(), 500);
    assert!(!response.headers().contains_key("x-duration-seconds"));
    assert!(text(response).await.starts_with("exit status 3\n"));

    let pool = bench.pool(guests::TRAP, |_| {}).await;
    let response = call(&pool, "").await.unwrap();
    assert_eq!(response.status(), 500);
    let answer = text(response).await;
    assert!(answer.starts_with("signal: aborted\n") && !answer.contains("wasm"), "{answer}");

    let pool = bench.pool(guests::LOOP, |settings| settings.timeout = Duration::from_millis(100)).await;
    let response = call(&pool, "").await.unwrap();
    assert_eq!(response.status(), 408);
    assert_eq!(text(response).await, "Killed process.\n");

    let pool = bench.pool(guests::RECURSION, |_| {}).await;
    assert_eq!(call(&pool, "").await.unwrap().status(), 500, "the stack ends before the host's");
}

#[tokio::test]
async fn standard_error_is_in_the_body_or_in_the_log() {
    let bench = Bench::new();
    let combined = text(call(&bench.pool(guests::BOTH_OUTPUTS, |_| {}).await, "").await.unwrap()).await;
    let separate = bench.pool(guests::BOTH_OUTPUTS, |settings| settings.stdio.combine_output = false).await;
    let separate = text(call(&separate, "").await.unwrap()).await;
    assert!(separate.len() < combined.len() && !separate.is_empty(), "{combined:?} {separate:?}");
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
async fn modules_that_cannot_start_are_rejected_with_the_reason() {
    let bench = Bench::new();
    for (wat, code) in [
        (guests::NO_START, "no-entry-point"),
        (guests::UNKNOWN_IMPORT, "unknown-import"),
        (guests::START_TRAP, "cannot-start"),
        (guests::START_LOOP, "init-timeout"),
        (guests::BIG_TABLE, "malformed-module"),
        (r#"(module (func (export "_start") (param i32)))"#, "no-entry-point"),
        (
            r#"(component (component $c) (instance $i (instantiate $c))
                (export "wasi:http/incoming-handler@0.2.0" (instance $i)))"#,
            "no-entry-point",
        ),
    ] {
        let error = bench.compile(wat).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
    let hello = wat::parse_str(guests::HELLO).unwrap();
    for bytes in [&hello[..hello.len() - 5], b"not wasm at all"] {
        let error = bench.compiler.compile(&bench.artifact(bytes)).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn one_digest_is_compiled_once_and_not_again_after_a_restart() {
    let bench = Bench::new();
    let artifact = bench.artifact(&wat::parse_str(guests::HELLO).unwrap());
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let (compiler, artifact) = (bench.compiler.clone(), artifact.clone());
            tokio::spawn(async move { compiler.compile(&artifact).await.map(drop) })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    assert_eq!(bench.compiler.compiled(), 1);
    let restarted = Bench::compiler(&bench.folder, &bench.engine);
    restarted.compile(&artifact).await.unwrap();
    assert_eq!(restarted.compiled(), 0);
}

#[tokio::test]
async fn callers_that_arrive_while_code_is_written_wait_for_it() {
    let bench = Bench::new();
    let hello = wat::parse_str(guests::HELLO).unwrap();
    for round in 0..5_u8 {
        // A custom section makes another module of it.
        let artifact = bench.artifact(&[&hello[..], &[0, 3, 1, b'n', round]].concat());
        let mut callers = Vec::new();
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let (compiler, artifact, done) = (bench.compiler.clone(), artifact.clone(), done.clone());
            callers.push(tokio::spawn(async move {
                let compiled = compiler.compile(&artifact).await.map(drop);
                done.store(true, std::sync::atomic::Ordering::Relaxed);
                compiled
            }));
            tokio::time::timeout(Duration::from_micros(500), std::future::pending::<()>()).await.unwrap_err();
        }
        for caller in callers {
            caller.await.unwrap().unwrap();
        }
        assert_eq!(bench.compiler.compiled(), u64::from(round) + 1);
    }
}

#[tokio::test]
async fn a_reader_that_stalls_does_not_hold_an_instance_beyond_its_deadline() {
    let bench = Bench::new();
    let pool =
        bench.pool(guests::HTTP_ENDLESS, |settings| settings.timeout = Duration::from_millis(100)).await;
    let response = call(&pool, "").await.unwrap();
    assert_eq!(bench.engine.slots_in_use(), 1);
    let freed = async {
        while bench.engine.slots_in_use() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), freed).await.expect("given back though nobody reads");
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test]
async fn a_damaged_module_is_not_compiled() {
    let bench = Bench::new();
    let artifact = bench.artifact(&wat::parse_str(guests::HELLO).unwrap());
    std::fs::write(&artifact.path, wat::parse_str(guests::ECHO).unwrap()).unwrap();
    assert_eq!(bench.compiler.compile(&artifact).await.unwrap_err().code(), crate::DAMAGED);
}

#[tokio::test]
async fn what_the_machine_fails_at_is_not_blamed_on_the_module() {
    let bench = Bench::new();
    let mut artifact = bench.artifact(&wat::parse_str(guests::HELLO).unwrap());
    artifact.path = bench.folder.path().join("gone");
    let error = bench.compiler.compile(&artifact).await.unwrap_err();
    assert!(matches!(error, Error::Internal(_)), "{error:?}");
}

#[tokio::test]
async fn machine_code_that_was_touched_is_never_loaded() {
    let bench = Bench::new();
    let artifact = bench.artifact(&wat::parse_str(guests::HELLO).unwrap());
    bench.compiler.compile(&artifact).await.unwrap();
    let files = || {
        let entries =
            std::fs::read_dir(bench.folder.path().join("code")).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.filter(|path| path.is_file()).collect();
        files.sort();
        <[_; 2]>::try_from(files).unwrap()
    };
    type Tamper = fn(&std::path::Path, &std::path::Path);
    let tampers: [(&str, Tamper); 5] = [
        ("a flipped bit", |code, _| {
            let mut bytes = std::fs::read(code).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::remove_file(code).unwrap();
            std::fs::write(code, bytes).unwrap();
            std::fs::set_permissions(code, std::fs::Permissions::from_mode(0o400)).unwrap();
        }),
        ("a truncated file", |code, _| {
            std::fs::set_permissions(code, std::fs::Permissions::from_mode(0o600)).unwrap();
            std::fs::File::options().write(true).open(code).unwrap().set_len(100).unwrap();
            std::fs::set_permissions(code, std::fs::Permissions::from_mode(0o400)).unwrap();
        }),
        ("a symbolic link", |code, _| {
            let moved = code.with_extension("moved");
            std::fs::rename(code, &moved).unwrap();
            std::os::unix::fs::symlink(&moved, code).unwrap();
        }),
        ("another mode", |code, _| {
            std::fs::set_permissions(code, std::fs::Permissions::from_mode(0o644)).unwrap();
        }),
        ("a forged record", |_, record| {
            let text = std::fs::read_to_string(record).unwrap().replace("core-command", "command");
            std::fs::write(record, text).unwrap();
        }),
    ];
    for (index, (what, tamper)) in tampers.into_iter().enumerate() {
        let [code, record] = files();
        tamper(&code, &record);
        bench.compiler.compile(&artifact).await.unwrap();
        assert_eq!(bench.compiler.compiled(), index as u64 + 2, "{what}");
        let _ = std::fs::remove_file(code.with_extension("moved"));
    }
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
async fn an_answer_stays_within_bounds_whatever_the_guest_asks_for() {
    let bench = Bench::new();
    let illegal = bench.pool(guests::HTTP_ILLEGAL_HEADERS, |_| {}).await;
    assert_eq!(
        text(call(&illegal, "").await.unwrap()).await,
        "nnnnnnnn",
        "no header of the connection's own"
    );

    for guest in [guests::HTTP_HUGE_HEADER, guests::HTTP_MANY_HEADERS] {
        let pool = bench.pool(guest, |_| {}).await;
        if let Ok(response) = call(&pool, "").await {
            let bytes: usize =
                response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
            assert!(bytes < 64 << 10, "{bytes} bytes of headers");
        }
    }
    let lie = bench.pool(guests::HTTP_LENGTH_LIE, |_| {}).await;
    match call(&lie, "").await {
        Err(error) => assert!(matches!(error, Error::FunctionFailed { .. }), "{error:?}"),
        Ok(response) => assert!(response.into_body().collect().await.is_err()),
    }
    let hoarder = bench.pool(guests::HTTP_HOARDER, |_| {}).await;
    assert_eq!(call(&hoarder, "").await.unwrap_err().code(), "guest-trap", "resources are counted");
}

#[tokio::test]
async fn a_flood_of_output_ends_at_the_limit() {
    let bench = Bench::new();
    for guest in [guests::FLOOD, guests::FLOOD_STDERR] {
        let pool = bench.pool(guest, |_| {}).await;
        assert_eq!(call(&pool, "").await.unwrap_err().code(), "output-limit");
    }
    // What goes to the log is dropped beyond a call's share, and the guest runs into its deadline.
    let pool = bench
        .pool(guests::FLOOD_STDERR, |settings| {
            settings.stdio.combine_output = false;
            settings.timeout = Duration::from_millis(100);
        })
        .await;
    assert_eq!(call(&pool, "").await.unwrap().status(), 408);
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
