use std::{
    fs, io,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

/// No state that a test waits for takes longer, even while every core compiles.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Says what is not tested, and why, past the test's own capture of what is printed: nobody should take it for passed.
pub(crate) fn not_run(what: &str) {
    use io::Write;

    io::stdout().write_all(format!("NOT RUN: {what}\n").as_bytes()).unwrap();
}

/// A program that runs beside the tests and ends with them, and all that it has printed.
pub(crate) struct Process {
    child: Child,
    pub(crate) pid: u32,
    stdout: Output,
    stderr: Output,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = Output::follow(child.stdout.take().unwrap());
        let stderr = Output::follow(child.stderr.take().unwrap());
        Self { pid: child.id().unwrap(), child, stdout, stderr }
    }

    /// Waits until standard output or standard error has what `find` looks for.
    pub(crate) async fn until<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> T {
        let (mut stdout, mut stderr) = (self.stdout.grown.clone(), self.stderr.grown.clone());
        let found = async {
            loop {
                if let Some(found) = find(&self.stdout.text()).or_else(|| find(&self.stderr.text())) {
                    return found;
                }
                tokio::select! {
                    Ok(()) = stdout.changed() => {}
                    Ok(()) = stderr.changed() => {}
                    else => panic!("it ended without saying what was waited for: {}", self.log()),
                }
            }
        };
        timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("waited in vain: {}", self.log()))
    }

    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub(crate) fn log(&self) -> String {
        self.stderr.text()
    }

    /// Sends a signal by the name that kill(1) knows.
    pub(crate) fn signal(&self, name: &str) {
        let sent =
            std::process::Command::new("kill").args(["-s", name, &self.pid.to_string()]).status().unwrap();
        assert!(sent.success(), "cannot send {name}");
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("still running: {}", self.log()))
            .unwrap()
    }

    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// A line of `/proc/PID/status`, such as VmRSS, in bytes.
    pub(crate) fn memory(&self, line: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')).unwrap();
        value.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Makes VmHWM, the peak of the resident memory, begin anew (proc(5), `clear_refs`).
    pub(crate) fn reset_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.pid), "5").unwrap();
    }
}

/// What a program has printed to one stream so far.
struct Output {
    text: Arc<Mutex<Vec<u8>>>,
    grown: watch::Receiver<()>,
}

impl Output {
    fn follow(mut stream: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let (grow, grown) = watch::channel(());
        let output = Self { text: text.clone(), grown };
        tokio::spawn(async move {
            let mut buffer = [0; 8192];
            loop {
                let count = stream.read(&mut buffer).await?;
                if count == 0 {
                    return io::Result::Ok(());
                }
                text.lock().unwrap().extend_from_slice(&buffer[..count]);
                // Nobody may be waiting.
                let _ = grow.send(());
            }
        });
        output
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }
}

/// What a program that runs to its end has said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// Runs a program to its end with this standard input.
pub(crate) async fn run(command: &mut Command, input: &[u8]) -> Said {
    run_within(PATIENCE, command, input).await
}

/// As [`run`], for what takes its time.
pub(crate) async fn run_within(patience: Duration, command: &mut Command, input: &[u8]) -> Said {
    use tokio::io::AsyncWriteExt;

    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let feed = async move {
        // A program that does not read its input closes it.
        let _ = stdin.write_all(input).await;
    };
    let (output, ()) = timeout(patience, async { tokio::join!(child.wait_with_output(), feed) })
        .await
        .unwrap_or_else(|_| panic!("{command:?} does not end"));
    let output = output.unwrap();
    Said {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Said {
    /// What it printed, once it has ended with 0.
    #[track_caller]
    pub(crate) fn succeeds(&self) -> String {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self.text()
    }

    /// What it printed on either stream, once it has ended with another code than 0.
    #[track_caller]
    pub(crate) fn fails(&self) -> String {
        let all = format!("{}{}", self.text(), self.stderr);
        assert!(self.code.is_some_and(|code| code != 0), "ended with {:?}: {all}", self.code);
        all
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Asks again and again until the answer is there.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let mut turns = tokio::time::interval(Duration::from_millis(20));
    let found = async {
        loop {
            turns.tick().await;
            if let Some(found) = ask().await {
                return found;
            }
        }
    };
    timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}
