//! Secrets as files: what can be compared with files on disk, and what is ours alone.

use tempfile::TempDir;

use super::{chance::Chance, *};
use crate::secrets::{DIRECTORY, tests::files};

const OK: End = End::Errno(0);
const BADF: End = End::Errno(8);
const INVAL: End = End::Errno(28);
const MFILE: End = End::Errno(33);
const NAMETOOLONG: End = End::Errno(37);
const NOENT: End = End::Errno(44);
const NOMEM: End = End::Errno(48);
const NOTDIR: End = End::Errno(54);
const NOTSOCK: End = End::Errno(57);
const NOTSUP: End = End::Errno(58);
const OVERFLOW: End = End::Errno(61);
const PERM: End = End::Errno(63);
const ROFS: End = End::Errno(69);
const TRAP: End = End::Trap;

const OUT: u64 = 0x1_0000;
const READ: u64 = 1 << 1;
const WRITE: u64 = 1 << 6;

const VALUE: &[u8] = b"hunter2, all of it";

/// Paths, where they lie in a guest's memory.
const PATHS: [&str; 15] = [
    "token",
    ".",
    "..",
    "gone",
    "token/",
    "./token",
    "/token",
    "token/x",
    "../secrets/token",
    "",
    "./",
    "tok\0en",
    "Token",
    "other",
    "empty",
];

fn path(wanted: &str) -> [u64; 2] {
    let index = PATHS.iter().position(|path| *path == wanted).unwrap();
    [0x2000 + 0x20 * index as u64, wanted.len() as u64]
}

struct Files {
    hosts: Hosts,
    secrets: SecretFiles,
    folder: TempDir,
}

impl Files {
    /// Two secrets of the function's, and one of somebody else's.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in [("token", VALUE), ("empty", b"")] {
            std::fs::write(folder.path().join(name), value).unwrap();
        }
        let there_are = [("token", VALUE), ("empty", b""), ("other", b"not yours")];
        Self { hosts: Hosts::new(), secrets: files(&["empty", "gone", "token"], &there_are), folder }
    }

    async fn both(&self) -> Both {
        let mut both = self.hosts.both_with(PLAIN, Some((&self.secrets, self.folder.path()))).await;
        for name in PATHS {
            both.write(path(name)[0] as usize, name.as_bytes());
        }
        both
    }
}

/// Opens to read.
fn open(name: &str, how: u64) -> [u64; 9] {
    let [at, length] = path(name);
    [3, 0, at, length, how, READ, 0, 0, 0]
}

