//! What a command module sees of the world (WASI preview 1): the request on standard input, the answer on standard
//! output, arguments, variables, clocks, chance, and its secrets as files. No other files and no sockets.
//!
//! It behaves as Wasmtime's own host does, which the tests compare it with. Its state lies in the store itself: calls
//! take no lock, and most allocate nothing.

mod abi;
mod clocks;
mod descriptors;
mod environment;
mod files;
mod paths;
mod poll;
mod streams;

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use http::request::Parts;
use http_body::Body as _;
use runtime_api::Body;
use tokio::time::Instant;
use wasmtime::{
    Caller, Extern, ExternType, Instance, InstancePre, Linker, Memory, Module, ModuleExport, Store,
    error::Context as _,
};
use wasmtime_wasi::I32Exit;

pub(crate) use self::environment::Environment;
use self::{
    abi::{GuestMemory, Outcome, answer},
    descriptors::Descriptors,
    environment::Strings,
};
use crate::{
    engine::Engine,
    guest_log::{GuestLog, Lines},
    instance::{Limits, Usage, bound},
    output::Buffer,
    pool::Call,
    secrets::Directory,
    stdin::Input,
};

/// The module that guests import it from.
const PREVIEW1: &str = "wasi_snapshot_preview1";

/// One call's process: what its guest has been given.
pub(crate) struct Process {
    environment: Arc<Environment>,
    /// The request, which `cgi_headers` describes in variables of its own.
    pub(crate) request: Parts,
    cgi_headers: bool,
    body_bytes: Option<u64>,
    variables: Option<Strings>,
    /// When the call began.
    start: Instant,
    descriptors: Descriptors,
    /// None for a function that names no secrets.
    secrets: Option<Directory>,
    input: Input,
    pub(crate) output: Buffer,
    /// Standard error; none when it goes where the output goes.
    errors: Option<Lines>,
    /// The memory of the one instance, once it has asked for something.
    memory: Option<Memory>,
    pub(crate) usage: Usage,
}

/// Adds every function of WASI preview 1.
pub(crate) fn link(linker: &mut Linker<Process>) -> wasmtime::Result<()> {
    clocks::link(linker)?;
    descriptors::link(linker)?;
    environment::link(linker)?;
    files::link(linker)?;
    paths::link(linker)?;
    poll::link(linker)?;
    streams::link(linker)?;
    link_process(linker)
}

fn link_process(linker: &mut Linker<Process>) -> wasmtime::Result<()> {
    linker.func_wrap(PREVIEW1, "proc_exit", |status: i32| -> wasmtime::Result<()> {
        Err(I32Exit(status).into())
    })?;
    linker.func_wrap(PREVIEW1, "proc_raise", |guest: Caller<'_, Process>, signal: u32| {
        enter(guest, |_, _| {
            abi::case(signal, 31)?;
            Err(abi::Errno::Notsup.into())
        })
    })?;
    // A guest gives way in time whether it asks to or not.
    linker.func_wrap(PREVIEW1, "sched_yield", |guest: Caller<'_, Process>| enter(guest, |_, _| Ok(())))?;
    Ok(())
}

impl Process {
    /// A process of this request.
    pub(crate) fn new(call: &Call, request: http::Request<Body>, log: &GuestLog) -> Self {
        let (parts, body) = request.into_parts();
        let settings = &call.pool.settings;
        let stdio = &settings.stdio;
        let secrets = call.secrets();
        Self {
            environment: call.pool.environment.clone(),
            request: parts,
            cgi_headers: stdio.cgi_headers,
            body_bytes: body.size_hint().exact(),
            variables: None,
            start: call.start,
            descriptors: Descriptors::new(secrets.as_ref()),
            secrets,
            input: Input::new(Some(body)),
            output: Buffer::new(stdio.max_output_bytes, call.engine().spill().clone()),
            errors: (!stdio.combine_output).then(|| log.lines("stderr")),
            memory: None,
            usage: call.usage(),
        }
    }

    /// A process of no request, whose output nobody reads.
    pub(crate) fn idle(engine: &Engine, limits: &Limits, most_output_bytes: u64) -> Self {
        let (request, ()) = http::Request::new(()).into_parts();
        Self {
            environment: Arc::new(Environment::new(&[], &[])),
            request,
            cgi_headers: false,
            body_bytes: Some(0),
            variables: None,
            start: Instant::now(),
            descriptors: Descriptors::new(None),
            secrets: None,
            input: Input::new(None),
            output: Buffer::new(most_output_bytes, engine.spill().clone()),
            errors: None,
            memory: None,
            usage: Usage::new(engine, limits),
        }
    }

