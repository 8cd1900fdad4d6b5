//! The tables of a queue, and what their keys look like. Numbers in keys are big-endian, so that they sort.

use runtime_store::{Result, Sealer, Table, Transaction};

use super::{
    codec::Problem,
    records::{Name, Slot},
};

/// id → `Call`, sealed.
pub(super) const CALLS: &str = "calls";
/// function, id → `Slot`: due, and not taken.
pub(super) const READY: &str = "ready";
/// time, id → function, `Slot`: not due yet.
pub(super) const WAITING: &str = "waiting";
/// function, id → `Progress`, sealed: due or waiting, and tried before.
pub(super) const RETRIES: &str = "retries";
/// function, id → `Progress`, sealed.
pub(super) const RUNNING: &str = "running";
/// function, id → `Progress`, sealed.
pub(super) const DEAD: &str = "dead";
/// id → `Ended`, sealed.
pub(super) const ENDED: &str = "ended";
/// time of the end, id → nothing.
pub(super) const EXPIRY: &str = "expiry";
/// block of ids, hash of the call id, id → nothing.
pub(super) const CALL_IDS: &str = "call_ids";
/// function, check value of the caller's key → id.
pub(super) const IDEMPOTENCY: &str = "idempotency";
/// name of a body's file → id.
pub(super) const FILES: &str = "files";
/// function → name and `Counts`, sealed.
pub(super) const FUNCTIONS: &str = "functions";
/// name of a function → its number in this queue.
pub(super) const NUMBERS: &str = "numbers";
/// `STATE` → `Totals`, sealed.
pub(super) const TOTALS: &str = "totals";
/// id → the call's record, as it was found.
pub(super) const DAMAGED: &str = "damaged";

/// The one key of `TOTALS`.
pub(super) const STATE: &[u8] = b"state";

/// All tables, open in one transaction.
pub(super) struct Tables<'t> {
    pub(super) calls: Table<'t>,
    pub(super) ready: Table<'t>,
    pub(super) waiting: Table<'t>,
    pub(super) retries: Table<'t>,
    pub(super) running: Table<'t>,
    pub(super) dead: Table<'t>,
    pub(super) ended: Table<'t>,
    pub(super) expiry: Table<'t>,
    pub(super) call_ids: Table<'t>,
    pub(super) idempotency: Table<'t>,
    pub(super) files: Table<'t>,
    pub(super) functions: Table<'t>,
    pub(super) numbers: Table<'t>,
    pub(super) totals: Table<'t>,
    pub(super) damaged: Table<'t>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t Transaction) -> Result<Self> {
        Ok(Self {
            calls: transaction.open(CALLS)?,
            ready: transaction.open(READY)?,
            waiting: transaction.open(WAITING)?,
            retries: transaction.open(RETRIES)?,
            running: transaction.open(RUNNING)?,
            dead: transaction.open(DEAD)?,
            ended: transaction.open(ENDED)?,
            expiry: transaction.open(EXPIRY)?,
            call_ids: transaction.open(CALL_IDS)?,
            idempotency: transaction.open(IDEMPOTENCY)?,
            files: transaction.open(FILES)?,
            functions: transaction.open(FUNCTIONS)?,
            numbers: transaction.open(NUMBERS)?,
            totals: transaction.open(TOTALS)?,
            damaged: transaction.open(DAMAGED)?,
        })
    }
}

/// A key of a function's number and an id.
pub(super) fn pair(number: u32, id: u64) -> [u8; 12] {
    join(number.to_be_bytes(), id.to_be_bytes())
}

/// A key of a time and an id.
pub(super) fn timed(time_ms: u64, id: u64) -> [u8; 16] {
    join(time_ms.to_be_bytes(), id.to_be_bytes())
}

/// A key of a function's number and a caller's key.
pub(super) fn keyed(number: u32, name: Name) -> [u8; 20] {
    join(number.to_be_bytes(), name)
}

/// The second part of a key, where its first has `N` bytes.
pub(super) fn tail<const N: usize>(key: &[u8]) -> Result<u64, Problem> {
    let tail = key.get(N..).and_then(|tail| tail.try_into().ok());
    tail.map(u64::from_be_bytes).ok_or("its key is of another length")
}

/// The record of `WAITING`.
pub(super) fn waiting(number: u32, slot: Slot) -> [u8; 20] {
    join(number.to_be_bytes(), slot.encode())
}

/// What `waiting` made.
pub(super) fn read_waiting(value: &[u8]) -> Result<(u32, Slot), Problem> {
    let (number, slot) = value.split_first_chunk().ok_or("it is cut")?;
    Ok((u32::from_be_bytes(*number), Slot::decode(slot)?))
}

/// Call ids are looked for by their hash, which is random. In blocks of ids that follow each other, those of one
/// transaction still lie on few pages; whoever looks for one asks every block, a thousand of them for a million calls.
const BLOCK_BITS: u32 = 10;

/// The key of `CALL_IDS`.
pub(super) fn call_id_key(hash: u64, id: u64) -> [u8; 24] {
    call_id_key_of(id >> BLOCK_BITS, hash, id)
}

/// The same in any block.
pub(super) fn call_id_key_of(block: u64, hash: u64, id: u64) -> [u8; 24] {
    join(join::<8, 8, 16>(block.to_be_bytes(), hash.to_be_bytes()), id.to_be_bytes())
}

/// The least key of `CALL_IDS` in the block of an id.
pub(super) fn first_of_block(id: u64) -> [u8; 24] {
    call_id_key_of(id >> BLOCK_BITS, 0, 0)
}

/// The greatest one.
pub(super) fn last_of_block(id: u64) -> [u8; 24] {
    call_id_key_of(id >> BLOCK_BITS, u64::MAX, u64::MAX)
}

/// What `call_id_key_of` made a key of.
pub(super) fn read_call_id_key(key: &[u8]) -> Option<(u64, u64, u64)> {
    let (block, rest) = key.split_first_chunk()?;
    let (hash, id) = rest.split_first_chunk()?;
    let [block, hash, id] = [*block, *hash, id.try_into().ok()?].map(u64::from_be_bytes);
    Some((block, hash, id))
}

/// What stands for a call id in its index.
pub(super) fn hash_of(sealer: &Sealer, call_id: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = sealer.content_check(CALL_IDS, call_id.as_bytes()).finish();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn join<const A: usize, const B: usize, const C: usize>(first: [u8; A], second: [u8; B]) -> [u8; C] {
    const { assert!(A + B == C) };
    let mut key = [0; C];
    let (head, rest) = key.split_at_mut(A);
    head.copy_from_slice(&first);
    rest.copy_from_slice(&second);
    key
}
