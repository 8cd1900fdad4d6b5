use std::{
    cell::Cell,
    io::{self, BufReader, Cursor, Read, sink},
    rc::Rc,
};

use flate2::read::MultiGzDecoder;
use runtime_api::{Error, Result};
use tar::{Archive, Entry, EntryType};

use crate::{ArtifactStore, incoming::Incoming};

/// What the headers of one tar entry may take: long names and PAX records are read into memory as a whole.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// The zstd window is memory that a layer asks for; no encoder's usual levels need more than 32 MiB.
const MAX_ZSTD_WINDOW_LOG: u32 = 25;

const TOO_MUCH: &str =
    "the image's layers unpack to more than is taken: put the .wasm file into a layer of its own";
const LONG_HEADER: &str = "the name of a file in the image's layer is too long";

/// What one layer says about the file that is looked for.
pub(crate) enum Finding {
    /// It has the file.
    File(Incoming),
    /// It removes what lower layers have of it.
    Removed,
    /// It does not touch it; so many bytes may still be unpacked from lower layers.
    Untouched { budget_bytes: u64 },
}

/// Looks for one file in a layer, reading all of it but keeping nothing else. Layers are asked from the top down, so
/// that the first one to know the file is the one that counts (OCI image-spec, "Applying Changesets").
pub(crate) fn search(
    layer: impl Read + 'static,
    path: &str,
    budget_bytes: u64,
    store: &ArtifactStore,
) -> Result<Finding> {
    let limits = Rc::new(Limits { total: Cell::new(budget_bytes), header: Cell::new(MAX_HEADER_BYTES) });
    let contents = Limited { inner: decompress(layer).map_err(unreadable)?, limits: limits.clone() };
    let mut archive = Archive::new(contents);
    let mut removed = false;
    let mut found = None;
    let mut entries = archive.entries().map_err(unreadable)?;
    loop {
        limits.header.set(MAX_HEADER_BYTES);
        let next = entries.next().transpose().map_err(unreadable)?;
        limits.header.set(u64::MAX);
        let Some(mut entry) = next else { break };
        match relation(&normalized(&entry.path_bytes()), path) {
            Relation::Same => found = Some(read_file(&mut entry, path, store)?),
            Relation::Above => refuse_links(&entry, path)?,
            Relation::Removes => removed = true,
            Relation::None => {}
        }
        skip_rest(&mut entry)?;
    }
    // Behind the archive's end there is padding at least, and it belongs to the digest.
    io::copy(&mut archive.into_inner(), &mut sink()).map_err(unreadable)?;
    Ok(match found {
        Some(file) => Finding::File(file),
        None if removed => Finding::Removed,
        None => Finding::Untouched { budget_bytes: limits.total.get() },
    })
}

fn read_file(entry: &mut Entry<'_, Limited>, path: &str, store: &ArtifactStore) -> Result<Incoming> {
    let kind = entry.header().entry_type();
    if !matches!(kind, EntryType::Regular | EntryType::Continuous) {
        let message = format!(
            "the image's /{path} is {}, where a file is expected: copy the .wasm itself",
            named(kind)
        );
        return Err(Error::invalid("unsupported-artifact", message));
    }
    Incoming::receive(store, entry, unreadable)
}

fn refuse_links(entry: &Entry<'_, Limited>, path: &str) -> Result<()> {
    let kind = entry.header().entry_type();
    if kind == EntryType::Directory {
        return Ok(());
    }
    let above = String::from_utf8_lossy(&normalized(&entry.path_bytes())).into_owned();
    let message = format!(
        "the entrypoint /{path} lies under /{above}, which is {}: name its real path in ENTRYPOINT",
        named(kind)
    );
    Err(Error::invalid("unsupported-artifact", message))
}

/// Passes over an entry's data, so that what is read next is a header. A sparse file would unpack to any size.
fn skip_rest(entry: &mut Entry<'_, Limited>) -> Result<()> {
    if entry.header().entry_type() == EntryType::GNUSparse {
        return Err(Error::invalid(
            "unsupported-artifact",
            "the image's layer has a sparse file in it: build it again",
        ));
    }
    io::copy(entry, &mut sink()).map(drop).map_err(unreadable)
}

fn named(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Directory => "a directory",
        EntryType::Symlink => "a symbolic link",
        EntryType::Link => "a hard link",
        _ => "a special file",
    }
}

fn unreadable(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::FileTooLarge {
        return Error::invalid("too-large", error.to_string());
    }
    Error::invalid("invalid-layer", format!("a layer of the image cannot be read: {error}"))
}

/// How the path of an entry relates to the file that is looked for.
#[derive(Debug, PartialEq, Eq)]
enum Relation {
    Same,
    Above,
    Removes,
    None,
}

fn relation(entry: &[u8], wanted: &str) -> Relation {
    let wanted = wanted.as_bytes();
    let is_above =
        |path: &[u8]| path.is_empty() || wanted.strip_prefix(path).is_some_and(|rest| rest.starts_with(b"/"));
    let (folder, name) = match entry.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (entry.get(..slash).unwrap_or_default(), entry.get(slash + 1..).unwrap_or_default()),
        None => (&[][..], entry),
    };
    // Whiteouts (OCI image-spec, "Whiteouts"): an opaque one hides the folder it is in, others what they are named after.
    if name == b".wh..wh..opq" {
        return if is_above(folder) { Relation::Removes } else { Relation::None };
    }
    if let Some(hidden) = name.strip_prefix(b".wh.") {
        let hidden = if folder.is_empty() { hidden.to_vec() } else { [folder, b"/", hidden].concat() };
        return if hidden == wanted || is_above(&hidden) { Relation::Removes } else { Relation::None };
    }
    match entry {
        entry if entry == wanted => Relation::Same,
        [] => Relation::None,
        entry if is_above(entry) => Relation::Above,
        _ => Relation::None,
    }
}

/// Without what `./`, `//` and a leading slash add. A path with `..` in it stays as it is and matches nothing.
fn normalized(path: &[u8]) -> Vec<u8> {
    path.split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty() && part != b".")
        .collect::<Vec<_>>()
        .join(&b'/')
}

/// Told by the first bytes, since media types and content do not always agree.
fn decompress(mut layer: impl Read + 'static) -> io::Result<Box<dyn Read>> {
    let mut head = Vec::new();
    layer.by_ref().take(4).read_to_end(&mut head)?;
    let layer = BufReader::with_capacity(64 << 10, Cursor::new(head.clone()).chain(layer));
    Ok(match head.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(layer)),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let mut decoder = zstd::Decoder::with_buffer(layer)?;
            decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        _ => Box::new(layer),
    })
}

/// How much may still be read, in all and for the headers of an entry.
struct Limits {
    total: Cell<u64>,
    header: Cell<u64>,
}

/// What a layer unpacks to, up to its limits.
struct Limited {
    inner: Box<dyn Read>,
    limits: Rc<Limits>,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        for (limit, what) in [(&self.limits.total, TOO_MUCH), (&self.limits.header, LONG_HEADER)] {
            let left = limit.get().checked_sub(read as u64);
            limit.set(left.ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, what))?);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
