//! What the numbers of descriptors stand for: the three streams, and the files that the function may read.

use wasmtime::{Caller, Linker};

use super::{
    PREVIEW1, Process,
    abi::{Errno, GuestMemory, Outcome, flags, trap},
    enter,
};
use crate::secrets::{DIRECTORY_INODE, Directory, File, Node};

/// Descriptors that one call may have open.
const MAX_OPEN: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdin,
    Stdout,
    Stderr,
}

pub(super) enum Descriptor {
    Stream(Stream),
    /// The one directory that there is; a guest finds it by asking which are open before it runs.
    Directory {
        preopened: bool,
    },
    File(Box<OpenFile>),
}

pub(super) struct OpenFile {
    pub(super) file: File,
    pub(super) position: u64,
}

/// The streams have places of their own, so that a call without files allocates nothing for them.
pub(super) struct Descriptors {
    streams: [Option<Descriptor>; 3],
    files: Vec<Option<Descriptor>>,
}

impl Descriptors {
    pub(super) fn new(directory: Option<&Directory>) -> Self {
        let stream = |stream| Some(Descriptor::Stream(stream));
        Self {
            streams: [stream(Stream::Stdin), stream(Stream::Stdout), stream(Stream::Stderr)],
            files: directory.map(|_| Some(Descriptor::Directory { preopened: true })).into_iter().collect(),
        }
    }

    fn place(&mut self, fd: u32) -> Option<&mut Option<Descriptor>> {
        let Self { streams, files } = self;
        match (fd as usize).checked_sub(streams.len()) {
            Some(index) => files.get_mut(index),
            None => streams.get_mut(fd as usize),
        }
    }

    pub(super) fn get(&self, fd: u32) -> Outcome<&Descriptor> {
        let place = match (fd as usize).checked_sub(self.streams.len()) {
            Some(index) => self.files.get(index),
            None => self.streams.get(fd as usize),
        };
        place.and_then(Option::as_ref).ok_or(Errno::Badf.into())
    }

    pub(super) fn get_mut(&mut self, fd: u32) -> Outcome<&mut Descriptor> {
        self.place(fd).and_then(Option::as_mut).ok_or(Errno::Badf.into())
    }

    /// A file, and nothing else that is open.
    pub(super) fn file_mut(&mut self, fd: u32) -> Outcome<&mut OpenFile> {
        match self.get_mut(fd)? {
            Descriptor::File(file) => Ok(file),
            Descriptor::Stream(_) | Descriptor::Directory { .. } => Err(Errno::Badf.into()),
        }
    }

    /// Whether this is the directory.
    pub(super) fn directory(&self, fd: u32) -> Outcome<()> {
        match self.get(fd)? {
            Descriptor::Directory { .. } => Ok(()),
            Descriptor::Stream(_) | Descriptor::File(_) => Err(Errno::Badf.into()),
        }
    }

    /// Opens what was found, under the lowest number that is free, as `open(2)` does.
    pub(super) fn open(&mut self, node: Node) -> Outcome<usize> {
        let descriptor = match node {
            Node::Directory => Descriptor::Directory { preopened: false },
            Node::File(file) => Descriptor::File(Box::new(OpenFile { file, position: 0 })),
        };
        let places = self.streams.iter_mut().chain(&mut self.files).enumerate();
        for (number, place) in places {
            if place.is_none() {
                *place = Some(descriptor);
                return Ok(number);
            }
        }
        let number = self.streams.len() + self.files.len();
        if number == MAX_OPEN {
            return Err(Errno::Mfile.into());
        }
        self.files.push(Some(descriptor));
        Ok(number)
    }

    fn close(&mut self, fd: u32) -> Outcome<Descriptor> {
        self.place(fd).and_then(Option::take).ok_or(Errno::Badf.into())
    }

    fn renumber(&mut self, from: u32, to: u32) -> Outcome<()> {
        self.get(to)?;
        let moved = self.close(from)?;
        if let Some(place) = self.place(to) {
            *place = Some(moved);
        }
        Ok(())
    }
}

// Rights that descriptors have, and how many there are (WASI preview 1, `rights`).
const FD_READ: u64 = 1 << 1;
const FD_SEEK: u64 = 1 << 2;
const FD_TELL: u64 = 1 << 5;
pub(super) const FD_WRITE: u64 = 1 << 6;
const PATH_OPEN: u64 = 1 << 13;
const FD_READDIR: u64 = 1 << 14;
const PATH_READLINK: u64 = 1 << 15;
const PATH_FILESTAT_GET: u64 = 1 << 18;
const FD_FILESTAT_GET: u64 = 1 << 21;
const POLL_FD_READWRITE: u64 = 1 << 27;
pub(super) const RIGHTS: u32 = 30;

const FILE: u64 = FD_READ | FD_SEEK | FD_TELL | FD_FILESTAT_GET | POLL_FD_READWRITE;
const DIRECTORY: u64 = PATH_OPEN | FD_READDIR | PATH_READLINK | PATH_FILESTAT_GET | FD_FILESTAT_GET;

// Kinds of files (WASI preview 1, `filetype`). A stream is of no kind that has a name.
const UNKNOWN: u8 = 0;
pub(super) const A_DIRECTORY: u8 = 3;
pub(super) const A_REGULAR_FILE: u8 = 4;

