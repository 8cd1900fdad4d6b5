use std::time::Duration;

use super::*;

const LIMITS: LogLimits = LogLimits { function_bytes: 2000, total_bytes: 10_000 };

fn name(text: &str) -> FunctionName {
    FunctionName::parse(text).unwrap()
}

fn listed(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

fn on_disk(folder: &Path) -> u64 {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

fn line(bytes: usize) -> String {
    format!("{}\n", "x".repeat(bytes - 1))
}

#[test]
fn a_function_s_log_is_bounded_and_keeps_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Files::open(folder.path(), LIMITS).unwrap();
    let watched = files.watch(&name("f"), true).unwrap();
    for _ in 0..100 {
        files.append(&name("f"), &line(300)).unwrap();
        assert!(on_disk(folder.path()) <= 2000);
    }
    // Three lines fit into half of it.
    assert_eq!(*watched.borrow(), Extent { first: 33, last: 34, bytes: 300 });
    assert_eq!(listed(folder.path()), ["f.openfaas-fn.33", "f.openfaas-fn.34"]);
    assert_eq!(files.bytes, 1200);
}

#[test]
fn all_logs_together_are_bounded_and_the_oldest_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Files::open(folder.path(), LIMITS).unwrap();
    for function in 0..40 {
        files.append(&name(&format!("f{function}")), &line(400)).unwrap();
        assert!(on_disk(folder.path()) <= 10_000);
    }
    assert_eq!(files.bytes, on_disk(folder.path()));
    let watched = files.watch(&name("f0"), false).unwrap();
    assert_eq!(*watched.borrow(), Extent { first: 2, last: 2, bytes: 0 });
    assert!(folder.path().join("f39.openfaas-fn.1").exists());
    // One whose log had to go writes on.
    files.append(&name("f0"), &line(400)).unwrap();
    assert_eq!(*watched.borrow(), Extent { first: 2, last: 2, bytes: 400 });
}

#[test]
fn a_restart_finds_all_but_a_torn_line() {
    let folder = tempfile::tempdir().unwrap();
    for (left, whole) in [
        ("one\ntwo\n", 8),
        ("one\ntwo\ntor", 8),
        ("torn", 0),
        ("", 0),
        (&format!("one\n{}", "\0".repeat(200_000)), 4),
    ] {
        fs::write(folder.path().join("f.openfaas-fn.7"), left).unwrap();
        let mut files = Files::open(folder.path(), LIMITS).unwrap();
        let extent = *files.watch(&name("f"), false).unwrap().borrow();
        assert_eq!(extent, Extent { first: 7, last: 7, bytes: whole });
        files.append(&name("f"), "more\n").unwrap();
        let now = fs::read_to_string(folder.path().join("f.openfaas-fn.7")).unwrap();
        assert_eq!(now, format!("{}more\n", &left[..usize::try_from(whole).unwrap()]));
        assert_eq!(files.bytes, on_disk(folder.path()));
    }
}

#[test]
fn what_is_no_log_is_left_alone_and_what_no_reader_can_reach_goes() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["f.openfaas-fn.2", "f.openfaas-fn.4", "f.openfaas-fn.5", "f.5", "f.openfaas-fn.05", "README"]
    {
        fs::write(folder.path().join(file), "line\n").unwrap();
    }
    let files = Files::open(folder.path(), LIMITS).unwrap();
    assert_eq!(files.bytes, 10);
    let expected = ["README", "f.5", "f.openfaas-fn.05", "f.openfaas-fn.4", "f.openfaas-fn.5"];
    assert_eq!(listed(folder.path()), expected);
}

#[test]
fn smaller_limits_hold_from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Files::open(folder.path(), LIMITS).unwrap();
    for function in 0..20 {
        files.append(&name(&format!("f{function}")), &line(400)).unwrap();
    }
    Files::open(folder.path(), LogLimits { total_bytes: 1600, ..LIMITS }).unwrap();
    assert!(on_disk(folder.path()) <= 1600);
}

