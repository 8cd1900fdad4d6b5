//! The client in front of providers that are not ours.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use runtime_api::{Error, LogQuery, ModuleCommand, Namespace, Provider, SecretName, empty, full};
use runtime_http::Unattributed;

use crate::remote::{call, foreign, name};

fn answer(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

#[tokio::test]
async fn a_status_as_the_sdk_sends_it_is_read() {
    let provider = foreign(|request| {
        let body = match request.uri().path_and_query().unwrap().as_str() {
            "/system/function/f?namespace=dev&usage=false" => {
                r#"{"name":"f","image":"a/b","labels":null,"replicas":2,"availableReplicas":1,"createdAt":"0001-01-01T00:00:00Z"}"#
            }
            "/system/functions?namespace=dev" => {
                r#"[{"name":"z","image":"a/b","createdAt":"0001-01-01T00:00:00Z"},{"name":"a","image":"a/b"}]"#
            }
            "/system/namespaces" => r#"["openfaas-fn","dev","openfaas-fn"]"#,
            "/system/secrets?namespace=dev" => r#"[{"name":"s"},{"name":"Not/ours"}]"#,
            "/system/info" => {
                r#"{"provider":"faas-netes-ce","version":{"sha":"x","release":"1"},"orchestration":"kubernetes"}"#
            }
            other => panic!("asked for {other}"),
        };
        answer(200, body)
    });
    let status = provider.status(&name("f.dev")).await.unwrap();
    assert_eq!((status.replicas, status.available_replicas), (2, 1));
    assert_eq!(status.spec.namespace, "dev");
    let names: Vec<_> = provider.list("dev").await.unwrap().into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["a", "z"]);
    assert_eq!(provider.namespaces().await.unwrap(), ["dev", "openfaas-fn"]);
    assert_eq!(provider.secrets("dev").await.unwrap(), [SecretName::new("s", "dev").unwrap()]);
    assert!(!provider.info().await.unwrap().wakes_functions());
}

#[tokio::test]
async fn who_it_is_is_asked_once_for_all_who_want_to_know() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let provider = foreign(move |request| match request.uri().path() {
        "/system/info" => {
            counted.fetch_add(1, Ordering::Relaxed);
            answer(200, r#"{"provider":"faasd-ce","version":{"sha":"x","release":"1"},"orchestration":"x"}"#)
        }
        _ => answer(503, "no endpoints"),
    });
    // A gateway asks before a call, and an answer that failed is the provider's own or not.
    assert!(!provider.introduction().is_ours(&*provider).await.unwrap());
    let request = Request::get("/").body(empty()).unwrap();
    let response = provider.invoke(call("f", request)).await.unwrap();
    assert!(response.extensions().get::<Unattributed>().is_some());
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_feature_that_is_missing_is_told_by_name() {
    for (status, body) in [(501, ""), (404, "404 page not found\n"), (405, "")] {
        let provider = foreign(move |_| answer(status, body));
        let query =
            LogQuery { function: name("f"), instance: String::new(), tail: None, since: None, follow: false };
        let errors = [
            provider.namespace("dev").await.err(),
            provider.create_namespace(Namespace { name: "a".into(), ..Namespace::default() }).await.err(),
            provider.logs(query).await.err(),
            provider.store_artifact(full("x"), ModuleCommand::default()).await.err(),
        ];
        for error in errors {
            let error = error.unwrap();
            assert_eq!(error.code(), "not-supported");
            assert!(error.to_string().contains("no such feature"), "{error}");
        }
    }
}

#[tokio::test]
async fn plain_refusals_keep_their_words() {
    for (status, code) in
        [(400, "provider-refused"), (404, "not-found"), (409, "already-exists"), (500, "unavailable")]
    {
        let provider = foreign(move |_| answer(status, "because of the weather\n"));
        let error = provider.scale(&name("f"), 1).await.unwrap_err();
        assert_eq!(error.code(), code);
        assert!(error.to_string().ends_with("because of the weather"), "{error}");
    }
}

#[tokio::test]
async fn wrong_credentials_are_the_operators_business() {
    let provider = foreign(|request| {
        assert!(request.headers()["authorization"].to_str().unwrap().starts_with("Basic "));
        let mut answer = answer(401, "invalid credentials");
        answer.headers_mut().insert("www-authenticate", "Basic realm=\"Restricted\"".parse().unwrap());
        answer
    });
    let error = provider.list("").await.unwrap_err();
    assert!(error.to_string().contains("credentials"), "{error}");
    assert_eq!(error.code(), "unavailable");
}

#[tokio::test]
async fn calls_are_passed_on_as_they_are_and_without_our_credentials() {
    let provider = foreign(|request| {
        assert!(!request.headers().contains_key("authorization"));
        let mut answer = answer(503, "No endpoints available for: f.");
        answer.headers_mut().insert("x-openfaas-internal", "proxy".parse().unwrap());
        answer
    });
    let request = Request::get("/").body(empty()).unwrap();
    let answer = provider.invoke(call("f", request)).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-openfaas-internal"]),
        (503, &"proxy".parse().unwrap())
    );
}

