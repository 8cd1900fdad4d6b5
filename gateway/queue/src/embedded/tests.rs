use runtime_store::{
    Database,
    simulated_disk::{Dice, SimulatedDisk, SyncKind},
};

use super::*;
use crate::{
    NewCall, State, Then,
    suite::{self, Rig, TestClock, body, call, find, function, outcome, room, take, take_one},
};

mod damage;
mod disk;
mod formats;
mod power;

/// Small, so that thousands of disks can be copied.
const SMALL: Settings = Settings {
    limits: Limits {
        calls_per_function: 10_000,
        bytes_per_function: 1 << 30,
        calls: 20_000,
        bytes: 2 << 30,
        body_bytes: 1 << 20,
        ended_calls: 10_000,
    },
    accepting_bytes: 4 << 20,
    reserve_bytes: 64 << 10,
    cache_bytes: 8 << 20,
    check_at_once_bytes: 64 << 20,
    idle: Duration::from_secs(10),
};

fn open_on(disk: &SimulatedDisk, clock: &TestClock, settings: Settings) -> Result<Arc<dyn Queue>> {
    let queue = Embedded::open_on(Arc::new(disk.clone()), Sealer::of([7; 32]), settings, clock.clock())?;
    Ok(Arc::new(queue))
}

fn simulated() -> Rig {
    let (disk, clock) = (SimulatedDisk::default(), TestClock::new());
    let of_queue = clock.clone();
    Rig { clock, open: Box::new(move || open_on(&disk, &of_queue, SMALL).unwrap()) }
}

#[tokio::test]
async fn does_what_every_engine_must() {
    for (name, story) in suite::stories() {
        eprintln!("{name}");
        story(simulated()).await;
    }
}

#[tokio::test]
async fn does_what_a_model_does() {
    for seed in 0..12 {
        suite::model::run(&simulated(), seed, 150).await;
    }
}

#[tokio::test]
async fn keeps_calls_in_a_directory_over_a_restart() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue");
    let clock = TestClock::new();
    let open = || Embedded::open(&path, Settings::default(), clock.clock());
    let queue = open().unwrap();
    queue.push(call("a", "small", "body")).await.unwrap();
    queue.push(call("a", "large", vec![3; 200_000])).await.unwrap();
    let refused = open().unwrap_err();
    assert!(matches!(refused, Error::Unusable(runtime_store::Error::InUse { .. })), "{refused:?}");
    drop(queue);
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
    }

    let queue: Arc<dyn Queue> = Arc::new(open().unwrap());
    let mut deliveries = take(&queue, 2).await;
    let (mut large, mut small) = (deliveries.pop().unwrap(), deliveries.pop().unwrap());
    assert_eq!((body(&mut small).await, body(&mut large).await), (b"body".to_vec(), vec![3; 200_000]));
    large.settle(outcome(Then::Succeeded, 200)).await.unwrap();
    queue.close().await.unwrap();
    let bodies = std::fs::read_dir(&path)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".body"));
    assert_eq!(bodies.count(), 0);
}

#[tokio::test]
async fn a_full_function_is_refused_and_others_are_not() {
    let limits = Limits { calls_per_function: 3, calls: 5, bytes_per_function: 1 << 20, ..SMALL.limits };
    let queue = open_on(&SimulatedDisk::default(), &TestClock::new(), Settings { limits, ..SMALL }).unwrap();
    for call_id in ["1", "2", "3"] {
        queue.push(call("a", call_id, "")).await.unwrap();
    }
    take_one(&queue).await.settle(outcome(Then::Dead, 500)).await.unwrap();
    let refused = queue.push(call("a", "4", "")).await.unwrap_err();
    assert!(matches!(refused, Error::FunctionFull { calls: 3, dead: 1, .. }), "{refused}");
    queue.push(call("b", "1", "")).await.unwrap();
    queue.push(call("c", "1", "")).await.unwrap();
    assert!(matches!(queue.push(call("d", "1", "")).await, Err(Error::QueueFull)));
    queue.purge(&function("a"), Which::All).await.unwrap();
    queue.push(call("a", "4", "")).await.unwrap();

    let large = |name: &str| queue.push(call(name, "large", vec![0; 1 << 20]));
    assert!(matches!(large("b").await, Err(Error::FunctionFull { .. })));
    let too_large = queue.push(call("b", "larger", vec![0; (1 << 20) + 1])).await;
    assert!(matches!(too_large, Err(Error::TooLarge { what: "the body", .. })));
    let long = NewCall { path_and_query: "x".repeat(65_537), ..call("b", "long", "") };
    assert!(matches!(queue.push(long).await, Err(Error::TooLarge { .. })));
}

#[tokio::test]
async fn only_as_many_ended_calls_are_kept_as_may_be() {
    let limits = Limits { ended_calls: 10, ..SMALL.limits };
    let queue = open_on(&SimulatedDisk::default(), &TestClock::new(), Settings { limits, ..SMALL }).unwrap();
    for number in 0..30 {
        queue.push(call("a", &number.to_string(), "")).await.unwrap();
        take_one(&queue).await.settle(outcome(Then::Succeeded, 200)).await.unwrap();
    }
    assert_eq!(queue.counts().await.unwrap()[0].succeeded, 10);
    assert!(find(&queue, "19").await.is_empty());
    assert_eq!(find(&queue, "20").await[0].state, State::Succeeded);
}

