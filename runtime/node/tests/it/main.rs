//! A whole node on a real store, a real engine and real compilations, from the outside.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod access;
mod deploys;
mod disk;
mod logs;
mod remote;

use std::{
    fs::File,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use http_body_util::BodyExt;
use runtime_api::{
    CallId, Deployed, Error, FunctionName, FunctionSpec, Invocation, ModuleCommand, Phase, Provider,
    Response, Result, VersionInfo, full,
};
use runtime_egress::Policy;
use runtime_http::Credentials;
use runtime_node::{LogLimits, Logs, Node, NodeConfig, NodeParts};
use runtime_oci::{ArtifactSource, ArtifactStore, Fetched, PullPolicy, Registry, RegistryConfig};
use runtime_store::{Store, Vault};
use runtime_testing::{guests, provider_suite};
use runtime_wasm::{CompileCommand, Compiler, Engine, EngineConfig};
use tempfile::TempDir;
use tokio::sync::Notify;

mod secrets;

const CHILD: &str = "FAWN_TEST_COMPILE_CHILD";

/// Not a test of its own: the tests' binary run again as the compiling process.
#[test]
fn compile_child() {
    if std::env::var_os(CHILD).is_some() {
        runtime_wasm::compile_child(std::io::stdin()).unwrap();
    }
}

struct Machine {
    folder: TempDir,
    deploy_wait: Duration,
    garbage_grace: Duration,
    disk_budget_bytes: u64,
    basic_auth: Option<Credentials>,
}

impl Machine {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            deploy_wait: runtime_node::DEPLOY_WAIT,
            garbage_grace: Duration::from_secs(3600),
            disk_budget_bytes: u64::MAX,
            basic_auth: None,
        }
    }

    fn artifacts(&self) -> ArtifactStore {
        ArtifactStore::open(&self.folder.path().join("artifacts"), 1 << 20).unwrap()
    }

    /// Puts a function's record on the machine's disk behind the node's back.
    async fn record(&self, name: &str, json: &str) {
        let store = Store::open(self.folder.path()).unwrap();
        store.put("functions", name, json.into()).await.unwrap();
        store.close().await.unwrap();
    }

    /// Starts a node on what the machine's disk holds.
    fn start(&self) -> Running {
        rustls::crypto::ring::default_provider().install_default().ok();
        let artifacts = self.artifacts();
        let source = Registry::new(RegistryConfig::default(), artifacts.clone()).unwrap();
        self.start_with(artifacts, Arc::new(source))
    }

    fn start_with(&self, artifacts: ArtifactStore, source: Arc<dyn ArtifactSource>) -> Running {
        let config = EngineConfig { slots: 8, ..EngineConfig::new(1 << 30, self.folder.path().to_owned()) };
        let engine = Engine::start(&config).unwrap();
        let command = CompileCommand {
            program: std::env::current_exe().unwrap(),
            args: ["--exact", "compile_child"].map(Into::into).into(),
            env: vec![(CHILD.into(), "1".into())],
        };
        let compiler =
            Compiler::open(engine.clone(), &self.folder.path().join("code"), [7; 32], command).unwrap();
        let config = NodeConfig {
            max_exec_timeout: Duration::from_secs(60),
            egress: Policy::none(),
            pull_policy: PullPolicy::default(),
            deploy_wait: self.deploy_wait,
            garbage_grace: self.garbage_grace,
            disk_budget_bytes: self.disk_budget_bytes,
            basic_auth: self.basic_auth.clone(),
            keeps_calls: true,
            version: VersionInfo { sha: "unknown".into(), release: "0.0.0".into() },
        };
        let store = Store::open(self.folder.path()).unwrap();
        let (compiler, runtime) = (Arc::new(compiler), tokio::runtime::Handle::current());
        let logs = Logs::start(&self.folder.path().join("logs"), LogLimits::default(), "0123abcd").unwrap();
        let vault =
            Vault::open_or_make(store.clone(), &self.folder.path().join("secrets.key"), false).unwrap();
        let parts = NodeParts { store, vault, artifacts, source, engine, compiler, logs, runtime };
        let registry = prometheus::Registry::new();
        let node = Node::start(config, parts, &registry).unwrap();
        Running { node, registry }
    }
}

