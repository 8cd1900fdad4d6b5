//! Which status an error has, and what is told of it to whom.

use super::*;

#[tokio::test]
async fn each_cause_has_its_status() {
    listen();
    let second = Duration::from_secs(1);
    let failed = |code: &'static str| Error::FunctionFailed {
        code: code.into(),
        message: "it failed".into(),
        source: None,
    };
    let overloaded = |retry_after| Error::Overloaded { message: "no room".into(), retry_after };
    for (error, expected, internal, retry_after) in [
        (Error::NotFound("no".into()), (404, "not-found", "no"), "", ""),
        (Error::AlreadyExists("is".into()), (409, "already-exists", "is"), "", ""),
        (Error::invalid("some-code", "bad"), (400, "some-code", "bad"), "", ""),
        (overloaded(second * 2), (503, "no-capacity", "no room"), "proxy", "2"),
        (overloaded(second / 5), (503, "no-capacity", "no room"), "proxy", "1"),
        (overloaded(second * 3 / 2), (503, "no-capacity", "no room"), "proxy", "2"),
        (Error::unavailable("down", "refused"), (503, "unavailable", "down"), "proxy", ""),
        (Error::registry_unavailable("down", "refused"), (503, "registry-unavailable", "down"), "proxy", ""),
        (
            Error::invalid("unsupported-transfer-encoding", "x"),
            (501, "unsupported-transfer-encoding", "x"),
            "",
            "",
        ),
        (Error::invalid("cross-site", "x"), (403, "cross-site", "x"), "", ""),
        (failed("trap"), (500, "trap", "it failed"), "of-watchdog", ""),
        (failed("bad-response"), (502, "bad-response", "it failed"), "of-watchdog", ""),
        (failed("no-response"), (502, "no-response", "it failed"), "of-watchdog", ""),
        (
            Error::internal("/etc/secret"),
            (500, "internal", "internal error; the log has more under call id c"),
            "proxy",
            "",
        ),
    ] {
        let answer = Answer::read(answer(&error, &CallId::new("c"))).await;
        assert_eq!(answer.error(), expected);
        assert_eq!(answer.header("x-openfaas-internal"), internal, "{error}");
        assert_eq!(answer.header("retry-after"), retry_after, "{error}");
    }
}

#[tokio::test]
async fn a_limit_reached_and_a_time_over_are_answered_as_the_watchdog_answers() {
    listen();
    let limit = Answer::read(answer(&Error::TooManyCalls { max_inflight: 7 }, &CallId::new("c"))).await;
    assert_eq!(limit.status, 429);
    assert_eq!(limit.body, "Concurrent request limit exceeded. Max concurrent requests: 7\n");
    assert_eq!(limit.header("content-type"), "text/plain");
    assert_eq!(limit.header("x-openfaas-internal"), "faas-middleware");
    assert_eq!(limit.header("x-error-code"), "over-limit");

    let late = Answer::read(answer(&Error::TimedOut("60 s are over".into()), &CallId::new("c"))).await;
    assert_eq!((late.status.as_u16(), late.body.as_str()), (504, ""));
    assert_eq!(late.header("x-openfaas-internal"), "of-watchdog");
    assert_eq!(late.header("x-error-code"), "timeout");
}

#[tokio::test]
async fn what_a_function_uses_is_told_where_it_is_asked_for() {
    let api = Api::with(&["f"]);
    for (query, asked) in
        [("", false), ("?usage=0", false), ("?usage=false", false), ("?usage=1", true), ("?usage=true", true)]
    {
        let body = api.get(&format!("/system/function/f{query}")).await.body;
        let told = body.contains(r#""usage":{"cpu":1.5,"totalMemoryBytes":1048576.0}"#);
        assert_eq!((told, body.contains("usage")), (asked, asked), "{query}: {body}");
    }
    assert!(!api.get("/system/functions?usage=1").await.body.contains("usage"));
    assert_eq!(api.get("/system/function/g?usage=1").await.status, 404);
}

#[tokio::test]
async fn a_provider_that_does_not_answer_is_told_to_those_who_look_after_functions() {
    listen();
    let api = Api::new();
    let away =
        || Error::unreachable("the provider at http://10.0.0.5:8081 does not answer: start it", "refused");
    let asked = [
        (Method::GET, "/system/functions", ""),
        (Method::POST, "/system/functions", HELLO),
        (Method::GET, "/system/function/hello", ""),
        (Method::GET, "/system/secrets", ""),
        (Method::GET, "/system/logs?name=hello", ""),
    ];
    for (method, path, body) in asked {
        api.0.fail_next(away());
        let answer = api.send(method, path, body).await;
        let text = "the provider at http://10.0.0.5:8081 does not answer: start it";
        assert_eq!(answer.error(), (502, "provider-unreachable", text), "{path}");
        assert_eq!(answer.header("x-openfaas-internal"), "proxy");
    }
    // Health is asked by anybody.
    api.0.fail_next(away());
    let answer = api.get("/healthz").await;
    let text = "the provider does not answer; the log says more";
    assert_eq!(answer.error(), (502, "provider-unreachable", text));
    // What a call's client gets is empty (OpenFaaS).
    let answer = Answer::read(runtime_http::answer(&away(), &CallId::new("c"))).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (502, ""));
}

