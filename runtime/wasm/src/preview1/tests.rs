//! This host beside Wasmtime's own: the same guest makes the same calls of both, with good, bad and hostile arguments.
//! What it gets back, what is in its memory then, and whether it is ended, has to be the same.
//!
//! Where this host means to differ, so that what one call of it may cost is bounded:
//! - It passes over at most 65,536 empty buffers; then `inval`, as `readv(2)` has it beyond its limit.
//! - It has at most 1024 descriptors open; then `mfile`, as `open(2)` has it beyond its limit.
//! - It waits for at most 1024 things at once; then `inval`, as `poll(2)` has it beyond its limit.
//!
//! Or because a guest measures no more than it needs to:
//! - Its clocks go on in steps; both hosts are given the same ones here.
//!
//! Or because a process can do so:
//! - `proc_exit` takes any status, and needs no memory.
//! - A file is opened under the lowest number that is free.
//!
//! Or because secrets are files that nobody writes:
//! - What would change one is refused with `rofs`, whatever it is.
//! - They have no times, and numbers of their own.

use std::{
    fmt::Write as _,
    path::Path,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use runtime_api::{BodyError, CallId, FunctionName};
use runtime_egress::Policy;
use tokio::time::timeout;
use wasmtime::{Func, Val};
use wasmtime_wasi::{
    FsPerms, HostMonotonicClock, HostWallClock, WasiCtxBuilder,
    p1::{self, WasiP1Ctx},
};

use super::*;
use crate::{
    clocks::{self, GRAIN_NANOS},
    guest_log::GuestLog,
    output::Output,
    secrets::SecretFiles,
    shape::Shape,
    stdin::{Input, Stdin},
};

mod calls;
mod chance;
mod files;

/// The guest's memory, one page of it, and what it may make the host look at.
const PAGE: usize = 1 << 16;
const LIMIT: u64 = 1 << 20;

/// How long a call may wait; the clock stands still but for that.
const LONG: Duration = Duration::from_secs(3600);

fn args() -> Vec<String> {
    ["guest", "", "two words", "ünï"].map(Into::into).into()
}

fn variables() -> Vec<(String, String)> {
    [("A", "1"), ("EMPTY", ""), ("LONG", "a=b=c ü")].map(|(name, value)| (name.into(), value.into())).into()
}

/// How standard input goes.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Pieces(&'static [&'static str]),
    BreaksOff,
    Never,
}

impl Sent {
    fn body(self) -> Body {
        let frame =
            |piece: &&'static str| Ok::<_, BodyError>(Frame::data(Bytes::from_static(piece.as_bytes())));
        match self {
            Self::Pieces(pieces) => {
                let frames: Vec<_> = pieces.iter().map(frame).collect();
                StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
            }
            Self::BreaksOff => {
                let frames = vec![frame(&"abc"), Err("gone".into())];
                StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
            }
            Self::Never => {
                StreamBody::new(futures_util::stream::pending::<Result<_, BodyError>>()).boxed_unsync()
            }
        }
    }
}

/// What a guest is given.
#[derive(Clone, Copy, Debug)]
struct Given {
    sent: Sent,
    combined: bool,
}

const PLAIN: Given = Given { sent: Sent::Pieces(&["hello", "", " world"]), combined: false };

/// How a call of the host ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Errno(i32),
    Trap,
    /// Not within [`LONG`].
    Waits,
}

struct Theirs {
    ctx: WasiP1Ctx,
}

/// Ours, for theirs.
#[derive(Clone, Copy)]
struct Coarse {
    start: Instant,
}

impl HostWallClock for Coarse {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(GRAIN_NANOS)
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(clocks::shown(clocks::realtime()))
    }
}

impl HostMonotonicClock for Coarse {
    fn resolution(&self) -> u64 {
        GRAIN_NANOS
    }

    fn now(&self) -> u64 {
        clocks::shown(clocks::monotonic(self.start))
    }
}

struct Hosts {
    engine: Engine,
    ours: Linker<Process>,
    theirs: Linker<Theirs>,
    /// A guest that passes each call on.
    guest: Module,
    functions: Vec<Function>,
}

