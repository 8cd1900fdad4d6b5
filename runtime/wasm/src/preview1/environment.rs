//! Arguments and environment variables.

use wasmtime::{Caller, Linker};

use super::{
    PREVIEW1, Process,
    abi::{GuestMemory, Outcome},
    enter,
};
use crate::cgi;

/// What all calls of a function see, laid out once.
pub(crate) struct Environment {
    args: Strings,
    variables: Strings,
}

impl Environment {
    pub(crate) fn new(args: &[String], variables: &[(String, String)]) -> Self {
        let mut strings = Strings::default();
        for arg in args {
            strings.push(&[arg]);
        }
        Self { args: strings, variables: Strings::variables(variables) }
    }
}

/// Strings one after the other, each with a zero byte at its end, as a guest gets them.
#[derive(Default)]
pub(super) struct Strings {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Strings {
    fn variables(variables: &[(String, String)]) -> Self {
        let mut strings = Self::default();
        for (name, value) in variables {
            strings.push(&[name, "=", value]);
        }
        strings
    }

    fn push(&mut self, parts: &[&str]) {
        for part in parts {
            self.bytes.extend_from_slice(part.as_bytes());
        }
        self.bytes.push(0);
        self.ends.push(self.bytes.len());
    }

    /// Writes pointers to the strings into `table`, and the strings to `at`. Returns where more of them belong.
    fn write(&self, memory: &mut GuestMemory<'_>, table: usize, at: usize) -> Outcome<(usize, usize)> {
        let (mut table, mut start) = (table, 0);
        for end in &self.ends {
            let string = self.bytes.get(start..*end).unwrap_or_default();
            memory.put_size(table, at + start)?;
            memory.bytes_mut(at + start, string.len())?.copy_from_slice(string);
            (table, start) = (table + 4, *end);
        }
        Ok((table, at + start))
    }
}

pub(super) fn link(linker: &mut Linker<Process>) -> wasmtime::Result<()> {
    type Guest<'a> = Caller<'a, Process>;
    linker.func_wrap(PREVIEW1, "args_sizes_get", |guest: Guest<'_>, count: u32, bytes: u32| {
        enter(guest, |process, memory| {
            let args = &process.environment.args;
            memory.put_size(bytes as usize, args.bytes.len())?;
            memory.put_size(count as usize, args.ends.len())
        })
    })?;
    linker.func_wrap(PREVIEW1, "args_get", |guest: Guest<'_>, table: u32, at: u32| {
        enter(guest, |process, memory| {
            process.environment.args.write(memory, table as usize, at as usize).map(drop)
        })
    })?;
    linker.func_wrap(PREVIEW1, "environ_sizes_get", |guest: Guest<'_>, count: u32, bytes: u32| {
        enter(guest, |process, memory| {
            let (shared, own) = process.variables();
            memory.put_size(bytes as usize, shared.bytes.len() + own.bytes.len())?;
            memory.put_size(count as usize, shared.ends.len() + own.ends.len())
        })
    })?;
    linker.func_wrap(PREVIEW1, "environ_get", |guest: Guest<'_>, table: u32, at: u32| {
        enter(guest, |process, memory| {
            let (shared, own) = process.variables();
            let (table, at) = shared.write(memory, table as usize, at as usize)?;
            own.write(memory, table, at).map(drop)
        })
    })?;
    Ok(())
}

impl Process {
    /// The function's variables, and those that describe the request. Few guests ask, so the latter are made then.
    fn variables(&mut self) -> (&Strings, &Strings) {
        let own = self.variables.get_or_insert_with(|| {
            if self.cgi_headers {
                Strings::variables(&cgi::environment(&self.request, self.body_bytes))
            } else {
                Strings::default()
            }
        });
        (&self.environment.variables, own)
    }
}