#[test]
fn who_has_most_makes_room_for_who_has_little() {
    let folder = tempfile::tempdir().unwrap();
    let limits = LogLimits { function_bytes: 4000, total_bytes: 10_000 };
    let mut files = Files::open(folder.path(), limits).unwrap();
    files.append(&name("quiet"), &line(400)).unwrap();
    for round in 0..200 {
        files.append(&name(&format!("loud{}", round % 5)), &line(400)).unwrap();
        assert!(on_disk(folder.path()) <= 10_000);
    }
    let quiet = *files.watch(&name("quiet"), false).unwrap().borrow();
    assert_eq!(quiet, Extent { first: 1, last: 1, bytes: 400 });
    assert_eq!(files.bytes, on_disk(folder.path()));
}

#[test]
fn a_file_that_cannot_be_used_costs_its_function_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = |file: &str| folder.path().join(file);
    for newest in ["bad.openfaas-fn.3", "worse.openfaas-fn.1"] {
        fs::create_dir(file(newest)).unwrap();
    }
    for whole in ["bad.openfaas-fn.4", "good.openfaas-fn.1"] {
        fs::write(file(whole), "one\n").unwrap();
    }
    let mut files = Files::open(folder.path(), LIMITS).unwrap();
    for (function, first, bytes) in [("bad", 4, 4), ("worse", 2, 0), ("good", 1, 4)] {
        let extent = *files.watch(&name(function), false).unwrap().borrow();
        assert_eq!(extent, Extent { first, last: first, bytes }, "{function}");
        files.append(&name(function), "two\n").unwrap();
    }
    assert_eq!(fs::read_to_string(file("worse.openfaas-fn.2")).unwrap(), "two\n");
    assert_eq!(files.bytes, 8 + 4 + 8);
}

#[test]
fn a_log_that_cannot_be_removed_does_not_keep_the_next_from_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Files::open(folder.path(), LIMITS).unwrap();
    files.append(&name("f"), "old\n").unwrap();
    let follower = files.watch(&name("f"), false).unwrap();
    let file = folder.path().join("f.openfaas-fn.1");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    files.give_up(&name("f"));
    assert!(follower.has_changed().is_err());
    files.append(&name("f"), "new\n").unwrap();
    assert_eq!(files.bytes, 4);
    fs::remove_dir(&file).unwrap();
    fs::write(&file, "old\n").unwrap();
    let mut files = Files::open(folder.path(), LIMITS).unwrap();
    let extent = *files.watch(&name("f"), false).unwrap().borrow();
    assert_eq!(extent, Extent { first: 3, last: 3, bytes: 4 });
    assert_eq!(listed(folder.path()), ["f.openfaas-fn.3"]);
}

#[test]
fn lines_that_cannot_be_written_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Files::open(folder.path(), LIMITS).unwrap();
    files.append(&name("f"), "one\n").unwrap();
    fs::create_dir(folder.path().join("g.openfaas-fn.1")).unwrap();
    files.append(&name("g"), "one\n").unwrap_err();
    assert_eq!(files.watch(&name("g"), true).unwrap().borrow().bytes, 0);
    assert_eq!(files.bytes, 4);
}

#[tokio::test(start_paused = true)]
async fn logs_of_functions_that_are_gone_stay_for_the_grace_period() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Files::open(folder.path(), LIMITS).unwrap();
    files.append(&name("gone"), "one\n").unwrap();
    files.append(&name("here"), "one\n").unwrap();
    let (hour, exists) = (Duration::from_secs(3600), |function: &FunctionName| function.name() == "here");
    files.sweep(exists, hour).unwrap();
    tokio::time::advance(hour - Duration::from_secs(1)).await;
    files.sweep(exists, hour).unwrap();
    assert_eq!(listed(folder.path()).len(), 2);
    let mut follower = files.watch(&name("gone"), false).unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    files.sweep(exists, hour).unwrap();
    assert_eq!(listed(folder.path()), ["here.openfaas-fn.1"]);
    assert!(files.watch(&name("gone"), false).is_none());
    follower.borrow_and_update();
    assert!(follower.changed().await.is_err());
}
