use std::{
    io::{self, Read, sink},
    sync::Arc,
};

use runtime_api::{Error, Result};
use tar::{Archive, Entry, EntryType};

use crate::{
    ArtifactStore,
    compression::decompress,
    incoming::Incoming,
    limits::{Limited, Limits},
};

const TOO_MUCH: &str =
    "the image's layers unpack to more than is taken: put the .wasm file into a layer of its own";

/// An entry of a layer, as [`walk`] passes it.
pub(crate) type LayerEntry<'a> = Entry<'a, Limited<Box<dyn Read>>>;

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
    let (mut removed, mut found) = (false, None);
    let budget_bytes = walk(layer, budget_bytes, |name, entry, limits| {
        match relation(name, path.as_bytes()) {
            Relation::Same if found.is_some() => return Err(twice(name)),
            Relation::Same => found = Some(read_file(entry, path, limits, store)?),
            Relation::Above => refuse_links(entry, name, path)?,
            Relation::Removes => removed = true,
            Relation::None => {}
        }
        Ok(())
    })?;
    Ok(match found {
        Some(file) => Finding::File(file),
        None if removed => Finding::Removed,
        None => Finding::Untouched { budget_bytes },
    })
}

/// Passes each entry of a layer to `visit`, under its normalized path, and answers how many of `budget_bytes` are left.
/// What `visit` unpacks further, it counts against the limits that it is given.
pub(crate) fn walk(
    layer: impl Read + 'static,
    budget_bytes: u64,
    mut visit: impl FnMut(&[u8], &mut LayerEntry<'_>, &Arc<Limits>) -> Result<()>,
) -> Result<u64> {
    let limits = Arc::new(Limits::new(budget_bytes, TOO_MUCH));
    let contents: Box<dyn Read> = decompress(layer).map_err(unreadable)?;
    let mut archive = Archive::new(Limited { inner: contents, limits: limits.clone() });
    let mut entries = archive.entries().map_err(unreadable)?;
    loop {
        let next = limits.within_header(|| entries.next().transpose()).map_err(unreadable)?;
        let Some(mut entry) = next else { break };
        let name = normalized(&entry.path_bytes());
        visit(&name, &mut entry, &limits)?;
        skip_rest(&mut entry)?;
    }
    // Behind the archive's end there is padding at least, and it belongs to the digest.
    io::copy(&mut archive.into_inner(), &mut sink()).map_err(unreadable)?;
    Ok(limits.left())
}

fn read_file(
    entry: &mut LayerEntry<'_>,
    path: &str,
    limits: &Arc<Limits>,
    store: &ArtifactStore,
) -> Result<Incoming> {
    let kind = entry.header().entry_type();
    if !is_file(kind) {
        let message = format!(
            "the image's /{path} is {}, where a file is expected: copy the .wasm itself",
            named(kind)
        );
        return Err(Error::invalid("unsupported-artifact", message));
    }
    Incoming::receive_one_of_many(store, entry, limits, unreadable)
}

/// What to say of a file that one layer has twice, so that each would have to be received for the last to count.
pub(crate) fn twice(path: &[u8]) -> Error {
    let path = String::from_utf8_lossy(path);
    Error::invalid(
        "invalid-layer",
        format!("a layer of the image has /{path} more than once: build it again"),
    )
}

/// Whether an entry is a file with its data behind it.
pub(crate) fn is_file(kind: EntryType) -> bool {
    matches!(kind, EntryType::Regular | EntryType::Continuous)
}

fn refuse_links(entry: &LayerEntry<'_>, name: &[u8], path: &str) -> Result<()> {
    let kind = entry.header().entry_type();
    if kind == EntryType::Directory {
        return Ok(());
    }
    let above = String::from_utf8_lossy(name);
    let message = format!(
        "the entrypoint /{path} lies under /{above}, which is {}: name its real path in ENTRYPOINT",
        named(kind)
    );
    Err(Error::invalid("unsupported-artifact", message))
}

/// Refuses an entry of a tar that has holes: they are read as zeros of any number, which nothing counts.
pub(crate) fn refuse_sparse(entry: &Entry<'_, impl Read>, what: &str) -> Result<()> {
    if entry.header().entry_type() == EntryType::GNUSparse {
        let message = format!("{what} has a sparse file in it: build it again");
        return Err(Error::invalid("unsupported-artifact", message));
    }
    Ok(())
}

/// Passes over an entry's data, so that what is read next is a header.
fn skip_rest(entry: &mut LayerEntry<'_>) -> Result<()> {
    refuse_sparse(entry, "the image's layer")?;
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

pub(crate) fn unreadable(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::FileTooLarge {
        return Error::invalid("too-large", error.to_string());
    }
    Error::invalid("invalid-layer", format!("a layer of the image cannot be read: {error}"))
}

/// How the path of an entry relates to the file that is looked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    Same,
    Above,
    Removes,
    None,
}

pub(crate) fn relation(entry: &[u8], wanted: &[u8]) -> Relation {
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
pub(crate) fn normalized(path: &[u8]) -> Vec<u8> {
    path.split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty() && part != b".")
        .collect::<Vec<_>>()
        .join(&b'/')
}

#[cfg(test)]
mod tests;
