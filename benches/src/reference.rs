use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    thread,
};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use clap::ValueEnum;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::Builder,
};

use crate::HELLO;

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
    match mode {
        Mode::MultiThread => Builder::new_multi_thread().enable_all().build()?.block_on(async {
            let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            announce(&listener)?;
            accept(listener).await
        }),
        Mode::PerCore => serve_per_core(),
    }
}

fn serve_per_core() -> Result<()> {
    let first = Builder::new_current_thread().enable_all().build()?;
    let listener = first.block_on(async { listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))) })?;
    let address = listener.local_addr()?;
    thread::scope(|scope| {
        let others: Vec<_> = (1..thread::available_parallelism()?.get())
            .map(|_| {
                scope.spawn(move || {
                    let runtime = Builder::new_current_thread().enable_all().build()?;
                    runtime.block_on(async { accept(listen(address)?).await })
                })
            })
            .collect();
        announce(&listener)?;
        first.block_on(accept(listener))?;
        for other in others {
            other.join().map_err(|_| anyhow!("a serving thread panicked"))??;
        }
        Ok(())
    })
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket.listen(1024)?)
}

fn announce(listener: &TcpListener) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "reference ready http://{}", listener.local_addr()?)?;
    Ok(out.flush()?)
}

async fn accept(listener: TcpListener) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            // A client that goes away is no concern of this server's.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = match *request.method() {
        Method::GET => Bytes::from_static(HELLO.as_bytes()),
        _ => request.into_body().collect().await?.to_bytes(),
    };
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("text/plain"));
    Ok(response)
}
