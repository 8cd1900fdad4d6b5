use std::time::Duration;

use reqwest::{Method, Response};
use runtime_testing::guests::{ECHO, FLOOD_STDERR, HTTP_LOOP, HTTP_STATUS, HTTP_TRAP, LOOP, TRAP};
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    edge::{Deployment, Edge, Plan, Reply},
    guests::{built, text},
    process::{PATIENCE, eventually},
};

/// The lines of an answer, of which each is JSON.
fn lines(answer: &str) -> Vec<Value> {
    answer
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

async fn texts(edge: &Edge, query: &str) -> Vec<String> {
    let answer = Reply::to(edge.admin(Method::GET, &format!("/system/logs?{query}"))).await.ok();
    lines(&answer).iter().map(|line| line["text"].as_str().unwrap().to_owned()).collect()
}

/// A line without the date, the time and the rest of what its writer puts in front, as the certifier looks at it.
fn undated(text: &str) -> &str {
    text.trim_start_matches(|char: char| char.is_ascii_digit() || "/: ".contains(char))
}

/// One log that is followed.
struct Follower {
    answer: Response,
    read: String,
}

impl Follower {
    async fn start(edge: &Edge, query: &str) -> Self {
        let request = edge.admin(Method::GET, &format!("/system/logs?{query}&follow=true"));
        // As long as it takes: the client's own limit is for whole answers.
        let answer = request.timeout(Duration::from_secs(600)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        Self { answer, read: String::new() }
    }

    /// Reads until a line has that text.
    async fn until(&mut self, wanted: &str) {
        while !self.read.lines().any(|line| line.contains(wanted)) {
            let piece = timeout(PATIENCE, self.answer.chunk()).await;
            let piece = piece.unwrap_or_else(|_| panic!("no {wanted:?} in {}", self.read)).unwrap();
            let piece = piece.unwrap_or_else(|| panic!("ended without {wanted:?}: {}", self.read));
            self.read += str::from_utf8(&piece).unwrap();
        }
    }

    async fn ended(&mut self) {
        let rest = async { while self.answer.chunk().await.unwrap().is_some() {} };
        timeout(PATIENCE, rest).await.unwrap();
    }
}

async fn serve(edge: &Edge, name: &str, module: &str) {
    let image = edge.upload(text(module)).await;
    edge.serve(Deployment::of(name, &image)).await;
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_command_s_log_has_the_lines_of_the_classic_watchdog() {
    let edge = Edge::start().await;
    serve(&edge, "echo", ECHO).await;
    edge.call("echo", "some text").await.ok();
    let answer = Reply::to(edge.admin(Method::GET, "/system/logs?name=echo")).await;
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    let lines = lines(&answer.ok());
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in &lines {
        assert_eq!((&line["name"], &line["namespace"]), (&"echo".into(), &"openfaas-fn".into()));
        let instance = line["instance"].as_str().unwrap();
        assert!(instance.strip_prefix("echo-").is_some_and(|id| id.len() == 8), "{instance}");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
    }
    let text = |line: usize| lines[line]["text"].as_str().unwrap();
    assert_eq!(undated(text(0)), "Forking fprocess.");
    assert!(undated(text(1)).starts_with("Wrote 9 Bytes - Duration: 0."), "{}", text(1));
    assert_eq!(&text(0)[4..5], "/", "{}", text(0));

    let instance = lines[0]["instance"].as_str().unwrap();
    assert_eq!(texts(&edge, &format!("name=echo&instance={instance}&tail=1")).await.len(), 1);
    assert!(texts(&edge, "name=echo&instance=other").await.is_empty());
    assert!(texts(&edge, "name=echo&since=2999-01-01T00:00:00Z").await.is_empty());
    let unknown = Reply::to(edge.admin(Method::GET, "/system/logs?name=nobody")).await;
    assert_eq!(unknown.status, 404, "{unknown}");
    let unasked = edge.get("/system/logs?name=echo").await;
    assert_eq!(unasked.status, 401, "{unasked}");
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_handler_s_log_has_the_lines_of_of_watchdog() {
    let edge = Edge::start().await;
    let image = edge.upload(text(HTTP_STATUS)).await;
    let deployment = Deployment::of("status", &image);
    edge.serve(deployment.clone()).await;
    assert_eq!(edge.call("status/404?q=a%20b", "").await.status, 404);
    let mut follower = Follower::start(&edge, "name=status").await;
    follower.until("POST /404?q=a%20b - 404 Not Found - ContentLength: 6B (0.").await;
    assert!(!follower.read.contains('['), "{}", follower.read);

    edge.serve(deployment.variable("log_callid", "true")).await;
    let call = edge.request(Method::GET, "/function/status/201").header("X-Call-Id", "mine");
    assert_eq!(Reply::to(call).await.status, 201);
    follower.until("s) [mine]").await;
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn why_calls_failed_is_in_the_log() {
    let edge = Edge::start().await;
    for (name, module) in [("trap", TRAP), ("httptrap", HTTP_TRAP)] {
        serve(&edge, name, module).await;
        assert_eq!(edge.call(name, "").await.status, 500);
        let log = texts(&edge, &format!("name={name}")).await.join("\n");
        assert!(log.contains("the function trapped: ") && log.contains("wasm backtrace"), "{log}");
    }
    for (name, module, status, line) in [
        ("loop", LOOP, 408, "Killing process: loop"),
        ("httploop", HTTP_LOOP, 504, "Upstream HTTP killed due to exec_timeout: 200ms"),
    ] {
        let image = edge.upload(text(module)).await;
        edge.serve(Deployment::of(name, &image).variable("exec_timeout", "200ms")).await;
        assert_eq!(edge.call(name, "").await.status, status);
        let log = texts(&edge, &format!("name={name}")).await;
        assert_eq!(undated(log.last().unwrap()), line, "{log:?}");
    }
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn what_guests_write_to_stderr_is_followed_as_calls_run() {
    let edge = Edge::start().await;
    let image = edge.upload(built("rust-command.wasm")).await;
    let deployment =
        Deployment::of("talk", &image).process("talk exit 0").variable("combine_output", "false");
    edge.serve(deployment).await;
    let mut follower = Follower::start(&edge, "name=talk&tail=-1").await;
    for _ in 0..3 {
        follower.read.clear();
        edge.call("talk", "").await.ok();
        follower.until("stderr: this went to stderr").await;
        follower.until("Wrote 15 Bytes").await;
    }
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_follower_does_not_hold_up_the_end() {
    let mut edge = Plan::new().argument("--grace-period").argument("100s").start().await;
    serve(&edge, "echo", ECHO).await;
    let mut follower = Follower::start(&edge, "name=echo").await;
    edge.call("echo", "").await.ok();
    follower.until("Wrote 0 Bytes").await;
    let began = std::time::Instant::now();
    assert!(edge.terminate().await.success());
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    follower.ended().await;
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_follower_does_not_hold_up_the_end_of_a_node_apart() {
    let mut edge = Plan::new().apart().argument("--grace-period").argument("100s").start().await;
    serve(&edge, "echo", ECHO).await;
    let mut follower = Follower::start(&edge, "name=echo").await;
    edge.call("echo", "").await.ok();
    follower.until("Wrote 0 Bytes").await;
    let began = std::time::Instant::now();
    let node = edge.node.as_mut().unwrap();
    node.process.signal("TERM");
    assert!(node.process.ended().await.success());
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    follower.ended().await;
    edge.restart_node().await;
    follower = Follower::start(&edge, "name=echo").await;
    follower.until("Wrote 0 Bytes").await;
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_flood_costs_a_neighbour_no_line() {
    const CALLS: usize = 50;
    let edge = Edge::start().await;
    let image = edge.upload(text(FLOOD_STDERR)).await;
    let loud = Deployment::of("loud", &image).variable("combine_output", "false");
    edge.serve(loud.variable("exec_timeout", "500ms")).await;
    serve(&edge, "quiet", ECHO).await;
    let floods = async {
        for _ in 0..4 {
            assert_eq!(edge.call("loud", "").await.status, 408);
        }
    };
    let calls = async {
        for _ in 0..CALLS {
            edge.call("quiet", "x").await.ok();
        }
    };
    tokio::join!(floods, calls);
    let quiet = texts(&edge, "name=quiet&tail=-1").await;
    assert_eq!(quiet.len(), 2 * CALLS, "{quiet:?}");
    let loud = texts(&edge, "name=loud&tail=-1").await;
    assert!(loud.iter().any(|line| line.contains("the rest of this call's output is dropped")), "{loud:?}");
    assert!(!loud.concat().contains('\u{1b}'));
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn logs_survive_restarts_and_kills_and_end_with_their_function() {
    let mut edge = Edge::start().await;
    serve(&edge, "echo", ECHO).await;
    edge.call("echo", "1").await.ok();
    assert!(edge.terminate().await.success());

    let mut edge = edge.again().start().await;
    edge.call("echo", "22").await.ok();
    // What was read was written.
    let before = texts(&edge, "name=echo&tail=-1").await;
    assert_eq!(before.len(), 4, "{before:?}");
    let mut answered = 0;
    while Reply::try_to(edge.request(Method::POST, "/function/echo").body("333")).await.is_ok() {
        answered += 1;
        if answered == 20 {
            edge.process.signal("KILL");
        }
    }
    assert!(answered >= 20, "{answered}");
    edge.process.ended().await;

    let edge = edge.again().start().await;
    let after = texts(&edge, "name=echo&tail=-1").await;
    assert_eq!(after[..4], before);
    for line in &after[4..] {
        let line = undated(line);
        assert!(line == "Forking fprocess." || line.starts_with("Wrote 3 Bytes"), "{line}");
    }

    // A removed function's log is there until it is deployed anew.
    assert_eq!(edge.remove("echo").await.status, 202);
    assert_eq!(texts(&edge, "name=echo&tail=-1").await, after);
    serve(&edge, "echo", ECHO).await;
    eventually("the new function has a log of its own", async || {
        edge.call("echo", "4444").await.ok();
        let lines = texts(&edge, "name=echo&tail=-1").await;
        assert!(lines.iter().all(|line| !line.contains("Wrote 3 Bytes")), "{lines:?}");
        (!lines.is_empty()).then_some(())
    })
    .await;
}
