use std::{
    fs::Permissions,
    io::{self, Cursor, Read, Write},
    os::unix::fs::PermissionsExt,
    sync::Arc,
};

use runtime_api::{Artifact, ArtifactKind, Digest, Error, Result};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::{
    ArtifactStore,
    compression::{decompress, is_compressed},
    limits::{Limited, Limits},
    store::unwritable,
};

/// As much as tells what a file is.
const HEAD_BYTES: usize = 8;
const BUFFER_BYTES: usize = 64 << 10;

/// A module on its way into the store: a temporary file until [`Incoming::keep`], and gone if dropped before.
pub(crate) struct Incoming {
    store: ArtifactStore,
    file: NamedTempFile,
    hasher: Sha256,
    size_bytes: u64,
    kind: ArtifactKind,
}

impl Incoming {
    /// Takes all of `reader`, whose failures `unreadable` explains. A module that is wrapped in gzip or zstd is unwrapped,
    /// once. What is not WebAssembly is refused by its first bytes, before any file is made.
    pub(crate) fn receive(
        store: &ArtifactStore,
        reader: &mut dyn Read,
        unreadable: impl Fn(io::Error) -> Error,
    ) -> Result<Self> {
        // One module is bounded by what a module may have.
        let unwrapped = Arc::new(Limits::new(u64::MAX, ""));
        Self::receive_one_of_many(store, reader, &unwrapped, unreadable)
    }

    /// The same for a file of an archive, which may have many: what they unwrap to counts against `unwrapped`, as what
    /// the archive unpacks to does.
    pub(crate) fn receive_one_of_many(
        store: &ArtifactStore,
        mut reader: &mut dyn Read,
        unwrapped: &Arc<Limits>,
        unreadable: impl Fn(io::Error) -> Error,
    ) -> Result<Self> {
        let head = read_up_to(&mut reader, HEAD_BYTES).map_err(&unreadable)?;
        if !is_compressed(&head) {
            return Self::receive_plain(store, head, reader, unreadable);
        }
        let inner = decompress(Cursor::new(head).chain(reader)).map_err(&unreadable)?;
        let mut plain = Limited { inner, limits: unwrapped.clone() };
        let head = read_up_to(&mut plain, HEAD_BYTES).map_err(&unreadable)?;
        Self::receive_plain(store, head, &mut plain, unreadable)
    }

    fn receive_plain(
        store: &ArtifactStore,
        head: Vec<u8>,
        mut reader: &mut dyn Read,
        unreadable: impl Fn(io::Error) -> Error,
    ) -> Result<Self> {
        let kind = ArtifactKind::sniff(&head).ok_or_else(|| refuse(&head))?;
        let folder = store.temporary_folder();
        let file = NamedTempFile::new_in(folder).map_err(|error| unwritable(folder, error))?;
        let mut incoming = Self { store: store.clone(), file, hasher: Sha256::new(), size_bytes: 0, kind };
        let mut bytes = head;
        while !bytes.is_empty() {
            incoming.write(&bytes)?;
            bytes = read_up_to(&mut reader, BUFFER_BYTES).map_err(&unreadable)?;
        }
        Ok(incoming)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.size_bytes += bytes.len() as u64;
        let limit = self.store.max_module_bytes();
        if self.size_bytes > limit {
            let message = format!("the module is larger than {limit} bytes, the limit here");
            return Err(Error::invalid("too-large", message));
        }
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(|error| unwritable(self.file.path(), error))
    }

    /// Puts the module in place, durably, under its own digest. Whatever it came from must have been checked before.
    pub(crate) fn keep(self) -> Result<Artifact> {
        let digest = Digest(self.hasher.finalize().into());
        let path = self.store.module_path(&digest);
        let persist = || {
            self.file.as_file().set_permissions(Permissions::from_mode(0o400))?;
            self.file.as_file().sync_all()?;
            self.store.count(self.size_bytes);
            let ages = self.store.ages();
            self.file.persist(&path)?;
            drop(ages);
            runtime_store::sync_directory(self.store.module_folder())
        };
        persist().map_err(|error| unwritable(&path, error))?;
        Ok(Artifact {
            digest,
            size_bytes: self.size_bytes,
            kind: self.kind,
            args: Vec::new(),
            env: Vec::new(),
            path,
        })
    }
}

fn read_up_to(reader: &mut dyn Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(limit);
    reader.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What to say of a module that cannot be read to its end: one that is wrapped, since anything else reads.
pub(crate) fn damaged(error: io::Error) -> Error {
    Error::invalid(
        "not-wasm",
        format!("the module is compressed, and cannot be unpacked: {error}; push it again"),
    )
}

/// Says what a file is that is not WebAssembly.
fn refuse(head: &[u8]) -> Error {
    let (code, message) = match head {
        [0x7f, b'E', b'L', b'F', ..] => (
            "precompiled",
            "the file is machine code (ELF: a program, or a precompiled .cwasm); only WebAssembly is taken, and compiled \
             here: give the .wasm file",
        ),
        head if is_compressed(head) => (
            "not-wasm",
            "the module is compressed more than once (gzip or zstd), and is unpacked once: push the .wasm file as it is",
        ),
        [0, b'a', b's', b'm', ..] => (
            "not-wasm",
            "the file is WebAssembly of a version that is not supported: build a core module (version 1) or a component \
             (version 13)",
        ),
        _ => ("not-wasm", "the file is not WebAssembly: a .wasm file begins with the bytes 00 61 73 6d"),
    };
    Error::invalid(code, message)
}
