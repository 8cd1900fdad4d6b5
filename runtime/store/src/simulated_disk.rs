//! A disk in memory that can lose its power, tear and reorder what was not synced, fill up, and refuse to work.
//!
//! It is for tests, of this crate and of those that keep things on a [`Disk`].

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a part of tests")]

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::{Disk, DiskFile, Opening};

const SECTOR_BYTES: usize = 512;
const BLOCK_BYTES: usize = 4096;

/// A small generator of repeatable numbers (xorshift64*), so that a failing cut can be run again.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number from 0 on, below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }
}

/// Each kind of sync, so that a test can show what leaving it out would cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncKind {
    /// Of a file whose name ends with `.redb`.
    Database,
    /// Of any other file.
    Content,
    /// Of the directory.
    Names,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, Content>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    unsynced_names: Vec<(String, Option<u64>)>,
    made: u64,
    operations: u64,
    power_fails_at: Option<u64>,
    syncs_until_error: Option<u64>,
    capacity_blocks: Option<usize>,
    left_out: Option<SyncKind>,
}

#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Write>,
    /// Which blocks take room on the disk.
    blocks: Vec<bool>,
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

    /// Lets this many more operations happen. Then everything that changes the disk fails.
    pub fn cut_power_after(&self, operations: u64) {
        let mut state = self.state();
        state.power_fails_at = Some(state.operations + operations);
    }

    /// Fails the sync of this number, from 1 on, and forgets what it should have made durable.
    pub fn fail_sync_number(&self, number: u64) {
        self.state().syncs_until_error = Some(number);
    }

    /// Leaves this much room beyond what is used now; without a number, as much as anybody wants.
    pub fn leave_room(&self, bytes: Option<usize>) {
        let mut state = self.state();
        state.capacity_blocks = bytes.map(|bytes| state.used_blocks() + bytes / BLOCK_BYTES);
    }

    /// Answers that one kind of sync was done, and does not do it.
    pub fn leave_out(&self, kind: SyncKind) {
        self.state().left_out = Some(kind);
    }

    /// How many operations there were that change the disk.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// The disk as the next boot finds it: what was synced, and any part of the rest, in any order.
    pub fn after_power_cut(&self, dice: &mut Dice) -> Self {
        let state = self.state();
        let mut names = state.durable_names.clone();
        let mut lost: Vec<&str> = Vec::new();
        for (name, file) in &state.unsynced_names {
            // Changes of one name come in their order, so that what follows a lost one is lost too.
            if lost.contains(&name.as_str()) {
                continue;
            }
            if dice.below(2) == 0 {
                lost.push(name);
                continue;
            }
            match file {
                Some(file) => names.insert(name.clone(), *file),
                None => names.remove(name),
            };
        }
        let files = names.values().map(|file| (*file, state.files[file].after_power_cut(dice))).collect();
        Self::with(files, names, state.made)
    }

    /// The same files on another disk, all of it synced.
    pub fn copy(&self) -> Self {
        let state = self.state();
        let files = state.names.values().map(|file| (*file, Content::synced(&state.files[file].current)));
        Self::with(files.collect(), state.names.clone(), state.made)
    }

    fn with(files: BTreeMap<u64, Content>, names: BTreeMap<String, u64>, made: u64) -> Self {
        let durable_names = names.clone();
        let state = State { files, names, durable_names, made, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Turns one bit of a file over.
    pub fn flip_bit(&self, name: &str, bit: usize) {
        let mut state = self.state();
        let file = state.names[name];
        state.files.get_mut(&file).unwrap().current[bit / 8] ^= 1 << (bit % 8);
    }

    /// What is in a file.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(name).map(|file| state.files[file].current.clone())
    }
}

impl Content {
    fn synced(bytes: &[u8]) -> Self {
        let blocks = vec![true; bytes.len().div_ceil(BLOCK_BYTES)];
        Self { durable: bytes.to_vec(), current: bytes.to_vec(), unsynced: Vec::new(), blocks }
    }

    fn after_power_cut(&self, dice: &mut Dice) -> Self {
        let mut survived = self.durable.clone();
        let mut writes: Vec<&Write> = self.unsynced.iter().filter(|_| dice.below(2) == 0).collect();
        for end in (1..writes.len()).rev() {
            let other = usize::try_from(dice.below(end as u64 + 1)).unwrap();
            writes.swap(end, other);
        }
        for write in writes {
            write.apply(&mut survived);
        }
        Self::synced(&survived)
    }

    fn change(&mut self, write: Write) {
        write.apply(&mut self.current);
        self.unsynced.push(write);
    }

