//! Registries as people run them: open, with passwords, with tokens, with certificates of their own, mirrored, gone.

use runtime_testing::guests;
use serde_json::json;

use crate::{
    edge::{Deployment, Edge, Plan},
    guests::{marked, text},
    registry::{PASSWORD, Registry, USER},
    token_server::TokenServer,
};

/// Pushes a module with `fawn push`, deploys it, and calls it; answers what the function's status says of its image.
async fn push_and_serve(edge: &Edge, registry: &Registry, settings: &[&str]) -> String {
    let image = registry.image("team/hello:1");
    let file = edge.file("hello.wat", guests::ECHO.as_bytes());
    let push = [&["push", file.to_str().unwrap(), &image], settings].concat();
    let pushed = edge.fawn(&push).await.succeeds();
    edge.serve(Deployment::of("mine", &image)).await;
    assert_eq!(edge.call("mine", "there and back").await.ok(), "there and back");
    let pinned = edge.status("mine").await.json()["deployment"]["image"].as_str().unwrap().to_owned();
    assert!(pushed.contains(&pinned), "{pushed}");
    pinned
}

async fn start(settings: &[&str]) -> Edge {
    settings.iter().fold(Plan::new(), |plan, setting| plan.argument(*setting)).start().await
}

#[tokio::test]
#[ignore = "needs docker-registry: run scripts/test"]
async fn an_open_registry_needs_its_name_and_no_more() {
    let registry = Registry::start().await;
    let settings = ["--insecure-registry", &registry.host];
    let edge = start(&settings).await;
    push_and_serve(&edge, &registry, &settings).await;
    let answer = edge.create(&Deployment::of("other", &registry.image("team/other:1"))).await;
    assert_eq!(answer.status, 400, "{answer}");
    assert!(answer.text().contains("has no image"), "{answer}");
}

#[tokio::test]
#[ignore = "needs docker-registry: run scripts/test"]
async fn a_registry_with_passwords_wants_the_right_one() {
    let registry = Registry::start_private().await;
    let (right, wrong) = (registry.docker_config(USER, PASSWORD), registry.docker_config("thief", "guess"));
    let open = ["--insecure-registry", &registry.host];
    let settings = [&open[..], &["--registry-auth", right.to_str().unwrap()]].concat();
    push_and_serve(&start(&settings).await, &registry, &settings).await;
    let image = registry.image("team/hello:1");
    for (settings, words) in [
        (open.to_vec(), "docker login"),
        (
            [&open[..], &["--registry-auth", wrong.to_str().unwrap()]].concat(),
            "does not accept the credentials",
        ),
    ] {
        let answer = start(&settings).await.create(&Deployment::of("mine", &image)).await;
        assert_eq!(answer.status, 400, "{answer}");
        assert!(answer.text().contains(words), "{answer}");
    }
}

#[tokio::test]
#[ignore = "needs docker-registry: run scripts/test"]
async fn a_registry_with_tokens_is_read_and_written() {
    let tokens = TokenServer::start().await;
    // The registry is at 127.0.0.1: only the second realm is another host, which must be allowed.
    for realm_host in ["127.0.0.1", "localhost"] {
        let registry = Registry::start_with_tokens(&tokens, realm_host).await;
        let login = registry.docker_config(USER, PASSWORD);
        let open = ["--insecure-registry", &registry.host];
        let known = [&open[..], &["--registry-auth", login.to_str().unwrap()]].concat();
        let realm = format!("{}={realm_host}", registry.host);
        let settings = [&known[..], &["--registry-realm", &realm]].concat();
        push_and_serve(&start(&settings).await, &registry, &settings).await;

        let image = registry.image("team/hello:1");
        let answer = start(&open).await.create(&Deployment::of("mine", &image)).await;
        assert!(answer.status == 400 && answer.text().contains("docker login"), "{answer}");
        if realm_host == "localhost" {
            let answer = start(&known).await.create(&Deployment::of("mine", &image)).await;
            assert!(answer.status == 400 && answer.text().contains("--registry-realm"), "{answer}");
        }
    }
}

