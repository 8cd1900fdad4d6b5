//! A disk in memory that can lose its power, tear and reorder what was not synced, and refuse to work.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use redb::StorageBackend;

const SECTOR_BYTES: usize = 512;

/// A small generator of repeatable numbers (xorshift64*), so that a failing cut can be run again.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Write>,
    operations: u64,
    power_fails_at: Option<u64>,
    syncs_until_error: Option<u64>,
    full: bool,
    lies_about_syncing: bool,
}

#[derive(Debug)]
enum Write {
    Length(usize),
    Sector { offset: usize, bytes: Vec<u8> },
}

impl SimulatedDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn cut_power_after(&self, operations: u64) {
        let mut state = self.state();
        state.power_fails_at = Some(state.operations + operations);
    }

    pub(crate) fn fail_sync_number(&self, number: u64) {
        self.state().syncs_until_error = Some(number);
    }

    pub(crate) fn fill(&self) {
        self.state().full = true;
    }

    pub(crate) fn lie_about_syncing(&self) {
        self.state().lies_about_syncing = true;
    }

    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// The disk as the next boot finds it: what was synced, and any part of the rest, in any order.
    pub(crate) fn after_power_cut(&self, dice: &mut Dice) -> Self {
        let state = self.state();
        let mut survived = state.durable.clone();
        let mut writes: Vec<&Write> = state.unsynced.iter().filter(|_| dice.below(2) == 0).collect();
        for end in (1..writes.len()).rev() {
            let other = usize::try_from(dice.below(end as u64 + 1)).unwrap();
            writes.swap(end, other);
        }
        for write in writes {
            write.apply(&mut survived);
        }
        let state = State { durable: survived.clone(), current: survived, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The same content on another disk.
    pub(crate) fn copy(&self) -> Self {
        let state = self.state();
        let state =
            State { durable: state.current.clone(), current: state.current.clone(), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    pub(crate) fn flip_bit(&self, bit: usize) {
        self.state().current[bit / 8] ^= 1 << (bit % 8);
    }
}

impl Write {
    fn apply(&self, disk: &mut Vec<u8>) {
        match self {
            Self::Length(length) => disk.resize(*length, 0),
            Self::Sector { offset, bytes } => {
                let end = offset + bytes.len();
                // A file whose longer length was lost still grows with the data that was not.
                disk.resize(disk.len().max(end), 0);
                disk[*offset..end].copy_from_slice(bytes);
            }
        }
    }
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.power_fails_at {
            Some(end) if self.operations > end => Err(io::Error::other("the power is gone")),
            _ => Ok(()),
        }
    }

    fn change(&mut self, write: Write) {
        write.apply(&mut self.current);
        self.unsynced.push(write);
    }
}

impl StorageBackend for SimulatedDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let state = self.state();
        let bytes = state.current.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.change(Write::Length(usize::try_from(len).unwrap()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        if let Some(left) = &mut state.syncs_until_error {
            *left = left.saturating_sub(1);
            if *left == 0 {
                // The kernel marks the pages clean, so that a second fsync would succeed without writing them.
                state.unsynced.clear();
                state.syncs_until_error = None;
                return Err(io::Error::other("input/output error"));
            }
        }
        if !state.lies_about_syncing {
            state.durable = state.current.clone();
            state.unsynced.clear();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut at = usize::try_from(offset).unwrap();
        let mut rest = data;
        while !rest.is_empty() {
            let (sector, after) = rest.split_at((SECTOR_BYTES - at % SECTOR_BYTES).min(rest.len()));
            state.change(Write::Sector { offset: at, bytes: sector.to_vec() });
            (at, rest) = (at + sector.len(), after);
        }
        Ok(())
    }

    fn try_lock_range(
        &self,
        _start: std::ops::Bound<u64>,
        _end: std::ops::Bound<u64>,
    ) -> Result<bool, redb::BackendError> {
        Ok(true)
    }
}
