use std::collections::HashSet;

use futures_util::StreamExt;
use runtime_api::LogLine;
use runtime_wasm::LogEvent;
use tempfile::TempDir;

use super::*;

const STYLE: LogStyle = LogStyle { prefix: false, call_id: false };

struct Kept {
    folder: TempDir,
    logs: Logs,
}

impl Kept {
    fn new() -> Self {
        Self::with(LogLimits::default())
    }

    fn with(limits: LogLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::start(&folder.path().join("logs"), limits, "0123abcd").unwrap();
        Self { folder, logs }
    }

    /// The next node on the same disk.
    async fn restart(self, limits: LogLimits, node: &str) -> Self {
        self.logs.close().await;
        let logs = Logs::start(&self.folder.path().join("logs"), limits, node).unwrap();
        Self { folder: self.folder, logs }
    }

    fn writes(&self, function: &str) -> Arc<FunctionLog> {
        self.logs.of(&name(function), STYLE)
    }

    async fn texts(&self, query: LogQuery) -> Vec<String> {
        texts(self.logs.read(query, false).await.unwrap()).await
    }
}

fn name(function: &str) -> FunctionName {
    FunctionName::parse(function).unwrap()
}

fn query(function: &str) -> LogQuery {
    LogQuery { function: name(function), instance: String::new(), tail: None, since: None, follow: false }
}

fn say(log: &Arc<FunctionLog>, text: impl Into<String>) {
    log.push(LogEvent::Line { stream: "stdout", text: text.into() });
}

async fn texts(lines: LogStream) -> Vec<String> {
    lines.map(|line| line.unwrap().text).collect().await
}

async fn next(lines: &mut LogStream) -> LogLine {
    lines.next().await.unwrap().unwrap()
}

#[tokio::test]
async fn what_was_left_is_read_at_once_and_after_a_restart() {
    let kept = Kept::new();
    let log = kept.writes("f");
    for text in ["one", "two", "three"] {
        say(&log, text);
    }
    let mut lines = kept.logs.read(query("f"), false).await.unwrap();
    let LogLine { name, namespace, instance, text, timestamp } = next(&mut lines).await;
    assert_eq!((&*name, &*namespace, &*instance), ("f", "openfaas-fn", "f-0123abcd"));
    assert_eq!(text, "one");
    assert!(timestamp <= Timestamp::now());
    assert_eq!(texts(lines).await, ["two", "three"]);

    say(&log, "the last words");
    let kept = kept.restart(LogLimits::default(), "other").await;
    say(&kept.writes("f"), "more");
    assert_eq!(kept.texts(query("f")).await, ["one", "two", "three", "the last words", "more"]);
    let of = |instance: &str| LogQuery { instance: instance.into(), ..query("f") };
    assert_eq!(kept.texts(of("f-other")).await, ["more"]);
    assert_eq!(kept.texts(of("f")).await, [""; 0]);
}

#[tokio::test]
async fn tail_and_since_choose_lines() {
    let kept = Kept::new();
    let log = kept.writes("f");
    let minutes = |minutes: u64| std::time::Instant::now() - Duration::from_secs(minutes * 60);
    for (at, text) in [(minutes(10), "old"), (minutes(4), "newer"), (minutes(0), "newest")] {
        log.push_at(at, LogEvent::Line { stream: "stdout", text: text.into() });
    }
    let ago = |minutes| Some(Timestamp::now() - SignedDuration::from_mins(minutes));
    for (tail, since, expected) in [
        (None, None, &["newer", "newest"][..]),
        (None, ago(60), &["old", "newer", "newest"]),
        (None, ago(1), &["newest"]),
        (Some(2), None, &["newer", "newest"]),
        (Some(100), None, &["old", "newer", "newest"]),
        (Some(1), ago(60), &["newest"]),
        (Some(5), ago(5), &["newer", "newest"]),
    ] {
        assert_eq!(kept.texts(LogQuery { tail, since, ..query("f") }).await, expected, "{tail:?} {since:?}");
        let mut following =
            kept.logs.read(LogQuery { tail, since, follow: true, ..query("f") }, true).await.unwrap();
        for text in expected {
            assert_eq!(next(&mut following).await.text, *text);
        }
    }
}

