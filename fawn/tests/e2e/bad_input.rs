//! Bad modules, bad requests and bad behaviour: refused by name, and nobody else is harmed.

use reqwest::Method;
use runtime_testing::guests::{self, HELLO};
use serde_json::json;

use crate::{
    edge::{Deployment, Edge, Plan, Reply},
    guests::{built, text},
    registry::Registry,
};

/// A server with a neighbour whose answers show that it is unharmed.
async fn edge_with_neighbour() -> Edge {
    let edge = Edge::start().await;
    edge.serve(Deployment::of("neighbour", &edge.upload(text(HELLO)).await)).await;
    edge
}

async fn is_unharmed(edge: &Edge) {
    assert_eq!(edge.get("/healthz").await.status, 200);
    assert_eq!(edge.call("neighbour", "").await.ok(), "Hello from Fawn\n");
}

#[track_caller]
fn refused(answer: &Reply, words: &[&str]) {
    assert_eq!(answer.status, 400, "{answer}");
    for word in words {
        assert!(answer.text().contains(word), "{word} is not in {answer}");
    }
    assert!(answer.headers.contains_key("x-error-code"), "{answer}");
}

#[tokio::test]
#[ignore = "needs docker-registry and the guests: run scripts/test"]
async fn what_is_no_function_is_refused_however_it_comes() {
    let registry = Registry::start().await;
    let edge = Plan::new().insecure_registry(&registry.host).start().await;
    edge.serve(Deployment::of("neighbour", &edge.upload(text(HELLO)).await)).await;
    let whole = built("c.wasm");
    let table: [(&str, Vec<u8>, &[&str]); 8] = [
        ("no-wasm", b"#!/bin/sh\necho hello\n".to_vec(), &[]),
        ("empty", Vec::new(), &[]),
        ("truncated", whole[..whole.len() / 2].to_vec(), &[]),
        ("no-start", text(guests::NO_START), &["_start"]),
        ("unknown-import", text(guests::UNKNOWN_IMPORT), &["env", "magic"]),
        ("machine-code", built("c.cwasm"), &["precompiled"]),
        ("start-trap", text(guests::START_TRAP), &[]),
        ("big-memory", text(guests::BIG_MEMORY), &["256"]),
    ];
    for (name, module, words) in table {
        // At once where the bytes alone show it, else when the function is deployed.
        let answer = match edge.upload_reply(module.clone()).await {
            kept if kept.status < 300 => {
                let image = kept.json()["image"].as_str().unwrap().to_owned();
                edge.deploy(&Deployment::of(name, &image)).await
            }
            refused => refused,
        };
        refused(&answer, words);
        for image in [
            registry.push_artifact(name, "artifact", &module).await,
            registry.push_scratch_image(name, "scratch", &module).await,
        ] {
            refused(&edge.deploy(&Deployment::of(name, &image)).await, words);
        }
        assert_eq!(edge.status(name).await.status, 404, "{name} is not there");
        assert_eq!(edge.call(name, "").await.status, 404);
    }
    is_unharmed(&edge).await;
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_rejected_update_leaves_the_old_revision_serving() {
    let edge = edge_with_neighbour().await;
    let image = edge.upload(text(guests::UNKNOWN_IMPORT)).await;
    refused(&edge.update(&Deployment::of("neighbour", &image)).await, &["magic"]);
    is_unharmed(&edge).await;
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_request_that_makes_no_sense_is_refused() {
    let edge = edge_with_neighbour().await;
    let image = edge.upload(text(HELLO)).await;
    let deployment = |name: &str| Deployment::of(name, &image);
    for (deployment, words) in [
        (deployment("Not_A_Name"), &["Not_A_Name"][..]),
        (deployment(""), &[]),
        (deployment(&"a".repeat(64)), &["63"]),
        (Deployment::of("f", ""), &["image"]),
        (Deployment::of("f", "not an image"), &["image"]),
        (deployment("f").memory_limit("12 potatoes"), &["limits.memory", "12 potatoes"]),
        (deployment("f").memory_limit("900Gi"), &["memory"]),
        (deployment("f").field("secrets", json!(["nowhere"])), &["secret", "nowhere"]),
        (deployment("f").variable("mode", "streaming"), &["mode", "streaming"]),
        (deployment("f").variable("mode", "static"), &["mode"]),
        (deployment("f").field("namespace", json!("elsewhere")), &["elsewhere"]),
    ] {
        let answer = edge.create(&deployment).await;
        assert_eq!(answer.status, 400, "{}: {answer}", deployment.0);
        refused(&answer, words);
    }
    for body in ["", "{", "[]", "{\"service\": 1}"] {
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            let answer = Reply::to(edge.admin(method, "/system/functions").body(body)).await;
            assert_eq!(answer.status, 400, "{body:?}: {answer}");
        }
    }
    assert_eq!(edge.create(&deployment("neighbour")).await.status, 409, "it exists");
    assert_eq!(edge.update(&deployment("nobody")).await.status, 404, "it does not");
    assert_eq!(edge.call("nobody", "").await.status, 404);
    is_unharmed(&edge).await;
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn an_instance_larger_than_its_limit_is_refused_or_kept_small() {
    let edge = edge_with_neighbour().await;
    let image = edge.upload(text(guests::GROW)).await;
    // 20 MiB are 320 pages of 64 KiB: the guest asks for all that there are.
    edge.serve(Deployment::of("grow", &image).memory_limit("20Mi")).await;
    let pages: u64 = edge.call("grow", "").await.ok().trim().parse().unwrap();
    assert!(pages <= 320, "{pages} pages");
    let image = edge.upload(text(HELLO)).await;
    refused(&edge.deploy(&Deployment::of("tiny", &image).memory_limit("1Ki")).await, &["memory"]);
    is_unharmed(&edge).await;
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn an_endless_loop_ends_at_its_time_and_harms_nobody() {
    let edge = edge_with_neighbour().await;
    for (name, module, status) in [
        ("program", guests::LOOP, 408),
        ("handler", guests::HTTP_LOOP, 504),
        ("filler", guests::FILL, 408),
        ("deep", guests::RECURSION, 500),
    ] {
        let image = edge.upload(text(module)).await;
        edge.serve(Deployment::of(name, &image).variable("exec_timeout", "1s")).await;
        // More at once than there are cores.
        let calls = [(); 4].map(|()| edge.call(name, ""));
        let [one, two, three, four] = calls;
        let neighbour = is_unharmed(&edge);
        let (one, two, three, four, ()) = tokio::join!(one, two, three, four, neighbour);
        for answer in [one, two, three, four] {
            assert_eq!(answer.status, status, "{name}: {answer}");
        }
    }
    is_unharmed(&edge).await;
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn a_trap_is_told_to_the_log_and_not_to_the_caller() {
    let mut edge = edge_with_neighbour().await;
    let program = edge.upload(built("c.wasm")).await;
    edge.serve(Deployment::of("program", &program).process("c trap")).await;
    let handler = edge.upload(text(guests::HTTP_TRAP)).await;
    edge.serve(Deployment::of("handler", &handler)).await;
    for name in ["program", "handler"] {
        let answer = edge.call(name, "").await;
        assert_eq!(answer.status, 500, "{answer}");
        for inside in ["backtrace", "wasm function", "unreachable", ".wasm", "<module>"] {
            assert!(!answer.text().contains(inside), "{name} tells too much: {answer}");
        }
        let said = format!("{name}.openfaas-fn");
        edge.process.until(|log| (log.contains(&said) && log.contains("unreachable")).then_some(())).await;
    }
    is_unharmed(&edge).await;
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn an_answer_that_breaks_off_is_not_taken_for_a_whole_one() {
    let edge = edge_with_neighbour().await;
    for (name, module) in
        [("trap", guests::HTTP_LATE_TRAP), ("half", guests::HTTP_HALF), ("lie", guests::HTTP_LENGTH_LIE)]
    {
        let image = edge.upload(text(module)).await;
        edge.serve(Deployment::of(name, &image)).await;
        match Reply::try_to(edge.request(Method::POST, &format!("/function/{name}"))).await {
            Err(_) => {}
            Ok(answer) => assert!(answer.status >= 500, "{name}: {answer}"),
        }
    }
    is_unharmed(&edge).await;
}

#[tokio::test]
#[ignore = "needs docker-registry: run scripts/test"]
async fn an_image_that_cannot_be_had_is_refused_with_the_reason() {
    let open = Registry::start().await;
    let closed = Registry::start_private().await;
    let secret = closed.push_artifact("secret", "1", &text(HELLO)).await;
    let plan = Plan::new().insecure_registry(&open.host).insecure_registry(&closed.host);
    // Nobody listens at port 1.
    let edge = plan.insecure_registry("127.0.0.1:1").start().await;
    for (image, words) in [
        (open.image("missing:1"), &["missing"][..]),
        (secret, &["secret", "docker login"]),
        ("127.0.0.1:1/nowhere:1".to_owned(), &["127.0.0.1:1"]),
    ] {
        let answer = edge.deploy(&Deployment::of("f", &image)).await;
        assert!((400..600).contains(&answer.status), "{image}: {answer}");
        for word in words {
            assert!(answer.text().contains(word), "{word} is not in {answer}");
        }
        assert_eq!(edge.status("f").await.status, 404);
    }
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn a_command_that_fails_says_why_and_ends_with_a_code() {
    let edge = Edge::start().await;
    let text_file = edge.file("notes.wasm", b"not a module");
    let magic = edge.file("magic.wat", guests::UNKNOWN_IMPORT.as_bytes());
    let machine_code = crate::guests::built_path("c.cwasm");
    for (arguments, word) in [
        (vec!["deploy", text_file.to_str().unwrap()], "WebAssembly"),
        (vec!["deploy", magic.to_str().unwrap()], "magic"),
        (vec!["deploy", machine_code.to_str().unwrap(), "--name", "f"], "cwasm"),
        (vec!["deploy", "missing.wasm"], "missing.wasm"),
        (vec!["deploy", magic.to_str().unwrap(), "--name", "Not_A_Name"], "Not_A_Name"),
        (vec!["deploy", magic.to_str().unwrap(), "--gateway", "http://127.0.0.1:1"], "127.0.0.1:1"),
        (
            vec!["push", magic.to_str().unwrap(), "127.0.0.1:1/a:1", "--insecure-registry", "127.0.0.1:1"],
            "127.0.0.1:1",
        ),
        (vec!["inspect", text_file.to_str().unwrap()], "notes.wasm"),
        (vec!["up", "missing.wasm"], "missing.wasm"),
        (vec!["serve"], "serve"),
    ] {
        let said = edge.fawn(&arguments).await.fails();
        assert!(said.contains(word), "{arguments:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("backtrace"), "{arguments:?}: {said}");
    }
    assert_eq!(edge.list().await, ["hello"], "nothing was deployed");
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn who_is_not_let_in_is_told_so_before_a_large_module_is_sent() {
    let edge = Edge::start().await;
    let large = edge.file("large.wasm", &[text(HELLO), vec![0; 32 << 20]].concat());
    // "admin:wrong", as faas-cli saves a login.
    let login = format!("auths:\n- gateway: {}\n  auth: basic\n  token: YWRtaW46d3Jvbmc=\n", edge.gateway);
    edge.file("config.yml", login.as_bytes());
    let said = edge.fawn(&["deploy", large.to_str().unwrap()]).await.fails();
    assert!(said.contains("does not accept the credentials"), "{said}");
}
