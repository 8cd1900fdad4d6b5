//! Guests in the text format of WebAssembly. Their comments say how each one works.
//!
//! Those whose name begins with `HTTP_` are `wasi:http` components that differ in one core module; the rest of them is
//! shared. The others are commands (WASI preview 1), except where their text says what else they are.

/// A `wasi:http` component that answers 200, `content-type: text/plain`, "Hello from Fawn\n", and does nothing else.
pub const HELLO_HTTP: &str = include_str!("../guests/hello_http.wat");

/// Puts the core module of a `wasi:http` component between the parts that all of them share.
macro_rules! http {
    ($module:literal) => {
        concat!(
            include_str!("../guests/http_begin.wat"),
            include_str!(concat!("../guests/", $module)),
            include_str!("../guests/http_end.wat")
        )
    };
}

/// What comes before and after the core module `$Main` of a `wasi:http` component.
pub const HTTP_AROUND: [&str; 2] =
    [include_str!("../guests/http_begin.wat"), include_str!("../guests/http_end.wat")];

/// Streams the request body back through 64 KiB of its memory, with the request's content-type.
pub const ECHO_HTTP: &str = http!("echo_http.wat");
/// Streams the request body back without looking at it (`blocking-splice`), as text/plain.
pub const SPLICE_HTTP: &str = http!("splice_http.wat");
/// Answers with the status in the path (`/404`) and "piece\n"; 200 and no body if the host refuses that status.
pub const HTTP_STATUS: &str = http!("http_status.wat");
/// Returns without an answer.
pub const HTTP_SILENT: &str = http!("http_silent.wat");
/// Answers twice: a head, then a trap.
pub const HTTP_TWICE: &str = http!("http_twice.wat");
/// Answers with an `error-code` (internal-error) in place of a response.
pub const HTTP_ERROR: &str = http!("http_error.wat");
/// Writes "piece\n" and drops the body without finishing it.
pub const HTTP_HALF: &str = http!("http_half.wat");
/// Traps before it answers.
pub const HTTP_TRAP: &str = http!("http_trap.wat");
/// Traps after the head and "piece\n".
pub const HTTP_LATE_TRAP: &str = http!("http_late_trap.wat");
/// Runs for ever without an answer.
pub const HTTP_LOOP: &str = http!("http_loop.wat");
/// Runs for ever after the head and "piece\n".
pub const HTTP_LATE_LOOP: &str = http!("http_late_loop.wat");
/// Writes "piece\n" for ever.
pub const HTTP_ENDLESS: &str = http!("http_endless.wat");
/// Tries eight illegal headers and answers with a letter for each: `n` refused, `y` taken. "nnnnnnnn" is right.
pub const HTTP_ILLEGAL_HEADERS: &str = http!("http_illegal_headers.wat");
/// Answers with one header of 120 KiB and "piece\n".
pub const HTTP_HUGE_HEADER: &str = http!("http_huge_header.wat");
/// Answers with as many headers as the host takes, up to a million.
pub const HTTP_MANY_HEADERS: &str = http!("http_many_headers.wat");
/// Says `content-length: 99` and writes six bytes.
pub const HTTP_LENGTH_LIE: &str = http!("http_length_lie.wat");
/// Makes resources of the host for ever and drops none.
pub const HTTP_HOARDER: &str = http!("http_hoarder.wat");
/// Answers "piece\n" in full and then runs for ever.
pub const HTTP_TAIL_LOOP: &str = http!("http_tail_loop.wat");
/// Answers "piece\n" in full and then traps.
pub const HTTP_TAIL_TRAP: &str = http!("http_tail_trap.wat");
/// Leaves what it can in its instance, or looks for what another left: as [`VAULT`] does, but as a component.
pub const HTTP_VAULT: &str = concat!(
    include_str!("../guests/http_begin.wat"),
    "(core module $Vault (memory 4)",
    include_str!("../guests/vault.wat"),
    include_str!("../guests/http_vault.wat")
);

