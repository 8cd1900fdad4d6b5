//! Calls of command modules: body on standard input, answer on standard output (`OpenFaaS` classic-watchdog).

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Body as _;
use runtime_api::{Body, Error, Invocation, Response, Result, full};
use tokio::time::{Instant, timeout_at};
use wasmtime::Store;
use wasmtime_wasi::{I32Exit, WasiCtxBuilder, p2::bindings::CommandPre};

use crate::{
    cgi,
    code::Code,
    engine::overloaded,
    guest_log::GuestLog,
    instance::{State, Usage, new_store},
    long::{BoxedRun, Run},
    output::{Buffer, Failure, Output},
    pool::{Call, StdioSettings},
    preview1::{self, Process},
    sniff,
    stdin::Stdin,
};

/// How a command ended.
enum End {
    Exit(i32),
    Trap(wasmtime::Error),
}

/// Runs a command to its end and answers with its output.
pub(crate) async fn call(call: Call, code: Arc<Code>, invocation: Invocation) -> Result<Response> {
    let Invocation { function, call_id, request } = invocation;
    let log = GuestLog::new(&function, &call_id, call.pool.log().cloned());
    log.forking(call.start.into_std());
    let run = match &*code {
        Code::Core(_) => core_run(&call, code, request, &log),
        Code::Command(_) | Code::Http(_) => component_run(&call, code, request, &log),
    };
    let Call { pool, start, deadline, limit, room } = call;
    let (end, output, headers) = match timeout_at(deadline, Run::new(run, room)).await {
        Ok((ran, _)) => ran?,
        Err(_) => {
            log.killed(&pool.settings.args, limit);
            return Ok(killed());
        }
    };
    answer(&pool.settings.stdio, start, end, output, &headers, &log).await
}

/// How it ended, what it wrote, and the request's headers.
type Ran = Result<(End, Buffer, HeaderMap)>;

fn core_run(call: &Call, code: Arc<Code>, request: http::Request<Body>, log: &GuestLog) -> BoxedRun<Ran> {
    let mut store = preview1::new_store(call.engine(), Process::new(call, request, log));
    Box::pin(async move {
        let result = match &*code {
            Code::Core(program) => program.run(&mut store).await,
            Code::Command(_) | Code::Http(_) => Err(wasmtime::format_err!("it is no command module")),
        };
        // Gives the instance back before the answer is read.
        let Process { output, request, usage, .. } = store.into_data();
        Ok((end(result, &usage)?, output, request.headers))
    })
}

fn component_run(
    call: &Call,
    code: Arc<Code>,
    request: http::Request<Body>,
    log: &GuestLog,
) -> BoxedRun<Ran> {
    let settings = &call.pool.settings;
    let output = Output::new(settings.stdio.max_output_bytes, call.engine().spill().clone());
    let mut wasi = WasiCtxBuilder::new();
    wasi.args(&settings.args).envs(&settings.env).stdout(output.clone());
    if settings.stdio.combine_output {
        wasi.stderr(output.clone());
    } else {
        wasi.stderr(log.stream("stderr"));
    }
    let (parts, body) = request.into_parts();
    if settings.stdio.cgi_headers {
        wasi.envs(&cgi::environment(&parts, body.size_hint().exact()));
    }
    wasi.stdin(Stdin::new(body));
    let mut store =
        new_store(call.engine(), &settings.limits, call.start, call.usage(), call.secrets(), wasi);
    Box::pin(async move {
        let result = match &*code {
            Code::Command(pre) => run(pre, &mut store).await,
            Code::Core(_) | Code::Http(_) => Err(wasmtime::format_err!("it is no command component")),
        };
        // Gives the instance back before the answer is read.
        let end = end(result, &store.into_data().usage)?;
        Ok((end, output.take(), parts.headers))
    })
}

async fn run(pre: &CommandPre<State>, store: &mut Store<State>) -> wasmtime::Result<()> {
    let command = pre.instantiate_async(&mut *store).await?;
    let result = command.wasi_cli_run().call_run(store).await?;
    result.map_err(|()| I32Exit(1).into())
}

/// What ended for want of room on the node can be tried again.
fn end(result: wasmtime::Result<()>, usage: &Usage) -> Result<End> {
    let Err(error) = result else { return Ok(End::Exit(0)) };
    match error.downcast_ref::<I32Exit>() {
        // A process can tell no more than its status's low 8 bits.
        Some(I32Exit(status)) => Ok(End::Exit(status & 0xff)),
        None => usage.lacked_room(&error).map_or(Ok(End::Trap(error)), Err),
    }
}

async fn answer(
    settings: &StdioSettings,
    call_start: Instant,
    end: End,
    output: Buffer,
    request: &HeaderMap,
    log: &GuestLog,
) -> Result<Response> {
    let (status, prefix) = match &end {
        End::Exit(0) => (StatusCode::OK, String::new()),
        End::Exit(status) => (StatusCode::INTERNAL_SERVER_ERROR, format!("exit status {status}\n")),
        End::Trap(_) => (StatusCode::INTERNAL_SERVER_ERROR, "signal: aborted\n".to_owned()),
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
        let took = call_start.elapsed();
        log.wrote(output.length, call_start.into_std(), took);
        let seconds = format!("{:.6}", took.as_secs_f64());
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
            code: "output-limit".into(),
            message: format!("the function wrote more than {limit} bytes"),
            source: None,
        },
        Failure::NoRoom => overloaded("the node's disk has no room to spare for this call's output"),
        Failure::Disk(error) => Error::Internal(Box::new(error)),
    }
}
