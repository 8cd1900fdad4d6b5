use std::{fs, net::TcpStream, os::unix::net::UnixStream, process::Command};

use rustix::process::{Resource, Rlimit, getppid, setrlimit, test_kill_process};

use super::*;

const INSIDE: &str = "FAWN_TEST_JAIL_INSIDE";

#[test]
fn time_grows_with_the_module_up_to_a_ceiling() {
    for (bytes, seconds) in [(0, 5), (1, 6), (1 << 20, 9), (12 << 20, 53), (64 << 20, 120), (u64::MAX, 120)] {
        assert_eq!(cpu_seconds(bytes), seconds, "{bytes}");
    }
}

#[test]
fn no_call_is_allowed_that_opens_connects_or_starts() {
    let forbidden = [
        libc::SYS_bpf,
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_connect,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_fchmod,
        libc::SYS_io_uring_setup,
        libc::SYS_ioctl,
        libc::SYS_kexec_load,
        libc::SYS_keyctl,
        libc::SYS_linkat,
        libc::SYS_mount,
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_perf_event_open,
        libc::SYS_pidfd_getfd,
        libc::SYS_prctl,
        libc::SYS_prlimit64,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_ptrace,
        libc::SYS_renameat2,
        libc::SYS_seccomp,
        libc::SYS_sendmsg,
        libc::SYS_setns,
        libc::SYS_setuid,
        libc::SYS_socket,
        libc::SYS_socketpair,
        libc::SYS_unlinkat,
        libc::SYS_unshare,
        libc::SYS_userfaultfd,
    ];
    for call in forbidden {
        assert!(!ALLOWED.contains(&call), "{call}");
    }
}

#[test]
fn a_thread_finds_out_what_the_kernel_has_and_the_others_stay_free() {
    let walls = Walls::probe().unwrap();
    assert_eq!(walls.facts().len(), 2);
    fs::read("/proc/self/statm").unwrap();
    thread::spawn(|| ()).join().unwrap();
}

/// A process of its own goes in, and finds that nothing but its open files is left.
#[test]
fn nothing_can_be_reached_from_inside() {
    if let Some(folder) = std::env::var_os(INSIDE) {
        return inside(folder.as_ref());
    }
    let walls = Walls::probe().unwrap();
    if !walls.are_whole() {
        let walls = walls.facts();
        return not_run(&format!("nothing_can_be_reached_from_inside: this kernel lacks walls: {walls:?}"));
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("input"), "module").unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "jail::tests::nothing_can_be_reached_from_inside"])
        .env(INSIDE, folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    let found = fs::read_to_string(folder.path().join("output")).unwrap();
    assert_eq!(found, "module, and nothing else", "{told}");
    assert!(child.status.success(), "{told}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

/// Past the test's own capture of what is printed: nobody should take it for passed.
fn not_run(what: &str) {
    use std::io::Write;

    io::stdout().write_all(format!("NOT RUN: {what}\n").as_bytes()).unwrap();
}

fn inside(folder: &std::path::Path) {
    use std::io::Write;

    let mut input = File::open(folder.join("input")).unwrap();
    let mut output = File::create_new(folder.join("output")).unwrap();
    let parent = getppid().unwrap();
    limit_process().unwrap();
    limit_cpu(10).unwrap();
    let memory = MemoryInUse::open().unwrap();
    let landlock = shut_files();
    memory.limit(1 << 20).unwrap();
    let walls = shut(landlock);
    let mut found = String::new();
    input.read_to_string(&mut found).unwrap();
    let more = Rlimit { current: Some(1000), maximum: Some(1000) };
    let reached = [
        ("no walls", !walls.are_whole()),
        ("a file", File::open("/etc/passwd").is_ok()),
        ("its own file", File::open(folder.join("input")).is_ok()),
        ("a new file", File::create(folder.join("new")).is_ok()),
        ("a folder", fs::read_dir("/").is_ok()),
        ("that a file exists", fs::metadata("/etc/passwd").is_ok()),
        ("a removal", fs::remove_file(folder.join("input")).is_ok()),
        ("a rename", fs::rename(folder.join("input"), folder.join("new")).is_ok()),
        ("a link", fs::hard_link(folder.join("input"), folder.join("new")).is_ok()),
        ("the network", permitted(TcpStream::connect("127.0.0.1:1"))),
        ("a socket", UnixStream::pair().is_ok()),
        ("a process", Command::new("/bin/true").spawn().is_ok()),
        ("a thread", thread::Builder::new().spawn(|| ()).is_ok()),
        ("its parent", test_kill_process(parent).is_ok()),
        ("more time", setrlimit(Resource::Cpu, more).is_ok()),
        ("more memory", Vec::<u8>::new().try_reserve_exact(2 << 30).is_ok()),
    ];
    let reached: Vec<_> = reached.into_iter().filter(|(_, reached)| *reached).map(|(what, _)| what).collect();
    let rest = if reached.is_empty() { "nothing else".to_owned() } else { reached.join(", ") };
    write!(output, "{found}, and {rest}").unwrap();
}

/// A connection that nobody takes would mean that the attempt was made.
fn permitted<T>(outcome: io::Result<T>) -> bool {
    outcome.err().is_none_or(|error| error.kind() != io::ErrorKind::PermissionDenied)
}
