//! What an output is, by its first bytes (WHATWG MIME Sniffing, as far as Go's net/http follows it).

/// As many bytes as are looked at.
pub(crate) const SNIFFED_BYTES: usize = 512;

/// Names the type of content that begins with these bytes.
pub(crate) fn content_type(start: &[u8]) -> &'static str {
    let data = start.get(..SNIFFED_BYTES).unwrap_or(start);
    let text = data.trim_ascii_start();
    if HTML_TAGS.iter().any(|tag| begins_with_tag(text, tag)) {
        return "text/html; charset=utf-8";
    }
    if text.starts_with(b"<?xml") {
        return "text/xml; charset=utf-8";
    }
    if let Some((_, kind)) = EXACT.iter().find(|(magic, _)| data.starts_with(magic)) {
        return kind;
    }
    if let Some((_, _, kind)) = CONTAINERS.iter().find(|(outer, inner, _)| {
        data.starts_with(outer) && data.get(8..).is_some_and(|rest| rest.starts_with(inner))
    }) {
        return kind;
    }
    if is_mp4(data) {
        return "video/mp4";
    }
    if data.get(34..36) == Some(b"LP") {
        return "application/vnd.ms-fontobject";
    }
    if data.iter().any(|byte| matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f)) {
        return "application/octet-stream";
    }
    "text/plain; charset=utf-8"
}

const HTML_TAGS: [&[u8]; 17] = [
    b"<!DOCTYPE HTML",
    b"<HTML",
    b"<HEAD",
    b"<SCRIPT",
    b"<IFRAME",
    b"<H1",
    b"<DIV",
    b"<FONT",
    b"<TABLE",
    b"<A",
    b"<STYLE",
    b"<TITLE",
    b"<B",
    b"<BODY",
    b"<BR",
    b"<P",
    b"<!--",
];

const EXACT: [(&[u8], &str); 26] = [
    (b"%PDF-", "application/pdf"),
    (b"%!PS-Adobe-", "application/postscript"),
    (b"\xfe\xff", "text/plain; charset=utf-16be"),
    (b"\xff\xfe", "text/plain; charset=utf-16le"),
    (b"\xef\xbb\xbf", "text/plain; charset=utf-8"),
    (b"\0\0\x01\0", "image/x-icon"),
    (b"\0\0\x02\0", "image/x-icon"),
    (b"BM", "image/bmp"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"ID3", "audio/mpeg"),
    (b"OggS\0", "application/ogg"),
    (b"MThd\0\0\0\x06", "audio/midi"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"\0\x01\0\0", "font/ttf"),
    (b"OTTO", "font/otf"),
    (b"ttcf", "font/collection"),
    (b"wOFF", "font/woff"),
    (b"wOF2", "font/woff2"),
    (b"\x1f\x8b\x08", "application/x-gzip"),
    (b"PK\x03\x04", "application/zip"),
    (b"Rar!\x1a\x07\0", "application/x-rar-compressed"),
    (b"Rar!\x1a\x07\x01\0", "application/x-rar-compressed"),
    (b"\0asm", "application/wasm"),
];

/// Formats whose first four bytes say container, and the four from the ninth on say of what.
const CONTAINERS: [(&[u8], &[u8], &str); 4] = [
    (b"RIFF", b"WEBPVP", "image/webp"),
    (b"RIFF", b"WAVE", "audio/wave"),
    (b"RIFF", b"AVI ", "video/avi"),
    (b"FORM", b"AIFF", "audio/aiff"),
];

fn begins_with_tag(text: &[u8], tag: &[u8]) -> bool {
    let ended = text.get(tag.len()).is_some_and(|byte| matches!(byte, b' ' | b'>'));
    ended && text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag))
}

/// A box of type `ftyp` with an `mp4` brand (WHATWG MIME Sniffing §6.2.1).
fn is_mp4(data: &[u8]) -> bool {
    let Some((size, rest)) = data.split_first_chunk::<4>() else { return false };
    let size = usize::try_from(u32::from_be_bytes(*size)).unwrap_or(usize::MAX);
    if size % 4 != 0 || size > data.len() || !rest.starts_with(b"ftyp") {
        return false;
    }
    let brands = data.get(8..size).unwrap_or_default().chunks(4).enumerate();
    // The second word is the minor version, not a brand.
    brands.filter(|(index, _)| *index != 1).any(|(_, brand)| brand.starts_with(b"mp4"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_go_names() {
        for (start, kind) in [
            (&b""[..], "text/plain; charset=utf-8"),
            (b"hello\n", "text/plain; charset=utf-8"),
            (b"{\"a\":1}", "text/plain; charset=utf-8"),
            (b"  <html><body>", "text/html; charset=utf-8"),
            (b"<!doctype html>", "text/html; charset=utf-8"),
            (b"<br", "text/plain; charset=utf-8"),
            (b"<?xml version", "text/xml; charset=utf-8"),
            (b"\x89PNG\r\n\x1a\n....", "image/png"),
            (b"RIFF....WEBPVP8", "image/webp"),
            (b"RIFF....AVI ", "video/avi"),
            (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "video/mp4"),
            (b"\x1f\x8b\x08\0", "application/x-gzip"),
            (b"\0asm\x01\0\0\0", "application/wasm"),
            (b"a\0b", "application/octet-stream"),
            (b"a\x1bb", "text/plain; charset=utf-8"),
        ] {
            assert_eq!(content_type(start), kind, "{}", start.escape_ascii());
        }
    }
}
