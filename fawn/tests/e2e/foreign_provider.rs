//! `fawn gateway` in front of a provider that is not ours: one on the SDK that OpenFaaS's providers are written on
//! (`fawn/tests/provider_go`).

use std::{env, ffi::OsStr, fs};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    edge::{Reply, binary, clean, client, ready},
    process::{PATIENCE, Process, eventually},
};

/// A provider, and our gateway in front of it.
struct Pair {
    provider: Process,
    gateway: Process,
    address: String,
    http: Client,
    _home: TempDir,
}

const PASSWORD: &str = "between gateway and provider";

impl Pair {
    async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("basic-auth-user"), "admin\n").unwrap();
        fs::write(home.path().join("basic-auth-password"), PASSWORD).unwrap();
        let program =
            env::var_os("FAWN_PROVIDER_GO").expect("FAWN_PROVIDER_GO is not set: run scripts/test e2e");
        let mut provider = Process::spawn(Command::new(program).arg(home.path()));
        let url = provider
            .until(|said| said.lines().find_map(|line| line.strip_prefix("provider ")).map(str::to_owned))
            .await;
        let mut command = Command::new(binary());
        clean(&mut command, home.path());
        command.args(["gateway", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
        command.args(["--provider".as_ref(), OsStr::new(&url)]);
        command.env("basic_auth", "true").env("secret_mount_path", home.path());
        let mut gateway = Process::spawn(&mut command);
        let (address, _) = gateway.until(ready).await;
        let http = client().timeout(PATIENCE).build().unwrap();
        Self { provider, gateway, address, http, _home: home }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.address))
    }

    async fn admin(&self, method: Method, path: &str, body: Value) -> Reply {
        let request = self.request(method, path).basic_auth("admin", Some(PASSWORD));
        Reply::to(if body.is_null() { request } else { request.json(&body) }).await
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.admin(Method::GET, path, Value::Null).await;
        answer.ok();
        answer.json()
    }

    async fn deploy(&self, name: &str) {
        let spec = json!({ "service": name, "image": "any:latest", "labels": { "a": "b" } });
        let answer = self.admin(Method::POST, "/system/functions", spec).await;
        assert_eq!(answer.status, 202, "{answer}");
    }

    async fn scale(&self, name: &str, replicas: u64) {
        let path = format!("/system/scale-function/{name}");
        let answer =
            self.admin(Method::POST, &path, json!({ "serviceName": name, "replicas": replicas })).await;
        assert_eq!(answer.status, 202, "{answer}");
    }
}

#[tokio::test]
#[ignore = "needs the provider in Go: run scripts/test"]
async fn a_foreign_provider_is_administered() {
    let pair = Pair::start().await;
    assert_eq!(Reply::to(pair.request(Method::GET, "/healthz")).await.status, 200);
    assert_eq!(Reply::to(pair.request(Method::GET, "/system/functions")).await.status, 401);
    let info = pair.get("/system/info").await;
    assert_eq!(info["provider"]["provider"], "provider-go", "{info}");
    assert_eq!(info["provider"]["version"]["release"], "1.2.3", "{info}");
    assert!(info["version"]["release"].is_string(), "{info}");

    let functions = "/system/functions";
    let spec = |image: &str| json!({ "service": "one", "image": image, "annotations": { "topic": "t" } });
    assert_eq!(pair.admin(Method::PUT, functions, spec("a:1")).await.status, 404);
    pair.deploy("one").await;
    let again = pair.admin(Method::POST, functions, spec("a:1")).await;
    assert!((400..600).contains(&again.status), "{again}");
    assert!(again.text().contains("already exists"), "{again}");
    assert_eq!(pair.admin(Method::PUT, functions, spec("a:2")).await.status, 202);
    let listed = pair.get(functions).await;
    assert_eq!((listed[0]["name"].as_str(), listed.as_array().unwrap().len()), (Some("one"), 1), "{listed}");
    let status = pair.get("/system/function/one").await;
    assert_eq!((&status["image"], &status["annotations"]["topic"]), (&json!("a:2"), &json!("t")), "{status}");
    pair.scale("one", 3).await;
    eventually("the replicas are there", async || {
        (pair.get("/system/function/one").await["availableReplicas"] == 3).then_some(())
    })
    .await;
    let removal = json!({ "functionName": "one" });
    assert_eq!(pair.admin(Method::DELETE, functions, removal.clone()).await.status, 202);
    assert_eq!(pair.admin(Method::DELETE, functions, removal).await.status, 404);
    assert_eq!(pair.admin(Method::GET, "/system/function/one", Value::Null).await.status, 404);
    assert_eq!(pair.get(functions).await, json!([]));
}

