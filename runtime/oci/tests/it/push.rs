use bytes::Bytes;
use http::Response;
use runtime_api::{ArtifactKind, ImageReference, ModuleCommand, full};
use runtime_oci::{ModuleDescription, WasmOs};
use serde_json::{Value, json};

use crate::{
    bench::Bench,
    fake::{FakeRegistry, Plain, challenge, digest, status},
    images::{COMPONENT, MODULE, module_of},
};

pub(crate) fn module() -> ModuleDescription {
    ModuleDescription {
        kind: ArtifactKind::Module,
        os: WasmOs::Wasip1,
        imports: Vec::new(),
        exports: Vec::new(),
        target: None,
        command: ModuleCommand::default(),
    }
}

pub(crate) fn component() -> ModuleDescription {
    ModuleDescription {
        kind: ArtifactKind::Component,
        os: WasmOs::Wasip2,
        imports: vec!["wasi:io/streams@0.2.3".into()],
        exports: vec!["wasi:http/incoming-handler@0.2.3".into()],
        target: Some("wasi:http/proxy".into()),
        command: ModuleCommand::default(),
    }
}

async fn push(
    bench: &Bench,
    name: &str,
    bytes: Vec<u8>,
    about: ModuleDescription,
) -> runtime_api::Result<String> {
    let image = ImageReference::parse(&bench.fake.image(name)).unwrap();
    bench.registry.push(&image, Bytes::from(bytes), about).await.map(|digest| digest.to_string())
}

#[tokio::test]
async fn what_is_pushed_can_be_pulled() {
    let bench = Bench::start().await;
    // More than one piece of an upload.
    let large = module_of(1_000_000);
    let pushed = push(&bench, "me/hello:v1", large.clone(), module()).await.unwrap();
    let artifact = bench.fetch("me/hello:v1").await.unwrap();
    assert_eq!(artifact.digest.to_string(), digest(&large));
    assert_eq!(bench.fetch(&format!("me/hello@{pushed}")).await.unwrap(), artifact);
}

#[tokio::test]
async fn arguments_and_environment_go_with_the_module() {
    let bench = Bench::start().await;
    let command =
        ModuleCommand { args: vec!["--fast".into(), "a b".into()], env: vec![("A".into(), "b=c".into())] };
    let about = ModuleDescription { command: command.clone(), ..module() };
    push(&bench, "me/hello:v1", MODULE.to_vec(), about).await.unwrap();
    let artifact = bench.fetch("me/hello:v1").await.unwrap();
    assert_eq!(artifact.digest.to_string(), digest(MODULE));
    assert_eq!((artifact.args, artifact.env), (command.args, command.env));
}

#[tokio::test]
async fn the_layout_is_the_cncf_s() {
    let bench = Bench::start().await;
    push(&bench, "me/hello:v1", COMPONENT.to_vec(), component()).await.unwrap();
    let seen = bench.fake.seen();
    let put = seen.iter().find(|seen| seen.path == "/v2/me/hello/manifests/v1").unwrap();
    let manifest: Value = serde_json::from_slice(&put.body).unwrap();
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(manifest["annotations"]["org.opencontainers.image.title"], "hello");
    let layer = json!({
        "mediaType": "application/wasm",
        "digest": digest(COMPONENT),
        "size": COMPONENT.len(),
        "annotations": {"org.opencontainers.image.title": "hello.wasm"},
    });
    assert_eq!(manifest["layers"], json!([layer]));

    let config = seen.iter().find(|seen| digest(&seen.body) == manifest["config"]["digest"]).unwrap();
    let mut config: Value = serde_json::from_slice(&config.body).unwrap();
    assert!(config["created"].take().as_str().unwrap().ends_with('Z'));
    let expected = json!({
        "created": null,
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [digest(COMPONENT)],
        "component": {
            "exports": ["wasi:http/incoming-handler@0.2.3"],
            "imports": ["wasi:io/streams@0.2.3"],
            "target": "wasi:http/proxy",
        },
    });
    assert_eq!(config, expected);
}

