//! Reading the request and writing the answer.

use std::task::{Context, Poll, ready};

use wasmtime::{Caller, Linker};

use super::{
    PREVIEW1, Process,
    abi::{Errno, Failure, GuestMemory, Outcome},
    descriptors::{Descriptor, Stream},
    enter, wait,
};

pub(super) fn link(linker: &mut Linker<Process>) -> wasmtime::Result<()> {
    type Guest<'a> = Caller<'a, Process>;
    linker.func_wrap_async(
        PREVIEW1,
        "fd_read",
        |guest: Guest<'_>, (fd, list, count, read): (u32, u32, u32, u32)| {
            let buffers = (list as usize, count);
            wait(guest, move |process, memory, cx| process.poll_read(cx, memory, fd, buffers, read as usize))
        },
    )?;
    linker.func_wrap_async(
        PREVIEW1,
        "fd_write",
        |guest: Guest<'_>, (fd, list, count, written): (u32, u32, u32, u32)| {
            let buffers = (list as usize, count);
            let mut done = 0;
            wait(guest, move |process, memory, cx| {
                process.poll_write(cx, memory, fd, buffers, &mut done, written as usize)
            })
        },
    )?;
    linker.func_wrap(
        PREVIEW1,
        "fd_pread",
        |guest: Guest<'_>, fd: u32, list: u32, count: u32, position: u64, read: u32| {
            enter(guest, |process, memory| {
                process.read_at(memory, fd, (list as usize, count), position, read as usize)
            })
        },
    )?;
    linker.func_wrap(
        PREVIEW1,
        "fd_pwrite",
        |guest: Guest<'_>, fd: u32, list: u32, count: u32, _: u64, _: u32| {
            enter(guest, |process, memory| {
                memory.first_buffer(list as usize, count, process.most_bytes())?;
                let errno = match process.descriptors.get(fd)? {
                    // No stream has a position.
                    Descriptor::Stream(Stream::Stdout | Stream::Stderr) => Errno::Spipe,
                    _ => Errno::Badf,
                };
                Err(errno.into())
            })
        },
    )?;
    Ok(())
}

impl Process {
    /// Takes as much as is there, into the first buffer that is not empty.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        memory: &mut GuestMemory<'_>,
        fd: u32,
        (list, count): (usize, u32),
        read: usize,
    ) -> Poll<Outcome<()>> {
        let (at, length) = memory.first_buffer(list, count, self.most_bytes())?;
        match self.descriptors.get_mut(fd)? {
            Descriptor::Stream(Stream::Stdin) => {}
            Descriptor::File(open) => {
                let bytes = open.file.read(open.position, length);
                memory.bytes_mut(at, bytes.len())?.copy_from_slice(bytes);
                open.position = open.position.saturating_add(bytes.len() as u64);
                return Poll::Ready(memory.put_size(read, bytes.len()));
            }
            Descriptor::Stream(_) | Descriptor::Directory { .. } => {
                return Poll::Ready(Err(Errno::Badf.into()));
            }
        }
        ready!(self.input.poll_fill(cx));
        let taken = match self.input.take(length) {
            Err(_) => return Poll::Ready(Err(Errno::Io.into())),
            // The end is told whatever was asked for. Before it, to ask for nothing is to be interrupted.
            Ok(None) => 0,
            Ok(Some(bytes)) if bytes.is_empty() => return Poll::Ready(Err(Errno::Intr.into())),
            Ok(Some(bytes)) => {
                memory.bytes_mut(at, bytes.len())?.copy_from_slice(&bytes);
                bytes.len()
            }
        };
        Poll::Ready(memory.put_size(read, taken))
    }

    /// Writes the first buffer that is not empty, all of it, of which `done` bytes are written already.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        memory: &mut GuestMemory<'_>,
        fd: u32,
        (list, count): (usize, u32),
        done: &mut usize,
        written: usize,
    ) -> Poll<Outcome<()>> {
        let (at, length) = memory.first_buffer(list, count, self.most_bytes())?;
        let to_errors = match self.descriptors.get(fd)? {
            Descriptor::Stream(Stream::Stdout) => false,
            Descriptor::Stream(Stream::Stderr) => true,
            Descriptor::Stream(Stream::Stdin) | Descriptor::Directory { .. } | Descriptor::File(_) => {
                return Poll::Ready(Err(Errno::Badf.into()));
            }
        };
        let bytes = memory.bytes(at, length)?;
        match &mut self.errors {
            Some(errors) if to_errors => errors.write(bytes),
            _ => {
                while let Some(rest) = bytes.get(*done..).filter(|rest| !rest.is_empty()) {
                    *done += ready!(self.output.poll_write(cx, rest)).map_err(Failure::Trap)?;
                }
            }
        }
        Poll::Ready(memory.put_size(written, length))
    }

    /// Takes what is there from a position on, into the first buffer that is not empty.
    fn read_at(
        &self,
        memory: &mut GuestMemory<'_>,
        fd: u32,
        (list, count): (usize, u32),
        position: u64,
        read: usize,
    ) -> Outcome<()> {
        let (at, length) = memory.first_buffer(list, count, self.most_bytes())?;
        let file = match self.descriptors.get(fd)? {
            Descriptor::File(open) => &open.file,
            // No stream has a position.
            Descriptor::Stream(Stream::Stdin) => return Err(Errno::Spipe.into()),
            Descriptor::Stream(_) | Descriptor::Directory { .. } => return Err(Errno::Badf.into()),
        };
        let bytes = file.read(position, length);
        memory.bytes_mut(at, bytes.len())?.copy_from_slice(bytes);
        memory.put_size(read, bytes.len())
    }
}
