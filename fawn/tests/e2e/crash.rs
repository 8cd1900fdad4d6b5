//! What was acknowledged is there after kill -9.

use std::{collections::BTreeMap, path::Path, time::Duration};

use runtime_testing::guests::{ARGS, HELLO};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::sleep_until;

use crate::{
    edge::{Deployment, Edge, Plan},
    guests::{marked, text},
    registry::Registry,
};

/// What a function of [`ARGS`] answers when its command line is `args REVISION`.
fn answer(revision: &str) -> String {
    format!("args\n{revision}\n")
}

#[tokio::test]
#[ignore = "needs docker-registry: run scripts/test"]
async fn two_hundred_functions_survive_a_crash_without_their_registry() {
    const FUNCTIONS: usize = 200;
    let mut registry = Registry::start().await;
    let mut edge = Plan::new().insecure_registry(&registry.host).start().await;
    let name = |number| format!("function-{number}");
    for number in 0..FUNCTIONS {
        let module = marked(&text(ARGS), &name(number));
        let image = registry.push_artifact("many", &number.to_string(), &module).await;
        edge.serve(Deployment::of(&name(number), &image).process(&format!("args {number}"))).await;
    }
    let all_answer = async |edge: &Edge| {
        for number in 0..FUNCTIONS {
            assert_eq!(edge.call(&name(number), "").await.ok(), answer(&number.to_string()));
        }
    };
    all_answer(&edge).await;
    assert!(edge.metric("fawn_compiles_total").await >= FUNCTIONS as f64);

    edge.kill().await;
    registry.stop().await;
    let edge = edge.again().insecure_registry(&registry.host).start().await;
    all_answer(&edge).await;
    assert_eq!(edge.metric("fawn_compiles_total").await, 0.0, "nothing is compiled twice");
    assert_eq!(edge.list().await.len(), FUNCTIONS + 1, "and the first function");
}

/// What a client knows of one function: its acknowledged revision, and one that was on its way when the server died.
#[derive(Clone, Default)]
struct Known {
    acknowledged: Option<String>,
    /// The states that an unanswered request may have left, besides the acknowledged one.
    unanswered: Option<Option<String>>,
}

/// One client: deploys, updates and removes its own functions in turn until nobody answers.
async fn change_until_dead(
    edge: &Edge,
    images: &[String],
    client: usize,
    known: &mut BTreeMap<String, Known>,
    turn: &mut usize,
) {
    loop {
        *turn += 1;
        let name = format!("function-{client}-{}", *turn % 3);
        let function = known.entry(name.clone()).or_default();
        let removes = turn.is_multiple_of(5) && function.acknowledged.is_some();
        let revision = (!removes).then(|| turn.to_string());
        function.unanswered = Some(revision.clone());
        let request = match &revision {
            None => edge
                .admin(reqwest::Method::DELETE, "/system/functions")
                .json(&serde_json::json!({ "functionName": name })),
            Some(revision) => {
                let image = &images[*turn % images.len()];
                let deployment = Deployment::of(&name, image).process(&format!("args {revision}"));
                let method = if function.acknowledged.is_some() {
                    reqwest::Method::PUT
                } else {
                    reqwest::Method::POST
                };
                edge.admin(method, "/system/functions").json(&deployment.0)
            }
        };
        match request.send().await {
            Err(_) => return,
            Ok(answer) => {
                assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap_or_default());
                *function = Known { acknowledged: revision, unanswered: None };
            }
        }
    }
}

