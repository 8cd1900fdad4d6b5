use std::io::{Cursor, Write};

use flate2::{Compression, write::GzEncoder};
use tar::{Builder, Header};
use tempfile::TempDir;

use super::*;
use crate::some_module::Candidates;

const WASM: &[u8] = b"\0asm\x01\0\0\0 and more";
const BUDGET: u64 = 1 << 20;

fn store() -> (TempDir, ArtifactStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(folder.path(), 4096).unwrap();
    (folder, store)
}

fn layer(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (path, kind, data) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        if *kind == EntryType::GNUSparse {
            header.as_gnu_mut().unwrap().set_real_size(data.len() as u64);
        }
        match kind {
            EntryType::Symlink | EntryType::Link => tar.append_link(&mut header, path, "elsewhere").unwrap(),
            _ => tar.append_data(&mut header, path, *data).unwrap(),
        }
    }
    tar.into_inner().unwrap()
}

fn file(path: &str) -> (&str, EntryType, &[u8]) {
    (path, EntryType::Regular, WASM)
}

fn searched(layer: Vec<u8>, path: &str) -> Result<String> {
    let (_folder, store) = store();
    Ok(match search(Cursor::new(layer), path, BUDGET, &store)? {
        Finding::File(incoming) => format!("file of {}", incoming.keep()?.size_bytes),
        Finding::Removed => "removed".into(),
        Finding::Untouched { .. } => "untouched".into(),
    })
}

#[test]
fn finds_the_file_however_its_path_is_written_and_packed() {
    let found = format!("file of {}", WASM.len());
    for path in ["app/f.wasm", "./app/f.wasm", "app//f.wasm", "./app/./f.wasm"] {
        assert_eq!(searched(layer(&[file("b.wasm"), file(path)]), "app/f.wasm").unwrap(), found, "{path}");
    }
    let plain = layer(&[file("f.wasm")]);
    let (first, second) = plain.split_at(700);
    let gzip = |part: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap()
    };
    // eStargz layers are many gzip members, zstd:chunked ones many frames.
    assert_eq!(searched([gzip(first), gzip(second)].concat(), "f.wasm").unwrap(), found);
    let zstd = |part: &[u8]| zstd::encode_all(part, 3).unwrap();
    assert_eq!(searched([zstd(first), zstd(second)].concat(), "f.wasm").unwrap(), found);
    let long = format!("{}/f.wasm", "d".repeat(300));
    assert_eq!(searched(layer(&[file(&long)]), &long).unwrap(), found);
}

#[test]
fn a_file_that_is_there_twice_is_refused() {
    let twice = layer(&[file("f.wasm"), file("./f.wasm")]);
    let error = searched(twice, "f.wasm").unwrap_err();
    assert_eq!(error.code(), "invalid-layer");
    assert!(error.to_string().contains("/f.wasm more than once"), "{error}");
    assert_eq!(searched(layer(&[file("g.wasm"), file("g.wasm")]), "f.wasm").unwrap(), "untouched");
}

/// A module of 4 KiB that is a few bytes as it is packed.
fn wrapped() -> Vec<u8> {
    let module = [WASM, &vec![0; 4096 - WASM.len()]].concat();
    let wrapped = zstd::encode_all(module.as_slice(), 3).unwrap();
    assert!(wrapped.len() < 512);
    wrapped
}

#[test]
fn what_a_wrapped_file_unwraps_to_counts() {
    let (_folder, store) = store();
    let wrapped = wrapped();
    let layer = layer(&[("f.wasm", EntryType::Regular, wrapped.as_slice())]);
    let enough = layer.len() as u64 + 4096;
    assert!(matches!(
        search(Cursor::new(layer.clone()), "f.wasm", enough, &store).unwrap(),
        Finding::File(_)
    ));
    let error = search(Cursor::new(layer), "f.wasm", enough - 1, &store).err().unwrap();
    assert_eq!(error.code(), "too-large");
}

#[test]
fn many_wrapped_files_do_not_unwrap_to_more_than_one_layer_may_have() {
    let (_folder, store) = store();
    let wrapped = wrapped();
    // The file hides what is below its path, so that the candidates never get too many.
    let pair =
        [("d/f.wasm", EntryType::Regular, wrapped.as_slice()), ("d", EntryType::Regular, b"".as_slice())];
    let read = |pairs: usize| {
        let layer = layer(&pair.repeat(pairs));
        assert!(layer.len() < 400 << 10);
        Candidates::new(String::new()).read_layer(Cursor::new(layer), BUDGET, &store)
    };
    let left = read(10).unwrap();
    assert!(left <= BUDGET - 10 * 4096, "{left}");
    assert_eq!(read(240).unwrap_err().code(), "too-large");
    let twice = layer(&pair[..1].repeat(2));
    let error = Candidates::new(String::new()).read_layer(Cursor::new(twice), BUDGET, &store).unwrap_err();
    assert_eq!(error.code(), "invalid-layer");
}

