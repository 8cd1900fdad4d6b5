use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use rand::TryRng;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::{Error, Result, Store, write_atomically};

/// The one table whose values are encrypted.
const SECRETS: &str = "secrets";

/// What is wrong with a value that cannot be decrypted.
const ANOTHER_KEY: &str = "it was encrypted with another key, or was changed";

const KEY_BYTES: usize = 32;
const MAKE_KEY: &str =
    "make one where there are no secrets yet: head -c 32 /dev/urandom > FILE; chmod 600 FILE";
const NONCE_BYTES: usize = 24;

/// The layout of a value at rest: version, nonce, then what XChaCha20-Poly1305 makes of the value.
const VERSION: u8 = 1;

/// Small values that are encrypted at rest (XChaCha20-Poly1305), each bound to its key in the store.
pub struct Vault {
    store: Store,
    cipher: XChaCha20Poly1305,
}

/// A value in clear, wiped from memory when it is dropped.
type Plaintext = Zeroizing<Vec<u8>>;

impl Vault {
    /// With a key that somebody else keeps: a file of 32 bytes that only its owner may read.
    ///
    /// # Errors
    /// [`Error::Unusable`]: what is wrong with the file and what to do.
    pub fn open(store: Store, key_file: &Path) -> Result<Self> {
        match read_key(key_file)? {
            Some(key) => Ok(Self::with(store, &key)),
            None => Err(unusable(
                key_file,
                &format!("there is no such file; put the key of the secrets there, or {MAKE_KEY}"),
            )),
        }
    }

    /// With a key of our own, which is made unless there are values already that need another; also then, if that one is
    /// `lost`.
    ///
    /// # Errors
    /// [`Error::Unusable`]: what is wrong with the file and what to do. As [`Store::list`].
    pub fn open_or_make(store: Store, key_file: &Path, lost: bool) -> Result<Self> {
        if let Some(key) = read_key(key_file)? {
            return Ok(Self::with(store, &key));
        }
        if !lost && !store.list(SECRETS)?.is_empty() {
            let problem = "the key of the secrets is missing; restore it from a backup, or give it with --secrets-key-file; \
                           if it is lost, start with --secrets-key-lost, and then give each secret again";
            return Err(unusable(key_file, problem));
        }
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        let failed = |error| Error::unusable(key_file, "the key for the secrets cannot be made", error);
        rand::rngs::SysRng.try_fill_bytes(&mut *key).map_err(|error| failed(io::Error::other(error)))?;
        write_atomically(key_file, &*key, 0o600).map_err(failed)?;
        Ok(Self::with(store, &key))
    }

    /// Refuses a key that reads none of the values that there are: functions would find no secrets, and nobody why. A
    /// record that is damaged, or of another version, tells nothing of the key. `key_file` is where it came from.
    ///
    /// # Errors
    /// [`Error::Unusable`]: which value, and what to do. As [`Store::list`].
    pub fn check_key(&self, key_file: &Path) -> Result<()> {
        let mut first = None;
        for (key, record) in self.store.list(SECRETS)? {
            match record.map(|record| self.decrypt(&key, &record)) {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error @ Error::DamagedRecord { problem: ANOTHER_KEY, .. })) => {
                    first.get_or_insert(error);
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
        let Some(first) = first else { return Ok(()) };
        let problem = format!(
            "it reads none of the secrets ({first}); restore the key that they were encrypted with, or give its file \
             with --secrets-key-file; if it is lost, start with --secrets-key-lost, and then give each secret again"
        );
        Err(unusable(key_file, &problem))
    }

    fn with(store: Store, key: &[u8; KEY_BYTES]) -> Self {
        Self { store, cipher: XChaCha20Poly1305::new(key.into()) }
    }

    /// Keeps a value under a key, in place of the one there may be.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub async fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        self.store.put(SECRETS, key, self.encrypt(key, value)?).await
    }

    /// Removes a key, also when its value cannot be read. Answers whether there was one.
    ///
    /// # Errors
    /// As [`Store::remove`].
    pub async fn remove(&self, key: &str) -> Result<bool> {
        self.store.remove(SECRETS, key).await
    }