    fn new_blocks(&self, offset: usize, length: usize) -> usize {
        let blocks = offset / BLOCK_BYTES..(offset + length).div_ceil(BLOCK_BYTES);
        blocks.filter(|block| !self.blocks.get(*block).is_some_and(|used| *used)).count()
    }

    fn take_blocks(&mut self, offset: usize, length: usize) {
        let end = (offset + length).div_ceil(BLOCK_BYTES);
        self.blocks.resize(self.blocks.len().max(end), false);
        self.blocks[offset / BLOCK_BYTES..end].fill(true);
    }
}

impl Write {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Length(length) => file.resize(*length, 0),
            Self::Sector { offset, bytes } => {
                let end = offset + bytes.len();
                // A file whose longer length was lost still grows with the data that was not.
                file.resize(file.len().max(end), 0);
                file[*offset..end].copy_from_slice(bytes);
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

    /// Answers whether the sync is to be done, after having failed where it is to fail.
    fn begin_sync(&mut self, kind: SyncKind) -> io::Result<bool> {
        self.step()?;
        if let Some(left) = &mut self.syncs_until_error {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.syncs_until_error = None;
                return Err(io::Error::other("input/output error"));
            }
        }
        Ok(self.left_out != Some(kind))
    }

    fn used_blocks(&self) -> usize {
        let named = self.names.values().map(|file| &self.files[file]);
        named.map(|file| file.blocks.iter().filter(|used| **used).count()).sum()
    }

    /// Takes room for a part of a file.
    fn take(&mut self, file: u64, offset: usize, length: usize) -> io::Result<()> {
        let needed = self.files[&file].new_blocks(offset, length);
        if needed > 0
            && let Some(capacity) = self.capacity_blocks
            && self.used_blocks() + needed > capacity
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file(file).take_blocks(offset, length);
        Ok(())
    }

    fn file(&mut self, file: u64) -> &mut Content {
        self.files.get_mut(&file).unwrap()
    }

    fn name(&mut self, name: &str, file: Option<u64>) {
        match file {
            Some(file) => self.names.insert(name.to_owned(), file),
            None => self.names.remove(name),
        };
        self.unsynced_names.push((name.to_owned(), file));
    }
}

impl Disk for SimulatedDisk {
    fn path(&self) -> &Path {
        Path::new("/simulated")
    }

    fn open(&self, name: &str, how: Opening) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let file = match (state.names.get(name), how) {
            (Some(_), Opening::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(file), _) => *file,
            (None, Opening::Existing) => return Err(io::ErrorKind::NotFound.into()),
            (None, _) => {
                state.step()?;
                state.made += 1;
                let file = state.made;
                state.files.insert(file, Content::default());
                state.name(name, Some(file));
                file
            }
        };
        let kind = if name.ends_with(".redb") { SyncKind::Database } else { SyncKind::Content };
        Ok(Arc::new(SimulatedFile { disk: self.clone(), file, kind }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.name(name, None);
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.begin_sync(SyncKind::Names)? {
            state.durable_names = state.names.clone();
            state.unsynced_names.clear();
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.state();
        let free = state.capacity_blocks.map(|capacity| capacity.saturating_sub(state.used_blocks()));
        Ok(free.map_or(1 << 40, |blocks| (blocks * BLOCK_BYTES) as u64))
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    file: u64,
    kind: SyncKind,
}

impl DiskFile for SimulatedFile {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.disk.state().file(self.file).current.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let mut state = self.disk.state();
        let content = &state.file(self.file).current;
        out.copy_from_slice(content.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.step()?;
        let mut at = usize::try_from(offset).unwrap();
        state.take(self.file, at, data.len())?;
        let mut rest = data;
        while !rest.is_empty() {
            let (sector, after) = rest.split_at((SECTOR_BYTES - at % SECTOR_BYTES).min(rest.len()));
            state.file(self.file).change(Write::Sector { offset: at, bytes: sector.to_vec() });
            (at, rest) = (at + sector.len(), after);
        }
        Ok(())
    }

    fn set_len_bytes(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).unwrap();
        let mut state = self.disk.state();
        state.step()?;
        let file = state.file(self.file);
        file.blocks.truncate(length.div_ceil(BLOCK_BYTES));
        file.change(Write::Length(length));
        Ok(())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).unwrap();
        let mut state = self.disk.state();
        state.step()?;
        state.take(self.file, 0, length)?;
        state.file(self.file).change(Write::Length(length));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let wanted = state.begin_sync(self.kind);
        let file = state.file(self.file);
        // A sync that failed leaves the pages marked clean, so that the next one would succeed without writing them.
        let unsynced =
            if matches!(wanted, Ok(false)) { Vec::new() } else { std::mem::take(&mut file.unsynced) };
        if wanted? {
            for write in unsynced {
                write.apply(&mut file.durable);
            }
        }
        Ok(())
    }
}
