//! Machine code that is not what we wrote, in every way that it can be otherwise.

use std::{
    fs,
    os::unix::fs::{chown, symlink},
    path::{Path, PathBuf},
};

use super::*;
use crate::cache::Cache;

/// Code and record of one module as they lie on disk.
struct Files {
    digest: Digest,
    code: PathBuf,
    record: PathBuf,
    code_bytes: Vec<u8>,
    record_bytes: Vec<u8>,
}

impl Files {
    async fn of(bench: &Bench, wat: &str) -> Self {
        let digest = bench.compile(wat).await.unwrap().artifact.digest;
        let folder = bench.folder.path().join("code");
        let find = |extension: &str| {
            let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
            let named =
                |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&digest.hex());
            files.filter(named).find(|path| path.extension().is_some_and(|e| e == extension)).unwrap()
        };
        let (code, record) = (find("cwasm"), find("json"));
        let (code_bytes, record_bytes) = (fs::read(&code).unwrap(), fs::read(&record).unwrap());
        Self { digest, code, record, code_bytes, record_bytes }
    }

    /// Puts both there as they were.
    fn restore(&self) {
        put(&self.code, &self.code_bytes, 0o400);
        put(&self.record, &self.record_bytes, 0o600);
    }

    fn is_trusted(&self, cache: &Cache) -> bool {
        matches!(cache.open_checked(&self.digest), Ok(Some(_)))
    }

    fn assert_distrusted(&self, cache: &Cache, what: &str) {
        assert!(!self.is_trusted(cache), "{what}");
    }
}

/// A new file under this name, whatever was there.
fn put(path: &Path, bytes: &[u8], mode: u32) {
    if path.is_dir() {
        fs::remove_dir(path).unwrap();
    }
    let new = path.with_extension("new");
    fs::write(&new, bytes).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(new, path).unwrap();
}

/// A module of which there is little code.
const SMALL: &str = r#"(module (func (export "_start")))"#;

fn open(bench: &Bench, key: u8) -> Cache {
    Cache::open(&bench.folder.path().join("code"), [key; 32], &bench.engine).unwrap()
}

#[tokio::test]
async fn no_byte_of_code_or_record_can_be_another() {
    let bench = Bench::new();
    let files = Files::of(&bench, SMALL).await;
    let cache = open(&bench, 7);
    for at in 0..files.code_bytes.len() {
        let mut bytes = files.code_bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        put(&files.code, &bytes, 0o400);
        put(&files.record, &files.record_bytes, 0o600);
        files.assert_distrusted(&cache, &format!("byte {at} of the code"));
        assert!(!files.code.exists() && !files.record.exists(), "byte {at}: both are gone");
        if at % 1000 == 0 {
            files.restore();
            assert!(files.is_trusted(&cache), "what we wrote is trusted wherever it lies");
        }
    }
    for bit in 0..files.record_bytes.len() * 8 {
        let mut bytes = files.record_bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        put(&files.code, &files.code_bytes, 0o400);
        put(&files.record, &bytes, 0o600);
        files.assert_distrusted(&cache, &format!("bit {bit} of the record"));
    }
    for length in (0..files.code_bytes.len()).step_by(97) {
        put(&files.code, &files.code_bytes[..length], 0o400);
        put(&files.record, &files.record_bytes, 0o600);
        files.assert_distrusted(&cache, &format!("code of {length} bytes"));
    }
    for length in 0..files.record_bytes.len() {
        put(&files.code, &files.code_bytes, 0o400);
        put(&files.record, &files.record_bytes[..length], 0o600);
        files.assert_distrusted(&cache, &format!("a record of {length} bytes"));
    }
    for more in [&b"\0"[..], b"\n", b"more"] {
        put(&files.code, &[&files.code_bytes, more].concat(), 0o400);
        put(&files.record, &files.record_bytes, 0o600);
        files.assert_distrusted(&cache, "more code");
        put(&files.code, &files.code_bytes, 0o400);
        put(&files.record, &[&files.record_bytes, more].concat(), 0o600);
        files.assert_distrusted(&cache, "a longer record");
    }
    files.restore();
    assert!(files.is_trusted(&cache));
}

#[tokio::test]
async fn code_that_was_checked_once_is_checked_again_if_it_changes_in_place() {
    let bench = Bench::new();
    let files = Files::of(&bench, SMALL).await;
    let cache = open(&bench, 7);
    for at in (0..files.code_bytes.len()).step_by(50) {
        files.restore();
        assert!(files.is_trusted(&cache), "checked and noted");
        let mut bytes = files.code_bytes.clone();
        bytes[at] ^= 0x80;
        // As root may, or whoever changes the mode and sets it back: the same inode, the same length.
        fs::set_permissions(&files.code, fs::Permissions::from_mode(0o600)).unwrap();
        let modified = fs::metadata(&files.code).unwrap().modified().unwrap();
        fs::write(&files.code, bytes).unwrap();
        fs::File::options().write(true).open(&files.code).unwrap().set_modified(modified).unwrap();
        fs::set_permissions(&files.code, fs::Permissions::from_mode(0o400)).unwrap();
        files.assert_distrusted(&cache, &format!("byte {at}"));
    }
}

