//! A whole node on a real store, a real engine and real compilations, from the outside.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod access;
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
async fn a_rejected_update_leaves_the_old_revision_serving() {
    let running = Machine::new();
    let running = running.start();
    running.deploy("hello", guests::HELLO_HTTP).await;
    for (wat, code) in [(guests::NO_START, "no-entry-point"), (guests::UNKNOWN_IMPORT, "unknown-import")] {
        let error = running.node.update(running.stored("hello", wat).await).await.unwrap_err();
        assert_eq!(error.code(), code);
    }
    let mut spec = running.stored("hello", guests::HELLO_HTTP).await;
    spec.image = "fawn.local/module@sha256:".to_owned() + &"0".repeat(64);
    assert!(running.node.update(spec).await.is_err());
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
    let status = running.node.status(&name("hello")).await.unwrap();
    assert_eq!(status.deployment.phase, Phase::Ready);
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

#[tokio::test]
async fn a_long_deploy_answers_pending_and_goes_on_after_a_restart() {
    let machine = Machine { deploy_wait: Duration::from_millis(1), ..Machine::new() };
    let artifacts = machine.artifacts();
    let running = machine.start_with(artifacts.clone(), Held::new(&artifacts));
    let good = running.stored("hello", guests::HELLO_HTTP).await;
    assert_eq!(running.node.deploy(good.clone()).await.unwrap(), Deployed::Pending);
    let status = running.node.status(&name("hello")).await.unwrap();
    assert_eq!((status.available_replicas, status.deployment.phase), (0, Phase::Pending));
    assert!(matches!(running.call("hello").await, Err(Error::Unavailable { .. })));
    running.stop().await;

    let source = Held::new(&artifacts);
    let running = machine.start_with(artifacts.clone(), source.clone());
    source.go.notify_one();
    assert_eq!(settled(&running.node, "hello").await, Phase::Ready);
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");

    // An update that fails late leaves what serves, and says why.
    let bad = FunctionSpec { image: "registry.test/none:1".into(), ..good };
    assert_eq!(running.node.update(bad).await.unwrap(), Deployed::Pending);
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
    source.go.notify_one();
    assert_eq!(settled(&running.node, "hello").await, Phase::Failed);
    let status = running.node.status(&name("hello")).await.unwrap();
    assert_eq!(status.deployment.reason, "there is no such image");
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
    running.stop().await;
}

#[tokio::test]
async fn what_a_tag_meant_is_told_and_outlasts_a_restart() {
    let machine = Machine::new();
    let artifacts = machine.artifacts();
    let source = Held::new(&artifacts);
    let running = machine.start_with(artifacts.clone(), source.clone());
    let uploaded = running.stored("hello", guests::HELLO_HTTP).await;
    let image = uploaded.image().unwrap();
    let image = runtime_api::ImageReference { registry: "registry.test".into(), ..image }.to_string();
    let mut spec = FunctionSpec { image: image.clone(), ..uploaded };
    source.go.notify_one();
    running.node.deploy(spec.clone()).await.unwrap();
    spec.annotations.insert("dev.fawn.pull-policy".into(), "Never".into());
    source.go.notify_one();
    running.node.update(spec).await.unwrap();
    assert_eq!(*source.policies.lock().unwrap(), [PullPolicy::Always, PullPolicy::Never]);
    assert_eq!(running.node.status(&name("hello")).await.unwrap().deployment.image, image);
    running.stop().await;

    let gone = Held::new(&artifacts);
    let running = machine.start_with(artifacts, gone.clone());
    assert_eq!(running.node.status(&name("hello")).await.unwrap().deployment.image, image);
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
    assert!(gone.policies.lock().unwrap().is_empty(), "nobody was asked");
    running.stop().await;
}

#[tokio::test]
async fn a_rejected_update_leaves_a_promised_deployment_going_on() {
    let machine = Machine { deploy_wait: Duration::from_millis(1), ..Machine::new() };
    let artifacts = machine.artifacts();
    let source = Held::new(&artifacts);
    let running = machine.start_with(artifacts, source.clone());
    let promised = running.stored("hello", guests::HELLO_HTTP).await;
    assert_eq!(running.node.deploy(promised.clone()).await.unwrap(), Deployed::Pending);
    let refused = FunctionSpec { image: "registry.test/none:refused".into(), ..promised };
    let error = running.node.update(refused).await.unwrap_err();
    assert_eq!(error.code(), "no-such-image");
    assert_eq!(running.node.status(&name("hello")).await.unwrap().deployment.phase, Phase::Pending);
    source.go.notify_one();
    assert_eq!(settled(&running.node, "hello").await, Phase::Ready);
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
}

#[tokio::test]
async fn a_first_deploy_is_listed_while_it_is_under_way() {
    let machine = Machine::new();
    let artifacts = machine.artifacts();
    let source = Held::new(&artifacts);
    let running = machine.start_with(artifacts, source.clone());
    let spec = running.stored("hello", guests::HELLO_HTTP).await;
    let begun = jiff::Timestamp::now();
    let meanwhile = async {
        let [listed] = <[_; 1]>::try_from(running.node.list("").await.unwrap()).unwrap();
        assert_eq!(listed, running.node.status(&name("hello")).await.unwrap());
        assert_eq!((listed.deployment.phase, listed.available_replicas), (Phase::Pending, 0));
        assert!(listed.created_at >= begun, "{}", listed.created_at);
        source.go.notify_one();
        listed.created_at
    };
    let (deployed, created_at) = tokio::join!(running.node.deploy(spec), meanwhile);
    assert_eq!(deployed.unwrap(), Deployed::Ready);
    assert_eq!(running.node.status(&name("hello")).await.unwrap().created_at, created_at);
}

#[tokio::test]
async fn a_node_that_shuts_down_takes_no_deployment() {
    let machine = Machine::new();
    let artifacts = machine.artifacts();
    let running = machine.start_with(artifacts.clone(), Held::new(&artifacts));
    let spec = running.stored("hello", guests::HELLO_HTTP).await;
    let (under_way, ()) = tokio::join!(running.node.deploy(spec.clone()), running.node.shut_down());
    for refused in [under_way, running.node.deploy(spec.clone()).await, running.node.update(spec).await] {
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert_eq!(error.to_string(), "the node is shutting down");
    }
}

#[tokio::test]
async fn what_an_earlier_version_accepted_goes_on() {
    let machine = Machine::new();
    let running = machine.start();
    running.deploy("hello", guests::HELLO_HTTP).await;
    running.stop().await;
    // As if rules of today had come after it was deployed.
    let store = Store::open(machine.folder.path()).unwrap();
    let record = store.get("functions", "hello.openfaas-fn").unwrap().unwrap();
    store.close().await.unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let spec = &mut record["serving"]["spec"];
    spec["annotations"] = serde_json::json!({ "dev.fawn.egres": "none", "faas.net/async": "true" });
    spec["envVars"] = serde_json::json!({ "mode": "afterburn", "jwt_auth": "true" });
    machine.record("hello.openfaas-fn", &record.to_string()).await;

    let running = machine.start();
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
    let status = running.node.status(&name("hello")).await.unwrap();
    assert_eq!(status.deployment.phase, Phase::Ready, "{}", status.deployment.reason);
    let image = status.spec.image.clone();
    let spec = FunctionSpec { service: "hello".into(), image, ..status.spec };
    assert!(running.node.update(spec).await.is_err(), "a deploy of the same is refused");
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
}

#[tokio::test]
async fn what_cannot_be_run_any_more_is_kept_and_says_so() {
    let machine = Machine::new();
    let pending = r#"{"service":"old","image":"a/b","annotations":{"dev.fawn.egress":"not a policy!"}}"#;
    let record = format!(
        r#"{{"created_at":"2026-01-01T00:00:00Z","replicas":1,"serving":null,"pending":{pending},"failure":null}}"#
    );
    machine.record("old.openfaas-fn", &record).await;
    let running = machine.start();
    let status = running.node.status(&name("old")).await.unwrap();
    assert_eq!((status.deployment.phase, status.available_replicas), (Phase::Failed, 0));
    assert!(status.deployment.reason.contains("dev.fawn.egress"), "{}", status.deployment.reason);
    let error = running.call("old").await.unwrap_err();
    assert!(error.to_string().contains("dev.fawn.egress"), "{error}");
}

#[tokio::test]
async fn an_unreadable_record_costs_no_other_function() {
    let machine = Machine::new();
    let running = machine.start();
    running.deploy("hello", guests::HELLO_HTTP).await;
    running.stop().await;
    for bad in ["replaced", "removed"] {
        machine.record(&format!("{bad}.openfaas-fn"), "{").await;
    }
    let running = machine.start();
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
    let status = running.node.status(&name("removed")).await.unwrap();
    assert_eq!((status.deployment.phase, status.available_replicas), (Phase::Failed, 0));
    assert!(status.deployment.reason.contains("record"), "{}", status.deployment.reason);
    assert!(running.call("removed").await.unwrap_err().to_string().contains("record"));
    assert!(running.node.scale(&name("removed"), 2).await.is_err());
    running.stop().await;

    // Nothing has touched the records.
    let running = machine.start();
    running.node.remove(&name("removed")).await.unwrap();
    running.node.update(running.stored("replaced", guests::HELLO_HTTP).await).await.unwrap();
    running.stop().await;
    let running = machine.start();
    assert!(matches!(running.node.status(&name("removed")).await, Err(Error::NotFound(_))));
    assert_eq!(running.call("replaced").await.unwrap(), "Hello from Fawn\n");
}

#[tokio::test]
async fn a_module_damaged_on_disk_is_refused_and_can_be_given_again() {
    let machine = Machine::new();
    let running = machine.start();
    let spec = running.stored("hello", guests::HELLO_HTTP).await;
    let modules = machine.folder.path().join("artifacts/modules");
    let path = std::fs::read_dir(&modules).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, wat::parse_str(guests::HELLO).unwrap()).unwrap();

    let error = running.node.deploy(spec.clone()).await.unwrap_err();
    assert_eq!(error.code(), runtime_wasm::DAMAGED, "{error}");
    running.deploy("hello", guests::HELLO_HTTP).await;
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
}

