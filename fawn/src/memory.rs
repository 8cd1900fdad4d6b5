//! How much memory guests may use together, and their code, where nobody said so.

use std::{fs, path::Path};

/// What is left for code, caches and the rest of the machine is a quarter.
const NUMERATOR: u64 = 3;
const DENOMINATOR: u64 = 4;

/// Three quarters of the machine's memory, or of what this process's control group may use.
pub(crate) fn default_budget_bytes() -> u64 {
    total_bytes() / DENOMINATOR * NUMERATOR
}

/// Half of what guests leave.
pub(crate) fn default_code_bytes() -> u64 {
    total_bytes() / DENOMINATOR / 2
}

fn total_bytes() -> u64 {
    let system = rustix::system::sysinfo();
    // The fields' types differ between architectures.
    #[expect(clippy::useless_conversion, reason = "totalram is narrower on 32-bit machines")]
    let machine = u64::from(system.totalram).saturating_mul(u64::from(system.mem_unit));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = limit_bytes(&groups, Path::new("/sys/fs/cgroup"));
    machine.min(limit.unwrap_or(u64::MAX))
}

/// The lowest limit from the process's group upwards (Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1).
fn limit_bytes(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, group) = rest.split_once(':')?;
        let group = group.trim_start_matches('/');
        match controllers {
            "" => lowest(&root.join(group), root, "memory.max"),
            list if list.split(',').any(|controller| controller == "memory") => {
                lowest(&root.join("memory").join(group), root, "memory.limit_in_bytes")
            }
            _ => None,
        }
    });
    limits.min()
}

fn lowest(group: &Path, root: &Path, file: &str) -> Option<u64> {
    let within = group.ancestors().take_while(|folder| folder.starts_with(root));
    // "max" stands for no limit, and a folder that is not mounted here has none.
    within.filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_on_the_way_up_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("a/b");
        fs::create_dir_all(&group).unwrap();
        let limit = || limit_bytes("0::/a/b\n", root.path());
        assert_eq!(limit(), None);
        fs::write(group.join("memory.max"), "max\n").unwrap();
        assert_eq!(limit(), None);
        fs::write(root.path().join("a/memory.max"), "1048576\n").unwrap();
        assert_eq!(limit(), Some(1 << 20));
        fs::write(group.join("memory.max"), "4096\n").unwrap();
        assert_eq!(limit(), Some(4096));
    }

    #[test]
    fn old_control_groups_are_read_too() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("memory/docker/x");
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("memory.limit_in_bytes"), "268435456\n").unwrap();
        assert_eq!(limit_bytes("5:cpu,cpuacct:/y\n4:memory:/docker/x\n", root.path()), Some(256 << 20));
        assert_eq!(limit_bytes("", root.path()), None);
    }

    #[test]
    fn this_machine_has_some() {
        assert!(default_budget_bytes() > 64 << 20);
    }
}
