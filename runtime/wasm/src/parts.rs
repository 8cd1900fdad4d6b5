//! What machine code consists of: that of each function of a module, by what it was compiled from.
//!
//! Whoever works on a function deploys it again and again, and all but a few functions of a large module are the same
//! each time: an interpreter, mostly. A compilation begins with the parts of the module that it replaces, and leaves
//! those that it used or made for the next one.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt,
    fs::File,
    io::{self, BufWriter, Read, Write},
    ops::Range,
    path::Path,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use wasmtime::CacheStore;

/// Where a smaller module is compiled in half a second, its parts are not worth their place on disk, in bytes.
const MODULE_BYTES: u64 = 1 << 20;

/// What the parts of one module may take at most, in bytes; those beyond it are compiled anew. The largest module that was
/// measured, of JavaScript, has 40 MiB.
pub(crate) const MOST_BYTES: u64 = 128 << 20;

/// Cranelift's name of a part: a SHA-256 of all that it is compiled from.
type Key = [u8; 32];

/// Before each part: its key, and its length as a little-endian `u32`.
const HEADER_BYTES: usize = 36;

/// Whether a module of this size has enough of them.
pub(crate) fn are_worth_it(module_bytes: u64) -> bool {
    module_bytes >= MODULE_BYTES
}

/// The parts that one compilation finds, and those that it leaves.
pub(crate) struct Parts {
    earlier: Option<File>,
    found: OnceLock<Found>,
    left: Mutex<Left>,
    file: File,
}

#[derive(Default)]
struct Found {
    bytes: Vec<u8>,
    places: HashMap<Key, Range<usize>>,
}

#[derive(Default)]
struct Left {
    used: HashSet<Key>,
    made: HashMap<Key, Vec<u8>>,
    bytes: u64,
}

impl Left {
    /// Whether there is room for one more of this length, which it then takes.
    fn fits(&mut self, length: usize) -> bool {
        let bytes = self.bytes + (HEADER_BYTES + length) as u64;
        let fits = bytes <= MOST_BYTES;
        if fits {
            self.bytes = bytes;
        }
        fits
    }
}

impl Parts {
    /// Opens the file that an earlier compilation left, and makes that of this one. Nothing is read yet.
    ///
    /// # Errors
    /// When a file cannot be opened or made.
    pub(crate) fn open(earlier: Option<&Path>, file: &Path) -> io::Result<Self> {
        let earlier = earlier.map(File::open).transpose()?;
        let file = File::create_new(file)?;
        Ok(Self { earlier, found: OnceLock::new(), left: Mutex::default(), file })
    }

    /// Reads what an earlier compilation left. Before that, nothing is found.
    ///
    /// # Errors
    /// When it cannot be read, or is something else.
    pub(crate) fn read(&self) -> io::Result<()> {
        let Some(earlier) = &self.earlier else { return Ok(()) };
        let mut bytes = Vec::new();
        earlier.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        let places = places(&bytes).ok_or_else(|| io::Error::other("it does not hold what it should"))?;
        self.found.set(Found { bytes, places }).map_err(|_| io::Error::other("it was read before"))
    }

    fn found(&self, key: &Key) -> Option<&[u8]> {
        let found = self.found.get()?;
        found.bytes.get(found.places.get(key)?.clone())
    }

    /// Writes those that were used or made, and answers how many were used. A file of some of them is emptied.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub(crate) fn leave(&self) -> io::Result<u64> {
        let left = self.left();
        let used = left.used.iter().filter_map(|key| Some((key, self.found(key)?)));
        let made = left.made.iter().map(|(key, part)| (key, part.as_slice()));
        let mut file = BufWriter::new(&self.file);
        let written = used.chain(made).try_for_each(|(key, part)| {
            let length = u32::try_from(part.len()).map_err(io::Error::other)?;
            file.write_all(key)?;
            file.write_all(&length.to_le_bytes())?;
            file.write_all(part)
        });
        if let Err(error) = written.and_then(|()| file.flush()) {
            drop(file.into_parts());
            self.file.set_len(0)?;
            return Err(error);
        }
        Ok(left.used.len() as u64)
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CacheStore for Parts {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        let key = Key::try_from(key).ok()?;
        let mut left = self.left();
        if let Some(part) = self.found(&key) {
            if !left.used.contains(&key) && left.fits(part.len()) {
                left.used.insert(key);
            }
            return Some(Cow::Borrowed(part));
        }
        // The same function twice in one module.
        left.made.get(&key).map(|part| Cow::Owned(part.clone()))
    }

