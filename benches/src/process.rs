use std::{env, fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};

/// The processor time that a process has used, as `/proc` names it: its id, or `self`.
pub(crate) fn cpu_time(process: &str) -> Result<Duration> {
    // User time and system time.
    let ticks = stat(&format!("/proc/{process}/stat"), 14)? + stat(&format!("/proc/{process}/stat"), 15)?;
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

/// Page faults that needed no disk, of a process as `/proc` names it: its id, or `thread-self`.
pub(crate) fn minor_faults(process: &str) -> Result<u64> {
    stat(&format!("/proc/{process}/stat"), 10)
}

/// The first child of a process, if it has any.
pub(crate) fn child_of(pid: u32) -> Result<Option<u32>> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(children.split(' ').next().and_then(|child| child.parse().ok()))
}

/// A field of proc_pid_stat(5) by its number there.
fn stat(path: &str, number: usize) -> Result<u64> {
    let stat = fs::read_to_string(path)?;
    // Behind the name, which may hold anything, the fields are numbered from 3 on.
    let fields = stat.rsplit_once(") ").context("no fields")?.1;
    Ok(fields.split(' ').nth(number - 3).with_context(|| format!("no field {number} in {path}"))?.parse()?)
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// What is no other process's and no file's: what the machine gets back when the process ends.
    pub(crate) private: u64,
}

/// Reads `/proc/PID/smaps_rollup`.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| -> Result<u64> {
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    };
    Ok(Memory { resident: field("Rss:")?, private: field("Private_Clean:")? + field("Private_Dirty:")? })
}

/// What a reader must know to judge the numbers: the machine and Fawn, programs beside it and how they were built.
pub(crate) fn surroundings(
    fawn: &Path,
    wasmtime: Option<&Path>,
    spin: Option<&Path>,
) -> Result<Vec<(String, String)>> {
    let mut facts = machine(fawn)?;
    let mut tell = |name: &str, fact: String| facts.push((name.into(), fact));
    tell("hyper", format!("in this program, profile {}", profile(&env::current_exe()?)));
    if profile(fawn) != profile(&env::current_exe()?) {
        let note = "fawn and hyper are not built in the same profile, so the ratios are not fair";
        tell("note", note.into());
    }
    for (name, program) in [("wasmtime", wasmtime), ("spin", spin)] {
        let left_out = || Ok(format!("left out: put it on the PATH or name it with --{name}"));
        tell(name, program.map_or_else(left_out, version)?);
    }
    Ok(facts)
}

/// Machine, kernel, date, and the fawn binary.
pub(crate) fn machine(fawn: &Path) -> Result<Vec<(String, String)>> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism()?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    let memory_kib: u64 = memory.trim().trim_end_matches(" kB").parse().unwrap_or(0);
    let facts = [
        (
            "machine",
            format!("{cores} cores, {}, {} GiB", model.trim_matches(['\t', ' ', ':']), memory_kib >> 20),
        ),
        ("kernel", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().into()),
        ("load average before", load_average()?),
        ("date", jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()),
        ("fawn", format!("{}, profile {}, {}", version(fawn)?, profile(fawn), fawn.display())),
    ];
    Ok(facts.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

/// What kind of file system a folder is on: the type and device of the mount with the longest path, as proc_pid_mounts(5)
/// tells it.
pub(crate) fn file_system(folder: &Path) -> Result<String> {
    let folder = folder.canonicalize().with_context(|| format!("there is no {}", folder.display()))?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut found = ("", "unknown".to_owned());
    for mount in mounts.lines() {
        let mut fields = mount.split(' ');
        let (Some(device), Some(path), Some(kind)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if folder.starts_with(path) && path.len() >= found.0.len() {
            found = (path, format!("{kind} on {device}"));
        }
    }
    Ok(found.1)
}

/// Of the last minute, five and fifteen minutes.
pub(crate) fn load_average() -> Result<String> {
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(load.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

pub(crate) fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}

/// The folder that cargo put a program in, which has the profile's name.
pub(crate) fn profile(program: &Path) -> String {
    let folder = program.parent().and_then(Path::file_name).unwrap_or_default();
    folder.to_string_lossy().into_owned()
}