#[tokio::test]
async fn a_push_authenticates_as_a_pull_does() {
    let bench = Bench::logged_in().await;
    bench.fake.serve_at("/v2/", "{}");
    let realm = format!("Bearer realm=\"http://{}/token\"", bench.fake.address);
    bench.fake.guard(move |seen| {
        let free = seen.path.starts_with("/token") || seen.authorization.as_deref() == Some("Bearer right");
        (!free).then(|| challenge(&realm))
    });
    bench.fake.serve_at("/token", r#"{"token": "right"}"#);
    push(&bench, "me/hello:v1", MODULE.to_vec(), module()).await.unwrap();
    let token = bench.fake.paths().into_iter().find(|path| path.starts_with("/token")).unwrap();
    assert_eq!(token, "/token?scope=repository%3Ame%2Fhello%3Apull%2Cpush");

    let bench = Bench::logged_in().await;
    bench.fake.guard(|seen| {
        let right = seen.authorization.as_deref() == Some("Basic bWU6c2VjcmV0");
        (!right).then(|| challenge("Basic realm=\"here\""))
    });
    push(&bench, "me/hello:v1", MODULE.to_vec(), module()).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_pushed_is_not_tried() {
    let bench = Bench::start().await;
    let pinned = format!("hello@{}", digest(MODULE));
    for (name, bytes, about, expected) in [
        (pinned.as_str(), MODULE.to_vec(), module(), "invalid-image"),
        ("hello:v1", b"#!/bin/sh".to_vec(), module(), "not-wasm"),
        ("hello:v1", MODULE.to_vec(), component(), "not-wasm"),
        ("hello:v1", module_of(2 << 20), module(), "too-large"),
    ] {
        assert_eq!(push(&bench, name, bytes, about).await.unwrap_err().code(), expected);
    }
    let local = ImageReference::parse("fawn.local/module:v1").unwrap();
    let refused = bench.registry.push(&local, MODULE.into(), module()).await.unwrap_err();
    assert_eq!(refused.code(), "invalid-image");
    assert!(bench.fake.seen().is_empty());
}

#[tokio::test]
async fn a_registry_that_refuses_a_push_is_quoted() {
    let bench = Bench::start().await;
    let refusals: [(Plain, &str); 4] = [
        (|| status(403), "unauthorized"),
        (|| Response::builder().status(405).body(full("read only")).unwrap(), "registry-refused"),
        (|| status(500), "registry-unavailable"),
        (|| challenge("Basic"), "unauthorized"),
    ];
    for (refusal, expected) in refusals {
        bench.fake.guard(move |seen| (seen.method != "GET").then(refusal));
        let error = push(&bench, "hello:v1", MODULE.to_vec(), module()).await.unwrap_err();
        assert_eq!(error.code(), expected, "{error}");
    }
}

#[tokio::test]
async fn what_the_registry_has_is_not_sent_again() {
    let bench = Bench::start().await;
    push(&bench, "me/hello:v1", MODULE.to_vec(), module()).await.unwrap();
    bench.fake.forget_requests();
    push(&bench, "me/hello:v2", MODULE.to_vec(), module()).await.unwrap();
    let sent = bench.fake.seen().into_iter().filter(|seen| seen.body == MODULE).count();
    assert_eq!(sent, 0);
    assert!(bench.fetch("me/hello:v2").await.is_ok());
}

#[tokio::test]
async fn a_realm_that_changes_during_a_push_never_hears_of_it() {
    let bench = Bench::logged_in().await;
    let thief = FakeRegistry::start().await;
    thief.serve_at("/token", r#"{"token": "right"}"#);
    let realm = |host: &str, port| format!("Bearer realm=\"http://{host}:{port}/token\"");
    let own = realm("127.0.0.1", bench.fake.address.port());
    let other = realm("localhost", thief.address.port());
    bench.fake.serve_at("/token", r#"{"token": "right"}"#);
    bench.fake.guard(move |seen| match seen.path.as_str() {
        "/v2/" => Some(challenge(if seen.authorization.is_none() { &own } else { &other })),
        path if path.starts_with("/token") => None,
        _ => Some(challenge(&other)),
    });
    let error = push(&bench, "hello:v1", MODULE.to_vec(), module()).await.unwrap_err();
    assert_eq!(error.code(), "untrusted-realm", "{error}");
    assert!(thief.seen().is_empty());
}

#[tokio::test]
async fn an_upload_that_goes_elsewhere_carries_no_credentials() {
    let bench = Bench::logged_in().await;
    let storage = FakeRegistry::start().await;
    storage.answer("/put", |_| status(201));
    bench.fake.guard(|seen| {
        let right = seen.authorization.as_deref() == Some("Basic bWU6c2VjcmV0");
        (!right).then(|| challenge("Basic realm=\"here\""))
    });
    let elsewhere = format!("http://{}/put?signature=a", storage.address);
    bench.fake.answer("/v2/hello/blobs/uploads/", move |_| {
        Response::builder().status(202).header("location", &elsewhere).body(full("")).unwrap()
    });
    push(&bench, "hello:v1", MODULE.to_vec(), module()).await.unwrap();
    let seen = storage.seen();
    assert_eq!(seen.len(), 2);
    assert!(
        seen.iter().all(|seen| seen.authorization.is_none() && seen.path.starts_with("/put?signature=a&"))
    );
}

#[test]
fn proxies_of_the_environment_are_none_of_our_business() {
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "push::what_is_pushed_can_be_pulled"]);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        again.env(name, "http://127.0.0.1:1");
    }
    let output = again.env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
