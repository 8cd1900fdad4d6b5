//! What handlers get and give, in each language.

use std::fs;

use reqwest::Method;
use serde_json::json;

use crate::{
    edge::{Deployment, Edge, Reply},
    process::eventually,
    templates::{C, GO, JAVASCRIPT, PYTHON, RUST, STDIO, TYPESCRIPT, Template},
    wrapped::Wrapped,
};

/// Waits until a function's log has that.
async fn logged(edge: &Edge, name: &str, wanted: &str) {
    eventually(&format!("the log of {name} has {wanted:?}"), async || {
        let log = Reply::to(edge.admin(Method::GET, &format!("/system/logs?name={name}"))).await.ok();
        // Quotation marks as they were before they were JSON.
        log.replace(r#"\""#, "\"").contains(wanted).then_some(())
    })
    .await;
}

/// The line, counted from 1, of a handler's statement that fails.
fn failing_line(handler: &str) -> usize {
    handler.lines().position(|line| line.contains("Fails here.")).unwrap() + 1
}

/// Every language's HTTP handler sees the whole request, and answers as it likes.
async fn handles_requests(
    template: &Template,
    handler: &str,
    path: &str,
    place: impl Fn(usize) -> String,
) -> Edge {
    let edge = Edge::start().await;
    let secret = json!({ "name": "token", "value": "hunter2" });
    assert_eq!(Reply::to(edge.admin(Method::POST, "/system/secrets").json(&secret)).await.status, 202);
    let deployment = Deployment::of("full", "").variable("GREETING", "hi").field("secrets", json!(["token"]));
    template.with("request", handler).deploy(&edge, deployment).await;
    let request = |path: &str| {
        edge.request(Method::PATCH, &format!("/function/full{path}")).header("Content-Type", "text/plain")
    };

    let answer =
        Reply::to(request("/a%20b?name=Ada%21&x=1").header("X-Thing", "some thing").body("ünïcode")).await;
    assert_eq!((answer.status, answer.headers["x-made-by"].to_str().unwrap()), (201, "me"), "{answer}");
    let wanted = json!({
        "method": "PATCH", "path": path, "name": "Ada!", "thing": "some thing", "greeting": "hi", "body": "ünïcode",
    });
    assert_eq!(answer.json(), wanted);

    let slashes = Reply::to(request("//a//b?name=c").header("X-Thing", "")).await.json();
    assert_eq!((&slashes["path"], &slashes["name"]), (&json!("//a//b"), &json!("c")));
    let head = Reply::to(edge.request(Method::HEAD, "/function/full/random")).await;
    assert_eq!((head.status, head.text().as_str()), (200, ""));

    let megabytes = "0123456789abcdef".repeat(3 << 16);
    assert!(Reply::to(request("/echo").body(megabytes.clone())).await.ok() == megabytes);
    assert_eq!(Reply::to(request("/secret")).await.ok(), "7 letters");
    assert_eq!(Reply::to(request("/status?status=204")).await.status, 204);
    assert_eq!(Reply::to(request("/status?status=418")).await.status, 418);
    // Every instance begins as the module was built.
    assert_ne!(Reply::to(request("/random")).await.ok(), Reply::to(request("/random")).await.ok());

    for failing in ["/fail", "/status?status=1000"] {
        let failed = Reply::to(request(failing)).await;
        assert_eq!(
            (failed.status, failed.text().as_str()),
            (500, "Internal Server Error\n"),
            "{failing}: {failed}"
        );
    }
    logged(&edge, "full", &place(failing_line(handler))).await;
    logged(&edge, "full", "status 1000").await;
    edge
}

#[tokio::test]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn a_handler_in_python_has_the_whole_request() {
    let place = |line| format!(r#"File "function/handler.py", line {line}, in handle"#);
    let edge = handles_requests(&PYTHON, include_str!("../guests/handlers/event.py"), "/a b", place).await;
    let cookies = Reply::to(edge.request(Method::GET, "/function/full//cookies")).await;
    assert_eq!(cookies.headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
    let head = Reply::to(edge.request(Method::HEAD, "/function/full/")).await;
    assert_eq!((head.status, head.headers["content-length"].to_str().unwrap()), (200, "5"));
    // What Python imports as late as this is there.
    assert_eq!(edge.call("full/date", "").await.ok(), "2026-11-22-");
}

#[tokio::test]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn a_handler_in_python_sends_requests_with_urllib() {
    let edge = Edge::start().await;
    let deployment =
        Deployment::of("python", "").field("annotations", json!({"dev.fawn.egress": "127.0.0.0/8"}));
    PYTHON.with("urllib", include_str!("../guests/handlers/urllib.py")).deploy(&edge, deployment).await;
    let own = format!("{}/function/python", edge.gateway);
    let echo = format!("{own}/echo?a=b");
    for (asked, answered) in [
        (json!({"url": echo}), format!("200 GET 0 {echo}")),
        (json!({"url": echo, "bytes": 3_000_000}), format!("200 POST 3000000 {echo}")),
        (json!({"url": echo, "pieces": 3, "method": "PUT"}), format!("200 PUT 30 {echo}")),
        (json!({"url": echo, "method": "HEAD"}), format!("200 HEAD 0 {echo}")),
        (json!({"url": format!("{own}/moved?to={echo}")}), format!("200 GET 0 {echo}")),
        (
            json!({"url": format!("{}/function/nobody", edge.gateway)}),
            "HTTP Error 404: Not Found error".into(),
        ),
        (json!({"url": "http://10.0.0.1/"}), "PermissionError: the function may not reach it".into()),
        (json!({"url": "http://127.0.0.1:1/"}), "ConnectionRefusedError: connection refused".into()),
        (json!({"url": format!("{own}/slow"), "timeout": 0.2}), "TimeoutError alone: timed out".into()),
        (json!({"url": echo, "timeout": -1}), "ValueError alone: Timeout value out of range".into()),
        (
            json!({"url": echo, "headers": {"X-A": "a".repeat(20_000)}}),
            "str: the headers have more than".into(),
        ),
        (json!({"url": echo, "headers": {"X-A": 1}}), format!("200 GET 0 {echo}")),
        (json!({"url": echo, "headers": {"Host": "other"}}), "str: the header Host is 127.0.0.1:".into()),
        (json!({"url": echo, "headers": {"X-A": "a\nb"}}), "str: the header X-A cannot be sent".into()),
        (json!({"url": echo.replace("echo", "e o")}), "OSError: no such method, host or path".into()),
    ] {
        let answer = edge.call("python", asked.to_string()).await.ok();
        assert!(answer.starts_with(&answered), "{asked}: {answer}");
    }
}

#[tokio::test]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn a_handler_in_javascript_has_the_whole_request() {
    let place = |line| format!("(function/handler.js:{line})");
    let edge =
        handles_requests(&JAVASCRIPT, include_str!("../guests/handlers/event.js"), "/a%20b", place).await;
    assert_eq!(edge.call("full/fetch", "").await.status, 500);
    logged(&edge, "full", "http://10.0.0.1 cannot be fetched: ").await;
}

