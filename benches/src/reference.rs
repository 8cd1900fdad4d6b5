use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    sync::Barrier,
    thread,
};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use clap::ValueEnum;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpSocket, runtime::Builder};

use crate::guests::HELLO;

/// How the bare server uses the cores.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Mode {
    /// One runtime that steals work.
    MultiThread,
    /// One runtime a core, each with a listener on the same port (SO_REUSEPORT).
    PerCore,
}

/// Serves with nothing but hyper: GET is answered with a fixed text, POST with its own body. Prints its address.
pub(crate) fn serve(mode: Mode) -> Result<()> {
    let (runtimes, threads) = match mode {
        Mode::MultiThread => (1, thread::available_parallelism()?.get()),
        Mode::PerCore => (thread::available_parallelism()?.get(), 1),
    };
    // This socket never listens: it keeps the port for those that do.
    let port = bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = port.local_addr()?;
    let ready = Barrier::new(runtimes + 1);
    thread::scope(|scope| {
        let running: Vec<_> =
            (0..runtimes).map(|_| scope.spawn(|| accept(address, threads, &ready))).collect();
        ready.wait();
        writeln!(std::io::stdout(), "reference ready http://{address}")?;
        running.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })
}

fn bind(address: SocketAddr) -> Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn accept(address: SocketAddr, threads: usize, ready: &Barrier) -> Result<()> {
    let mut runtime = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    runtime.worker_threads(threads).enable_all().build()?.block_on(async {
        let listener = bind(address)?.listen(1024)?;
        ready.wait();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // A client that goes away is no concern of this server's.
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
        }
    })
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = match *request.method() {
        Method::GET => Bytes::from_static(HELLO.as_bytes()),
        _ => request.into_body().collect().await?.to_bytes(),
    };
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    Ok(response)
}
