//! The REST surface in front of a fake provider.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod errors;
mod foreign;
mod logs;
mod namespaces;
mod remote;
mod secrets;
mod server;

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use runtime_api::{CallId, Error, FunctionName, Provider};
use runtime_http::{answer, system_routes};
use runtime_testing::FakeProvider;
use tower::ServiceExt;
use tracing::subscriber::{set_default, with_default};

struct Api(Arc<FakeProvider>);

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Api {
    fn new() -> Self {
        errors::listen();
        Self(FakeProvider::new())
    }

    fn with(functions: &[&str]) -> Self {
        let api = Self::new();
        functions.iter().for_each(|name| api.0.add(name));
        api
    }

    async fn send(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(path).header("x-call-id", "call-1");
        let routes = system_routes(self.0.clone());
        let response = routes.oneshot(request.body(body.into()).unwrap()).await.unwrap();
        Answer::read(response).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "").await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(Method::POST, path, body.to_owned()).await
    }

    async fn replicas(&self, function: &str) -> u64 {
        self.0.status(&FunctionName::parse(function).unwrap()).await.unwrap().replicas
    }
}

impl Answer {
    async fn read<B: http_body::Body<Error: std::fmt::Debug>>(response: http::Response<B>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Self {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status, code and body of a platform's own error, whose other headers are checked here.
    fn error(&self) -> (u16, &str, &str) {
        assert_eq!(self.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(self.header("x-content-type-options"), "nosniff");
        (self.status.as_u16(), self.header("x-error-code"), self.body.strip_suffix('\n').unwrap())
    }
}

const HELLO: &str = r#"{"service":"hello","image":"registry.example/hello:1"}"#;

#[tokio::test]
async fn a_function_is_deployed_updated_described_and_removed() {
    let api = Api::new();
    let update = api.send(Method::PUT, "/system/functions", HELLO).await;
    assert_eq!(update.error(), (404, "not-found", "function hello.openfaas-fn not found"));

    let deployed = api.post("/system/functions", HELLO).await;
    assert_eq!((deployed.status.as_u16(), deployed.body.as_str()), (202, ""));
    let again = api.post("/system/functions", HELLO).await;
    assert_eq!(again.error(), (409, "already-exists", "function hello.openfaas-fn already exists"));
    assert_eq!(api.send(Method::PUT, "/system/functions", HELLO).await.status, 202);

    let status = api.get("/system/function/hello?usage=1").await;
    assert_eq!((status.status.as_u16(), status.header("content-type")), (200, "application/json"));
    assert!(
        status.body.starts_with(r#"{"name":"hello","image":"registry.example/hello:1","#),
        "{}",
        status.body
    );

    let removed = api.send(Method::DELETE, "/system/functions", r#"{"functionName":"hello"}"#).await;
    assert_eq!((removed.status.as_u16(), removed.body.as_str()), (202, ""));
    let again = api.send(Method::DELETE, "/system/functions", r#"{"functionName":"hello"}"#).await;
    assert_eq!(again.error(), (404, "not-found", "function hello.openfaas-fn not found"));
    assert_eq!(api.get("/system/function/hello").await.status, 404);
}

#[tokio::test]
async fn a_list_is_an_array_even_when_it_is_empty() {
    let api = Api::new();
    let list = api.get("/system/functions").await;
    assert_eq!(
        (list.status.as_u16(), list.header("content-type"), list.body.as_str()),
        (200, "application/json", "[]")
    );
    api.0.add("b");
    api.0.add("a.dev");
    assert!(api.get("/system/functions").await.body.starts_with(r#"[{"name":"b""#));
    assert!(
        api.get("/system/functions?namespace=openfaas-fn&namespace=dev")
            .await
            .body
            .starts_with(r#"[{"name":"a""#)
    );
    assert_eq!(api.get("/system/functions?namespace=x").await.status, 400);
}

#[tokio::test]
async fn the_namespace_is_read_from_body_and_query_and_the_body_wins() {
    let api = Api::with(&["a.dev", "b.dev", "c.dev", "d.dev", "e.dev"]);
    let image = r#""image":"registry.example/hello:1""#;
    for (method, path, body) in [
        (Method::POST, "/system/functions", format!(r#"{{"service":"new",{image},"namespace":"dev"}}"#)),
        (Method::POST, "/system/functions?namespace=dev", format!(r#"{{"service":"new2",{image}}}"#)),
        (Method::PUT, "/system/functions?namespace=dev", format!(r#"{{"service":"a",{image}}}"#)),
        (
            Method::PUT,
            "/system/functions?namespace=x",
            format!(r#"{{"service":"a",{image},"namespace":"dev"}}"#),
        ),
        (Method::DELETE, "/system/functions?namespace=dev", r#"{"functionName":"b"}"#.into()),
        (Method::DELETE, "/system/functions?namespace=x", r#"{"functionName":"c","namespace":"dev"}"#.into()),
        (Method::POST, "/system/scale-function/d?namespace=dev", r#"{"replicas":2}"#.into()),
        (Method::POST, "/system/scale-function/d?namespace=x", r#"{"namespace":"dev","replicas":2}"#.into()),
        (Method::POST, "/system/scale-function/d.dev", r#"{"replicas":2}"#.into()),
    ] {
        let answer = api.send(method.clone(), path, body.clone()).await;
        assert_eq!(answer.status, 202, "{method} {path} {body}: {}", answer.body);
    }
    assert_eq!(api.get("/system/function/e?namespace=dev").await.status, 200);
    assert_eq!(api.get("/system/function/e.dev").await.status, 200);
    assert_eq!(api.get("/system/function/e").await.status, 404);
}

#[tokio::test]
async fn an_unknown_namespace_is_refused_by_name() {
    let api = Api::with(&["a"]);
    let image = r#""image":"registry.example/hello:1""#;
    for (method, path, body) in [
        (Method::POST, "/system/functions", format!(r#"{{"service":"a",{image},"namespace":"x"}}"#)),
        (Method::PUT, "/system/functions?namespace=x", format!(r#"{{"service":"a",{image}}}"#)),
        (Method::DELETE, "/system/functions?namespace=x", r#"{"functionName":"a"}"#.into()),
        (Method::POST, "/system/scale-function/a?namespace=x", r#"{"replicas":1}"#.into()),
        (Method::GET, "/system/function/a?namespace=x", String::new()),
    ] {
        let answer = api.send(method, path, body).await;
        let text = r#"namespace "x" does not exist; there is dev, openfaas-fn"#;
        assert_eq!(answer.error(), (400, "no-such-namespace", text), "{path}");
    }
}

#[tokio::test]
async fn scaling_goes_by_the_path_then_by_the_body() {
    let api = Api::with(&["a", "b"]);
    for (path, body, a, b) in [
        ("/system/scale-function/a", r#"{"serviceName":"b","replicas":3}"#, 3, 1),
        ("/system/scale-function/", r#"{"serviceName":"b","replicas":4}"#, 3, 4),
        ("/system/scale-function/a", r#"{"replicas":0}"#, 0, 4),
        ("/system/scale-function/b", "{}", 0, 0),
    ] {
        assert_eq!(api.post(path, body).await.status, 202, "{path} {body}");
        assert_eq!((api.replicas("a").await, api.replicas("b").await), (a, b), "{path} {body}");
    }
    let missing = api.post("/system/scale-function/c", r#"{"replicas":1}"#).await;
    assert_eq!(missing.error(), (404, "not-found", "function c.openfaas-fn not found"));
    let negative = api.post("/system/scale-function/a", r#"{"replicas":-1}"#).await;
    assert!(negative.error().2.contains("field replicas: invalid value: integer `-1`"), "{}", negative.body);
}

#[tokio::test]
async fn json_is_read_as_go_reads_it() {
    let api = Api::new();
    let body = r#"{"Service":"hello","IMAGE":"registry.example/hello:1","envprocess":"cat","EnvVars":{"Image":"kept"},
        "labels":null,"namespace":null,"limits":{"Memory":"32Mi","cpu":null},"registryAuth":"ignored","network":{}}"#;
    assert_eq!(api.post("/system/functions", body).await.status, 202);
    let spec = api.0.status(&FunctionName::parse("hello").unwrap()).await.unwrap().spec;
    assert_eq!((spec.env_process.as_str(), spec.env_vars["Image"].as_str()), ("cat", "kept"));
    assert_eq!(spec.limits.unwrap().memory, "32Mi");
    let removed = api.send(Method::DELETE, "/system/functions", r#"{"FunctionName":"hello"}"#).await;
    assert_eq!(removed.status, 202);
}

#[tokio::test]
async fn wrong_json_is_refused_by_place_and_field() {
    let api = Api::new();
    for (body, says) in [
        ("{\n  \"service\": \"a\",,}", "line 2 column 18"),
        ("", "line 1 column 0"),
        ("[]", "an object is expected"),
        (r#"{"service":"a","image":1}"#, "field image: invalid type: integer `1`, expected a string"),
        (r#"{"limits":{"memory":128}}"#, "field limits.memory: invalid type: integer `128`"),
        (r#"{"labels":{"a":true}}"#, "field labels.a: invalid type: boolean `true`"),
        (r#"{"image":"registry.example/hello:1"}"#, "service is required"),
        (r#"{"service":"Hello","image":"registry.example/hello:1"}"#, "\"Hello\" is not valid"),
    ] {
        let answer = api.post("/system/functions", body).await;
        let (status, _, text) = answer.error();
        assert!(status == 400 && text.contains(says), "{body}: {text}");
    }
    let nameless = api.send(Method::DELETE, "/system/functions", "{}").await;
    assert_eq!(nameless.error(), (400, "invalid-name", "functionName is required"));
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_413() {
    let api = Api::new();
    let room = (1 << 20) - HELLO.len();
    assert_eq!(api.post("/system/functions", &(HELLO.to_owned() + &" ".repeat(room))).await.status, 202);
    let answer = api.post("/system/functions", &(HELLO.to_owned() + &" ".repeat(room + 1))).await;
    assert_eq!(answer.error(), (413, "too-large", "the body is larger than 1048576 bytes"));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_is_408() {
    let body = Body::new(http_body_util::StreamBody::new(futures_util::stream::pending::<
        Result<http_body::Frame<bytes::Bytes>, io::Error>,
    >()));
    let answer = Api::new().send(Method::POST, "/system/functions", body).await;
    assert_eq!(answer.error(), (408, "request-timeout", "the body did not arrive in time"));
}

#[tokio::test]
async fn a_module_is_stored_and_can_be_deployed() {
    let api = Api::new();
    let stored = api.send(Method::POST, "/system/artifacts", &b"\0asm\x01\0\0\0"[..]).await;
    assert_eq!((stored.status.as_u16(), stored.header("content-type")), (200, "application/json"));
    let digest = "sha256:93a44bbb96c751218e4c00d479e4c14358122a389acca16205b1e4d0dc5f9476";
    assert_eq!(stored.body, format!(r#"{{"image":"fawn.local/module@{digest}","digest":"{digest}"}}"#));
    let spec = format!(r#"{{"service":"hello","image":"fawn.local/module@{digest}"}}"#);
    assert_eq!(api.post("/system/functions", &spec).await.status, 202);
    assert_eq!(api.send(Method::POST, "/system/artifacts", "text").await.error().0, 400);
}

#[tokio::test]
async fn a_module_can_be_stored_with_its_command() {
    let api = Api::new();
    let stored = async |query: &str| {
        let path = format!("/system/artifacts{query}");
        api.send(Method::POST, &path, &b"\0asm\x01\0\0\0"[..]).await
    };
    let plain = stored("").await.body;
    let commands = ["?arg=a&arg=b", "?arg=b&arg=a", "?arg=a%26arg%3Db", "?env=A%3Db%3Dc", "?env=A%3D&arg=a"];
    let mut bodies = vec![plain];
    for query in commands {
        let answer = stored(query).await;
        assert_eq!(answer.status, 200, "{query}");
        bodies.push(answer.body);
    }
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), commands.len() + 1, "each has a name of its own: {bodies:?}");
    for query in ["?env=A", "?env=%3Db", "?arg=%00"] {
        assert_eq!(stored(query).await.error().1, "invalid-command", "{query}");
    }
}

#[tokio::test]
async fn provider_and_namespaces_are_told() {
    let api = Api::new();
    assert_eq!(api.get("/system/namespaces").await.body, r#"["dev","openfaas-fn"]"#);
    let info = r#"{"provider":"fake","version":{"sha":"abc123","release":"0.0.1"},"orchestration":"memory"}"#;
    assert_eq!(api.get("/system/info").await.body, info);
}

#[tokio::test]
async fn health_is_the_providers() {
    let api = Api::new();
    for method in [Method::GET, Method::HEAD] {
        let healthy = api.send(method, "/healthz", "").await;
        assert_eq!((healthy.status.as_u16(), healthy.body.as_str()), (200, ""));
    }
    api.0.fail_next(Error::Unavailable { message: "starting".into(), source: None });
    assert_eq!(api.get("/healthz").await.error(), (503, "unavailable", "starting"));
}

#[tokio::test]
async fn other_paths_are_404_and_other_methods_405() {
    let api = Api::with(&["a"]);
    for path in [
        "/",
        "/system",
        "/system/",
        "/system/x",
        "/system/functions/",
        "/system/function",
        "/system/function/",
        "/system/function/a/b",
        "/system/function/a%20b",
        "/system/function/%ff",
        "/system//functions",
        "/%73ystem/functions",
    ] {
        assert_eq!(api.get(path).await.error(), (404, "not-found", "404 page not found"), "{path}");
    }
    for (method, path) in [
        (Method::PATCH, "/system/functions"),
        (Method::POST, "/system/function/a"),
        (Method::GET, "/system/scale-function/a"),
        (Method::POST, "/system/namespaces"),
        (Method::DELETE, "/system/info"),
        (Method::GET, "/system/artifacts"),
        (Method::POST, "/healthz"),
    ] {
        let answer = api.send(method, path, "").await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (405, ""), "{path}");
    }
    for name in ["A", "a_b", "-a", "a.b.c", "..", &"a".repeat(64)] {
        let answer = api.get(&format!("/system/function/{name}")).await;
        assert_eq!(answer.status, 404, "{name}");
    }
}
