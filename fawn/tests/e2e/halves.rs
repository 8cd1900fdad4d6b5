//! Gateway and node as two processes.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::Method;
use runtime_testing::guests::{ECHO, ECHO_HTTP, ENV, HELLO, HELLO_HTTP, HTTP_STATUS, HTTP_TRAP, SLEEP};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::{
    edge::{Deployment, Edge, Plan, Reply, client},
    guests::text,
    process::{Process, eventually, run},
    streaming::{talks_back, written_later},
};

async fn pair() -> Edge {
    Plan::new().apart().start().await
}

/// A request to the node itself.
async fn of_node(edge: &Edge, method: Method, path: &str, password: Option<&str>) -> Reply {
    let url = format!("{}{path}", edge.node.as_ref().unwrap().provider);
    let request = client().build().unwrap().request(method, url);
    Reply::to(match password {
        Some(password) => request.basic_auth("admin", Some(password)),
        None => request,
    })
    .await
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_function_lives_a_whole_life_across_the_wire() {
    let edge = pair().await;
    assert_eq!(edge.list().await, Vec::<String>::new(), "a node alone begins without functions");
    let image = edge.upload(text(ENV)).await;
    assert_eq!(edge.update(&Deployment::of("env", &image)).await.status, 404, "faas-cli goes by this");
    edge.serve(Deployment::of("env", &image).variable("COLOUR", "green")).await;
    assert_eq!(edge.create(&Deployment::of("env", &image)).await.status, 409);
    let seen = edge.call("env/a/b%20c//d?q=%202&x=/../", "four").await.ok();
    for line in ["COLOUR=green", "Http_Path=/a/b c//d", "Http_Query=q=%202&x=/../", "Http_ContentLength=4"] {
        assert!(seen.lines().any(|seen| seen == line), "{line} is not in\n{seen}");
    }
    let status = edge.status("env").await.json();
    assert_eq!(
        (&status["name"], &status["deployment"]["phase"]),
        (&json!("env"), &json!("ready")),
        "{status}"
    );
    assert_eq!(edge.remove("env").await.status, 202);
    assert_eq!(edge.remove("env").await.status, 404);
    let gone = edge.call("env", "").await;
    assert_eq!(gone.status, 404);
    assert!(gone.text().starts_with("error finding function env.openfaas-fn: "), "{gone}");
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_rejected_deploy_says_the_same_as_in_one_process() {
    let (apart, one) = (pair().await, Plan::new().in_one().start().await);
    for (deployment, status) in [
        (json!({ "service": "Wrong", "image": "a/b" }), 400),
        (json!({ "service": "f", "image": "" }), 400),
        (json!({ "service": "f", "image": "a/b", "namespace": "none" }), 400),
        (json!({ "service": "f", "image": "a/b", "limits": { "memory": "lots" } }), 400),
        (json!({ "service": "f", "image": "oci:nowhere" }), 400),
    ] {
        let deployment = Deployment(deployment);
        let (there, here) = (apart.create(&deployment).await, one.create(&deployment).await);
        assert_eq!(there.status, status, "{there}");
        assert_eq!((there.status, there.text()), (here.status, here.text()));
        assert_eq!(there.headers["x-error-code"], here.headers["x-error-code"]);
    }
    let not_wasm = apart.upload_reply(b"no module".to_vec()).await;
    assert_eq!((not_wasm.status, &not_wasm.headers["x-error-code"]), (400, &"not-wasm".parse().unwrap()));
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_functions_own_failures_are_its_own() {
    let edge = pair().await;
    edge.serve(Deployment::of("status", &edge.upload(text(HTTP_STATUS)).await)).await;
    for status in [201, 302, 404, 503] {
        assert_eq!(edge.get(&format!("/function/status/{status}")).await.status, status);
    }
    edge.serve(Deployment::of("trap", &edge.upload(text(HTTP_TRAP)).await)).await;
    let trapped = edge.get("/function/trap").await;
    assert_eq!(
        (trapped.status, &trapped.headers["x-openfaas-internal"]),
        (500, &"of-watchdog".parse().unwrap())
    );
    assert_eq!(trapped.headers["x-error-code"], "guest-trap");
    assert!(!trapped.headers.contains_key("x-fawn-provider-error"), "that is between gateway and node");
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn bodies_stream_through_both_and_large_ones_arrive_whole() {
    let edge = pair().await;
    edge.serve(Deployment::of("echo", &edge.upload(text(ECHO_HTTP)).await)).await;
    talks_back(&edge, "/function/echo").await;
    let sent: Vec<u8> = (0..=250).cycle().take(32 << 20).collect();
    assert!(edge.call("echo", sent.clone()).await.body == sent, "32 MiB come back as they were");
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn whoever_goes_away_ends_the_call_on_the_node() {
    let edge = pair().await;
    edge.serve(
        Deployment::of("slow", &edge.upload(text(SLEEP)).await)
            .process("sleep 600000")
            .variable("exec_timeout", "11m"),
    )
    .await;
    let call = tokio::spawn(edge.request(Method::POST, "/function/slow").send());
    let instances = async |count: f64| {
        eventually("so many instances", async || {
            (edge.metric("fawn_instances").await == count).then_some(())
        })
        .await;
    };
    instances(1.0).await;
    call.abort();
    instances(0.0).await;

    edge.serve(Deployment::of("echo", &edge.upload(text(ECHO_HTTP)).await)).await;
    let (mut send, body) = written_later();
    send.write_all(b"x").await.unwrap();
    let answer = edge.request(Method::POST, "/function/echo").body(body).send().await.unwrap();
    instances(1.0).await;
    drop(answer);
    instances(0.0).await;
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_sleeping_function_is_woken() {
    let edge = pair().await;
    edge.serve(Deployment::of("hello", &edge.upload(text(HELLO_HTTP)).await)).await;
    let scale = edge.admin(Method::POST, "/system/scale-function/hello").json(&json!({ "replicas": 0 }));
    assert_eq!(Reply::to(scale).await.status, 202);
    assert_eq!(edge.status("hello").await.json()["replicas"], Value::Null);
    assert_eq!(edge.get("/function/hello").await.ok(), "Hello from Fawn\n");
    assert_eq!(edge.status("hello").await.json()["replicas"], 1);
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn wrong_credentials_get_nowhere() {
    let edge = pair().await;
    let paths = [
        "/system/functions",
        "/system/namespaces",
        "/system/namespace/openfaas-fn",
        "/system/info",
        "/system/secrets",
    ];
    for path in paths {
        for password in [None, Some("guessed")] {
            assert_eq!(of_node(&edge, Method::GET, path, password).await.status, 401, "{path}");
        }
        assert_eq!(edge.get(path).await.status, 401, "{path}");
    }
    assert_eq!(of_node(&edge, Method::GET, "/system/functions", Some(edge.password())).await.ok(), "[]");
    for open in ["/healthz", "/metrics"] {
        of_node(&edge, Method::GET, open, None).await.ok();
    }

    let plan = edge.again();
    let folder = plan.data_dir().with_file_name("others");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("basic-auth-user"), "admin").unwrap();
    std::fs::write(folder.join("basic-auth-password"), "another").unwrap();
    let provider = edge.node.as_ref().unwrap().provider.clone();
    let arguments = ["--provider", &provider, "--credentials", folder.to_str().unwrap()];
    let mut stranger = Process::spawn(&mut plan.gateway(&arguments));
    let gateway = stranger
        .until(|said| said.split("fawn ready gateway=").nth(1)?.split(' ').next().map(str::to_owned))
        .await;
    let token = BASE64_STANDARD.encode("admin:another");
    let list = client().build().unwrap().get(format!("{gateway}/system/functions"));
    let refused = Reply::to(list.header("authorization", format!("Basic {token}"))).await;
    assert_eq!(refused.status, 503, "{refused}");
    assert!(refused.text().contains("credentials"), "{refused}");
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_node_that_dies_is_a_502_until_it_is_back() {
    let mut edge = pair().await;
    edge.serve(Deployment::of("echo", &edge.upload(text(ECHO)).await)).await;
    edge.serve(Deployment::of("slow", &edge.upload(text(SLEEP)).await).process("sleep 600000")).await;
    assert_eq!(edge.get("/healthz").await.status, 200);
    let cut = tokio::spawn(edge.request(Method::POST, "/function/slow").send());
    eventually("the call runs", async || (edge.metric("fawn_instances").await == 1.0).then_some(())).await;

    edge.node.as_mut().unwrap().process.kill().await;
    assert_eq!(cut.await.unwrap().unwrap().status(), 502);
    for _ in 0..3 {
        let answer = edge.call("echo", "x").await;
        assert_eq!((answer.status, answer.text().as_str()), (502, ""));
        assert_eq!(answer.headers["x-error-code"], "provider-unreachable");
    }
    assert_eq!(edge.get("/healthz").await.status, 502);
    let listed = Reply::to(edge.admin(Method::GET, "/system/functions")).await;
    assert!(listed.status == 502 && listed.text().contains("does not answer: start it"), "{listed}");
    let info = Reply::to(edge.admin(Method::GET, "/system/info")).await.json();
    assert_eq!(info["provider"]["provider"], "unknown", "{info}");

    edge.restart_node().await;
    assert_eq!(edge.call("echo", "back").await.ok(), "back");
    assert_eq!(edge.get("/healthz").await.status, 200);
    let info = Reply::to(edge.admin(Method::GET, "/system/info")).await.json();
    assert_eq!(info["provider"]["provider"], "fawn", "{info}");
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_call_that_takes_too_long_for_the_gateway_is_a_502() {
    let edge = pair().await;
    edge.serve(Deployment::of("slow", &edge.upload(text(SLEEP)).await).process("sleep 600000")).await;
    let provider = edge.node.as_ref().unwrap().provider.clone();
    let arguments = ["--provider", &provider, "--upstream-timeout", "300ms"];
    let mut hasty = Process::spawn(&mut edge.again().gateway(&arguments));
    let gateway = hasty
        .until(|said| said.split("fawn ready gateway=").nth(1)?.split(' ').next().map(str::to_owned))
        .await;
    let answer = Reply::to(client().build().unwrap().get(format!("{gateway}/function/slow"))).await;
    assert_eq!((answer.status, answer.text().as_str()), (502, ""));
    eventually("the guest is gone", async || (edge.metric("fawn_instances").await == 0.0).then_some(()))
        .await;
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn what_a_gateway_needs_is_asked_for_before_it_listens() {
    let plan = Plan::new();
    let said = run(&mut plan.gateway(&[]), b"").await;
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    assert!(said.fails().contains("--provider URL"));
    let said =
        run(&mut plan.gateway(&["--provider", "https://node", "--upstream-timeout", "soon"]), b"").await;
    let text = said.fails();
    assert!(text.contains("https is not spoken") && text.contains("upstream-timeout"), "{text}");
    let said = run(&mut plan.gateway(&["--provider", "http://127.0.0.1:1"]), b"").await.fails();
    assert!(said.contains("fawn node") && said.contains("--credentials"), "{said}");
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn both_stop_when_their_calls_have_ended() {
    let mut edge = pair().await;
    edge.serve(Deployment::of("slow", &edge.upload(text(SLEEP)).await).process("sleep 1500")).await;
    edge.serve(Deployment::of("hello", &edge.upload(text(HELLO)).await)).await;
    let call = tokio::spawn(edge.request(Method::POST, "/function/slow").send());
    eventually("the call runs", async || (edge.metric("fawn_instances").await == 1.0).then_some(())).await;
    assert!(edge.terminate().await.success(), "{}", edge.process.log());
    assert_eq!(call.await.unwrap().unwrap().text().await.unwrap(), "slept\n");
}
