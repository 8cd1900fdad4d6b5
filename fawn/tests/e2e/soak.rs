//! Calls without end: what they take is given back.

use std::{
    env, fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use reqwest::{Body, Client, Method, RequestBuilder};
use runtime_testing::guests::{ECHO, ECHO_HTTP, HELLO_HTTP, LOOP, TRAP};

use crate::{
    edge::{Deployment, Edge},
    guests::text,
    process::eventually,
    streaming::written_later,
};

/// Clients that call at the same time, each over connections of its own.
const CLIENTS: u64 = 16;

/// How long a soak lasts, if `FAWN_SOAK_CALLS` does not say for how many calls.
const LASTS: Duration = Duration::from_secs(40);

/// Calls until everything has been as large as it gets.
const WARM_UP: u64 = 20_000;

/// 33 bytes a call in a million calls. What the allocator keeps for threads that come and go differs by half of it.
const GROWTH_BYTES: u64 = 32 << 20;

/// A slot that is used for the first time, and an area of the allocator, take a few each.
const MORE_MAPPINGS: usize = 512;

/// What the server holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    private_bytes: u64,
    descriptors: usize,
    mappings: usize,
    threads: usize,
}

fn held(edge: &Edge) -> Held {
    let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", edge.process.pid)).unwrap();
    let count = |name: &str| fs::read_dir(format!("/proc/{}/{name}", edge.process.pid)).unwrap().count();
    let kib = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
    let rollup = read("smaps_rollup");
    let private = rollup.lines().filter(|line| line.starts_with("Private_"));
    Held {
        private_bytes: private.map(kib).sum::<u64>() * 1024,
        descriptors: count("fd"),
        mappings: read("maps").lines().count(),
        threads: count("task"),
    }
}

/// One client, and what it has seen.
struct Caller {
    http: Client,
    gateway: String,
    number: u64,
}

impl Caller {
    fn post(&self, function: &str) -> RequestBuilder {
        self.http.request(Method::POST, format!("{}/function/{function}", self.gateway))
    }

    async fn answered(&self, call: RequestBuilder, status: u16) -> Vec<u8> {
        let answer = call.send().await.unwrap();
        assert_eq!(answer.status(), status);
        answer.bytes().await.unwrap().into()
    }

    /// The client goes away: from a guest that computes, or in the middle of a body.
    async fn given_up(&self, nth: u64) {
        // Held until the call is given up, or else the body would end.
        let (_unwritten, body) = written_later();
        let call = match nth % 2 {
            0 => self.post("loop"),
            _ => self.post("copy").body(body),
        };
        tokio::time::timeout(Duration::from_millis(5), call.send()).await.expect_err("no answer");
    }

    async fn call(&self, nth: u64) {
        match nth % 1000 {
            500 => self.given_up(nth / 1000).await,
            250 => {
                let large = vec![b'a' + (self.number % 26) as u8; (1 << 20) + 1 + nth as usize % 1000];
                let back = self.answered(self.post("copy").body(large.clone()), 200).await;
                assert!(back == large, "1 MiB came back as it was");
            }
            nth if nth % 100 == 37 => {
                let back = self.answered(self.post("trap"), 500).await;
                assert!(back.starts_with(b"signal: aborted\n"));
            }
            nth if nth % 100 == 73 => {
                self.answered(self.post("loop").header("x-timeout", "20ms"), 408).await;
            }
            nth if nth % 4 == 0 => {
                let own = format!("client {}, call {nth}", self.number);
                let echo = if nth % 8 == 0 { "copy" } else { "echo" };
                let back = self.answered(self.post(echo).body(Body::from(own.clone())), 200).await;
                assert_eq!(String::from_utf8(back).unwrap(), own);
            }
            _ => assert_eq!(self.answered(self.post("hello-http"), 200).await, b"Hello from Fawn\n"),
        }
    }
}

/// Calls from all clients at once until there were `calls` or it is late, and how many there were.
async fn calls(edge: &Edge, calls: u64, until: Option<Instant>) -> u64 {
    let left = Arc::new(AtomicU64::new(calls));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let http = Client::builder().no_proxy().timeout(crate::process::PATIENCE).build().unwrap();
            let caller = Caller { http, gateway: edge.gateway.clone(), number };
            let left = left.clone();
            tokio::spawn(async move {
                let mut made = 0;
                while until.is_none_or(|end| Instant::now() < end)
                    && left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
                {
                    // Each begins elsewhere, so that they do not all do the same at the same time.
                    caller.call(made + number * 61).await;
                    made += 1;
                }
                made
            })
        })
        .collect();
    let mut made = 0;
    for client in clients {
        made += client.await.unwrap();
    }
    made
}

async fn at_rest(edge: &Edge) {
    eventually("no call holds a slot or memory", async || {
        let held = (edge.metric("fawn_instances").await, edge.metric("fawn_guest_memory_bytes").await);
        (held == (0.0, 0.0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by scripts/test"]
async fn calls_without_end_leave_nothing_behind() {
    let edge = Edge::start().await;
    for (name, guest) in
        [("hello-http", HELLO_HTTP), ("echo", ECHO_HTTP), ("copy", ECHO), ("trap", TRAP), ("loop", LOOP)]
    {
        edge.serve(Deployment::of(name, &edge.upload(text(guest)).await)).await;
    }
    let idle = held(&edge);
    calls(&edge, WARM_UP, None).await;
    at_rest(&edge).await;
    // The clients' connections are gone; files of loaded code may stay.
    eventually("connections are closed", async || {
        (held(&edge).descriptors <= idle.descriptors + 8).then_some(())
    })
    .await;
    let warm = held(&edge);

    let asked = env::var("FAWN_SOAK_CALLS").ok().map(|calls| calls.parse().expect("a number of calls"));
    let began = Instant::now();
    let made = match asked {
        Some(asked) => calls(&edge, asked, None).await,
        None => calls(&edge, u64::MAX, Some(began + LASTS)).await,
    };
    let rate = made as f64 / began.elapsed().as_secs_f64();
    at_rest(&edge).await;
    eprintln!("{made} calls, {rate:.0} a second\nbefore {warm:?}\nafter  {:?}", held(&edge));
    eventually("descriptors, mappings, threads and memory are as before", async || {
        let now = held(&edge);
        let flat = now.descriptors <= warm.descriptors
            && now.mappings <= warm.mappings + MORE_MAPPINGS
            && now.threads <= warm.threads
            && now.private_bytes <= warm.private_bytes + GROWTH_BYTES;
        flat.then_some(())
    })
    .await;
    assert!(made > 10_000, "too few calls to prove anything: {made}");
}
