use std::{
    fs::File,
    io,
    path::{Component, Path},
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
};

/// A pipe in place of a file must not keep its opener waiting.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// A folder that files are read from.
pub(crate) struct Folder {
    root: File,
    links: Links,
}

/// Whether symbolic links in a folder lead anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// To where they point: the folder is its reader's own.
    Followed,
    /// Nowhere: what is in the folder may not choose what is read.
    Refused,
}

impl Folder {
    /// Opens a folder, which may itself be a link.
    pub(crate) fn at(path: &Path, links: Links) -> io::Result<Self> {
        let root = File::from(openat(CWD, path, READ | OFlags::DIRECTORY, Mode::empty())?);
        Ok(Self { root, links })
    }

    /// A folder in this one, to which the same applies.
    pub(crate) fn folder(&self, path: &Path) -> io::Result<Self> {
        let root = self.entry(path)?;
        if !root.metadata()?.is_dir() {
            return Err(Errno::NOTDIR.into());
        }
        Ok(Self { root, links: self.links })
    }

    /// A file in this folder.
    pub(crate) fn open(&self, path: &Path) -> io::Result<File> {
        let file = self.entry(path)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
    }

    fn entry(&self, path: &Path) -> io::Result<File> {
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(io::Error::other("the path leads out of its folder"));
        }
        if self.links == Links::Followed {
            return Ok(File::from(openat(&self.root, path, READ, Mode::empty())?));
        }
        let mut here = self.root.try_clone()?;
        for part in path.components() {
            let opened = openat(&here, part.as_os_str(), READ | OFlags::NOFOLLOW, Mode::empty());
            here = File::from(opened.map_err(|error| match error {
                Errno::LOOP => {
                    io::Error::other("it is, or lies under, a symbolic link, which is not followed")
                }
                error => error.into(),
            })?);
        }
        Ok(here)
    }
}
