//! Rot: what is read is what was written, or it is noticed and harms nothing else.

use futures_util::FutureExt;

use super::*;

fn with_database(
    disk: &SimulatedDisk,
    work: impl FnOnce(&runtime_store::Transaction) -> runtime_store::Result<()>,
) {
    let database = Database::open(Arc::new(disk.clone()), open::FILE, 8 << 20).unwrap();
    database.write(work).unwrap();
    database.close().unwrap();
}

/// Three calls: one that waits to be tried again, one with a large body, one that is fresh.
async fn three_calls(disk: &SimulatedDisk, clock: &TestClock) -> [EntryId; 3] {
    let queue = open_on(disk, clock, SMALL).unwrap();
    let first = queue.push(call("a", "first", "first")).await.unwrap().id;
    take_one(&queue).await.settle(outcome(Then::RetryAt(clock.now()), 500)).await.unwrap();
    let second = queue.push(call("a", "second", vec![2; 70_000])).await.unwrap().id;
    let third = queue.push(call("a", "third", "third")).await.unwrap().id;
    queue.close().await.unwrap();
    [first, second, third]
}

/// The call is set aside and reported, and the others run.
async fn only_this_one_is_lost(disk: &SimulatedDisk, clock: &TestClock, lost: EntryId, ids: [EntryId; 3]) {
    let queue = open_on(disk, clock, SMALL).unwrap();
    for id in ids.into_iter().filter(|id| *id != lost) {
        let delivery = take_one(&queue).await;
        assert_eq!(delivery.id, id);
        delivery.settle(outcome(Then::Succeeded, 200)).await.unwrap();
    }
    let mut next = queue.next(1, room(1));
    assert!(suite::waits(&queue, &mut next).await);
    assert_eq!(queue.damaged(Page::first(10)).await.unwrap(), [lost]);
    let counts = queue.counts().await.unwrap().remove(0);
    assert_eq!((counts.queued, counts.running, counts.waiting, counts.succeeded), (0, 0, 0, 2));
    assert_eq!(queue.purge(&function("a"), Which::One(lost)).await.unwrap(), 1);
    assert!(queue.damaged(Page::first(10)).await.unwrap().is_empty());
    queue.close().await.unwrap();
    nothing_leads_to(disk, lost);
}

fn nothing_leads_to(disk: &SimulatedDisk, id: EntryId) {
    let database = Database::open(Arc::new(disk.clone()), open::FILE, 8 << 20).unwrap();
    let left = database.read(|snapshot| {
        let call_ids = snapshot.open(tables::CALL_IDS)?.range(..)?.collect::<Result<Vec<_>, _>>()?;
        Ok(call_ids)
    });
    let call_ids = left.unwrap();
    assert_eq!(call_ids.len(), 2, "those that ended are still visible");
    assert!(call_ids.iter().all(|(key, _)| !key.ends_with(&id.0.to_be_bytes())));
    drop(open_on(disk, &TestClock::new(), SMALL).unwrap());
    assert!(disk.names().unwrap().iter().all(|name| !name.ends_with(".body")));
}

#[tokio::test]
async fn a_damaged_call_is_set_aside() {
    for broken in 0..3 {
        let (disk, clock) = (SimulatedDisk::default(), TestClock::new());
        let ids = three_calls(&disk, &clock).await;
        let lost = ids[broken];
        let key = lost.0.to_be_bytes();
        with_database(&disk, |transaction| {
            let mut calls = transaction.open(tables::CALLS)?;
            let mut record = calls.get(&key)?.unwrap().bytes().to_vec();
            *record.last_mut().unwrap() ^= 1;
            calls.insert(&key, &record).map(|_| ())
        });
        only_this_one_is_lost(&disk, &clock, lost, ids).await;
    }
}

#[tokio::test]
async fn a_record_in_another_place_is_not_taken_for_that_ones() {
    let (disk, clock) = (SimulatedDisk::default(), TestClock::new());
    let ids = three_calls(&disk, &clock).await;
    with_database(&disk, |transaction| {
        let mut calls = transaction.open(tables::CALLS)?;
        let other = calls.get(&ids[2].0.to_be_bytes())?.unwrap().bytes().to_vec();
        calls.insert(&ids[0].0.to_be_bytes(), &other).map(|_| ())
    });
    only_this_one_is_lost(&disk, &clock, ids[0], ids).await;
}

#[tokio::test]
async fn a_call_whose_attempts_cannot_be_told_does_not_run() {
    let (disk, clock) = (SimulatedDisk::default(), TestClock::new());
    let ids = three_calls(&disk, &clock).await;
    with_database(&disk, |transaction| {
        let mut retries = transaction.open(tables::RETRIES)?;
        let (key, mut record) = retries.first(..)?.unwrap();
        record[30] ^= 1;
        retries.insert(&key, &record).map(|_| ())
    });
    only_this_one_is_lost(&disk, &clock, ids[0], ids).await;
}

