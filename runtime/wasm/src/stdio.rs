//! Calls of command modules: body on standard input, answer on standard output (`OpenFaaS` classic-watchdog).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use runtime_api::{Body, Error, Invocation, Response, Result, full};
use wasmtime::{Linker, Store};
use wasmtime_wasi::{I32Exit, WasiCtxBuilder, p2::bindings::CommandPre};

use crate::{
    cgi,
    engine::overloaded,
    guest_log::GuestLog,
    instance::{State, new_store},
    output::{Failure, Output},
    pool::{Call, StdioSettings},
    sniff,
    stdin::Stdin,
};

/// The two forms of a command.
pub(crate) enum Program<'a> {
    Component(&'a CommandPre<State>),
    Core(&'a wasmtime::InstancePre<State>),
}

/// How a command ended.
enum End {
    Exit(i32),
    Trap(wasmtime::Error),
    Late,
}

/// Lets a preview 1 command exit with any status: Wasmtime's own `proc_exit` traps from 126 on.
pub(crate) fn link_exit(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let exit = |status: i32| -> wasmtime::Result<()> { Err(I32Exit(status).into()) };
    linker.allow_shadowing(true).func_wrap("wasi_snapshot_preview1", "proc_exit", exit)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Runs a command to its end and answers with its output.
pub(crate) async fn call(call: Call, program: Program<'_>, invocation: Invocation) -> Result<Response> {
    let Invocation { function, call_id, request } = invocation;
    let settings = &call.pool.settings;
    let log = GuestLog::new(&function, &call_id);
    let output = Output::new(settings.stdio.max_output_bytes, call.engine().spill().clone());
    let mut wasi = WasiCtxBuilder::new();
    wasi.args(&settings.args).envs(&settings.env).stdout(output.clone());
    if settings.stdio.combine_output {
        wasi.stderr(output.clone());
    } else {
        wasi.stderr(log.stream("stderr"));
    }
    if settings.stdio.cgi_headers {
        wasi.envs(&cgi::environment(&request));
    }
    let (parts, body) = request.into_parts();
    wasi.stdin(Stdin::new(body));
    let mut store = new_store(call.engine(), &settings.limits, wasi);
    if let Program::Core(_) = program {
        // Counted is the room that a guest offers to a read, as much as it likes; what is copied at once is less.
        store.set_hostcall_fuel(usize::try_from(settings.limits.memory_bytes).unwrap_or(usize::MAX));
    }
    let end = match tokio::time::timeout_at(call.deadline, run(&program, &mut store)).await {
        Ok(Ok(())) => End::Exit(0),
        Ok(Err(error)) => ended(error),
        Err(_) => End::Late,
    };
    if let End::Trap(error) = &end
        && let Some(overloaded) = store.data().lacked_room(error)
    {
        return Err(overloaded);
    }
    // Gives the instance back before the answer is read.
    drop(store);
    answer(&call, end, output, &parts.headers, &log).await
}

async fn run(program: &Program<'_>, store: &mut Store<State>) -> wasmtime::Result<()> {
    match program {
        Program::Core(pre) => {
            let instance = pre.instantiate_async(&mut *store).await?;
            let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
            start.call_async(store, ()).await
        }
        Program::Component(pre) => {
            let command = pre.instantiate_async(&mut *store).await?;
            let result = command.wasi_cli_run().call_run(store).await?;
            result.map_err(|()| I32Exit(1).into())
        }
    }
}

fn ended(error: wasmtime::Error) -> End {
    match error.downcast_ref::<I32Exit>() {
        // A process can tell no more than its status's low 8 bits.
        Some(I32Exit(status)) => End::Exit(status & 0xff),
        None => End::Trap(error),
    }
}

async fn answer(
    call: &Call,
    end: End,
    output: Output,
    request: &HeaderMap,
    log: &GuestLog,
) -> Result<Response> {
    let settings = &call.pool.settings.stdio;
    let (status, prefix) = match &end {
        End::Exit(0) => (StatusCode::OK, String::new()),
        End::Exit(status) => (StatusCode::INTERNAL_SERVER_ERROR, format!("exit status {status}\n")),
        End::Trap(_) => (StatusCode::INTERNAL_SERVER_ERROR, "signal: aborted\n".to_owned()),
        End::Late => {
            log.late(call.limit);
            return Ok(killed());
        }
    };
    let output = output.finish(Bytes::from(prefix)).await.map_err(lost)?;
    if let End::Trap(error) = &end {
        log.trapped(error);
    }
    let mut response = Response::new(output.body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, output.length.into());
    headers.insert(header::CONTENT_TYPE, content_type(settings, status, request, &output.start));
    if let End::Trap(_) = &end {
        headers.insert("x-error-code", HeaderValue::from_static("guest-trap"));
    }
    if status.is_success() {
        let seconds = format!("{:.6}", call.start.elapsed().as_secs_f64());
        headers.insert("x-duration-seconds", HeaderValue::try_from(seconds).map_err(Error::internal)?);
    }
    Ok(response)
}

/// `content_type`, else the request's own, else what the output looks like.
fn content_type(
    settings: &StdioSettings,
    status: StatusCode,
    request: &HeaderMap,
    start: &[u8],
) -> HeaderValue {
    let sniffed = || HeaderValue::from_static(sniff::content_type(start));
    if !status.is_success() {
        return sniffed();
    }
    let forced = settings.content_type.as_deref().and_then(|kind| HeaderValue::from_str(kind).ok());
    forced.or_else(|| request.get(header::CONTENT_TYPE).cloned()).unwrap_or_else(sniffed)
}

fn killed() -> Response {
    let mut response: http::Response<Body> = Response::new(full("Killed process.\n"));
    *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-error-code", HeaderValue::from_static("guest-timeout"));
    response
}

fn lost(failure: Failure) -> Error {
    match failure {
        Failure::TooLarge { limit } => Error::FunctionFailed {
            code: "output-limit",
            message: format!("the function wrote more than {limit} bytes"),
            source: None,
        },
        Failure::NoRoom => overloaded("the node's disk has no room to spare for this call's output"),
        Failure::Disk(error) => Error::Internal(Box::new(error)),
    }
}