/// A function of the host: its name and how wide its parameters are.
#[derive(Clone, Debug)]
struct Function {
    name: String,
    wide: Vec<bool>,
}

impl Hosts {
    fn new() -> Self {
        let engine =
            Engine::for_compiling(Shape { slots: 4, reservation_bytes: 4 << 30 }, false, None).unwrap();
        let mut ours = Linker::new(engine.wasmtime());
        link(&mut ours).unwrap();
        let mut theirs = Linker::new(engine.wasmtime());
        p1::add_to_linker_async(&mut theirs, |theirs: &mut Theirs| &mut theirs.ctx).unwrap();
        let (text, functions) = passing_guest(&engine, &theirs);
        let guest = Module::from_binary(engine.wasmtime(), &wat::parse_str(text).unwrap()).unwrap();
        Self { engine, ours, theirs, guest, functions }
    }

    async fn both(&self, given: Given) -> Both {
        self.both_with(given, None).await
    }

    /// With secrets for ours, and for theirs the same on disk.
    async fn both_with(&self, given: Given, files: Option<(&SecretFiles, &Path)>) -> Both {
        let log = GuestLog::new(&FunctionName::parse("guest").unwrap(), &CallId::new("1"), None);
        let spill = self.engine.spill().clone();
        let limits = Limits { memory_bytes: LIMIT, egress: Policy::none() };

        let mut process = Process::idle(&self.engine, &limits, u64::MAX);
        process.environment = Arc::new(Environment::new(&args(), &variables()));
        process.input = Input::new(Some(given.sent.body()));
        process.errors = (!given.combined).then(|| log.lines("stderr"));
        if let Some((files, _)) = files {
            process.secrets = Some(files.open());
            process.descriptors = Descriptors::new(process.secrets.as_ref());
        }
        let mut ours = new_store(&self.engine, process);
        let instance = self.ours.instantiate_async(&mut ours, &self.guest).await.unwrap();
        let ours = Sandbox { store: ours, instance };

        let output = Output::new(u64::MAX, spill);
        let mut wasi = WasiCtxBuilder::new();
        wasi.args(&args()).envs(&variables()).max_random_size(crate::instance::MAX_RANDOM_BYTES);
        let clock = Coarse { start: ours.store.data().start };
        wasi.wall_clock(clock).monotonic_clock(clock);
        wasi.stdin(Stdin::new(given.sent.body())).stdout(output.clone());
        if given.combined {
            wasi.stderr(output.clone());
        } else {
            wasi.stderr(log.stream("stderr"));
        }
        if let Some((_, folder)) = files {
            wasi.preopened_dir(folder, crate::secrets::DIRECTORY, FsPerms::ReadOnly).unwrap();
        }
        let mut theirs = Store::new(self.engine.wasmtime(), Theirs { ctx: wasi.build_p1() });
        theirs.set_hostcall_fuel(usize::try_from(LIMIT).unwrap());
        theirs.set_epoch_deadline(1);
        theirs.epoch_deadline_async_yield_and_update(1);
        let instance = self.theirs.instantiate_async(&mut theirs, &self.guest).await.unwrap();
        let theirs = Sandbox { store: theirs, instance };
        Both { ours, theirs, output }
    }
}

