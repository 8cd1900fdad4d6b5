//! How many instructions a warm call takes. Unlike time, that is the same on a busy machine.

use std::{
    env, fs,
    io::{Write, stdout},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::{
    calls::{Kind, SLOTS},
    process,
    server::find_program,
};

/// Calls of the shorter run; the longer one makes twice as many, so that what is not a call cancels out.
const CALLS: u32 = 1000;

/// Counts, prints the counts beside those of `file`, and writes them there if that is asked for.
pub(crate) fn count(file: &Path, write: bool) -> Result<()> {
    let valgrind =
        find_program("valgrind").context("valgrind is missing: install it, and call this again")?;
    let before: Option<Value> = match fs::read(file) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes)?),
        Err(_) if write => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let (mut counts, mut engine) = (serde_json::Map::new(), Value::Null);
    for kind in Kind::value_variants() {
        let short = run(&valgrind, *kind, CALLS)?;
        let long = run(&valgrind, *kind, 2 * CALLS)?;
        let each = long.instructions.saturating_sub(short.instructions) / u64::from(CALLS);
        engine = long.engine;
        writeln!(stdout(), "{}", change(&kind.to_string(), each, before.as_ref()))?;
        counts.insert(kind.to_string(), each.into());
    }
    let configuration = json!({
        "rustc": process::version(Path::new("rustc"))?,
        "valgrind": process::version(&valgrind)?,
        "wasmtime": locked("wasmtime", include_str!("../../Cargo.lock")).context("no wasmtime in Cargo.lock")?,
        "profile": process::profile(&env::current_exe()?),
        "slots": SLOTS,
        "engine": engine,
    });
    if let Some(before) = before.and_then(|before| before.get("configuration").cloned())
        && before != configuration
    {
        writeln!(stdout(), "counted differently: then {before}, now {configuration}")?;
    }
    if write {
        let json = json!({ "instructions_per_warm_call": counts, "configuration": configuration });
        fs::write(file, format!("{json:#}\n"))?;
    }
    Ok(())
}

struct Run {
    instructions: u64,
    engine: Value,
}

fn run(valgrind: &Path, kind: Kind, calls: u32) -> Result<Run> {
    let counted = tempfile::NamedTempFile::new()?;
    let output = Command::new(valgrind)
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", counted.path().display()))
        .arg(env::current_exe()?)
        .args(["calls", &kind.to_string(), &calls.to_string(), "--valgrind"])
        .arg(valgrind)
        .output()?;
    if !output.status.success() {
        bail!("calls of a {kind} fail under valgrind: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = fs::read_to_string(counted.path())?;
    let instructions = total(&text).context("callgrind wrote no total")?;
    let mut engine: serde_json::Map<String, Value> = serde_json::from_slice(&output.stdout)?;
    // What shuts compilers in has no part in a warm call, and valgrind has less of it than the machine.
    engine.retain(|fact, _| !fact.starts_with("compiler"));
    Ok(Run { instructions, engine: engine.into() })
}

/// The total of one event (Callgrind Format Specification).
fn total(profile: &str) -> Option<u64> {
    let line = profile.lines().rev().find_map(|line| line.strip_prefix("totals:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn change(kind: &str, now: u64, before: Option<&Value>) -> String {
    let then = before.and_then(|before| before.get("instructions_per_warm_call")?.get(kind)?.as_u64());
    let Some(then) = then.filter(|then| *then > 0) else {
        return format!("{kind}: {now} instructions a warm call");
    };
    let percent = (now as f64 / then as f64 - 1.0) * 100.0;
    format!("{kind}: {now} instructions a warm call, {then} before ({percent:+.1} %)")
}

/// The version of a package in a lock file.
fn locked(package: &str, lock: &str) -> Option<String> {
    let (_, rest) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    Some(rest.split_once('"')?.0.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_has_a_total() {
        assert_eq!(total("summary: 12\n\nfn=(1) a\n0 5\n\ntotals: 1234\n"), Some(1234));
        assert_eq!(total("nothing"), None);
    }

    #[test]
    fn a_change_is_told_in_percent() {
        let before = json!({ "instructions_per_warm_call": { "component": 1000 } });
        assert_eq!(
            change("component", 1100, Some(&before)),
            "component: 1100 instructions a warm call, 1000 before (+10.0 %)"
        );
        assert_eq!(change("command", 5, Some(&before)), "command: 5 instructions a warm call");
    }

    #[test]
    fn a_lock_file_tells_versions() {
        let lock = "[[package]]\nname = \"wasmtime\"\nversion = \"48.0.8\"\nsource = \"x\"\n";
        assert_eq!(locked("wasmtime", lock).unwrap(), "48.0.8");
        assert_eq!(locked("wasm", lock), None);
    }
}
