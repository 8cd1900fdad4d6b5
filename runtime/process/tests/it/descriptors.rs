use std::{
    env,
    path::Path,
    process::{Command, ExitStatus},
};

use runtime_process::keep_descriptors;

const INHERITED: &str = "FAWN_TEST_INHERITED";

fn shell(script: &str) -> ExitStatus {
    Command::new("sh").args(["-c", script]).status().unwrap()
}

/// In a process of its own, which is started with a file open.
#[test]
fn what_was_inherited_is_not_passed_on() {
    if env::var_os(INHERITED).is_none() {
        let name = "descriptors::what_was_inherited_is_not_passed_on";
        let script = format!("exec 9</dev/null; exec \"$0\" --exact {name}");
        let mut own = Command::new("sh");
        let own =
            own.args(["-c", &script]).arg(env::current_exe().unwrap()).env(INHERITED, "1").output().unwrap();
        let told = String::from_utf8_lossy(&own.stdout);
        assert!(own.status.success() && told.contains("1 passed"), "{told}");
        return;
    }
    let is_passed_on = || shell("test -e /proc/self/fd/9").success();
    assert!(is_passed_on(), "as long as nobody does anything about it");
    keep_descriptors();
    assert!(!is_passed_on());
    assert!(Path::new("/proc/self/fd/9").exists(), "and it stays open here");
}
