use std::{
    collections::BTreeMap,
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

use futures_util::future::join_all;

use super::*;
use crate::{
    Disk, Opening,
    database::Backend,
    simulated_disk::{Dice, SimulatedDisk, SyncKind},
};

const SPECS: &str = "specs";
const SECRETS: &str = "secrets";
const PLENTY: u64 = 1 << 40;

fn open(disk: &SimulatedDisk) -> Result<Store> {
    open_with_space(disk, PLENTY)
}

fn open_with_space(disk: &SimulatedDisk, free_bytes: u64) -> Result<Store> {
    let sealer = Sealer::of([7; 32]);
    Store::open_on(backend(disk), Path::new("/simulated/meta.redb"), sealer, Box::new(move || Ok(free_bytes)))
}

/// The store's file, whose name is durable.
fn backend(disk: &SimulatedDisk) -> Backend {
    if disk.content(DATABASE_FILE).is_none() {
        disk.open(DATABASE_FILE, Opening::New).unwrap();
        disk.sync_names().unwrap();
    }
    Backend::new(disk.open(DATABASE_FILE, Opening::Existing).unwrap())
}

#[tokio::test]
async fn keeps_what_it_was_given_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    assert!(!Store::exists(folder.path()));
    let store = Store::open(folder.path()).unwrap();
    assert!(Store::exists(folder.path()));
    store.put(SPECS, "b", b"2".to_vec()).await.unwrap();
    store.put(SPECS, "a", b"1".to_vec()).await.unwrap();
    store.put(SECRETS, "a", b"other table".to_vec()).await.unwrap();
    store.close().await.unwrap();

    let store = Store::open(folder.path()).unwrap();
    assert_eq!(intact(&store).unwrap(), [("a".into(), b"1".to_vec()), ("b".into(), b"2".to_vec())]);
    assert_eq!(store.get(SECRETS, "a").unwrap().unwrap(), b"other table");
    assert_eq!(store.get("never used", "a").unwrap(), None);
    assert!(store.list("never used").unwrap().is_empty());

    assert!(store.remove(SPECS, "a").await.unwrap());
    assert!(!store.remove(SPECS, "a").await.unwrap());
    drop(store);
    assert_eq!(Store::open(folder.path()).unwrap().get(SPECS, "a").unwrap(), None);
}

#[tokio::test]
async fn its_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let _store = Store::open(folder.path()).unwrap();
    for file in [DATABASE_FILE, KEY_FILE] {
        let mode = fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_second_open_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _store = Store::open(folder.path()).unwrap();
    let error = Store::open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("another process has it open"), "{error}");
}

#[tokio::test]
async fn a_closed_store_says_so_to_its_other_holders() {
    let disk = SimulatedDisk::default();
    let store = open(&disk).unwrap();
    let other = store.clone();
    store.close().await.unwrap();

    assert!(matches!(other.get(SPECS, "a"), Err(Error::Closed)));
    assert!(matches!(other.put(SPECS, "a", Vec::new()).await, Err(Error::Closed)));
    assert!(matches!(other.close().await, Err(Error::Closed)));
}

#[tokio::test]
async fn many_changes_share_few_commits() {
    let disk = SimulatedDisk::default();
    let store = open(&disk).unwrap();
    store.put(SPECS, "first", Vec::new()).await.unwrap();
    let before = disk.operations();
    store.put(SPECS, "first", Vec::new()).await.unwrap();
    let alone = disk.operations() - before;

    let keys: Vec<String> = (0..500).map(|number| format!("key{number}")).collect();
    let before = disk.operations();
    for result in join_all(keys.iter().map(|key| store.put(SPECS, key, vec![1; 100]))).await {
        result.unwrap();
    }
    let together = disk.operations() - before;
    assert!(together < 100 * alone, "500 puts took {together} disk operations, one takes {alone}");
    assert_eq!(store.list(SPECS).unwrap().len(), 501);
}

#[tokio::test]
async fn refuses_what_is_too_large_and_goes_on() {
    let store = open(&SimulatedDisk::default()).unwrap();
    let long_key = "k".repeat(MAX_KEY_BYTES + 1);
    assert!(matches!(store.put(SPECS, &long_key, Vec::new()).await, Err(Error::TooLarge { .. })));
    assert!(matches!(store.put(SPECS, "a", vec![0; MAX_VALUE_BYTES + 1]).await, Err(Error::TooLarge { .. })));
    store.put(SPECS, "a", vec![1; MAX_VALUE_BYTES]).await.unwrap();
    assert_eq!(store.get(SPECS, "a").unwrap().unwrap().len(), MAX_VALUE_BYTES);
}

