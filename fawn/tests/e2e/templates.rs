//! The templates, used as faas-cli and `fawn build` use them: the handler's folder goes into a copy of the rest, and
//! the script there builds it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::Method;
use serde_json::json;
use tokio::process::Command;

use crate::{
    edge::{Deployment, Edge, Reply},
    process::{Said, eventually, run_within},
};

/// A toolchain's first build compiles what the handler depends on.
const BUILD_PATIENCE: Duration = Duration::from_secs(900);

/// A template, as somebody meets it who has just made a function of it.
struct Template {
    name: &'static str,
    /// The file of the function's folder that has the handler.
    handler: &'static str,
    /// What the handler as it comes answers `some text` with.
    answer: &'static str,
    /// Edits of the handler that break it, and what the build then says, of which one is the file and the line.
    mistakes: &'static [Mistake],
}

struct Mistake {
    from: &'static str,
    to: &'static str,
    says: &'static [&'static str],
}

const RUST: Template = Template {
    name: "rust-wasm",
    handler: "src/lib.rs",
    answer: "Hello! You said: some text\n",
    mistakes: &[
        Mistake {
            from: "text().await?",
            to: "txt().await?",
            says: &["no method named `txt`", "src/lib.rs:5:"],
        },
        Mistake {
            from: "(request: Request)",
            to: "(request: u32)",
            says: &["a handler cannot take `u32`", "src/lib.rs:4:"],
        },
        Mistake {
            from: "pub async fn",
            to: "pub fn",
            says: &["a handler is async: write `async fn`", "src/lib.rs:4:"],
        },
    ],
};

#[tokio::test]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn rust_wasm() {
    RUST.works().await;
}

impl Template {
    /// What comes with the template is built, deployed and called; what is wrong with a handler is told with its place.
    async fn works(&self) {
        let wrapped = ShrinkWrapped::of(self.name, "new");
        let edge = Edge::start().await;
        wrapped.deploy(&edge, Deployment::of("new", "")).await;
        assert_eq!(edge.call("new", "some text").await.ok(), self.answer);

        let handler = fs::read_to_string(wrapped.function(self.handler)).unwrap();
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
struct ShrinkWrapped(PathBuf);

impl ShrinkWrapped {
    /// Of the template and the folder that `faas-cli new` begins with.
    fn of(template: &str, name: &str) -> Self {
        // Always the same place: so what was compiled there before is not compiled again.
        let folder = target().join(format!("{template}-{name}"));
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates").join(template), &folder);
        Self(folder)
    }

    fn function(&self, file: &str) -> PathBuf {
        self.0.join("function").join(file)
    }

    fn write(&self, file: &str, content: &str) {
        fs::write(self.function(file), content).unwrap();
    }

    fn module(&self) -> PathBuf {
        self.0.join("function.wasm")
    }

    async fn build(&self) -> Said {
        let mut command = Command::new("sh");
        // Each its own: cargo puts components of one name in one place.
        let target = self.0.with_extension("target");
        command.arg(self.0.join("build.sh")).current_dir("/").env("CARGO_TARGET_DIR", target);
        if let Some(rustc) = in_path("rustc-wasm") {
            // Where rustup cannot add the target, there is a compiler beside it that has it.
            command.env("RUSTC", rustc);
        }
        run_within(BUILD_PATIENCE, &mut command, b"").await
    }

    /// Builds and deploys.
    async fn deploy(&self, edge: &Edge, deployment: Deployment) {
        self.build().await.succeeds();
        let image = edge.upload(fs::read(self.module()).unwrap()).await;
        edge.serve(deployment.field("image", json!(image))).await;
    }
}

/// A folder for what is built, which outlives the test.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("templates")
}

fn in_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Copies a folder, without what a build in the clone may have left there.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap() {
            _ if entry.file_name() == "target" => {}
            kind if kind.is_dir() => copy(&path, &copied),
            kind => {
                assert!(kind.is_file(), "{}: faas-cli copies files and folders alone", path.display());
                fs::copy(&path, &copied).unwrap();
            }
        }
    }
}

/// A function is a few hundred kilobytes, and everything that the SDK gives works against the real thing.
#[tokio::test]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn the_sdk_for_rust_keeps_its_word() {
    let wrapped = ShrinkWrapped::of(RUST.name, "sdk");
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
        "the answer has the header connection",
        "the answer broke off",
        "half way",
    ] {
        assert!(log.contains(wanted), "{wanted:?} is not in\n{log}");
    }
    assert!(!log.contains("hunter2"), "{log}");
}