#[tokio::test]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn a_handler_in_typescript_has_the_whole_request() {
    let place = |line| format!("(function/handler.ts:{line})");
    handles_requests(&TYPESCRIPT, include_str!("../guests/handlers/fetch.ts"), "/a%20b", place).await;
}

#[tokio::test]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn a_handler_in_go_has_the_whole_request() {
    let place = |line| format!("function/handler.go:{line} ");
    let edge = handles_requests(&GO, include_str!("../guests/handlers/request.go"), "/a b", place).await;
    // As net/http does, and not as the request says.
    let answer =
        Reply::to(edge.request(Method::POST, "/function/full/").header("Content-Type", "text/html")).await;
    assert_eq!(
        (answer.status, &answer.headers["content-type"]),
        (201, &"text/plain; charset=utf-8".parse().unwrap())
    );
    assert_eq!(edge.call("full/a%zz", "").await.status, 400);
    assert_eq!(Reply::to(edge.request(Method::HEAD, "/function/full/head")).await.status, 200);
    // What the host hands over is not mixed up where goroutines take turns.
    let answer = edge.call("full/goroutines", "a".repeat(3_000_000)).await.ok();
    assert_eq!((answer.lines().count(), answer.lines().last().unwrap()), (1001, "3000000 <nil>"));
}

