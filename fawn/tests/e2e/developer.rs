//! From an empty folder to a function that serves, and whatever its author does to it then, with this binary alone.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use base64::prelude::{BASE64_STANDARD, Engine};
use runtime_testing::guests::{ECHO, ECHO_HTTP, ENV, EXIT_CODE, HELLO};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    edge::{Deployment, Edge},
    guests::text,
    process::{Process, Said, eventually, run},
};

/// Takes the place of a compiler: what is "compiled" is a module already, and a file `broken` is a mistake in the code.
const BUILD: &str = "set -e
if [ -f function/broken ]; then
  echo \"function/handler.c:3:5: error: expected ';'\" >&2
  exit 1
fi
echo \"mode ${MODE:-none}\"
mkdir -p cache && echo built >> cache/builds
cp function/handler.wasm function.wasm
";

/// A developer's folder, with a template that needs no toolchain, and the gateway that functions go to.
struct Project<'a> {
    edge: &'a Edge,
    folder: TempDir,
}

impl<'a> Project<'a> {
    fn new(edge: &'a Edge) -> Self {
        let project = Self { edge, folder: tempfile::tempdir().unwrap() };
        project.write("template/copy-wasm/template.yml", "language: Copy\nwelcome_message: Good luck.\n");
        project.write("template/copy-wasm/build.sh", BUILD);
        project.write("template/copy-wasm/function/handler.wasm", text(HELLO));
        project.write("template/docker-only/template.yml", "language: Docker\n");
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file as a whole, as editors do.
    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let (path, new) = (self.path(name), self.path(".new"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&new, content).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.edge.command(arguments);
        command.current_dir(&self.folder);
        command
    }

    async fn fawn(&self, arguments: &[&str]) -> Said {
        run(&mut self.command(arguments), b"").await
    }
}

/// A module that greets with a number.
fn greeting(number: u32) -> Vec<u8> {
    text(&HELLO.replace("Hello from Fawn", &format!("Hello from {number:04}")))
}

/// Calls a function, whose answers have their version at the same place, until `done`. How often it was called.
pub(crate) async fn answers_never_go_back(edge: &Edge, name: &str, done: &AtomicBool) -> u64 {
    // Compilers need the machine as well.
    let mut turns = tokio::time::interval(Duration::from_millis(25));
    let (mut newest, mut calls) = (String::new(), 0);
    while !done.load(Ordering::Relaxed) {
        turns.tick().await;
        let answer = edge.call(name, "").await.ok();
        assert!(answer.starts_with("Hello ") && answer >= newest, "{answer:?} after {newest:?}");
        (newest, calls) = (answer, calls + 1);
    }
    calls
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count()
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_function_is_begun_built_deployed_and_called() {
    let edge = Edge::start().await;
    let project = Project::new(&edge);
    assert!(project.fawn(&["new", "--list"]).await.succeeds().contains("copy-wasm"));
    let said = project.fawn(&["new", "greeting", "--lang", "copy-wasm"]).await.succeeds();
    assert!(said.contains("Good luck.") && said.contains("fawn dev"), "{said}");
    assert!(
        project.fawn(&["new", "greeting", "--lang", "copy-wasm"]).await.fails().contains("greeting already")
    );

    let built = project.fawn(&["build", "--json"]).await.succeeds();
    let built: Value = serde_json::from_str(&built).unwrap();
    assert_eq!(
        (&built[0]["name"], &built[0]["world"]),
        (&"greeting".into(), &"WASI preview 1 command module".into())
    );
    let said = project.fawn(&["deploy"]).await.succeeds();
    assert_eq!(said, format!("greeting is ready: {}/function/greeting\n", edge.gateway));
    assert_eq!(project.fawn(&["invoke", "greeting"]).await.succeeds(), "Hello from Fawn\n");
    assert_eq!(lines(&project.path("build/greeting/cache/builds")), 2, "what a build left stays");

    project.write("greeting/handler.wasm", greeting(2));
    project.fawn(&["build"]).await.succeeds();
    assert_eq!(project.fawn(&["invoke", "greeting"]).await.succeeds(), "Hello from Fawn\n");
    project.fawn(&["deploy", "--no-build"]).await.succeeds();
    assert_eq!(project.fawn(&["invoke", "greeting"]).await.succeeds(), "Hello from 0002\n");
    assert_eq!(lines(&project.path("build/greeting/cache/builds")), 3);

    // Nothing that would not run reaches the gateway.
    project.write("greeting/handler.wasm", "no module");
    let said = project.fawn(&["deploy"]).await.fails();
    assert!(said.contains("function.wasm is no module") && said.contains("1 of 1"), "{said}");
    assert_eq!(project.fawn(&["invoke", "greeting"]).await.succeeds(), "Hello from 0002\n");
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_stack_file_means_what_faas_cli_makes_of_it() {
    let edge = Edge::start().await;
    let project = Project::new(&edge);
    let image = edge.upload(text(ENV)).await;
    project.write("env/handler.wasm", text(ENV));
    project.write("common.yml", "environment:\n  FROM_FILE: yes\n  BOTH: file\n");
    let stack = "version: 1.0
provider: {name: openfaas, gateway: 'http://127.0.0.1:8080'}
x-shared: &shared
  environment: {SHARED: 1.10}
functions:
  env-built:
    lang: copy-wasm
    handler: ./env
    image: ${REGISTRY:-localhost}/env:latest
    build_args: {MODE: 1.0}
    environment: {WHO: '${WHO}', DEFAULT: '${NONE:-nobody}', LITERAL: '$${WHO}', BOTH: inline, FLAG: true}
    environment_file: [common.yml]
    labels: {com.openfaas.scale.max: 3}
    annotations: {topic: a}
  env-image:
    <<: *shared
    image: IMAGE
    limits: {memory: 64Mi}
  env-skipped:
    lang: copy-wasm
    skip_build: true
    image: IMAGE
  other:
    lang: docker-only
    handler: ./other
    image: fawn.local/nothing@sha256:0000000000000000000000000000000000000000000000000000000000000000
";
    project.write("stack.yml", stack.replace("IMAGE", &image));
    let deploy =
        ["deploy", "-f", "stack.yml", "--filter", "env-*", "--env", "LINE=1", "--label", "team=x", "--json"];
    let said = run(project.command(&deploy).env("WHO", "me"), b"").await;
    let deployed: Value = serde_json::from_str(&said.succeeds()).unwrap();
    assert_eq!(deployed.as_array().unwrap().len(), 3, "{deployed}");
    assert!(said.stderr.contains("mode 1.0"), "{}", said.stderr);
    let url = format!("{}/function/env-built", edge.gateway);
    assert_eq!((&deployed[0]["name"], &deployed[0]["url"]), (&"env-built".into(), &url.into()));

    let printed = project.fawn(&["invoke", "env-built"]).await.succeeds();
    for line in
        ["WHO=me", "DEFAULT=nobody", "LITERAL=${WHO}", "BOTH=file", "FROM_FILE=yes", "FLAG=true", "LINE=1"]
    {
        assert!(printed.lines().any(|printed| printed == line), "{line}: {printed}");
    }
    let shared = project.fawn(&["invoke", "env-image"]).await.succeeds();
    assert!(shared.lines().any(|line| line == "SHARED=1.10"), "{shared}");
    let status = edge.status("env-built").await.json();
    assert_eq!(
        (&status["labels"]["com.openfaas.scale.max"], &status["labels"]["team"]),
        (&"3".into(), &"x".into())
    );
    assert_eq!(edge.status("env-image").await.json()["limits"]["memory"], "64Mi");
    assert_eq!(edge.status("other").await.status, 404);

    // One that fails keeps no other from being deployed, and the command fails.
    let said = project.fawn(&["deploy", "-f", "stack.yml", "--regex", "^other$|skipped"]).await;
    let all = said.fails();
    assert!(
        all.contains("other is not deployed") && all.contains("1 of 2 functions are not deployed"),
        "{all}"
    );
    assert!(all.contains("needs Docker") && all.contains("env-skipped is ready"), "{all}");
    let none = project.fawn(&["deploy", "-f", "stack.yml", "--filter", "nothing-*"]).await;
    assert!(none.fails().contains("no function's name matches"));
    project
        .write("stack.yml", "provider: {name: openfaas}\nfunctions:\n  env-built:\n    environment: [a]\n");
    let said = project.fawn(&["deploy", "-f", "stack.yml"]).await.fails();
    assert!(said.contains("stack.yml: functions.env-built.environment") && said.contains("line 4"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by scripts/test"]
async fn saving_a_file_swaps_the_function_under_load_and_loses_no_call() {
    const VERSIONS: u32 = 8;
    let edge = Edge::start().await;
    let project = Project::new(&edge);
    project.fawn(&["new", "greeting", "--lang", "copy-wasm"]).await.succeeds();
    project.fawn(&["new", "still", "--lang", "copy-wasm"]).await.succeeds();
    project.write("greeting/handler.wasm", greeting(0));
    let mut dev = Process::spawn(&mut project.command(&["dev"]));
    let says = |wanted: &'static str| move |said: &str| said.contains(wanted).then_some(());
    dev.until(says("waiting for changes")).await;
    assert_eq!(edge.call("greeting", "").await.ok(), "Hello from 0000\n");

    let done = AtomicBool::new(false);
    let call = || answers_never_go_back(&edge, "greeting", &done);
    let save = async {
        for version in 1..=VERSIONS {
            project.write("greeting/handler.wasm", greeting(version));
            let expected = format!("Hello from {version:04}\n");
            let serves = async || (edge.call("greeting", "").await.ok() == expected).then_some(());
            eventually("the new version serves", serves).await;
        }
        project.write("greeting/broken", "");
        dev.until(says("function/handler.c:3:5: error: expected ';'")).await;
        dev.until(says("what was serving still does")).await;
        assert_eq!(edge.call("greeting", "").await.ok(), format!("Hello from {VERSIONS:04}\n"));
        fs::remove_file(project.path("greeting/broken")).unwrap();
        project.write("greeting/handler.wasm", greeting(99));
        eventually("the mended version serves", async || {
            (edge.call("greeting", "").await.ok() == "Hello from 0099\n").then_some(())
        })
        .await;
        done.store(true, Ordering::Relaxed);
    };
    let ((), one, other) = tokio::join!(save, call(), call());
    assert!(one + other > u64::from(VERSIONS), "too few calls to prove anything");
    assert_eq!(lines(&project.path("build/still/cache/builds")), 1, "what did not change is not built");

    // Its log comes along, and what the stack file says of it is watched too.
    dev.until(says("greeting | ")).await;
    dev.until(says("Wrote 16 Bytes")).await;
    let stack = fs::read_to_string(project.path("stack.yaml")).unwrap();
    project.write(
        "stack.yaml",
        stack.replace(
            "    lang: copy-wasm\n    handler: ./still",
            "    labels: {a: b}\n    lang: copy-wasm\n    handler: ./still",
        ),
    );
    eventually("the label is there", async || {
        (edge.status("still").await.json()["labels"]["a"] == "b").then_some(())
    })
    .await;
    assert_eq!(lines(&project.path("build/still/cache/builds")), 1, "a label is not built in");
    let stack = fs::read_to_string(project.path("stack.yaml")).unwrap();
    project
        .write("stack.yaml", stack.replace("labels: {a: b}", "labels: {a: c}\n    build_args: {MODE: fast}"));
    eventually("the other label is there", async || {
        (edge.status("still").await.json()["labels"]["a"] == "c").then_some(())
    })
    .await;
    assert_eq!(lines(&project.path("build/still/cache/builds")), 2, "an argument of the build is");
    project.write("stack.yaml", "nonsense");
    dev.until(says("the functions stay as they are")).await;
    dev.signal("INT");
    assert!(dev.ended().await.success(), "{}", dev.log());
    assert_eq!(edge.call("greeting", "").await.ok(), "Hello from 0099\n");
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn what_a_changed_stack_file_brings_is_served_and_watched() {
    let edge = Edge::start().await;
    let project = Project::new(&edge);
    project.fawn(&["new", "first", "--lang", "copy-wasm"]).await.succeeds();
    let mut dev = Process::spawn(&mut project.command(&["dev"]));
    let says = |wanted: &'static str| move |said: &str| said.contains(wanted).then_some(());
    dev.until(says("waiting for changes")).await;
    let alone = fs::read_to_string(project.path("stack.yaml")).unwrap();

    project.fawn(&["new", "second", "--lang", "copy-wasm"]).await.succeeds();
    dev.until(says("second | second is ready")).await;
    assert_eq!(edge.call("second", "").await.ok(), "Hello from Fawn\n");
    eventually("its log is shown", async || {
        edge.call("second", "").await.ok();
        dev.stdout().contains("second | ").then_some(())
    })
    .await;
    let answers = async |name: &str, version: u32| {
        let expected = format!("Hello from {version:04}\n");
        eventually("the new version serves", async || {
            (edge.call(name, "").await.ok() == expected).then_some(())
        })
        .await;
    };
    for version in 1..=2 {
        project.write("second/handler.wasm", greeting(version));
        answers("second", version).await;
    }

    // One that went and comes again is as it is by then.
    let both = fs::read_to_string(project.path("stack.yaml")).unwrap();
    project.write("stack.yaml", &alone);
    project.write("first/handler.wasm", greeting(3));
    answers("first", 3).await;
    project.write("second/handler.wasm", greeting(4));
    project.write("stack.yaml", &both);
    answers("second", 4).await;

    // What another gateway has counts for nothing, though both sessions build in the same folder.
    let other = Edge::start().await;
    let mut beside = project.command(&["dev"]);
    let mut beside =
        Process::spawn(beside.args(["--gateway", &other.gateway]).env("FAWN_DATA_DIR", other.data_dir()));
    beside.until(says("waiting for changes")).await;
    for version in 5..=8 {
        project.write("first/handler.wasm", greeting(version));
        answers("first", version).await;
        let expected = format!("Hello from {version:04}\n");
        eventually("it serves at both", async || {
            (other.call("first", "").await.ok() == expected).then_some(())
        })
        .await;
    }
    beside.signal("INT");
    assert!(beside.ended().await.success(), "{}", beside.log());

    // Where the stack file names another gateway, all go there.
    let password = fs::read_to_string(other.data_dir().join("basic-auth-password")).unwrap();
    let token = BASE64_STANDARD.encode(format!("admin:{}", password.trim()));
    let login = format!("auths: [{{gateway: '{}', auth: basic, token: '{token}'}}]\n", other.gateway);
    edge.file("config.yml", login.as_bytes());
    assert!(both.contains(&edge.gateway), "{both}");
    project.write("stack.yaml", both.replace(&edge.gateway, &other.gateway));
    dev.until(says("from now on")).await;
    project.write("first/handler.wasm", greeting(9));
    eventually("it serves at the other gateway", async || {
        (other.call("first", "").await.ok() == "Hello from 0009\n").then_some(())
    })
    .await;
    assert_eq!(edge.call("first", "").await.ok(), "Hello from 0008\n");
    dev.signal("INT");
    assert!(dev.ended().await.success(), "{}", dev.log());
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn calls_are_made_from_the_command_line() {
    let edge = Edge::start().await;
    for (name, guest) in [("echo", ECHO), ("stream", ECHO_HTTP), ("env", ENV), ("exiting", EXIT_CODE)] {
        edge.serve(Deployment::of(name, &edge.upload(text(guest)).await)).await;
    }
    let invoke = async |arguments: &[&str], input: &[u8]| {
        let whole = [&["invoke"], arguments].concat();
        run(&mut edge.command(&whole), input).await
    };
    assert_eq!(invoke(&["echo"], b"some text").await.succeeds(), "some text");
    assert_eq!(invoke(&["echo", "--no-body"], b"some text").await.succeeds(), "");
    let large: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0] ^ 0xff).collect();
    let streamed = invoke(&["stream.openfaas-fn", "--content-type", "image/png"], &large).await;
    assert!(streamed.code == Some(0) && streamed.stdout == large, "{}", streamed.stderr);

    let line =
        ["env", "-m", "put", "-H", "X-Mine: a: b", "--query", "width=1 0", "--content-type", "text/x-mine"];
    let printed = invoke(&line, b"body").await.succeeds();
    for line in
        ["Http_Method=PUT", "Http_X_Mine=a: b", "Http_Query=width=1+0", "Http_Content_Type=text/x-mine"]
    {
        assert!(printed.lines().any(|printed| printed == line), "{line}: {printed}");
    }

    let failed = invoke(&["exiting"], b"").await;
    assert!(failed.code == Some(1) && failed.stdout.is_empty(), "{:?} {:?}", failed.code, failed.stdout);
    assert!(failed.stderr.contains("exiting answered 500"), "{}", failed.stderr);
    let missing = invoke(&["nowhere"], b"").await;
    assert!(missing.code == Some(1) && missing.stderr.contains("404"), "{}", missing.stderr);
    assert_eq!(invoke(&["Upper"], b"").await.code, Some(2));

    let id = invoke(&["echo", "--async", "-H", "X-Call-Id: mine"], b"later").await.succeeds();
    assert_eq!(id, "mine\n");
    eventually("the call has run", async || {
        let shown = edge.fawn(&["queue", "show", "mine"]).await.succeeds();
        shown.contains("succeeded").then_some(())
    })
    .await;
    let json: Value =
        serde_json::from_str(&invoke(&["echo", "--async", "--json"], b"").await.succeeds()).unwrap();
    assert!(json["name"] == "echo" && !json["callId"].as_str().unwrap().is_empty(), "{json}");
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_template_s_script_keeps_its_mode_and_nothing_leads_out_of_the_project() {
    let edge = Edge::start().await;
    let project = Project::new(&edge);
    let script = project.path("template/copy-wasm/build.sh");
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
    project.fawn(&["new", "greeting", "--lang", "copy-wasm"]).await.succeeds();
    project.fawn(&["build"]).await.succeeds();
    let mode = fs::metadata(project.path("build/greeting/build.sh")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);

    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("handler.wasm"), text(HELLO)).unwrap();
    let stack =
        |rest: &str| format!("provider: {{name: openfaas}}\nfunctions: {{f: {{lang: copy-wasm, {rest}}}}}\n");
    project.write("stack.yml", stack(&format!("handler: {}", outside.path().display())));
    let said = project.fawn(&["build", "-f", "stack.yml"]).await.fails();
    assert!(said.contains("leads out of the project"), "{said}");
    project.write("stack.yml", stack("handler: ./greeting") + "configuration: {copy: [../..]}\n");
    assert!(project.fawn(&["build", "-f", "stack.yml"]).await.fails().contains("leads out of the project"));
    project.write("stack.yml", "provider: {name: openfaas}\nfunctions: {../f: {}}\n");
    assert!(project.fawn(&["build", "-f", "stack.yml"]).await.fails().contains("functions.../f"));
}
