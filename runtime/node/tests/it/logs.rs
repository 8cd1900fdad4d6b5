//! What calls leave in their functions' logs, and for how long.

use std::time::Duration;

use futures_util::StreamExt;
use runtime_api::{Error, FunctionSpec, LogQuery, LogStream, Namespace, Provider};
use runtime_testing::guests;

use crate::{Machine, Running, name};

fn all(function: &str) -> LogQuery {
    LogQuery {
        function: name(function),
        instance: String::new(),
        tail: Some(u64::MAX),
        since: None,
        follow: false,
    }
}

/// The texts of lines, without the date and time that each begins with.
async fn texts(lines: LogStream) -> Vec<String> {
    lines.map(|line| line.unwrap().text.split_off("2026/01/01 00:00:00 ".len())).collect().await
}

impl Running {
    async fn log(&self, function: &str) -> Vec<String> {
        texts(self.node.logs(all(function)).await.unwrap()).await
    }
}

#[tokio::test]
async fn calls_leave_the_watchdogs_lines() {
    let machine = Machine::new();
    let running = machine.start();
    running.deploy("command", guests::HELLO).await;
    running.deploy("handler", guests::HELLO_HTTP).await;
    running.deploy("failing", guests::EXIT_CODE).await;
    running.deploy("trapping", guests::TRAP).await;
    for function in ["command", "handler", "failing", "trapping"] {
        running.call(function).await.unwrap();
    }
    let command = running.log("command").await;
    assert_eq!(command[0], "Forking fprocess.");
    assert!(
        command[1].starts_with("Wrote 16 Bytes - Duration: 0.") && command[1].ends_with('s'),
        "{command:?}"
    );
    assert_eq!(command.len(), 2);
    let handler = running.log("handler").await;
    assert!(handler[0].starts_with("GET / - 200 OK - ContentLength: 16B (0."), "{handler:?}");
    assert_eq!(handler.len(), 1);
    assert_eq!(running.log("failing").await, ["Forking fprocess."]);
    let trapping = running.log("trapping").await;
    assert!(trapping[1].starts_with("the function trapped: "), "{trapping:?}");
}

#[tokio::test]
async fn what_guests_write_is_kept_as_lines_that_forge_nothing() {
    let machine = Machine::new();
    let running = machine.start();
    let mut spec = running.stored("flood", guests::FLOOD_STDERR).await;
    spec.env_vars =
        [("combine_output", "false"), ("exec_timeout", "200ms")].map(|(k, v)| (k.into(), v.into())).into();
    running.node.deploy(spec).await.unwrap();
    running.call("flood").await.unwrap();
    let lines = running.log("flood").await;
    assert_eq!(lines[0], "Forking fprocess.");
    assert!(lines[1].starts_with("stderr: "), "{}", lines[1]);
    assert!(lines.iter().any(|line| line == "the rest of this call's output is dropped"));
    assert_eq!(lines.last().unwrap(), "Killing process: flood");
    assert!(lines.iter().all(|line| !line.contains(|char: char| char.is_control() && char != '\t')));
}

#[tokio::test]
async fn a_log_outlives_its_function_for_the_grace_period() {
    let machine = Machine { garbage_grace: Duration::from_secs(2), ..Machine::new() };
    let running = machine.start();
    running.deploy("hello", guests::HELLO).await;
    running.call("hello").await.unwrap();
    let mut following = running.node.logs(LogQuery { follow: true, ..all("hello") }).await.unwrap();
    following.next().await.unwrap().unwrap();
    running.node.remove(&name("hello")).await.unwrap();
    // Ends with the log itself, and not with the function.
    while following.next().await.is_some() {}
    let gone = running.node.logs(all("hello")).await;
    assert!(matches!(gone.err(), Some(Error::NotFound(_))));
}

#[tokio::test]
async fn a_function_deployed_anew_begins_a_new_log_and_an_updated_one_goes_on() {
    let machine = Machine::new();
    let running = machine.start();
    running.deploy("hello", guests::HELLO).await;
    running.call("hello").await.unwrap();
    let spec: FunctionSpec = running.stored("hello", guests::HELLO_HTTP).await;
    running.node.update(spec).await.unwrap();
    running.call("hello").await.unwrap();
    assert_eq!(running.log("hello").await.len(), 3);
    running.node.remove(&name("hello")).await.unwrap();
    assert_eq!(running.log("hello").await.len(), 3);
    running.deploy("hello", guests::HELLO).await;
    assert!(running.log("hello").await.is_empty());
}

#[tokio::test]
async fn followers_end_with_the_node_and_logs_are_there_after_it() {
    let machine = Machine::new();
    let running = machine.start();
    running.deploy("hello", guests::HELLO).await;
    let following = running.node.logs(LogQuery { follow: true, ..all("hello") }).await.unwrap();
    running.call("hello").await.unwrap();
    running.stop().await;
    assert!(texts(following).await.len() <= 2);
    let running = machine.start();
    assert_eq!(running.log("hello").await.len(), 2);
}

#[tokio::test]
async fn logs_go_with_their_namespace() {
    let machine = Machine::new();
    let running = machine.start();
    let made = || Namespace { name: "dev".into(), ..Namespace::default() };
    running.node.create_namespace(made()).await.unwrap();
    let spec = running.stored("hello", guests::HELLO).await;
    running.node.deploy(FunctionSpec { namespace: "dev".into(), ..spec }).await.unwrap();
    running.call("hello.dev").await.unwrap();
    assert_eq!(running.log("hello.dev").await.len(), 2);
    running.node.remove(&name("hello.dev")).await.unwrap();
    assert_eq!(running.log("hello.dev").await.len(), 2);
    running.node.remove_namespace("dev").await.unwrap();
    let error = running.node.logs(all("hello.dev")).await.err();
    assert!(error.is_some_and(|error| error.code() == "no-such-namespace"));
    running.node.create_namespace(made()).await.unwrap();
    assert!(matches!(running.node.logs(all("hello.dev")).await.err(), Some(Error::NotFound(_))));
}
