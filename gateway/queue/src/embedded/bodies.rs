use std::{fmt::Write, io, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use rand::TryRng;
use runtime_store::{Disk, DiskFile, Opening, Sealer};
use tracing::warn;

use super::{
    records::{Body, Name},
    reserve::MARGIN_BYTES,
};
use crate::{ByteStream, Content, Error, Result};

/// Larger bodies are in files of their own, so that the tree stays small.
pub(super) const INLINE_BYTES: usize = 64 << 10;
/// What the check value of a body's file is for.
const CHECKED_AS: &str = "body";
const SUFFIX: &str = ".body";

/// A body that is not in its call's record. Its file is removed with this, unless it is to stay.
pub(super) struct BodyFile {
    disk: Arc<dyn Disk>,
    name: Name,
    length: u64,
    stays: bool,
}

impl BodyFile {
    pub(super) fn name(&self) -> Name {
        self.name
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn stay(&mut self) {
        self.stays = true;
    }
}

impl Drop for BodyFile {
    fn drop(&mut self) {
        // What panics may have kept the call.
        if !self.stays && !std::thread::panicking() {
            remove(&*self.disk, self.name);
        }
    }
}

/// Removes a body's file. One that comes back, or cannot be removed, goes at the next start.
pub(super) fn remove(disk: &dyn Disk, name: Name) {
    if let Err(error) = disk.remove(&file_name(name)) {
        warn!(%error, file = file_name(name), "the body of a call that is gone cannot be removed");
    }
}

/// Removes the files of bodies that `is_needed` does not know: of calls that were not accepted when a process ended.
pub(super) fn sweep(disk: &dyn Disk, mut is_needed: impl FnMut(Name) -> Result<bool>) -> Result<()> {
    for file in disk.names().map_err(|error| stopped("its files cannot be listed", &error))? {
        let name = file.strip_suffix(SUFFIX).and_then(|hex| u128::from_str_radix(hex, 16).ok());
        if let Some(name) = name.map(u128::to_be_bytes)
            && !is_needed(name)?
        {
            remove(disk, name);
        }
    }
    Ok(())
}

/// Where bodies are written.
#[derive(Clone)]
pub(super) struct Spool {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) sealer: Arc<Sealer>,
    pub(super) max_bytes: u64,
    /// Room that the tree may need.
    pub(super) reserve_bytes: u64,
}

impl Spool {
    /// Takes a body in: small ones into memory, others into a file that is durable with its name when this returns.
    pub(super) async fn take(&self, content: Content) -> Result<(Body, Option<BodyFile>)> {
        let mut stream = match content {
            Content::Bytes(bytes) if bytes.len() <= INLINE_BYTES => return Ok((Body::Inline(bytes), None)),
            content => content.into_stream(),
        };
        let (mut buffer, mut writing) = (BytesMut::new(), None);
        while let Some(piece) = stream.next().await {
            let mut piece = piece.map_err(Error::Body)?;
            // A large piece is not copied as a whole: what is in memory stays within the bound of one call.
            while !piece.is_empty() {
                let part = piece.split_to(piece.len().min(INLINE_BYTES + 1 - buffer.len()));
                buffer.extend_from_slice(&part);
                if buffer.len() > INLINE_BYTES {
                    writing = Some(self.write(writing, buffer.split().freeze()).await?);
                }
            }
        }
        let Some(writing) = writing else { return Ok((Body::Inline(buffer.freeze()), None)) };
        let writing = self.write(Some(writing), buffer.freeze()).await?;
        let spool = self.clone();
        blocking(move || spool.finish(writing)).await
    }

    async fn write(&self, writing: Option<Writing>, bytes: Bytes) -> Result<Writing> {
        let spool = self.clone();
        blocking(move || {
            let mut writing = writing.map_or_else(|| spool.begin(), Ok)?;
            spool.append(&mut writing, &bytes)?;
            Ok(writing)
        })
        .await
    }

    fn begin(&self) -> Result<Writing> {
        let mut name = Name::default();
        rand::rngs::SysRng
            .try_fill_bytes(&mut name)
            .map_err(|error| Error::Stopped(format!("the system gives no random numbers: {error}")))?;
        let file = self.disk.open(&file_name(name), Opening::New).map_err(|error| {
            warn!(%error, "a file for the body of a call cannot be made");
            if is_full(&error) { Error::StorageFull } else { Error::Busy }
        })?;
        let body = BodyFile { disk: Arc::clone(&self.disk), name, length: 0, stays: false };
        let check = self.sealer.content_check(CHECKED_AS, &name);
        Ok(Writing { file, body, check })
    }

    fn append(&self, writing: &mut Writing, bytes: &[u8]) -> Result<()> {
        let length = writing.body.length + bytes.len() as u64;
        if length > self.max_bytes {
            return Err(Error::TooLarge { what: "the body", limit_bytes: self.max_bytes });
        }
        let free =
            self.disk.free_bytes().map_err(|error| stopped("its free space cannot be told", &error))?;
        if free < bytes.len() as u64 + MARGIN_BYTES + self.reserve_bytes {
            return Err(Error::StorageFull);
        }
        writing.file.write_at(writing.body.length, bytes).map_err(|error| {
            if is_full(&error) { Error::StorageFull } else { stopped("a body cannot be written", &error) }
        })?;
        writing.check.update(bytes);
        writing.body.length = length;
        Ok(())
    }

    fn finish(&self, writing: Writing) -> Result<(Body, Option<BodyFile>)> {
        let Writing { file, body, check } = writing;
        file.sync().map_err(|error| stopped("a body cannot be synced", &error))?;
        self.disk.sync_names().map_err(|error| stopped("the directory cannot be synced", &error))?;
        let record = Body::File { name: body.name, length: body.length, check: check.finish() };
        Ok((record, Some(body)))
    }

    /// A body as it was accepted; none where it cannot be had.
    pub(super) async fn read(&self, body: Body) -> Result<Option<Content>> {
        let (name, length, expected) = match body {
            Body::Inline(bytes) => return Ok(Some(Content::Bytes(bytes))),
            Body::File { name, length, check } => (name, length, check),
        };
        let spool = self.clone();
        blocking(move || {
            let file = match spool.disk.open(&file_name(name), Opening::Existing) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => {
                    warn!(%error, "the body of a call cannot be opened");
                    return Err(Error::Busy);
                }
            };
            let mut check = spool.sealer.content_check(CHECKED_AS, &name);
            let mut offset = 0;
            while offset < length {
                let piece = match read_piece(&*file, offset, length) {
                    Ok(piece) => piece,
                    // It is shorter than it was.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                    Err(error) => {
                        warn!(%error, "the body of a call cannot be read");
                        return Err(Error::Busy);
                    }
                };
                check.update(&piece);
                offset += piece.len() as u64;
            }
            if check.finish() != expected || file.len_bytes().ok() != Some(length) {
                return Ok(None);
            }
            Ok(Some(Content::Stream(stream(file, length))))
        })
        .await
    }
}

