//! The numbers of WASI preview 1, and how they lie in a guest's memory.

/// How a function of the host ends.
pub(super) type Outcome<T> = Result<T, Failure>;

/// Why it does not do what it was asked for.
#[derive(Debug)]
pub(super) enum Failure {
    /// The guest is told.
    Errno(Errno),
    /// The guest broke the rules of the interface, or the host cannot go on. Ends the guest.
    Trap(wasmtime::Error),
}

/// The error numbers that this host tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Errno {
    Badf = 8,
    Ilseq = 25,
    Intr = 27,
    Inval = 28,
    Io = 29,
    Mfile = 33,
    Nametoolong = 37,
    Noent = 44,
    Nomem = 48,
    Notdir = 54,
    Notsock = 57,
    Notsup = 58,
    Overflow = 61,
    Perm = 63,
    Rofs = 69,
    Spipe = 70,
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// Ends the guest with a reason.
pub(super) fn trap(reason: impl Into<String>) -> Failure {
    Failure::Trap(wasmtime::Error::msg(reason.into()))
}

/// What the guest sees of an outcome: 0 or an error number.
pub(super) fn answer(outcome: Outcome<()>) -> wasmtime::Result<i32> {
    match outcome {
        Ok(()) => Ok(0),
        Err(Failure::Errno(errno)) => Ok(errno as i32),
        Err(Failure::Trap(error)) => Err(error),
    }
}

/// Refuses an argument that is none of an enumeration's cases.
pub(super) fn case(value: u32, cases: u32) -> Outcome<u32> {
    if value < cases { Ok(value) } else { Err(trap(format!("{value} is none of {cases} cases"))) }
}

/// Refuses an argument with bits beyond those that have a meaning.
pub(super) fn flags(value: u64, bits: u32) -> Outcome<u64> {
    if value >> bits == 0 { Ok(value) } else { Err(trap(format!("{value:#x} has flags beyond {bits} bits"))) }
}

/// Buffers of no bytes that are passed over in search of one with some. A guest's scan of its own memory must not hold
/// the thread for long.
const MAX_EMPTY_BUFFERS: u32 = 1 << 16;

/// A guest's linear memory, for as long as one step of the host takes. Every access is checked: beyond the end, and
/// off the alignment of a number, it ends the guest, as WASI preview 1 asks for.
pub(super) struct GuestMemory<'a>(pub(super) &'a mut [u8]);

impl GuestMemory<'_> {
    pub(super) fn bytes(&self, at: usize, length: usize) -> Outcome<&[u8]> {
        let end = at.saturating_add(length);
        self.0.get(at..end).ok_or_else(|| outside(at, length))
    }

    pub(super) fn bytes_mut(&mut self, at: usize, length: usize) -> Outcome<&mut [u8]> {
        let end = at.saturating_add(length);
        self.0.get_mut(at..end).ok_or_else(|| outside(at, length))
    }

    pub(super) fn u8(&self, at: usize) -> Outcome<u8> {
        self.load(at).map(u8::from_le_bytes)
    }

    pub(super) fn u16(&self, at: usize) -> Outcome<u16> {
        self.load(at).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&self, at: usize) -> Outcome<u32> {
        self.load(at).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&self, at: usize) -> Outcome<u64> {
        self.load(at).map(u64::from_le_bytes)
    }

    pub(super) fn put_u8(&mut self, at: usize, value: u8) -> Outcome<()> {
        self.store(at, value.to_le_bytes())
    }

    pub(super) fn put_u16(&mut self, at: usize, value: u16) -> Outcome<()> {
        self.store(at, value.to_le_bytes())
    }

    pub(super) fn put_u32(&mut self, at: usize, value: u32) -> Outcome<()> {
        self.store(at, value.to_le_bytes())
    }

    pub(super) fn put_u64(&mut self, at: usize, value: u64) -> Outcome<()> {
        self.store(at, value.to_le_bytes())
    }

    /// A length or an address. Whatever lies in a memory of 32 bits can be named by as many.
    pub(super) fn put_size(&mut self, at: usize, size: usize) -> Outcome<()> {
        self.put_u32(at, u32::try_from(size).map_err(|_| outside(size, 0))?)
    }

    /// The first of `count` buffers that is not empty, as address and length. The list and the buffer may take
    /// `most_bytes` together.
    pub(super) fn first_buffer(&self, list: usize, count: u32, most_bytes: usize) -> Outcome<(usize, usize)> {
        let left = most_bytes.checked_sub(count as usize * 8).ok_or(Errno::Nomem)?;
        for index in 0..count.min(MAX_EMPTY_BUFFERS) {
            let buffer = list + index as usize * 8;
            let (at, length) = (self.u32(buffer)? as usize, self.u32(buffer + 4)? as usize);
            if length > left {
                return Err(Errno::Nomem.into());
            }
            if length > 0 {
                return Ok((at, length));
            }
        }
        if count > MAX_EMPTY_BUFFERS { Err(Errno::Inval.into()) } else { Ok((0, 0)) }
    }

    fn load<const N: usize>(&self, at: usize) -> Outcome<[u8; N]> {
        aligned(at, N)?;
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk());
        bytes.copied().ok_or_else(|| outside(at, N))
    }

    fn store<const N: usize>(&mut self, at: usize, value: [u8; N]) -> Outcome<()> {
        aligned(at, N)?;
        let bytes = self.0.get_mut(at..).and_then(|rest| rest.first_chunk_mut());
        *bytes.ok_or_else(|| outside(at, N))? = value;
        Ok(())
    }
}

fn aligned(at: usize, alignment: usize) -> Outcome<()> {
    if at.is_multiple_of(alignment) {
        return Ok(());
    }
    Err(trap(format!("the pointer {at:#x} is not aligned to {alignment} bytes")))
}

fn outside(at: usize, length: usize) -> Failure {
    trap(format!("{length} bytes at {at:#x} are not in the guest's memory"))
}
