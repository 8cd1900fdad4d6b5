use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};

/// The processor time that a process has used.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold anything, the fields are numbered from 3 on: 14 is user time, 15 system time.
    let (_, fields) = stat.rsplit_once(") ").context("no fields in /proc/PID/stat")?;
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap_or(0)).sum();
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
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

/// What a reader must know to judge the numbers: machine, kernel, date and versions.
pub(crate) fn surroundings(programs: &[&Path]) -> Result<Vec<(String, String)>> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism()?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    let memory_kib: u64 = memory.trim().trim_end_matches(" kB").parse().unwrap_or(0);
    let load = fs::read_to_string("/proc/loadavg")?;
    let mut facts = vec![
        (
            "machine".into(),
            format!("{cores} cores, {}, {} GiB", model.trim_matches(['\t', ' ', ':']), memory_kib >> 20),
        ),
        ("kernel".into(), fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().into()),
        ("load before".into(), load.split(' ').next().unwrap_or_default().into()),
        ("date".into(), jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()),
    ];
    for program in programs {
        let output = Command::new(program).arg("--version").output()?;
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        facts.push((name, String::from_utf8_lossy(&output.stdout).trim().into()));
    }
    Ok(facts)
}
