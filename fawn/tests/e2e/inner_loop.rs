//! `fawn dev` with the compilers of real languages.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use tokio::process::Command;

use crate::{
    developer::answers_never_go_back,
    edge::Edge,
    process::{Process, eventually, run_within},
    templates::{JAVASCRIPT, PYTHON, RUST, Template},
    wrapped::{BUILD_PATIENCE, target, with_toolchains},
};

const VERSIONS: u32 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn rust_is_swapped_under_load() {
    is_swapped_under_load(&RUST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn javascript_is_swapped_under_load() {
    is_swapped_under_load(&JAVASCRIPT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the guests' toolchains: run scripts/test"]
async fn python_is_swapped_under_load() {
    is_swapped_under_load(&PYTHON).await;
}

/// A developer's folder with one function of a template.
struct Project<'a> {
    edge: &'a Edge,
    folder: PathBuf,
}

impl Project<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.edge.command(arguments);
        with_toolchains(command.current_dir(&self.folder), &self.folder);
        command
    }

    async fn fawn(&self, arguments: &[&str]) {
        run_within(BUILD_PATIENCE, &mut self.command(arguments), b"").await.succeeds();
    }

    /// Writes a file as a whole, as editors do.
    fn save(&self, file: &str, text: &str) {
        let new = self.folder.join(".new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.folder.join("greeting").join(file)).unwrap();
    }
}

/// Each version that is saved comes to serve, a mistake is told with its place while the last version goes on, and no
/// call is lost meanwhile.
async fn is_swapped_under_load(template: &Template) {
    let edge = Edge::start().await;
    let folder = target().join(format!("{}-dev", template.name));
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir_all(&folder).unwrap();
    let project = Project { edge: &edge, folder };
    project.fawn(&["new", "greeting", "--lang", template.name]).await;
    let handler = fs::read_to_string(project.folder.join("greeting").join(template.handler)).unwrap();
    let version = |number: u32| handler.replacen("Hello!", &format!("Hello {number:04}!"), 1);
    let serves = async |number: u32| {
        let expected = format!("Hello {number:04}!");
        eventually(&format!("version {number} serves"), async || {
            edge.call("greeting", "").await.ok().starts_with(&expected).then_some(())
        })
        .await;
    };
    project.save(template.handler, &version(0));
    // What is compiled once for all takes its time.
    project.fawn(&["build"]).await;
    let mut dev = Process::spawn(&mut project.command(&["dev", "--no-logs"]));
    dev.until(|said| said.contains("waiting for changes").then_some(())).await;
    serves(0).await;

    let done = AtomicBool::new(false);
    let call = || answers_never_go_back(&edge, "greeting", &done);
    let edit = async {
        for number in 1..=VERSIONS {
            let began = Instant::now();
            project.save(template.handler, &version(number));
            serves(number).await;
            eprintln!("{}: serves {:?} after the file was saved", template.name, began.elapsed());
        }
        let mistake = &template.mistakes[0];
        project.save(template.handler, &handler.replacen(mistake.from, mistake.to, 1));
        for wanted in mistake.says {
            dev.until(|said| said.contains(wanted).then_some(())).await;
        }
        dev.until(|said| said.contains("what was serving still does").then_some(())).await;
        serves(VERSIONS).await;
        project.save(template.handler, &version(VERSIONS + 1));
        serves(VERSIONS + 1).await;
        done.store(true, Ordering::Relaxed);
    };
    let ((), one, other) = tokio::join!(edit, call(), call());
    assert!(one + other > u64::from(VERSIONS), "too few calls to prove anything");
    dev.signal("INT");
    assert!(dev.ended().await.success(), "{}", dev.log());
}
