use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use http_body_util::BodyExt;
use runtime_api::Error;
use runtime_egress::Policy;
use rustix::io::Errno;
use tokio::time::Instant;
use wasmtime::{PoolConcurrencyLimitError, ResourceLimiter, Store, UpdateDeadline, component::ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    Error as HttpError, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::{
    engine::{Budget, Engine, overloaded},
    long::give_way,
    outgoing,
    secrets::Directory,
};

/// Resources that one call may hold. A guest needs a handful, but JavaScript's keeps one for each piece of a stream
/// until its collector runs.
const MAX_RESOURCES: usize = 1 << 14;

/// Bytes that one hostcall may lift out of a guest.
pub(crate) const HOSTCALL_FUEL: usize = 8 << 20;

/// Header fields of one message that a guest makes, as they lie in memory.
const FIELD_SIZE_LIMIT: usize = 16 << 10;

/// What an element of a table takes: a pointer.
const ELEMENT_BYTES: u64 = size_of::<usize>() as u64;

/// Bytes of one write to an outgoing body; also what back-pressure lets stand in memory.
const BODY_CHUNK_BYTES: usize = 64 << 10;

/// Random bytes that one hostcall may ask for.
pub(crate) const MAX_RANDOM_BYTES: u64 = 64 << 10;

/// What one call may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// All linear memories and tables of the instance together, in bytes.
    pub memory_bytes: u64,
    /// Where its requests may go.
    pub egress: Policy,
}

/// What a store holds: the guest's view of the world, and what it has used of its limits.
pub(crate) struct State {
    wasi: WasiCtx,
    /// When the call began.
    pub(crate) start: Instant,
    pub(crate) table: ResourceTable,
    /// None for a function that names no secrets.
    pub(crate) secrets: Option<Directory>,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    pub(crate) usage: Usage,
}

/// A fresh sandbox for one call.
pub(crate) fn new_store(
    engine: &Engine,
    limits: &Limits,
    start: Instant,
    usage: Usage,
    secrets: Option<Directory>,
    mut wasi: WasiCtxBuilder,
) -> Store<State> {
    // Toolchains import wasi:sockets whether a function needs it or not, so that it is there and refuses. What leaves a
    // guest is a request of wasi:http, whose names and addresses are checked.
    wasi.max_random_size(MAX_RANDOM_BYTES).allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
    let mut http = WasiHttpCtx::new();
    http.set_field_size_limit(FIELD_SIZE_LIMIT);
    let state = State {
        wasi: wasi.build(),
        start,
        table: ResourceTable::new(),
        secrets,
        http,
        outgoing: Outgoing { policy: limits.egress.clone() },
        usage,
    };
    let mut store = Store::new(engine.wasmtime(), state);
    store.data_mut().table.set_max_capacity(MAX_RESOURCES);
    store.set_hostcall_fuel(HOSTCALL_FUEL);
    bound(&mut store, |state| &mut state.usage);
    store
}

/// Bounds what a guest may use, and how long it runs without giving way.
pub(crate) fn bound<T: 'static>(store: &mut Store<T>, usage: fn(&mut T) -> &mut Usage) {
    store.limiter(move |state| usage(state));
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|_| Ok(UpdateDeadline::YieldCustom(1, Box::pin(give_way()))));
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outgoing, table: &mut self.table, ctx: &mut self.http }
    }
}

struct Outgoing {
    policy: Policy,
}

