//! The three streams, by their numbers. There are no files: whatever asks for one gets `badf`.

use wasmtime::{Caller, Linker};

use super::{
    PREVIEW1, Process,
    abi::{Errno, GuestMemory, Outcome, case, flags, trap},
    enter,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdin,
    Stdout,
    Stderr,
}

/// What the numbers 0 to 2 stand for. Nothing can be opened, so no other number ever stands for anything.
pub(super) struct Descriptors([Option<Stream>; 3]);

impl Descriptors {
    pub(super) fn new() -> Self {
        Self([Some(Stream::Stdin), Some(Stream::Stdout), Some(Stream::Stderr)])
    }

    pub(super) fn get(&self, fd: u32) -> Outcome<Stream> {
        let stream = self.0.get(fd as usize).copied().flatten();
        stream.ok_or(Errno::Badf.into())
    }

    fn close(&mut self, fd: u32) -> Outcome<Stream> {
        let stream = self.0.get_mut(fd as usize).and_then(Option::take);
        stream.ok_or(Errno::Badf.into())
    }

    fn renumber(&mut self, from: u32, to: u32) -> Outcome<()> {
        self.get(to)?;
        let stream = self.close(from)?;
        if let Some(place) = self.0.get_mut(to as usize) {
            *place = Some(stream);
        }
        Ok(())
    }
}

// Rights that a stream has, and how many there are (WASI preview 1, `rights`).
const FD_READ: u64 = 1 << 1;
const FD_WRITE: u64 = 1 << 6;
const RIGHTS: u32 = 30;

const FDFLAGS: u32 = 5;

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
            let rights = if process.descriptors.get(fd)? == Stream::Stdin { FD_READ } else { FD_WRITE };
            write_fdstat(memory, stat as usize, rights)
        })
    })?;
    linker.func_wrap(PREVIEW1, "fd_filestat_get", |guest: Guest<'_>, fd: u32, stat: u32| {
        enter(guest, |process, memory| {
            process.descriptors.get(fd)?;
            write_filestat(memory, stat as usize)
        })
    })?;
    linker.func_wrap(PREVIEW1, "fd_seek", |guest: Guest<'_>, fd: u32, _: i64, whence: u32, _: u32| {
        enter(guest, |process, _| {
            case(whence, 3)?;
            process.seekable(fd)
        })
    })?;
    linker.func_wrap(PREVIEW1, "fd_tell", |guest: Guest<'_>, fd: u32, _: u32| {
        enter(guest, |process, _| process.seekable(fd))
    })?;
    linker.func_wrap(PREVIEW1, "fd_fdstat_set_flags", |guest: Guest<'_>, fd: u32, set: u32| {
        enter(guest, |process, _| {
            flags(set.into(), FDFLAGS)?;
            process.file(fd)
        })
    })?;
    linker.func_wrap(
        PREVIEW1,
        "fd_fdstat_set_rights",
        |guest: Guest<'_>, fd: u32, base: u64, inheriting: u64| {
            enter(guest, |process, _| {
                flags(base, RIGHTS)?;
                flags(inheriting, RIGHTS)?;
                process.file(fd)
            })
        },
    )?;
    linker.func_wrap(PREVIEW1, "fd_prestat_get", |guest: Guest<'_>, fd: u32, _: u32| {
        // This is what ends a C library's search for directories.
        enter(guest, |process, _| process.file(fd))
    })?;
    linker.func_wrap(PREVIEW1, "fd_prestat_dir_name", |guest: Guest<'_>, fd: u32, _: u32, _: u32| {
        enter(guest, |process, _| {
            process.descriptors.get(fd)?;
            Err(Errno::Notdir.into())
        })
    })?;
    link_files(linker)?;
    link_sockets(linker)
}

impl Process {
    /// A file of this number; there is none.
    pub(super) fn file(&self, _fd: u32) -> Outcome<()> {
        Err(Errno::Badf.into())
    }

    /// A stream has no position.
    fn seekable(&self, fd: u32) -> Outcome<()> {
        self.descriptors.get(fd)?;
        Err(Errno::Spipe.into())
    }

    fn socket(&self, fd: u32) -> Outcome<()> {
        self.descriptors.get(fd)?;
        Err(Errno::Notsock.into())
    }
}

fn write_fdstat(memory: &mut GuestMemory<'_>, at: usize, rights: u64) -> Outcome<()> {
    // Of no type that has a name, and without flags.
    memory.put_u8(at, 0)?;
    memory.put_u16(at + 2, 0)?;
    memory.put_u64(at + 8, rights)?;
    memory.put_u64(at + 16, rights)
}

fn write_filestat(memory: &mut GuestMemory<'_>, at: usize) -> Outcome<()> {
    memory.put_u8(at + 16, 0)?;
    for field in [0, 8, 24, 32, 40, 48, 56] {
        memory.put_u64(at + field, 0)?;
    }
    Ok(())
}

/// Functions that need an open file, of which there is none.
fn link_files(linker: &mut Linker<Process>) -> wasmtime::Result<()> {
    type Guest<'a> = Caller<'a, Process>;
    linker.func_wrap(PREVIEW1, "fd_advise", |guest: Guest<'_>, fd: u32, _: u64, _: u64, advice: u32| {
        enter(guest, |process, _| {
            case(advice, 6)?;
            process.file(fd)
        })
    })?;
    linker.func_wrap(PREVIEW1, "fd_allocate", |guest: Guest<'_>, fd: u32, _: u64, _: u64| {
        enter(guest, |process, _| process.file(fd))
    })?;
    for name in ["fd_datasync", "fd_sync"] {
        linker.func_wrap(PREVIEW1, name, |guest: Guest<'_>, fd: u32| {
            enter(guest, |process, _| process.file(fd))
        })?;
    }
    linker.func_wrap(PREVIEW1, "fd_filestat_set_size", |guest: Guest<'_>, fd: u32, _: u64| {
        enter(guest, |process, _| process.file(fd))
    })?;
    linker.func_wrap(
        PREVIEW1,
        "fd_filestat_set_times",
        |guest: Guest<'_>, fd: u32, _: u64, _: u64, set: u32| {
            enter(guest, |process, _| {
                super::paths::times(set)?;
                process.file(fd)
            })
        },
    )?;
    linker.func_wrap(
        PREVIEW1,
        "fd_readdir",
        |guest: Guest<'_>, fd: u32, _: u32, _: u32, _: u64, _: u32| {
            enter(guest, |process, _| process.file(fd))
        },
    )?;
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
