use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom, sink},
    os::unix::fs::FileExt,
    sync::Arc,
};

use runtime_api::{Error, Result};
use tar::Entries;

use crate::{
    compression::{decompress, is_compressed},
    image_layers::{is_file, normalized, refuse_sparse},
    image_layout::{INDEX, MARKER, unreadable},
    limits::{Limited, Limits},
};

/// Images of many platforms and layers have hundreds of files.
const MAX_ENTRIES: usize = 100_000;
/// A compressed archive has to be unpacked each time up to what is looked for: in all, so many times the module's limit.
const UNPACKED_PER_MODULE: u64 = 32;
const TOO_MUCH: &str =
    "the archive unpacks to more than is taken: give it uncompressed, or with the one image only";

/// A tar of an image layout, plain or compressed, which is never unpacked: known is where in it the files are.
pub(crate) struct Archive {
    file: Arc<File>,
    compressed: bool,
    /// Bytes that may still be unpacked, whatever for.
    limits: Arc<Limits>,
    places: HashMap<Vec<u8>, Place>,
}

/// Where the bytes of a file are in the unpacked archive.
#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    size_bytes: u64,
}

impl Archive {
    /// Reads the whole archive once, or only its headers where it is not compressed. Blocks on the disk.
    pub(crate) fn scan(file: File, max_module_bytes: u64) -> Result<Self> {
        let mut head = [0; 4];
        let file = Arc::new(file);
        let read = file.read_at(&mut head, 0).map_err(unreadable)?;
        let mut archive = Self {
            compressed: is_compressed(head.get(..read).unwrap_or_default()),
            limits: Arc::new(Limits::new(max_module_bytes.saturating_mul(UNPACKED_PER_MODULE), TOO_MUCH)),
            places: HashMap::new(),
            file,
        };
        let limits = archive.limits.clone();
        archive.places = if archive.compressed {
            let inner = archive.unpacked().map_err(unreadable)?;
            let mut tar = tar::Archive::new(Limited { inner, limits: limits.clone() });
            places(tar.entries().map_err(unreadable)?, &limits, true)?
        } else {
            let mut tar = tar::Archive::new(Limited { inner: archive.beginning(), limits: limits.clone() });
            places(tar.entries_with_seek().map_err(unreadable)?, &limits, false)?
        };
        Ok(archive)
    }

    /// A file of the archive.
    pub(crate) fn open(&self, name: &str) -> io::Result<Box<dyn Read>> {
        let place = self.places.get(name.as_bytes()).copied();
        let Place { offset, size_bytes } = place.ok_or(io::ErrorKind::NotFound)?;
        if !self.compressed {
            let start = Positioned { file: self.file.clone(), at: offset };
            return Ok(Box::new(start.take(size_bytes)));
        }
        let mut unpacked = Limited { inner: self.unpacked()?, limits: self.limits.clone() };
        io::copy(&mut unpacked.by_ref().take(offset), &mut sink())?;
        Ok(Box::new(unpacked.take(size_bytes)))
    }

    fn beginning(&self) -> Positioned {
        Positioned { file: self.file.clone(), at: 0 }
    }

    fn unpacked(&self) -> io::Result<Box<dyn Read>> {
        decompress(self.beginning())
    }
}

/// Notes where the files of a layout are. Of two of one name the last counts, as it does when a tar is unpacked.
fn places<R: Read>(
    mut entries: Entries<'_, R>,
    limits: &Limits,
    skip: bool,
) -> Result<HashMap<Vec<u8>, Place>> {
    let mut places = HashMap::new();
    for _ in 0..MAX_ENTRIES {
        let next = limits.within_header(|| entries.next().transpose()).map_err(unreadable)?;
        let Some(mut entry) = next else { return Ok(places) };
        refuse_sparse(&entry, "the archive")?;
        let name = normalized(&entry.path_bytes());
        if is_file(entry.header().entry_type()) && is_of_layout(&name) {
            places.insert(name, Place { offset: entry.raw_file_position(), size_bytes: entry.size() });
        }
        if skip {
            io::copy(&mut entry, &mut sink()).map_err(unreadable)?;
        }
    }
    Err(Error::invalid("too-large", format!("the archive has more than {MAX_ENTRIES} files")))
}

fn is_of_layout(name: &[u8]) -> bool {
    const BLOB_NAME_BYTES: usize = "blobs/sha256/".len() + 64;
    let is_blob = name.len() == BLOB_NAME_BYTES && name.starts_with(b"blobs/sha256/");
    is_blob || name == MARKER.as_bytes() || name == INDEX.as_bytes()
}

/// A file that is read from a place of its own.
struct Positioned {
    file: Arc<File>,
    at: u64,
}

impl Read for Positioned {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Positioned {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.file.metadata()?.len().checked_add_signed(by),
        };
        self.at = to.ok_or_else(|| io::Error::other("the archive names a place that no file has"))?;
        Ok(self.at)
    }
}
