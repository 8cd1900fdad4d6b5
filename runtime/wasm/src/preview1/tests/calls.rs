//! Calls one by one.

use super::*;

const OK: End = End::Errno(0);
const BADF: End = End::Errno(8);
const ILSEQ: End = End::Errno(25);
const INTR: End = End::Errno(27);
const INVAL: End = End::Errno(28);
const IO: End = End::Errno(29);
const NOMEM: End = End::Errno(48);
const NOTDIR: End = End::Errno(54);
const NOTSOCK: End = End::Errno(57);
const NOTSUP: End = End::Errno(58);
const SPIPE: End = End::Errno(70);
const TRAP: End = End::Trap;

/// Beyond the guest's memory.
const OUT: u64 = 0x1_0000;
const MINUS: u64 = 0xffff_ffff;

#[tokio::test(start_paused = true)]
async fn each_function_ends_as_it_should() {
    let hosts = Hosts::new();
    let mut both = hosts.both(PLAIN).await;
    let mut ours: Vec<_> =
        hosts.ours.iter(&mut both.ours.store).map(|(_, name, _)| name.to_owned()).collect();
    ours.sort();
    assert!(ours.iter().eq(hosts.functions.iter().map(|function| &function.name)), "{ours:?}");
    assert_eq!(ours.len(), 46);
    let calls: &[(&str, &[u64], End)] = &[
        ("args_sizes_get", &[0, 4], OK),
        ("args_sizes_get", &[0, 0], OK),
        ("args_sizes_get", &[2, 4], TRAP),
        ("args_sizes_get", &[0, OUT], TRAP),
        ("args_get", &[0, 64], OK),
        ("args_get", &[0, 2], OK),
        ("args_get", &[0x40, 0x3f], OK),
        ("args_get", &[1, 64], TRAP),
        ("args_get", &[0, OUT - 3], TRAP),
        ("args_get", &[0, MINUS], TRAP),
        ("environ_sizes_get", &[8, 12], OK),
        ("environ_get", &[0, 64], OK),
        ("environ_get", &[OUT - 4, 0], TRAP),
        ("clock_res_get", &[0, 0], OK),
        ("clock_res_get", &[1, 8], OK),
        ("clock_res_get", &[2, 8], BADF),
        ("clock_res_get", &[3, OUT], BADF),
        ("clock_res_get", &[4, 0], TRAP),
        ("clock_res_get", &[0, 4], TRAP),
        ("clock_time_get", &[2, 0, 0], BADF),
        ("clock_time_get", &[3, 0, 0], BADF),
        ("clock_time_get", &[MINUS, 0, 0], TRAP),
        ("clock_time_get", &[0, 0, OUT], TRAP),
        ("random_get", &[0, 0], OK),
        ("random_get", &[MINUS, 0], OK),
        ("random_get", &[0, (64 << 10) + 1], TRAP),
        ("random_get", &[1, 64 << 10], TRAP),
        ("sched_yield", &[], OK),
        ("proc_raise", &[0], NOTSUP),
        ("proc_raise", &[30], NOTSUP),
        ("proc_raise", &[31], TRAP),
        ("fd_close", &[3], BADF),
        ("fd_close", &[MINUS], BADF),
        ("fd_renumber", &[0, 3], BADF),
        ("fd_renumber", &[3, 0], BADF),
        ("fd_renumber", &[1, 1], OK),
        ("fd_fdstat_get", &[0, 0], OK),
        ("fd_fdstat_get", &[1, 8], OK),
        ("fd_fdstat_get", &[2, 16], OK),
        ("fd_fdstat_get", &[3, 0], BADF),
        ("fd_fdstat_get", &[0, 4], TRAP),
        ("fd_fdstat_get", &[0, OUT - 16], TRAP),
        ("fd_fdstat_set_flags", &[1, 4], BADF),
        ("fd_fdstat_set_flags", &[9, 0], BADF),
        ("fd_fdstat_set_flags", &[1, 32], TRAP),
        ("fd_fdstat_set_rights", &[1, 0, 0], BADF),
        ("fd_fdstat_set_rights", &[1, (1 << 30) - 1, 1], BADF),
        ("fd_fdstat_set_rights", &[1, 1 << 30, 0], TRAP),
        ("fd_fdstat_set_rights", &[1, 0, u64::MAX], TRAP),
        ("fd_filestat_get", &[0, 0], OK),
        ("fd_filestat_get", &[2, 64], OK),
        ("fd_filestat_get", &[3, 0], BADF),
        ("fd_filestat_get", &[0, OUT - 56], TRAP),
        ("fd_seek", &[0, 0, 1, 0], SPIPE),
        ("fd_seek", &[1, 0, 2, OUT], SPIPE),
        ("fd_seek", &[3, 0, 0, 0], BADF),
        ("fd_seek", &[0, 0, 3, 0], TRAP),
        ("fd_tell", &[2, 0], SPIPE),
        ("fd_tell", &[3, 0], BADF),
        ("fd_prestat_get", &[0, 0], BADF),
        ("fd_prestat_get", &[3, OUT], BADF),
        ("fd_prestat_dir_name", &[0, 0, 0], NOTDIR),
        ("fd_prestat_dir_name", &[3, 0, 0], BADF),
        ("fd_advise", &[0, 0, 0, 5], BADF),
        ("fd_advise", &[0, 0, 0, 6], TRAP),
        ("fd_allocate", &[1, 0, 1], BADF),
        ("fd_datasync", &[1], BADF),
        ("fd_sync", &[1], BADF),
        ("fd_filestat_set_size", &[1, 1], BADF),
        ("fd_filestat_set_times", &[1, 0, 0, 5], BADF),
        ("fd_filestat_set_times", &[1, 0, 0, 3], INVAL),
        ("fd_filestat_set_times", &[7, 0, 0, 12], INVAL),
        ("fd_filestat_set_times", &[1, 0, 0, 16], TRAP),
        ("fd_readdir", &[3, 0, 8, 0, 0], BADF),
        ("path_create_directory", &[3, OUT, 1], BADF),
        ("path_filestat_get", &[3, 1, 0, 1, 0], BADF),
        ("path_filestat_get", &[3, 2, 0, 1, 0], TRAP),
        ("path_filestat_set_times", &[3, 0, 0, 1, 0, 0, 3], INVAL),
        ("path_filestat_set_times", &[3, 0, 0, 1, 0, 0, 1], BADF),
        ("path_link", &[3, 0, 0, 1, 3, 0, 1], BADF),
        ("path_link", &[3, 8, 0, 1, 3, 0, 1], TRAP),
        ("path_open", &[3, 0, 0, 1, 0, 0, 0, 0, 0], BADF),
        ("path_open", &[1, 1, 0, 1, 15, (1 << 30) - 1, 0, 31, 0], BADF),
        ("path_open", &[3, 0, OUT, 1, 0, 0, 0, 0, 0], TRAP),
        ("path_open", &[3, 0, 0, 1, 16, 0, 0, 0, 0], TRAP),
        ("path_open", &[3, 0, 0, 1, 0, 1 << 30, 0, 0, 0], TRAP),
        ("path_open", &[3, 0, 0, LIMIT + 1, 0, 0, 0, 0, 0], NOMEM),
        ("path_open", &[3, 0, 0x7000, 1, 0, 0, 0, 0, 0], ILSEQ),
        ("path_readlink", &[3, 0, 1, 0, 8, 0], BADF),
        ("path_remove_directory", &[0, 0, 1], BADF),
        ("path_rename", &[3, 0, 1, 3, 0, 1], BADF),
        ("path_symlink", &[0, 1, 3, 0, 1], BADF),
        ("path_unlink_file", &[3, 0, 1], BADF),
        ("sock_accept", &[0, 0, 0], NOTSOCK),
        ("sock_accept", &[3, 0, 0], BADF),
        ("sock_accept", &[0, 32, 0], TRAP),
        ("sock_recv", &[0, 0, 0, 3, 0, 0], NOTSOCK),
        ("sock_recv", &[0, 0, 0, 4, 0, 0], TRAP),
        ("sock_send", &[1, 0, 0, 0xffff, 0], NOTSOCK),
        ("sock_send", &[1, 0, 0, OUT, 0], TRAP),
        ("sock_shutdown", &[2, 3], NOTSOCK),
        ("sock_shutdown", &[5, 3], BADF),
        ("sock_shutdown", &[2, 4], TRAP),
    ];
    for (name, args, end) in calls {
        let mut both = hosts.both(PLAIN).await;
        both.write(0x7000, &[0xff]);
        assert_eq!(both.call(name, args).await, *end, "{name}{args:x?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_stream_stays_closed_and_can_be_replaced() {
    let hosts = Hosts::new();
    let mut both = hosts.both(PLAIN).await;
    both.write_numbers(0x100, &[0x1000, 5]);
    both.write(0x1000, b"twice");
    assert_eq!(both.call("fd_write", &[1, 0x100, 1, 0]).await, OK);
    assert_eq!(both.call("fd_renumber", &[2, 1]).await, OK);
    assert_eq!(both.call("fd_write", &[2, 0x100, 1, 0]).await, BADF);
    assert_eq!(both.call("fd_write", &[1, 0x100, 1, 0]).await, OK, "to standard error");
    assert_eq!(both.call("fd_renumber", &[0, 1]).await, OK);
    assert_eq!(both.call("fd_read", &[1, 0x100, 1, 0]).await, OK, "from standard input");
    assert_eq!(both.call("fd_fdstat_get", &[1, 0x40]).await, OK);
    assert_eq!(both.call("fd_close", &[1]).await, OK);
    assert_eq!(both.call("fd_close", &[1]).await, BADF);
    assert_eq!(both.call("fd_read", &[0, 0x100, 1, 0]).await, BADF);
    assert_eq!(both.call("fd_renumber", &[0, 1]).await, BADF);
    assert_eq!(both.output().await, "twice");
}

#[tokio::test(start_paused = true)]
async fn input_comes_as_it_arrives() {
    let hosts = Hosts::new();
    let mut both = hosts.both(PLAIN).await;
    // Two empty buffers, then one of three bytes and one that is not looked at.
    both.write_numbers(0x100, &[0, 0, MINUS as u32, 0, 0x1000, 3, OUT as u32, 9]);
    assert_eq!(both.call("fd_read", &[0, 0x100, 2, 0]).await, INTR, "nothing was asked for");
    for _ in 0..5 {
        assert_eq!(both.call("fd_read", &[0, 0x100, 4, 0]).await, OK);
    }
    assert_eq!(both.call("fd_read", &[0, 0x100, 0, 0]).await, OK, "the end, whatever was asked for");
    assert_eq!(both.call("fd_read", &[0, 0x100, 0, 2]).await, TRAP);

    for (given, list, end) in [
        (PLAIN, [0xfffe, 100], TRAP),
        (PLAIN, [0xfff0, 100], OK),
        (PLAIN, [0x1000, u32::MAX], NOMEM),
        (Given { sent: Sent::Pieces(&[]), ..PLAIN }, [u32::MAX, 1], OK),
        (Given { sent: Sent::Never, ..PLAIN }, [0x1000, 1], End::Waits),
        (Given { sent: Sent::Never, ..PLAIN }, [0x1000, 0], End::Waits),
    ] {
        let mut both = hosts.both(given).await;
        both.write_numbers(0x100, &list);
        assert_eq!(both.call("fd_read", &[0, 0x100, 1, 0]).await, end, "{given:?} {list:x?}");
    }
    let mut both = hosts.both(Given { sent: Sent::BreaksOff, ..PLAIN }).await;
    both.write_numbers(0x100, &[0x1000, 100]);
    for end in [OK, IO, OK] {
        assert_eq!(
            both.call("fd_read", &[0, 0x100, 1, 0]).await,
            end,
            "what came, the failure once, the end"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn reading_and_writing_refuse_what_they_must() {
    let hosts = Hosts::new();
    let calls: &[(&str, &[u64], End)] = &[
        ("fd_read", &[1, 0x100, 1, 0], BADF),
        ("fd_read", &[3, 0x100, 1, 0], BADF),
        ("fd_read", &[3, 0x102, 1, 0], TRAP),
        ("fd_read", &[0, OUT, 1, 0], TRAP),
        ("fd_read", &[0, MINUS - 3, 2, 0], TRAP),
        ("fd_read", &[0, 0x100, 1 << 28, 0], NOMEM),
        ("fd_read", &[0, 0x100, MINUS, 0], NOMEM),
        ("fd_read", &[0, 0x100, 1 << 14, 0], OK),
        ("fd_pread", &[0, 0x100, 1, 0, 0], SPIPE),
        ("fd_pread", &[1, 0x100, 1, 0, 0], BADF),
        ("fd_pread", &[0, OUT, 1, 0, 0], TRAP),
        ("fd_pwrite", &[1, 0x100, 1, 0, 0], SPIPE),
        ("fd_pwrite", &[0, 0x100, 1, 0, 0], BADF),
        ("fd_pwrite", &[4, 0x100, MINUS, 0, 0], NOMEM),
        ("fd_write", &[0, 0x100, 1, 0], BADF),
        ("fd_write", &[3, 0x100, 1, 0], BADF),
        ("fd_write", &[0, 0x101, 1, 0], TRAP),
        ("fd_write", &[1, 0x100, 1, 0], OK),
        ("fd_write", &[1, 0x100, 1, OUT], TRAP),
        ("fd_write", &[1, 0x100, 1 << 28, 0], NOMEM),
        ("fd_write", &[1, 0x108, 1, 0], TRAP),
        ("fd_write", &[2, 0x108, 1, 0], TRAP),
        ("fd_write", &[0, 0x108, 1, 0], BADF),
        ("fd_write", &[1, 0x110, 1, 0], NOMEM),
        ("fd_write", &[1, 0x118, 1, 0], OK),
        ("fd_write", &[1, 0x118, 0, 0], OK),
        ("fd_write", &[1, OUT, 0, 0], OK),
    ];
    for combined in [false, true] {
        for (name, args, end) in calls {
            let mut both = hosts.both(Given { combined, ..PLAIN }).await;
            let numbers = [0x1000, 4, OUT as u32 - 1, 2, 0, u32::MAX, u32::MAX, 0];
            both.write_numbers(0x100, &numbers);
            both.write(0x1000, b"text");
            assert_eq!(both.call(name, args).await, *end, "{name}{args:x?}");
            both.output().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_output_goes_out_whole_by_its_first_buffer() {
    let hosts = Hosts::new();
    let mut both = hosts.both(Given { combined: true, ..PLAIN }).await;
    let text: Vec<u8> = (0..60_000_u32).map(|index| u8::try_from(index % 251).unwrap()).collect();
    both.write(0x1000, &text);
    both.write_numbers(0x100, &[0, 0, 0x1000, 60_000, 0x1000, 1]);
    for round in 0..50 {
        // More than what is kept in memory.
        assert_eq!(both.call("fd_write", &[1 + round % 2, 0x100, 3, 0]).await, OK);
    }
    assert_eq!(both.output().await.len(), 50 * 60_000);
}

/// A subscription as it lies in memory.
fn subscription(userdata: u64, tag: u8, clock_or_fd: u32, timeout: u64, flags: u16) -> Vec<u8> {
    let mut bytes = vec![0xaa; 48];
    bytes[0..8].copy_from_slice(&userdata.to_le_bytes());
    bytes[8] = tag;
    bytes[16..20].copy_from_slice(&clock_or_fd.to_le_bytes());
    bytes[24..32].copy_from_slice(&timeout.to_le_bytes());
    bytes[40..42].copy_from_slice(&flags.to_le_bytes());
    bytes
}

fn clock(id: u32, timeout: u64, flags: u16) -> Vec<u8> {
    subscription(7, 0, id, timeout, flags)
}

fn readable(fd: u32) -> Vec<u8> {
    subscription(1 << 40, 1, fd, 0, 0)
}

fn writable(fd: u32) -> Vec<u8> {
    subscription(u64::MAX, 2, fd, 0, 0)
}

#[tokio::test(start_paused = true)]
async fn a_guest_waits_for_the_first_of_many_things() {
    let hosts = Hosts::new();
    let (second, hour) = (1_000_000_000, 3600 * 1_000_000_000_u64);
    let never = Given { sent: Sent::Never, ..PLAIN };
    let ended = Given { sent: Sent::Pieces(&[]), ..PLAIN };
    let in_a_second = realtime_in(Duration::from_secs(1));
    let calls: Vec<(Given, Vec<Vec<u8>>, End)> = vec![
        (PLAIN, vec![], INVAL),
        (PLAIN, vec![clock(0, 0, 0)], OK),
        (PLAIN, vec![clock(1, second, 0)], OK),
        (PLAIN, vec![clock(0, second, 0)], OK),
        (PLAIN, vec![clock(0, in_a_second, 1)], OK),
        (PLAIN, vec![clock(0, 1, 1)], OK),
        (PLAIN, vec![clock(1, 1, 1)], OK),
        (PLAIN, vec![clock(1, 2 * hour, 0)], End::Waits),
        (PLAIN, vec![clock(1, u64::MAX, 0)], End::Waits),
        (PLAIN, vec![clock(1, u64::MAX, 1)], End::Waits),
        (PLAIN, vec![clock(0, u64::MAX, 1), clock(1, second, 0), clock(1, 2 * second, 0)], OK),
        (PLAIN, vec![clock(2, 0, 0)], INVAL),
        (PLAIN, vec![clock(3, 0, 0)], INVAL),
        (PLAIN, vec![clock(4, 0, 0)], INVAL),
        (PLAIN, vec![clock(1, 0, 2)], INVAL),
        (PLAIN, vec![subscription(1, 3, 0, 0, 0)], INVAL),
        (PLAIN, vec![readable(0)], OK),
        (ended, vec![readable(0)], OK),
        (Given { sent: Sent::BreaksOff, ..PLAIN }, vec![readable(0), readable(0)], OK),
        (never, vec![readable(0)], End::Waits),
        (never, vec![readable(0), clock(1, second, 0)], OK),
        (never, vec![readable(0), clock(1, 0, 0), clock(0, 0, 0)], OK),
        (never, vec![readable(0), writable(2), clock(1, second, 0), writable(1)], OK),
        (PLAIN, vec![clock(1, 0, 0), readable(0), clock(1, second, 0)], OK),
        (PLAIN, vec![readable(1)], BADF),
        (PLAIN, vec![readable(3)], BADF),
        (PLAIN, vec![writable(0)], BADF),
        (PLAIN, vec![writable(1), writable(9)], BADF),
        (PLAIN, vec![writable(1); 300], OK),
    ];
    for (given, subscriptions, end) in calls {
        for combined in [false, true] {
            let mut both = hosts.both(Given { combined, ..given }).await;
            both.write(0x4000, &[0xbb; 0x4000]);
            both.write(0x8000, &subscriptions.concat());
            let count = subscriptions.len() as u64;
            let ended = both.call("poll_oneoff", &[0x8000, 0x4000, count, 0]).await;
            assert_eq!(ended, end, "{given:?} {subscriptions:x?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_waits_no_less_than_it_asked_for() {
    let hosts = Hosts::new();
    let mut both = hosts.both(PLAIN).await;
    let start = Instant::now();
    let now = async |both: &mut Both| {
        assert_eq!(both.ours.call("clock_time_get", &[1, 0, 0]).await, OK);
        u64::from_le_bytes(both.ours.memory()[..8].try_into().unwrap())
    };
    for nanos in [0, 1, 1_000_000, 1_000_001, 1_234_567] {
        for absolute in [0, 1] {
            // Wherever between two steps it begins.
            tokio::time::advance(Duration::from_nanos(77_777)).await;
            let before = now(&mut both).await;
            let timeout = nanos + u64::from(absolute) * before;
            both.write(0x8000, &clock(1, timeout, absolute));
            assert_eq!(both.ours.call("poll_oneoff", &[0x8000, 0x4000, 1, 0]).await, OK);
            assert!(now(&mut both).await >= before + nanos, "{nanos} {absolute}");
        }
    }
    assert!(start.elapsed() < Duration::from_millis(25), "nor much more");
}

fn realtime_in(ahead: Duration) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from((now + ahead).as_nanos()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_guest_waits_only_with_sound_pointers() {
    let hosts = Hosts::new();
    let first = 0x8000;
    for (args, end) in [
        ([first, 0x4000, 1, 2], TRAP),
        ([first + 4, 0x4000, 1, 0], TRAP),
        ([first, 0x4004, 1, 0], TRAP),
        ([first, OUT - 24, 1, 0], TRAP),
        ([OUT - 40, 0x4000, 1, 0], TRAP),
        ([first, OUT, 0, OUT], INVAL),
        ([first, first, 2, 0], OK),
        ([first, 0x4000, 1 << 28, 0], NOMEM),
        ([first, 0x4000, MINUS, 0], NOMEM),
    ] {
        let mut both = hosts.both(PLAIN).await;
        both.write(0x8000, &[writable(1), writable(2)].concat());
        assert_eq!(both.call("poll_oneoff", &args).await, end, "{args:x?}");
    }
}

#[tokio::test(start_paused = true)]
async fn clocks_go_on_and_chance_is_chance() {
    let hosts = Hosts::new();
    let mut both = hosts.both(PLAIN).await;
    let number = |both: &mut Both| u64::from_le_bytes(both.ours.memory()[..8].try_into().unwrap());
    for clock in [0, 1] {
        assert_eq!(both.call("clock_res_get", &[clock, 0]).await, OK);
        assert_eq!(number(&mut both), GRAIN_NANOS);
    }
    assert_eq!(both.call_fickle("clock_time_get", &[0, 0, 0]).await, OK);
    let before = number(&mut both);
    assert!(before.abs_diff(realtime_in(Duration::ZERO)) < 60 * 1_000_000_000);
    while number(&mut both) == before {
        assert_eq!(both.call_fickle("clock_time_get", &[0, 0, 0]).await, OK);
    }
    assert_eq!((number(&mut both) - before) % GRAIN_NANOS, 0);
    for (micros, shown) in [(0, 0), (99, 0), (1, 100_000), (150, 200_000)] {
        tokio::time::advance(Duration::from_micros(micros)).await;
        assert_eq!(both.call("clock_time_get", &[1, 0, 0]).await, OK);
        assert_eq!(number(&mut both), shown);
    }
    both.write(0, &[0; PAGE]);
    assert_eq!(both.call_fickle("random_get", &[0, 64 << 10]).await, OK);
    let chance = both.ours.memory();
    for value in 0..=255 {
        let seen = chance.iter().filter(|byte| **byte == value).count();
        assert!((100..500).contains(&seen), "{value} is seen {seen} times of 256");
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_call_costs_is_bounded() {
    let hosts = Hosts::new();
    let mut both = hosts.both(PLAIN).await;
    let pages = 16;
    for _ in 1..pages {
        let memory = both.ours.instance.get_memory(&mut both.ours.store, "memory").unwrap();
        memory.grow_async(&mut both.ours.store, 1).await.unwrap();
    }
    let most = 1 << 16;
    assert_eq!(both.ours.call("fd_write", &[1, 0x100, most, 0]).await, OK, "empty buffers");
    assert_eq!(both.ours.call("fd_write", &[1, 0x100, most + 1, 0]).await, INVAL);
    assert_eq!(both.ours.call("fd_read", &[0, 0x100, most + 1, 0]).await, INVAL);

    both.ours.memory()[..1025 * 48].copy_from_slice(&vec![writable(1); 1025].concat());
    assert_eq!(both.ours.call("poll_oneoff", &[0, 0x2_0000, 1024, 0]).await, OK);
    both.ours.memory()[..1025 * 48].copy_from_slice(&vec![writable(1); 1025].concat());
    assert_eq!(both.ours.call("poll_oneoff", &[0, 0x2_0000, 1025, 0]).await, INVAL);
}