/// Compares what the server has with what this client was told, and learns what became of unanswered requests.
async fn check(edge: &Edge, known: &mut BTreeMap<String, Known>) {
    for (name, function) in known {
        let answered = edge.call(name, "").await;
        let found = match answered.status {
            404 => None,
            200 => Some(answered.text()),
            _ => panic!("{name}: {answered}"),
        };
        let expected = |revision: &Option<String>| revision.as_deref().map(answer) == found;
        let by_unanswered = function.unanswered.take().filter(expected);
        if !expected(&function.acknowledged) {
            let Some(revision) = by_unanswered else {
                panic!("{name}: {:?} was acknowledged, {found:?} is there", function.acknowledged)
            };
            function.acknowledged = revision;
        }
    }
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn acknowledged_changes_survive_being_killed_at_any_moment() {
    const CYCLES: u64 = 25;
    const CLIENTS: usize = 3;
    let mut edge = Edge::start().await;
    let mut images = Vec::new();
    for mark in 0..4 {
        images.push(edge.upload(marked(&text(ARGS), &mark.to_string())).await);
    }
    let mut clients: [(BTreeMap<String, Known>, usize); CLIENTS] = Default::default();
    for cycle in 0..CYCLES {
        // Spread over the time that a few changes take, never the same twice.
        let lives = Duration::from_millis(5 + (cycle * 7919) % 400);
        {
            let [one, two, three] = &mut clients;
            let moment = tokio::time::Instant::now() + lives;
            let pid = edge.process.pid;
            let kill = async {
                sleep_until(moment).await;
                let killed =
                    std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
                assert!(killed.success());
            };
            tokio::join!(
                kill,
                change_until_dead(&edge, &images, 1, &mut one.0, &mut one.1),
                change_until_dead(&edge, &images, 2, &mut two.0, &mut two.1),
                change_until_dead(&edge, &images, 3, &mut three.0, &mut three.1),
            );
        }
        assert!(!edge.process.ended().await.success());
        edge = edge.again().start().await;
        for (known, _) in &mut clients {
            check(&edge, known).await;
        }
    }
    let changes: usize = clients.iter().map(|(_, turns)| turns).sum();
    eprintln!("{changes} changes in {CYCLES} lives");
    assert!(changes > 3 * CYCLES as usize, "too few changes to prove anything: {changes}");
}

/// Every file under a final name is what its name says, whatever was going on when the server died.
fn assert_whole(data: &Path) {
    for file in std::fs::read_dir(data.join("modules")).unwrap() {
        let path = file.unwrap().path();
        let digest = Sha256::digest(std::fs::read(&path).unwrap());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(path.file_name().unwrap().to_str().unwrap(), format!("sha256-{hex}.wasm"), "a half file");
    }
    for file in std::fs::read_dir(data.join("manifests")).unwrap() {
        let file = file.unwrap();
        let temporary = file.file_name().to_string_lossy().starts_with('.');
        assert!(temporary || serde_json::from_slice::<Value>(&std::fs::read(file.path()).unwrap()).is_ok());
    }
}

/// What interrupted work leaves.
fn temporary_files(data: &Path) -> usize {
    ["tmp", "code/tmp"].iter().map(|folder| std::fs::read_dir(data.join(folder)).unwrap().count()).sum()
}

#[tokio::test]
#[ignore = "needs docker-registry: run scripts/test"]
async fn a_deploy_killed_at_any_step_leaves_nothing_half_done() {
    const LIVES: u32 = 40;
    let registry = Registry::start().await;
    // Large enough that pulling and compiling take a while, each time another.
    let padding =
        "(func (result i64) (i64.add (i64.const 1) (i64.const 2)) (drop) (i64.const 3))".repeat(20_000);
    let large = text(&HELLO.replacen("(func (export", &format!("{padding}(func (export"), 1));
    let plan = |edge: &Edge| edge.again().insecure_registry(&registry.host);
    let mut edge = Plan::new().insecure_registry(&registry.host).start().await;
    let data = edge.data_dir();
    let image = async |mark: &str| registry.push_artifact("large", mark, &marked(&large, mark)).await;
    let whole = std::time::Instant::now();
    edge.serve(Deployment::of("large", &image("first").await)).await;
    let whole = whole.elapsed();
    let mut killed_within = 0;
    for life in 1..=LIVES {
        let deployment = Deployment::of("large", &image(&format!("mark-{life}")).await);
        let moment = tokio::time::Instant::now() + whole * life / LIVES;
        let pid = edge.process.pid;
        let kill = async {
            sleep_until(moment).await;
            let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
            assert!(killed.success());
        };
        let request = edge.admin(reqwest::Method::PUT, "/system/functions").json(&deployment.0);
        let (answer, ()) = tokio::join!(request.send(), kill);
        killed_within += u32::from(answer.is_err());
        assert!(!edge.process.ended().await.success());
        assert_whole(&data);
        edge = plan(&edge).start().await;
        assert_eq!(temporary_files(&data), 0, "the next start sweeps");
        // The old revision or the new one, whole; compiled again if its code was not.
        assert_eq!(edge.call("large", "").await.ok(), "Hello from Fawn\n");
        assert_eq!(edge.deploy(&deployment).await.status, 202, "the same deploy goes through the next time");
        assert_eq!(edge.call("large", "").await.ok(), "Hello from Fawn\n");
    }
    eprintln!("{killed_within} of {LIVES} deploys were killed within the {whole:?} that one takes");
    assert!(killed_within > LIVES / 4, "too few to prove anything");
}
