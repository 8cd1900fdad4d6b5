//! A disk that fills up under the queue.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use reqwest::Method;
use runtime_testing::guests::HELLO_HTTP;
use tokio::{process::Command, task::JoinSet};

use crate::{
    edge::{Deployment, Edge, Plan, Reply, client},
    guests::text,
    later::{accepted, call, counts, drained, passing, reaching_here, serve_passing, total},
    ledger::{Ledger, body},
    node_faults::may_mount,
    process::{PATIENCE, Process, eventually},
};

/// A small file system of a process's own that outlives the servers on it.
struct SmallDisk {
    holder: Process,
    folder: PathBuf,
}

impl SmallDisk {
    async fn mount(folder: PathBuf, mebibytes: u32) -> Self {
        fs::create_dir(&folder).unwrap();
        let script =
            format!("mount -t tmpfs -o size={mebibytes}m tmpfs \"$0\"\necho mounted\nexec sleep infinity");
        let mut holder =
            Process::spawn(Command::new("unshare").args(["--mount", "sh", "-ec", &script]).arg(&folder));
        holder.until(|said| said.contains("mounted").then_some(())).await;
        Self { holder, folder }
    }

    /// A server whose data is there.
    async fn start(&self, plan: Plan) -> Edge {
        let script = format!("exec nsenter --mount=/proc/{}/ns/mnt -- \"$0\" \"$@\"", self.holder.pid);
        reaching_here(plan).mounts(script).start().await
    }

