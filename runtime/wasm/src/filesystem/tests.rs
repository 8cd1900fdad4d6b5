use wasmtime::Store;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::filesystem::{
    preopens::Host as _,
    types::{HostDescriptor as _, HostDirectoryEntryStream as _},
};

use super::*;
use crate::{
    engine::Engine,
    instance::{Limits, Usage, new_store},
    secrets::{SecretFiles, tests::files},
    shape::Shape,
};

const VALUE: &[u8] = b"hunter2, all of it";

fn store(secrets: Option<&SecretFiles>) -> Store<State> {
    let engine = Engine::for_compiling(Shape { slots: 1, reservation_bytes: 4 << 30 }, false, None).unwrap();
    let limits = Limits { memory_bytes: 1 << 20, egress: runtime_egress::Policy::none() };
    let (start, usage) = (tokio::time::Instant::now(), Usage::new(&engine, &limits));
    let secrets = secrets.map(SecretFiles::open);
    new_store(&engine, &limits, start, usage, secrets, WasiCtxBuilder::new())
}

fn secrets() -> SecretFiles {
    files(&["empty", "gone", "token"], &[("token", VALUE), ("empty", b""), ("other", b"not yours")])
}

fn borrowed<T: 'static>(resource: &Resource<T>) -> Resource<T> {
    Resource::new_borrow(resource.rep())
}

fn code<T>(result: FsResult<T>) -> ErrorCode {
    result.err().unwrap().downcast().unwrap()
}

async fn open(
    state: &mut State,
    directory: &Resource<Descriptor>,
    path: &str,
    (open, flags): (types::OpenFlags, types::DescriptorFlags),
) -> FsResult<Resource<Descriptor>> {
    state.open_at(borrowed(directory), types::PathFlags::empty(), path.into(), open, flags).await
}

async fn open_to_read(
    state: &mut State,
    directory: &Resource<Descriptor>,
    path: &str,
) -> FsResult<Resource<Descriptor>> {
    open(state, directory, path, (types::OpenFlags::empty(), types::DescriptorFlags::READ)).await
}

#[tokio::test]
async fn a_function_without_secrets_sees_no_directory() {
    assert!(store(None).data_mut().get_directories().unwrap().is_empty());
}

#[tokio::test]
async fn a_file_is_read_within_its_bounds() {
    let mut store = store(Some(&secrets()));
    let state = store.data_mut();
    let [(directory, path)] = <[_; 1]>::try_from(state.get_directories().unwrap()).ok().unwrap();
    assert_eq!(path, "/var/openfaas/secrets");
    let token = open_to_read(state, &directory, "token").await.unwrap();
    assert_eq!(state.stat(borrowed(&token)).await.unwrap().size, VALUE.len() as u64);
    for (most, position, read, end) in [
        (u64::MAX, 0, VALUE, true),
        (7, 0, &VALUE[..7], false),
        (u64::MAX, 7, &VALUE[7..], true),
        (1, u64::MAX, b"", true),
    ] {
        assert_eq!(state.read(borrowed(&token), most, position).await.unwrap(), (read.to_vec(), end));
    }
    let stream = state.read_via_stream(borrowed(&token), 4).unwrap();
    let stream = state.table.get_mut(&stream).unwrap();
    assert_eq!(stream.read(0).unwrap(), "");
    assert_eq!(stream.read(3).unwrap(), VALUE[4..7]);
    assert_eq!(stream.read(usize::MAX).unwrap(), VALUE[7..]);
    assert!(matches!(stream.read(1), Err(StreamError::Closed)));
    types::HostDescriptor::drop(state, borrowed(&token)).unwrap();
    assert!(state.get_type(token).await.is_err());
}

#[tokio::test]
async fn paths_lead_to_the_function_s_own_files_alone_and_nothing_is_written() {
    let mut store = store(Some(&secrets()));
    let state = store.data_mut();
    let (directory, _) = state.get_directories().unwrap().remove(0);
    let token = open_to_read(state, &directory, "token").await.unwrap();
    for (path, refused) in [
        ("gone", ErrorCode::NoEntry),
        ("other", ErrorCode::NoEntry),
        ("", ErrorCode::NoEntry),
        ("token/x", ErrorCode::NotDirectory),
        ("../token", ErrorCode::NotPermitted),
        ("/token", ErrorCode::NotPermitted),
    ] {
        assert_eq!(code(open_to_read(state, &directory, path).await), refused, "{path}");
    }
    for (how, flags) in [
        (types::OpenFlags::CREATE, types::DescriptorFlags::READ),
        (types::OpenFlags::TRUNCATE, types::DescriptorFlags::READ),
        (types::OpenFlags::empty(), types::DescriptorFlags::READ | types::DescriptorFlags::WRITE),
    ] {
        for path in ["token", "gone"] {
            assert_eq!(code(open(state, &directory, path, (how, flags)).await), ErrorCode::ReadOnly);
        }
    }
    assert_eq!(code(open_to_read(state, &token, "token").await), ErrorCode::NotDirectory);
    assert_eq!(code(state.unlink_file_at(borrowed(&directory), "token".into()).await), ErrorCode::ReadOnly);
    assert_eq!(code(state.create_directory_at(borrowed(&directory), "x".into()).await), ErrorCode::ReadOnly);
    assert_eq!(code(state.write(borrowed(&token), vec![0], 0).await), ErrorCode::ReadOnly);
    assert_eq!(code(state.set_size(borrowed(&token), 0).await), ErrorCode::ReadOnly);
    assert_eq!(code(state.write_via_stream(borrowed(&token), 0)), ErrorCode::ReadOnly);
    assert_eq!(code(state.append_via_stream(borrowed(&token))), ErrorCode::ReadOnly);

    let listing = state.read_directory(borrowed(&directory)).await.unwrap();
    let mut names = Vec::new();
    while let Some(entry) = state.read_directory_entry(borrowed(&listing)).await.unwrap() {
        names.push(entry.name);
    }
    assert_eq!(names, ["empty", "token"]);
    assert!(!state.is_same_object(borrowed(&token), borrowed(&directory)).await.unwrap());
}

/// A guest passes whatever number it likes.
#[tokio::test]
async fn a_handle_of_something_else_ends_the_guest() {
    let mut store = store(Some(&secrets()));
    let state = store.data_mut();
    let (directory, _) = state.get_directories().unwrap().remove(0);
    let listing = state.read_directory(borrowed(&directory)).await.unwrap();
    for rep in [listing.rep(), 77, u32::MAX] {
        let wrong = state.stat(Resource::new_borrow(rep)).await.err().unwrap();
        assert!(wrong.downcast().is_err(), "it is told no code");
    }
}
