//! The templates for languages other than Rust: built as `faas-cli` and `fawn build` build them, deployed and called.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    edge::{Deployment, Edge, Reply},
    process::{Said, eventually, run_within},
};

/// The compiler of a component may take half a minute, and more where others compute too.
const BUILD_PATIENCE: Duration = Duration::from_secs(600);

/// A template, as somebody meets it who has just made a function of it.
struct Template {
    name: &'static str,
    /// The file of the function's folder that has the handler.
    handler: &'static str,
    /// What the handler as it comes answers `some text` with.
    answer: &'static str,
    /// Runs the handler's own test, in the shrink-wrapped folder; `$0` is a folder for what that leaves.
    test: &'static str,
    /// Edits of the handler that break it, and what the build then says.
    mistakes: &'static [Mistake],
}

struct Mistake {
    from: &'static str,
    to: &'static str,
    says: &'static [&'static str],
}

const fn mistake(from: &'static str, to: &'static str, says: &'static [&'static str]) -> Mistake {
    Mistake { from, to, says }
}

const PYTHON: Template = Template {
    name: "python-wasm",
    handler: "handler.py",
    answer: "Hello! You said: some text\n",
    test: "python3 -B -m unittest function.handler_test",
    mistakes: &[
        mistake(
            "context):",
            "context)",
            &[r#"File "function/handler.py", line 1"#, "SyntaxError: expected ':'"],
        ),
        mistake(
            "def handle",
            "import nothing\n\n\ndef handle",
            &[r#"File "function/handler.py", line 1"#, "No module named 'nothing'"],
        ),
        mistake("(event, context)", "()", &["function/handler.py:1: handle has 0 parameters"]),
    ],
};

const JAVASCRIPT: Template = Template {
    name: "javascript-wasm",
    handler: "handler.js",
    answer: "Hello! You said: some text\n",
    test: "cd function && npm test",
    mistakes: &[
        mistake(".status(200)", ".status(200", &["function/handler.js:7:", "Expected"]),
        mistake(
            "'use strict'",
            "require('nothing')",
            &["function/handler.js:1:", "Could not resolve 'nothing'"],
        ),
        // It runs when the module is built.
        mistake("'use strict'", "nothing.at.all()", &["(function/handler.js:1)", "nothing is not defined"]),
        mistake("module.exports =", "module.exported =", &["function/handler exports no function"]),
    ],
};

const TYPESCRIPT: Template = Template {
    name: "typescript-wasm",
    handler: "handler.ts",
    answer: "Hello! You said: some text\n",
    test: "rolldown function/handler.test.ts --platform node --file \"$0/test.mjs\" && node --test \"$0/test.mjs\"",
    mistakes: &[
        mistake(".status(200)", ".status('200')", &["function/handler.ts(5,13): error TS2345"]),
        mistake(".status(200)", ".status(200", &["function/handler.ts(7,", "error TS1005"]),
    ],
};

const GO: Template = Template {
    name: "go-wasm",
    handler: "handler.go",
    answer: "Hello! You said: some text\n",
    test: "go test ./function/...",
    mistakes: &[
        mistake("string(req)", "strng(req)", &["function/handler.go:5:31: undefined: strng"]),
        mistake("string(req)", "string(req", &["function/handler.go:5:", "syntax error"]),
        mistake(
            "req []byte",
            "req string",
            &["function/handler.go:4:func Handle(req string) string", "is neither"],
        ),
        mistake("func Handle", "func handle", &["undefined: function.Handle"]),
    ],
};

const C: Template = Template {
    name: "c-wasm",
    handler: "handler.c",
    answer: "Hello! You said: some text\n",
    test: "cc -I. function/handler.c function/handler_test.c -o \"$0/test\" && \"$0/test\"",
    mistakes: &[
        mistake(
            "length, body",
            "length, nothing",
            &["function/handler.c:6:", "undeclared identifier 'nothing'"],
        ),
        mistake("int handle", "int handles", &["undefined symbol: handle"]),
    ],
};

const STDIO: Template = Template {
    name: "wasm-stdio",
    handler: "hello.wat",
    answer: "Hello! You said: some text",
    // It has no language of its own to be tested in.
    test: "grep -q Hello! function/hello.wat",
    mistakes: &[mistake("(func $send", "(fun $send", &["hello.wat:9:", "function/build.sh failed"])],
};

#[tokio::test]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn python_wasm() {
    PYTHON.works().await;
}

#[tokio::test]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn javascript_wasm() {
    JAVASCRIPT.works().await;
}

#[tokio::test]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn typescript_wasm() {
    TYPESCRIPT.works().await;
}

#[tokio::test]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn go_wasm() {
    GO.works().await;
}

#[tokio::test]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn c_wasm() {
    C.works().await;
}

#[tokio::test]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn wasm_stdio() {
    STDIO.works().await;
}

