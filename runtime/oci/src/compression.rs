use std::io::{self, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;

/// The zstd window is memory that packed data asks for; no encoder's usual levels need more than 32 MiB.
const MAX_ZSTD_WINDOW_LOG: u32 = 25;
const BUFFER_BYTES: usize = 64 << 10;
/// As much as tells gzip (RFC 1952 §2.3.1) and zstd (RFC 8878 §3.1.1).
const MAGIC_BYTES: u64 = 4;

/// Unpacks gzip and zstd, and passes on what is neither. They are told by the first bytes, since media types and content
/// do not always agree. The caller bounds what comes out.
pub(crate) fn decompress<'a>(mut packed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = Vec::new();
    packed.by_ref().take(MAGIC_BYTES).read_to_end(&mut head)?;
    let packed = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(head.clone()).chain(packed));
    Ok(match head.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(packed)),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let mut decoder = zstd::Decoder::with_buffer(packed)?;
            decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        _ => Box::new(packed),
    })
}

/// Whether these are the first bytes of something that [`decompress`] unpacks.
pub(crate) fn is_compressed(head: &[u8]) -> bool {
    matches!(head, [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..])
}
