//! What a call leaves in its instance, however much it is and however the call ends, is not there for the next.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http_body_util::BodyExt;
use runtime_api::{Error, Invocation, full};
use runtime_testing::guests::{HTTP_VAULT, VAULT};
use runtime_wasm::InstancePool;

use crate::bench::{Bench, invocation};

/// As many pairs of calls as it takes for each way of leaving things to meet each guest many times.
const PAIRS: u32 = 50_000;

/// A page of the machine, the unit in which memory is reset.
const PAGE: u32 = 4096;
const MIB: u32 = 1 << 20;

/// What a guest is told to do (`vault.wat`).
#[derive(Clone, Copy, Debug)]
enum Order {
    Look,
    Leave,
    LeaveAndTrap,
    LeaveAndLoop,
    LeaveAndLook,
}

/// What a guest leaves: the pages and elements that it grows by, and `run` bytes in every `step`.
#[derive(Clone, Copy, Debug)]
struct Leftover {
    pages: u32,
    elements: u32,
    step: u32,
    run: u32,
    byte: u32,
}

const fn leftover(pages: u32, elements: u32, step: u32, run: u32, byte: u32) -> Leftover {
    Leftover { pages, elements, step, run, byte }
}

/// Most calls leave little.
const SMALL: [Leftover; 9] = [
    leftover(0, 0, PAGE, PAGE, 0x5e),
    leftover(0, 1, 16 * PAGE, 1, 0x5e),
    leftover(1, 20, 2 * PAGE, 64, 0x5e),
    // Pages that were written and hold zeroes.
    leftover(2, 0, PAGE, PAGE, 0),
    // More separate ranges than the machine may be asked about at once.
    leftover(3, 500, 2 * PAGE, 1, 0x5e),
    leftover(4, 600, PAGE, PAGE, 0x5e),
    leftover(0, 9000, 64, 1, 0x5e),
    // As much as may be written over rather than given back, and a page more.
    leftover(0, 0, 64 * MIB, MIB / 8, 0x5e),
    leftover(0, 0, 64 * MIB, MIB / 8 + PAGE, 0x5e),
];

/// Around what a pool may look at: 1/2 MiB, 1 MiB, a page more, and in patches.
const MIDDLE: [Leftover; 6] = [
    leftover(12, 0, 64 * MIB, MIB / 2, 0x5e),
    leftover(20, 0, 64 * MIB, MIB, 0x5e),
    leftover(20, 9000, 64 * MIB, MIB + PAGE, 0x5e),
    leftover(20, 0, 2 * PAGE, PAGE, 0x5e),
    leftover(28, 0, 3 * PAGE, 1, 0x5e),
    leftover(20, 20, 64 * MIB, MIB + PAGE, 0),
];

const LARGE: [Leftover; 3] = [
    leftover(60, 0, PAGE, PAGE, 0x5e),
    leftover(60, 0, 2 * PAGE, 1, 0x5e),
    leftover(60, 40_000, 64 * MIB, 2 * MIB, 0x5e),
];

const HUGE: [Leftover; 2] = [leftover(1020, 0, PAGE, PAGE, 0x5e), leftover(1020, 0, 8 * PAGE, 1, 0x5e)];

fn pick(turn: u32) -> Leftover {
    let of = |kinds: &[Leftover], nth: u32| kinds[nth as usize % kinds.len()];
    match turn {
        _ if turn % 5000 == 4999 => of(&HUGE, turn / 5000),
        _ if turn % 499 == 498 => of(&LARGE, turn / 499),
        _ if turn % 23 == 22 => of(&MIDDLE, turn / 23),
        _ => of(&SMALL, turn),
    }
}

fn told(order: Order, leftover: Leftover) -> Invocation {
    let Leftover { pages, elements, step, run, byte } = leftover;
    let numbers = [order as u32, pages, elements, step, run, byte];
    invocation(full(numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>()))
}

/// What the guest found: 0 if its instance was new.
async fn finding(pool: &Arc<InstancePool>, order: Order, leftover: Leftover) -> u64 {
    let response = pool.invoke(told(order, leftover), u64::MAX).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    u64::from_le_bytes(body[..].try_into().unwrap())
}