struct Writing {
    file: Arc<dyn DiskFile>,
    body: BodyFile,
    check: runtime_store::ContentCheck,
}

fn stream(file: Arc<dyn DiskFile>, length: u64) -> ByteStream {
    Box::pin(futures_util::stream::try_unfold(0, move |offset| {
        let file = Arc::clone(&file);
        async move {
            if offset >= length {
                return Ok(None);
            }
            let read = tokio::task::spawn_blocking(move || read_piece(&*file, offset, length));
            let piece = read.await.map_err(io::Error::other)??;
            let next = offset + piece.len() as u64;
            Ok(Some((piece, next)))
        }
    }))
}

fn read_piece(file: &dyn DiskFile, offset: u64, length: u64) -> io::Result<Bytes> {
    let left = usize::try_from(length - offset).unwrap_or(INLINE_BYTES);
    let mut piece = vec![0; left.min(INLINE_BYTES)];
    file.read_at(offset, &mut piece)?;
    Ok(piece.into())
}

fn file_name(name: Name) -> String {
    let mut text = String::with_capacity(2 * name.len() + SUFFIX.len());
    for byte in name {
        let _ = write!(text, "{byte:02x}");
    }
    text + SUFFIX
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::Stopped(format!("a thread of it ended: {error}"))))
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn stopped(problem: &str, error: &io::Error) -> Error {
    Error::Stopped(format!("{problem}: {error}"))
}