#[tokio::test]
async fn a_damaged_or_missing_body_is_noticed_before_the_call_runs() {
    for missing in [false, true] {
        let (disk, clock) = (SimulatedDisk::default(), TestClock::new());
        let ids = three_calls(&disk, &clock).await;
        let file = disk.names().unwrap().into_iter().find(|name| name.ends_with(".body")).unwrap();
        if missing {
            disk.remove(&file).unwrap();
        } else {
            disk.flip_bit(&file, 8 * 69_999);
        }
        only_this_one_is_lost(&disk, &clock, ids[1], ids).await;
    }
}

/// A queue of 30 calls, and its disk.
async fn thirty_calls(clock: &TestClock) -> SimulatedDisk {
    let disk = SimulatedDisk::default();
    let queue = open_on(&disk, clock, SMALL).unwrap();
    for number in 0..30u8 {
        queue.push(call("a", &format!("call{number}"), vec![number; 300])).await.unwrap();
    }
    queue.close().await.unwrap();
    disk
}

async fn all_thirty_run(queue: &Arc<dyn Queue>, page: usize) {
    let mut left = 30;
    while left > 0 {
        let mut taking = Box::pin(take(queue, 30));
        let mut taken = (&mut taking).now_or_never();
        if taken.is_none() {
            suite::settle_down(queue).await;
            taken = taking.now_or_never();
        }
        for mut delivery in taken.unwrap_or_else(|| panic!("page {page}: {left} calls are lost")) {
            let number = u8::try_from(30 - left).unwrap();
            assert_eq!(delivery.call_id.as_str(), format!("call{number}"), "page {page}");
            assert_eq!(body(&mut delivery).await, vec![number; 300], "page {page}");
            delivery.settle(outcome(Then::Succeeded, 200)).await.unwrap();
            left -= 1;
        }
    }
}

/// Copies of a disk with one bit of the file turned, some in each page, with the page.
fn rotten(original: &SimulatedDisk, of_each: usize) -> impl Iterator<Item = (usize, SimulatedDisk)> {
    let pages = original.content(open::FILE).unwrap().len() / 4096;
    let mut dice = Dice::new(3);
    (0..pages * of_each).map(move |flip| {
        let (page, rotten) = (flip / of_each, original.copy());
        rotten.flip_bit(open::FILE, page * 4096 * 8 + usize::try_from(dice.below(4096 * 8)).unwrap());
        (page, rotten)
    })
}

/// Each bit of rot in the file stops the queue from opening, or hits nothing of ours.
#[tokio::test]
async fn rot_in_the_file_is_noticed_or_harmless() {
    let (clock, mut noticed) = (TestClock::new(), 0);
    for (page, disk) in rotten(&thirty_calls(&clock).await, 8) {
        match open_on(&disk, &clock, SMALL) {
            Ok(queue) => all_thirty_run(&queue, page).await,
            Err(_) => noticed += 1,
        }
    }
    assert!(noticed > 5, "only {noticed} flips matter");
}

/// The same where the file is too large to be checked before it is used: then the queue ends, and does not open again.
#[tokio::test]
async fn rot_in_a_large_file_is_noticed_beside_the_work_or_harmless() {
    let (clock, mut noticed) = (TestClock::new(), 0);
    let settings = Settings { check_at_once_bytes: 0, ..SMALL };
    for (page, disk) in rotten(&thirty_calls(&clock).await, 8) {
        let open = || Embedded::open_on(Arc::new(disk.clone()), Sealer::of([7; 32]), settings, clock.clock());
        let Ok(queue) = open() else {
            noticed += 1;
            continue;
        };
        queue.shared.checking.subscribe().wait_for(|checking| !checking).await.unwrap();
        if queue.shared.failure.borrow().is_none() {
            all_thirty_run(&(Arc::new(queue) as Arc<dyn Queue>), page).await;
            continue;
        }
        drop(queue);
        let again = open().unwrap_err();
        assert!(matches!(again, Error::Unusable(_)), "page {page}: {again:?}");
        noticed += 1;
    }
    assert!(noticed > 5, "only {noticed} flips matter");
}

/// What is written while a file is checked has no part in it, and is not kept from being written.
#[tokio::test]
async fn a_sound_file_is_found_sound_while_it_changes() {
    let clock = TestClock::new();
    let disk = thirty_calls(&clock).await;
    let settings = Settings { check_at_once_bytes: 0, ..SMALL };
    let (shared, check) =
        Shared::open(Arc::new(disk.clone()), Sealer::of([7; 32]), settings, clock.clock()).unwrap();
    for part in 0..200u8 {
        let change = |transaction: &runtime_store::Transaction| {
            let (mut calls, mut ready) = (transaction.open(tables::CALLS)?, transaction.open(tables::READY)?);
            for number in 0..30u8 {
                calls.insert(&[number], &[part; 700])?;
                ready.remove(&tables::pair(0, number.into()))?;
            }
            Ok(())
        };
        shared.database.write(change).unwrap();
    }
    check.unwrap().run().unwrap();
    shared.database.close().unwrap();
    drop(shared);
    Database::open(Arc::new(disk), open::FILE, 8 << 20).unwrap();
}
