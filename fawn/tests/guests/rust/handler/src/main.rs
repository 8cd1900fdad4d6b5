//! A wasi:http handler of a few routes.

use std::{env, fs};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use wstd::http::{Body, Client, Error, Request, Response, StatusCode};

type Answer = Result<Response<Body>, Error>;

#[wstd::http_server]
async fn main(request: Request<Body>) -> Answer {
    match request.uri().path() {
        "/" => Ok(Response::new("hello from Rust\n".into())),
        "/echo" => Ok(Response::new(request.into_body())),
        "/answer" => answer(&request),
        "/env" => environment(&request),
        "/file" => file(&request),
        "/fetch" => fetch(request).await,
        "/json" => describe(request).await,
        "/pass" => pass(request).await,
        "/sha256" => sha256(request).await,
        "/throw" => panic!("thrown on purpose"),
        _ => told(StatusCode::NOT_FOUND, "no such route\n"),
    }
}

fn told(status: StatusCode, text: &str) -> Answer {
    Ok(Response::builder().status(status).body(text.to_owned().into())?)
}

fn query(request: &Request<Body>) -> impl Iterator<Item = (&str, &str)> {
    request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='))
}

/// `?status=418&x-name=value`: that status, and every other parameter as a header.
fn answer(request: &Request<Body>) -> Answer {
    let mut response = Response::builder();
    for (name, value) in query(request) {
        response = match name {
            "status" => response.status(value),
            _ => response.header(name, value),
        };
    }
    Ok(response.body("as asked\n".into())?)
}

/// `?name=GREETING`: that variable.
fn environment(request: &Request<Body>) -> Answer {
    let name = query(request).find_map(|(key, value)| (key == "name").then_some(value));
    match name.and_then(|name| env::var(name).ok()) {
        Some(value) => Ok(Response::new(value.into())),
        None => told(StatusCode::NOT_FOUND, "no such variable\n"),
    }
}

/// `?name=/var/openfaas/secrets/token`: what that file holds.
fn file(request: &Request<Body>) -> Answer {
    let name = query(request).find_map(|(key, value)| (key == "name").then_some(value)).unwrap_or_default();
    match fs::read(name) {
        Ok(content) => Ok(Response::new(content.into())),
        Err(error) => told(StatusCode::NOT_FOUND, &format!("{name}: {error}\n")),
    }
}

async fn describe(request: Request<Body>) -> Answer {
    let (head, mut body) = request.into_parts();
    let got: Value = body.json().await?;
    let seen = json!({ "method": head.method.as_str(), "path": head.uri.path(), "got": got });
    Ok(Response::new(Body::from_json(&seen)?))
}

async fn sha256(request: Request<Body>) -> Answer {
    let mut body = request.into_body();
    let digest = Sha256::digest(body.contents().await?);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Response::new(hex.into()))
}

/// Asks the address in the body, and passes the answer on; if there is none, says why.
async fn fetch(request: Request<Body>) -> Answer {
    let mut address = request.into_body();
    let wanted = Request::get(address.str_contents().await?.trim()).body(Body::empty())?;
    answered(wanted).await
}

/// `?to=http://…`: sends the body there, and passes the answer on; if there is none, says why.
async fn pass(request: Request<Body>) -> Answer {
    let to = query(&request).find_map(|(key, value)| (key == "to").then_some(value)).unwrap_or_default();
    let passed = Request::post(to).body(request.into_body())?;
    answered(passed).await
}

async fn answered(request: Request<Body>) -> Answer {
    match Client::new().send(request).await {
        Ok(response) => Ok(Response::builder().status(response.status()).body(response.into_body())?),
        Err(error) => told(StatusCode::BAD_GATEWAY, &format!("{error:?}\n")),
    }
}