#[tokio::test]
async fn many_pushes_share_few_commits() {
    let (disk, clock) = (SimulatedDisk::default(), TestClock::new());
    let queue = open_on(&disk, &clock, SMALL).unwrap();
    queue.push(call("a", "first", "")).await.unwrap();
    let before = disk.operations();
    queue.push(call("a", "alone", "")).await.unwrap();
    let alone = disk.operations() - before;
    let before = disk.operations();
    let pushes = (0..60).map(|number| queue.push(call("a", &number.to_string(), vec![1; 100])));
    for pushed in join_all(pushes).await {
        pushed.unwrap();
    }
    let together = disk.operations() - before;
    assert!(together < 20 * alone, "60 pushes took {together} disk operations, one takes {alone}");
}

/// What is in memory is there for functions and running calls, and not for those that wait.
#[tokio::test]
async fn memory_does_not_grow_with_the_backlog() {
    let (disk, clock) = (SimulatedDisk::default(), TestClock::new());
    let limits = Limits { calls_per_function: 100_000, calls: 100_000, ..SMALL.limits };
    let settings = Settings { limits, accepting_bytes: 16 << 20, ..SMALL };
    let later = clock.now() + Duration::from_secs(60);
    let queue = open_on(&disk, &clock, settings).unwrap();
    for part in 0..200 {
        let pushes = (0..250).map(|number| {
            let not_before = (number % 2 == 0).then_some(later);
            let call = call(["a", "b"][number % 2], &format!("{part}-{number}"), "body");
            queue.push(NewCall { not_before, idempotency_key: Some(format!("{part}-{number}")), ..call })
        });
        for pushed in join_all(pushes).await {
            pushed.unwrap();
        }
    }
    drop(queue);
    let (shared, _) = Shared::open(Arc::new(disk), Sealer::of([7; 32]), settings, clock.clock()).unwrap();
    let committer = open::prepare(&Arc::new(shared), settings).unwrap();
    // All there is, by name, so that whatever is added has to be counted here.
    let engine::Engine { sealer: _, limits: _, totals: _, functions, held } = committer.engine;
    assert_eq!(functions.live().0, 50_000);
    assert!(functions.entries() + held.len() < 10, "{} entries", functions.entries() + held.len());
}

#[tokio::test]
async fn many_dead_letters_are_replayed_and_purged_part_by_part() {
    let queue = open_on(&SimulatedDisk::default(), &TestClock::new(), SMALL).unwrap();
    for pushed in join_all((0..60).map(|_| queue.push(call("a", "x", "")))).await {
        pushed.unwrap();
    }
    for part in 0..9 {
        for pushed in join_all((0..60).map(|_| queue.push(call("a", &part.to_string(), "")))).await {
            pushed.unwrap();
        }
    }
    let give_up = async || {
        let mut left = 600;
        while left > 0 {
            let taken = take(&queue, 600).await;
            left -= taken.len();
            for settled in
                join_all(taken.into_iter().map(|taken| taken.settle(outcome(Then::Dead, 500)))).await
            {
                settled.unwrap();
            }
        }
    };
    give_up().await;
    assert_eq!(queue.replay(&function("a"), Which::All).await.unwrap(), 600);
    give_up().await;
    assert_eq!(queue.purge(&function("a"), Which::All).await.unwrap(), 600);
    assert!(queue.counts().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_file_that_is_mostly_unused_is_compacted_when_idle() {
    let settings = Settings { idle: Duration::ZERO, ..SMALL };
    let disk = Arc::new(SimulatedDisk::default());
    let queue = Embedded::open_on(disk, Sealer::of([7; 32]), settings, TestClock::new().clock()).unwrap();
    for _ in 0..12 {
        for pushed in join_all((0..60).map(|_| queue.push(call("a", "x", vec![1; 60_000])))).await {
            pushed.unwrap();
        }
    }
    let before = queue.shared.database.len_bytes();
    let mut compacting = queue.shared.compacting.subscribe();
    queue.push(call("a", "stays", "body")).await.unwrap();
    assert_eq!(queue.cancel(&CallId::new("x")).await.unwrap().ended, 720);
    while queue.shared.database.len_bytes() > before / 2 {
        compacting.changed().await.unwrap();
    }
    let queue: Arc<dyn Queue> = Arc::new(queue);
    queue.push(call("a", "new", "")).await.unwrap();
    assert_eq!(take(&queue, 2).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn house_keeping_keeps_callers_waiting_for_half_a_second_at_most() {
    let disk = Arc::new(SimulatedDisk::default());
    let queue = Embedded::open_on(disk, Sealer::of([7; 32]), SMALL, TestClock::new().clock()).unwrap();
    queue.shared.compacting.send_replace(true);
    let start = tokio::time::Instant::now();
    assert!(matches!(queue.push(call("a", "x", "")).await, Err(Error::Busy)));
    assert_eq!(start.elapsed().as_millis() / 100, 5);
    queue.shared.compacting.send_replace(false);
    let places = Arc::clone(&queue.shared.accepting).acquire_many_owned(64).await.unwrap();
    assert!(matches!(queue.push(call("a", "x", "")).await, Err(Error::Busy)));
    drop(places);
}
