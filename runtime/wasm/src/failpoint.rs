//! Where a test can have the process killed, or a limit of it changed.

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

/// What changes the processor time of a compilation, in seconds.
pub(crate) const CPU_SECONDS: &str = "FAWN_TEST_CPU_SECONDS";

/// What changes the memory of a compilation, in bytes.
pub(crate) const MEMORY_BYTES: &str = "FAWN_TEST_MEMORY_BYTES";

/// What changes the part of it that can be written, in bytes.
pub(crate) const WRITABLE_BYTES: &str = "FAWN_TEST_WRITABLE_BYTES";

/// What changes the time by the clock that a module may take to start, in seconds.
pub(crate) const TRIAL_SECONDS: &str = "FAWN_TEST_TRIAL_SECONDS";

/// A limit.
#[cfg(not(test))]
#[inline]
pub(crate) fn limit(_name: &str, given: u64) -> u64 {
    given
}

/// A limit, or another where a test says so in the variable of that name.
#[cfg(test)]
pub(crate) fn limit(name: &str, given: u64) -> u64 {
    std::env::var(name).map_or(given, |other| other.parse().unwrap())
}
