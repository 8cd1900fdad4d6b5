//! What comes with each template is built, deployed, called, tested and broken. A language is a row here.

use std::{fs, time::Instant};

use reqwest::Method;

use crate::{
    edge::{Deployment, Edge, Reply},
    wrapped::{Wrapped, templates},
};

/// A template, as somebody meets it who has just made a function of it.
pub(crate) struct Template {
    pub(crate) name: &'static str,
    /// The file of the function's folder that has the handler.
    pub(crate) handler: &'static str,
    /// What the handler as it comes answers `some text` with.
    pub(crate) answer: &'static str,
    /// Runs the handler's own test, in the folder that is built; `$0` is a folder for what that leaves.
    test: &'static str,
    /// Edits of the handler that break it, and what the build then says, of which one is the file and the line.
    pub(crate) mistakes: &'static [Mistake],
}

pub(crate) struct Mistake {
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    pub(crate) says: &'static [&'static str],
}

const fn mistake(from: &'static str, to: &'static str, says: &'static [&'static str]) -> Mistake {
    Mistake { from, to, says }
}

pub(crate) const RUST: Template = Template {
    name: "rust-wasm",
    handler: "src/lib.rs",
    answer: "Hello! You said: some text\n",
    test: "cd function && cargo test --quiet",
    mistakes: &[
        mistake("text().await?", "txt().await?", &["no method named `txt`", "src/lib.rs:5:"]),
        mistake("(request: Request)", "(request: u32)", &["a handler cannot take `u32`", "src/lib.rs:4:"]),
        mistake("pub async fn", "pub fn", &["a handler is async: write `async fn`", "src/lib.rs:4:"]),
    ],
};

pub(crate) const PYTHON: Template = Template {
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

pub(crate) const JAVASCRIPT: Template = Template {
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
        // Node.js can parse it, and the engine cannot.
        mistake("'use strict'", r"/\p{L}/u", &["function/handler.js:1: SyntaxError: invalid property name"]),
        mistake("module.exports =", "module.exported =", &["function/handler exports no function"]),
    ],
};

pub(crate) const TYPESCRIPT: Template = Template {
    name: "typescript-wasm",
    handler: "handler.ts",
    answer: "Hello! You said: some text\n",
    test: "rolldown function/handler.test.ts --platform node --file \"$0/test.mjs\" && node --test \"$0/test.mjs\"",
    mistakes: &[
        mistake(".status(200)", ".status('200')", &["function/handler.ts(5,13): error TS2345"]),
        mistake(".status(200)", ".status(200", &["function/handler.ts(7,", "error TS1005"]),
    ],
};

pub(crate) const GO: Template = Template {
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

pub(crate) const C: Template = Template {
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

pub(crate) const STDIO: Template = Template {
    name: "wasm-stdio",
    handler: "hello.wat",
    answer: "Hello! You said: some text",
    // It has no language of its own to be tested in.
    test: "grep -q Hello! function/hello.wat",
    mistakes: &[mistake("(func $send", "(fun $send", &["hello.wat:9:", "function/build.sh failed"])],
};

/// All of them.
pub(crate) const TEMPLATES: [&Template; 7] = [&RUST, &PYTHON, &JAVASCRIPT, &TYPESCRIPT, &GO, &C, &STDIO];

#[tokio::test]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn rust_wasm() {
    RUST.works().await;
}

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
        let wrapped = Wrapped::of(self.name, "new");
        let edge = Edge::start().await;
        let began = Instant::now();
        wrapped.deploy(&edge, Deployment::of("new", "")).await;
        let size = fs::metadata(wrapped.module()).unwrap().len();
        eprintln!("{}: built and deployed in {:?}, {size} bytes", self.name, began.elapsed());
        let call = edge.request(Method::POST, "/function/new").header("Content-Type", "text/plain");
        assert_eq!(Reply::to(call.body("some text")).await.ok(), self.answer);

        let handler = fs::read_to_string(wrapped.function(self.handler)).unwrap();
        wrapped.run(self.test).await.succeeds();
        wrapped.write(self.handler, &handler.replacen("Hello!", "Bye!", 1));
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

    /// A function of this template with another handler.
    pub(crate) fn with(&self, name: &str, handler: &str) -> Wrapped {
        Wrapped::with(self.name, name, self.handler, handler)
    }
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
        "bytes.js",
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
