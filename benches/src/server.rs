use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader, Lines},
    process::{Child, Command},
    time::timeout,
};

use crate::reference::Mode;

/// How long a server may take to say that it is ready, or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server in a process of its own. It is killed when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
    child: Child,
    /// Kept open, so that the server can go on writing.
    _output: Box<dyn Send>,
}

impl Server {
    /// The bare hyper server: this same program.
    pub(crate) async fn reference(mode: Mode) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args([
            "reference",
            match mode {
                Mode::MultiThread => "multi-thread",
                Mode::PerCore => "per-core",
            },
        ]);
        Self::start(command, "reference ready ", Output::Stdout).await
    }

    /// `wasmtime serve` with its pool, and its defaults otherwise.
    pub(crate) async fn wasmtime(program: &Path, component: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["serve", "-Opooling-allocator=y", "--addr", "127.0.0.1:0"]).arg(component);
        Self::start(command, "Serving HTTP on ", Output::Stderr).await
    }

    /// `fawn up` with one function.
    pub(crate) async fn fawn(program: &Path, function: &Path, data_dir: &Path) -> Result<Self> {
        let log = std::fs::File::options().create(true).append(true).open(data_dir.with_extension("log"))?;
        let mut command = Command::new(program);
        command.arg("up").arg(function).args(["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
        command.arg("--no-auth").arg("--data-dir").arg(data_dir).stderr(log);
        Self::start(command, "fawn ready gateway=", Output::Stdout)
            .await
            .with_context(|| format!("its log ends with:\n{}", tail(&data_dir.with_extension("log"))))
    }

    async fn start(mut command: Command, ready: &str, output: Output) -> Result<Self> {
        let program = command.as_std().get_program().to_owned();
        // Captured backtraces would slow down whoever makes many errors.
        command.env("RUST_BACKTRACE", "0").stdin(Stdio::null()).kill_on_drop(true);
        match output {
            Output::Stdout => command.stdout(Stdio::piped()),
            Output::Stderr => command.stdout(Stdio::null()).stderr(Stdio::piped()),
        };
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id().context("the server ended at once")?;
        let (address, output) = match output {
            Output::Stdout => wait_ready(child.stdout.take().context("no stdout")?, ready).await,
            Output::Stderr => wait_ready(child.stderr.take().context("no stderr")?, ready).await,
        }
        .with_context(|| format!("{} did not come up", program.display()))?;
        Ok(Self { address, pid, child, _output: output })
    }

    /// Asks the server to end, and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pid = Pid::from_raw(self.pid.try_into()?).context("a process without an id")?;
        kill_process(pid, Signal::TERM)?;
        timeout(PATIENCE, self.child.wait()).await.context("the server does not end")??;
        Ok(())
    }
}

/// Where a server says that it is ready.
enum Output {
    Stdout,
    Stderr,
}

/// Waits for the line that begins with `ready` and an address.
async fn wait_ready(
    output: impl AsyncRead + Send + Unpin + 'static,
    ready: &str,
) -> Result<(SocketAddr, Box<dyn Send>)> {
    let mut lines = BufReader::new(output).lines();
    let address = timeout(PATIENCE, find_address(&mut lines, ready))
        .await
        .context("it does not say that it is ready")??;
    Ok((address, Box::new(lines)))
}

async fn find_address(
    lines: &mut Lines<BufReader<impl AsyncRead + Unpin>>,
    ready: &str,
) -> Result<SocketAddr> {
    while let Some(line) = lines.next_line().await? {
        if let Some(rest) = line.strip_prefix(ready) {
            let url = rest.split(' ').next().unwrap_or_default();
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

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(10).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
