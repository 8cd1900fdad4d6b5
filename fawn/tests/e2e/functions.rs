//! Each guest, each way of bringing it: deploy, list, describe, call, update, remove.

use runtime_testing::guests::{ECHO, HELLO_HTTP};
use serde_json::{Value, json};

use crate::{
    edge::{Deployment, Edge, Plan},
    guests::{built, built_path, text},
    registry::Registry,
};

/// How a module comes to a node.
#[derive(Clone, Copy, Debug)]
enum Way {
    Artifact,
    PushedByFawn,
    ScratchImage,
    Index,
    Upload,
}

const WAYS: [Way; 5] = [Way::Artifact, Way::PushedByFawn, Way::ScratchImage, Way::Index, Way::Upload];

/// A built guest: two deployments of it that answer one question differently.
struct Guest {
    file: &'static str,
    kind: Kind,
    first: (fn(Deployment) -> Deployment, &'static str),
    second: (fn(Deployment) -> Deployment, &'static str),
}

/// What all guests of a kind have in common, whatever their language.
#[derive(Clone, Copy)]
enum Kind {
    /// Commands named by its first argument: `cat`, `env` and `exit CODE` among them.
    Program,
    /// Routes: `/`, `/echo`, `/answer`, `/env`, `/json`, `/sha256` and `/throw` among them.
    Handler {
        /// The status of a call of `/throw`.
        thrown: u16,
    },
}

impl Kind {
    /// Where to send a question.
    fn path(self) -> &'static str {
        match self {
            Self::Program => "",
            Self::Handler { .. } => "/env?name=WHO",
        }
    }
}

const C: Guest = Guest {
    file: "c.wasm",
    kind: Kind::Program,
    first: (|deployment| deployment, "hello"),
    second: (|deployment| deployment.process("c grow 1"), "took 1 MiB\n"),
};

const GO: Guest = Guest {
    file: "go.wasm",
    kind: Kind::Program,
    first: (|deployment| deployment.process("upper"), "HELLO"),
    second: (|deployment| deployment.process("args one two"), "[\"one\" \"two\"]\n"),
};

const ASSEMBLYSCRIPT: Guest = Guest {
    file: "assemblyscript.wasm",
    kind: Kind::Program,
    first: (|deployment| deployment, "hello"),
    second: (|deployment| deployment.process("program args one two"), "one two\n"),
};

const RUST_COMMAND: Guest = Guest {
    file: "rust-command.wasm",
    kind: Kind::Program,
    first: (|deployment| deployment, "hello"),
    second: (|deployment| deployment.process("program args one two"), "[\"one\", \"two\"]\n"),
};

const fn handler(file: &'static str, thrown: u16) -> Guest {
    Guest {
        file,
        kind: Kind::Handler { thrown },
        first: (|deployment| deployment.variable("WHO", "the first"), "the first"),
        second: (|deployment| deployment.variable("WHO", "the second"), "the second"),
    }
}

#[tokio::test]
#[ignore = "needs docker-registry and the guests: run scripts/test"]
async fn a_c_program_lives_a_whole_life_however_it_came() {
    every_way(&C).await;
}

#[tokio::test]
#[ignore = "needs docker-registry and the guests: run scripts/test"]
async fn a_go_program_lives_a_whole_life_however_it_came() {
    every_way(&GO).await;
}

#[tokio::test]
#[ignore = "needs docker-registry and the guests: run scripts/test"]
async fn an_assemblyscript_program_lives_a_whole_life_however_it_came() {
    every_way(&ASSEMBLYSCRIPT).await;
}

#[tokio::test]
#[ignore = "needs docker-registry and the guests: run scripts/test"]
async fn a_rust_program_lives_a_whole_life_however_it_came() {
    every_way(&RUST_COMMAND).await;
}

#[tokio::test]
#[ignore = "needs docker-registry and the guests: run scripts/test"]
async fn a_rust_handler_lives_a_whole_life_however_it_came() {
    every_way(&handler("rust-handler.wasm", 500)).await;
}

#[tokio::test]
#[ignore = "needs docker-registry and the guests: run scripts/test"]
async fn a_python_handler_lives_a_whole_life_however_it_came() {
    every_way(&handler("python.wasm", 500)).await;
}

#[tokio::test]
#[ignore = "needs docker-registry and the guests: run scripts/test"]
async fn a_javascript_handler_lives_a_whole_life_however_it_came() {
    // Its engine catches what is thrown, and goes on without an answer.
    let edge = every_way(&handler("js.wasm", 502)).await;
    let pieces = edge.get("/function/handler/pieces?count=3&pause=5").await.ok();
    assert_eq!(pieces, "piece 0\npiece 1\npiece 2\n");
}

/// All on one node, which compiles the guest once.
async fn every_way(guest: &Guest) -> Edge {
    let registry = Registry::start().await;
    let edge = Plan::new().insecure_registry(&registry.host).start().await;
    for way in WAYS {
        let image = bring(guest, way, &registry, &edge).await;
        lives(guest, &format!("{way:?}").to_lowercase(), &image, &edge).await;
    }
    let image = edge.upload(built(guest.file)).await;
    match guest.kind {
        Kind::Program => works_as_a_program(&image, &edge).await,
        Kind::Handler { thrown } => works_as_a_handler(&image, thrown, &edge).await,
    }
    edge
}

/// Puts the guest where the node can get it, and gives the reference.
async fn bring(guest: &Guest, way: Way, registry: &Registry, edge: &Edge) -> String {
    let module = built(guest.file);
    let repository = guest.file.trim_end_matches(".wasm");
    match way {
        Way::Artifact => registry.push_artifact(repository, "artifact", &module).await,
        Way::ScratchImage => registry.push_scratch_image(repository, "scratch", &module).await,
        Way::Index => registry.push_index(repository, "index", &module).await,
        Way::Upload => edge.upload(module).await,
        Way::PushedByFawn => {
            let image = registry.image(&format!("{repository}:pushed"));
            let file = built_path(guest.file);
            let push = ["push", file.to_str().unwrap(), &image, "--insecure-registry", &registry.host];
            edge.fawn(&push).await.succeeds();
            image
        }
    }
}

async fn lives(guest: &Guest, name: &str, image: &str, edge: &Edge) {
    let question = format!("{name}{}", guest.kind.path());
    let (first, answer) = guest.first;
    edge.serve(first(Deployment::of(name, image)).variable("GREETING", "hi")).await;
    assert!(edge.list().await.contains(&name.to_owned()));
    let status = edge.status(name).await.json();
    assert_eq!((&status["name"], &status["image"]), (&json!(name), &json!(image)), "{status}");
    assert_eq!(status["envVars"]["GREETING"], "hi", "{status}");
    assert_eq!(edge.call(&question, "hello").await.ok(), answer, "{name}");

    let (second, answer) = guest.second;
    edge.serve(second(Deployment::of(name, image))).await;
    assert_eq!(edge.call(&question, "hello").await.ok(), answer, "{name} after the update");
    assert_eq!(edge.status(name).await.json()["envVars"]["GREETING"], json!(null), "{name}");

    assert_eq!(edge.remove(name).await.status, 202);
    assert_eq!(edge.call(&question, "hello").await.status, 404, "{name} is gone");
    assert_eq!(edge.status(name).await.status, 404);
    assert_eq!(edge.remove(name).await.status, 404, "a second removal finds nothing");
    assert!(!edge.list().await.contains(&name.to_owned()));
}

async fn works_as_a_program(image: &str, edge: &Edge) {
    let serve = async |words: &str| {
        let deployment = Deployment::of("program", image).process(&format!("program {words}"));
        edge.serve(deployment.variable("COLOUR", "green")).await;
    };
    serve("env").await;
    let seen = edge.call("program/a/b%20c?q=1", "four").await.ok();
    for line in [
        "COLOUR=green",
        "Http_Method=POST",
        "Http_Path=/a/b c",
        "Http_Query=q=1",
        "Http_ContentLength=4",
        "OPENFAAS_NAME=program",
        "OPENFAAS_NAMESPACE=openfaas-fn",
    ] {
        assert!(seen.lines().any(|seen| seen == line), "{line} is not in\n{seen}");
    }

    serve("cat").await;
    let sent = large_body();
    assert!(edge.call("program", sent.clone()).await.body == sent, "1 MiB comes back as it was");

    serve("exit 7").await;
    let answer = edge.call("program", "").await;
    assert_eq!(answer.status, 500);
    assert_eq!(answer.text(), "exit status 7\nexiting with 7\nthis went to stderr\n");
}

async fn works_as_a_handler(image: &str, thrown: u16, edge: &Edge) {
    edge.serve(Deployment::of("handler", image).variable("COLOUR", "green")).await;
    let answer = edge.get("/function/handler/answer?status=418&x-name=fawn").await;
    assert_eq!((answer.status, answer.text().as_str()), (418, "as asked\n"));
    assert_eq!(answer.headers["x-name"], "fawn");

    let answer = edge.call("handler/json", r#"{"a":[1,2]}"#).await.json();
    assert_eq!(answer, json!({ "method": "POST", "path": "/json", "got": { "a": [1, 2] } }));
    assert_eq!(edge.get("/function/handler/env?name=COLOUR").await.ok(), "green");
    assert_eq!(edge.get("/function/handler/nowhere").await.status, 404);

    let sent = large_body();
    let digest = crate::images::digest(&sent);
    assert_eq!(format!("sha256:{}", edge.call("handler/sha256", sent.clone()).await.ok()), digest);
    assert!(edge.call("handler/echo", sent.clone()).await.body == sent, "1 MiB comes back as it was");

    let answer = edge.get("/function/handler/throw").await;
    assert_eq!(answer.status, thrown, "{answer}");
    assert!(!answer.text().contains("thrown on purpose"), "that is for the log: {answer}");
    let next = edge.get("/function/handler/").await.ok();
    assert!(next.starts_with("hello from "), "the next call is not harmed: {next}");
}

/// 1 MiB that is no text and repeats at no power of two.
fn large_body() -> Vec<u8> {
    (0..=250).cycle().take(1 << 20).collect()
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn a_handler_reaches_what_its_egress_allows_and_nothing_else() {
    let peer = Edge::start().await;
    peer.serve(Deployment::of("greet", &peer.upload(text(HELLO_HTTP)).await)).await;
    let host = peer.gateway.strip_prefix("http://").unwrap();

    let edge = Edge::start().await;
    let image = edge.upload(built("rust-handler.wasm")).await;
    let fetch = async |annotations: Value| {
        edge.serve(Deployment::of("fetcher", &image).field("annotations", annotations)).await;
        edge.call("fetcher/fetch", format!("http://{host}/function/greet")).await
    };
    let egress = |rule: &str| json!({ "dev.fawn.egress": rule });
    for denying in
        [json!({}), egress("none"), egress("public"), egress("127.0.0.1:1"), egress("192.168.0.0/16")]
    {
        let answer = fetch(denying.clone()).await;
        assert_eq!(answer.status, 502, "{denying}: {answer}");
        // What the guest's library notices first: that the request was denied, or that nobody takes its body.
        let told = ["HttpRequestDenied", "connection reset"];
        assert!(told.iter().any(|told| answer.text().contains(told)), "{denying}: {answer}");
    }
    assert_eq!(fetch(egress(host)).await.ok(), "Hello from Fawn\n");
    assert_eq!(fetch(egress("127.0.0.0/8")).await.ok(), "Hello from Fawn\n");
    assert_eq!(
        peer.metric("gateway_function_invocation_total").await,
        2.0,
        "what was denied has not arrived"
    );
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn a_file_is_deployed_by_one_command() {
    let edge = Edge::start().await;
    let file = built_path("go.wasm");
    let deploy = ["deploy", file.to_str().unwrap(), "--name", "loud", "--fprocess", "upper"];
    let said = edge.fawn(&deploy).await.succeeds();
    assert!(said.contains(&format!("{}/function/loud", edge.gateway)), "{said}");
    assert_eq!(edge.call("loud", "hello").await.ok(), "HELLO");

    let deploy = ["deploy", file.to_str().unwrap(), "--name", "loud", "--fprocess", "args b"];
    edge.fawn(&deploy).await.succeeds();
    assert_eq!(edge.call("loud", "hello").await.ok(), "[\"b\"]\n");
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn files_given_at_the_start_are_functions() {
    let plan = Plan::new().in_one().argument(built_path("c.wasm").to_str().unwrap());
    let wat = plan.file("greet.wat", runtime_testing::guests::HELLO.as_bytes());
    let edge = plan.argument(wat.to_str().unwrap()).start().await;
    assert_eq!(edge.call("c", "hello").await.ok(), "hello");
    assert_eq!(edge.call("greet", "").await.ok(), "Hello from Fawn\n");
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn an_update_may_change_the_kind_of_guest() {
    let edge = Edge::start().await;
    let handler = Deployment::of("changing", &edge.upload(text(HELLO_HTTP)).await);
    let program = Deployment::of("changing", &edge.upload(text(ECHO)).await);
    for _ in 0..2 {
        edge.serve(handler.clone()).await;
        assert_eq!(edge.call("changing", "an echo").await.ok(), "Hello from Fawn\n");
        edge.serve(program.clone()).await;
        assert_eq!(edge.call("changing", "an echo").await.ok(), "an echo");
    }
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn a_program_is_told_of_its_memory_limit() {
    let edge = Edge::start().await;
    let image = edge.upload(built("c.wasm")).await;
    edge.serve(Deployment::of("failing", &image).process("c grow 1000")).await;
    let answer = edge.call("failing", "").await;
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("no memory after"), "{answer}");
}

#[tokio::test]
#[ignore = "needs docker-registry and the guests: run scripts/test"]
async fn a_private_registry_is_read_with_the_credentials_of_docker_login() {
    let registry = Registry::start_private().await;
    let config = registry.docker_config(crate::registry::USER, crate::registry::PASSWORD);
    let plan = Plan::new().insecure_registry(&registry.host);
    let edge = plan.argument("--registry-auth").argument(config.to_str().unwrap()).start().await;
    let image = registry.image("private/c:1");
    let file = built_path("c.wasm");
    let push =
        ["push", file.to_str().unwrap(), &image, "--insecure-registry", &registry.host, "--registry-auth"];
    edge.fawn(&[&push[..], &[config.to_str().unwrap()]].concat()).await.succeeds();
    edge.serve(Deployment::of("private", &image)).await;
    assert_eq!(edge.call("private", "mine").await.ok(), "mine");
}

#[tokio::test]
#[ignore = "needs docker-registry and the guests: run scripts/test"]
async fn a_mirror_is_asked_in_place_of_docker_hub() {
    let registry = Registry::start().await;
    let mirror = format!("docker.io=http://{}", registry.host);
    let edge = Plan::new().argument("--registry-mirror").argument(mirror).start().await;
    registry.push_artifact("team/c", "1", &built("c.wasm")).await;
    edge.serve(Deployment::of("mirrored", "team/c:1")).await;
    assert_eq!(edge.call("mirrored", "from afar").await.ok(), "from afar");
    assert_eq!(edge.status("mirrored").await.json()["image"], "team/c:1");
}

#[tokio::test]
#[ignore = "needs docker-registry and the guests: run scripts/test"]
async fn a_module_is_inspected_before_it_is_deployed() {
    let registry = Registry::start().await;
    let edge = Edge::start().await;
    let inspect = async |source: &str| {
        let said =
            edge.fawn(&["inspect", source, "--json", "--insecure-registry", &registry.host]).await.succeeds();
        serde_json::from_str::<Value>(&said).unwrap()
    };
    let found = inspect(built_path("js.wasm").to_str().unwrap()).await;
    assert_eq!((&found["kind"], &found["runs"]), (&json!("component"), &json!(true)), "{found}");
    assert!(found["exports"].to_string().contains("wasi:http/incoming-handler@0.2.10"), "{found}");

    let go = built("go.wasm");
    for image in [
        registry.push_artifact("go", "artifact", &go).await,
        registry.push_scratch_image("go", "scratch", &go).await,
        registry.push_index("go", "index", &go).await,
    ] {
        let found = inspect(&image).await;
        assert_eq!((&found["kind"], &found["runs"]), (&json!("module"), &json!(true)), "{found}");
        assert_eq!(found["digest"], crate::images::digest(&go), "{image}");
    }

    let magic = edge.file("magic.wat", runtime_testing::guests::UNKNOWN_IMPORT.as_bytes());
    let said = edge.fawn(&["inspect", magic.to_str().unwrap(), "--json"]).await.fails();
    for part in [r#""runs":false"#, "magic", "magic.wat does not run here"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}