/// A module that imports every function of a linker, and exports one that passes its arguments on to it.
fn passing_guest(engine: &Engine, linker: &Linker<Theirs>) -> (String, Vec<Function>) {
    let mut store = Store::new(engine.wasmtime(), Theirs { ctx: WasiCtxBuilder::new().build_p1() });
    let (mut imports, mut exports, mut functions) = (String::new(), String::new(), Vec::new());
    let found: Vec<_> = linker.iter(&mut store).map(|(_, name, found)| (name.to_owned(), found)).collect();
    for (name, found) in found {
        let kind = found.into_func().unwrap().ty(&store);
        let wide: Vec<bool> = kind.params().map(|param| param.is_i64()).collect();
        let params: String = wide.iter().map(|wide| if *wide { " i64" } else { " i32" }).collect();
        let result = if kind.results().len() == 0 { "" } else { "(result i32)" };
        let pass: String = (0..wide.len()).fold(String::new(), |mut text, index| {
            write!(text, "(local.get {index})").unwrap();
            text
        });
        let kind = format!("(param{params}) {result}");
        writeln!(imports, r#"(import "{PREVIEW1}" "{name}" (func ${name} {kind}))"#).unwrap();
        writeln!(exports, r#"(func (export "{name}") {kind} (call ${name} {pass}))"#).unwrap();
        functions.push(Function { name, wide });
    }
    functions.sort_by(|one, other| one.name.cmp(&other.name));
    (format!(r#"(module {imports} (memory (export "memory") 1) {exports})"#), functions)
}

/// One host and its guest.
struct Sandbox<T: 'static> {
    store: Store<T>,
    instance: Instance,
}

impl<T: Send> Sandbox<T> {
    fn memory(&mut self) -> &mut [u8] {
        let memory = self.instance.get_memory(&mut self.store, "memory").unwrap();
        memory.data_mut(&mut self.store)
    }

    fn function(&mut self, name: &str) -> Func {
        self.instance.get_func(&mut self.store, name).unwrap_or_else(|| panic!("{name}"))
    }

    async fn call(&mut self, name: &str, args: &[u64]) -> End {
        let function = self.function(name);
        let kind = function.ty(&self.store);
        let value = |(param, arg): (wasmtime::ValType, &u64)| {
            if param.is_i64() { Val::I64(*arg as i64) } else { Val::I32(*arg as u32 as i32) }
        };
        assert_eq!(kind.params().len(), args.len(), "{name}");
        let args: Vec<_> = kind.params().zip(args).map(value).collect();
        let mut results = vec![Val::I32(0); kind.results().len()];
        match timeout(LONG, function.call_async(&mut self.store, &args, &mut results)).await {
            Ok(Ok(())) => End::Errno(results[0].unwrap_i32()),
            Ok(Err(_)) => End::Trap,
            Err(_) => End::Waits,
        }
    }
}

/// The two hosts, side by side.
struct Both {
    ours: Sandbox<Process>,
    theirs: Sandbox<Theirs>,
    output: Output,
}

impl Both {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        for memory in [self.ours.memory(), self.theirs.memory()] {
            memory[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Numbers of 32 bits, one after the other.
    fn write_numbers(&mut self, at: usize, numbers: &[u32]) {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.write(at, &bytes);
    }

    /// Calls both, and compares all that a guest could see.
    async fn call(&mut self, name: &str, args: &[u64]) -> End {
        let ours = self.ours.call(name, args).await;
        let theirs = self.theirs.call(name, args).await;
        assert_eq!(ours, theirs, "{name}{args:x?}");
        if ours != End::Trap {
            let (ours, theirs) = (self.ours.memory(), self.theirs.memory());
            let other = (0..PAGE).find(|at| ours[*at] != theirs[*at]);
            let other =
                other.map(|at| (at, &ours[at..(at + 64).min(PAGE)], &theirs[at..(at + 64).min(PAGE)]));
            assert!(other.is_none(), "{name}{args:x?} writes otherwise: {other:x?}");
        }
        ours
    }

    /// Calls both where they answer with something else each time, and compares the rest.
    async fn call_fickle(&mut self, name: &str, args: &[u64]) -> End {
        let ours = self.ours.call(name, args).await;
        assert_eq!(ours, self.theirs.call(name, args).await, "{name}{args:x?}");
        let bytes = self.ours.memory().to_vec();
        self.theirs.memory().copy_from_slice(&bytes);
        ours
    }

    /// What was written to standard output, the same on both.
    async fn output(self) -> Bytes {
        let ours = self.ours.store.into_data().output;
        let theirs = self.output.take();
        let whole = async |output: Buffer| {
            let finished = output.finish(Bytes::new()).await;
            finished.ok().unwrap().body.collect().await.unwrap().to_bytes()
        };
        let (ours, theirs) = (whole(ours).await, whole(theirs).await);
        assert!(ours == theirs, "{} bytes of output and {}", ours.len(), theirs.len());
        ours
    }
}
