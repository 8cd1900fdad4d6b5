//! Secrets and namespaces as users have them: made over HTTP, read by guests of real toolchains, and never shown.

use reqwest::{Method, StatusCode};
use runtime_testing::guests::{HELLO_HTTP, SECRET};
use serde_json::{Value, json};

use crate::{
    edge::{Deployment, Edge, Plan, Reply},
    guests::{built, text},
};

const VALUE: &str = "hunter2-of-the-edge";
const PATH: &str = "/var/openfaas/secrets/token";

impl Edge {
    async fn secrets(&self, method: Method, body: Value) -> Reply {
        Reply::to(self.admin(method, "/system/secrets").json(&body)).await
    }

    async fn namespace(&self, method: Method, name: &str) -> Reply {
        let body = json!({ "name": name, "labels": { "openfaas": "1" } });
        Reply::to(self.admin(method, &format!("/system/namespace/{name}")).json(&body)).await
    }

    async fn token(&self, method: Method, value: &str) {
        let answer = self.secrets(method, json!({ "name": "token", "value": value })).await;
        assert_eq!(answer.status, 202, "{answer}");
    }
}

fn reader(name: &str, image: &str) -> Deployment {
    Deployment::of(name, image).field("secrets", json!(["token"]))
}

/// The guests that can read a file: how each is called, and what it is deployed with.
const GUESTS: [(&str, &str, &str); 4] = [
    ("rust-command.wasm", "", "program cat /var/openfaas/secrets/token"),
    ("c.wasm", "", "c cat /var/openfaas/secrets/token"),
    ("go.wasm", "", "cat /var/openfaas/secrets/token"),
    ("rust-handler.wasm", "/file?name=/var/openfaas/secrets/token", ""),
];

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn each_guest_reads_its_secret_and_what_becomes_of_it() {
    let mut edge = Edge::start().await;
    edge.token(Method::POST, "before").await;
    for (file, _, process) in GUESTS {
        let image = edge.upload(built(file)).await;
        edge.serve(reader(file.split('.').next().unwrap(), &image).process(process)).await;
    }
    let read = async |edge: &Edge, expected: &str| {
        for (file, path, _) in GUESTS {
            let function = file.split('.').next().unwrap();
            assert_eq!(edge.call(&format!("{function}{path}"), "").await.ok(), expected, "{file}");
        }
    };
    read(&edge, "before").await;
    edge.token(Method::PUT, VALUE).await;
    read(&edge, VALUE).await;
    assert!(edge.terminate().await.success());
    let mut edge = edge.again().start().await;
    read(&edge, VALUE).await;

    let removed = edge.secrets(Method::DELETE, json!({ "name": "token" })).await;
    assert_eq!(removed.status, 202, "{removed}");
    for (file, path, _) in GUESTS {
        let answer = edge.call(&format!("{}{path}", file.split('.').next().unwrap()), "").await;
        assert!(answer.status >= 400 && !answer.text().contains(VALUE), "{file}: {answer}");
    }
    assert!(edge.terminate().await.success());
    assert!(!edge.process.log().contains(VALUE));
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn a_guest_sees_its_secrets_alone_and_changes_none() {
    let edge = Edge::start().await;
    edge.token(Method::POST, VALUE).await;
    edge.secrets(Method::POST, json!({ "name": "a.pem", "rawValue": "AAEC/w==" })).await;
    edge.secrets(Method::POST, json!({ "name": "other", "value": "not yours" })).await;
    let image = edge.upload(built("rust-command.wasm")).await;
    let run = async |command: &str| {
        let deployment = Deployment::of("program", &image).process(&format!("program {command}"));
        edge.serve(deployment.field("secrets", json!(["token", "a.pem"]))).await;
        edge.call("program", "").await
    };
    assert_eq!(run("ls /var/openfaas/secrets").await.ok(), "a.pem\ntoken\n");
    assert_eq!(run("cat /var/openfaas/secrets/a.pem").await.body, [0, 1, 2, 255]);
    let refused = run("write /var/openfaas/secrets/token").await;
    assert!(refused.status == 500 && refused.text().to_lowercase().contains("read-only"), "{refused}");
    for command in [
        "cat /var/openfaas/secrets/other",
        "cat /var/openfaas/secrets/../../../etc/passwd",
        "cat /etc/passwd",
    ] {
        assert_eq!(run(command).await.status, 500, "{command}");
    }
    assert_eq!(run(&format!("cat {PATH}")).await.ok(), VALUE);
}

#[tokio::test]
async fn what_a_secret_holds_is_nowhere_but_in_its_function() {
    let mut edge = Plan::new().argument("--log").argument("debug").start().await;
    edge.token(Method::POST, VALUE).await;
    let image = edge.upload(text(SECRET)).await;
    edge.serve(reader("reader", &image)).await;
    assert_eq!(edge.call("reader", "").await.ok(), VALUE);
    let again = edge.secrets(Method::POST, json!({ "name": "token", "value": VALUE })).await;
    assert_eq!(again.status, 409, "{again}");
    let bad = edge.secrets(Method::POST, json!({ "name": "../x", "value": VALUE })).await;
    assert_eq!(bad.status, 400, "{bad}");
    let unknown = edge.secrets(Method::PUT, json!({ "name": "unknown", "value": VALUE })).await;
    assert_eq!(unknown.status, 404, "{unknown}");
    let listed = Reply::to(edge.admin(Method::GET, "/system/secrets")).await;
    assert_eq!(listed.json(), json!([{ "name": "token", "namespace": "openfaas-fn" }]));
    let metrics = reqwest::get(format!("{}/metrics", edge.metrics)).await.unwrap().text().await.unwrap();
    let mut shown = vec![again.text(), bad.text(), unknown.text(), listed.text(), metrics];
    for path in ["/system/functions", "/system/function/reader", "/system/info", "/system/namespaces"] {
        shown.push(Reply::to(edge.admin(Method::GET, path)).await.ok());
    }
    assert!(edge.terminate().await.success());
    shown.push(edge.process.log());
    assert!(shown.iter().all(|text| !text.contains(VALUE)), "{shown:?}");
    for entry in std::fs::read_dir(edge.data_dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(VALUE.len()).any(|at| at == VALUE.as_bytes()), "{}", path.display());
        }
    }
}

