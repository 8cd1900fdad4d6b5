//! What OpenFaaS's own certifier asks of a provider, in the default namespace and in another one. The certifier itself
//! needs modules that the Go module proxy refuses.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    edge::{Deployment, Edge, Reply},
    guests::built,
    process::eventually,
};

/// SHA-512 of nothing, as sha512sum prints it: 132 bytes.
const HASH_OF_NOTHING: &str = "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318\
                               d2877eec2f63b931bd47417a81a538327af927da3e  -\n";

/// The default one, and one that is made.
const NAMESPACES: [&str; 2] = ["openfaas-fn", "certified"];

/// A gateway, and the namespace in which functions are looked at.
struct Candidate {
    edge: Edge,
    namespace: &'static str,
    image: String,
}

impl Candidate {
    async fn of(namespace: &'static str) -> Self {
        let edge = Edge::start().await;
        let image = edge.upload(built("go.wasm")).await;
        if namespace != "openfaas-fn" {
            let marked = json!({ "openfaas": "1" });
            let body = json!({ "name": namespace, "labels": marked, "annotations": marked });
            let made = Reply::to(edge.admin(Method::POST, "/system/namespace/").json(&body)).await;
            assert_eq!(made.status, 201, "{made}");
        }
        Self { edge, namespace, image }
    }

    fn function(&self, name: &str, process: &str) -> Deployment {
        Deployment::of(name, &self.image).process(process).field("namespace", json!(self.namespace))
    }

    /// 202, and there from then on.
    async fn deploy(&self, deployment: Deployment) {
        let answer = self.edge.create(&deployment).await;
        assert_eq!(answer.status, 202, "{}: {answer}", deployment.0);
    }

    async fn get(&self, path: &str) -> Reply {
        let request = self.edge.admin(Method::GET, path).query(&[("namespace", self.namespace)]);
        Reply::to(request).await
    }

    async fn status(&self, name: &str) -> Value {
        let answer = self.get(&format!("/system/function/{name}")).await;
        answer.ok();
        answer.json()
    }

    async fn replicas(&self, name: &str) -> u64 {
        self.status(name).await["replicas"].as_u64().unwrap_or_default()
    }

    async fn listed(&self) -> Vec<String> {
        let answer = self.get("/system/functions").await;
        answer.ok();
        let names = |one: &Value| one["name"].as_str().unwrap().to_owned();
        answer.json().as_array().unwrap().iter().map(names).collect()
    }

    async fn invoke(&self, method: Method, name: &str, rest: &str) -> Reply {
        let path = format!("/function/{name}.{}{rest}", self.namespace);
        Reply::to(self.edge.request(method, &path)).await
    }

    async fn output(&self, name: &str) -> String {
        self.invoke(Method::POST, name, "").await.ok()
    }

    /// As clients send a removal now: all in the body.
    async fn remove(&self, name: &str) -> u16 {
        let body = json!({ "functionName": name, "namespace": self.namespace });
        Reply::to(self.edge.admin(Method::DELETE, "/system/functions").json(&body)).await.status
    }

    /// As the certifier sends it: the namespace in the query, and another word for the name, which counts nothing.
    async fn scale(&self, name: &str, replicas: u64) -> u16 {
        let request = self.edge.admin(Method::POST, &format!("/system/scale-function/{name}"));
        let body = json!({ "service": name, "replicas": replicas });
        Reply::to(request.query(&[("namespace", self.namespace)]).json(&body)).await.status
    }

    async fn secrets(&self) -> Vec<Value> {
        let answer = self.get("/system/secrets").await;
        answer.ok();
        answer.json().as_array().unwrap().clone()
    }

