//! Machine code in memory, linked with what this node offers.

use std::{path::Path, time::Duration};

use runtime_api::ArtifactKind;
use tokio::time::{Instant, error::Elapsed, timeout};
use wasmtime::{Module, component::Component};
use wasmtime_wasi::{WasiCtxBuilder, p2::bindings::CommandPre};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::{
    cache::CheckedCode,
    engine::Engine,
    inspect::World,
    instance::{Limits, State, Usage, new_store},
    preview1::{self, Process, Program},
};

/// What a guest may print that is only tried out, in bytes. It stays in memory: the process that tries has no disk.
const TRIAL_OUTPUT_BYTES: u64 = 64 << 10;

/// Code that is ready to be instantiated.
pub(crate) enum Code {
    Http(ProxyPre<State>),
    Command(CommandPre<State>),
    Core(Program),
}

/// Code as Wasmtime holds it.
pub(crate) enum Unlinked {
    Module(Module),
    Component(Component),
}

impl Unlinked {
    /// Compiles, which takes long.
    pub(crate) fn compile(engine: &Engine, kind: ArtifactKind, bytes: &[u8]) -> wasmtime::Result<Self> {
        let wasmtime = engine.wasmtime();
        Ok(match kind {
            ArtifactKind::Module => Self::Module(Module::from_binary(wasmtime, bytes)?),
            ArtifactKind::Component => Self::Component(Component::from_binary(wasmtime, bytes)?),
        })
    }

    pub(crate) fn serialize(&self) -> wasmtime::Result<Vec<u8>> {
        match self {
            Self::Module(module) => module.serialize(),
            Self::Component(component) => component.serialize(),
        }
    }

    /// Maps code that was compiled before.
    ///
    /// # Safety
    /// The file was written by [`Unlinked::serialize`] with this very Wasmtime and configuration, and stays as it is
    /// while it is mapped.
    #[expect(unsafe_code, reason = "Wasmtime cannot verify machine code, so loading it is unsafe by nature")]
    pub(crate) unsafe fn load(engine: &Engine, world: World, path: &Path) -> wasmtime::Result<Self> {
        let wasmtime = engine.wasmtime();
        // JUSTIFICATION: compiling on every start instead costs up to half a minute for each function.
        // SAFETY: the caller's promise is what both functions ask for.
        unsafe {
            Ok(match world {
                World::CoreCommand => Self::Module(Module::deserialize_file(wasmtime, path)?),
                World::Http | World::Command => Self::Component(Component::deserialize_file(wasmtime, path)?),
            })
        }
    }

    /// Resolves the imports, and finds what is called.
    pub(crate) fn link(&self, engine: &Engine, world: World) -> wasmtime::Result<Code> {
        match (self, world) {
            (Self::Component(component), World::Http) => {
                Ok(Code::Http(ProxyPre::new(engine.component_linker().instantiate_pre(component)?)?))
            }
            (Self::Component(component), World::Command) => {
                Ok(Code::Command(CommandPre::new(engine.component_linker().instantiate_pre(component)?)?))
            }
            (Self::Module(module), World::CoreCommand) => Ok(Code::Core(Program::new(engine, module)?)),
            _ => wasmtime::bail!("a component was taken for a module, or the other way round"),
        }
    }
}

impl Code {
    /// Maps the code of a module, and links it.
    #[expect(unsafe_code, reason = "Wasmtime cannot verify machine code, so loading it is unsafe by nature")]
    pub(crate) fn load(engine: &Engine, checked: &CheckedCode) -> wasmtime::Result<Self> {
        let world = checked.report.world;
        // JUSTIFICATION: see `Unlinked::load`.
        // That the child wrote what the compiler makes is believed: its jail bounds what compiling costs and reaches, and
        // is no proof of its output.
        // SAFETY: the path leads to a file opened by `Cache::open_checked`. This process copied it from what our own child
        // serialized with this very Wasmtime and configuration (both are part of its name), a keyed hash of it was
        // verified since the machine booted, and it has not changed since. Its inode was made by us with mode 0400 in a
        // directory of mode 0700; files there are only ever replaced by rename or removed, and the mapping keeps the
        // inode, so it stays as it is while it is mapped.
        let code = unsafe { Unlinked::load(engine, world, &checked.path())? };
        code.link(engine, world)
    }

    /// Makes an instance and calls nothing. Tells, besides the outcome, what that used.
    pub(crate) async fn try_out(
        &self,
        engine: &Engine,
        limits: &Limits,
        most: Duration,
    ) -> (Result<wasmtime::Result<()>, Elapsed>, Usage) {
        let pre = match self {
            Self::Core(program) => {
                let mut store =
                    preview1::new_store(engine, Process::idle(engine, limits, TRIAL_OUTPUT_BYTES));
                let started = timeout(most, program.instantiate(&mut store)).await;
                return (started.map(|started| started.map(drop)), store.into_data().usage);
            }
            Self::Http(pre) => pre.instance_pre(),
            Self::Command(pre) => pre.instance_pre(),
        };
        let usage = Usage::new(engine, limits);
        let mut store = new_store(engine, limits, Instant::now(), usage, None, WasiCtxBuilder::new());
        let started = timeout(most, pre.instantiate_async(&mut store)).await;
        (started.map(|started| started.map(drop)), store.into_data().usage)
    }
}