#[tokio::test]
async fn a_key_that_others_can_read_is_refused_and_one_of_the_operator_s_serves() {
    let plan = Plan::new();
    let key = plan.file("operator.key", &[7; 32]);
    let mode =
        |mode| std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    let given = |plan: Plan| plan.variable("FAWN_SECRETS_KEY_FILE", key.to_str().unwrap());
    mode(0o600);
    let mut edge = given(plan).start().await;
    edge.token(Method::POST, VALUE).await;
    let image = edge.upload(text(SECRET)).await;
    edge.serve(reader("reader", &image)).await;
    assert!(!edge.data_dir().join("secrets.key").exists());
    assert!(edge.terminate().await.success());

    let refused = edge.again().refused().await;
    assert!(refused.contains("secrets.key") && refused.contains("--secrets-key-file"), "{refused}");
    mode(0o644);
    let refused = given(edge.again()).refused().await;
    assert!(refused.contains("operator.key") && refused.contains("chmod 600"), "{refused}");
    mode(0o600);
    let mut edge = given(edge.again()).start().await;
    assert_eq!(edge.call("reader", "").await.ok(), VALUE);
    assert!(edge.terminate().await.success());

    std::fs::write(&key, [8; 32]).unwrap();
    let refused = given(edge.again()).refused().await;
    for part in ["operator.key", "openfaas-fn/token", "--secrets-key-lost"] {
        assert!(refused.contains(part), "{part} is not in {refused}");
    }
    let mut edge = given(edge.again()).argument("--secrets-key-lost").start().await;
    edge.token(Method::PUT, VALUE).await;
    assert_eq!(edge.call("reader", "").await.ok(), VALUE);
    assert!(edge.terminate().await.success());
    let edge = given(edge.again()).start().await;
    assert_eq!(edge.call("reader", "").await.ok(), VALUE);
}

#[tokio::test]
async fn a_function_lives_in_a_namespace_of_its_own() {
    let edge = Edge::start().await;
    assert_eq!(edge.namespace(Method::POST, "staff").await.status, StatusCode::CREATED.as_u16());
    assert_eq!(edge.namespace(Method::POST, "staff").await.status, 409);
    assert_eq!(edge.namespace(Method::POST, "kube-system").await.status, 400);
    let listed = Reply::to(edge.admin(Method::GET, "/system/namespaces")).await.json();
    assert_eq!(listed, json!(["openfaas-fn", "staff"]));

    let image = edge.upload(text(HELLO_HTTP)).await;
    let deployment = Deployment::of("guest", &image).field("namespace", json!("staff"));
    let answer = edge.deploy(&deployment).await;
    assert_eq!(answer.status, 202, "{answer}");
    assert_eq!(edge.call("guest.staff", "").await.ok(), "Hello from Fawn\n");
    assert_eq!(edge.call("guest", "").await.status, 404);
    assert!(!edge.list().await.contains(&"guest".to_owned()));
    let status = Reply::to(edge.admin(Method::GET, "/system/function/guest?namespace=staff")).await.json();
    assert_eq!(status["namespace"], "staff");

    let refused = edge.namespace(Method::DELETE, "staff").await;
    assert!(refused.status == 400 && refused.text().contains("guest"), "{refused}");
    let body = json!({ "functionName": "guest", "namespace": "staff" });
    let removed = Reply::to(edge.admin(Method::DELETE, "/system/functions").json(&body)).await;
    assert_eq!(removed.status, 202, "{removed}");
    assert_eq!(edge.namespace(Method::DELETE, "staff").await.status, 202);
}
