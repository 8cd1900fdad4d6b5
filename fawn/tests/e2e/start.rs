//! How it starts and stops, and where its settings come from.

use std::{
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use reqwest::Method;
use runtime_testing::guests::{HELLO, SLEEP};

use crate::{
    edge::{Deployment, Edge, Plan},
    guests::text,
    process::eventually,
};

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_first_start_answers_and_says_how_to_log_in() {
    let edge = Edge::start().await;
    assert!(edge.call("hello", "").await.ok().contains("Hello"));
    let said = format!("{}{}", edge.process.stdout(), edge.process.log());
    assert!(said.contains("faas-cli login"), "{said}");
    assert!(!said.contains(edge.password()), "the password itself is not for the log");
    assert_eq!(edge.get("/system/functions").await.status, 401);
    assert_eq!(edge.list().await, ["hello"]);
    assert_eq!(edge.get("/healthz").await.status, 200);
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn what_was_open_when_it_started_goes_to_no_process_of_its_own() {
    // As a shell does that keeps a file open for what it starts.
    let left_open = std::fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&left_open, rustix::io::FdFlags::empty()).unwrap();
    let edge = Edge::start().await;
    let its_own = format!("/proc/{}/fdinfo/{}", edge.process.pid, left_open.as_raw_fd());
    let text = std::fs::read_to_string(its_own).expect("it is inherited");
    // In octal; O_CLOEXEC is among them (proc_pid_fdinfo(5)).
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
    assert_ne!(u32::from_str_radix(flags, 8).unwrap() & 0o2_000_000, 0, "{text}");
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_removed_first_function_stays_away() {
    let mut edge = Edge::start().await;
    assert_eq!(edge.remove("hello").await.status, 202);
    assert!(edge.terminate().await.success());
    let edge = edge.again().start().await;
    assert_eq!(edge.list().await, Vec::<String>::new());
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_start_with_nothing_to_compile_takes_less_than_a_second() {
    let mut edge = Edge::start().await;
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        assert!(edge.terminate().await.success());
        let began = Instant::now();
        edge = edge.again().start().await;
        fastest = fastest.min(began.elapsed());
        assert!(edge.call("hello", "").await.ok().contains("Hello"));
        assert_eq!(edge.metric("fawn_compiles_total").await, 0.0);
    }
    eprintln!("ready after {fastest:?}");
    // Other tests have the cores too: the fastest of five is what it takes.
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn settings_come_from_a_file_the_environment_and_flags() {
    let file = |plan: &Plan, text: &str| plan.file("fawn.toml", text.as_bytes()).to_str().unwrap().to_owned();
    let slow = async |edge: &Edge| edge.call("slow", "").await.status;

    let plan = Plan::new();
    let path = file(&plan, "max-exec-timeout = \"300ms\"\nno-auth = true\n");
    let edge = plan.argument("--config").argument(path).start().await;
    assert_eq!(edge.get("/system/functions").await.status, 200, "the file lets everyone in");
    let image = edge.upload(text(SLEEP)).await;
    edge.serve(Deployment::of("slow", &image).process("sleep 2000")).await;
    assert_eq!(slow(&edge).await, 408, "the file limits a call");

    let mut edge = edge;
    edge.terminate().await;
    let path = edge.data_dir().with_file_name("fawn.toml").to_str().unwrap().to_owned();
    let plan = edge.again().argument("--config").argument(path).variable("FAWN_MAX_EXEC_TIMEOUT", "20s");
    let mut edge = plan.start().await;
    assert_eq!(slow(&edge).await, 200, "the environment beats the file");

    edge.terminate().await;
    let plan = edge.again().variable("FAWN_MAX_EXEC_TIMEOUT", "20s");
    let edge = plan.argument("--max-exec-timeout").argument("300ms").start().await;
    assert_eq!(slow(&edge).await, 408, "a flag beats the environment");
    assert_eq!(edge.get("/system/functions").await.status, 401);

    let plan = Plan::new();
    let path = file(&plan, "max-exec-timout = \"1s\"\nlisten = \"everywhere\"\n");
    let said =
        plan.argument("--config").argument(path).argument("--memory-budget").argument("much").refused().await;
    for word in ["max-exec-timout", "memory-budget", "much"] {
        assert!(said.contains(word), "all mistakes at once: {said}");
    }
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_stop_finishes_the_calls_in_flight() {
    const CALLS: usize = 20;
    let mut edge = Edge::start().await;
    let image = edge.upload(text(SLEEP)).await;
    edge.serve(Deployment::of("slow", &image).process("sleep 1500")).await;
    edge.serve(Deployment::of("quick", &edge.upload(text(HELLO)).await)).await;

    let calls: Vec<_> =
        (0..CALLS).map(|_| tokio::spawn(edge.request(Method::POST, "/function/slow").send())).collect();
    eventually("all calls run", async || (edge.metric("fawn_instances").await >= CALLS as f64).then_some(()))
        .await;
    edge.process.signal("TERM");
    eventually("new connections are refused", async || {
        edge.request(Method::GET, "/healthz").send().await.err().filter(|error| error.is_connect())
    })
    .await;
    for call in calls {
        let answer = call.await.unwrap().expect("a call in flight gets its answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.text().await.unwrap(), "slept\n");
    }
    assert!(edge.process.ended().await.success(), "{}", edge.process.log());
}