#[tokio::test]
async fn files_cannot_be_swapped_nor_be_of_another_kind_owner_or_mode() {
    let bench = Bench::new();
    let (files, other) = (Files::of(&bench, SMALL).await, Files::of(&bench, guests::HELLO).await);
    let cache = open(&bench, 7);

    put(&files.code, &other.code_bytes, 0o400);
    files.assert_distrusted(&cache, "another module's code");
    files.restore();
    put(&files.record, &other.record_bytes, 0o600);
    files.assert_distrusted(&cache, "another module's record");
    files.restore();
    put(&files.code, &other.code_bytes, 0o400);
    put(&files.record, &other.record_bytes, 0o600);
    files.assert_distrusted(&cache, "another module's code and record");

    for mode in (0..0o1000).chain([0o1400, 0o2400, 0o4400]).filter(|mode| *mode != 0o400) {
        files.restore();
        fs::set_permissions(&files.code, fs::Permissions::from_mode(mode)).unwrap();
        files.assert_distrusted(&cache, &format!("mode {mode:o}"));
    }
    files.restore();
    // Only root can give files away.
    if chown(&files.code, Some(12345), None).is_ok() {
        files.assert_distrusted(&cache, "another owner");
    }

    let elsewhere = bench.folder.path().join("elsewhere");
    put(&elsewhere, &files.code_bytes, 0o400);
    files.restore();
    fs::remove_file(&files.code).unwrap();
    symlink(&elsewhere, &files.code).unwrap();
    files.assert_distrusted(&cache, "a symbolic link");
    files.restore();
    fs::remove_file(&files.code).unwrap();
    symlink("/dev/zero", &files.code).unwrap();
    files.assert_distrusted(&cache, "a link to a device");
    files.restore();
    fs::remove_file(&files.code).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &files.code, rustix::fs::FileType::Fifo, 0o400.into(), 0).unwrap();
    files.assert_distrusted(&cache, "a pipe");
    files.restore();
    fs::remove_file(&files.code).unwrap();
    fs::create_dir(&files.code).unwrap();
    files.assert_distrusted(&cache, "a folder");
    put(&files.code, &files.code_bytes, 0o400);
    fs::remove_file(&files.record).unwrap();
    files.assert_distrusted(&cache, "no record");

    files.restore();
    files.assert_distrusted(&open(&bench, 8), "another node's key");
    files.restore();
    assert!(files.is_trusted(&cache));
}

#[tokio::test]
async fn what_was_checked_is_what_is_loaded_whatever_lies_under_its_name() {
    let bench = Bench::new();
    let (files, other) = (Files::of(&bench, SMALL).await, Files::of(&bench, guests::HELLO).await);
    let cache = open(&bench, 7);
    for replacement in [&other.code_bytes[..], b"", b"garbage"] {
        files.restore();
        let checked = cache.open_checked(&files.digest).unwrap().unwrap();
        put(&files.code, replacement, 0o400);
        assert!(fs::read(checked.path()).unwrap() == files.code_bytes);
        assert_eq!(checked.size_bytes(), files.code_bytes.len() as u64);
    }
}

#[tokio::test]
async fn machine_code_that_was_touched_is_never_loaded() {
    let bench = Bench::new();
    let artifact = bench.artifact(&wat::parse_str(guests::HELLO).unwrap());
    bench.compiler.compile(&artifact).await.unwrap();
    let files = || {
        let entries =
            fs::read_dir(bench.folder.path().join("code")).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.filter(|path| path.is_file()).collect();
        files.sort();
        <[_; 2]>::try_from(files).unwrap()
    };
    type Tamper = fn(&Path, &Path);
    let tampers: [(&str, Tamper); 5] = [
        ("a flipped bit", |code, _| {
            let mut bytes = fs::read(code).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::remove_file(code).unwrap();
            fs::write(code, bytes).unwrap();
            fs::set_permissions(code, fs::Permissions::from_mode(0o400)).unwrap();
        }),
        ("a truncated file", |code, _| {
            fs::set_permissions(code, fs::Permissions::from_mode(0o600)).unwrap();
            fs::File::options().write(true).open(code).unwrap().set_len(100).unwrap();
            fs::set_permissions(code, fs::Permissions::from_mode(0o400)).unwrap();
        }),
        ("a symbolic link", |code, _| {
            let moved = code.with_extension("moved");
            fs::rename(code, &moved).unwrap();
            symlink(&moved, code).unwrap();
        }),
        ("another mode", |code, _| {
            fs::set_permissions(code, fs::Permissions::from_mode(0o644)).unwrap();
        }),
        ("a forged record", |_, record| {
            let text = fs::read_to_string(record).unwrap().replace("core-command", "command");
            fs::write(record, text).unwrap();
        }),
    ];
    for (index, (what, tamper)) in tampers.into_iter().enumerate() {
        let [code, record] = files();
        tamper(&code, &record);
        bench.compiler.compile(&artifact).await.unwrap();
        assert_eq!(bench.compiler.compiled(), index as u64 + 2, "{what}");
        let _ = fs::remove_file(code.with_extension("moved"));
    }
}