#[tokio::test]
async fn a_damaged_record_is_named_and_can_be_removed() {
    let disk = SimulatedDisk::default();
    let store = open(&disk).unwrap();
    store.put(SPECS, "good", b"good".to_vec()).await.unwrap();
    // A record that the database finds in order, but that was sealed with another key.
    let forged = Sealer::of([8; 32]).seal(SPECS, b"bad", b"forged");
    store.change(SPECS, "bad", Some(forged)).await.unwrap();

    let error = store.get(SPECS, "bad").unwrap_err();
    assert!(matches!(&error, Error::DamagedRecord { key, .. } if key == "bad"), "{error}");
    let [(bad, damaged), (good, value)] = <[_; 2]>::try_from(store.list(SPECS).unwrap()).unwrap();
    assert!(damaged.unwrap_err().to_string().contains("\"bad\""));
    assert_eq!((bad.as_str(), good.as_str(), value.unwrap().as_slice()), ("bad", "good", b"good".as_slice()));
    assert_eq!(store.get(SPECS, "good").unwrap().unwrap(), b"good");

    assert!(store.remove(SPECS, "bad").await.unwrap());
    assert_eq!(store.list(SPECS).unwrap().len(), 1);
}

#[tokio::test]
async fn a_full_disk_refuses_puts_and_still_removes() {
    let disk = SimulatedDisk::default();
    let store = open(&disk).unwrap();
    store.put(SPECS, "a", b"1".to_vec()).await.unwrap();
    store.close().await.unwrap();

    let free = Arc::new(AtomicU64::new(1 << 20));
    let shared = Arc::clone(&free);
    let space: FreeBytes = Box::new(move || Ok(shared.load(Ordering::Relaxed)));
    let store = Store::open_on(backend(&disk), Path::new("/simulated"), Sealer::of([7; 32]), space).unwrap();
    let error = store.put(SPECS, "b", b"2".to_vec()).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert_eq!(store.get(SPECS, "a").unwrap().unwrap(), b"1");
    assert!(store.remove(SPECS, "a").await.unwrap());

    free.store(PLENTY, Ordering::Relaxed);
    store.put(SPECS, "b", b"2".to_vec()).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_fills_under_a_commit_loses_nothing_acknowledged() {
    let disk = SimulatedDisk::default();
    let store = open(&disk).unwrap();
    store.put(SPECS, "a", b"1".to_vec()).await.unwrap();
    disk.leave_room(Some(0));
    assert!(matches!(store.put(SPECS, "b", b"2".to_vec()).await, Err(Error::Stopped(_))));
    drop(store);

    let store = open(&disk.after_power_cut(&mut Dice::new(1))).unwrap();
    assert_eq!(store.get(SPECS, "a").unwrap().unwrap(), b"1");
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged() {
    for number in 1..=8 {
        let disk = SimulatedDisk::default();
        let store = open(&disk).unwrap();
        store.put(SPECS, "kept", b"kept".to_vec()).await.unwrap();
        disk.fail_sync_number(number);

        let mut acknowledged = Vec::new();
        let mut failed = false;
        for attempt in 0..10 {
            let key = format!("key{attempt}");
            match store.put(SPECS, &key, b"value".to_vec()).await {
                Ok(()) => {
                    assert!(!failed, "sync {number}: acknowledged after a failure");
                    acknowledged.push(key);
                }
                Err(error) => {
                    assert!(matches!(error, Error::Stopped(_)), "{error}");
                    failed = true;
                }
            }
        }
        assert!(failed, "sync {number} never came");
        assert!(matches!(store.get(SPECS, "kept"), Err(Error::Stopped(_))));
        assert!(matches!(store.close().await, Err(Error::Stopped(_))));

        let store = open(&disk.after_power_cut(&mut Dice::new(number))).unwrap();
        assert_eq!(store.get(SPECS, "kept").unwrap().unwrap(), b"kept");
        for key in acknowledged {
            assert_eq!(store.get(SPECS, &key).unwrap().unwrap(), b"value", "sync {number}: {key}");
        }
    }
}

/// Each bit of rot either stops the store from opening, or a record from being read, or hits nothing of ours.
#[tokio::test]
async fn rot_is_never_read_as_data() {
    let original = SimulatedDisk::default();
    let store = open(&original).unwrap();
    for number in 0..50 {
        store.put(SPECS, &format!("key{number}"), vec![number; 300]).await.unwrap();
    }
    store.close().await.unwrap();
    let bits = original.content(DATABASE_FILE).unwrap().len() as u64 * 8;

    let mut dice = Dice::new(3);
    let mut noticed = 0;
    for _ in 0..100 {
        let rotten = original.copy();
        // The pages in use lie at the beginning of the file.
        rotten.flip_bit(DATABASE_FILE, usize::try_from(dice.below(bits.min(8 * 128 * 1024))).unwrap());
        let Ok(store) = open(&rotten) else {
            noticed += 1;
            continue;
        };
        match intact(&store) {
            Ok(records) => {
                assert_eq!(records.len(), 50);
                for (key, value) in records {
                    assert_eq!(key, format!("key{}", value[0]));
                    assert_eq!(value, vec![value[0]; 300]);
                }
            }
            Err(_) => noticed += 1,
        }
    }
    assert!(noticed > 0, "the flips hit nothing");
}

type Model = BTreeMap<String, Vec<u8>>;

/// What is acknowledged, and what was asked for when the power went.
struct Workload {
    acknowledged: Model,
    in_flight: Vec<(String, Option<Vec<u8>>)>,
}

impl Workload {
    /// Rounds of puts and removals, several at a time, until the disk refuses.
    async fn run(store: &Store, mut model: Model, dice: &mut Dice) -> Self {
        loop {
            let mut changes = Vec::new();
            for _ in 0..=dice.below(6) {
                let key = format!("key{}", dice.below(40));
                if changes.iter().any(|(taken, _)| *taken == key) {
                    continue;
                }
                let size = usize::try_from(dice.below(3000)).unwrap();
                let fill = u8::try_from(dice.below(256)).unwrap();
                changes.push((key, (dice.below(4) > 0).then(|| vec![fill; size])));
            }
            let results = join_all(changes.iter().map(async |(key, value)| match value {
                Some(value) => store.put(SPECS, key, value.clone()).await,
                None => store.remove(SPECS, key).await.map(|_| ()),
            }))
            .await;
            let mut in_flight = Vec::new();
            for ((key, value), result) in changes.into_iter().zip(results) {
                match (result, value) {
                    (Ok(()), Some(value)) => drop(model.insert(key, value)),
                    (Ok(()), None) => drop(model.remove(&key)),
                    (Err(_), value) => in_flight.push((key, value)),
                }
            }
            if !in_flight.is_empty() {
                return Self { acknowledged: model, in_flight };
            }
        }
    }

    /// Everything acknowledged is there; what was in flight is there as a whole or not at all; and nothing else is.
    fn violations(&self, found: &Model) -> Vec<String> {
        let keys =
            self.acknowledged.keys().chain(found.keys()).chain(self.in_flight.iter().map(|(key, _)| key));
        let allowed = |key: &String| {
            let now = found.get(key);
            now == self.acknowledged.get(key)
                || self.in_flight.iter().any(|(asked, value)| asked == key && now == value.as_ref())
        };
        keys.filter(|key| !allowed(key)).cloned().collect()
    }
}

async fn cut_once(base: &SimulatedDisk, seed: u64, lying: bool) -> Result<Vec<String>> {
    let mut dice = Dice::new(seed);
    let disk = base.copy();
    if lying {
        disk.leave_out(SyncKind::Database);
    }
    let store = open(&disk)?;
    disk.cut_power_after(dice.below(160));
    let before = intact(&store)?.into_iter().collect();
    let workload = Workload::run(&store, before, &mut dice).await;
    drop(store);

    let mut rebooted = disk.after_power_cut(&mut dice);
    if dice.below(4) == 0 {
        // The power goes again while the store is being repaired.
        rebooted.cut_power_after(dice.below(12));
        drop(open(&rebooted));
        rebooted = rebooted.after_power_cut(&mut dice);
    }
    let found = intact(&open(&rebooted)?)?.into_iter().collect();
    Ok(workload.violations(&found))
}

/// Every record, of which none is damaged.
fn intact(store: &Store) -> Result<Vec<(String, Vec<u8>)>> {
    store.list(SPECS)?.into_iter().map(|(key, value)| Ok((key, value?))).collect()
}

async fn base() -> SimulatedDisk {
    let disk = SimulatedDisk::default();
    let store = open(&disk).unwrap();
    for number in 0..20u8 {
        store.put(SPECS, &format!("key{number}"), vec![number; 700]).await.unwrap();
    }
    store.close().await.unwrap();
    disk
}

#[tokio::test]
async fn power_cuts_lose_nothing_acknowledged_and_leave_nothing_half_done() {
    let base = base().await;
    for seed in 0..600 {
        let violations =
            cut_once(&base, seed, false).await.unwrap_or_else(|error| panic!("cut {seed}: {error}"));
        assert!(violations.is_empty(), "cut {seed}: {violations:?}");
    }
}

/// The control: were the simulator blind, the test above would prove nothing.
#[tokio::test]
async fn a_disk_that_lies_about_syncing_is_caught() {
    let base = base().await;
    let mut caught = 0;
    for seed in 0..40 {
        caught += usize::from(
            !matches!(cut_once(&base, seed, true).await, Ok(violations) if violations.is_empty()),
        );
    }
    assert!(caught > 20, "only {caught} of 40 cuts were noticed");
}
