use std::{
    env, fs,
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::child_of;

/// How long a server may take to say that it is ready, or to stop. `wasmtime serve` compiles meanwhile.
const PATIENCE: Duration = Duration::from_secs(240);

const WORKERD: &str = r#"using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .hello)],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);
const hello :Workerd.Worker = (
  modules = [(
    name = "worker",
    esModule = "export default { fetch() { return new Response('hello from JavaScript\\n'); } }",
  )],
  compatibilityDate = "2024-01-01",
);
"#;

const SPIN: &str = r#"spin_manifest_version = 2
[application]
name = "peer"
version = "0.1.0"
[[trigger.http]]
route = "/..."
component = "peer"
[component.peer]
source = "peer.wasm"
"#;

/// A server in a process of its own. It is killed when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// The process that serves: the one that was started, or its child (`spin up`).
    pub(crate) pid: u32,
    child: Child,
}

impl Server {
    /// The bare hyper server: this same program.
    pub(crate) fn reference(mode: &str) -> Result<Self> {
        let (output, stdout) = io::pipe()?;
        let mut command = Command::new(env::current_exe()?);
        command.args(["reference", mode]).stdout(stdout);
        Self::start(command, output, "reference ready ")
    }

    /// `wasmtime serve` with its pool, what the component needs to be linked, and its defaults otherwise.
    pub(crate) fn wasmtime(program: &Path, component: &Path, needs: &[&str]) -> Result<Self> {
        let (output, stderr) = io::pipe()?;
        let mut command = Command::new(program);
        command.args(["serve", "-Opooling-allocator=y", "--addr=127.0.0.1:0"]).args(needs).arg(component);
        command.stdout(Stdio::null()).stderr(stderr);
        Self::start(command, output, "Serving HTTP on ")
    }

    /// workerd with a worker that says what JavaScript says elsewhere. It has one thread, and its worker outlives calls.
    pub(crate) fn workerd(program: &Path, folder: &Path) -> Result<Self> {
        let (output, stdout) = io::pipe()?;
        let config = folder.join("workerd.capnp");
        fs::write(&config, WORKERD)?;
        let mut command = Command::new(program);
        command.args(["serve", "--control-fd=1"]).arg(&config).stdout(stdout);
        // It tells its port alone.
        Self::start(command, output, "{\"event\":\"listen\",\"socket\":\"http\",\"port\":")
    }

    /// `spin up` with the component that lies in the folder as `peer.wasm`, and its defaults.
    pub(crate) fn spin(program: &Path, folder: &Path) -> Result<Self> {
        let (output, stdout) = io::pipe()?;
        let manifest = folder.join("spin.toml");
        fs::write(&manifest, SPIN)?;
        let mut command = Command::new(program);
        command.arg("up").arg("--from").arg(&manifest).arg("--state-dir").arg(folder.join("spin"));
        command.args(["--listen", "127.0.0.1:0"]).stdout(stdout).stderr(Stdio::null());
        Self::start(command, output, "Serving ")
    }

    /// `fawn up` with one function. Its log goes to a file beside its data.
    pub(crate) fn fawn(program: &Path, function: &Path, data_dir: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("up").arg(function);
        Self::fawn_part(command, data_dir, "fawn ready gateway=")
    }

    /// `fawn node` without functions.
    pub(crate) fn fawn_node(program: &Path, data_dir: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("node");
        Self::fawn_part(command, data_dir, "fawn ready provider=")
    }

    /// `fawn gateway` in front of a node.
    pub(crate) fn fawn_gateway(program: &Path, node: &Self, data_dir: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("gateway").arg(format!("--provider=http://{}", node.address));
        Self::fawn_part(command, data_dir, "fawn ready gateway=")
    }

    fn fawn_part(mut command: Command, data_dir: &Path, ready: &str) -> Result<Self> {
        let (output, stdout) = io::pipe()?;
        let log = data_dir.with_extension("log");
        command.args(["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--no-auth"]);
        command.arg("--data-dir").arg(data_dir).stdout(stdout);
        command.stderr(fs::File::options().create(true).append(true).open(&log)?);
        let started = Self::start(command, output, ready);
        started.with_context(|| format!("fawn says:\n{}", fs::read_to_string(log).unwrap_or_default()))
    }

    /// Starts a server and waits for the line that begins with `ready` and an address.
    fn start(mut command: Command, output: io::PipeReader, ready: &str) -> Result<Self> {
        // Captured backtraces would slow down whoever makes many errors.
        command.env("RUST_BACKTRACE", "0").stdin(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let mut server = Self { address: ([0; 4], 0).into(), pid: child.id(), child };
        // Only the server holds the other end of the pipe now, so its end is the output's end.
        drop(command);
        server.address = ready_address(output, ready)?;
        server.pid = child_of(server.pid)?.unwrap_or(server.pid);
        Ok(server)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid.try_into()?).context("a process without an id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Asks the server to end, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let late = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > late {
                bail!("the server does not end");
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already is no concern.
        if self.pid != self.child.id() {
            let _ = self.signal(Signal::KILL);
        }
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Reads up to the line that begins with `ready` and an address, and goes on reading, so that the server can go on
/// writing.
fn ready_address(output: io::PipeReader, ready: &str) -> Result<SocketAddr> {
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // Nobody listens once the server is ready.
            let _ = send.send(line);
        }
    });
    let (begin, mut said) = (Instant::now(), String::new());
    while let Ok(line) = lines.recv_timeout(PATIENCE.saturating_sub(begin.elapsed())) {
        if let Some(url) = line.strip_prefix(ready).and_then(|rest| rest.split(' ').next()) {
            let address = url.trim_start_matches("http://").trim_end_matches(['/', '}']);
            if let Ok(port) = address.parse::<u16>() {
                return Ok(([127, 0, 0, 1], port).into());
            }
            return address.parse().with_context(|| format!("{line:?} holds no address"));
        }
        said += &format!("\n{line}");
    }
    bail!("it does not say {ready:?}, but:{said}")
}

/// The program of that name on the PATH.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The newest of those binaries that users get, built beside this program.
pub(crate) fn newest_fawn() -> Result<PathBuf> {
    let program = env::current_exe()?;
    let target = program.ancestors().nth(2).context("this program lies in no target folder")?;
    let built = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).ok();
    let found = ["dist", "release"].map(|profile| target.join(profile).join("fawn"));
    let newest = found.into_iter().filter_map(|path| Some((built(&path)?, path))).max();
    let found = newest.with_context(|| {
        format!("there is no fawn in {}: build it with `cargo build --profile dist -p fawn -p benches`, or name one with --fawn", target.display())
    });
    Ok(found?.1)
}
