//! What shuts the compiling process in: besides limits on time and memory, it can open no file, connect nowhere and
//! start nothing. A compiler that a hostile module takes over is left with the code that it was to write, which the node
//! then runs, and its parts, which the next compilation for that function uses: the walls bound what compiling costs and
//! reaches, and do not make up for a flaw of the compiler.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    thread,
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter, apply_filter_all_threads,
};
use serde::{Deserialize, Serialize};

use crate::failpoint;

/// Processor time that every compilation has: a small module with many calls of the host needs a second.
const CPU_BASE_SECONDS: u64 = 5;

/// Processor time for each MiB of a module besides. The slowest honest one that was measured, of JavaScript, needs a
/// quarter of that.
const CPU_SECONDS_PER_MIB: u64 = 4;

/// No module has more processor time than this.
const CPU_MOST_SECONDS: u64 = 120;

/// Between the signal that tells that the time is up, and the one that nobody can ignore.
const CPU_GRACE_SECONDS: u64 = 5;

/// Memory that a compilation may take beyond what the process has when it begins. The largest honest modules need half
/// of it.
const MEMORY_BYTES: u64 = 1 << 30;

/// Machine code of one module.
const CODE_BYTES: u64 = 2 << 30;

/// Files that may be open: each module of a component has one, for the memory that it begins with.
const OPEN_FILES: u64 = 512;

/// The newest kernel interface of Landlock that is asked for; an older kernel enforces what it has of it.
const LANDLOCK: ABI = ABI::V6;

/// The limits that a compilation runs under, in words: a rejection is remembered only while they are the same.
pub(crate) fn limits() -> String {
    format!("{CPU_BASE_SECONDS} {CPU_SECONDS_PER_MIB} {CPU_MOST_SECONDS} {MEMORY_BYTES} {CODE_BYTES}")
}

/// Processor time for a module of this size, in seconds.
pub(crate) fn cpu_seconds(module_bytes: u64) -> u64 {
    let by_size = module_bytes.saturating_mul(CPU_SECONDS_PER_MIB).div_ceil(1 << 20);
    CPU_BASE_SECONDS.saturating_add(by_size).min(CPU_MOST_SECONDS)
}

/// Limits what the process may use before it reads anything, and puts it behind those that serve.
pub(crate) fn limit_process() -> io::Result<()> {
    limit_cpu(CPU_MOST_SECONDS)?;
    limit(Resource::Fsize, CODE_BYTES)?;
    limit(Resource::Core, 0)?;
    // No call that is allowed later raises it again.
    let files = getrlimit(Resource::Nofile);
    let few = files.maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    setrlimit(Resource::Nofile, Rlimit { current: Some(few), ..files })?;
    // Where memory runs out, this is what can be done without.
    fs::write("/proc/self/oom_score_adj", "1000")?;
    rustix::process::nice(10)?;
    // A node that is killed leaves no compilation behind.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// Limits processor time. The first signal says whose doing it was: the kernel sends the second one also when memory is
/// short on the machine.
pub(crate) fn limit_cpu(seconds: u64) -> io::Result<()> {
    let most = seconds + CPU_GRACE_SECONDS;
    setrlimit(Resource::Cpu, Rlimit { current: Some(seconds), maximum: Some(most) })?;
    Ok(())
}

/// Never above what this process was given itself.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let most = getrlimit(resource).maximum.map_or(most, |given| given.min(most));
    setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    Ok(())
}

/// What this process has of memory; to be opened while it may open files.
pub(crate) struct MemoryInUse(File);

impl MemoryInUse {
    pub(crate) fn open() -> io::Result<Self> {
        File::open("/proc/self/status").map(Self)
    }

    /// Limits memory beyond what is in use now. `instance_bytes` of it may be made usable besides in address space that
    /// is reserved already.
    pub(crate) fn limit(mut self, instance_bytes: u64) -> io::Result<()> {
        let mut text = String::new();
        self.0.read_to_string(&mut text)?;
        let memory = failpoint::limit(failpoint::MEMORY_BYTES, MEMORY_BYTES);
        let writable = failpoint::limit(failpoint::WRITABLE_BYTES, memory + instance_bytes);
        limit(Resource::As, in_use(&text, "VmSize:")? + memory)?;
        limit(Resource::Data, in_use(&text, "VmData:")? + writable)
    }
}

/// What one line of `/proc/self/status` tells, in bytes (`proc_pid_status(5)`).
fn in_use(status: &str, name: &str) -> io::Result<u64> {
    let amount = status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
    let kibibytes: Option<u64> = amount.and_then(|amount| amount.parse().ok());
    kibibytes
        .map(|kibibytes| kibibytes << 10)
        .ok_or_else(|| io::Error::other(format!("/proc/self/status has no {name} in {status:?}")))
}