impl Template {
    /// What comes with the template is built, deployed and called; its test can fail; what is wrong is told with its place.
    async fn works(&self) {
        let wrapped = ShrinkWrapped::of(self);
        let edge = Edge::start().await;
        let began = Instant::now();
        wrapped.deploy(&edge, Deployment::of("new", "")).await;
        let size = fs::metadata(wrapped.module()).unwrap().len();
        eprintln!("{}: built and deployed in {:?}, {size} bytes", self.name, began.elapsed());
        let call = edge.request(Method::POST, "/function/new").header("Content-Type", "text/plain");
        assert_eq!(Reply::to(call.body("some text")).await.ok(), self.answer);

        let handler = fs::read_to_string(wrapped.function(self.handler)).unwrap();
        wrapped.run(self.test).await.succeeds();
        wrapped.write(self.handler, &handler.replace("Hello!", "Bye!"));
        wrapped.run(self.test).await.fails();

        for Mistake { from, to, says } in self.mistakes {
            assert!(handler.contains(from), "{from:?} is not in\n{handler}");
            wrapped.write(self.handler, &handler.replacen(from, to, 1));
            let said = wrapped.build().await.fails();
            for wanted in *says {
                assert!(said.contains(wanted), "{to:?}: {wanted:?} is not in\n{said}");
            }
            assert!(!wrapped.module().exists(), "{to:?}: a module of an earlier build is left");
        }
    }
}

/// A folder as faas-cli makes one of a template and a function's folder, before it builds there.
struct ShrinkWrapped(TempDir);

impl ShrinkWrapped {
    fn of(template: &Template) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(&templates().join(template.name), folder.path());
        Self(folder)
    }

    /// With this handler in place of the one that comes with the template, and of its test.
    fn with(template: &Template, handler: &str) -> Self {
        let wrapped = Self::of(template);
        for entry in fs::read_dir(wrapped.function("")).unwrap().map(Result::unwrap) {
            if entry.file_name().to_str().unwrap().contains("test") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        wrapped.write(template.handler, handler);
        wrapped
    }

    fn function(&self, file: &str) -> PathBuf {
        self.0.path().join("function").join(file)
    }

    fn write(&self, file: &str, content: &str) {
        fs::write(self.function(file), content).unwrap();
    }

    fn module(&self) -> PathBuf {
        self.0.path().join("function.wasm")
    }

    async fn build(&self) -> Said {
        let mut command = Command::new("sh");
        // From anywhere.
        command.arg(self.0.path().join("build.sh")).current_dir("/").env("WASI_ADAPTER", adapter());
        run_within(BUILD_PATIENCE, &mut command, b"").await
    }

    async fn run(&self, script: &str) -> Said {
        let scratch = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-ec", script]).arg(scratch.path()).current_dir(self.0.path());
        run_within(BUILD_PATIENCE, &mut command, b"").await
    }

    /// Builds and deploys.
    async fn deploy(&self, edge: &Edge, deployment: Deployment) {
        self.build().await.succeeds();
        let image = edge.upload(fs::read(self.module()).unwrap()).await;
        edge.serve(deployment.field("image", json!(image))).await;
    }
}

fn templates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates")
}

/// The adapter of WASI preview 1 for reactors, which comes with componentize-js.
fn adapter() -> PathBuf {
    let path = env::var_os("PATH").unwrap();
    let bin = env::split_paths(&path).find(|folder| folder.join("componentize-js").is_file());
    let bin = bin.expect("componentize-js is not on PATH: run scripts/test e2e");
    bin.join("../@bytecodealliance/jco/lib/wasi_snapshot_preview1.reactor.wasm")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy(&path, &copied),
            kind => {
                assert!(kind.is_file(), "{}: faas-cli copies files and folders alone", path.display());
                fs::copy(&path, &copied).unwrap();
            }
        }
    }
}

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
    ShrinkWrapped::with(template, handler).deploy(&edge, deployment).await;
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
    // What Python imports as late as this is there.
    assert_eq!(edge.call("full/date", "").await.ok(), "2026-11-22-");
}

#[tokio::test]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn a_handler_in_javascript_has_the_whole_request() {
    let place = |line| format!("(function/handler.js:{line})");
    handles_requests(&JAVASCRIPT, include_str!("../guests/handlers/event.js"), "/a%20b", place).await;
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
    ShrinkWrapped::with(&PYTHON, python).deploy(&edge, Deployment::of("python", "")).await;
    let go_deployment = Deployment::of("go", "").variable("combine_output", "false");
    ShrinkWrapped::with(&GO, go).deploy(&edge, go_deployment).await;
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
    ShrinkWrapped::with(&C, handler).deploy(&edge, deployment).await;
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
    let c = Template { handler: "main.c", ..C };
    let wrapped = ShrinkWrapped::with(&c, program);
    fs::remove_file(wrapped.function("handler.c")).unwrap();
    wrapped.deploy(&edge, Deployment::of("cat", "")).await;
    assert_eq!(edge.call("cat", "some text").await.ok(), "some text");

    let stdio = ShrinkWrapped::of(&STDIO);
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

/// The two languages of one engine, and those of one world, have the same files.
#[test]
#[ignore = "run by scripts/test"]
fn what_templates_share_is_the_same() {
    let same = |file: &str, one: &str, other: &str| {
        let read = |template: &str| fs::read_to_string(templates().join(template).join(file)).unwrap();
        assert!(read(one) == read(other), "{file} differs between {one} and {other}");
    };
    for file in [
        "build.sh",
        "calls.js",
        "Dockerfile",
        "fs.js",
        "lines.mjs",
        "main.js",
        "rolldown.config.mjs",
        "stack.js",
        "wit/handler.wit",
    ] {
        same(file, "javascript-wasm", "typescript-wasm");
    }
    same("wit/handler.wit", "python-wasm", "go-wasm");
}
