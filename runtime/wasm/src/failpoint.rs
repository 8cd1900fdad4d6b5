//! Where a test can have the process killed.

/// A step is done.
#[cfg(not(test))]
#[inline]
pub(crate) fn passed(_step: &str) {}

/// What names the step at which a test wants the process to be killed.
#[cfg(test)]
pub(crate) const KILL_AT: &str = "FAWN_TEST_KILL_AT";

/// A step is done; if it is the one that a test named, this process is killed, with no chance to tidy up.
#[cfg(test)]
pub(crate) fn passed(step: &str) {
    if std::env::var_os(KILL_AT).is_some_and(|kill_at| kill_at == step) {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    }
}
