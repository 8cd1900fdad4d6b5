//! Open files and their directory: what is asked of them by number. Whatever would change them is refused.

use wasmtime::{Caller, Linker};

use super::{
    PREVIEW1, Process,
    abi::{Errno, GuestMemory, Outcome, case, flags},
    descriptors::{A_DIRECTORY, A_REGULAR_FILE, Descriptor, FDFLAGS, RIGHTS},
    enter,
};
use crate::secrets::{DIRECTORY, DIRECTORY_INODE};

/// What may be set of a file's times.
const ATIM: u64 = 1;
const ATIM_NOW: u64 = 1 << 1;
const MTIM: u64 = 1 << 2;
const MTIM_NOW: u64 = 1 << 3;

/// Flags of a descriptor that can be set later: to append, and not to wait. Neither means anything to a file that cannot be
/// written and is always ready.
const SETTABLE: u64 = 1 | 1 << 2;

/// Bytes of a directory's entry before its name (WASI preview 1, `dirent`).
const ENTRY_BYTES: usize = 24;

/// Refuses to set a time to two values at once.
pub(super) fn times(set: u32) -> Outcome<()> {
    let set = flags(set.into(), 4)?;
    let both = |one: u64, other: u64| set & one != 0 && set & other != 0;
    if both(ATIM, ATIM_NOW) || both(MTIM, MTIM_NOW) { Err(Errno::Inval.into()) } else { Ok(()) }
}

pub(super) fn link(linker: &mut Linker<Process>) -> wasmtime::Result<()> {
    link_positions(linker)?;
    link_directory(linker)?;
    link_changes(linker)
}

fn link_positions(linker: &mut Linker<Process>) -> wasmtime::Result<()> {
    type Guest<'a> = Caller<'a, Process>;
    linker.func_wrap(
        PREVIEW1,
        "fd_seek",
        |guest: Guest<'_>, fd: u32, offset: i64, whence: u32, position: u32| {
            enter(guest, |process, memory| {
                let whence = case(whence, 3)?;
                let moved = process.seek(fd, offset, whence)?;
                memory.put_u64(position as usize, moved)
            })
        },
    )?;
    linker.func_wrap(PREVIEW1, "fd_tell", |guest: Guest<'_>, fd: u32, position: u32| {
        enter(guest, |process, memory| {
            let stands = process.seek(fd, 0, CURRENT)?;
            memory.put_u64(position as usize, stands)
        })
    })?;
    linker.func_wrap(PREVIEW1, "fd_advise", |guest: Guest<'_>, fd: u32, _: u64, _: u64, advice: u32| {
        enter(guest, |process, _| {
            case(advice, 6)?;
            process.descriptors.file_mut(fd).map(drop)
        })
    })?;
    for name in ["fd_datasync", "fd_sync"] {
        linker.func_wrap(PREVIEW1, name, |guest: Guest<'_>, fd: u32| {
            enter(guest, |process, _| process.descriptors.file_mut(fd).map(drop))
        })?;
    }
    Ok(())
}

fn link_directory(linker: &mut Linker<Process>) -> wasmtime::Result<()> {
    type Guest<'a> = Caller<'a, Process>;
    linker.func_wrap(PREVIEW1, "fd_prestat_get", |guest: Guest<'_>, fd: u32, prestat: u32| {
        // What is not preopened ends a C library's search for directories.
        enter(guest, |process, memory| match process.descriptors.get(fd)? {
            Descriptor::Directory { preopened: true } => {
                memory.put_u8(prestat as usize, 0)?;
                memory.put_size(prestat as usize + 4, DIRECTORY.len())
            }
            _ => Err(Errno::Badf.into()),
        })
    })?;
    linker.func_wrap(
        PREVIEW1,
        "fd_prestat_dir_name",
        |guest: Guest<'_>, fd: u32, path: u32, most: u32| {
            enter(guest, |process, memory| match process.descriptors.get(fd)? {
                Descriptor::Directory { preopened: true } if DIRECTORY.len() > most as usize => {
                    Err(Errno::Nametoolong.into())
                }
                Descriptor::Directory { preopened: true } => {
                    memory.bytes_mut(path as usize, DIRECTORY.len())?.copy_from_slice(DIRECTORY.as_bytes());
                    Ok(())
                }
                _ => Err(Errno::Notdir.into()),
            })
        },
    )?;
    linker.func_wrap(
        PREVIEW1,
        "fd_readdir",
        |guest: Guest<'_>, fd: u32, at: u32, length: u32, cookie: u64, used: u32| {
            enter(guest, |process, memory| {
                process.descriptors.directory(fd)?;
                let written = process.list(memory, at as usize, length as usize, cookie)?;
                memory.put_size(used as usize, written)
            })
        },
    )?;
    Ok(())
}