#[test]
fn whiteouts_hide_what_is_below_and_nothing_beside() {
    for (path, finding) in [
        ("app/.wh.f.wasm", "removed"),
        (".wh.app", "removed"),
        ("app/.wh..wh..opq", "removed"),
        (".wh..wh..opq", "removed"),
        ("app/.wh.f", "untouched"),
        (".wh.ap", "untouched"),
        ("other/.wh..wh..opq", "untouched"),
        ("f.wasm", "untouched"),
        ("app/f.wasm.bak", "untouched"),
        ("app/f.wasm/x", "untouched"),
    ] {
        assert_eq!(
            searched(layer(&[(path, EntryType::Regular, b"")]), "app/f.wasm").unwrap(),
            finding,
            "{path}"
        );
    }
    // They never hide what the same layer brings.
    let both = layer(&[file("app/f.wasm"), ("app/.wh..wh..opq", EntryType::Regular, b"")]);
    assert!(searched(both, "app/f.wasm").unwrap().starts_with("file of"));
}

#[test]
fn links_and_special_files_are_refused_by_name() {
    for (path, kind, expected) in [
        ("app/f.wasm", EntryType::Symlink, "a symbolic link"),
        ("app/f.wasm", EntryType::Link, "a hard link"),
        ("app/f.wasm", EntryType::Directory, "a directory"),
        ("app/f.wasm", EntryType::Fifo, "a special file"),
        ("app", EntryType::Symlink, "/app, which is a symbolic link"),
    ] {
        let error = searched(layer(&[(path, kind, b"")]), "app/f.wasm").unwrap_err();
        assert_eq!(error.code(), "unsupported-artifact");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_path_that_climbs_matches_nothing() {
    let mut tar = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..15].copy_from_slice(b"x/../app/f.wasm");
    header.set_size(WASM.len() as u64);
    header.set_cksum();
    tar.append(&header, WASM).unwrap();
    assert_eq!(searched(tar.into_inner().unwrap(), "app/f.wasm").unwrap(), "untouched");
}

#[test]
fn bombs_stop_at_the_limits() {
    let zeros = vec![0; 8 << 20];
    let bomb = layer(&[("zeros", EntryType::Regular, zeros.as_slice())]);
    let gzip = {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&bomb).unwrap();
        encoder.finish().unwrap()
    };
    assert!(gzip.len() < 16 << 10);
    assert_eq!(searched(gzip, "f.wasm").unwrap_err().code(), "too-large");
    assert_eq!(
        searched(zstd::encode_all(bomb.as_slice(), 3).unwrap(), "f.wasm").unwrap_err().code(),
        "too-large"
    );

    let module = [WASM, &[0; 8192]].concat();
    let large = layer(&[("f.wasm", EntryType::Regular, module.as_slice())]);
    assert_eq!(searched(large, "f.wasm").unwrap_err().code(), "too-large");
}

#[test]
fn a_name_of_many_megabytes_is_not_read_into_memory() {
    let (_folder, store) = store();
    let name = vec![b'a'; 4 << 20];
    let long = layer(&[("././@LongLink", EntryType::GNULongName, name.as_slice()), file("x")]);
    let refused = search(Cursor::new(long), "f.wasm", u64::MAX, &store).err().unwrap();
    assert!(refused.to_string().contains("name of a file"), "{refused}");
}

#[test]
fn a_large_zstd_window_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&layer(&[file("f.wasm")])).unwrap();
    let packed = encoder.finish().unwrap();
    assert_eq!(searched(packed, "f.wasm").unwrap_err().code(), "invalid-layer");
}

#[test]
fn what_is_no_tar_is_refused_and_leaves_nothing() {
    let (folder, store) = store();
    let cut = layer(&[file("f.wasm")]);
    for bad in [vec![0xff; 4096], cut[..520].to_vec(), b"\x1f\x8bnonsense".to_vec()] {
        let error = search(Cursor::new(bad), "f.wasm", BUDGET, &store).err().unwrap();
        assert_eq!(error.code(), "invalid-layer", "{error}");
    }
    let sparse = layer(&[("s", EntryType::GNUSparse, b"")]);
    let refused = search(Cursor::new(sparse), "f.wasm", BUDGET, &store).err().unwrap();
    assert!(refused.to_string().contains("the image's layer has a sparse file"), "{refused}");
    assert_eq!(std::fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn damaged_layers_end_in_an_answer() {
    let (_folder, store) = store();
    let long = format!("{}/f.wasm", "d".repeat(150));
    let plain = layer(&[
        file("f.wasm"),
        file(&long),
        ("l", EntryType::Symlink, b""),
        ("d/", EntryType::Directory, b""),
    ]);
    let mut random = 1_u64;
    for round in 0..3000 {
        let mut bytes = plain.clone();
        for _ in 0..=round % 4 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (random >> 33) as usize % bytes.len();
            bytes[at] = (random >> 24) as u8;
            // Most damage is to be found behind the checksum.
            fix_checksum(&mut bytes, at / 512 * 512);
        }
        // Whatever it is, it does not panic.
        drop(search(Cursor::new(bytes), "f.wasm", BUDGET, &store));
    }
}

fn fix_checksum(bytes: &mut [u8], block: usize) {
    let mut header = Header::new_old();
    header.as_mut_bytes().copy_from_slice(&bytes[block..block + 512]);
    header.set_cksum();
    bytes[block..block + 512].copy_from_slice(header.as_bytes());
}
