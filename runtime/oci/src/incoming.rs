use std::{
    fs::Permissions,
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
};

use runtime_api::{Artifact, ArtifactKind, Digest, Error, Result};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::{ArtifactStore, store::unwritable};

/// As much as tells what a file is.
const HEAD_BYTES: u64 = 8;
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
    /// Takes all of `reader`, whose failures `unreadable` explains. What is not WebAssembly is refused by its first
    /// bytes, before any file is made.
    pub(crate) fn receive(
        store: &ArtifactStore,
        reader: &mut dyn Read,
        unreadable: impl Fn(io::Error) -> Error,
    ) -> Result<Self> {
        let mut bytes = Vec::with_capacity(BUFFER_BYTES);
        reader.take(HEAD_BYTES).read_to_end(&mut bytes).map_err(&unreadable)?;
        let kind = ArtifactKind::sniff(&bytes).ok_or_else(|| refuse(&bytes))?;
        let folder = store.temporary_folder();
        let file = NamedTempFile::new_in(folder).map_err(|error| unwritable(folder, error))?;
        let mut incoming = Self { store: store.clone(), file, hasher: Sha256::new(), size_bytes: 0, kind };
        while !bytes.is_empty() {
            incoming.write(&bytes)?;
            bytes.clear();
            reader.take(BUFFER_BYTES as u64).read_to_end(&mut bytes).map_err(&unreadable)?;
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

/// Says what a file is that is not WebAssembly.
fn refuse(head: &[u8]) -> Error {
    let (code, message) = match head {
        [0x7f, b'E', b'L', b'F', ..] => (
            "precompiled",
            "the file is machine code (ELF: a program, or a precompiled .cwasm); only WebAssembly is taken, and compiled \
             here: give the .wasm file",
        ),
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => (
            "unsupported-artifact",
            "the module is compressed (gzip or zstd), which is not supported by this build: push the .wasm file as it is, \
             with `fawn push`",
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
