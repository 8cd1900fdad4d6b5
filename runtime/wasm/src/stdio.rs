//! Calls of command modules: body on standard input, answer on standard output (`OpenFaaS` classic-watchdog).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Body as _;
use runtime_api::{Body, Error, Invocation, Response, Result, full};
use wasmtime::Store;
use wasmtime_wasi::{I32Exit, WasiCtxBuilder, p2::bindings::CommandPre};

use crate::{
    cgi,
    engine::overloaded,
    guest_log::GuestLog,
    instance::{State, Usage, new_store},
    output::{Buffer, Failure, Output},
    pool::{Call, StdioSettings},
    preview1::{self, Process},
    sniff,
    stdin::Stdin,
};

/// The two forms of a command.
pub(crate) enum Program<'a> {
    Component(&'a CommandPre<State>),
    Core(&'a preview1::Program),
}

/// How a command ended.
enum End {
    Exit(i32),
    Trap(wasmtime::Error),
    Late,
}

/// Runs a command to its end and answers with its output.
pub(crate) async fn call(call: Call, program: Program<'_>, invocation: Invocation) -> Result<Response> {
    let Invocation { function, call_id, request } = invocation;
    let log = GuestLog::new(&function, &call_id);
    let (end, output, headers) = match program {
        Program::Component(pre) => run_component(&call, pre, request, &log).await?,
        Program::Core(program) => run_core(&call, program, request, &log).await?,
    };
    answer(&call, end, output, &headers, &log).await
}

/// How it ended, what it wrote, and the request's headers.
type Ran = Result<(End, Buffer, HeaderMap)>;

async fn run_core(
    call: &Call,
    program: &preview1::Program,
    request: http::Request<Body>,
    log: &GuestLog,
) -> Ran {
    let mut store = preview1::new_store(call.engine(), Process::new(call, request, log));
    let end = end(call, program.run(&mut store)).await;
    // Gives the instance back before the answer is read.
    let Process { output, request, usage, .. } = store.into_data();
    Ok((end.unless_lacking_room(&usage)?, output, request.headers))
}

async fn run_component(
    call: &Call,
    pre: &CommandPre<State>,
    request: http::Request<Body>,
    log: &GuestLog,
) -> Ran {
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
    let mut store = new_store(call.engine(), &settings.limits, wasi);
    let end = end(call, run(pre, &mut store)).await;
    // Gives the instance back before the answer is read.
    let end = end.unless_lacking_room(&store.into_data().usage)?;
    Ok((end, output.take(), parts.headers))
}

async fn run(pre: &CommandPre<State>, store: &mut Store<State>) -> wasmtime::Result<()> {
    let command = pre.instantiate_async(&mut *store).await?;
    let result = command.wasi_cli_run().call_run(store).await?;
    result.map_err(|()| I32Exit(1).into())
}

async fn end(call: &Call, run: impl Future<Output = wasmtime::Result<()>>) -> End {
    match tokio::time::timeout_at(call.deadline, run).await {
        Ok(Ok(())) => End::Exit(0),
        Ok(Err(error)) => ended(error),
        Err(_) => End::Late,
    }
}

impl End {
    /// What ended for want of room on the node can be tried again.
    fn unless_lacking_room(self, usage: &Usage) -> Result<Self> {
        match &self {
            Self::Trap(error) => usage.lacked_room(error).map_or(Ok(self), Err),
            Self::Exit(_) | Self::Late => Ok(self),
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
    output: Buffer,
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