/// What the kernel enforces, in words; `enforced` where that is all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Walls {
    landlock: String,
    seccomp: String,
}

const ENFORCED: &str = "enforced";

impl Walls {
    /// Finds out what this kernel has, on a thread that ends.
    pub(crate) fn probe() -> io::Result<Self> {
        let probe = || Self { landlock: shut_files(), seccomp: told(filter().and_then(|f| applied(&f))) };
        let thread = thread::Builder::new().name("jail-probe".into()).spawn(probe)?;
        thread.join().map_err(|_| io::Error::other("what the kernel enforces cannot be found out"))
    }

    /// Whether something is missing.
    pub(crate) fn are_whole(&self) -> bool {
        self.landlock == ENFORCED && self.seccomp == ENFORCED
    }

    /// For operators.
    pub(crate) fn facts(&self) -> BTreeMap<String, String> {
        let facts = [("compilerLandlock", &self.landlock), ("compilerSeccomp", &self.seccomp)];
        facts.map(|(name, value)| (name.to_owned(), value.clone())).into()
    }

    pub(crate) fn warn(&self) {
        if !self.are_whole() {
            tracing::warn!(
                landlock = self.landlock,
                seccomp = self.seccomp,
                "the kernel does not shut in the compiling process in full: a flaw of the compiler would cost more"
            );
        }
    }
}

/// Forbids this thread, and those that it starts, to open files, and to reach other processes. Files that are open stay
/// open. Tells what is enforced.
pub(crate) fn shut_files() -> String {
    let shut = || {
        let files = Ruleset::default().handle_access(AccessFs::from_all(LANDLOCK))?;
        let and_network = files.handle_access(AccessNet::from_all(LANDLOCK))?;
        and_network.scope(Scope::from_all(LANDLOCK))?.create()?.no_new_privs(true).restrict_self()
    };
    match shut().map(|status| status.ruleset) {
        Ok(RulesetStatus::FullyEnforced) => ENFORCED.into(),
        Ok(RulesetStatus::PartiallyEnforced) => "in part: the kernel has an older Landlock".into(),
        Ok(RulesetStatus::NotEnforced) => "no: the kernel has no Landlock".into(),
        Err(error) => format!("no: {error}"),
    }
}

/// Forbids the whole process every call of the kernel that compiling and starting a module does not need. Nothing undoes
/// that.
pub(crate) fn shut(landlock: String) -> Walls {
    let filtered = filter().and_then(|filter| Ok(apply_filter_all_threads(&filter)?));
    Walls { landlock, seccomp: told(filtered) }
}

fn applied(filter: &BpfProgram) -> Result<(), Error> {
    Ok(apply_filter(filter)?)
}

fn told(outcome: Result<(), Error>) -> String {
    outcome.map_or_else(|error| format!("no: {error}"), |()| ENFORCED.into())
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Filter(#[from] seccompiler::Error),
    #[error("{0}")]
    Rules(#[from] seccompiler::BackendError),
}

/// Calls outside the list fail as a right that one does not have.
fn filter() -> Result<BpfProgram, Error> {
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let mut rules: BTreeMap<_, _> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let own = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
    let to_itself = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, own.into())?;
    // How a process that runs out of memory aborts.
    for signal in [libc::SYS_kill, libc::SYS_tgkill] {
        rules.insert(signal, vec![SeccompRule::new(vec![to_itself.clone()])?]);
    }
    // Of a file, no more than its flags: its owner would be sent signals.
    let of_flags = [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_DUPFD_CLOEXEC, libc::F_ADD_SEALS];
    let of_flags = of_flags.map(|command| {
        let is = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(command.unsigned_abs()));
        SeccompRule::new(vec![SeccompCondition::new(1, is.0, is.1, is.2)?])
    });
    rules.insert(libc::SYS_fcntl, of_flags.into_iter().collect::<Result<_, _>>()?);
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch)?;
    Ok(filter.try_into()?)
}

/// Reading and writing of what is open, memory, clocks, signals of its own, and the end. No call of the list takes a
/// path, makes a socket or a process, or looks into another one.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_lseek,
    libc::SYS_madvise,
    // The memory that an instance begins with is copied from one of these.
    libc::SYS_memfd_create,
    // Machine code that was just written becomes visible to other cores.
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_write,
    libc::SYS_writev,
];

#[cfg(test)]
mod tests;