    /// What one call may make the host look at.
    fn most_bytes(&self) -> usize {
        usize::try_from(self.usage.limit_bytes).unwrap_or(usize::MAX)
    }
}

/// A fresh sandbox for one call.
pub(crate) fn new_store(engine: &Engine, process: Process) -> Store<Process> {
    let mut store = Store::new(engine.wasmtime(), process);
    bound(&mut store, |process| &mut process.usage);
    store
}

/// A command module that is ready to run.
pub(crate) struct Program {
    pre: InstancePre<Process>,
    start: ModuleExport,
}

impl Program {
    pub(crate) fn new(engine: &Engine, module: &Module) -> wasmtime::Result<Self> {
        let Some((ExternType::Func(start), index)) =
            module.get_export("_start").zip(module.get_export_index("_start"))
        else {
            wasmtime::bail!("_start is not a function");
        };
        if start.params().len() + start.results().len() > 0 {
            wasmtime::bail!("_start takes parameters or returns results, which a command's does not");
        }
        Ok(Self { pre: engine.core_linker().instantiate_pre(module)?, start: index })
    }

    pub(crate) async fn instantiate(&self, store: &mut Store<Process>) -> wasmtime::Result<Instance> {
        self.pre.instantiate_async(store).await
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self, store: &mut Store<Process>) -> wasmtime::Result<()> {
        let instance = self.instantiate(&mut *store).await?;
        let start = instance.get_module_export(&mut *store, &self.start).and_then(Extern::into_func);
        let start = start.context("_start is not a function")?.typed::<(), ()>(&mut *store)?;
        start.call_async(store, ()).await
    }
}

/// Does what a guest asks for and what needs no waiting.
fn enter(
    mut guest: Caller<'_, Process>,
    call: impl FnOnce(&mut Process, &mut GuestMemory<'_>) -> Outcome<()>,
) -> wasmtime::Result<i32> {
    let (process, mut memory) = split(&mut guest)?;
    answer(call(process, &mut memory))
}

/// What a guest waits for, with the number that it gets.
type Waiting<'a> = Box<dyn Future<Output = wasmtime::Result<i32>> + Send + 'a>;

/// Does what a guest asks for, in one step if possible: that costs the least. If the guest has to wait, further steps
/// follow.
fn wait<'a>(
    mut guest: Caller<'a, Process>,
    mut step: impl FnMut(&mut Process, &mut GuestMemory<'_>, &mut Context<'_>) -> Poll<Outcome<()>> + Send + 'a,
) -> Waiting<'a> {
    match poll_step(&mut guest, &mut step, &mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Box::new(std::future::ready(answer)),
        Poll::Pending => wait_from_the_start(guest, step),
    }
}

/// The same for what can never be done in one step.
fn wait_from_the_start<'a>(
    mut guest: Caller<'a, Process>,
    mut step: impl FnMut(&mut Process, &mut GuestMemory<'_>, &mut Context<'_>) -> Poll<Outcome<()>> + Send + 'a,
) -> Waiting<'a> {
    Box::new(poll_fn(move |cx| poll_step(&mut guest, &mut step, cx)))
}

fn poll_step(
    guest: &mut Caller<'_, Process>,
    step: &mut impl FnMut(&mut Process, &mut GuestMemory<'_>, &mut Context<'_>) -> Poll<Outcome<()>>,
    cx: &mut Context<'_>,
) -> Poll<wasmtime::Result<i32>> {
    let (process, mut memory) = split(guest)?;
    step(process, &mut memory, cx).map(answer)
}

/// A guest's process and its memory, which it has to export.
fn split<'a>(guest: &'a mut Caller<'_, Process>) -> wasmtime::Result<(&'a mut Process, GuestMemory<'a>)> {
    let memory = match guest.data().memory {
        Some(memory) => memory,
        None => {
            let Some(Extern::Memory(memory)) = guest.get_export("memory") else {
                wasmtime::bail!("it exports no memory, which functions of the host need");
            };
            guest.data_mut().memory = Some(memory);
            memory
        }
    };
    let (bytes, process) = memory.data_and_store_mut(guest);
    Ok((process, GuestMemory(bytes)))
}

#[cfg(test)]
mod tests;