#[tokio::test]
async fn a_damaged_record_can_be_replaced() {
    let machine = Machine::new();
    let running = machine.start();
    running.deploy("hello", guests::HELLO_HTTP).await;
    running.stop().await;
    // Records sealed with another key are as good as damaged.
    std::fs::write(machine.folder.path().join("store.key"), [1; 32]).unwrap();
    let running = machine.start();
    let status = running.node.status(&name("hello")).await.unwrap();
    assert_eq!(status.deployment.phase, Phase::Failed);
    running.node.update(running.stored("hello", guests::HELLO_HTTP).await).await.unwrap();
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
}

#[tokio::test]
async fn what_a_deployment_needs_is_not_swept() {
    let mut machine = Machine { deploy_wait: Duration::from_millis(1), ..Machine::new() };
    let artifacts = machine.artifacts();
    let running = machine.start_with(artifacts.clone(), Held::new(&artifacts));
    let spec = running.stored("hello", guests::HELLO_HTTP).await;
    let needed = spec.image().unwrap().digest.unwrap();
    assert_eq!(running.node.deploy(spec).await.unwrap(), Deployed::Pending);
    running.stop().await;

    let age = |artifact: runtime_api::Artifact| {
        File::open(artifact.path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    };
    age(artifacts.get(&needed).unwrap());
    machine.garbage_grace = Duration::from_secs(1);
    let source = Held::new(&artifacts);
    let running = machine.start_with(artifacts.clone(), source.clone());
    // Once the second is gone, a whole sweep has passed.
    for _ in 0..2 {
        let unused = artifacts.insert(full(wat::parse_str(guests::HELLO).unwrap())).await.unwrap();
        age(unused.clone());
        while artifacts.get(&unused.digest).is_some() {
            tokio::task::yield_now().await;
        }
    }
    source.go.notify_one();
    assert_eq!(settled(&running.node, "hello").await, Phase::Ready);
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
    running.stop().await;
}

/// A module like hello, so large, and unlike others by its mark.
fn padded(mark: u8, bytes: usize) -> Vec<u8> {
    let padding = [&b"\x07padding"[..], &vec![mark; bytes]].concat();
    let length = u32::try_from(padding.len()).unwrap();
    let leb = [length as u8 & 0x7f | 0x80, (length >> 7) as u8 & 0x7f | 0x80, (length >> 14) as u8];
    [&wat::parse_str(guests::HELLO_HTTP).unwrap()[..], &[0], &leb, &padding].concat()
}

#[tokio::test]
async fn what_no_function_needs_makes_room_the_longest_unused_first() {
    let machine =
        Machine { disk_budget_bytes: 1 << 20, garbage_grace: Duration::from_secs(60), ..Machine::new() };
    let artifacts = machine.artifacts();
    let running = machine.start_with(
        artifacts.clone(),
        Arc::new(Registry::new(RegistryConfig::default(), artifacts.clone()).unwrap()),
    );
    let mut stored = Vec::new();
    for mark in 0..3 {
        let module = artifacts.insert(full(padded(mark, 300 << 10))).await.unwrap();
        let age = Duration::from_secs(3600 * u64::from(3 - mark));
        File::open(&module.path).unwrap().set_modified(SystemTime::now() - age).unwrap();
        stored.push(module);
    }
    let is_there = |nth: usize| artifacts.get(&stored[nth].digest).is_some();
    let spec = |nth: usize| FunctionSpec {
        service: format!("f{nth}"),
        image: runtime_api::ImageReference::local(stored[nth].digest).to_string(),
        ..Default::default()
    };
    // The oldest is deployed, so it is not the one to go.
    running.node.deploy(spec(0)).await.unwrap();
    let young = artifacts.insert(full(padded(9, 300 << 10))).await.unwrap();
    running.node.deploy(spec(2)).await.unwrap();
    assert_eq!([is_there(0), is_there(1), is_there(2)], [true, false, true]);
    assert!(artifacts.get(&young.digest).is_some(), "somebody may be about to deploy it");
    assert_eq!(running.call("f0").await.unwrap(), "Hello from Fawn\n");
}

#[tokio::test]
async fn a_deploy_beyond_the_disk_budget_is_refused_and_nothing_else() {
    let machine = Machine { disk_budget_bytes: 400 << 10, ..Machine::new() };
    let artifacts = machine.artifacts();
    let running = machine.start_with(
        artifacts.clone(),
        Arc::new(Registry::new(RegistryConfig::default(), artifacts.clone()).unwrap()),
    );
    let spec = async |mark: u8| {
        let module = artifacts.insert(full(padded(mark, 300 << 10))).await.unwrap();
        let image = runtime_api::ImageReference::local(module.digest).to_string();
        FunctionSpec { service: format!("f{mark}"), image, ..Default::default() }
    };
    running.node.deploy(spec(1).await).await.unwrap();
    let refused = running.node.deploy(spec(2).await).await.unwrap_err();
    assert_eq!(refused.code(), "storage-full");
    assert!(refused.to_string().contains("--disk-budget"), "{refused}");
    let refused =
        running.node.store_artifact(full(padded(3, 1)), ModuleCommand::default()).await.unwrap_err();
    assert_eq!(refused.code(), "storage-full");
    assert_eq!(running.call("f1").await.unwrap(), "Hello from Fawn\n");
    running.node.remove(&name("f1")).await.unwrap();
}

#[tokio::test]
async fn code_of_another_wasmtime_or_none_is_compiled_before_it_is_called() {
    let machine = Machine::new();
    let running = machine.start();
    running.deploy("hello", guests::HELLO_HTTP).await;
    running.stop().await;
    remove_files(&machine.folder.path().join("code"));
    let running = machine.start();
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
    assert_eq!(running.metric("fawn_compiles_total"), 1.0);
}

fn remove_files(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::remove_file(path).unwrap();
        }
    }
}
