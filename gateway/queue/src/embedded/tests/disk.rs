//! Disks that are full, and disks that fail.

use super::*;

const KIB: usize = 1 << 10;

/// With a reserve, as in earnest, and room for little else besides the margin.
fn with_reserve() -> Settings {
    Settings { reserve_bytes: 1 << 20, ..SMALL }
}

async fn fill(queue: &Arc<dyn Queue>, accepted: &mut Vec<String>) -> Error {
    for number in accepted.len().. {
        match queue.push(call("a", &format!("call{number}"), vec![1; 20 * KIB])).await {
            Ok(_) => accepted.push(format!("call{number}")),
            Err(error) => return error,
        }
    }
    unreachable!("a disk that never fills")
}

#[tokio::test]
async fn a_full_disk_refuses_calls_and_settles_those_it_has() {
    let (disk, clock) = (SimulatedDisk::default(), TestClock::new());
    let queue = open_on(&disk, &clock, with_reserve()).unwrap();
    let mut accepted = Vec::new();
    disk.leave_room(Some(12 << 20));
    let full = fill(&queue, &mut accepted).await;
    assert!(matches!(full, Error::StorageFull), "{full}");
    assert!(accepted.len() > 10, "{}", accepted.len());
    let large = queue.push(call("a", "large", vec![1; 100 * KIB])).await;
    assert!(matches!(large, Err(Error::StorageFull)));

    // Others take what was left: only the reserve is there.
    disk.leave_room(Some(0));
    for call_id in &accepted {
        let mut delivery = take_one(&queue).await;
        assert_eq!(body(&mut delivery).await.len(), 20 * KIB);
        assert_eq!(delivery.call_id.as_str(), call_id);
        delivery.settle(outcome(Then::Succeeded, 200)).await.unwrap();
    }
    assert!(disk.content("reserve").is_none(), "the reserve was not needed");
    assert!(matches!(queue.push(call("a", "late", "")).await, Err(Error::StorageFull)));

    disk.leave_room(None);
    clock.advance(Duration::from_secs(1));
    queue.push(call("a", "again", "")).await.unwrap();
    assert_eq!(disk.content("reserve").map(|content| content.len()), Some(1 << 20));
    assert_eq!(take_one(&queue).await.call_id.as_str(), "again");
}

/// Free space that is told too late: the disk fills under the commit itself.
#[derive(Debug)]
struct Lying(SimulatedDisk);

impl Disk for Lying {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn open(
        &self,
        name: &str,
        how: runtime_store::Opening,
    ) -> std::io::Result<Arc<dyn runtime_store::DiskFile>> {
        self.0.open(name, how)
    }

    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.0.remove(name)
    }

    fn names(&self) -> std::io::Result<Vec<String>> {
        self.0.names()
    }

    fn sync_names(&self) -> std::io::Result<()> {
        self.0.sync_names()
    }

    fn free_bytes(&self) -> std::io::Result<u64> {
        Ok(1 << 40)
    }
}

