//! Answers that are kept until they have been posted.

use std::{
    io::{self, Read, Seek},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use futures_util::stream::try_unfold;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use runtime_api::{Body, BodyError, Error, Result, full};
use runtime_store::{Disk, SystemDisk};
use tokio::{fs::File, io::AsyncWriteExt, task::spawn_blocking};

/// The code of an answer that is larger than what is posted.
pub(crate) const ANSWER_TOO_LARGE: &str = "answer-too-large";
/// What all answers take on disk, unless a single one may be larger.
const MOST_BYTES: u64 = 1 << 30;
/// What is left of the disk for others.
const MARGIN_BYTES: u64 = 128 << 20;
/// Up to this much of an answer is kept in memory.
const MEMORY_BYTES: usize = 64 << 10;
/// A file is read in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;

/// An answer that can be posted more than once: in memory, or in a file that has no name and goes with the process.
#[derive(Debug)]
pub(crate) enum Spool {
    /// All of it.
    Memory(Bytes),
    /// One that is read by one reader at a time.
    File(Arc<std::fs::File>, TakenRoom),
}

/// The room on disk for answers that wait to be posted.
#[derive(Debug)]
pub(crate) struct SpoolRoom {
    disk: SystemDisk,
    most_bytes: u64,
    used_bytes: AtomicU64,
}

/// What an answer has of it, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct TakenRoom {
    room: Arc<SpoolRoom>,
    bytes: u64,
}

impl SpoolRoom {
    pub(crate) fn new(folder: &Path, max_answer_bytes: u64) -> Arc<Self> {
        let most_bytes = MOST_BYTES.max(2 * max_answer_bytes);
        Arc::new(Self { disk: SystemDisk::new(folder), most_bytes, used_bytes: AtomicU64::new(0) })
    }
}

impl TakenRoom {
    /// More of it.
    ///
    /// # Errors
    /// `StorageFull`.
    fn extend(&mut self, bytes: u64) -> Result<()> {
        let room = &self.room;
        let free = room.disk.free_bytes().map_err(Error::internal)?;
        let used = room.used_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.bytes += bytes;
        if free < bytes + MARGIN_BYTES || used > room.most_bytes {
            return Err(no_room());
        }
        Ok(())
    }
}

impl Drop for TakenRoom {
    fn drop(&mut self) {
        self.room.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn no_room() -> Error {
    Error::StorageFull("the disk has no room to keep the answer until it is posted".into())
}

impl Spool {
    /// No answer.
    pub(crate) fn empty() -> Self {
        Self::Memory(Bytes::new())
    }

    /// Reads a body to its end, and keeps it if it has no more than `keep` bytes; with none, it is read and forgotten.
    ///
    /// # Errors
    /// `FunctionFailed` when it breaks off or is too large; `StorageFull`, `Internal` when it cannot be kept.
    pub(crate) async fn fill<B>(mut body: B, room: &Arc<SpoolRoom>, keep: Option<u64>) -> Result<Self>
    where
        B: http_body::Body<Data = Bytes, Error = BodyError> + Unpin,
    {
        let (mut memory, mut file, mut size) = (BytesMut::new(), None, 0_u64);
        let mut taken = TakenRoom { room: Arc::clone(room), bytes: 0 };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(broken_off)?;
            let (Ok(data), Some(limit)) = (frame.into_data(), keep) else { continue };
            size += data.len() as u64;
            if size > limit {
                let message = format!("the answer is larger than the {limit} bytes that are posted at most");
                return Err(Error::FunctionFailed { code: ANSWER_TOO_LARGE.into(), message, source: None });
            }
            if file.is_none() && memory.len() + data.len() <= MEMORY_BYTES {
                memory.extend_from_slice(&data);
                continue;
            }
            taken.extend(data.len() as u64)?;
            match &mut file {
                None => file = Some(begin(room.disk.path(), &memory, &data).await.map_err(not_kept)?),
                Some(file) => file.write_all(&data).await.map_err(not_kept)?,
            }
        }
        let Some(mut file) = file else { return Ok(Self::Memory(memory.freeze())) };
        file.flush().await.map_err(not_kept)?;
        Ok(Self::File(Arc::new(file.into_std().await), taken))
    }

    /// How long it is.
    pub(crate) fn len_bytes(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, taken) => taken.bytes,
        }
    }

    /// All of it, once more.
    ///
    /// # Errors
    /// `Internal` when the file cannot be read.
    pub(crate) fn body(&self) -> Result<Body> {
        let file = match self {
            Self::Memory(bytes) => return Ok(full(bytes.clone())),
            Self::File(file, _) => file,
        };
        (&**file).rewind().map_err(Error::internal)?;
        let pieces = try_unfold(Arc::clone(file), async |file| {
            let (piece, file) = spawn_blocking(move || read(&file).map(|piece| (piece, file))).await??;
            Ok::<_, BodyError>((!piece.is_empty()).then(|| (Frame::data(piece), file)))
        });
        Ok(StreamBody::new(pieces).boxed_unsync())
    }
}

