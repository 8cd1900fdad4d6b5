//! The templates' Dockerfiles, built by a real Docker daemon: the one that `fawn/tests/docker/start` starts. `scripts/test`
//! leaves these tests out, and says so, where none can run.

use std::{fs, io::Read};

use reqwest::Method;
use serde_json::Value;
use tar::Archive;
use tokio::process::Command;

use crate::{
    edge::{Deployment, Edge, Plan, Reply},
    process::{Said, not_run, run_within},
    registry::Registry,
    templates::{C, GO, JAVASCRIPT, Mistake, PYTHON, RUST, STDIO, TYPESCRIPT, Template},
    wrapped::{BUILD_PATIENCE, Wrapped},
};

async fn docker(arguments: &[&str]) -> Said {
    run_within(BUILD_PATIENCE, Command::new("docker").args(arguments), b"").await
}

/// Builds an image, as faas-cli does in the folder that it makes.
async fn build(wrapped: &Wrapped, image: &str) -> Said {
    // Its network is the host's, and its proxies are the machine's.
    let host =
        ["--network=host", "--build-arg=http_proxy", "--build-arg=https_proxy", "--build-arg=no_proxy"];
    let folder = wrapped.folder().to_str().unwrap();
    docker(&[&["build"], &host[..], &["--tag", image, folder]].concat()).await
}

/// Whether the daemon has what the Dockerfile begins with: Docker Hub may be out of reach, and a stand-in not to be had.
async fn can_be_built(wrapped: &Wrapped) -> bool {
    let dockerfile = fs::read_to_string(wrapped.folder().join("Dockerfile")).unwrap();
    for image in dockerfile.split_whitespace().filter(|word| word.starts_with("docker.io/")) {
        if docker(&["image", "inspect", image]).await.code != Some(0) {
            not_run(&format!("the Dockerfile of {}, which needs {image}", wrapped.folder().display()));
            return false;
        }
    }
    true
}

/// The files of all layers of an image, each with its layer's number.
async fn files(image: &str) -> Vec<(usize, String)> {
    let said = docker(&["save", image]).await;
    said.succeeds();
    let file = |name: &str| {
        let mut archive = Archive::new(&*said.stdout);
        let mut entry = archive
            .entries()
            .unwrap()
            .map(Result::unwrap)
            .find(|entry| &*entry.path_bytes() == name.as_bytes())
            .unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        content
    };
    let manifest: Value = serde_json::from_slice(&file("manifest.json")).unwrap();
    let mut files = Vec::new();
    for (number, layer) in manifest[0]["Layers"].as_array().unwrap().iter().enumerate() {
        let layer = file(layer.as_str().unwrap());
        for entry in Archive::new(&*layer).entries().unwrap() {
            files.push((number, entry.unwrap().path().unwrap().display().to_string()));
        }
    }
    files
}

/// Builds an image, pushes it, and deploys it as `built`, if that can be done here.
async fn deployed(wrapped: &Wrapped, repository: &str) -> Option<Edge> {
    if !can_be_built(wrapped).await {
        return None;
    }
    let registry = Registry::start().await;
    let edge = Plan::new().insecure_registry(&registry.host).start().await;
    let image = registry.image(&format!("{repository}:latest"));
    build(wrapped, &image).await.succeeds();
    assert_eq!(files(&image).await, [(0, "function.wasm".to_owned())]);
    docker(&["push", &image]).await.succeeds();
    // Its registry has another address next time.
    docker(&["image", "rm", &image]).await.succeeds();
    edge.serve(Deployment::of("built", &image)).await;
    Some(edge)
}

/// What comes with the template answers once it is built by the Dockerfile, pushed, pulled and deployed.
async fn works(template: &Template) {
    let wrapped = Wrapped::of(template.name, "docker");
    let Some(edge) = deployed(&wrapped, template.name).await else { return };
    let call = edge.request(Method::POST, "/function/built").header("Content-Type", "text/plain");
    assert_eq!(Reply::to(call.body("some text")).await.ok(), template.answer);
}

#[tokio::test]
#[ignore = "needs dockerd and docker-registry: run scripts/test"]
async fn rust_wasm() {
    works(&RUST).await;
}

#[tokio::test]
#[ignore = "needs dockerd and docker-registry: run scripts/test"]
async fn python_wasm() {
    works(&PYTHON).await;
}

#[tokio::test]
#[ignore = "needs dockerd and docker-registry: run scripts/test"]
async fn javascript_wasm() {
    works(&JAVASCRIPT).await;
}

#[tokio::test]
#[ignore = "needs dockerd and docker-registry: run scripts/test"]
async fn typescript_wasm() {
    works(&TYPESCRIPT).await;
}

#[tokio::test]
#[ignore = "needs dockerd and docker-registry: run scripts/test"]
async fn go_wasm() {
    works(&GO).await;
}

/// What has the whole request is a component, for which the Dockerfile gets tools that Go does not come with.
#[tokio::test]
#[ignore = "needs dockerd and docker-registry: run scripts/test"]
async fn go_wasm_with_requests() {
    let wrapped = GO.with("docker-requests", include_str!("../guests/handlers/request.go"));
    let Some(edge) = deployed(&wrapped, "go-wasm-requests").await else { return };
    assert_eq!(edge.call("built/echo", "some text").await.ok(), "some text");
}

#[tokio::test]
#[ignore = "needs dockerd and docker-registry: run scripts/test"]
async fn c_wasm() {
    works(&C).await;
}

#[tokio::test]
#[ignore = "needs dockerd and docker-registry: run scripts/test"]
async fn wasm_stdio() {
    works(&STDIO).await;
}

/// A failed build leaves no image, and says where in the handler the mistake is.
#[tokio::test]
#[ignore = "needs dockerd: run scripts/test"]
async fn mistakes_are_told_with_their_places() {
    let wrapped = Wrapped::of(C.name, "docker-mistakes");
    if !can_be_built(&wrapped).await {
        return;
    }
    let handler = fs::read_to_string(wrapped.function(C.handler)).unwrap();
    for Mistake { from, to, says } in C.mistakes {
        wrapped.write(C.handler, &handler.replacen(from, to, 1));
        let said = plain(&build(&wrapped, "c-wasm:mistaken").await.fails());
        for wanted in *says {
            assert!(said.contains(wanted), "{to:?}: {wanted:?} is not in\n{said}");
        }
        docker(&["image", "inspect", "c-wasm:mistaken"]).await.fails();
    }
}

/// Without colours: the daemon gives them to each piece of what a build says on standard error.
fn plain(said: &str) -> String {
    let mut pieces = said.split("\u{1b}[");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |plain, piece| plain + piece.split_once('m').map_or(piece, |(_, text)| text))
}
