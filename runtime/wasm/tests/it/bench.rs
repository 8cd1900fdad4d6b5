use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use runtime_api::{
    Artifact, ArtifactKind, Body, BodyError, CallId, Digest, FunctionName, Invocation, Response, Result, full,
};
use runtime_egress::Policy;
use runtime_wasm::{
    CompileCommand, CompiledModule, Compiler, Engine, EngineConfig, InstancePool, Limits, Settings,
    StdioSettings,
};
use sha2::Digest as _;
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

pub(crate) const CHILD: &str = "FAWN_TEST_COMPILE_CHILD";

/// No state that a test waits for takes longer, even while every core is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// An engine, and what compiles for it.
pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) compiler: Arc<Compiler>,
    folder: TempDir,
}

impl Bench {
    pub(crate) fn with_slots(slots: u32) -> Self {
        Self::with(|config| config.slots = slots)
    }

    pub(crate) fn with(change: impl FnOnce(&mut EngineConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = EngineConfig::new(1 << 30, folder.path().to_owned());
        change(&mut config);
        let engine = Engine::start(&config).unwrap();
        let command = CompileCommand {
            program: std::env::current_exe().unwrap(),
            args: ["--exact", "compile_child"].map(Into::into).into(),
            env: vec![(CHILD.into(), "1".into())],
        };
        let code = folder.path().join("code");
        let compiler = Arc::new(Compiler::open(engine.clone(), &code, [7; 32], command).unwrap());
        Self { engine, compiler, folder }
    }

    pub(crate) async fn compile(&self, wasm: &[u8]) -> Result<CompiledModule> {
        let digest = Digest(sha2::Sha256::digest(wasm).into());
        let path = self.folder.path().join(digest.hex());
        std::fs::write(&path, wasm).unwrap();
        let kind = ArtifactKind::sniff(wasm).unwrap_or(ArtifactKind::Module);
        let artifact =
            Artifact { digest, size_bytes: wasm.len() as u64, kind, args: vec![], env: vec![], path };
        self.compiler.compile(&artifact).await
    }

    /// A function whose code is loaded.
    pub(crate) async fn pool(&self, wat: &str) -> Arc<InstancePool> {
        self.pool_with(wat, |_| {}).await
    }

    pub(crate) async fn pool_with(&self, wat: &str, change: impl FnOnce(&mut Settings)) -> Arc<InstancePool> {
        self.pool_of(&wat::parse_str(wat).unwrap(), change).await.unwrap()
    }

    /// The same of any bytes, which may be rejected.
    pub(crate) async fn pool_of(
        &self,
        wasm: &[u8],
        change: impl FnOnce(&mut Settings),
    ) -> Result<Arc<InstancePool>> {
        let module = self.compile(wasm).await?;
        module.check_memory(128 << 20)?;
        let mut settings = Settings {
            function: FunctionName::parse("guest").unwrap(),
            limits: Limits { memory_bytes: 128 << 20, egress: Policy::none() },
            timeout: Duration::from_secs(60),
            max_inflight: 0,
            env: vec![],
            args: vec!["guest".into(), "60000".into()],
            secrets: None,
            stdio: StdioSettings {
                combine_output: true,
                cgi_headers: true,
                content_type: None,
                max_output_bytes: 4 << 20,
            },
        };
        change(&mut settings);
        let pool = InstancePool::new(
            self.engine.clone(),
            self.compiler.clone(),
            module,
            settings,
            TaskTracker::new(),
        );
        pool.warm().await?;
        Ok(Arc::new(pool))
    }

    /// Waits until no call holds anything any more.
    pub(crate) async fn at_rest(&self, what: &str, pools: &[&Arc<InstancePool>]) {
        let held = || {
            let inflight: u64 = pools.iter().map(|pool| pool.inflight()).sum();
            (self.engine.slots_in_use(), self.engine.memory_in_use_bytes(), inflight)
        };
        let rest = until(|| held() == (0, 0, 0));
        let rested = tokio::time::timeout(PATIENCE, rest).await;
        assert!(rested.is_ok(), "{what}: slots, memory and calls are still held: {:?}", held());
    }

    /// Waits until a call has an instance.
    pub(crate) async fn running(&self, what: &str) {
        let instance = until(|| self.engine.memory_in_use_bytes() > 0);
        tokio::time::timeout(PATIENCE, instance).await.expect(what);
    }
}

/// Lets others go on until something holds.
pub(crate) async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn invocation(body: Body) -> Invocation {
    Invocation {
        function: FunctionName::parse("guest").unwrap(),
        call_id: CallId::new("call-1"),
        request: http::Request::post("/path?q=1").header("host", "fawn.test").body(body).unwrap(),
    }
}

/// A call that may take only so long (`X-Timeout`).
pub(crate) fn hurried(body: Body, time: &str) -> Invocation {
    let mut invocation = invocation(body);
    invocation.request.headers_mut().insert("x-timeout", time.parse().unwrap());
    invocation
}

/// A body that comes in these pieces, each after the reader had to wait.
pub(crate) fn in_pieces(pieces: Vec<Bytes>) -> Body {
    let pieces = stream::unfold(pieces.into_iter(), |mut pieces| async {
        tokio::task::yield_now().await;
        Some((Ok::<_, BodyError>(Frame::data(pieces.next()?)), pieces))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// A body whose pieces are all there already.
pub(crate) fn at_hand(pieces: Vec<Bytes>) -> Body {
    let frames = pieces.into_iter().map(|piece| Ok::<_, BodyError>(Frame::data(piece)));
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

/// A body that begins and never goes on.
pub(crate) fn unfinished(begin: &'static str) -> Body {
    use futures_util::StreamExt;

    let first = stream::iter([Ok::<_, BodyError>(Frame::data(Bytes::from_static(begin.as_bytes())))]);
    StreamBody::new(first.chain(stream::pending())).boxed_unsync()
}

pub(crate) async fn call(pool: &Arc<InstancePool>, body: impl Into<Bytes>) -> Result<Response> {
    pool.invoke(invocation(full(body)), u64::MAX).await
}

pub(crate) async fn bytes(response: Response) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

pub(crate) async fn text(response: Response) -> String {
    String::from_utf8(bytes(response).await.into()).unwrap()
}