async fn begin(folder: &Path, first: &[u8], second: &[u8]) -> io::Result<File> {
    let folder = folder.to_owned();
    let file = spawn_blocking(move || tempfile::tempfile_in(folder)).await??;
    let mut file = File::from_std(file);
    file.write_all(first).await?;
    file.write_all(second).await?;
    Ok(file)
}

fn read(mut file: &std::fs::File) -> io::Result<Bytes> {
    let mut piece = vec![0; PIECE_BYTES];
    let read = file.read(&mut piece)?;
    piece.truncate(read);
    Ok(piece.into())
}

fn broken_off(error: BodyError) -> Error {
    let message = format!("the answer broke off: {error}");
    Error::FunctionFailed { code: "no-response".into(), message, source: Some(error) }
}

fn not_kept(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull => no_room(),
        _ => Error::internal(error),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn body(pieces: &[&[u8]]) -> Body {
        let frames: Vec<_> =
            pieces.iter().map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        StreamBody::new(stream::iter(frames)).boxed_unsync()
    }

    async fn read_all(spool: &Spool) -> Bytes {
        spool.body().unwrap().collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn answers_are_kept_whole_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let room = SpoolRoom::new(folder.path(), 1 << 20);
        let large = vec![7; 3 * MEMORY_BYTES + 5];
        for (pieces, in_memory) in
            [(vec![&b"a"[..], b"", b"bc"], true), (vec![], true), (vec![&large[..], b"end", &large], false)]
        {
            let spool = Spool::fill(body(&pieces), &room, Some(1 << 20)).await.unwrap();
            assert_eq!(matches!(spool, Spool::Memory(_)), in_memory);
            for _ in 0..2 {
                assert!(read_all(&spool).await == pieces.concat());
            }
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(room.used_bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn all_of_them_have_so_much_room_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let room = SpoolRoom::new(folder.path(), 0);
        room.used_bytes.store(MOST_BYTES - 100_000, Ordering::Relaxed);
        let large = vec![7; 80_000];
        let first = Spool::fill(body(&[&large]), &room, Some(1 << 20)).await.unwrap();
        let error = Spool::fill(body(&[&large]), &room, Some(1 << 20)).await.unwrap_err();
        assert_eq!((error.code(), first.len_bytes()), ("storage-full", 80_000));
        drop(first);
        Spool::fill(body(&[&large]), &room, Some(1 << 20)).await.unwrap();
    }

    #[tokio::test]
    async fn what_nobody_wants_is_read_and_what_is_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let room = SpoolRoom::new(folder.path(), 1 << 20);
        let spool = Spool::fill(body(&[b"abc"]), &room, None).await.unwrap();
        assert!(read_all(&spool).await.is_empty());
        Spool::fill(body(&[b"abc"]), &room, Some(3)).await.unwrap();
        let error = Spool::fill(body(&[b"abc", b"d"]), &room, Some(3)).await.unwrap_err();
        assert_eq!(error.code(), ANSWER_TOO_LARGE);
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_none() {
        let frames = [Ok(Frame::data(Bytes::from("a"))), Err("gone".into())];
        let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
        let error = Spool::fill(body, &SpoolRoom::new(Path::new("."), 1), None).await.unwrap_err();
        assert_eq!(error.to_string(), "the answer broke off: gone");
    }
}