#[tokio::test]
async fn a_disk_that_fills_under_a_commit_fails_no_more_than_it_must() {
    for room in 0..40 {
        let (disk, clock) = (SimulatedDisk::default(), TestClock::new());
        let lying = Arc::new(Lying(disk.clone()));
        let queue = Embedded::open_on(lying, Sealer::of([7; 32]), with_reserve(), clock.clock()).unwrap();
        let queue: Arc<dyn Queue> = Arc::new(queue);
        for number in 0..5 {
            queue.push(call("a", &format!("call{number}"), vec![2; 20 * KIB])).await.unwrap();
        }
        let running = take(&queue, 5).await;
        // From no room at all on, so that each write of the commit is once the first that does not fit.
        disk.leave_room(Some(room * 4 * KIB));
        let mut results = Vec::new();
        for number in 5..30 {
            results.push(queue.push(call("a", &format!("call{number}"), vec![2; 20 * KIB])).await);
        }
        assert!(results.iter().any(Result::is_err), "with {room} pages nothing was refused");
        for result in &results {
            assert!(matches!(result, Ok(_) | Err(Error::StorageFull)), "with {room} pages: {result:?}");
        }
        for delivery in running {
            delivery.settle(outcome(Then::Succeeded, 200)).await.unwrap();
        }
        disk.leave_room(None);
        clock.advance(Duration::from_secs(1));
        queue.push(call("a", "call99", vec![2; 20 * KIB])).await.unwrap();
        let kept = results.iter().filter(|result| result.is_ok()).count() as u64 + 1;
        queue.close().await.unwrap();
        let queue = open_on(&disk, &clock, with_reserve()).unwrap();
        let counts = queue.counts().await.unwrap().remove(0);
        assert_eq!((counts.queued, counts.running, counts.succeeded), (kept, 0, 5), "with {room} pages");
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged() {
    for number in 1..=40 {
        let (disk, clock) = (SimulatedDisk::default(), TestClock::new());
        let queue = open_on(&disk, &clock, SMALL).unwrap();
        queue.push(call("a", "kept", "kept")).await.unwrap();
        disk.fail_sync_number(number);
        let (mut acknowledged, mut failed) = (vec!["kept".to_owned()], false);
        for attempt in 0..30 {
            let call_id = format!("call{attempt}");
            // Some have a body with a file of its own, whose sync may be the one that fails.
            let size = if attempt % 3 == 0 { 70 * KIB } else { 10 };
            match queue.push(call("a", &call_id, vec![1; size])).await {
                Ok(_) => {
                    assert!(!failed, "sync {number}: acknowledged after a failure");
                    acknowledged.push(call_id);
                }
                Err(error) => {
                    assert!(matches!(error, Error::Stopped(_)), "{error}");
                    failed = true;
                }
            }
        }
        assert!(failed, "sync {number} never came");
        assert!(queue.failed().await.contains("input/output error"));
        assert!(matches!(queue.next(1, room(1)).await, Err(Error::Stopped(_))));
        assert!(matches!(queue.counts().await, Err(Error::Stopped(_))));
        assert!(matches!(queue.close().await, Err(Error::Stopped(_))));
        drop(queue);

        let queue = open_on(&disk.after_power_cut(&mut Dice::new(number)), &clock, SMALL).unwrap();
        for call_id in acknowledged {
            assert_eq!(find(&queue, &call_id).await.len(), 1, "sync {number}: {call_id}");
        }
    }
}

#[tokio::test]
async fn a_failed_sync_of_a_settlement_is_not_acknowledged() {
    let (disk, clock) = (SimulatedDisk::default(), TestClock::new());
    let queue = open_on(&disk, &clock, SMALL).unwrap();
    queue.push(call("a", "x", "")).await.unwrap();
    let delivery = take_one(&queue).await;
    disk.fail_sync_number(1);
    assert!(matches!(delivery.settle(outcome(Then::Succeeded, 200)).await, Err(Error::Stopped(_))));
    drop(queue);
    let queue = open_on(&disk.after_power_cut(&mut Dice::new(1)), &clock, SMALL).unwrap();
    assert_eq!(take_one(&queue).await.attempt, 2);
}

#[tokio::test]
async fn bodies_without_calls_are_swept_at_the_start() {
    let (disk, clock) = (SimulatedDisk::default(), TestClock::new());
    let queue = open_on(&disk, &clock, SMALL).unwrap();
    queue.push(call("a", "large", vec![1; 70 * KIB])).await.unwrap();
    let orphan = format!("{:032x}.body", 7);
    disk.open(&orphan, runtime_store::Opening::New).unwrap();
    disk.open("something else", runtime_store::Opening::New).unwrap();
    queue.close().await.unwrap();
    let queue = open_on(&disk, &clock, SMALL).unwrap();
    assert!(disk.content(&orphan).is_none());
    assert!(disk.content("something else").is_some());
    assert_eq!(body(&mut take_one(&queue).await).await.len(), 70 * KIB);
}

#[tokio::test]
async fn a_file_that_is_mostly_unused_is_compacted() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(Arc::new(SystemDisk::new(folder.path())), "test.redb", 8 << 20).unwrap();
    let value = vec![7; 60 * KIB];
    for change in [true, false] {
        for part in 0..10u8 {
            let work = |transaction: &runtime_store::Transaction| {
                let mut table = transaction.open("table")?;
                for number in 0..100u8 {
                    match change {
                        true => drop(table.insert(&[part, number], &value)?),
                        false => drop(table.remove(&[part, number])?),
                    }
                }
                Ok(())
            };
            database.write(work).unwrap();
        }
    }
    let before = database.len_bytes();
    database.compact().unwrap();
    assert!(database.len_bytes() < before / 4, "{} of {before}", database.len_bytes());
    database.write(|transaction| transaction.open("table")?.insert(b"still", b"works")).unwrap();
}
