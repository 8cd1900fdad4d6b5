use std::path::Path;

use rand::TryRng;

use crate::{Error, Result, write_atomically};

/// The layout below: version, length of the value, check over table, key and value; then the value.
const VERSION: u8 = 1;
const LENGTH_BYTES: usize = 4;
const CHECK_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + LENGTH_BYTES + CHECK_BYTES;

/// Seals records, so that one that rotted, moved to another key or was forged is told from one that we wrote.
pub struct Sealer {
    key: [u8; 32],
}

impl Sealer {
    /// With a key that tests know.
    #[cfg(any(test, feature = "simulated-disk"))]
    pub fn of(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// Reads the key, or makes one when there is no store yet whose records would need the old one.
    ///
    /// # Errors
    /// [`Error::Unusable`]: what is wrong with the key's file and what to do.
    pub fn load(path: &Path, store_exists: bool) -> Result<Self> {
        match std::fs::read(path) {
            Ok(bytes) => <[u8; 32]>::try_from(bytes).map(|key| Self { key }).map_err(|_| Error::Unusable {
                path: path.to_owned(),
                problem: "it is not a key of 32 bytes; restore it from a backup".into(),
                source: None,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !store_exists => Self::create(path),
            Err(error) => Err(Error::unusable(path, "the store's key cannot be read; restore it", error)),
        }
    }

    fn create(path: &Path) -> Result<Self> {
        let mut key = [0; 32];
        let unusable = |error| Error::unusable(path, "the store's key cannot be made", error);
        rand::rngs::SysRng
            .try_fill_bytes(&mut key)
            .map_err(|error| unusable(std::io::Error::other(error)))?;
        write_atomically(path, &key, 0o600).map_err(unusable)?;
        Ok(Self { key })
    }

    /// The record of a value, for this place alone. Values have less than 4 GiB.
    pub fn seal(&self, table: &str, key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut record = Vec::with_capacity(HEADER_BYTES + value.len());
        record.push(VERSION);
        // Values are limited to far less than 4 GiB before they come here; a cut length would fail the check.
        record.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
        record.extend_from_slice(&self.check(table, key, value));
        record.extend_from_slice(value);
        record
    }

    /// The value of a record.
    ///
    /// # Errors
    /// What the check found: it is not the record that was sealed for this place.
    pub fn unseal<'r>(&self, table: &str, key: &[u8], record: &'r [u8]) -> Result<&'r [u8], &'static str> {
        let (header, value) = record.split_at_checked(HEADER_BYTES).ok_or("its header is cut")?;
        let (version, rest) = header.split_first().ok_or("its header is cut")?;
        if *version != VERSION {
            return Err("its format is of another version");
        }
        let (length, check) = rest.split_at(LENGTH_BYTES);
        if u32::try_from(value.len()).ok().map(u32::to_le_bytes).as_ref().map(<[u8; 4]>::as_slice)
            != Some(length)
        {
            return Err("its length is wrong");
        }
        if self.check(table, key, value) != check {
            return Err("its check value is wrong");
        }
        Ok(value)
    }

    fn check(&self, table: &str, key: &[u8], value: &[u8]) -> [u8; CHECK_BYTES] {
        let mut check = self.content_check(table, key);
        // The lengths keep ("ab", "c") and ("a", "bc") apart.
        check.0.update(&(value.len() as u64).to_le_bytes());
        check.update(value);
        check.finish()
    }

    /// Begins the check value of something that comes in pieces, for this place alone. It can also stand for a text in
    /// an index: nobody without the key can find two of the same.
    pub fn content_check(&self, table: &str, key: &[u8]) -> ContentCheck {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in [table.as_bytes(), key] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        ContentCheck(hasher)
    }
}

/// A check value in the making.
pub struct ContentCheck(blake3::Hasher);

impl ContentCheck {
    /// Adds the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The check value of all pieces.
    pub fn finish(&self) -> [u8; CHECK_BYTES] {
        let mut check = [0; CHECK_BYTES];
        self.0.finalize_xof().fill(&mut check);
        check
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_bit_or_place_is_noticed() {
        let sealer = Sealer { key: [7; 32] };
        let record = sealer.seal("specs", b"hello", b"value");
        assert_eq!(sealer.unseal("specs", b"hello", &record).unwrap(), b"value");

        for bit in 0..record.len() * 8 {
            let mut changed = record.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(sealer.unseal("specs", b"hello", &changed).is_err(), "bit {bit}");
        }
        for end in 0..record.len() {
            assert!(sealer.unseal("specs", b"hello", &record[..end]).is_err(), "cut at {end}");
        }
        assert!(sealer.unseal("specs", b"hullo", &record).is_err());
        assert!(sealer.unseal("secrets", b"hello", &record).is_err());
        assert!(Sealer { key: [8; 32] }.unseal("specs", b"hello", &record).is_err());
    }

    #[test]
    fn a_lost_key_is_not_replaced_while_records_need_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.key");
        assert!(Sealer::load(&path, true).is_err());
        let made = Sealer::load(&path, false).unwrap();
        assert_eq!(Sealer::load(&path, true).unwrap().key, made.key);
        std::fs::write(&path, "short").unwrap();
        assert!(Sealer::load(&path, true).err().unwrap().to_string().contains("32 bytes"));
    }
}