/// What handlers of OpenFaaS's classic templates answer there, to the letter.
#[tokio::test]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn classic_handlers_in_python_and_go_answer_as_with_openfaas() {
    let edge = Edge::start().await;
    let (python, go) =
        (include_str!("../guests/handlers/seed.py"), include_str!("../guests/handlers/seed.go"));
    PYTHON.with("classic", python).deploy(&edge, Deployment::of("python", "")).await;
    let go_deployment = Deployment::of("go", "").variable("combine_output", "false");
    GO.with("classic", go).deploy(&edge, go_deployment).await;
    let call = async |name: &str, body: &str| {
        let request = edge.request(Method::POST, &format!("/function/{name}"));
        Reply::to(request.header("Content-Type", "application/json").body(body.to_owned())).await
    };

    let answer = call("python", r#"{"name": "Ada", "timestamp": "now"}"#).await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.ok(), "{\"message\": \"Hello Ada!\", \"timestamp\": \"now\", \"processed\": true}\n");
    let answer = call("python", "{}").await.ok();
    assert_eq!(answer, "{\"message\": \"Hello World!\", \"timestamp\": null, \"processed\": true}\n");
    assert_eq!(call("python", "no JSON").await.status, 500);
    logged(&edge, "python", r#"File "function/handler.py", line 3, in handle"#).await;

    let answer = call("go", r#"{"name": "Ada"}"#).await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.ok(), "{\"message\":\"Hello Ada!\",\"processed\":true}\n");
    let answer = call("go", "no JSON").await.ok();
    assert_eq!(answer, "Error parsing JSON: invalid character 'o' in literal null (expecting 'u')\n");
    assert_eq!(call("go", "{}").await.text(), "exit status 2\n");
    logged(&edge, "go", &format!("function/handler.go:{} ", failing_line(go))).await;
}

#[tokio::test]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn a_handler_in_c_fails_with_its_line() {
    let handler = include_str!("../guests/handlers/assert.c");
    let edge = Edge::start().await;
    let deployment = Deployment::of("c", "").variable("combine_output", "false");
    C.with("assert", handler).deploy(&edge, deployment).await;
    assert_eq!(edge.call("c/path", "short").await.ok(), "/path\n");
    assert_eq!(edge.call("c/path", "x").await.text(), "exit status 1\n/path\n");
    assert_eq!(edge.call("c", "a long text").await.status, 500);
    logged(&edge, "c", &format!("(function/handler.c: handle: {})", failing_line(handler))).await;
}

/// A function of C may bring its own `main`, and one of any language its module.
#[tokio::test]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn programs_are_taken_as_they_are() {
    let edge = Edge::start().await;
    let program = include_str!("../guests/c/main.c");
    let wrapped = Wrapped::with(C.name, "main", "main.c", program);
    fs::remove_file(wrapped.function("handler.c")).unwrap();
    wrapped.deploy(&edge, Deployment::of("cat", "")).await;
    assert_eq!(edge.call("cat", "some text").await.ok(), "some text");

    let stdio = Wrapped::of(STDIO.name, "same");
    fs::remove_file(stdio.function("build.sh")).unwrap();
    assert!(stdio.build().await.fails().contains("neither a .wasm file nor a build.sh"));
    fs::copy(wrapped.module(), stdio.function("some.wasm")).unwrap();
    stdio.deploy(&edge, Deployment::of("same", "")).await;
    assert_eq!(edge.call("same", "some text").await.ok(), "some text");
    stdio.write("other.wasm", "");
    assert!(stdio.build().await.fails().contains("function/other.wasm function/some.wasm"));
    fs::remove_file(stdio.function("some.wasm")).unwrap();
    assert!(
        stdio
            .build()
            .await
            .fails()
            .contains(r"function/other.wasm is no WebAssembly: it does not begin with \0asm")
    );
}