type SentResponse = (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), HttpError>> + Send>);

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ) -> Box<dyn Future<Output = Result<SentResponse, HttpError>> + Send> {
        let policy = self.policy.clone();
        Box::new(async move {
            let response = outgoing::send(&policy, request, options).await?;
            let done: Box<dyn Future<Output = Result<(), HttpError>> + Send> =
                Box::new(std::future::ready(Ok(())));
            Ok((response.map(BodyExt::boxed_unsync), done))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }
}

/// Memory that one call holds, tables among it, taken from the node's budget, counted for the function, and given back
/// when the store is dropped.
pub(crate) struct Usage {
    pub(crate) memory_bytes: u64,
    pub(crate) limit_bytes: u64,
    /// What it has of the node's budget: no less than it holds.
    taken_bytes: u64,
    begins_with_bytes: u64,
    /// The most that one memory can grow to.
    slot_bytes: u64,
    node: Arc<Budget>,
    /// What all calls of the function have.
    function: Option<Arc<AtomicU64>>,
    pub(crate) refused: Option<Refused>,
}

impl Usage {
    /// Of nobody's function, with that limit.
    pub(crate) fn new(engine: &Engine, limits: &Limits) -> Self {
        Self {
            memory_bytes: 0,
            limit_bytes: limits.memory_bytes,
            taken_bytes: 0,
            begins_with_bytes: 0,
            slot_bytes: engine.slot_bytes(),
            node: engine.memory().clone(),
            function: None,
            refused: None,
        }
    }

    /// Of a function, whose instances begin with that much. That is taken at once, and allowed in any case: whether it
    /// may be is asked when the function is deployed, and later versions may count more.
    pub(crate) fn of(mut self, function: &Arc<AtomicU64>, begins_with_bytes: u64) -> Self {
        self.function = Some(function.clone());
        self.begins_with_bytes = begins_with_bytes;
        self.limit_bytes = self.limit_bytes.max(begins_with_bytes);
        self
    }

    /// Whether a call ended for want of room on the node, and not by the guest's doing.
    pub(crate) fn lacked_room(&self, error: &wasmtime::Error) -> Option<Error> {
        if self.refused == Some(Refused::Node) {
            return Some(overloaded("the node has no memory to spare for this call"));
        }
        let full = error.downcast_ref::<PoolConcurrencyLimitError>();
        full.map(|_| overloaded("the node's instance pool is full"))
    }
}

/// Why memory was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The function's own limit.
    Limit {
        /// What it would have come to.
        wanted_bytes: u64,
    },
    /// The node's budget, or the kernel.
    Node,
}

impl Usage {
    /// Takes so many bytes more, or refuses them.
    fn take(&mut self, bytes: u64) -> wasmtime::Result<bool> {
        let total = self.memory_bytes.saturating_add(bytes);
        if total > self.limit_bytes {
            self.refused = Some(Refused::Limit { wanted_bytes: total });
            return Ok(false);
        }
        if total > self.taken_bytes {
            // All that an instance begins with, so that its memories and tables do not each ask.
            let more = total.max(self.begins_with_bytes) - self.taken_bytes;
            if !self.node.take(more) {
                // Not the guest's doing, so it is not asked to cope: the call ends and can be tried again.
                self.refused = Some(Refused::Node);
                return Err(wasmtime::format_err!("the node's memory budget is used up"));
            }
            if let Some(function) = &self.function {
                function.fetch_add(more, Ordering::Relaxed);
            }
            self.taken_bytes += more;
        }
        self.memory_bytes = total;
        Ok(true)
    }
}

/// What cannot grow by its own type or for want of room in its slot takes nothing, and that is not the limit's doing.
impl ResourceLimiter for Usage {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits = fits(desired, maximum) && desired as u64 <= self.slot_bytes;
        Ok(fits && self.take(more(current, desired))?)
    }

    /// What the kernel has no memory for is no more the guest's doing than a budget that is used up.
    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        if errno(&error) != Some(Errno::NOMEM) {
            return Ok(());
        }
        self.refused = Some(Refused::Node);
        Err(error)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(fits(desired, maximum) && self.take(more(current, desired).saturating_mul(ELEMENT_BYTES))?)
    }
}

/// What the kernel answered, if that is why something failed.
pub(crate) fn errno(error: &wasmtime::Error) -> Option<Errno> {
    error.chain().find_map(|cause| {
        cause.downcast_ref().copied().or_else(|| Errno::from_io_error(cause.downcast_ref()?))
    })
}

fn fits(desired: usize, maximum: Option<usize>) -> bool {
    maximum.is_none_or(|maximum| desired <= maximum)
}

fn more(current: usize, desired: usize) -> u64 {
    (desired as u64).saturating_sub(current as u64)
}

impl Drop for Usage {
    fn drop(&mut self) {
        if self.taken_bytes == 0 {
            return;
        }
        self.node.give_back(self.taken_bytes);
        if let Some(function) = &self.function {
            function.fetch_sub(self.taken_bytes, Ordering::Relaxed);
        }
    }
}
