//! Calls of every kind at once, in an order that a seed decides: each gets its own answer, and nothing is left.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt;
use runtime_api::{empty, full};
use runtime_testing::guests::{
    COUNTER, ECHO, ECHO_HTTP, HELLO_HTTP, HTTP_ENDLESS, HTTP_LATE_TRAP, HTTP_LOOP, HTTP_TAIL_TRAP, LOOP, TRAP,
};
use runtime_wasm::InstancePool;

use crate::bench::{Bench, bytes, call, hurried, in_pieces, invocation, text};

/// A test that failed fails again with the seed that it names.
const SEEDS: [u64; 6] = [1, 2, 3, 0xfa, 0x3141_5926, 0x2718_2818];
const CALLERS: u64 = 24;
const CALLS: u64 = 50;

/// xorshift64*, which is enough to mix calls.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// One function of each kind.
struct Functions {
    counter: Arc<InstancePool>,
    echo: Arc<InstancePool>,
    echo_http: Arc<InstancePool>,
    hello_http: Arc<InstancePool>,
    endless: Arc<InstancePool>,
    late_trap: Arc<InstancePool>,
    tail_trap: Arc<InstancePool>,
    trap: Arc<InstancePool>,
    loops: [Arc<InstancePool>; 2],
}

impl Functions {
    async fn new(bench: &Bench) -> Self {
        Self {
            counter: bench.pool(COUNTER).await,
            echo: bench.pool(ECHO).await,
            echo_http: bench.pool(ECHO_HTTP).await,
            hello_http: bench.pool(HELLO_HTTP).await,
            endless: bench.pool(HTTP_ENDLESS).await,
            late_trap: bench.pool(HTTP_LATE_TRAP).await,
            tail_trap: bench.pool(HTTP_TAIL_TRAP).await,
            trap: bench.pool(TRAP).await,
            loops: [bench.pool(LOOP).await, bench.pool(HTTP_LOOP).await],
        }
    }

    fn all(&self) -> [&Arc<InstancePool>; 10] {
        [
            &self.counter,
            &self.echo,
            &self.echo_http,
            &self.hello_http,
            &self.endless,
            &self.late_trap,
            &self.tail_trap,
            &self.trap,
            &self.loops[0],
            &self.loops[1],
        ]
    }

    /// One call of some kind. `own` is told by no other caller.
    async fn any(&self, chance: &mut Chance, own: &str) {
        match chance.below(40) {
            0..8 => {
                let size = 1 + chance.below(200) as usize;
                let long: Bytes = own.repeat(size).into();
                let pool = if chance.below(2) == 0 { &self.echo } else { &self.echo_http };
                let body = match chance.below(2) {
                    0 => full(long.clone()),
                    _ => in_pieces(long.chunks(97).map(Bytes::copy_from_slice).collect()),
                };
                assert!(bytes(pool.invoke(invocation(body), u64::MAX).await.unwrap()).await == long, "{own}");
            }
            8..16 => {
                assert_eq!(
                    text(call(&self.hello_http, "").await.unwrap()).await,
                    "Hello from Fawn\n",
                    "{own}"
                );
            }
            16..24 => assert_eq!(text(call(&self.counter, "").await.unwrap()).await, "1 1 1 2\n", "{own}"),
            24..28 => {
                let answer = call(&self.trap, "").await.unwrap();
                assert_eq!(answer.status(), 500, "{own}");
                assert!(text(answer).await.starts_with("signal: aborted\n"), "{own}");
            }
            28..31 => {
                if let Ok(answer) = call(&self.late_trap, "").await {
                    assert!(answer.into_body().collect().await.is_err(), "{own}: cut short is no clean end");
                }
            }
            31..34 => {
                // Whether the trap comes before the answer is sent is not told.
                if let Ok(answer) = call(&self.tail_trap, "").await
                    && let Ok(body) = answer.into_body().collect().await
                {
                    assert_eq!(body.to_bytes(), "piece\n", "{own}");
                }
            }
            34..37 => {
                let mut body = call(&self.endless, "").await.unwrap().into_body();
                for _ in 0..chance.below(3) {
                    let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
                    assert!(piece.chunks(6).all(|piece| piece == b"piece\n"), "{own}");
                }
            }
            37 => {
                let loops = &self.loops[chance.below(2) as usize];
                match loops.invoke(hurried(empty(), "10ms"), u64::MAX).await {
                    Ok(late) => assert!(matches!(late.status().as_u16(), 408 | 504), "{own}"),
                    Err(waited) => assert!(waited.to_string().contains("time allowed"), "{own}: {waited}"),
                }
            }
            38 => {
                let endless = call(&self.loops[chance.below(2) as usize], "");
                let some = Duration::from_millis(chance.below(10));
                tokio::time::timeout(some, endless).await.expect_err("cancelled");
            }
            _ => self.all()[chance.below(10) as usize].unload(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_every_kind_get_their_own_answers() {
    let bench = Bench::with_slots(3);
    let functions = Arc::new(Functions::new(&bench).await);
    for seed in SEEDS {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let functions = functions.clone();
                let mut chance = Chance(seed.wrapping_mul(CALLERS) + caller + 1);
                tokio::spawn(async move {
                    for nth in 0..CALLS {
                        let own = format!("seed {seed:#x}, caller {caller}, call {nth};");
                        functions.any(&mut chance, &own).await;
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        bench.at_rest(&format!("seed {seed:#x}"), &functions.all()).await;
    }
}