#[tokio::test]
async fn who_follows_sees_each_line_once_as_it_comes() {
    let kept = Kept::new();
    let mut following = kept.logs.read(LogQuery { follow: true, ..query("f") }, true).await.unwrap();
    let log = kept.writes("f");
    for number in 0..200 {
        say(&log, number.to_string());
        assert_eq!(next(&mut following).await.text, number.to_string());
    }
    // Also from one segment to the next, and to one that it was behind by.
    let text = "x".repeat(4000);
    for number in 0..1000 {
        say(&log, format!("{number} {text}"));
        let seen = next(&mut following).await.text;
        assert!(seen.starts_with(&format!("{number} ")), "{number}: {}", &seen[..20]);
    }
    kept.logs.end_readers();
    assert!(following.next().await.is_none());
}

#[tokio::test]
async fn who_reads_too_slowly_misses_lines_and_is_told() {
    let limits = LogLimits { function_bytes: LogLimits::MIN_FUNCTION_BYTES, ..LogLimits::default() };
    let kept = Kept::with(limits);
    let log = kept.writes("f");
    say(&log, "first");
    let mut following = kept.logs.read(LogQuery { follow: true, ..query("f") }, true).await.unwrap();
    assert_eq!(next(&mut following).await.text, "first");
    for _ in 0..10 {
        (0..10).for_each(|_| say(&log, "x".repeat(4000)));
        kept.logs.settle().await;
    }
    say(&log, "last");
    let (mut missed, mut seen) = (0, 0);
    loop {
        match &*next(&mut following).await.text {
            "last" => break,
            text if text.starts_with('x') => seen += 1,
            text => {
                assert!(text.starts_with("lines were dropped here"), "{text}");
                missed += 1;
            }
        }
    }
    assert!(missed == 1 && (10..100).contains(&seen), "{missed} {seen}");
}