    /// Every key, sorted, with its value, or with [`Error::DamagedRecord`] where that cannot be had: one value costs no
    /// other.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub fn list(&self) -> Result<Vec<(String, Result<Plaintext>)>> {
        let records = self.store.list(SECRETS)?.into_iter();
        let decrypted = records.map(|(key, record)| {
            let value = record.and_then(|record| self.decrypt(&key, &record));
            (key, value)
        });
        Ok(decrypted.collect())
    }

    fn encrypt(&self, key: &str, value: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_BYTES];
        let failed =
            |problem: &str| Error::Unusable { path: SECRETS.into(), problem: problem.into(), source: None };
        rand::rngs::SysRng
            .try_fill_bytes(&mut nonce)
            .map_err(|_| failed("the system gives no random numbers"))?;
        let bound = bound_to(key);
        let encrypted = self.cipher.encrypt(&XNonce::from(nonce), Payload { msg: value, aad: &bound });
        let encrypted = encrypted.map_err(|_| failed("the value cannot be encrypted"))?;
        Ok([&[VERSION], &nonce[..], &encrypted].concat())
    }

    fn decrypt(&self, key: &str, record: &[u8]) -> Result<Plaintext> {
        let damaged = |problem| Error::DamagedRecord { table: SECRETS, key: key.to_owned(), problem };
        let (version, rest) = record.split_first().ok_or_else(|| damaged("it is empty"))?;
        if *version != VERSION {
            return Err(damaged("its encryption is of another version"));
        }
        let (nonce, encrypted) = rest.split_first_chunk().ok_or_else(|| damaged("it is cut"))?;
        let nonce: &[u8; NONCE_BYTES] = nonce;
        let bound = bound_to(key);
        let value = self.cipher.decrypt(&XNonce::from(*nonce), Payload { msg: encrypted, aad: &bound });
        value.map(Zeroizing::new).map_err(|_| damaged(ANOTHER_KEY))
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

/// What a value is encrypted for, so that it can be moved nowhere else. No table's name has a zero byte.
fn bound_to(key: &str) -> Vec<u8> {
    [SECRETS.as_bytes(), b"\0", key.as_bytes()].concat()
}

/// The key of a file, if there is one.
fn read_key(path: &Path) -> Result<Option<Zeroizing<[u8; KEY_BYTES]>>> {
    let failed = |error| Error::unusable(path, "the key of the secrets cannot be read", error);
    // Opening what is no file must not wait for somebody at its other end.
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path);
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(unusable(path, "it is no file, and so no key"));
    }
    if metadata.mode() & 0o077 != 0 {
        let problem =
            "others than its owner may use this key: make a new one if they have, then chmod 600 it";
        return Err(unusable(path, problem));
    }
    let mut key = Zeroizing::new(Vec::with_capacity(KEY_BYTES + 1));
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut key).map_err(failed)?;
    match <[u8; KEY_BYTES]>::try_from(key.as_slice()) {
        Ok(key) => Ok(Some(Zeroizing::new(key))),
        Err(_) => {
            let has = if key.len() > KEY_BYTES { "more".to_owned() } else { key.len().to_string() };
            let problem = format!(
                "a key has {KEY_BYTES} bytes, and it has {has}; restore it from a backup, or {MAKE_KEY}"
            );
            Err(unusable(path, &problem))
        }
    }
}