    fn filler(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}/filler", self.holder.pid, self.folder.display()))
    }

    /// Takes what is left of it.
    fn fill(&self) {
        fill(&self.filler());
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

fn fill(filler: &Path) {
    let mut file = File::options().create(true).append(true).open(filler).unwrap();
    for piece in [1 << 20, 1 << 12] {
        loop {
            match file.write_all(&vec![0; piece]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[track_caller]
fn assert_full(answer: &Reply) {
    assert_eq!(answer.status, 503, "{answer}");
    assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0, "{answer}");
}

/// What does not go through the queue goes on.
async fn others_are_served(edge: &Edge, ledger: &Ledger, id: &str) {
    assert_eq!(edge.call("beside", "").await.ok(), "Hello from Fawn\n");
    let sync = edge.call(&format!("work/pass?to={}", ledger.effect(id, 0)), body(id, 100)).await;
    assert_eq!(sync.ok(), crate::ledger::answer(id));
    assert_eq!(edge.get("/healthz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the guests: run scripts/test"]
async fn a_full_disk_refuses_new_calls_and_runs_those_it_has() {
    if !may_mount("asynchronous calls on a full disk") {
        return;
    }
    const HELD: usize = 40;
    let ledger = Ledger::start().await;
    let plan = Plan::new();
    let disk = SmallDisk::mount(plan.data_dir(), 64).await;
    let mut edge = disk.start(plan).await;
    serve_passing(&edge, "work", 10).await;
    edge.serve(Deployment::of("beside", &edge.upload(text(HELLO_HTTP)).await)).await;
    // Some of them run, others wait for these, and some bodies are files.
    let hold = async |edge: &Edge, round: &str| {
        ledger.hold();
        for number in 0..HELD {
            let id = format!("{round}-{number}");
            let bytes = if number % 8 == 0 { 100_000 } else { 1000 };
            let held = edge.request(Method::POST, &passing("work", &ledger.held(&id)));
            accepted(&Reply::to(held.body(body(&id, bytes))).await);
        }
        eventually("some run", async || (total(&counts(edge).await, &["running"]) > 4).then_some(())).await;
    };
    let all_ran_once = |round: &str| {
        for number in 0..HELD {
            let seen = ledger.seen(&format!("{round}-{number}"));
            assert_eq!(seen.effects.len(), 1, "{round}-{number}: {seen:?}");
        }
    };
    let accepts_again = async |edge: &Edge, id: &str| {
        let began = Instant::now();
        let attempt = async || (Reply::to(call(edge, &ledger, "work", id)).await.status == 202).then_some(());
        eventually("calls are accepted again", attempt).await;
        eprintln!("{id}: calls were accepted {:?} after there was room", began.elapsed());
        drained(edge).await;
        assert_eq!(ledger.seen(id).successes(), 1);
    };

    // What the disk still has room for is the queue's own reserve.
    hold(&edge, "reserve").await;
    disk.fill();
    assert_full(&Reply::to(call(&edge, &ledger, "work", "refused")).await);
    others_are_served(&edge, &ledger, "beside-reserve").await;
    ledger.let_go();
    assert_eq!(total(&drained(&edge).await, &["dead"]), 0);
    all_ran_once("reserve");
    assert_full(&Reply::to(call(&edge, &ledger, "work", "refused")).await);
    disk.make_room();
    accepts_again(&edge, "after-reserve").await;

    // Somebody else takes the reserve, too: calls run, and wait for room to be put on record.
    hold(&edge, "nothing").await;
    disk.fill();
    assert_full(&Reply::to(call(&edge, &ledger, "work", "refused")).await);
    disk.fill();
    others_are_served(&edge, &ledger, "beside-nothing").await;
    ledger.let_go();
    eventually("what ran then is done", async || (ledger.seen("nothing-0").successes() == 1).then_some(()))
        .await;
    assert_full(&Reply::to(call(&edge, &ledger, "work", "refused")).await);
    disk.make_room();
    accepts_again(&edge, "after-nothing").await;
    all_ran_once("nothing");

    // A server that is killed then starts again where there is nothing left at all.
    hold(&edge, "killed").await;
    disk.fill();
    assert_full(&Reply::to(call(&edge, &ledger, "work", "refused")).await);
    edge.kill().await;
    disk.fill();
    ledger.next_life().await;
    edge = disk.start(edge.again()).await;
    assert_full(&Reply::to(call(&edge, &ledger, "work", "refused")).await);
    others_are_served(&edge, &ledger, "beside-killed").await;
    ledger.let_go();
    disk.make_room();
    accepts_again(&edge, "after-killed").await;
    for number in 0..HELD {
        assert!(ledger.seen(&format!("killed-{number}")).successes() > 0, "killed-{number}");
    }
    assert!(ledger.seen("refused").effects.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the guests: run scripts/test"]
async fn a_disk_that_fills_up_during_commits_loses_nothing() {
    if !may_mount("commits of asynchronous calls on a disk that fills up") {
        return;
    }
    const CLIENTS: usize = 8;
    const FILLS: usize = 30;
    let ledger = Ledger::start().await;
    let plan = Plan::new();
    let disk = SmallDisk::mount(plan.data_dir(), 64).await;
    let edge = disk.start(plan).await;
    serve_passing(&edge, "work", 10).await;
    edge.serve(Deployment::of("beside", &edge.upload(text(HELLO_HTTP)).await)).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut clients: JoinSet<(Vec<String>, usize)> = (0..CLIENTS)
        .map(|client_number| {
            // A refusal that comes before the whole body was read ends its connection.
            let http = client().timeout(PATIENCE).pool_max_idle_per_host(0).build().unwrap();
            let ledger = ledger.clone();
            let (gateway, over) = (edge.gateway.clone(), over.clone());
            async move {
                let (mut kept, mut full) = (Vec::new(), 0);
                for number in 0.. {
                    if over.load(Relaxed) {
                        break;
                    }
                    let id = format!("client-{client_number}-{number}");
                    let path = passing("work", &ledger.effect(&id, 0));
                    let bytes = if number % 20 == 7 { 100_000 } else { number % 5000 };
                    let call = http.request(Method::POST, format!("{gateway}{path}")).body(body(&id, bytes));
                    let answer = Reply::to(call).await;
                    if answer.status == 202 {
                        kept.push(id);
                    } else {
                        assert_full(&answer);
                        full += 1;
                    }
                }
                (kept, full)
            }
        })
        .collect();
    let mut done = ledger.done();
    for turn in 0..FILLS {
        // Each time some calls go through first.
        let before = *done.borrow_and_update();
        tokio::time::timeout(PATIENCE, done.wait_for(|done| *done > before + 20)).await.unwrap().unwrap();
        let filler = disk.filler();
        tokio::task::spawn_blocking(move || fill(&filler)).await.unwrap();
        others_are_served(&edge, &ledger, &format!("beside-{turn}")).await;
        // The reserve, where it was given up.
        disk.fill();
        disk.make_room();
    }
    over.store(true, Relaxed);
    let (mut kept, mut full) = (Vec::new(), 0);
    while let Some(client) = clients.join_next().await {
        let client = client.unwrap();
        kept.extend(client.0);
        full += client.1;
    }
    let counts = drained(&edge).await;
    assert_eq!(total(&counts, &["dead"]), 0, "{counts}");
    for id in &kept {
        let seen = ledger.seen(id);
        assert_eq!(seen.successes(), 1, "{id}: {seen:?}");
    }
    assert_eq!(total(&counts, &["succeeded"]), kept.len() as u64, "{counts}");
    eprintln!("{} calls were accepted and {full} refused while the disk filled up {FILLS} times", kept.len());
    assert!(kept.len() > FILLS && full > 0, "too few to prove anything");
}

/// The bytes of the body of a call that is kept in the queue's own file.
const LARGE_BYTES: usize = 48 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the guests: run scripts/test"]
async fn a_queue_that_filled_its_own_disk_takes_calls_again_when_those_have_run() {
    if !may_mount("asynchronous calls that fill their disk") {
        return;
    }
    // Of so many MiB: a file that is worth making smaller in any case, and one that is not while there is room.
    for mebibytes in [128, 64] {
        let ledger = Ledger::start().await;
        let plan = Plan::new();
        let disk = SmallDisk::mount(plan.data_dir(), mebibytes).await;
        let mut edge = disk.start(plan).await;
        serve_passing(&edge, "work", 10).await;
        ledger.hold();
        let mut kept = 0;
        let refusal = loop {
            let id = format!("kept-{kept}");
            let held = edge.request(Method::POST, &passing("work", &ledger.held(&id)));
            let answer = Reply::to(held.body(body(&id, LARGE_BYTES))).await;
            if answer.status != 202 {
                break answer;
            }
            kept += 1;
        };
        assert_full(&refusal);
        assert!(kept > 100, "{kept}");
        // It starts again like this, also where others have taken the reserve.
        edge.kill().await;
        ledger.next_life().await;
        disk.fill();
        edge = disk.start(edge.again()).await;
        assert_full(&Reply::to(call(&edge, &ledger, "work", "refused")).await);
        disk.make_room();

        ledger.let_go();
        let began = Instant::now();
        // Somebody asks all the time, so that it is never idle.
        let ask =
            async || (Reply::to(call(&edge, &ledger, "work", "again")).await.status == 202).then_some(());
        eventually("calls are accepted again", ask).await;
        eprintln!("{mebibytes} MiB took {kept} calls, and others {:?} after they could run", began.elapsed());
        let counts = drained(&edge).await;
        assert_eq!(total(&counts, &["succeeded"]), kept + 1, "{counts}");
        for number in 0..kept {
            assert!(ledger.seen(&format!("kept-{number}")).successes() > 0, "kept-{number}");
        }
    }
}
