//! What the end of a compiling process means: whose fault it is, and whether it would be again.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use runtime_api::Error;
use rustix::process::Signal;

use crate::child::{Answer, Rejection, crashed, too_costly};

/// Time that one compilation may take; the largest honest modules need half a minute of an idle core.
pub(crate) const COMPILE_TIME: Duration = Duration::from_secs(300);

/// What Rust's allocator says as it aborts.
const OUT_OF_MEMORY: &str = "memory allocation of";

/// How a compiling process ended.
pub(crate) struct Ended {
    /// `None` when its time by the clock was over.
    pub(crate) status: Option<ExitStatus>,
    /// What it wrote to standard error.
    pub(crate) last_words: String,
}

impl Ended {
    /// What it told, if it came to its end. One that did not is the module's fault where a limit or a crash ended it.
    pub(crate) fn answer(&self, told: Option<Answer>) -> Answer {
        let Some(status) = self.status else {
            let seconds = COMPILE_TIME.as_secs();
            // A busy machine may not have let it run.
            return rejected(&too_costly(&format!("it was not done within {seconds} s")), false);
        };
        if status.success() {
            return told.unwrap_or_else(|| Answer::Failed("the compiler process left no answer".into()));
        }
        match status.signal().and_then(Signal::from_named_raw) {
            Some(Signal::XCPU) => rejected(&too_costly("it took too much processor time"), true),
            Some(Signal::XFSZ) => rejected(&too_costly("its machine code is too large"), true),
            Some(Signal::ABORT) if self.last_words.contains(OUT_OF_MEMORY) => {
                rejected(&too_costly("it took too much memory"), true)
            }
            Some(
                signal @ (Signal::ABORT
                | Signal::BUS
                | Signal::FPE
                | Signal::ILL
                | Signal::SEGV
                | Signal::TRAP),
            ) => {
                // A crash may be due to the machine.
                rejected(&crashed(&format!("it ended with signal {}", signal.as_raw())), false)
            }
            // Somebody else ended it, or the machine is out of memory.
            _ => Answer::Failed(format!("the compiler process died: {status}")),
        }
    }
}

fn rejected(error: &Error, lasting: bool) -> Answer {
    let rejection = Rejection { code: error.code().to_owned(), message: error.to_string() };
    Answer::Rejected { rejection, lasting }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{World, child::Report};

    const OF_ALLOCATOR: &str = "memory allocation of 4096 bytes failed\n";

    fn compiled() -> Answer {
        Answer::Compiled(Report { world: World::CoreCommand, memory_bytes: 1 })
    }

    /// The answer in few words: whom it blames, and what for.
    fn in_short(status: Option<i32>, last_words: &str, told: Option<Answer>) -> String {
        let status = status.map(ExitStatus::from_raw);
        match (Ended { status, last_words: last_words.to_owned() }).answer(told) {
            Answer::Compiled(_) => "compiled".into(),
            Answer::Rejected { rejection, lasting } => {
                let lasting = if lasting { "lasting" } else { "passing" };
                format!("{lasting} {}: {}", rejection.code, rejection.message)
            }
            Answer::Failed(reason) => format!("machine: {reason}"),
        }
    }

    #[test]
    fn how_it_ended_tells_whose_fault_it_is() {
        let core_dumped = libc::SIGSEGV | 0x80;
        for (status, last_words, blamed, why) in [
            (None, "", "passing compile-limit", "not done within 300 s"),
            (Some(libc::SIGXCPU), "", "lasting compile-limit", "processor time"),
            (Some(libc::SIGXFSZ), "", "lasting compile-limit", "machine code is too large"),
            (Some(libc::SIGABRT), OF_ALLOCATOR, "lasting compile-limit", "too much memory"),
            (Some(libc::SIGABRT), "", "passing compiler-crashed", "signal 6"),
            (Some(libc::SIGBUS), "", "passing compiler-crashed", "signal 7"),
            (Some(libc::SIGFPE), "", "passing compiler-crashed", "signal 8"),
            (Some(libc::SIGILL), "", "passing compiler-crashed", "signal 4"),
            (Some(libc::SIGSEGV), "", "passing compiler-crashed", "signal 11"),
            (Some(libc::SIGSEGV), OF_ALLOCATOR, "passing compiler-crashed", "signal 11"),
            (Some(core_dumped), "", "passing compiler-crashed", "signal 11"),
            (Some(libc::SIGTRAP), "", "passing compiler-crashed", "signal 5"),
            // The kernel, when the machine is out of memory; an operator.
            (Some(libc::SIGKILL), "", "machine", "SIGKILL"),
            (Some(libc::SIGKILL), OF_ALLOCATOR, "machine", "SIGKILL"),
            (Some(libc::SIGTERM), "", "machine", "SIGTERM"),
            (Some(libc::SIGHUP), "", "machine", "SIGHUP"),
            (Some(libc::SIGSYS), "", "machine", "SIGSYS"),
            (Some(libc::SIGRTMIN()), "", "machine", "signal"),
            (Some(1 << 8), "", "machine", "exit status: 1"),
            (Some(101 << 8), OF_ALLOCATOR, "machine", "exit status: 101"),
            (Some(0), "", "machine", "left no answer"),
        ] {
            let short = in_short(status, last_words, None);
            assert!(short.starts_with(blamed) && short.contains(why), "{status:?} {last_words:?}: {short}");
            if status != Some(0) {
                let told = in_short(status, last_words, Some(compiled()));
                assert_eq!(told, short, "what it said before it died is not believed");
            }
        }
    }

    #[test]
    fn one_that_came_to_its_end_is_believed() {
        let rejection = Rejection { code: "not-wasm".into(), message: "m".into() };
        for told in [
            compiled(),
            Answer::Rejected { rejection: rejection.clone(), lasting: true },
            Answer::Rejected { rejection, lasting: false },
            Answer::Failed("no room".into()),
        ] {
            let ended = Ended { status: Some(ExitStatus::from_raw(0)), last_words: OF_ALLOCATOR.into() };
            assert_eq!(ended.answer(Some(told.clone())), told);
        }
    }
}