/// Leaves it in one of several ways to end.
async fn leave(pool: &Arc<InstancePool>, turn: u32, leftover: Leftover) {
    match turn {
        _ if turn % 97 == 96 => {
            let answer = pool.invoke(told(Order::LeaveAndTrap, leftover), u64::MAX).await;
            assert!(answer.is_err() || answer.unwrap().status() == 500);
        }
        _ if turn % 997 == 996 => {
            let mut late = told(Order::LeaveAndLoop, leftover);
            late.request.headers_mut().insert("x-timeout", "5ms".parse().unwrap());
            match pool.invoke(late, u64::MAX).await {
                Ok(answer) => assert!(matches!(answer.status().as_u16(), 408 | 504)),
                // It was late before it had a slot.
                Err(error) => assert!(matches!(error, Error::Overloaded { .. }), "{error:?}"),
            }
        }
        _ if turn % 991 == 990 => {
            let endless = pool.invoke(told(Order::LeaveAndLoop, leftover), u64::MAX);
            tokio::time::timeout(Duration::from_millis(2), endless).await.expect_err("cancelled");
        }
        _ => assert_eq!(finding(pool, Order::Leave, leftover).await, 0),
    }
}

/// One guest leaves and one looks, in turns, so that each comes after each, and after itself.
async fn take_turns(guests: &[Arc<InstancePool>], turns: Range<u32>) {
    let of = |turn: u32| &guests[turn as usize % guests.len()];
    for turn in turns {
        let (leftover, writer) = (pick(turn), turn / 7);
        leave(of(writer), turn, leftover).await;
        let found = finding(of(writer + turn % 3), Order::Look, leftover).await;
        let (what, place) = (found >> 32, found as u32);
        assert_eq!(found, 0, "turn {turn}: {what} (see vault.wat) at {place} after {leftover:?}");
    }
}

/// The guest as a command twice, with different digests, and as a component.
async fn vaults(bench: &Bench) -> Vec<Arc<InstancePool>> {
    let other = VAULT.replace("0x5ec4e75ec4e7", "0x5ec4e75ec4e8");
    let mut guests = Vec::new();
    for guest in [VAULT, &other, HTTP_VAULT] {
        guests.push(bench.pool(guest).await);
    }
    guests
}

#[tokio::test]
async fn a_guest_that_looks_at_its_own_leftovers_finds_them() {
    let bench = Bench::with_slots(2);
    for guest in vaults(&bench).await {
        let sizes = finding(&guest, Order::LeaveAndLook, leftover(1, 0, PAGE, PAGE, 0x5e)).await;
        assert_eq!(sizes >> 32, 7, "a size");
        let memory = finding(&guest, Order::LeaveAndLook, leftover(0, 0, 2 * PAGE, 1, 0x5e)).await;
        assert_eq!(memory >> 32, 1, "memory");
        let globals = finding(&guest, Order::LeaveAndLook, leftover(0, 0, PAGE, PAGE, 0)).await;
        assert_eq!(globals >> 32, 2, "data");
    }
}

#[tokio::test]
async fn a_slot_that_one_call_used_is_new_for_the_next() {
    let bench = Bench::with(|config| config.slots = 1);
    take_turns(&vaults(&bench).await, 0..PAIRS / 2).await;
    assert_eq!((bench.engine.slots_in_use(), bench.engine.memory_in_use_bytes()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_calls_use_in_parallel_are_new_for_each() {
    take_turns_in_parallel().await;
}

/// Linux moves pages of its own accord, when it compacts memory or balances it between nodes. Whoever asks it for the
/// pages that were written (`PAGEMAP_SCAN`) may miss one that is on its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "makes the machine move its memory for half a minute; needs root"]
async fn slots_are_new_while_the_machine_moves_its_memory() {
    let over = Arc::new(AtomicBool::new(false));
    let moving = std::thread::spawn({
        let over = over.clone();
        move || move_memory(&over)
    });
    take_turns_in_parallel().await;
    over.store(true, Relaxed);
    moving.join().unwrap();
}

/// Leaves holes in memory, and makes Linux close them (`vm.compact_memory`).
fn move_memory(over: &AtomicBool) {
    while !over.load(Relaxed) {
        let mut all: Vec<_> = (0..2000).map(|_| Some(vec![1u8; 132 << 10])).collect();
        all.iter_mut().step_by(2).for_each(|one| *one = None);
        std::fs::write("/proc/sys/vm/compact_memory", "1").expect("this user may compact memory");
    }
}

/// More callers than slots.
async fn take_turns_in_parallel() {
    let bench = Bench::with(|config| config.slots = 3);
    let guests = vaults(&bench).await;
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let guests = guests.clone();
            let share = PAIRS / 8;
            tokio::spawn(async move { take_turns(&guests, caller * share..(caller + 1) * share).await })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!((bench.engine.slots_in_use(), bench.engine.memory_in_use_bytes()), (0, 0));
}
