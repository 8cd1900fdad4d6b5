//! Functions that take a path, which begins at an open directory.

use wasmtime::{Caller, Linker};

use super::{
    PREVIEW1, Process,
    abi::{Errno, Failure, GuestMemory, Outcome, flags},
    descriptors::{Descriptor, FD_WRITE, FDFLAGS, RIGHTS, write_stat_of},
    enter,
    files::times,
};
use crate::{
    instance::HOSTCALL_FUEL,
    secrets::{Astray, Node},
};

// How a path is opened (WASI preview 1, `oflags`).
const CREATE: u64 = 1;
const ONLY_DIRECTORY: u64 = 1 << 1;
const TRUNCATE: u64 = 1 << 3;

pub(super) fn link(linker: &mut Linker<Process>) -> wasmtime::Result<()> {
    type Guest<'a> = Caller<'a, Process>;
    linker.func_wrap(
        PREVIEW1,
        "path_filestat_get",
        |guest: Guest<'_>, fd: u32, lookup: u32, path: u32, length: u32, stat: u32| {
            enter(guest, |process, memory| {
                flags(lookup.into(), 1)?;
                process.descriptors.directory(fd)?;
                let node = process.find(memory, path as usize, length as usize)?;
                write_stat_of(memory, stat as usize, &node)
            })
        },
    )?;
    linker.func_wrap(
        PREVIEW1,
        "path_readlink",
        |guest: Guest<'_>, fd: u32, path: u32, length: u32, _: u32, _: u32, _: u32| {
            enter(guest, |process, memory| {
                process.descriptors.directory(fd)?;
                process.find(memory, path as usize, length as usize)?;
                // There are no links.
                Err(Errno::Inval.into())
            })
        },
    )?;
    linker.func_wrap(
        PREVIEW1,
        "path_open",
        |guest: Guest<'_>,
         fd: u32,
         lookup: u32,
         path: u32,
         length: u32,
         open: u32,
         base: u64,
         inheriting: u64,
         set: u32,
         opened: u32| {
            enter(guest, |process, memory| {
                flags(lookup.into(), 1)?;
                let open = flags(open.into(), 4)?;
                flags(base, RIGHTS)?;
                flags(inheriting, RIGHTS)?;
                flags(set.into(), FDFLAGS)?;
                let (path, length) = (path as usize, length as usize);
                process.path(memory, path, length)?;
                match process.descriptors.get(fd)? {
                    Descriptor::Directory { .. } => {}
                    Descriptor::File(_) => return Err(Errno::Notdir.into()),
                    Descriptor::Stream(_) => return Err(Errno::Badf.into()),
                }
                let node = process.open(memory, path, length, open, base)?;
                // Nothing is opened whose number would have nowhere to go.
                memory.u32(opened as usize)?;
                memory.put_size(opened as usize, process.descriptors.open(node)?)
            })
        },
    )?;
    link_changes(linker)
}

/// What would change the directory.
fn link_changes(linker: &mut Linker<Process>) -> wasmtime::Result<()> {
    type Guest<'a> = Caller<'a, Process>;
    for name in ["path_create_directory", "path_remove_directory", "path_unlink_file"] {
        linker.func_wrap(PREVIEW1, name, |guest: Guest<'_>, fd: u32, _: u32, _: u32| {
            enter(guest, |process, _| process.refuse_change(fd))
        })?;
    }
    linker.func_wrap(
        PREVIEW1,
        "path_filestat_set_times",
        |guest: Guest<'_>, fd: u32, lookup: u32, _: u32, _: u32, _: u64, _: u64, set: u32| {
            enter(guest, |process, _| {
                flags(lookup.into(), 1)?;
                times(set)?;
                process.refuse_change(fd)
            })
        },
    )?;
    linker.func_wrap(
        PREVIEW1,
        "path_link",
        |guest: Guest<'_>, from: u32, lookup: u32, _: u32, _: u32, _: u32, _: u32, _: u32| {
            enter(guest, |process, _| {
                flags(lookup.into(), 1)?;
                process.refuse_change(from)
            })
        },
    )?;
    linker.func_wrap(
        PREVIEW1,
        "path_rename",
        |guest: Guest<'_>, from: u32, _: u32, _: u32, _: u32, _: u32, _: u32| {
            enter(guest, |process, _| process.refuse_change(from))
        },
    )?;
    linker.func_wrap(
        PREVIEW1,
        "path_symlink",
        |guest: Guest<'_>, _: u32, _: u32, fd: u32, _: u32, _: u32| {
            enter(guest, |process, _| process.refuse_change(fd))
        },
    )?;
    Ok(())
}

impl Process {
    fn path<'a>(&self, memory: &'a GuestMemory<'_>, at: usize, length: usize) -> Outcome<&'a str> {
        if length > self.most_bytes().min(HOSTCALL_FUEL) {
            return Err(Errno::Nomem.into());
        }
        std::str::from_utf8(memory.bytes(at, length)?).map_err(|_| Errno::Ilseq.into())
    }

    fn find(&self, memory: &GuestMemory<'_>, at: usize, length: usize) -> Outcome<Node> {
        let path = self.path(memory, at, length)?;
        let directory = self.secrets.as_ref().ok_or(Errno::Badf)?;
        Ok(directory.find(path)?)
    }

    /// What a path leads to, if it is to be read.
    fn open(
        &self,
        memory: &GuestMemory<'_>,
        at: usize,
        length: usize,
        open: u64,
        rights: u64,
    ) -> Outcome<Node> {
        if open & ONLY_DIRECTORY != 0 && open & !ONLY_DIRECTORY != 0 {
            return Err(Errno::Inval.into());
        }
        if open & (CREATE | TRUNCATE) != 0 || rights & FD_WRITE != 0 {
            return Err(Errno::Rofs.into());
        }
        match self.find(memory, at, length)? {
            Node::File(_) if open & ONLY_DIRECTORY != 0 => Err(Errno::Notdir.into()),
            node => Ok(node),
        }
    }

    fn refuse_change(&self, fd: u32) -> Outcome<()> {
        self.descriptors.directory(fd)?;
        Err(Errno::Rofs.into())
    }
}

impl From<Astray> for Failure {
    fn from(astray: Astray) -> Self {
        Self::Errno(match astray {
            Astray::NotFound => Errno::Noent,
            Astray::NotADirectory => Errno::Notdir,
            Astray::Outside => Errno::Perm,
            Astray::TooLong => Errno::Nametoolong,
        })
    }
}