pub(super) const FDFLAGS: u32 = 5;

pub(super) fn link(linker: &mut Linker<Process>) -> wasmtime::Result<()> {
    type Guest<'a> = Caller<'a, Process>;
    linker.func_wrap(PREVIEW1, "fd_close", |guest: Guest<'_>, fd: u32| {
        enter(guest, |process, _| process.descriptors.close(fd).map(drop))
    })?;
    linker.func_wrap(PREVIEW1, "fd_renumber", |guest: Guest<'_>, from: u32, to: u32| {
        enter(guest, |process, _| process.descriptors.renumber(from, to))
    })?;
    linker.func_wrap(PREVIEW1, "fd_fdstat_get", |guest: Guest<'_>, fd: u32, stat: u32| {
        enter(guest, |process, memory| {
            let (kind, base, inheriting) = match process.descriptors.get(fd)? {
                Descriptor::Stream(Stream::Stdin) => (UNKNOWN, FD_READ, FD_READ),
                Descriptor::Stream(_) => (UNKNOWN, FD_WRITE, FD_WRITE),
                Descriptor::File(_) => (A_REGULAR_FILE, FILE, FILE),
                // A C library asks for no more than what is inherited: to be told that it cannot write, it has to ask.
                Descriptor::Directory { .. } => (A_DIRECTORY, DIRECTORY, DIRECTORY | FILE | FD_WRITE),
            };
            write_fdstat(memory, stat as usize, kind, [base, inheriting])
        })
    })?;
    linker.func_wrap(PREVIEW1, "fd_filestat_get", |guest: Guest<'_>, fd: u32, stat: u32| {
        enter(guest, |process, memory| match process.descriptors.get(fd)? {
            Descriptor::Stream(_) => write_filestat(memory, stat as usize, UNKNOWN, [0; 4]),
            Descriptor::Directory { .. } => write_stat_of(memory, stat as usize, &Node::Directory),
            Descriptor::File(open) => write_stat_of(memory, stat as usize, &Node::File(open.file.clone())),
        })
    })?;
    link_sockets(linker)
}

impl Process {
    fn socket(&self, fd: u32) -> Outcome<()> {
        match self.descriptors.get(fd)? {
            Descriptor::Stream(_) | Descriptor::File(_) => Err(Errno::Notsock.into()),
            Descriptor::Directory { .. } => Err(Errno::Badf.into()),
        }
    }
}

fn write_fdstat(memory: &mut GuestMemory<'_>, at: usize, kind: u8, rights: [u64; 2]) -> Outcome<()> {
    let [base, inheriting] = rights;
    memory.put_u8(at, kind)?;
    // Without flags.
    memory.put_u16(at + 2, 0)?;
    memory.put_u64(at + 8, base)?;
    memory.put_u64(at + 16, inheriting)
}

/// What there is to tell of a file or the directory. Nobody knows how old a secret is.
pub(super) fn write_stat_of(memory: &mut GuestMemory<'_>, at: usize, node: &Node) -> Outcome<()> {
    let kind = if node.inode() == DIRECTORY_INODE { A_DIRECTORY } else { A_REGULAR_FILE };
    write_filestat(memory, at, kind, [1, node.inode(), 1, node.size_bytes()])
}

fn write_filestat(memory: &mut GuestMemory<'_>, at: usize, kind: u8, numbers: [u64; 4]) -> Outcome<()> {
    let [device, inode, links, size_bytes] = numbers;
    memory.put_u8(at + 16, kind)?;
    for (offset, value) in [(0, device), (8, inode), (24, links), (32, size_bytes), (40, 0), (48, 0), (56, 0)]
    {
        memory.put_u64(at + offset, value)?;
    }
    Ok(())
}

fn link_sockets(linker: &mut Linker<Process>) -> wasmtime::Result<()> {
    type Guest<'a> = Caller<'a, Process>;
    linker.func_wrap(PREVIEW1, "sock_accept", |guest: Guest<'_>, fd: u32, set: u32, _: u32| {
        enter(guest, |process, _| {
            flags(set.into(), FDFLAGS)?;
            process.socket(fd)
        })
    })?;
    linker.func_wrap(
        PREVIEW1,
        "sock_recv",
        |guest: Guest<'_>, fd: u32, _: u32, _: u32, set: u32, _: u32, _: u32| {
            enter(guest, |process, _| {
                flags(set.into(), 2)?;
                process.socket(fd)
            })
        },
    )?;
    linker.func_wrap(
        PREVIEW1,
        "sock_send",
        |guest: Guest<'_>, fd: u32, _: u32, _: u32, set: u32, _: u32| {
            enter(guest, |process, _| {
                u16::try_from(set).map_err(|_| trap("si_flags has more than 16 bits"))?;
                process.socket(fd)
            })
        },
    )?;
    linker.func_wrap(PREVIEW1, "sock_shutdown", |guest: Guest<'_>, fd: u32, how: u32| {
        enter(guest, |process, _| {
            flags(how.into(), 2)?;
            process.socket(fd)
        })
    })?;
    Ok(())
}