    fn insert(&self, key: &[u8], part: Vec<u8>) -> bool {
        let Ok(key) = Key::try_from(key) else { return false };
        let mut left = self.left();
        // Another thread was quicker.
        let fits = !left.made.contains_key(&key) && left.fits(part.len());
        if fits {
            left.made.insert(key, part);
        }
        fits
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} parts", self.found.get().map_or(0, |found| found.places.len()))
    }
}

fn places(bytes: &[u8]) -> Option<HashMap<Key, Range<usize>>> {
    let (mut places, mut rest) = (HashMap::new(), bytes);
    while !rest.is_empty() {
        let (key, after) = rest.split_first_chunk()?;
        let (length, after) = after.split_first_chunk()?;
        let (part, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        let end = bytes.len() - after.len();
        places.insert(*key, end - part.len()..end);
        rest = after;
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use super::*;

    /// Twenty functions that do something else each; this one knows a number.
    fn module(number: u32) -> Vec<u8> {
        let others =
            (0..20).map(|other| format!("(func (export \"f{other}\") (result i32) (i32.const {other}))"));
        let others: String = others.collect();
        wat::parse_str(format!("(module {others} (func (export \"g\") (result i32) (i32.const {number})))"))
            .unwrap()
    }

    fn compile(parts: Parts, module: &[u8]) -> (Vec<u8>, Arc<Parts>) {
        parts.read().unwrap();
        let parts = Arc::new(parts);
        let mut config = wasmtime::Config::new();
        config.enable_incremental_compilation(parts.clone()).unwrap();
        // Cranelift's hash also covers what the function before it left in the thread's memory.
        config.parallel_compilation(false);
        let code = wasmtime::Engine::new(&config).unwrap().precompile_module(module).unwrap();
        (code, parts)
    }

    /// How many were used, and made.
    fn counts(parts: &Parts) -> (usize, usize) {
        let left = parts.left();
        (left.used.len(), left.made.len())
    }

    #[test]
    fn only_what_differs_is_compiled_and_the_outcome_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (_, first) = compile(Parts::open(None, &path("first")).unwrap(), &module(7777));
        let (none, all) = counts(&first);
        assert!(none == 0 && all > 20, "{all}");
        first.leave().unwrap();

        let second = Parts::open(Some(&path("first")), &path("second")).unwrap();
        let (code, second) = compile(second, &module(8888));
        assert_eq!(counts(&second), (all - 1, 1));
        assert_eq!(second.leave().unwrap(), all as u64 - 1);
        let (from_scratch, _) = compile(Parts::open(None, &path("scratch")).unwrap(), &module(8888));
        assert!(code == from_scratch);

        let third = Parts::open(Some(&path("second")), &path("third")).unwrap();
        let (code, third) = compile(third, &module(8888));
        assert_eq!(counts(&third), (all, 0));
        assert!(code == from_scratch);
    }

    #[test]
    fn no_more_is_left_than_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let parts = Parts::open(None, &folder.path().join("first")).unwrap();
        let part = |number: u8| (Key::from([number; 32]), vec![number; 10 << 20]);
        for (number, fits) in (1..=13).map(|number| (number, number <= 12)) {
            let (key, part) = part(number);
            assert_eq!(parts.insert(&key, part), fits, "{number}");
        }
        parts.leave().unwrap();
        let earlier = folder.path().join("first");
        assert!(fs::metadata(&earlier).unwrap().len() <= MOST_BYTES);

        let parts = Parts::open(Some(&earlier), &folder.path().join("second")).unwrap();
        parts.read().unwrap();
        let (key, expected) = part(1);
        for _ in 0..20 {
            assert!(parts.get(&key).unwrap() == expected, "it is counted once");
        }
        assert_eq!(parts.left().bytes, (HEADER_BYTES + expected.len()) as u64);
        assert!(parts.get(&[13; 32]).is_none() && parts.get(b"short").is_none());
    }

    #[test]
    fn files_that_hold_something_else_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let earlier = folder.path().join("earlier");
        for (number, wrong) in [&[1; 31][..], &[1; 35], &[1; 100], &[0xff; 36]].into_iter().enumerate() {
            fs::write(&earlier, wrong).unwrap();
            let parts = Parts::open(Some(&earlier), &folder.path().join(number.to_string())).unwrap();
            assert!(parts.read().is_err(), "{number}");
        }
    }
}
