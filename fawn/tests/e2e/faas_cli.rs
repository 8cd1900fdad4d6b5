//! The unmodified faas-cli. `scripts/test` leaves these tests out, and says so, where faas-cli cannot be had.

use std::fs;

use runtime_testing::guests::HELLO;
use serde_json::Value;
use tokio::process::Command;

use crate::{
    edge::{Edge, Plan, Reply},
    guests::{built, text},
    process::{eventually, run_within},
    registry::Registry,
    templates::TEMPLATES,
    wrapped::{BUILD_PATIENCE, templates, with_toolchains},
};

async fn log_in(edge: &Edge) {
    let said = edge.faas_cli_with(&["login", "--password-stdin"], edge.password().as_bytes()).await;
    assert!(said.succeeds().contains("credentials saved"));
}

#[tokio::test]
#[ignore = "needs faas-cli: run scripts/test"]
async fn only_the_right_password_logs_in() {
    let edge = Edge::start().await;
    let said = edge.faas_cli_with(&["login", "--password-stdin"], b"guessed").await.fails();
    assert!(said.contains("unable to login"), "{said}");
    assert!(edge.faas_cli(&["list"]).await.fails().to_lowercase().contains("unauthorized"));
    log_in(&edge).await;
    assert!(edge.faas_cli(&["list"]).await.succeeds().contains("hello"));
}

#[tokio::test]
#[ignore = "needs faas-cli, docker-registry and the guests: run scripts/test"]
async fn a_function_lives_a_whole_life() {
    let registry = Registry::start().await;
    let edge = Plan::new().insecure_registry(&registry.host).start().await;
    log_in(&edge).await;
    let go = built("go.wasm");
    for (name, image) in [
        ("artifact", registry.push_artifact("go", "artifact", &go).await),
        ("scratch", registry.push_scratch_image("go", "scratch", &go).await),
        ("index", registry.push_index("go", "index", &go).await),
        ("upload", edge.upload(go.clone()).await),
    ] {
        let deploy =
            ["deploy", "--image", &image, "--name", name, "--env", "A=1", "--label", "team=x", "--fprocess"];
        let said = edge.faas_cli(&[&deploy[..], &["upper"]].concat()).await.succeeds();
        assert!(said.contains("202"), "{said}");
        edge.faas_cli(&["ready", name]).await.succeeds();
        assert!(edge.faas_cli(&["list", "--quiet"]).await.succeeds().lines().any(|line| line.trim() == name));
        let described = edge.faas_cli(&["describe", name]).await.succeeds();
        assert!(described.contains("Ready") && described.contains(&image), "{described}");
        assert_eq!(edge.faas_cli_with(&["invoke", name], b"hello").await.succeeds(), "HELLO");

        edge.faas_cli(&[&deploy[..], &["args b"]].concat()).await.succeeds();
        assert_eq!(edge.faas_cli_with(&["invoke", name], b"hello").await.succeeds(), "[\"b\"]\n");

        edge.faas_cli(&["remove", name]).await.succeeds();
        edge.faas_cli_with(&["invoke", name], b"hello").await.fails();
        edge.faas_cli(&["describe", name]).await.fails();
        assert!(edge.faas_cli(&["remove", name]).await.fails().contains("No existing function"));
    }
}

#[tokio::test]
#[ignore = "needs faas-cli: run scripts/test"]
async fn a_stack_file_deploys_and_removes() {
    let edge = Edge::start().await;
    log_in(&edge).await;
    let image = edge.upload(text(HELLO)).await;
    let stack = format!(
        "version: 1.0\nprovider: {{name: openfaas}}\nfunctions:\n  one: {{image: '{image}', skip_build: true}}\n  \
         two: {{image: '{image}', skip_build: true, environment: {{exec_timeout: 5s}}}}\n"
    );
    let path = edge.file("stack.yaml", stack.as_bytes());
    let file = path.to_str().unwrap();
    edge.faas_cli(&["deploy", "-f", file]).await.succeeds();
    for name in ["one", "two"] {
        assert_eq!(edge.faas_cli(&["invoke", name]).await.succeeds(), "Hello from Fawn\n");
    }
    edge.faas_cli(&["remove", "-f", file]).await.succeeds();
    assert_eq!(edge.list().await, ["hello"]);
}

