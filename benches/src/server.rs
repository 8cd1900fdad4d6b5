use std::{
    env, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::unix::pipe::Receiver,
    process::{Child, Command},
    time::timeout,
};

/// How long a server may take to say that it is ready, or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server in a process of its own. It is killed when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
    child: Child,
    /// Kept open, so that the server can go on writing.
    _output: Lines<BufReader<Receiver>>,
}

impl Server {
    /// The bare hyper server: this same program.
    pub(crate) async fn reference(mode: &str) -> Result<Self> {
        let (output, stdout) = io::pipe()?;
        let mut command = Command::new(env::current_exe()?);
        command.args(["reference", mode]).stdout(stdout);
        Self::start(command, output, "reference ready ").await
    }

    /// `wasmtime serve` with its pool, and its defaults otherwise.
    pub(crate) async fn wasmtime(program: &Path, component: &Path) -> Result<Self> {
        let (output, stderr) = io::pipe()?;
        let mut command = Command::new(program);
        command.args(["serve", "-Opooling-allocator=y", "--addr=127.0.0.1:0"]).arg(component);
        command.stdout(Stdio::null()).stderr(stderr);
        Self::start(command, output, "Serving HTTP on ").await
    }

    /// `fawn up` with one function. Its log goes to a file beside its data.
    pub(crate) async fn fawn(program: &Path, function: &Path, data_dir: &Path) -> Result<Self> {
        let (output, stdout) = io::pipe()?;
        let log = data_dir.with_extension("log");
        let mut command = Command::new(program);
        command.arg("up").arg(function).args([
            "--listen=127.0.0.1:0",
            "--metrics-listen=127.0.0.1:0",
            "--no-auth",
        ]);
        command.arg("--data-dir").arg(data_dir).stdout(stdout);
        command.stderr(fs::File::options().create(true).append(true).open(&log)?);
        let started = Self::start(command, output, "fawn ready gateway=").await;
        started.with_context(|| format!("fawn says:\n{}", fs::read_to_string(log).unwrap_or_default()))
    }

    async fn start(mut command: Command, output: io::PipeReader, ready: &str) -> Result<Self> {
        // Captured backtraces would slow down whoever makes many errors.
        command.env("RUST_BACKTRACE", "0").stdin(Stdio::null()).kill_on_drop(true);
        let child =
            command.spawn().with_context(|| format!("cannot start {:?}", command.as_std().get_program()))?;
        // Only the server holds the other end of the pipe now, so its end is the output's end.
        drop(command);
        let mut lines = BufReader::new(Receiver::from_owned_fd(output.into())?).lines();
        let address =
            timeout(PATIENCE, ready_address(&mut lines, ready)).await.context("it does not come up")??;
        let pid = child.id().context("the server ended at once")?;
        Ok(Self { address, pid, child, _output: lines })
    }

    /// Asks the server to end, and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pid = Pid::from_raw(self.pid.try_into()?).context("a process without an id")?;
        kill_process(pid, Signal::TERM)?;
        timeout(PATIENCE, self.child.wait()).await.context("the server does not end")??;
        Ok(())
    }
}

/// Reads up to the line that begins with `ready` and an address.
async fn ready_address(lines: &mut Lines<BufReader<Receiver>>, ready: &str) -> Result<SocketAddr> {
    while let Some(line) = lines.next_line().await? {
        if let Some(url) = line.strip_prefix(ready).and_then(|rest| rest.split(' ').next()) {
            let address = url.trim_start_matches("http://").trim_end_matches('/');
            return address.parse().with_context(|| format!("{line:?} holds no address"));
        }
    }
    bail!("it ended before it said {ready:?}")
}

/// The program of that name on the PATH.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}
