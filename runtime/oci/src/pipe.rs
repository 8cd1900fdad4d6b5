use std::io::{self, Read};

use runtime_api::{Error, Result};
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    task::JoinHandle,
};
use tokio_util::io::SyncIoBridge;

/// How much may wait between the network and the disk.
const BUFFER_BYTES: usize = 256 << 10;

/// Bytes that arrive asynchronously, read by code that blocks: the disk, and decompression.
pub(crate) struct Pipe<T> {
    writer: DuplexStream,
    worker: JoinHandle<Result<T>>,
    stopped: bool,
}

/// The end of a [`Pipe`] that the worker reads from. A writer that went away looks like the end of the data, so that
/// only [`Pipe::finish`] may decide that the data was whole.
pub(crate) struct Reader(SyncIoBridge<DuplexStream>);

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<T: Send + 'static> Pipe<T> {
    /// Starts `work` on a thread that may block. It ends by itself when the pipe is dropped.
    pub(crate) fn start(work: impl FnOnce(Reader) -> Result<T> + Send + 'static) -> Self {
        let (writer, reader) = tokio::io::duplex(BUFFER_BYTES);
        let worker = tokio::task::spawn_blocking(move || work(Reader(SyncIoBridge::new(reader))));
        Self { writer, worker, stopped: false }
    }

    /// Passes bytes on; `false` once the worker wants no more of them.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> bool {
        self.stopped = self.writer.write_all(bytes).await.is_err();
        !self.stopped
    }

    /// Ends the data and waits for the worker. `fed` tells whether the data was whole and right, and comes first:
    /// a worker that was given half of it fails too, for that reason.
    pub(crate) async fn finish(self, fed: Result<()>) -> Result<T> {
        let Self { writer, worker, stopped } = self;
        drop(writer);
        let worked = worker.await.map_err(Error::internal)?;
        fed?;
        match worked {
            Ok(_) if stopped => Err(Error::internal("a worker took data for whole before its end")),
            worked => worked,
        }
    }
}

/// Runs work that blocks where it may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
}