#[tokio::test]
#[ignore = "needs docker-registry: run scripts/test"]
async fn a_registry_with_a_certificate_of_its_own_is_verified() {
    let (registry, authority) = Registry::start_tls().await;
    let ca = format!("{}={}", registry.host, authority.display());
    let settings = ["--registry-ca", &ca];
    push_and_serve(&start(&settings).await, &registry, &settings).await;
    let answer = start(&[]).await.create(&Deployment::of("mine", &registry.image("team/hello:1"))).await;
    assert!(answer.status == 400 && answer.text().contains("--registry-ca"), "{answer}");
    let missing = format!("{}=/nowhere/ca.pem", registry.host);
    let refused = Plan::new().argument("--registry-ca").argument(missing).refused().await;
    assert!(refused.contains("/nowhere/ca.pem"), "{refused}");
}

#[tokio::test]
#[ignore = "needs docker-registry: run scripts/test"]
async fn what_a_tag_meant_stays_until_it_is_asked_for_again() {
    let mut registry = Registry::start().await;
    let echo = text(guests::ECHO);
    let image = registry.push_artifact("team/f", "1", &echo).await;
    let mut edge = Plan::new().insecure_registry(&registry.host).start().await;
    edge.serve(Deployment::of("f", &image)).await;
    let deployment = async |edge: &Edge| edge.status("f").await.json()["deployment"].clone();
    let first = deployment(&edge).await;
    assert!(first["image"].as_str().unwrap().starts_with(&registry.image("team/f@sha256:")), "{first}");

    // The tag moves, and nobody deploys: a restart changes nothing.
    registry.push_artifact("team/f", "1", &marked(&echo, "moved")).await;
    edge.terminate().await;
    let edge = edge.again().insecure_registry(&registry.host).start().await;
    assert_eq!(deployment(&edge).await, first);
    let kept = Deployment::of("f", &image);
    edge.serve(kept.clone().field("annotations", json!({ "dev.fawn.pull-policy": "IfNotPresent" }))).await;
    assert_eq!(deployment(&edge).await, first, "what is present is not asked for");
    edge.serve(kept.clone()).await;
    let second = deployment(&edge).await;
    assert_ne!(second["image"], first["image"]);
    assert_ne!(second["digest"], first["digest"]);

    // With the registry gone, what is present can be deployed, and what is not is told.
    registry.stop().await;
    edge.serve(kept.field("annotations", json!({ "dev.fawn.pull-policy": "Never" }))).await;
    assert_eq!(edge.call("f", "still here").await.ok(), "still here");
    let never = Deployment::of("g", &registry.image("team/g:1"));
    let answer = edge.create(&never.field("annotations", json!({ "dev.fawn.pull-policy": "Never" }))).await;
    assert_eq!(answer.status, 400, "{answer}");
    assert!(answer.text().contains("pull policy is Never"), "{answer}");
}

#[tokio::test]
#[ignore = "needs docker-registry: run scripts/test"]
async fn a_mirror_that_is_gone_is_passed_over() {
    let (registry, mut mirror) = (Registry::start().await, Registry::start().await);
    let image = registry.push_artifact("team/f", "1", &text(guests::ECHO)).await;
    mirror.push_artifact("team/f", "1", &text(guests::ECHO)).await;
    let mirrored = format!("{}=http://{}", registry.host, mirror.host);
    let edge = start(&["--insecure-registry", &registry.host, "--registry-mirror", &mirrored]).await;
    mirror.stop().await;
    edge.serve(Deployment::of("f", &image)).await;
    assert_eq!(edge.call("f", "by another way").await.ok(), "by another way");
    assert!(edge.process.log().contains("a mirror is passed over"), "{}", edge.process.log());
}