    async fn change_secret(&self, method: Method, secret: &Value) -> u16 {
        let mut body = secret.clone();
        body["namespace"] = json!(self.namespace);
        Reply::to(self.edge.admin(method, "/system/secrets").json(&body)).await.status
    }
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn functions_are_deployed_updated_and_removed() {
    for namespace in NAMESPACES {
        let candidate = Candidate::of(namespace).await;
        candidate.deploy(candidate.function("stronghash", "sha512sum")).await;
        assert!(candidate.listed().await.contains(&"stronghash".to_owned()));
        assert_eq!(candidate.output("stronghash").await, HASH_OF_NOTHING);

        let again = candidate.function("stronghash", "upper");
        assert_eq!(candidate.edge.create(&again).await.status, 409, "it exists already");
        assert_eq!(candidate.edge.update(&again).await.status, 202);
        assert_eq!(candidate.output("stronghash").await, "");
        assert_eq!(candidate.edge.update(&candidate.function("nobody", "upper")).await.status, 404);

        assert_eq!(candidate.remove("stronghash").await, 202);
        assert_eq!(candidate.remove("stronghash").await, 404);
        assert_eq!(candidate.get("/system/function/stronghash").await.status, 404);
        assert!(!candidate.listed().await.contains(&"stronghash".to_owned()));
        assert!(matches!(candidate.invoke(Method::POST, "stronghash", "").await.status, 404 | 502));
    }
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn a_removal_takes_its_namespace_from_the_query_too() {
    let candidate = Candidate::of("certified").await;
    candidate.deploy(candidate.function("old", "upper")).await;
    let removal = candidate.edge.admin(Method::DELETE, "/system/functions?namespace=certified");
    assert_eq!(Reply::to(removal.json(&json!({ "functionName": "old" }))).await.status, 202);
    assert_eq!(candidate.listed().await, Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn what_was_deployed_is_told() {
    // A long value of many lines, in which nothing may be taken for something else.
    let glossary =
        json!({ "title": "a glossary", "entries": [{ "abbrev": "ISO 8879:1986", "see": ["a", "b"] }] });
    let glossary = serde_json::to_string_pretty(&glossary).unwrap().replace("  ", "\t");
    let annotations = json!({ "important-date": "Fri Aug 10 08:21:00 BST 2018", "some-json": glossary });
    let labels = json!({ "upstream_uri": "example.com", "canary_build": "true" });
    for namespace in NAMESPACES {
        let candidate = Candidate::of(namespace).await;
        let deployment = candidate.function("told", "env").variable("custom_env", "custom value");
        let deployment = deployment.field("labels", labels.clone()).field("annotations", annotations.clone());
        candidate.deploy(deployment).await;
        candidate.output("told").await;
        let status = candidate.status("told").await;
        for (name, value) in labels.as_object().unwrap() {
            assert_eq!(&status["labels"][name], value, "{status}");
        }
        for (name, value) in annotations.as_object().unwrap() {
            assert_eq!(&status["annotations"][name], value, "{status}");
        }
        assert_eq!(status["labels"]["faas_function"], "told", "{status}");
        for (field, value) in [
            ("name", "told"),
            ("namespace", candidate.namespace),
            ("image", &candidate.image),
            ("envProcess", "env"),
        ] {
            assert_eq!(status[field], value, "{field}: {status}");
        }
        assert!(status["createdAt"].as_str().is_some_and(|time| !time.starts_with("0001")), "{status}");
        assert_eq!(status["availableReplicas"], 1, "{status}");
    }
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn calls_have_methods_paths_queries_and_variables() {
    for namespace in NAMESPACES {
        let candidate = Candidate::of(namespace).await;
        candidate.deploy(candidate.function("seen", "env").variable("custom_env", "custom_env_value")).await;
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let line = format!("Http_Method={method}\n");
            let seen = candidate.invoke(method, "seen", "").await.ok();
            assert!(seen.contains(&line), "{seen}");
        }
        let seen = candidate.invoke(Method::POST, "seen", "/a/b/?testing=1").await.ok();
        for line in ["Http_Query=testing=1\n", "Http_Path=/a/b/\n", "custom_env=custom_env_value\n"] {
            assert!(seen.contains(line), "{line}: {seen}");
        }
        let unknown = candidate.invoke(Method::POST, "notfound", "").await;
        assert!(matches!(unknown.status, 404 | 502), "{unknown}");
    }
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn redirects_are_for_the_caller() {
    let candidate = Candidate::of("openfaas-fn").await;
    let image = candidate.edge.upload(built("rust-handler.wasm")).await;
    candidate.deploy(Deployment::of("redirector", &image)).await;
    let follow_none = crate::edge::client().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let path = "/function/redirector/answer?status=302&location=http://192.0.2.1/";
    let answer = Reply::to(follow_none.get(format!("{}{path}", candidate.edge.gateway))).await;
    assert_eq!((answer.status, &answer.headers["location"]), (302, &"http://192.0.2.1/".parse().unwrap()));
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn replicas_begin_at_the_least_and_wake_from_zero() {
    for namespace in NAMESPACES {
        let candidate = Candidate::of(namespace).await;
        let least = json!({ "com.openfaas.scale.min": "2" });
        candidate.deploy(candidate.function("least", "sha512sum").field("labels", least)).await;
        assert_eq!(candidate.replicas("least").await, 2);

        candidate.deploy(candidate.function("sleeper", "sha512sum")).await;
        assert_eq!(candidate.scale("sleeper", 0).await, 202);
        assert_eq!(candidate.replicas("sleeper").await, 0);
        assert_eq!(candidate.output("sleeper").await, HASH_OF_NOTHING);
        assert_eq!(candidate.replicas("sleeper").await, 1);

        // More than five, which Community Edition does not allow.
        assert_eq!(candidate.scale("sleeper", 7).await, 202);
        assert_eq!(candidate.replicas("sleeper").await, 7);
        assert_eq!(candidate.scale("nobody", 1).await, 404);
    }
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn secrets_are_read_by_the_functions_that_name_them() {
    for namespace in NAMESPACES {
        let candidate = Candidate::of(namespace).await;
        let secret = json!({ "name": "secret-name", "value": "this-is-the-secret-value" });
        let process = "cat /var/openfaas/secrets/secret-name";
        let reader = candidate.function("reader", process).field("secrets", json!(["secret-name"]));
        let early = candidate.edge.create(&reader).await;
        assert_eq!(early.status, 400, "{early}");

        assert_eq!(candidate.change_secret(Method::PUT, &secret).await, 404, "it is not there yet");
        assert_eq!(candidate.change_secret(Method::POST, &secret).await, 202);
        assert_eq!(candidate.change_secret(Method::POST, &secret).await, 409);
        candidate.deploy(reader).await;
        candidate.deploy(candidate.function("stranger", process)).await;
        assert_eq!(candidate.output("reader").await, "this-is-the-secret-value");
        assert_eq!(candidate.invoke(Method::POST, "stranger", "").await.status, 500, "it named no secret");
        let listed = json!({ "name": "secret-name", "namespace": candidate.namespace });
        assert_eq!(candidate.secrets().await, [listed]);
        assert_eq!(candidate.status("reader").await["secrets"], json!(["secret-name"]));

        let edited = json!({ "name": "secret-name", "value": "edited" });
        assert_eq!(candidate.change_secret(Method::PUT, &edited).await, 202);
        assert_eq!(candidate.output("reader").await, "edited");
        // In base64, what is no text; it wins.
        let raw = json!({ "name": "secret-name", "value": "text", "rawValue": "AP8K" });
        assert_eq!(candidate.change_secret(Method::PUT, &raw).await, 202);
        assert_eq!(candidate.invoke(Method::POST, "reader", "").await.body, [0, 0xff, b'\n']);

        assert_eq!(candidate.remove("reader").await, 202);
        let name = json!({ "name": "secret-name" });
        assert_eq!(candidate.change_secret(Method::DELETE, &name).await, 202);
        assert_eq!(candidate.change_secret(Method::DELETE, &name).await, 404);
        assert_eq!(candidate.secrets().await, Vec::<Value>::new());
    }
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn a_call_leaves_the_two_lines_that_clients_look_for() {
    for namespace in NAMESPACES {
        let candidate = Candidate::of(namespace).await;
        candidate.deploy(candidate.function("logger", "sha512sum")).await;
        assert_eq!(candidate.output("logger").await, HASH_OF_NOTHING);
        let path = format!("/system/logs?name=logger&tail=2&namespace={}", candidate.namespace);
        let lines = eventually("the call is in the log", async || {
            let answer = Reply::to(candidate.edge.admin(Method::GET, &path)).await;
            let lines: Vec<Value> =
                answer.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            (lines.len() == 2).then_some(lines)
        })
        .await;
        for (line, begins) in lines.iter().zip(["Forking fprocess", "Wrote 132 Bytes"]) {
            let text = line["text"].as_str().unwrap();
            let text = text.trim_start_matches(|c: char| c.is_ascii_digit() || "/: ".contains(c));
            assert!(text.starts_with(begins), "{line}");
            assert_eq!(line["name"], "logger", "{line}");
            assert_eq!(line["namespace"], candidate.namespace, "{line}");
            for field in ["instance", "timestamp"] {
                assert!(line[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {line}");
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn a_log_is_followed_as_it_grows() {
    let candidate = Candidate::of("openfaas-fn").await;
    candidate.deploy(candidate.function("logger", "sha512sum")).await;
    let follow = candidate.edge.admin(Method::GET, "/system/logs?name=logger&follow=true&tail=-1");
    let mut stream = follow.timeout(Duration::from_secs(120)).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let mut seen = String::new();
    for calls in 1..=2 {
        candidate.output("logger").await;
        while seen.matches("Wrote 132 Bytes").count() < calls {
            let more = stream.chunk().await.unwrap().expect("the log does not end while it is followed");
            seen.push_str(std::str::from_utf8(&more).unwrap());
        }
    }
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn it_says_who_it_is_and_that_it_is_well() {
    let edge = Edge::start().await;
    assert_eq!(edge.get("/healthz").await.status, 200);
    let info = Reply::to(edge.admin(Method::GET, "/system/info")).await.json();
    for field in [
        "/provider/provider",
        "/provider/orchestration",
        "/provider/version/release",
        "/provider/version/sha",
        "/version/release",
        "/version/sha",
        "/arch",
    ] {
        let text = info.pointer(field).and_then(Value::as_str);
        assert!(text.is_some_and(|text| !text.is_empty()), "{field}: {info}");
    }
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn namespaces_are_made_marked_and_removed() {
    let edge = Edge::start().await;
    let list = async || Reply::to(edge.admin(Method::GET, "/system/namespaces")).await.json();
    let change = async |method: Method, name: &str, labels: Value| {
        let body = json!({ "name": "staging", "labels": labels, "annotations": { "openfaas": "1" } });
        Reply::to(edge.admin(method, &format!("/system/namespace/{name}")).json(&body)).await.status
    };
    let marked = json!({ "openfaas": "1" });
    assert_eq!(list().await, json!(["openfaas-fn"]), "no more than clients expect");
    assert_eq!(change(Method::PUT, "staging", marked.clone()).await, 404);
    assert_eq!(change(Method::POST, "", marked.clone()).await, 201);
    assert_eq!(change(Method::POST, "", marked.clone()).await, 409);
    assert_eq!(list().await, json!(["openfaas-fn", "staging"]));
    assert_eq!(change(Method::PUT, "staging", json!({ "openfaas": "1", "team": "x" })).await, 202);
    let told = Reply::to(edge.admin(Method::GET, "/system/namespace/staging")).await.json();
    assert_eq!(told["name"], "staging");
    assert_eq!(told["labels"]["team"], "x", "{told}");
    assert_eq!(change(Method::DELETE, "staging", marked.clone()).await, 202);
    assert_eq!(change(Method::DELETE, "staging", marked).await, 404);
    assert_eq!(Reply::to(edge.admin(Method::GET, "/system/namespace/staging")).await.status, 404);
    assert_eq!(list().await, json!(["openfaas-fn"]));
}