/// What a hostile function would say to be taken for the provider.
#[tokio::test]
async fn a_function_cannot_speak_for_the_provider() {
    let provider = foreign(|request| {
        let mut answer =
            answer(if request.uri().path() == "/function/ok.openfaas-fn/" { 200 } else { 401 }, "mine");
        let headers = answer.headers_mut();
        headers.insert("x-fawn-provider-error", "true".parse().unwrap());
        headers.insert("x-error-code", "unauthenticated".parse().unwrap());
        answer
    });
    for (function, status) in [("f", 401), ("ok", 200)] {
        let request = Request::get("/").body(empty()).unwrap();
        let answer = provider.invoke(call(function, request)).await.unwrap();
        assert_eq!(answer.status(), status);
        assert!(!answer.headers().contains_key("x-fawn-provider-error"));
        // Whether there is such a function, only a success tells.
        assert_eq!(answer.extensions().get::<Unattributed>().is_some(), status != 200);
    }
}

#[tokio::test]
async fn paths_that_climb_do_not_leave_for_providers_that_may_follow_them() {
    let provider = foreign(|request| {
        let path = request.uri().path();
        assert!(path == "/system/info" || path == "/function/f.openfaas-fn/a/..b/.c", "asked for {path}");
        answer(200, "")
    });
    for path in ["/../x", "/./x", "/a/..", "/%2e%2E/x", "/.%2e", "/a%2f..%2Fx", "/a/..%5cx"] {
        let request = Request::get(path).body(empty()).unwrap();
        let error = provider.invoke(call("f", request)).await.err().unwrap();
        assert_eq!(error.code(), "invalid-path", "{path}");
    }
    let request = Request::get("/a/..b/.c?../x").body(empty()).unwrap();
    assert_eq!(provider.invoke(call("f", request)).await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_gateway_that_is_kept_out_says_so_and_not_its_client() {
    let provider = foreign(|_| {
        let mut answer = answer(429, "too many attempts");
        answer.headers_mut().insert("x-error-code", "too-many-attempts".parse().unwrap());
        answer
    });
    let error = provider.status(&name("f")).await.unwrap_err();
    assert!(error.code() == "unavailable" && error.to_string().contains("credentials"), "{error}");
}

#[tokio::test]
async fn a_function_of_a_namespace_that_is_not_there_is_not_there() {
    let provider = foreign(|_| {
        let mut answer = answer(400, "there is no namespace");
        answer.headers_mut().insert("x-error-code", "no-such-namespace".parse().unwrap());
        answer
    });
    assert!(matches!(provider.status(&name("f.x")).await, Err(Error::NotFound(_))));
    assert!(matches!(provider.scale(&name("f.x"), 1).await, Err(Error::NotFound(_))));
    assert!(matches!(provider.list("x").await, Err(Error::Invalid { .. })));
}

#[tokio::test]
async fn nonsense_is_an_error_and_bounded() {
    for body in ["", "<html>", "{}", "[{}]", "[1]"] {
        let provider = foreign(move |_| answer(200, body));
        let error = provider.list("").await.unwrap_err();
        assert!(error.to_string().contains("cannot be understood"), "{body}: {error:?}");
    }
    let huge = Bytes::from(vec![b' '; (16 << 20) + 1]);
    let provider = foreign(move |_| answer(200, huge.clone()));
    assert!(provider.list("").await.unwrap_err().to_string().contains("did not arrive whole"));
    let redirecting = foreign(|_| {
        let mut answer = answer(302, "");
        answer.headers_mut().insert("location", "http://127.0.0.1:1/".parse().unwrap());
        answer
    });
    assert!(matches!(redirecting.info().await, Err(Error::Unavailable { .. })));
    let long_line = Bytes::from(vec![b'x'; (1 << 20) + 1]);
    let provider = foreign(move |_| answer(200, long_line.clone()));
    let query =
        LogQuery { function: name("f"), instance: String::new(), tail: None, since: None, follow: false };
    let mut lines = provider.logs(query).await.unwrap();
    let first = futures_util::StreamExt::next(&mut lines).await.unwrap().unwrap_err();
    assert!(first.to_string().contains("log line"), "{first}");
    assert!(futures_util::StreamExt::next(&mut lines).await.is_none());
}
