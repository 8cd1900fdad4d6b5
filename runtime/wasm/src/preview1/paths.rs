//! Functions that take a path. A path begins at an open directory, of which there is none.

use wasmtime::{Caller, Linker};

use super::{
    PREVIEW1, Process,
    abi::{Errno, GuestMemory, Outcome, flags},
    enter,
};
use crate::instance::HOSTCALL_FUEL;

/// What may be set of a file's times.
const ATIM: u64 = 1;
const ATIM_NOW: u64 = 1 << 1;
const MTIM: u64 = 1 << 2;
const MTIM_NOW: u64 = 1 << 3;

/// Refuses to set a time to two values at once.
pub(super) fn times(set: u32) -> Outcome<()> {
    let set = flags(set.into(), 4)?;
    let both = |one: u64, other: u64| set & one != 0 && set & other != 0;
    if both(ATIM, ATIM_NOW) || both(MTIM, MTIM_NOW) { Err(Errno::Inval.into()) } else { Ok(()) }
}

pub(super) fn link(linker: &mut Linker<Process>) -> wasmtime::Result<()> {
    type Guest<'a> = Caller<'a, Process>;
    for name in ["path_create_directory", "path_remove_directory", "path_unlink_file"] {
        linker.func_wrap(PREVIEW1, name, |guest: Guest<'_>, fd: u32, _: u32, _: u32| {
            enter(guest, |process, _| process.file(fd))
        })?;
    }
    linker.func_wrap(
        PREVIEW1,
        "path_filestat_get",
        |guest: Guest<'_>, fd: u32, lookup: u32, _: u32, _: u32, _: u32| {
            enter(guest, |process, _| {
                flags(lookup.into(), 1)?;
                process.file(fd)
            })
        },
    )?;
    linker.func_wrap(
        PREVIEW1,
        "path_filestat_set_times",
        |guest: Guest<'_>, fd: u32, lookup: u32, _: u32, _: u32, _: u64, _: u64, set: u32| {
            enter(guest, |process, _| {
                flags(lookup.into(), 1)?;
                times(set)?;
                process.file(fd)
            })
        },
    )?;
    linker.func_wrap(
        PREVIEW1,
        "path_link",
        |guest: Guest<'_>, from: u32, lookup: u32, _: u32, _: u32, _: u32, _: u32, _: u32| {
            enter(guest, |process, _| {
                flags(lookup.into(), 1)?;
                process.file(from)
            })
        },
    )?;
    linker.func_wrap(
        PREVIEW1,
        "path_readlink",
        |guest: Guest<'_>, fd: u32, _: u32, _: u32, _: u32, _: u32, _: u32| {
            enter(guest, |process, _| process.file(fd))
        },
    )?;
    linker.func_wrap(
        PREVIEW1,
        "path_rename",
        |guest: Guest<'_>, from: u32, _: u32, _: u32, _: u32, _: u32, _: u32| {
            enter(guest, |process, _| process.file(from))
        },
    )?;
    linker.func_wrap(
        PREVIEW1,
        "path_symlink",
        |guest: Guest<'_>, _: u32, _: u32, fd: u32, _: u32, _: u32| {
            enter(guest, |process, _| process.file(fd))
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
         _: u32| {
            enter(guest, |process, memory| {
                flags(lookup.into(), 1)?;
                flags(open.into(), 4)?;
                flags(base, 30)?;
                flags(inheriting, 30)?;
                flags(set.into(), 5)?;
                process.path(memory, path as usize, length as usize)?;
                process.file(fd)
            })
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
}