#[tokio::test]
#[ignore = "needs faas-cli: run scripts/test"]
async fn what_is_refused_fails_the_command_and_says_why() {
    let edge = Edge::start().await;
    log_in(&edge).await;
    let image = edge.upload(text(runtime_testing::guests::UNKNOWN_IMPORT)).await;
    let said = edge.faas_cli(&["deploy", "--image", &image, "--name", "bad"]).await.fails();
    assert!(said.contains("magic"), "{said}");
    edge.faas_cli(&["describe", "bad"]).await.fails();
}

#[tokio::test]
#[ignore = "needs faas-cli: run scripts/test"]
async fn it_can_be_asked_who_it_is() {
    let edge = Edge::start().await;
    log_in(&edge).await;
    edge.faas_cli(&["version", "--warn-update=false"]).await.succeeds();
    edge.faas_cli(&["namespace", "list"]).await.succeeds();
    edge.faas_cli(&["ready"]).await.succeeds();
    let listed: Value = serde_json::from_str(&edge.faas_cli(&["list", "--json"]).await.succeeds()).unwrap();
    assert_eq!(listed[0]["name"], "hello");
}

#[tokio::test]
#[ignore = "needs faas-cli and the guests: run scripts/test"]
async fn secrets_are_made_changed_and_removed() {
    let edge = Edge::start().await;
    log_in(&edge).await;
    // These two end with 0 even when they fail.
    let made = edge.faas_cli(&["secret", "create", "key", "--from-literal", "first"]).await.succeeds();
    assert!(made.contains("Created"), "{made}");
    let image = edge.upload(built("go.wasm")).await;
    let read = "cat /var/openfaas/secrets/key";
    edge.faas_cli(&["deploy", "--image", &image, "--name", "reader", "--secret", "key", "--fprocess", read])
        .await
        .succeeds();
    assert_eq!(edge.faas_cli(&["invoke", "reader"]).await.succeeds(), "first");
    edge.faas_cli_with(&["secret", "update", "key"], b"second").await.succeeds();
    assert_eq!(edge.faas_cli(&["invoke", "reader"]).await.succeeds(), "second");
    assert!(edge.faas_cli(&["secret", "list"]).await.succeeds().lines().any(|line| line.trim() == "key"));
    edge.faas_cli(&["secret", "remove", "key"]).await.succeeds();
    edge.faas_cli(&["secret", "remove", "key"]).await.fails();
    assert!(!edge.faas_cli(&["secret", "list"]).await.succeeds().contains("key"));
}

#[tokio::test]
#[ignore = "needs faas-cli: run scripts/test"]
async fn namespaces_are_made_changed_and_removed() {
    let edge = Edge::start().await;
    log_in(&edge).await;
    edge.faas_cli(&["namespace", "create", "staging", "--label", "team=x"]).await.succeeds();
    assert!(edge.faas_cli(&["namespace", "list"]).await.succeeds().contains("staging"));
    assert!(edge.faas_cli(&["namespace", "get", "staging"]).await.succeeds().contains("staging"));
    edge.faas_cli(&["namespace", "update", "staging", "--label", "team=y"]).await.succeeds();
    let image = edge.upload(text(HELLO)).await;
    let there = ["--namespace", "staging"];
    let deploy = ["deploy", "--image", &image, "--name", "there"];
    edge.faas_cli(&[&deploy[..], &there].concat()).await.succeeds();
    assert!(edge.faas_cli(&[&["list"], &there[..]].concat()).await.succeeds().contains("there"));
    assert!(!edge.faas_cli(&["list"]).await.succeeds().contains("there"));
    let said = edge.faas_cli(&[&["invoke", "there"], &there[..]].concat()).await.succeeds();
    assert_eq!(said, "Hello from Fawn\n");
    edge.faas_cli(&["namespace", "remove", "staging"]).await.fails();
    edge.faas_cli(&[&["remove", "there"], &there[..]].concat()).await.succeeds();
    edge.faas_cli(&["namespace", "remove", "staging"]).await.succeeds();
    edge.faas_cli(&["namespace", "get", "staging"]).await.fails();
}