fn unusable(path: &Path, problem: &str) -> Error {
    Error::Unusable { path: path.to_owned(), problem: problem.into(), source: None }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

    use tempfile::TempDir;

    use super::*;

    const VALUE: &[u8] = b"hunter2-of-the-vault";

    fn write(path: &Path, bytes: &[u8], mode: u32) {
        write_atomically(path, bytes, mode).unwrap();
    }

    fn place() -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("secrets.key");
        (folder, key)
    }

    #[tokio::test]
    async fn a_value_outlasts_a_restart_and_is_nowhere_in_clear() {
        let (folder, key) = place();
        let store = Store::open(folder.path()).unwrap();
        let vault = Vault::open_or_make(store.clone(), &key, false).unwrap();
        vault.put("staff/b", VALUE).await.unwrap();
        vault.put("a", b"").await.unwrap();
        vault.put("c", b"x").await.unwrap();
        assert!(vault.remove("c").await.unwrap());
        assert!(!vault.remove("c").await.unwrap());
        store.close().await.unwrap();
        drop(vault);
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        for entry in fs::read_dir(folder.path()).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(VALUE.len()).any(|window| window == VALUE));
        }
        let vault = Vault::open_or_make(Store::open(folder.path()).unwrap(), &key, false).unwrap();
        let listed: Vec<_> = vault.list().unwrap();
        let listed: Vec<_> =
            listed.iter().map(|(key, value)| (key.as_str(), value.as_ref().unwrap().as_slice())).collect();
        assert_eq!(listed, [("a", &b""[..]), ("staff/b", VALUE)]);
    }

    #[tokio::test]
    async fn equal_values_look_different_and_any_change_or_move_is_noticed() {
        let (folder, key) = place();
        let vault = Vault::open_or_make(Store::open(folder.path()).unwrap(), &key, false).unwrap();
        let record = vault.encrypt("a", VALUE).unwrap();
        assert_ne!(record, vault.encrypt("a", VALUE).unwrap());
        assert_eq!(vault.decrypt("a", &record).unwrap().as_slice(), VALUE);
        for bit in 0..record.len() * 8 {
            let mut changed = record.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(vault.decrypt("a", &changed).is_err(), "bit {bit}");
        }
        for end in 0..record.len() {
            assert!(vault.decrypt("a", &record[..end]).is_err(), "cut at {end}");
        }
        assert!(vault.decrypt("b", &record).is_err());
    }

    #[tokio::test]
    async fn another_key_costs_the_values_of_the_first_and_says_which() {
        let (folder, key) = place();
        let store = Store::open(folder.path()).unwrap();
        Vault::open_or_make(store.clone(), &key, false).unwrap().put("old", VALUE).await.unwrap();
        let other = folder.path().join("other.key");
        write(&other, &[1; 32], 0o400);
        let vault = Vault::open(store, &other).unwrap();
        vault.put("new", VALUE).await.unwrap();
        let listed = vault.list().unwrap();
        assert_eq!(listed[0].1.as_ref().unwrap().as_slice(), VALUE);
        let error = listed[1].1.as_ref().unwrap_err().to_string();
        assert!(error.contains("\"old\"") && error.contains("another key"), "{error}");
    }

    #[tokio::test]
    async fn a_key_that_is_lost_is_made_anew_only_when_told_so() {
        let (folder, key) = place();
        let store = Store::open(folder.path()).unwrap();
        Vault::open_or_make(store.clone(), &key, false).unwrap().put("token", VALUE).await.unwrap();
        fs::remove_file(&key).unwrap();
        let refusal = Vault::open_or_make(store.clone(), &key, false).err().unwrap().to_string();
        assert!(refusal.contains("--secrets-key-lost"), "{refusal}");
        assert!(!key.exists());
        let vault = Vault::open_or_make(store, &key, true).unwrap();
        assert!(key.exists() && vault.list().unwrap()[0].1.is_err());
        vault.put("token", VALUE).await.unwrap();
        assert_eq!(vault.list().unwrap()[0].1.as_ref().unwrap().as_slice(), VALUE);
    }

    #[tokio::test]
    async fn a_key_that_reads_nothing_is_told_from_a_value_that_is_damaged() {
        let (folder, key) = place();
        let store = Store::open(folder.path()).unwrap();
        let vault = Vault::open_or_make(store.clone(), &key, false).unwrap();
        vault.check_key(&key).unwrap();
        vault.put("staff/token", VALUE).await.unwrap();
        vault.check_key(&key).unwrap();
        let other = folder.path().join("other.key");
        write(&other, &[1; 32], 0o400);
        let others = Vault::open(store.clone(), &other).unwrap();
        let refusal = others.check_key(&other).unwrap_err().to_string();
        for part in ["other.key", "staff/token", "--secrets-key-file", "--secrets-key-lost"] {
            assert!(refusal.contains(part), "{part} is not in {refusal}");
        }
        assert!(!refusal.contains("hunter2"));
        // One that was given again makes it the key, whatever else there is.
        others.put("staff/token2", VALUE).await.unwrap();
        others.check_key(&other).unwrap();
    }

    #[tokio::test]
    async fn a_key_that_cannot_serve_is_refused() {
        let (folder, key) = place();
        let store = Store::open(folder.path()).unwrap();
        let refused = |path: &Path, made: bool| {
            let vault = if made {
                Vault::open_or_make(store.clone(), path, false)
            } else {
                Vault::open(store.clone(), path)
            };
            vault.unwrap_err().to_string()
        };
        assert!(refused(&key, false).contains("no such file"));
        assert!(!key.exists());
        for (bytes, mode, expected) in [
            (&[7; 32][..], 0o640, "chmod 600"),
            (&[7; 32], 0o604, "chmod 600"),
            (&[7; 31], 0o600, "a key has 32 bytes, and it has 31; restore it"),
            (&[7; 33], 0o600, "and it has more"),
            (&[], 0o600, "and it has 0; restore it from a backup, or make one"),
            (&[7; 31], 0o600, "head -c 32 /dev/urandom > FILE"),
        ] {
            write(&key, bytes, mode);
            for made in [false, true] {
                let refusal = refused(&key, made);
                assert!(refusal.contains(expected) && refusal.contains("secrets.key"), "{refusal}");
            }
        }
        assert!(refused(folder.path(), true).contains("no file"));

        fs::remove_file(&key).unwrap();
        Vault::open_or_make(store.clone(), &key, false).unwrap().put("a", VALUE).await.unwrap();
        fs::remove_file(&key).unwrap();
        assert!(refused(&key, true).contains("missing"));
        assert!(!key.exists());
    }
}