/// A `wasi:cli/run` component that prints "Hello from a component\n".
pub const CLI_RUN: &str = include_str!("../guests/cli_run.wat");
/// A `wasi:cli/run` component that returns an error.
pub const CLI_FAIL: &str = include_str!("../guests/cli_fail.wat");

/// Prints "Hello, NAME!\n" for a name on standard input, or "Hello from Fawn\n".
pub const HELLO: &str = include_str!("../guests/hello.wat");
/// Copies standard input to standard output.
pub const ECHO: &str = include_str!("../guests/echo.wat");
/// Prints the files that its arguments name; without any, standard input.
pub const CAT: &str = include_str!("../guests/cat.wat");
/// Prints its environment, one `NAME=value` a line.
pub const ENV: &str = include_str!("../guests/env.wat");
/// Prints its arguments, one a line, its own name first.
pub const ARGS: &str = include_str!("../guests/args.wat");
/// Prints "half done\n" and exits with 3.
pub const EXIT_CODE: &str = include_str!("../guests/exit_code.wat");
/// Prints "out 1", "err 1", "out 2", "err 2", a line each, to standard output and standard error in turn.
pub const BOTH_OUTPUTS: &str = include_str!("../guests/both_outputs.wat");
/// Prints "1 1 1 2\n" if nothing is left of the call before.
pub const COUNTER: &str = include_str!("../guests/counter.wat");
/// Leaves what it can in its instance, or looks for what another left, as six numbers of 32 bits on standard input say
/// (`vault.wat`), and prints its finding as one of 64 bits.
pub const VAULT: &str =
    concat!(include_str!("../guests/vault_begin.wat"), include_str!("../guests/vault.wat"), ")");
/// Prints three numbers, a line each: wall clock and monotonic clock in nanoseconds, and a random one.
pub const CLOCKS: &str = include_str!("../guests/clocks.wat");
/// Sleeps for the milliseconds in its last argument and prints "slept\n".
pub const SLEEP: &str = include_str!("../guests/sleep.wat");
/// Fills a file in /tmp until the host refuses and prints its KiB; "left over\n" if the file was there before.
pub const TMP: &str = include_str!("../guests/tmp.wat");

/// Prints its secret "token", or "none\n" if it has none.
pub const SECRET: &str = include_str!("../guests/secret.wat");

/// Prints "before\n" and traps.
pub const TRAP: &str = include_str!("../guests/trap.wat");
/// Runs for ever.
pub const LOOP: &str = include_str!("../guests/loop.wat");
/// Calls itself until the stack is full.
pub const RECURSION: &str = include_str!("../guests/recursion.wat");
/// Grows its memory to the limit, touches every page, and prints the count of its pages.
pub const GROW: &str = include_str!("../guests/grow.wat");
/// Fills 64 MiB for ever, each time in one instruction.
pub const FILL: &str = include_str!("../guests/fill.wat");
/// Writes to standard output for ever, without a line break.
pub const FLOOD: &str = include_str!("../guests/flood.wat");
/// Writes lines with control characters to standard error for ever.
pub const FLOOD_STDERR: &str = include_str!("../guests/flood_stderr.wat");

/// Runs for ever in its start function.
pub const START_LOOP: &str = include_str!("../guests/start_loop.wat");
/// Traps in its start function.
pub const START_TRAP: &str = include_str!("../guests/start_trap.wat");
/// Begins with a memory of 256 MiB.
pub const BIG_MEMORY: &str = include_str!("../guests/big_memory.wat");
/// Begins with a table of ten million entries.
pub const BIG_TABLE: &str = include_str!("../guests/big_table.wat");
/// Has a memory with 64-bit addresses.
pub const MEMORY64: &str = include_str!("../guests/memory64.wat");
/// Has no `_start`.
pub const NO_START: &str = include_str!("../guests/no_start.wat");
/// Imports `env` `magic`, which no host has.
pub const UNKNOWN_IMPORT: &str = include_str!("../guests/unknown_import.wat");