/// What would change something.
fn link_changes(linker: &mut Linker<Process>) -> wasmtime::Result<()> {
    type Guest<'a> = Caller<'a, Process>;
    linker.func_wrap(PREVIEW1, "fd_fdstat_set_flags", |guest: Guest<'_>, fd: u32, set: u32| {
        enter(guest, |process, _| {
            let set = flags(set.into(), FDFLAGS)?;
            process.descriptors.file_mut(fd)?;
            if set & !SETTABLE == 0 { Ok(()) } else { Err(Errno::Inval.into()) }
        })
    })?;
    linker.func_wrap(
        PREVIEW1,
        "fd_fdstat_set_rights",
        |guest: Guest<'_>, fd: u32, base: u64, inheriting: u64| {
            enter(guest, |process, _| {
                flags(base, RIGHTS)?;
                flags(inheriting, RIGHTS)?;
                process.refuse_on_disk(fd, Errno::Notsup)
            })
        },
    )?;
    linker.func_wrap(PREVIEW1, "fd_allocate", |guest: Guest<'_>, fd: u32, _: u64, _: u64| {
        enter(guest, |process, _| {
            process.descriptors.file_mut(fd)?;
            Err(Errno::Rofs.into())
        })
    })?;
    linker.func_wrap(PREVIEW1, "fd_filestat_set_size", |guest: Guest<'_>, fd: u32, _: u64| {
        enter(guest, |process, _| {
            process.descriptors.file_mut(fd)?;
            Err(Errno::Rofs.into())
        })
    })?;
    linker.func_wrap(
        PREVIEW1,
        "fd_filestat_set_times",
        |guest: Guest<'_>, fd: u32, _: u64, _: u64, set: u32| {
            enter(guest, |process, _| {
                times(set)?;
                process.refuse_on_disk(fd, Errno::Rofs)
            })
        },
    )?;
    Ok(())
}

/// From where a position is counted (WASI preview 1, `whence`).
const START: u32 = 0;
const CURRENT: u32 = 1;

impl Process {
    fn seek(&mut self, fd: u32, offset: i64, whence: u32) -> Outcome<u64> {
        let open = match self.descriptors.get_mut(fd)? {
            Descriptor::File(open) => open,
            // A stream has no position.
            Descriptor::Stream(_) => return Err(Errno::Spipe.into()),
            Descriptor::Directory { .. } => return Err(Errno::Badf.into()),
        };
        let from = match whence {
            START => 0,
            CURRENT => open.position,
            _ => open.file.size_bytes(),
        };
        open.position = from.checked_add_signed(offset).ok_or(Errno::Inval)?;
        Ok(open.position)
    }

    /// Refuses what no file and no directory takes, and no stream knows.
    fn refuse_on_disk(&self, fd: u32, errno: Errno) -> Outcome<()> {
        match self.descriptors.get(fd)? {
            Descriptor::Stream(_) => Err(Errno::Badf.into()),
            Descriptor::Directory { .. } | Descriptor::File(_) => Err(errno.into()),
        }
    }

    /// Writes the entries from the one with number `cookie` on, and cuts off what goes beyond `length`, so that a guest
    /// notices that there are more. Returns how much that is.
    fn list(&self, memory: &mut GuestMemory<'_>, at: usize, length: usize, cookie: u64) -> Outcome<usize> {
        let Some(directory) = &self.secrets else { return Ok(0) };
        let cookie = usize::try_from(cookie).map_err(|_| Errno::Overflow)?;
        let itself = [".", ".."].map(|name| (name, DIRECTORY_INODE, A_DIRECTORY));
        let files = directory.files().map(|(name, file)| (name, file.inode, A_REGULAR_FILE));
        let entries = itself.into_iter().chain(files).zip(1_u64..).skip(cookie);
        let mut written = 0;
        for ((name, inode, kind), next) in entries {
            let mut head = [0; ENTRY_BYTES];
            let fields =
                [&next.to_le_bytes()[..], &inode.to_le_bytes(), &(name.len() as u32).to_le_bytes(), &[kind]];
            head.iter_mut().zip(fields.into_iter().flatten()).for_each(|(to, from)| *to = *from);
            for part in [&head[..], name.as_bytes()] {
                let part = part.get(..length - written).unwrap_or(part);
                memory.bytes_mut(at + written, part.len())?.copy_from_slice(part);
                written += part.len();
            }
            if written == length {
                break;
            }
        }
        Ok(written)
    }
}