#[tokio::test]
async fn a_registry_that_does_not_answer_rejects_the_deploy() {
    let api = Api::new();
    for method in [Method::POST, Method::PUT] {
        api.0.fail_next(Error::registry_unavailable("registry.example does not answer", "timed out"));
        let answer = api.send(method, "/system/functions", HELLO).await;
        assert_eq!(answer.error(), (400, "registry-unavailable", "registry.example does not answer"));
        assert_eq!(answer.header("x-openfaas-internal"), "");
    }
}

#[tokio::test]
async fn a_deploy_that_our_own_store_cannot_take_may_be_tried_again() {
    let api = Api::new();
    for method in [Method::POST, Method::PUT] {
        api.0.fail_next(Error::unavailable("the disk is full", io::Error::other("no space")));
        let answer = api.send(method, "/system/functions", HELLO).await;
        assert_eq!(answer.error(), (503, "unavailable", "the disk is full"));
        assert_eq!(answer.header("x-openfaas-internal"), "proxy");
    }
}

#[tokio::test]
async fn an_image_beyond_a_limit_is_rejected_and_a_body_is_too_large() {
    let api = Api::new();
    let too_large = || Error::invalid("too-large", "the module is larger than 64 MiB");
    for method in [Method::POST, Method::PUT] {
        api.0.fail_next(too_large());
        let rejected = api.send(method, "/system/functions", HELLO).await;
        assert_eq!(rejected.error(), (400, "too-large", "the module is larger than 64 MiB"));
    }
    api.0.fail_next(too_large());
    assert_eq!(api.post("/system/artifacts", "module").await.status, 413);
}

#[tokio::test]
async fn a_failed_deploy_is_logged_with_its_function_and_all_its_sources() {
    listen();
    let log = Log::default();
    let lines = log.0.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish();
    let _guard = set_default(subscriber);
    let api = Api::new();
    api.0.fail_next(Error::registry_unavailable("no answer", io::Error::other("timed out")));
    api.post("/system/functions", HELLO).await;
    api.0.fail_next(Error::unavailable("the disk is full", io::Error::other("no space")));
    api.post("/system/functions", HELLO).await;
    api.0.fail_next(Error::internal("no such file"));
    api.post("/system/functions", HELLO).await;
    api.0.fail_next(Error::invalid("not-wasm", "it is a picture"));
    api.send(Method::PUT, "/system/functions", HELLO).await;
    api.post("/system/functions", HELLO).await;
    api.post("/system/functions", HELLO).await;
    api.post("/system/functions", &HELLO.replace('}', r#","namespace":"x"}"#)).await;
    let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
    let parts_of_lines = [
        [
            " WARN ",
            "call-1",
            "function=\"hello.openfaas-fn\"",
            "registry-unavailable",
            "no answer: timed out",
        ],
        [" WARN ", "call-1", "function=\"hello.openfaas-fn\"", "unavailable", "the disk is full: no space"],
        ["ERROR ", "call-1", "function=\"hello.openfaas-fn\"", "internal", "internal error: no such file"],
        [" INFO ", "call-1", "function=\"hello.openfaas-fn\"", "not-wasm", "it is a picture"],
        [" INFO ", "call-1", "function=\"hello.x\"", "no-such-namespace", "there is dev, openfaas-fn"],
    ];
    assert_eq!(text.lines().count(), 5, "{text}");
    for (line, parts) in text.lines().zip(parts_of_lines) {
        assert!(parts.iter().all(|part| line.contains(part)), "{parts:?} are not in {line}");
    }
}

#[tokio::test]
async fn an_internal_error_tells_the_log_all_and_the_client_its_call_id() {
    listen();
    let api = Api::new();
    api.0.fail_next(Error::internal(io::Error::other("disk on fire")));
    let answer = api.get("/system/functions").await;
    assert_eq!(answer.error(), (500, "internal", "internal error; the log has more under call id call-1"));
}

#[test]
fn an_error_is_logged_once_with_all_its_sources() {
    listen();
    let log = Log::default();
    let lines = log.0.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish();
    with_default(subscriber, || {
        drop(answer(&Error::internal(io::Error::other("disk on fire")), &CallId::new("c1")));
        drop(answer(
            &Error::unavailable("registry is down", io::Error::other("timed out")),
            &CallId::new("c2"),
        ));
        drop(answer(&Error::NotFound("nothing to see".into()), &CallId::new("c3")));
    });
    let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    for part in
        ["ERROR", "call_id=c1", "internal error: disk on fire", "WARN", "call_id=c2", "down: timed out"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

/// Somebody always listens: a call site that is first reached while nobody does may be taken for one that nobody ever
/// will listen to.
pub(crate) fn listen() {
    // Fails in all tests of this process but the first.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
