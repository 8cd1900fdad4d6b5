//! Modules that were rejected for themselves, remembered for a while, so that trying again costs nothing.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use runtime_api::Digest;

use crate::{
    cache::{compatibility, is_scarcity, is_written_as, open_regular, remove_if_old},
    child::Rejection,
    engine::Engine,
    jail, scan,
};

/// As many are remembered; then the oldest is forgotten.
const MOST: usize = 1024;

/// So long a rejection is believed.
const LONGEST: Duration = Duration::from_secs(3600);

/// The longest reason that is remembered, in bytes. One that quotes a module's own names may be longer.
const MAX_MESSAGE_BYTES: usize = 4 << 10;

/// The longest file that is read, in bytes: a hash, and a reason with each byte escaped.
const MAX_FILE_BYTES: u64 = 32 << 10;

/// One file for each module, in a directory that only we can enter.
pub(crate) struct Rejected {
    directory: PathBuf,
    key: [u8; 32],
    /// What the rejections depend on besides the module.
    rules: String,
}

impl Rejected {
    pub(crate) fn open(directory: &Path, key: [u8; 32], engine: &Engine) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
        let rules =
            format!("{:016x} {} {} {}", compatibility(engine), jail::limits(), scan::limits(), this_build()?);
        Ok(Self { directory: directory.to_owned(), key, rules })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(format!("{}.json", digest.hex()))
    }

    /// Why a module is rejected, if it was by this very version, with these limits.
    ///
    /// The caller is the only one that works on this digest's files.
    pub(crate) fn get(&self, digest: &Digest) -> io::Result<Option<Rejection>> {
        let path = self.path(digest);
        let text = match read(&path) {
            Ok(Some(text)) => text,
            // Too old, or of a time to come: the clock was wrong.
            Ok(None) => String::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if is_scarcity(&error) => return Err(error),
            Err(error) => {
                tracing::warn!(%digest, %error, "a rejection cannot be read and is forgotten");
                String::new()
            }
        };
        let rejection = self.parse(digest, &text);
        if rejection.is_none() {
            remove(&path)?;
        }
        Ok(rejection)
    }

    fn parse(&self, digest: &Digest, text: &str) -> Option<Rejection> {
        let (written, json) = text.split_once('\n')?;
        let is_ours = is_written_as(written, self.hash(digest, json));
        if is_ours { serde_json::from_str(json).ok() } else { None }
    }

    pub(crate) fn insert(&self, digest: &Digest, mut rejection: Rejection) -> io::Result<()> {
        self.make_room()?;
        rejection.message.truncate(rejection.message.floor_char_boundary(MAX_MESSAGE_BYTES));
        let json = serde_json::to_string(&rejection)?;
        let text = format!("{}\n{json}", self.hash(digest, &json));
        runtime_store::write_atomically(&self.path(digest), text.as_bytes(), 0o600)
    }

    /// Forgets the oldest where there are too many.
    fn make_room(&self) -> io::Result<()> {
        let mut all: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            // A file that is gone by now takes no room.
            if let Ok(written) = entry.metadata().and_then(|file| file.modified()) {
                all.push((written, entry.path()));
            }
        }
        all.sort();
        for (_, path) in all.iter().take((all.len() + 1).saturating_sub(MOST)) {
            remove(path)?;
        }
        Ok(())
    }

    /// Forgets what is older than `grace`, wanted or not: a module that is wanted deserves to be tried again.
    pub(crate) fn forget(&self, grace: Duration) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            remove_if_old(&entry?, grace)?;
        }
        Ok(())
    }

    fn hash(&self, digest: &Digest, json: &str) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        // The first words keep these hashes apart from those of the records of code.
        hasher.update(b"rejected\0").update(&digest.0);
        hasher.update(self.rules.as_bytes()).update(b"\0").update(json.as_bytes());
        hasher.finalize()
    }
}

/// Removes a file that may be gone already: the sweep of what is old does not wait.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Nothing where it is no longer valid.
fn read(path: &Path) -> io::Result<Option<String>> {
    use io::Read;

    let file = open_regular(path)?;
    if !file.metadata()?.modified()?.elapsed().is_ok_and(|age| age < LONGEST) {
        return Ok(None);
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    Ok(Some(text))
}

/// What tells this program from the one that was here before an upgrade.
fn this_build() -> io::Result<String> {
    let program = fs::metadata("/proc/self/exe")?;
    Ok(format!("{} {} {}", env!("CARGO_PKG_VERSION"), program.len(), program.mtime()))
}