/// faas-cli follows without end unless told not to, and has no command to scale with.
#[tokio::test]
#[ignore = "needs faas-cli and the guests: run scripts/test"]
async fn a_function_tells_its_log_its_state_and_its_replicas() {
    let edge = Edge::start().await;
    log_in(&edge).await;
    let image = edge.upload(built("go.wasm")).await;
    edge.faas_cli(&["deploy", "--image", &image, "--name", "told", "--fprocess", "exit 1"]).await.succeeds();
    edge.faas_cli(&["ready", "told"]).await.succeeds();
    edge.faas_cli(&["invoke", "told"]).await.fails();
    eventually("the call is in the log", async || {
        let log = edge.faas_cli(&["logs", "told", "--tail=false", "--lines", "10"]).await.succeeds();
        log.contains("this went to stderr").then_some(())
    })
    .await;
    let since = edge.faas_cli(&["logs", "told", "--tail=false", "--since", "10m", "--output", "json"]).await;
    let lines = since.succeeds();
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["name"], "told", "{lines}");

    let scale = async |replicas: u64| {
        let body = serde_json::json!({ "serviceName": "told", "replicas": replicas });
        let request = edge.admin(reqwest::Method::POST, "/system/scale-function/told").json(&body);
        assert_eq!(Reply::to(request).await.status, 202);
        edge.faas_cli(&["describe", "told"]).await.succeeds()
    };
    assert!(scale(0).await.contains("Not Ready"));
    assert!(!scale(3).await.contains("Not Ready"));
}

/// From this repository to an answer, in each language, as its author goes who has no Docker.
#[tokio::test]
#[ignore = "needs faas-cli and the guests' toolchains: run scripts/test"]
async fn templates_are_pulled_and_functions_of_them_begun_built_and_called() {
    let edge = Edge::start().await;
    log_in(&edge).await;
    let folder = tempfile::tempdir().unwrap();
    let faas_cli = async |arguments: &[&str]| {
        let mut command = Command::new("faas-cli");
        with_toolchains(command.args(arguments).env("OPENFAAS_CONFIG", folder.path()), folder.path());
        run_within(BUILD_PATIENCE, command.env("OPENFAAS_URL", &edge.gateway).current_dir(&folder), b"").await
    };
    let repository = templates().join("..").canonicalize().unwrap();
    faas_cli(&["template", "pull", repository.to_str().unwrap()]).await.succeeds();
    for template in TEMPLATES {
        let (name, stack) = (template.name, format!("{}.yml", template.name));
        faas_cli(&["new", name, "--lang", name, "--yaml", &stack]).await.succeeds();
        faas_cli(&["build", "--shrinkwrap", "-f", &stack]).await.succeeds();
        let mut build = Command::new("sh");
        with_toolchains(
            build.arg("build.sh").current_dir(folder.path().join("build").join(name)),
            folder.path(),
        );
        run_within(BUILD_PATIENCE, &mut build, b"").await.succeeds();
        let image = edge
            .upload(fs::read(folder.path().join("build").join(name).join("function.wasm")).unwrap())
            .await;
        edge.faas_cli(&["deploy", "--image", &image, "--name", name]).await.succeeds();
        edge.faas_cli(&["ready", name]).await.succeeds();
        let said = edge.faas_cli_with(&["invoke", name], b"some text").await.succeeds();
        assert_eq!(said, template.answer, "{name}");
    }
}