/// A function is a few hundred kilobytes, and everything that the SDK gives works against the real thing.
#[tokio::test]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn the_sdk_for_rust_keeps_its_word() {
    let wrapped = Wrapped::of(RUST.name, "sdk");
    let edge = Edge::start().await;
    let secret = json!({ "name": "token", "value": "hunter2\n" });
    assert_eq!(Reply::to(edge.admin(Method::POST, "/system/secrets").json(&secret)).await.status, 202);
    wrapped.deploy(&edge, Deployment::of("hello", "")).await;
    let size = fs::metadata(wrapped.module()).unwrap().len();
    assert!(size < 300_000, "the smallest function has {size} bytes");

    let manifest = fs::read_to_string(wrapped.function("Cargo.toml")).unwrap();
    let more = "[dependencies]\nfutures-lite = \"1\"\nserde = { version = \"1\", features = [\"derive\"] }";
    wrapped.write("Cargo.toml", &manifest.replace("[dependencies]", more));
    wrapped.write(RUST.handler, include_str!("../guests/sdk/rust.rs"));
    let host = edge.gateway.strip_prefix("http://").unwrap();
    let deployment = Deployment::of("sdk", "")
        .variable("gateway_url", &edge.gateway)
        .variable("LOG_LEVEL", "debug")
        .field("secrets", json!(["token"]))
        .field("annotations", json!({ "dev.fawn.egress": host }));
    wrapped.deploy(&edge, deployment).await;
    let call = async |path: &str, body: &str| edge.call(&format!("sdk{path}"), body.to_owned()).await;

    assert_eq!(call("/json", r#"{"name": "Ada"}"#).await.ok(), r#"{"greeting":"Hello, Ada!"}"#);
    let wrong = call("/json", r#"{"name": 1}"#).await;
    assert!(wrong.status == 400 && wrong.text().contains("expected a string at line 1 column 10"), "{wrong}");

    // What serde_json takes fits the stack.
    let nested = |depth: usize| {
        let (open, close) = (r#"{"name": "Ada", "friends": ["#.repeat(depth), "]}".repeat(depth));
        format!(r#"{open}{{"name": "Ada"}}{close}"#)
    };
    assert_eq!(call("/json", &nested(60)).await.ok(), r#"{"greeting":"Hello, Ada and friends!"}"#);
    let too_deep = call("/json", &nested(64)).await;
    assert!(too_deep.status == 400 && too_deep.text().contains("recursion limit"), "{too_deep}");

    assert_eq!(call("/secret", "token").await.ok(), "7 letters");
    assert_eq!(call("/secret", "other").await.status, 500);
    assert_eq!(call("/call", "hello").await.ok(), "Hello! You said: from a function\n");
    assert_eq!(call("/call", "nobody").await.status, 404);
    let refused = call("/fetch", "http://10.0.0.1/?key=hunter2").await;
    assert_eq!((refused.status, refused.text().lines().count()), (502, 1), "{refused}");

    let megabytes = "0123456789abcdef".repeat(3 << 16);
    assert!(call("/echo", &megabytes).await.ok() == megabytes);
    assert!(call("/shout", &megabytes).await.ok() == megabytes.to_uppercase());
    assert_eq!(call("/count", "").await.ok().lines().count(), 1000);

    let failed = call("/fail", "a\nERROR forged").await;
    assert_eq!((failed.status, failed.text().as_str()), (500, "internal server error\n"));
    assert_eq!(call("/panic", "").await.status, 500);
    let illegal = call("/header", "").await;
    assert_eq!((illegal.status, illegal.text().as_str()), (500, "internal server error\n"));
    let broken = edge.request(Method::GET, "/function/sdk/broken").send().await.unwrap();
    assert!(broken.status() == 200 && broken.bytes().await.is_err());

    let log = eventually("the last call is in the log", async || {
        let log = Reply::to(edge.admin(Method::GET, "/system/logs?name=sdk")).await.ok();
        log.contains("GET /broken").then_some(log)
    })
    .await;
    for wanted in [
        "DEBUG called at /secret",
        "the function has no secret other: add it under `secrets`",
        "GET http://10.0.0.1: the function may not reach it; the annotation `dev.fawn.egress`",
        r"ERROR src/lib.rs:",
        r"invalid digit found in string",
        r"INFO asked to fail: a\\nERROR forged",
        "panicked at src/lib.rs:",
        r"on purpose\\nINFO forged",
        "the answer has the header connection",
        "the answer broke off",
        "half way",
    ] {
        assert!(log.contains(wanted), "{wanted:?} is not in\n{log}");
    }
    assert!(!log.contains("hunter2"), "{log}");
}
