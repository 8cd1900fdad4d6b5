/// Keeps what this process has open, but for standard input, output and error, from processes that it starts: what
/// somebody's shell left open is not for a process that is shut in.
///
/// Belongs at the beginning of `main`: what is opened later by Rust's library is kept anyhow.
pub fn keep_descriptors() {
    close_fds::set_fds_cloexec(3, &[]);
}