#[tokio::test(start_paused = true)]
async fn a_file_is_found_opened_and_read_as_one_on_disk() {
    let files = Files::new();
    let mut both = files.both().await;
    assert_eq!(both.call("fd_prestat_get", &[3, 0x10]).await, OK);
    assert_eq!(both.call("fd_prestat_dir_name", &[3, 0x40, DIRECTORY.len() as u64]).await, OK);
    assert_eq!(&both.ours.memory()[0x40..0x40 + DIRECTORY.len()], DIRECTORY.as_bytes());
    assert_eq!(both.call("fd_prestat_get", &[4, 0x10]).await, BADF);
    assert_eq!(both.call("path_open", &open("token", 0)).await, OK);
    assert_eq!(both.call("path_open", &open("./token", 0)).await, OK);
    assert_eq!(both.ours.memory()[..4], 5_u32.to_le_bytes());

    // An empty buffer, then one of seven bytes, then one as large as it gets.
    both.write_numbers(0x100, &[0, 0, 0x1000, 7, 0x1100, 0x100]);
    assert_eq!(both.call("fd_read", &[4, 0x100, 2, 0x20]).await, OK);
    assert_eq!(both.call("fd_tell", &[4, 0x28]).await, OK);
    assert_eq!(both.call("fd_read", &[4, 0x110, 1, 0x20]).await, OK);
    assert_eq!(both.call("fd_read", &[4, 0x110, 1, 0x20]).await, OK);
    assert_eq!(both.ours.memory()[0x20..0x24], [0; 4], "the end");
    assert_eq!(&both.ours.memory()[0x1000..0x1007], &VALUE[..7]);
    assert_eq!(&both.ours.memory()[0x1100..0x1100 + VALUE.len() - 7], &VALUE[7..]);
    for position in [0, 3, VALUE.len() as u64, 1 << 40] {
        assert_eq!(both.call("fd_pread", &[5, 0x108, 1, position, 0x20]).await, OK, "{position}");
    }
    for (offset, whence, end) in [
        (2, 0, OK),
        (3, 1, OK),
        (-5_i64, 1, OK),
        (-1, 1, INVAL),
        (-1, 0, INVAL),
        (0, 2, OK),
        (-18, 2, OK),
        (-19, 2, INVAL),
        (1 << 40, 0, OK),
        (i64::MAX, 1, OK),
        (i64::MAX, 1, INVAL),
        (0, 3, TRAP),
    ] {
        assert_eq!(both.call("fd_seek", &[5, offset as u64, whence, 0x30]).await, end, "{offset} {whence}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_call_of_a_file_ends_as_on_disk() {
    let files = Files::new();
    let [token, length] = path("token");
    let calls: &[(&str, &[u64], End)] = &[
        ("path_open", &open("token", 2), NOTDIR),
        ("path_open", &open(".", 0), OK),
        ("path_open", &open(".", 2), OK),
        ("path_open", &open("./", 2), OK),
        ("path_open", &open("..", 0), PERM),
        ("path_open", &open("/token", 0), PERM),
        ("path_open", &open("../secrets/token", 0), PERM),
        ("path_open", &open("gone", 0), NOENT),
        ("path_open", &open("other", 0), NOENT),
        ("path_open", &open("Token", 0), NOENT),
        ("path_open", &open("", 0), NOENT),
        ("path_open", &open("token/x", 0), NOTDIR),
        ("path_open", &open("token", 3), INVAL),
        ("path_open", &open("token", 10), INVAL),
        ("path_open", &[4, 0, token, length, 0, READ, 0, 0, 0], NOTDIR),
        ("path_open", &[0, 0, token, length, 0, READ, 0, 0, 0], BADF),
        ("path_open", &[3, 0, token, length, 16, READ, 0, 0, 0], TRAP),
        ("path_open", &[3, 0, OUT - 4, 5, 0, READ, 0, 0, 0], TRAP),
        ("path_open", &[3, 0, token, LIMIT + 1, 0, READ, 0, 0, 0], NOMEM),
        ("path_open", &[3, 0, token, length, 0, READ, 0, 0, OUT], TRAP),
        ("path_open", &[3, 0, token, length, 0, READ, 0, 0, 2], TRAP),
        ("path_filestat_get", &[4, 0, token, length, 0], BADF),
        ("path_filestat_get", &[3, 0, path("gone")[0], 4, 0], NOENT),
        ("path_filestat_get", &[3, 0, path("..")[0], 2, 0], PERM),
        ("path_filestat_get", &[3, 0, token, length, 4], TRAP),
        ("path_readlink", &[3, token, length, 0x400, 8, 0], INVAL),
        ("path_readlink", &[3, path("gone")[0], 4, 0x400, 8, 0], NOENT),
        ("path_readlink", &[4, token, length, 0x400, 8, 0], BADF),
        ("fd_prestat_dir_name", &[3, 0x40, 20], NAMETOOLONG),
        ("fd_prestat_dir_name", &[3, OUT - 8, 64], TRAP),
        ("fd_prestat_dir_name", &[4, 0x40, 64], NOTDIR),
        ("fd_prestat_get", &[3, OUT - 4], TRAP),
        ("fd_read", &[3, 0x100, 1, 0], BADF),
        ("fd_pread", &[3, 0x100, 1, 0, 0], BADF),
        ("fd_seek", &[3, 0, 0, 0], BADF),
        ("fd_seek", &[4, 0, 0, OUT], TRAP),
        ("fd_tell", &[3, 0], BADF),
        ("fd_tell", &[4, 4], TRAP),
        ("fd_readdir", &[4, 0, 8, 0, 0], BADF),
        ("fd_readdir", &[0, 0, 8, 0, 0], BADF),
        ("fd_advise", &[4, 0, 8, 0], OK),
        ("fd_advise", &[3, 0, 8, 0], BADF),
        ("fd_sync", &[4], OK),
        ("fd_datasync", &[4], OK),
        ("fd_fdstat_set_flags", &[4, 1], OK),
        ("fd_fdstat_set_flags", &[4, 16], INVAL),
        ("fd_fdstat_set_flags", &[3, 1], BADF),
        ("fd_fdstat_set_rights", &[4, 0, 0], NOTSUP),
        ("fd_fdstat_set_rights", &[3, 0, 0], NOTSUP),
        ("fd_renumber", &[4, 0], OK),
        ("fd_renumber", &[3, 1], OK),
        ("fd_renumber", &[4, 4], OK),
        ("fd_renumber", &[0, 3], OK),
        ("fd_close", &[3], OK),
        ("fd_close", &[4], OK),
        ("sock_recv", &[4, 0, 0, 0, 0, 0], NOTSOCK),
        ("sock_shutdown", &[0, 3], NOTSOCK),
    ];
    for (name, args, end) in calls {
        let mut both = files.both().await;
        assert_eq!(both.call("path_open", &open("token", 0)).await, OK);
        both.write_numbers(0x100, &[0x1000, 100]);
        assert_eq!(both.call(name, args).await, *end, "{name}{args:x?}");
        // What a call wrote before it trapped, no guest sees.
        if *end != TRAP {
            let _ = both.call("fd_close", &[4]).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn buffers_beyond_the_memory_or_its_limit_are_refused() {
    let files = Files::new();
    for (buffer, count, end) in [
        ([0xfff8, 8], 1, OK),
        ([0x1000, u32::MAX], 1, NOMEM),
        ([0x1000, 1 << 20], 1, NOMEM),
        ([0x1000, 8], u64::from(u32::MAX), NOMEM),
        ([OUT as u32, 1], 1, TRAP),
        ([u32::MAX, 8], 1, TRAP),
    ] {
        for name in ["fd_read", "fd_pread"] {
            let mut both = files.both().await;
            assert_eq!(both.call("path_open", &open("token", 0)).await, OK);
            both.write_numbers(0x100, &buffer);
            let args: &[u64] =
                if name == "fd_read" { &[4, 0x100, count, 0] } else { &[4, 0x100, count, 0, 0] };
            assert_eq!(both.call(name, args).await, end, "{name} {buffer:x?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_can_be_changed() {
    let files = Files::new();
    let [token, length] = path("token");
    let [gone, _] = path("gone");
    let calls: &[(&str, &[u64], End)] = &[
        ("path_open", &open("token", 1), ROFS),
        ("path_open", &open("gone", 1), ROFS),
        ("path_open", &open("gone", 5), ROFS),
        ("path_open", &open("token", 8), ROFS),
        ("path_open", &[3, 0, token, length, 0, WRITE, 0, 0, 0], ROFS),
        ("path_open", &[3, 0, token, length, 0, READ | WRITE, 0, 0, 0], ROFS),
        ("path_open", &[3, 0, gone, 4, 0, WRITE, 0, 0, 0], ROFS),
        ("path_create_directory", &[3, gone, 4], ROFS),
        ("path_remove_directory", &[3, token, length], ROFS),
        ("path_unlink_file", &[3, token, length], ROFS),
        ("path_link", &[3, 0, token, length, 3, gone, 4], ROFS),
        ("path_rename", &[3, token, length, 3, gone, 4], ROFS),
        ("path_symlink", &[token, length, 3, gone, 4], ROFS),
        ("path_filestat_set_times", &[3, 0, token, length, 0, 0, 1], ROFS),
        ("path_unlink_file", &[4, token, length], BADF),
        ("fd_filestat_set_size", &[4, 0], ROFS),
        ("fd_filestat_set_times", &[4, 0, 0, 1], ROFS),
        ("fd_filestat_set_times", &[3, 0, 0, 1], ROFS),
        ("fd_allocate", &[4, 0, 9], ROFS),
        ("fd_write", &[4, 0x100, 1, 0], BADF),
        ("fd_write", &[3, 0x100, 1, 0], BADF),
        ("fd_pwrite", &[4, 0x100, 1, 0, 0], BADF),
    ];
    let mut both = files.both().await;
    assert_eq!(both.ours.call("path_open", &open("token", 0)).await, OK);
    both.write_numbers(0x100, &[0x1000, 4]);
    for (name, args, end) in calls {
        assert_eq!(both.ours.call(name, args).await, *end, "{name}{args:x?}");
    }
    assert_eq!(both.ours.call("fd_pread", &[4, 0x100, 1, 0, 0]).await, OK);
    assert_eq!(&both.ours.memory()[0x1000..0x1004], &VALUE[..4]);
}

#[tokio::test(start_paused = true)]
async fn sizes_and_kinds_are_told() {
    let files = Files::new();
    let mut both = files.both().await;
    let (ours, [token, length]) = (&mut both.ours, path("token"));
    assert_eq!(ours.call("path_open", &open("token", 0)).await, OK);
    for (name, args, kind, inode, size) in [
        ("fd_filestat_get", &[3, 0x400][..], 3, 1, 0),
        ("fd_filestat_get", &[4, 0x400], 4, 4, VALUE.len() as u64),
        ("path_filestat_get", &[3, 1, token, length, 0x400], 4, 4, VALUE.len() as u64),
        ("path_filestat_get", &[3, 0, path("empty")[0], 5, 0x400], 4, 2, 0),
    ] {
        ours.memory()[0x400..0x440].fill(0xee);
        assert_eq!(ours.call(name, args).await, OK);
        let stat = &ours.memory()[0x400..0x440];
        let number = |at: usize| u64::from_le_bytes(stat[at..at + 8].try_into().unwrap());
        assert_eq!((stat[16], number(8), number(24), number(32)), (kind, inode, 1, size), "{name}");
        assert_eq!([number(0), number(40), number(48), number(56)], [1, 0, 0, 0]);
    }
    for (fd, kind, reads, writes) in [(3, 3, false, false), (4, 4, true, false)] {
        assert_eq!(ours.call("fd_fdstat_get", &[fd, 0x400]).await, OK);
        let stat = &ours.memory()[0x400..0x418];
        let rights = u64::from_le_bytes(stat[8..16].try_into().unwrap());
        assert_eq!((stat[0], rights & READ != 0, rights & WRITE != 0), (kind, reads, writes));
    }
}

/// The names that a listing in pieces of so many bytes finds.
async fn listed(ours: &mut Sandbox<Process>, piece: usize) -> Vec<String> {
    let (mut names, mut cookie) = (Vec::new(), 0_u64);
    loop {
        assert_eq!(ours.call("fd_readdir", &[3, 0x4000, piece as u64, cookie, 0x20]).await, OK);
        let used = u32::from_le_bytes(ours.memory()[0x20..0x24].try_into().unwrap()) as usize;
        assert!(used <= piece);
        let mut entries = &ours.memory()[0x4000..0x4000 + used];
        let mut any = false;
        while let Some((head, rest)) = entries.split_at_checked(24) {
            let length = u32::from_le_bytes(head[16..20].try_into().unwrap()) as usize;
            let Some((name, rest)) = rest.split_at_checked(length) else { break };
            assert_eq!(head[20], if name[0] == b'.' { 3 } else { 4 });
            names.push(String::from_utf8(name.to_vec()).unwrap());
            (cookie, entries, any) = (u64::from_le_bytes(head[..8].try_into().unwrap()), rest, true);
        }
        if used < piece {
            return names;
        }
        assert!(any, "a piece that holds no entry goes nowhere");
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_is_complete_however_it_is_read() {
    let files = Files::new();
    let mut both = files.both().await;
    for piece in [29, 30, 53, 64, 106, 107, 4096] {
        assert_eq!(listed(&mut both.ours, piece).await, [".", "..", "empty", "token"], "{piece}");
    }
    for (at, length, cookie, end) in [
        (0x4000, 0, 0, OK),
        (0x4000, 1, 3, OK),
        (0x4000, 64, 4, OK),
        (0x4000, 64, 5, OK),
        (0x4000, 64, u64::MAX, OK),
        (OUT - 8, 64, 0, TRAP),
        (OUT, u64::from(u32::MAX), 3, TRAP),
    ] {
        let mut both = files.both().await;
        let ended = both.ours.call("fd_readdir", &[3, at, length, cookie, 0x20]).await;
        assert!(
            ended == end || (cookie == u64::MAX && ended == OVERFLOW),
            "{at:x} {length} {cookie}: {ended:?}"
        );
        if cookie >= 4 && ended == OK {
            assert_eq!(both.ours.memory()[0x20..0x24], [0; 4]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn files_are_always_ready_and_their_numbers_run_out() {
    let files = Files::new();
    let mut both = files.both().await;
    assert_eq!(both.call("path_open", &open("token", 0)).await, OK);
    assert_eq!(both.call("path_open", &open("empty", 0)).await, OK);
    for fd in [4_u8, 5] {
        both.write(0x200, &[0; 48]);
        both.write(0x200 + 8, &[1]);
        both.write(0x200 + 16, &[fd]);
        assert_eq!(both.call("poll_oneoff", &[0x200, 0x300, 1, 0x20]).await, OK);
    }
    for (kind, fd, end) in [(1_u8, 3_u8, BADF), (2, 3, BADF), (2, 4, BADF)] {
        both.write(0x200 + 8, &[kind]);
        both.write(0x200 + 16, &[fd]);
        assert_eq!(both.ours.call("poll_oneoff", &[0x200, 0x300, 1, 0x20]).await, end);
    }
    let ours = &mut both.ours;
    for _ in 6..1024 {
        assert_eq!(ours.call("path_open", &open("token", 0)).await, OK);
    }
    assert_eq!(ours.call("path_open", &open("token", 0)).await, MFILE);
    assert_eq!(ours.call("fd_close", &[0]).await, OK);
    assert_eq!(ours.call("path_open", &open("token", 0)).await, OK);
    assert_eq!(ours.memory()[..4], [0; 4], "the lowest that is free");
    assert_eq!(ours.call("path_open", &open("token", 0)).await, MFILE);
}

/// Whatever a guest asks, the host answers or ends it.
#[tokio::test(start_paused = true)]
async fn calls_at_random_leave_the_host_standing() {
    let files = Files::new();
    let mut opened = 0;
    for seed in 0..500 {
        let mut chance = Chance(seed);
        let mut both = files.both().await;
        both.ours.memory()[..0x200].copy_from_slice(&chance.page()[..0x200]);
        for _ in 0..40 {
            let Function { name, wide } = &files.hosts.functions[chance.below(files.hosts.functions.len())];
            let mut args: Vec<u64> = wide.iter().map(|_| chance.argument()).collect();
            if name == "path_open" && chance.below(2) == 0 {
                args = open(PATHS[chance.below(PATHS.len())], chance.of(&[0, 0, 0, 2])).to_vec();
            } else if name.starts_with("fd_") {
                args[0] = chance.of(&[3, 4, 5, 6]);
            }
            match both.ours.call(name, &args).await {
                End::Errno(0) if name == "path_open" => opened += 1,
                End::Errno(_) => {}
                End::Trap | End::Waits => break,
            }
        }
    }
    assert!(opened > 0, "nothing was opened");
}