#[tokio::test]
#[ignore = "needs the provider in Go: run scripts/test"]
async fn a_foreign_provider_is_called() {
    let pair = Pair::start().await;
    pair.deploy("one").await;
    let call = pair.request(Method::PUT, "/function/one/a/b/?q=1&q=%2F").body("hello");
    let answer = Reply::to(call.bearer_auth("of the caller")).await;
    assert_eq!(answer.headers["x-told-by"], "provider_go");
    assert!(answer.headers.contains_key("x-call-id"), "{answer}");
    answer.ok();
    let told = answer.json();
    let expected = json!({
        "method": "PUT",
        "uri": "/a/b/?q=1&q=%2F",
        "body": "hello",
        "authorization": "Bearer of the caller",
        "callId": answer.headers["x-call-id"].to_str().unwrap(),
        "forwardedHost": pair.address.trim_start_matches("http://"),
    });
    assert_eq!(told, expected);
    for status in [201, 404, 418, 500, 503] {
        let answer = Reply::to(pair.request(Method::GET, &format!("/function/one/status/{status}"))).await;
        assert_eq!(answer.status, status, "a function's own answer: {answer}");
        assert_eq!(answer.headers["x-told-by"], "provider_go");
    }
    let unknown = Reply::to(pair.request(Method::GET, "/function/nobody")).await;
    assert_eq!(unknown.status, 404, "{unknown}");
    let big = vec![b'x'; 4 << 20];
    let answer = Reply::to(pair.request(Method::POST, "/function/one.openfaas-fn").body(big)).await;
    assert_eq!(answer.json()["body"].as_str().unwrap().len(), 4 << 20);
}

#[tokio::test]
#[ignore = "needs the provider in Go: run scripts/test"]
async fn a_function_of_a_foreign_provider_wakes() {
    let pair = Pair::start().await;
    pair.deploy("sleeper").await;
    pair.scale("sleeper", 0).await;
    let asleep = pair.get("/system/function/sleeper").await;
    assert_eq!(asleep["availableReplicas"].as_u64().unwrap_or_default(), 0, "{asleep}");
    let calls: Vec<_> =
        (0..10).map(|_| tokio::spawn(pair.request(Method::POST, "/function/sleeper").send())).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(pair.get("/system/function/sleeper").await["replicas"], 1);
}

#[tokio::test]
#[ignore = "needs the provider in Go: run scripts/test"]
async fn a_foreign_provider_keeps_secrets_namespaces_and_logs() {
    let pair = Pair::start().await;
    let secret = json!({ "name": "key", "value": "v" });
    for (method, status) in [
        (Method::PUT, 404),
        (Method::POST, 202),
        (Method::POST, 409),
        (Method::PUT, 202),
        (Method::DELETE, 202),
        (Method::DELETE, 404),
    ] {
        let answer = pair.admin(method.clone(), "/system/secrets", secret.clone()).await;
        assert_eq!(answer.status, status, "{method}: {answer}");
    }
    assert_eq!(pair.admin(Method::POST, "/system/secrets", secret).await.status, 202);
    let listed = pair.get("/system/secrets").await;
    assert_eq!(listed, json!([{ "name": "key", "namespace": "openfaas-fn" }]));

    assert_eq!(pair.get("/system/namespaces").await, json!(["openfaas-fn"]));
    let marked =
        json!({ "name": "staging", "labels": { "openfaas": "1" }, "annotations": { "openfaas": "1" } });
    assert_eq!(pair.admin(Method::POST, "/system/namespace/", marked.clone()).await.status, 201);
    assert_eq!(pair.admin(Method::POST, "/system/namespace/", marked.clone()).await.status, 409);
    assert_eq!(pair.get("/system/namespace/staging").await["labels"]["openfaas"], "1");
    let elsewhere = json!({ "service": "two", "image": "any", "namespace": "staging" });
    assert_eq!(pair.admin(Method::POST, "/system/functions", elsewhere).await.status, 202);
    assert_eq!(pair.get("/system/functions").await, json!([]));
    assert_eq!(pair.get("/system/functions?namespace=staging").await[0]["name"], "two");
    Reply::to(pair.request(Method::POST, "/function/two.staging")).await.ok();

    let path = "/system/logs?name=two&namespace=staging&tail=5";
    let log = pair.admin(Method::GET, path, Value::Null).await;
    let line: Value = serde_json::from_str(log.ok().trim_end()).unwrap();
    let fields =
        ["name", "namespace", "instance", "text"].map(|field| line[field].as_str().unwrap().to_owned());
    assert_eq!(fields, ["two", "staging", "1", "call 1"]);
    let unknown = pair.admin(Method::GET, "/system/logs?name=nobody", Value::Null).await;
    assert!((400..600).contains(&unknown.status), "{unknown}");
    assert_eq!(pair.admin(Method::DELETE, "/system/namespace/staging", marked).await.status, 202);
    assert_eq!(pair.admin(Method::GET, "/system/namespace/staging", Value::Null).await.status, 404);
}

#[tokio::test]
#[ignore = "needs the provider in Go: run scripts/test"]
async fn a_provider_that_is_gone_is_a_502() {
    let mut pair = Pair::start().await;
    pair.deploy("one").await;
    Reply::to(pair.request(Method::GET, "/function/one")).await.ok();
    pair.provider.kill().await;
    let call = Reply::to(pair.request(Method::GET, "/function/one")).await;
    // It may not be known any more whether there is such a function.
    assert!(matches!(call.status, 404 | 502), "{call}");
    let listed = pair.admin(Method::GET, "/system/functions", Value::Null).await;
    assert_eq!(listed.status, 502, "{listed}");
    let health = Reply::to(pair.request(Method::GET, "/healthz")).await;
    assert!(matches!(health.status, 502 | 503), "{health}");
    let info = pair.get("/system/info").await;
    assert!(info["provider"].is_object(), "faas-cli takes it for granted: {info}");
    pair.gateway.signal("TERM");
    assert!(pair.gateway.ended().await.success(), "{}", pair.gateway.log());
}