struct Running {
    node: Node,
    registry: prometheus::Registry,
}

impl Running {
    async fn stored(&self, name: &str, wat: &str) -> FunctionSpec {
        let image = self
            .node
            .store_artifact(full(wat::parse_str(wat).unwrap()), ModuleCommand::default())
            .await
            .unwrap()
            .image;
        FunctionSpec { service: name.into(), image, ..Default::default() }
    }

    async fn deploy(&self, name: &str, wat: &str) {
        self.node.deploy(self.stored(name, wat).await).await.unwrap();
    }

    async fn call(&self, name: &str) -> Result<String> {
        text(self.node.invoke(invocation(name)).await?).await
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let metric = &family.get_metric()[0];
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }

    /// Ends the node and lets its files go.
    async fn stop(self) {
        self.node.shut_down().await;
        self.node.close_logs().await;
    }
}

fn name(text: &str) -> FunctionName {
    FunctionName::parse(text).unwrap()
}

fn invocation(function: &str) -> Invocation {
    let request = http::Request::get("/").header("host", "fawn.test").body(full("")).unwrap();
    Invocation { function: name(function), call_id: CallId::new("1"), request }
}

async fn text(response: Response) -> Result<String> {
    let bytes = response.into_body().collect().await.map_err(Error::internal)?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn a_node_is_a_provider() {
    let module = wat::parse_str(guests::HELLO_HTTP).unwrap();
    let machines = Mutex::new(Vec::new());
    let make = async || {
        let machine = Machine::new();
        let node = Arc::new(machine.start().node);
        machines.lock().unwrap().push(machine);
        node
    };
    provider_suite(make, &module).await;
}

#[tokio::test]
async fn functions_survive_a_restart_and_are_not_compiled_again() {
    let machine = Machine::new();
    let running = machine.start();
    running.deploy("hello", guests::HELLO_HTTP).await;
    running.deploy("other", guests::HELLO).await;
    running.node.scale(&name("other"), 3).await.unwrap();
    assert_eq!(running.metric("fawn_compiles_total"), 2.0);
    running.stop().await;

    let running = machine.start();
    assert_eq!(running.metric("fawn_functions"), 2.0);
    assert_eq!(running.metric("fawn_functions_loaded"), 0.0);
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
    assert_eq!(running.node.status(&name("other")).await.unwrap().replicas, 3);
    assert_eq!(running.metric("fawn_compiles_total"), 0.0);
}

#[tokio::test]
async fn an_instance_larger_than_its_limit_is_refused_even_if_compiled_for_another() {
    let machine = Machine::new();
    let running = machine.start();
    let big = FunctionSpec {
        limits: Some(runtime_api::Resources { memory: "512Mi".into(), cpu: String::new() }),
        ..running.stored("big", guests::BIG_MEMORY).await
    };
    running.node.deploy(big).await.unwrap();
    let error = running.node.deploy(running.stored("small", guests::BIG_MEMORY).await).await.unwrap_err();
    assert!(error.to_string().contains("limits.memory"), "{error}");
}

#[tokio::test]
async fn zero_replicas_unload_the_code_and_a_call_wakes_it() {
    let machine = Machine::new();
    let running = machine.start();
    running.deploy("hello", guests::HELLO_HTTP).await;
    assert_eq!(running.metric("fawn_functions_loaded"), 1.0);
    running.node.scale(&name("hello"), 0).await.unwrap();
    assert_eq!(running.metric("fawn_functions_loaded"), 0.0);
    assert_eq!(running.node.status(&name("hello")).await.unwrap().available_replicas, 0);
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
    assert_eq!(running.node.status(&name("hello")).await.unwrap().available_replicas, 1);
}

#[tokio::test]
async fn code_stays_while_one_of_its_functions_is_awake() {
    let machine = Machine::new();
    let running = machine.start();
    running.deploy("one", guests::HELLO_HTTP).await;
    running.deploy("other", guests::HELLO_HTTP).await;
    assert_eq!(running.metric("fawn_functions_loaded"), 2.0);
    assert_eq!(running.metric("fawn_code_modules"), 1.0);
    running.node.scale(&name("one"), 0).await.unwrap();
    assert_eq!(running.metric("fawn_functions_loaded"), 1.0);
    assert_eq!(running.metric("fawn_code_modules"), 1.0);
    running.node.remove(&name("other")).await.unwrap();
    assert_eq!(running.metric("fawn_code_modules"), 0.0);
    assert_eq!(running.metric("fawn_code_memory_bytes"), 0.0);
    assert_eq!(running.call("one").await.unwrap(), "Hello from Fawn\n");
    assert_eq!(running.metric("fawn_code_loads_total"), 2.0);
}

#[tokio::test]
async fn a_function_has_room_for_replicas_times_max_inflight() {
    let machine = Machine::new();
    let running = machine.start();
    let mut spec = running.stored("slow", guests::HTTP_ENDLESS).await;
    spec.env_vars.insert("max_inflight".into(), "1".into());
    running.node.deploy(spec).await.unwrap();
    let _held = running.node.invoke(invocation("slow")).await.unwrap();
    let error = running.node.invoke(invocation("slow")).await.unwrap_err();
    assert!(matches!(error, Error::TooManyCalls { max_inflight: 1 }), "{error:?}");
    running.node.scale(&name("slow"), 2).await.unwrap();
    assert!(running.node.invoke(invocation("slow")).await.is_ok());
}

#[tokio::test]
async fn the_memory_of_calls_in_flight_is_told() {
    let machine = Machine::new();
    let running = machine.start();
    let used = async |function: &str| {
        running.node.usage(&name(function)).await.map(|usage| usage.unwrap().total_memory_bytes)
    };
    running.deploy("endless", guests::HTTP_ENDLESS).await;
    running.deploy("idle", guests::HELLO_HTTP).await;
    assert_eq!(used("endless").await.unwrap(), 0.0);
    let call = async || running.node.invoke(invocation("endless")).await.unwrap();
    let calls = [call().await, call().await];
    let two = used("endless").await.unwrap();
    assert!(two > 0.0);
    assert_eq!(running.metric("fawn_guest_memory_bytes"), two);
    assert_eq!(used("idle").await.unwrap(), 0.0);
    drop(calls);
    assert_eq!(used("endless").await.unwrap(), 0.0);
    assert!(matches!(used("none").await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_wake_does_not_undo_a_newer_scaling() {
    let machine = Machine::new();
    let running = machine.start();
    running.deploy("hello", guests::HELLO_HTTP).await;
    running.node.scale(&name("hello"), 0).await.unwrap();
    let hello = name("hello");
    let (scaled, called) = tokio::join!(running.node.scale(&hello, 5), running.call("hello"));
    scaled.unwrap();
    called.unwrap();
    // What the wake has to save is saved once the node is down.
    running.node.shut_down().await;
    assert_eq!(running.node.status(&name("hello")).await.unwrap().replicas, 5);
}

/// A registry that refuses some images at once, and holds every other pull until it is told.
struct Held {
    artifacts: ArtifactStore,
    go: Notify,
    /// Those that it was asked with.
    policies: Mutex<Vec<PullPolicy>>,
}

impl Held {
    fn new(artifacts: &ArtifactStore) -> Arc<Self> {
        Arc::new(Self { artifacts: artifacts.clone(), go: Notify::new(), policies: Mutex::default() })
    }
}

#[async_trait::async_trait]
impl ArtifactSource for Held {
    async fn fetch(
        &self,
        image: &runtime_api::ImageReference,
        policy: PullPolicy,
        _progress: &(dyn Fn(runtime_oci::Progress) + Send + Sync),
    ) -> Result<Fetched> {
        self.policies.lock().unwrap().push(policy);
        if image.tag.as_deref() != Some("refused") {
            self.go.notified().await;
        }
        let missing = || Error::invalid("no-such-image", "there is no such image");
        let artifact = image.digest.and_then(|digest| self.artifacts.get(&digest)).ok_or_else(missing)?;
        Ok(Fetched { artifact, image: image.clone() })
    }
}

async fn settled(node: &Node, function: &str) -> Phase {
    loop {
        let status = node.status(&name(function)).await.unwrap();
        if status.deployment.phase != Phase::Pending {
            return status.deployment.phase;
        }
        tokio::task::yield_now().await;
    }
}
