//! Each guest, each way of bringing it: deploy, list, describe, call, update, remove.

use runtime_testing::guests::{ECHO, HELLO_HTTP};
use serde_json::json;

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

/// A built guest: two deployments of it that answer `question` differently.
struct Guest {
    file: &'static str,
    question: &'static str,
    first: (fn(Deployment) -> Deployment, &'static str),
    second: (fn(Deployment) -> Deployment, &'static str),
}

const GO: Guest = Guest {
    file: "go.wasm",
    question: "hello",
    first: (|deployment| deployment.process("upper"), "HELLO"),
    second: (|deployment| deployment.process("args one two"), "[\"one\" \"two\"]\n"),
};

const C: Guest = Guest {
    file: "c.wasm",
    question: "hello",
    first: (|deployment| deployment, "hello"),
    second: (|deployment| deployment.process("c grow 1"), "took 1 MiB\n"),
};

const JAVASCRIPT: Guest = Guest {
    file: "js.wasm",
    question: "{}",
    first: (|deployment| deployment, "hello from JavaScript\n"),
    // Its code does not read the environment: what must change is the spec.
    second: (|deployment| deployment.variable("CHANGED", "yes"), "hello from JavaScript\n"),
};

#[tokio::test]
#[ignore = "needs docker-registry and the guests: run scripts/test"]
async fn a_go_program_lives_a_whole_life_however_it_came() {
    every_way(&GO).await;
}

#[tokio::test]
#[ignore = "needs docker-registry and the guests: run scripts/test"]
async fn a_c_program_lives_a_whole_life_however_it_came() {
    every_way(&C).await;
}

#[tokio::test]
#[ignore = "needs docker-registry and the guests: run scripts/test"]
async fn a_javascript_handler_lives_a_whole_life_however_it_came() {
    every_way(&JAVASCRIPT).await;
}

async fn every_way(guest: &Guest) {
    let registry = Registry::start().await;
    let edge = Plan::new().insecure_registry(&registry.host).start().await;
    for way in WAYS {
        let image = bring(guest, way, &registry, &edge).await;
        lives(guest, &format!("{way:?}").to_lowercase(), &image, &edge).await;
    }
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
    let (first, answer) = guest.first;
    edge.serve(first(Deployment::of(name, image)).variable("GREETING", "hi")).await;
    assert!(edge.list().await.contains(&name.to_owned()));
    let status = edge.status(name).await.json();
    assert_eq!((&status["name"], &status["image"]), (&json!(name), &json!(image)), "{status}");
    assert_eq!(status["envVars"]["GREETING"], "hi", "{status}");
    assert_eq!(edge.call(name, guest.question).await.ok(), answer, "{name}");

    let (second, answer) = guest.second;
    edge.serve(second(Deployment::of(name, image))).await;
    assert_eq!(edge.call(name, guest.question).await.ok(), answer, "{name} after the update");
    assert_eq!(edge.status(name).await.json()["envVars"]["GREETING"], json!(null), "{name}");

    assert_eq!(edge.remove(name).await.status, 202);
    assert_eq!(edge.call(name, guest.question).await.status, 404, "{name} is gone");
    assert_eq!(edge.status(name).await.status, 404);
    assert_eq!(edge.remove(name).await.status, 404, "a second removal finds nothing");
    assert!(!edge.list().await.contains(&name.to_owned()));
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
    let plan = Plan::new().argument(built_path("c.wasm").to_str().unwrap());
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
async fn a_program_sees_the_request_in_its_environment() {
    let edge = Edge::start().await;
    let image = edge.upload(built("go.wasm")).await;
    edge.serve(Deployment::of("show", &image).process("env").variable("COLOUR", "green")).await;
    let seen = edge.call("show/a/b%20c?q=1", "four").await.ok();
    for line in [
        "COLOUR=green",
        "Http_Method=POST",
        "Http_Path=/a/b c",
        "Http_Query=q=1",
        "Http_ContentLength=4",
        "OPENFAAS_NAME=show",
        "OPENFAAS_NAMESPACE=openfaas-fn",
    ] {
        assert!(seen.lines().any(|seen| seen == line), "{line} is not in\n{seen}");
    }
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn a_failing_program_answers_500_with_its_output() {
    let edge = Edge::start().await;
    let image = edge.upload(built("c.wasm")).await;
    edge.serve(Deployment::of("failing", &image).process("c exit 7")).await;
    let answer = edge.call("failing", "").await;
    assert_eq!(answer.status, 500);
    assert_eq!(answer.text(), "exit status 7\nexiting with 7\nthis went to stderr\n");

    edge.serve(Deployment::of("failing", &image).process("c grow 1000")).await;
    let answer = edge.call("failing", "").await;
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("no memory after"), "the limit is told to the program: {answer}");
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn a_handler_chooses_status_headers_and_body() {
    let edge = Edge::start().await;
    let image = edge.upload(built("js.wasm")).await;
    edge.serve(Deployment::of("js", &image)).await;

    let answer = edge.get("/function/js/answer?status=418&x-name=fawn").await;
    assert_eq!((answer.status, answer.text().as_str()), (418, "as asked\n"));
    assert_eq!(answer.headers["x-name"], "fawn");
    let answer = edge.call("js/json", r#"{"a":[1,2]}"#).await.json();
    assert_eq!(answer, json!({ "method": "POST", "path": "/json", "got": { "a": [1, 2] } }));
    assert_eq!(edge.call("js/echo", "back and forth").await.ok(), "back and forth");
    assert_eq!(edge.get("/function/js/pieces?count=3&pause=5").await.ok(), "piece 0\npiece 1\npiece 2\n");
    let thrown = edge.get("/function/js/throw").await;
    assert!(thrown.status >= 500, "{thrown}");
    assert!(!thrown.text().contains("thrown on purpose"), "that is for the log: {thrown}");
    assert_eq!(
        edge.get("/function/js/").await.ok(),
        "hello from JavaScript\n",
        "the next call is not harmed"
    );
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
        serde_json::from_str::<serde_json::Value>(&said).unwrap()
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
    let found = inspect(magic.to_str().unwrap()).await;
    assert_eq!(found["runs"], false, "{found}");
    assert!(found["reason"].to_string().contains("magic"), "{found}");
}