#[tokio::test]
async fn a_flood_costs_no_neighbour_a_line() {
    let kept = Kept::new();
    let (loud, quiet) = (kept.writes("loud"), kept.writes("quiet"));
    let flooding = CancellationToken::new();
    let flood = {
        let (loud, flooding) = (loud.clone(), flooding.clone());
        thread::spawn(move || {
            while !flooding.is_cancelled() {
                (0..1000).for_each(|_| say(&loud, "x".repeat(1000)));
            }
        })
    };
    let mut following = kept.logs.read(LogQuery { follow: true, ..query("quiet") }, true).await.unwrap();
    for number in 0..100 {
        say(&quiet, number.to_string());
        assert_eq!(next(&mut following).await.text, number.to_string());
    }
    flooding.cancel();
    flood.join().unwrap();
    let lines = kept.texts(query("loud")).await;
    // Those for which there was no room are told at once, those beyond its rate where the gap begins.
    let told = [" lines were dropped: ", "lines are left out from here"];
    assert!(lines.iter().any(|line| told.iter().any(|told| line.contains(told))), "{}", lines.len());
    let on_disk: u64 = std::fs::read_dir(kept.folder.path().join("logs"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(on_disk <= LogLimits::default().function_bytes + 100_000, "{on_disk}");
}

#[tokio::test]
async fn who_writes_too_fast_loses_lines_and_the_log_says_where() {
    let kept = Kept::new();
    let (log, began) = (kept.writes("f"), std::time::Instant::now());
    for _ in 0..60 {
        (0..50).for_each(|_| say(&log, "x".repeat(1000)));
        kept.logs.settle().await;
    }
    say(&kept.writes("quiet"), "not too fast");
    let lines = kept.texts(query("f")).await;
    let seconds = 1 + usize::try_from(began.elapsed().as_secs()).unwrap();
    let written = lines.iter().map(String::len).sum::<usize>();
    let rate = rates::BYTES_PER_SECOND as usize;
    assert!((rate..(4 + seconds) * rate).contains(&written), "{written} bytes in {seconds} s");
    let gaps = lines.iter().filter(|line| line.ends_with("were written for some seconds")).count();
    assert!((1..=seconds).contains(&gaps), "{gaps} in {seconds} s");
    assert_eq!(kept.texts(query("quiet")).await, ["not too fast"]);
}

#[tokio::test]
async fn readers_are_bounded_and_give_their_places_back() {
    let kept = Kept::new();
    let follow = || kept.logs.read(LogQuery { follow: true, ..query("f") }, true);
    let mut readers = Vec::new();
    for _ in 0..MAX_READERS {
        readers.push(follow().await.unwrap());
    }
    assert!(matches!(follow().await.err(), Some(Error::Overloaded { .. })));
    readers.pop();
    drop(follow().await.unwrap());
}

#[tokio::test]
async fn a_log_that_is_not_there_is_told_from_one_that_is_empty() {
    let kept = Kept::new();
    assert!(matches!(kept.logs.read(query("f"), false).await.err(), Some(Error::NotFound(_))));
    assert_eq!(texts(kept.logs.read(query("f"), true).await.unwrap()).await, [""; 0]);
}

#[tokio::test]
async fn a_log_that_is_removed_ends_for_who_follows_it() {
    let kept = Kept::new();
    say(&kept.writes("f"), "old");
    let mut following = kept.logs.read(LogQuery { follow: true, ..query("f") }, true).await.unwrap();
    assert_eq!(next(&mut following).await.text, "old");
    kept.logs.remove(&name("f"));
    assert!(following.next().await.is_none());
    say(&kept.writes("f"), "new");
    assert_eq!(kept.texts(query("f")).await, ["new"]);
}

#[tokio::test]
async fn calls_of_a_function_that_is_gone_write_its_log_and_never_the_next_one_s() {
    let kept = Kept::new();
    let old = kept.writes("f");
    kept.logs.retire(&name("f"));
    let new = kept.writes("f");
    say(&old, "still mine");
    assert_eq!(kept.texts(query("f")).await, ["still mine"]);
    // This one may be waiting when the log goes.
    say(&old, "too late");
    kept.logs.remove(&name("f"));
    say(&old, "later");
    say(&new, "new");
    assert_eq!(kept.texts(query("f")).await, ["new"]);
    kept.logs.retire(&name("f"));
    kept.logs.remove_namespace("openfaas-fn");
    assert!(matches!(kept.logs.read(query("f"), false).await.err(), Some(Error::NotFound(_))));
    say(&new, "too late");
    assert!(matches!(kept.logs.read(query("f"), false).await.err(), Some(Error::NotFound(_))));
}

#[tokio::test]
async fn a_segment_that_vanishes_is_told_and_leaves_a_tail_its_length() {
    let limits = LogLimits { function_bytes: LogLimits::MIN_FUNCTION_BYTES, ..LogLimits::default() };
    let kept = Kept::with(limits);
    let log = kept.writes("f");
    for number in 0..30 {
        say(&log, format!("{number} {}", "x".repeat(4000)));
        kept.logs.settle().await;
    }
    let tailing = |tail| LogQuery { tail: Some(tail), ..query("f") };
    let all = kept.logs.read(tailing(u64::MAX), false).await.unwrap();
    let some = kept.logs.read(tailing(5), false).await.unwrap();
    // Before the file is opened, and behind the back of whoever tells where the log begins.
    std::fs::remove_file(kept.folder.path().join("logs/f.openfaas-fn.1")).unwrap();
    let all = texts(all).await;
    assert!(all[0].starts_with("lines were dropped here") && all.len() > 5, "{}", all.len());
    let some = texts(some).await;
    let numbers: Vec<&str> = some.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(numbers, ["25", "26", "27", "28", "29"]);
}

#[tokio::test(start_paused = true)]
#[expect(clippy::await_holding_lock, reason = "as one holds it whom the disk keeps waiting")]
async fn a_disk_that_hangs_keeps_nobody_waiting_for_long() {
    let kept = Kept::new();
    let log = kept.writes("f");
    let hold = lock(&kept.logs.files);
    say(&log, "waits");
    let waiting = async {
        let read = kept.logs.read(query("f"), true).await;
        kept.logs.close().await;
        read.err()
    };
    let passing = async {
        loop {
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    };
    let error = tokio::select! {
        error = waiting => error,
        () = passing => None,
    };
    drop(hold);
    assert!(matches!(error, Some(Error::Unavailable { .. })), "{error:?}");
}

#[tokio::test]
async fn a_full_disk_loses_lines_and_nothing_else() {
    let kept = Kept::new();
    let log = kept.writes("f");
    say(&log, "before");
    kept.logs.settle().await;
    let folder = kept.folder.path().join("logs");
    std::fs::rename(&folder, kept.folder.path().join("away")).unwrap();
    say(&log, "lost");
    kept.logs.settle().await;
    std::fs::rename(kept.folder.path().join("away"), &folder).unwrap();
    say(&log, "after");
    assert_eq!(kept.texts(query("f")).await, ["before", "after"]);
}

#[tokio::test]
async fn many_write_at_once_and_no_line_is_lost_or_mixed_up() {
    const LINES: usize = 500;
    let kept = Kept::new();
    thread::scope(|scope| {
        for writer in 0..4 {
            let log = kept.writes("f");
            scope.spawn(move || (0..LINES).for_each(|line| say(&log, format!("{writer} {line}"))));
        }
    });
    let lines = kept.texts(query("f")).await;
    assert_eq!(lines.len(), 4 * LINES);
    assert_eq!(lines.into_iter().collect::<HashSet<_>>().len(), 4 * LINES);
}
