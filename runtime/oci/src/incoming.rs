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
const HEAD_BYTES: usize = 8;

/// A module on its way into the store: a temporary file until [`Incoming::keep`], and gone if dropped before.
pub(crate) struct Incoming {
    store: ArtifactStore,
    file: NamedTempFile,
    hasher: Sha256,
    size_bytes: u64,
    head: Vec<u8>,
}

impl Incoming {
    pub(crate) fn new(store: &ArtifactStore) -> Result<Self> {
        let file = NamedTempFile::new_in(store.temporary_folder())
            .map_err(|error| unwritable(store.temporary_folder(), error))?;
        Ok(Self { store: store.clone(), file, hasher: Sha256::new(), size_bytes: 0, head: Vec::new() })
    }

    /// Takes all of `reader`, whose failures `unreadable` explains.
    pub(crate) fn take(
        &mut self,
        reader: &mut dyn Read,
        unreadable: impl Fn(io::Error) -> Error,
    ) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(error)),
            };
            self.write(buffer.get(..read).unwrap_or_default())?;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.size_bytes += bytes.len() as u64;
        let limit = self.store.max_module_bytes();
        if self.size_bytes > limit {
            return Err(Error::invalid(
                "too-large",
                format!("the module is larger than {limit} bytes, the limit here"),
            ));
        }
        self.sniff(bytes)?;
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(|error| unwritable(self.file.path(), error))
    }

    /// Refuses what is not WebAssembly as soon as its first bytes are there.
    fn sniff(&mut self, bytes: &[u8]) -> Result<()> {
        let missing = HEAD_BYTES - self.head.len();
        if missing > 0 {
            self.head.extend(bytes.iter().take(missing));
            if self.head.len() == HEAD_BYTES {
                self.kind()?;
            }
        }
        Ok(())
    }

    fn kind(&self) -> Result<ArtifactKind> {
        ArtifactKind::sniff(&self.head).ok_or_else(|| refuse(&self.head))
    }

    /// Puts the module in place, durably, under its own digest. Whatever it came from must have been checked before.
    pub(crate) fn keep(self) -> Result<Artifact> {
        let kind = self.kind()?;
        let digest = Digest(self.hasher.finalize().into());
        let path = self.store.module_path(&digest);
        let persist = || {
            self.file.as_file().set_permissions(Permissions::from_mode(0o400))?;
            self.file.as_file().sync_all()?;
            self.file.persist(&path)?;
            runtime_store::sync_directory(self.store.module_folder())
        };
        persist().map_err(|error| unwritable(&path, error))?;
        Ok(Artifact { digest, size_bytes: self.size_bytes, kind, args: Vec::new(), env: Vec::new(), path })
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
